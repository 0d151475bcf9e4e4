//! What the operator costs as it is deployed, in memory and CPU: as processes of its own, between a real Kubernetes control
//! plane and a simulated AWS, seen from outside through `/proc`. Linux only. First `all-in-one`:
//!
//! - Time: from the POST of an SsmSession until a watch shows it available, next to the same for an object that nobody
//!   does anything about. Between them are the listener, its binding, two records, StartSession, a websocket and its
//!   handshake, the slice and the status, each with a round trip or more to the API server or to AWS.
//! - Memory: RSS without a session, with one and with many, each an SsmSession with one port and so one AWS session.
//!   What one more costs decides how many a relay may take within its limit.
//! - CPU for bytes: seconds for a GB through the relay, up and down, next to a process that only copies between two
//!   sockets. Clients, gateway, agent and destination are not in these processes, and not counted.
//! - Idling: what sessions cost while nobody uses them, in CPU and in calls of AWS, which throttles whole accounts.
//!
//! Then [`apart`]: controller and relay by themselves, with as many sessions as a relay takes by default. The chart's requests
//! and limits are chosen by that.
//!
//! How to read it: RSS hardly depends on what else runs, but CPU time does, since busy neighbours make each byte dearer.
//! So compare ratios between runs: to the process without a session, or to the plain copy, with which the relay takes
//! turns. CPU time is counted in ticks of 10 ms, so a figure of a few ticks is a rough one. It takes about five minutes,
//! most of them waiting.
#![allow(
    clippy::cast_precision_loss,
    clippy::print_stdout,
    reason = "a benchmark prints what it has measured"
)]

#[path = "../../tests/support/control_plane/mod.rs"]
mod control_plane;
#[path = "../../tests/support/dial.rs"]
mod dial;
#[path = "../../tests/support/http.rs"]
mod http;
#[path = "../../tests/support/process.rs"]
mod process;
#[path = "../../tests/support/stage.rs"]
mod stage;
#[path = "../../tests/support/transfer.rs"]
mod transfer;
#[path = "../../tests/support/wait.rs"]
mod wait;

mod apart;
mod forwarder;
mod sessions;
mod usage;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::net::TcpStream;
use tokio::time::sleep;

use process::Process;
use stage::{Setting, Stage, WAIT_MAX};
use usage::Usage;

/// Sessions at the end, of one port each.
const SESSIONS: usize = 100;

/// Sessions that are timed, one after the other.
const TIMED: usize = 50;

/// How often relay and plain copy take turns; what they used is added up.
const TURNS: u32 = 3;

/// Bytes each way through the relay in one turn: some tens of ticks.
const RELAYED_BYTES: u64 = 32 << 20;

/// Bytes each way through the plain copy in one turn: it needs more of them for as many ticks.
const COPIED_BYTES: u64 = 256 << 20;

/// Until what a change has set off is over: watches, conditions, events.
const SETTLING: Duration = Duration::from_secs(3);

/// Idling without a session.
const IDLE_WITHOUT: Duration = Duration::from_secs(20);

/// Idling with all sessions: several renewals of the Lease, and two polls of AWS.
const IDLE_WITH_ALL: Duration = Duration::from_secs(40);

#[tokio::main]
async fn main() -> Result<()> {
    if !cfg!(target_os = "linux") {
        println!("process: not measured, since only Linux has /proc");
        return Ok(());
    }
    if let Some(destination) = forwarder::destination() {
        return forwarder::run(destination).await;
    }
    if cfg!(debug_assertions) {
        println!("built without optimization: these figures say nothing");
    }
    println!(
        "process: starting a control plane, a simulated AWS and the operator; about five minutes"
    );
    let program = PathBuf::from(env!("CARGO_BIN_EXE_ssm-session-operator"));
    println!("binary: {:.1} MiB", mib(program.metadata()?.len()));
    on_stage(&["all-in-one"], measure).await?;
    on_stage(&["controller", "relay"], apart::measure).await
}

