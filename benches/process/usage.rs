//! What a process has used so far, as Linux counts it.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// The unit of CPU times in `/proc`: `USER_HZ`, which is 100 on every architecture that this runs on.
const TICK: Duration = Duration::from_millis(10);

/// Fields of `/proc/<pid>/stat` behind the program's name, before user time.
const FIELDS_BEFORE_CPU: usize = 11;

/// What a process has used.
pub struct Usage {
    /// RSS.
    pub resident_bytes: u64,
    /// The most that RSS ever was.
    pub resident_peak_bytes: u64,
    /// In user mode and in the kernel, all threads.
    pub cpu: Duration,
}

impl Usage {
    /// What the process has used so far.
    ///
    /// # Errors
    /// There is no such process.
    pub fn of(pid: u32) -> Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).with_context(|| format!("reading {path}"))
        };
        let (status, stat) = (read("status")?, read("stat")?);
        Ok(Self {
            resident_bytes: bytes(&status, "VmRSS:")?,
            resident_peak_bytes: bytes(&status, "VmHWM:")?,
            cpu: cpu(&stat).with_context(|| format!("no CPU times in {stat}"))?,
        })
    }
}

/// A line such as `VmRSS:     1234 kB`.
fn bytes(status: &str, name: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 = kib.with_context(|| format!("no {name}"))?.parse()?;
    Ok(kib * 1024)
}

/// User and system time. The name before them is in parentheses and may have some itself.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(FIELDS_BEFORE_CPU);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some(TICK * (ticks()? + ticks()?))
}
