//! Processes of the operator, started by tests and the demo: none outlives who started it, whatever kills that.

#![allow(dead_code, reason = "the tests and the demo each use a part of it")]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use crate::wait::ask_until;

/// Starts the process, says its id, and ends it when standard input closes: that happens however the parent ends.
const GUARD: &str = r#"log=$1; shift; exec 3<&0
"$@" >"$log" 2>&1 </dev/null 3<&- & pid=$!
echo $pid
(read -r _ <&3; kill -TERM $pid) 2>/dev/null & guard=$!
wait $pid; status=$?
kill $guard 2>/dev/null
exit $status"#;

/// How long a process may take to end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// A running process with its log.
pub struct Process {
    shell: Child,
    stdin: Option<ChildStdin>,
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts `program`, with its output in the file `log`. Of AWS and of proxies it knows what `environment` says,
    /// and nothing of what whoever runs the tests has set.
    pub async fn start(
        log: &Path,
        program: &Path,
        arguments: &[String],
        environment: &[(&str, String)],
    ) -> Result<Self> {
        let mut command = Command::new("sh");
        for (name, _) in env::vars_os() {
            let bytes = name.as_encoded_bytes().to_ascii_uppercase();
            let of_whoever_tests = [&b"AWS_"[..], b"OTEL_"];
            let of_whoever_tests = of_whoever_tests.iter().any(|of| bytes.starts_with(of));
            if of_whoever_tests || bytes.ends_with(b"_PROXY") {
                command.env_remove(name);
            }
        }
        let mut shell = command
            .args(["-c", GUARD, "guard"])
            .args([log, program])
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A group of its own: Ctrl-C in a terminal is for who started it, which then ends it in order.
            .process_group(0)
            .spawn()
            .context("sh could not be started")?;
        let stdin = shell.stdin.take();
        let stdout = shell.stdout.take().context("sh has no output")?;
        let line = BufReader::new(stdout)
            .lines()
            .next_line()
            .await?
            .context("sh said nothing")?;
        let pid = line
            .trim()
            .parse()
            .with_context(|| format!("not a process id: {line}"))?;
        Ok(Self {
            shell,
            stdin,
            pid,
            log: log.to_owned(),
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it has logged so far.
    pub fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until a line of the log holds `needle`, and gives that line.
    pub async fn wait_for_log(&mut self, needle: &str, limit: Duration) -> Result<String> {
        let (shell, log) = (&mut self.shell, &self.log);
        let heard = ask_until(limit, async || {
            // The status comes first: what is logged before it is then read.
            let ended = shell.try_wait().ok().flatten();
            let logged = fs::read_to_string(log).unwrap_or_default();
            let line = logged.lines().find(|line| line.contains(needle));
            line.map(|line| Ok(line.to_owned()))
                .or_else(|| ended.map(|status| Err((status, logged))))
        });
        match heard.await {
            Some(Ok(line)) => Ok(line),
            Some(Err((status, logged))) => {
                bail!(
                    "process {} ended ({status}) before it logged {needle:?}:\n{logged}",
                    self.pid
                )
            }
            None => {
                let (pid, logged) = (self.pid, self.logged());
                bail!("process {pid} has not logged {needle:?} in {limit:?}:\n{logged}")
            }
        }
    }

    /// Where its probes and metrics are, once it has said so.
    pub async fn admin_address(&mut self, limit: Duration) -> Result<String> {
        let line = self
            .wait_for_log("serving probes and metrics", limit)
            .await?;
        let json: Option<serde_json::Value> = serde_json::from_str(&line).ok();
        let address = if let Some(line) = &json {
            line["address"].as_str()
        } else {
            // The other format, which is for people.
            let mut words = line.split(' ');
            let address = words.find_map(|word| word.strip_prefix("address="));
            address.map(|address| address.trim_matches('"'))
        };
        Ok(address.context("the log line has no address")?.to_owned())
    }

    /// Sends it a signal, by its name without SIG.
    pub async fn signal(&self, name: &str) -> Result<()> {
        // The shell's own: there need be no program for it.
        let kill = format!("kill -{name} {}", self.pid);
        let status = Command::new("sh").args(["-c", &kill]).status().await?;
        ensure!(status.success(), "kill: {status}");
        Ok(())
    }

    /// Ends it as a power cut would, without a chance to clean up.
    pub async fn kill(mut self) -> Result<()> {
        self.signal("KILL").await?;
        timeout(STOP_TIMEOUT, self.shell.wait())
            .await
            .context("the process is still there")??;
        Ok(())
    }

    /// Waits until it ends by itself; whether it ended well, and all that it has logged.
    pub async fn finish(mut self, limit: Duration) -> Result<(bool, String)> {
        let ended = timeout(limit, self.shell.wait()).await;
        let logged = self.logged();
        let status = ended.with_context(|| {
            format!("process {} did not end in {limit:?}:\n{logged}", self.pid)
        })??;
        Ok((status.success(), logged))
    }

    /// Asks it to end, waits for that, and fails unless it ended well.
    pub async fn stop(mut self) -> Result<()> {
        drop(self.stdin.take());
        self.wait_for_end(STOP_TIMEOUT).await
    }

    /// Waits until it has ended, and fails unless it ended well.
    pub async fn wait_for_end(&mut self, limit: Duration) -> Result<()> {
        let status = timeout(limit, self.shell.wait())
            .await
            .with_context(|| format!("process {} did not end in {limit:?}", self.pid))??;
        if !status.success() {
            bail!(
                "process {} ended badly ({status}):\n{}",
                self.pid,
                self.logged()
            );
        }
        Ok(())
    }
}