/// Measures what these processes use on a stage of their own.
async fn on_stage(
    commands: &'static [&'static str],
    measure: impl AsyncFnOnce(&Stage) -> Result<()>,
) -> Result<()> {
    let stage = Stage::set(Setting {
        class: sessions::CLASS,
        program: PathBuf::from(env!("CARGO_BIN_EXE_ssm-session-operator")),
        commands,
        options: &[],
        say: |_| {},
    })
    .await?;
    let namespace = format!("create namespace {}", sessions::NAMESPACE);
    stage.kubectl(&namespace).await?;
    let measured = measure(&stage).await;
    if measured.is_err() {
        println!("The operator's last words:\n{}", stage.last_words());
    }
    stage.strike().await?;
    measured
}

async fn measure(stage: &Stage) -> Result<()> {
    let pid = stage.operator()[0].pid();
    sleep(SETTLING).await;
    let idle = Idle::measure(stage, IDLE_WITHOUT).await?;
    let mut resident = vec![(0, Usage::of(pid)?.resident_bytes)];
    for count in [1, SESSIONS] {
        sessions::wish_for(stage, count).await?;
        sleep(SETTLING).await;
        resident.push((count, Usage::of(pid)?.resident_bytes));
    }
    let idle_with_all = Idle::measure(stage, IDLE_WITH_ALL).await?;

    let relay_address = sessions::relay_address(stage).await?;
    let (forwarder, forwarder_address) = start_forwarder(stage).await?;
    let (mut relayed, mut copied) = (Carried::default(), Carried::default());
    for _ in 0..TURNS {
        relayed.add(relay_address, pid, RELAYED_BYTES).await?;
        copied
            .add(forwarder_address, forwarder.pid(), COPIED_BYTES)
            .await?;
    }
    forwarder.stop().await?;
    let peak_bytes = Usage::of(pid)?.resident_peak_bytes;
    let (mut shown, mut available) = (Vec::new(), Vec::new());
    for number in 0..TIMED {
        shown.push(sessions::time_to_shown(stage, number).await?);
        available.push(sessions::time_to_available(stage, number).await?);
    }

    print_times(shown, available);
    print_memory(&resident, peak_bytes);
    print_carried(&relayed, &copied);
    print_idle(&idle, &idle_with_all);
    Ok(())
}

/// A process that forwards to the destination, and where.
async fn start_forwarder(stage: &Stage) -> Result<(Process, SocketAddr)> {
    let log = stage.control_plane().dir().join("forwarder.log");
    let destination = stage.server().address().to_string();
    let arguments = [forwarder::COMMAND.to_owned(), destination];
    let program = std::env::current_exe()?;
    let mut process = Process::start(&log, &program, &arguments, &[]).await?;
    let line = process.wait_for_log(forwarder::LISTENING, WAIT_MAX).await?;
    let address = line.trim_start_matches(forwarder::LISTENING).parse()?;
    Ok((process, address))
}

/// What carrying bytes took of a process.
#[derive(Default)]
struct Carried {
    /// Bytes each way.
    bytes: u64,
    up: Duration,
    down: Duration,
}

impl Carried {
    /// Carries so many bytes more each way.
    async fn add(&mut self, address: SocketAddr, pid: u32, bytes: u64) -> Result<()> {
        let mut connection = TcpStream::connect(address).await.context("dialling")?;
        // The first bytes of a connection set up what the others find.
        transfer::exchange(&mut connection, 1, 1).await?;
        let before = Usage::of(pid)?.cpu;
        transfer::exchange(&mut connection, bytes, 0).await?;
        let between = Usage::of(pid)?.cpu;
        transfer::exchange(&mut connection, 0, bytes).await?;
        let after = Usage::of(pid)?.cpu;
        self.bytes += bytes;
        self.up += between.saturating_sub(before);
        self.down += after.saturating_sub(between);
        Ok(())
    }

    /// CPU seconds for a GB that the client sent, and for one that it received.
    fn seconds_per_gigabyte(&self) -> [f64; 2] {
        [self.up, self.down].map(|cpu| cpu.as_secs_f64() / (self.bytes as f64 / 1e9))
    }
}

/// What idling took.
struct Idle {
    elapsed: Duration,
    cpu: Duration,
    /// Calls of AWS by their names.
    calls: Vec<(String, u64)>,
}

