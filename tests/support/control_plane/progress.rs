//! Long waits: with a deadline, and a line now and then for whoever watches.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

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

/// Runs a program of many minutes to its end, with a line now and then about what it does. What it says on standard
/// error is kept in `log` until it succeeds.
pub(super) fn run_to_end(program: &mut Command, log: &Path, what: &str) -> Result<()> {
    let named = format!("{program:?}");
    let mut running = program
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(log)?)
        .spawn()
        .with_context(|| format!("running {named}"))?;
    let mut progress = Progress::start(what.to_owned());
    let status = wait_until(BUILT_WITHIN, || {
        progress.tick();
        running.try_wait()
    });
    if !matches!(status, Ok(Some(_))) {
        let _ = running.kill();
        let _ = running.wait();
    }
    let Some(status) = status.with_context(|| format!("waiting for {named}"))? else {
        bail!("{what} took more than {BUILT_WITHIN:?}: try again, the downloads are kept");
    };
    let text = fs::read_to_string(log).unwrap_or_default();
    ensure!(status.success(), "{named} failed:\n{}", last_lines(&text));
    fs::remove_file(log)?;
    progress.done();
    Ok(())
}

/// The end of a build's output, where the error is.
fn last_lines(text: &str) -> String {
    const LINES_MAX: usize = 20;
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES_MAX)..].join("\n")
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
