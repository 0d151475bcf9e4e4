//! What a controller and a relay use by themselves, with as many sessions as a relay takes by default.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::sleep;

use crate::sessions::wish_for;
use crate::stage::Stage;
use crate::usage::Usage;
use crate::{IDLE_WITH_ALL, SETTLING, mib};

/// The chart's `listeners.capacity`.
const SESSIONS: usize = 500;

/// What one process has used.
struct Used {
    without: Usage,
    /// Once all sessions are served, which is before `idled`.
    begun: Usage,
    idled: Usage,
}

/// Prints what the processes on stage use.
pub async fn measure(stage: &Stage) -> Result<()> {
    sleep(SETTLING).await;
    let without = usages(stage)?;
    let starting = Instant::now();
    wish_for(stage, SESSIONS).await?;
    let starting = starting.elapsed();
    sleep(SETTLING).await;
    let begun = usages(stage)?;
    sleep(IDLE_WITH_ALL).await;
    let used = without.into_iter().zip(begun).zip(usages(stage)?);
    let used = used.map(|((without, begun), idled)| Used {
        without,
        begun,
        idled,
    });

    println!(
        "\n{:<28}{:>12}{:>12}{:>12}{:>14}{:>14}",
        format!("apart, {SESSIONS} sessions"),
        "RSS without",
        "RSS with",
        "peak",
        "CPU starting",
        "CPU idling",
    );
    for (name, used) in ["controller", "relay"].iter().zip(used) {
        let per_second = |before: &Usage, after: &Usage, elapsed: Duration| {
            let cpu = after.cpu.saturating_sub(before.cpu);
            cpu.as_secs_f64() * 1e3 / elapsed.as_secs_f64()
        };
        println!(
            "{name:<28}{:>8.1} MiB{:>8.1} MiB{:>8.1} MiB{:>9.1} ms/s{:>9.1} ms/s",
            mib(used.without.resident_bytes),
            mib(used.idled.resident_bytes),
            mib(used.idled.resident_peak_bytes),
            per_second(&used.without, &used.begun, starting),
            per_second(&used.begun, &used.idled, IDLE_WITH_ALL),
        );
    }
    Ok(())
}

fn usages(stage: &Stage) -> Result<Vec<Usage>> {
    let processes = stage.operator().iter();
    processes.map(|process| Usage::of(process.pid())).collect()
}