impl Idle {
    async fn measure(stage: &Stage, duration: Duration) -> Result<Self> {
        let pid = stage.operator()[0].pid();
        let (begun, calls, cpu) = (Instant::now(), aws_calls(stage), Usage::of(pid)?.cpu);
        sleep(duration).await;
        let calls_since = aws_calls(stage).into_iter().map(|(name, total)| {
            let before = calls.iter().find(|(other, _)| *other == name);
            (name, total - before.map_or(0, |(_, before)| *before))
        });
        Ok(Self {
            calls: calls_since.filter(|(_, count)| *count > 0).collect(),
            cpu: Usage::of(pid)?.cpu.saturating_sub(cpu),
            elapsed: begun.elapsed(),
        })
    }

    fn cpu_ms_per_second(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e3 / self.elapsed.as_secs_f64()
    }

    fn calls_per_minute(&self) -> String {
        let per_minute = |count: u64| count as f64 * 60.0 / self.elapsed.as_secs_f64();
        let calls = self.calls.iter();
        let words: Vec<_> = calls
            .map(|(name, count)| format!("{name} {:.1}", per_minute(*count)))
            .collect();
        if words.is_empty() {
            "none".to_owned()
        } else {
            words.join(", ")
        }
    }
}

/// Calls of AWS so far, by their names.
fn aws_calls(stage: &Stage) -> Vec<(String, u64)> {
    let calls = stage.simulator().overview().calls.into_iter();
    calls
        .map(|(operation, calls)| (format!("{operation:?}"), calls.total))
        .collect()
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn print_times(mut shown: Vec<Duration>, mut available: Vec<Duration>) {
    shown.sort();
    available.sort();
    println!(
        "\n{:<28}{:>16}{:>16}{:>10}",
        "from POST until a watch", "shows an object", "says Available", "ratio"
    );
    for (name, percent) in [("median", 50), ("p99", 99)] {
        let at = |times: &[Duration]| times[times.len() * percent / 100].as_secs_f64() * 1e3;
        let (shown, available) = (at(&shown), at(&available));
        let ratio = available / shown;
        println!("{name:<28}{shown:>13.1} ms{available:>13.1} ms{ratio:>10.1}");
    }
}

fn print_memory(resident: &[(usize, u64)], peak_bytes: u64) {
    println!("\n{:<28}{:>16}{:>10}", "memory", "RSS", "ratio");
    let without = resident.first().map_or(0, |(_, bytes)| *bytes);
    let print = |name: String, bytes: u64| {
        let ratio = bytes as f64 / without as f64;
        println!("{name:<28}{:>12.1} MiB{ratio:>10.2}", mib(bytes));
    };
    for (sessions, bytes) in resident {
        print(format!("sessions: {sessions}"), *bytes);
    }
    print("peak, bytes carried as well".to_owned(), peak_bytes);
    if let [.., (fewer, before), (more, after)] = resident {
        let each = (*after as f64 - *before as f64) / (more - fewer) as f64 / 1024.0;
        println!("{:<28}{each:>12.0} KiB", "one more session");
    }
}

fn print_carried(relayed: &Carried, copied: &Carried) {
    println!(
        "\n{:<28}{:>16}{:>16}{:>10}",
        "CPU for a GB", "plain copy", "operator", "ratio"
    );
    let ([copied_up, copied_down], [relayed_up, relayed_down]) = (
        copied.seconds_per_gigabyte(),
        relayed.seconds_per_gigabyte(),
    );
    for (name, copied, relayed) in [
        ("up", copied_up, relayed_up),
        ("down", copied_down, relayed_down),
    ] {
        let ratio = relayed / copied;
        println!("{name:<28}{copied:>14.2} s{relayed:>14.2} s{ratio:>10.1}");
    }
}

fn print_idle(without: &Idle, with_all: &Idle) {
    println!("\n{:<28}{:>16}{:>10}", "idling", "CPU", "ratio");
    let unit = without.cpu_ms_per_second();
    for (sessions, idle) in [(0, without), (SESSIONS, with_all)] {
        let (name, cpu) = (format!("sessions: {sessions}"), idle.cpu_ms_per_second());
        println!("{name:<28}{cpu:>11.1} ms/s{:>10.2}", cpu / unit);
    }
    let (name, calls) = ("calls of AWS a minute", with_all.calls_per_minute());
    println!("{name:<28}{calls}, for all {SESSIONS} sessions together");
}
