//! A real Kubernetes control plane for a test: etcd, kube-apiserver and kube-controller-manager on
//! loopback, one for each [`ControlPlane`], gone when it is dropped or when its process dies.
//!
//! The programs are built once, from `tests/control-plane`, into a cache outside of the checkout
//! (`$SSM_OPERATOR_CACHE`, else `ssm-session-operator` in the user's cache folder). Whoever has the
//! binaries of a Kubernetes release names their folder in `KUBEBUILDER_ASSETS` and builds nothing
//! but the supervisor. There is no scheduler, kubelet or kube-proxy: no pod runs, and no ClusterIP
//! carries traffic.
//!
//! Several test programs include this file, each with its own part of it in use.
#![allow(
    dead_code,
    reason = "each test program that includes this file uses a part of it"
)]

mod cache;
mod programs;
mod progress;
mod promtool;

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};

use programs::prepare;
use progress::wait_until;

/// Forty times what a start takes on two idle cores.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// The components are killed, so only the removal of their state takes time.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

/// The programs that judge the chart, and how it is released.
#[derive(Debug, Clone)]
pub struct ChartTools {
    /// Renders and installs it.
    pub helm: PathBuf,
    /// Has an opinion about what was rendered.
    pub kube_score: PathBuf,
    /// Reads the workflows.
    pub actionlint: PathBuf,
}

impl ChartTools {
    /// Finds them in the cache, after building them if need be.
    pub async fn prepare() -> Result<Self> {
        let prepare = || {
            Ok(Self {
                helm: programs::helm()?,
                kube_score: programs::kube_score()?,
                actionlint: programs::actionlint()?,
            })
        };
        tokio::task::spawn_blocking(prepare).await?
    }
}

/// promtool, fetched into the cache if need be: it judges the alert rules.
pub async fn promtool() -> Result<PathBuf> {
    tokio::task::spawn_blocking(promtool::promtool).await?
}

/// A running control plane. Dropping it stops the processes and removes their folder.
pub struct ControlPlane {
    supervisor: Child,
    /// The supervisor stops when this closes, also when the kernel closes it for a killed test.
    stdin: Option<ChildStdin>,
    dir: PathBuf,
    kubeconfig: PathBuf,
    kubectl: PathBuf,
}

impl ControlPlane {
    /// Starts a control plane with nothing in it, after building the programs if need be.
    pub async fn start() -> Result<Self> {
        tokio::task::spawn_blocking(Self::start_blocking).await?
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A kubectl of the control plane's version; to be called with [`Self::kubeconfig`].
    pub fn kubectl(&self) -> &Path {
        &self.kubectl
    }

    /// The folder with state and logs (`kube-apiserver.log` and so on).
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the API server writes down what service accounts ask for, one JSON object a line, before it answers.
    pub fn audit_log(&self) -> PathBuf {
        self.dir.join("audit.log")
    }

    /// A client with the administrator's rights.
    pub async fn client(&self) -> Result<kube::Client> {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig)?;
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        Ok(kube::Client::try_from(config)?)
    }

    fn start_blocking() -> Result<Self> {
        let binaries = prepare()?;
        let dir = private_temp_dir()?;
        let mut supervisor = Command::new(&binaries.supervisor)
            .arg("--remove")
            .arg("--dir")
            .arg(&dir)
            .arg("--assets")
            .arg(&binaries.assets)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A group of its own: Ctrl-C in a terminal is for the test, which then ends this one.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", binaries.supervisor.display()))?;
        let stdout = supervisor.stdout.take();
        let plane = Self {
            stdin: supervisor.stdin.take(),
            supervisor,
            kubeconfig: dir.join("kubeconfig"),
            kubectl: binaries.assets.join("kubectl"),
            dir,
        };
        let line = first_line(stdout.context("the supervisor has no stdout")?);
        let line = line.recv_timeout(READY_WITHIN).map_err(|_| {
            anyhow!("the test control plane was not ready within {READY_WITHIN:?}: is the machine overloaded?")
        })??;
        ensure!(
            line.starts_with("READY "),
            "the test control plane did not start: the supervisor says why on stderr"
        );
        Ok(plane)
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let stopped = wait_until(STOPPED_WITHIN, || {
            Ok(self.supervisor.try_wait()?.is_some().then_some(()))
        });
        if !matches!(stopped, Ok(Some(()))) {
            let _ = self.supervisor.kill();
            let _ = self.supervisor.wait();
        }
        // The supervisor has removed it, unless it had to be killed.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A new folder that only this user can read: it will hold the administrator's token.
fn private_temp_dir() -> Result<PathBuf> {
    let root = std::env::temp_dir();
    for attempt in 0..=u16::MAX {
        let dir = root.join(format!("ssm-operator-{}-{attempt}", std::process::id()));
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                let what = format!(
                    "creating {}: set TMPDIR to a writable folder",
                    dir.display()
                );
                return Err(error).context(what);
            }
        }
    }
    bail!(
        "{} is full of folders named ssm-operator-*: remove them",
        root.display()
    )
}

/// The first line, read on a thread of its own since reading a pipe knows no deadline. An empty
/// line says that the pipe was closed.
fn first_line(stdout: impl io::Read + Send + 'static) -> mpsc::Receiver<io::Result<String>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        let _ = sender.send(read.map(|_| line));
    });
    receiver
}
