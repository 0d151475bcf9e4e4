//! Long waits: with a deadline, and a line now and then for whoever watches.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

/// Six minutes on two cores, with slow downloads on top.
pub(super) const BUILT_WITHIN: Duration = Duration::from_secs(30 * 60);
/// Often enough that nobody takes a build for a hang.
const PROGRESS_EVERY: Duration = Duration::from_secs(15);
/// Short against a build, long against the cost of looking.
const POLL_EVERY: Duration = Duration::from_millis(50);

/// Looks until there is an answer; none when the time is up.
pub(super) fn wait_until<T>(
    within: Duration,
    mut look: impl FnMut() -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    let started = Instant::now();
    loop {
        if let Some(answer) = look()? {
            return Ok(Some(answer));
        }
        if started.elapsed() > within {
            return Ok(None);
        }
        thread::sleep(POLL_EVERY);
    }
}

/// Lines about a long wait, past the capture of a test's output.
pub(super) struct Progress {
    what: String,
    started: Instant,
    told: u32,
}

impl Progress {
    /// Says nothing until the wait is a long one.
    pub(super) fn new(what: String) -> Self {
        Self {
            what,
            started: Instant::now(),
            told: 0,
        }
    }

    pub(super) fn start(what: String) -> Self {
        tell(&format!("{what} ..."));
        Self::new(what)
    }

    pub(super) fn tick(&mut self) {
        if self.started.elapsed() >= PROGRESS_EVERY * (self.told + 1) {
            self.told += 1;
            tell(&format!(
                "{} ... {} s",
                self.what,
                self.started.elapsed().as_secs()
            ));
        }
    }

    pub(super) fn done(&self) {
        tell(&format!(
            "{}: done in {} s",
            self.what,
            self.started.elapsed().as_secs()
        ));
    }
}

/// Writes to the process's own stderr: `eprintln!` in a test shows only after the test failed.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
