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

use std::fs::{self, File, TryLockError};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use sha2::{Digest, Sha256};

/// The sources of the programs.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/control-plane");
/// What a folder in `KUBEBUILDER_ASSETS` must hold.
const ASSETS: [&str; 4] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kubectl",
];
/// Six minutes on two cores, with slow downloads on top.
const BUILT_WITHIN: Duration = Duration::from_secs(30 * 60);
/// Forty times what a start takes on two idle cores.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// The components are killed, so only the removal of their state takes time.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);
/// Often enough that nobody takes a build for a hang.
const PROGRESS_EVERY: Duration = Duration::from_secs(15);
/// Short against a build, long against the cost of looking.
const POLL_EVERY: Duration = Duration::from_millis(50);

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

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// The program that starts and stops the others.
    pub supervisor: PathBuf,
    /// The folder that holds etcd, kube-apiserver, kube-controller-manager and kubectl.
    pub assets: PathBuf,
}

/// Finds the programs, and builds those that are not in the cache. Blocks: minutes for the first
/// time, milliseconds later.
pub fn prepare() -> Result<Binaries> {
    let supervisor = cached("supervisor", "the supervisor (seconds)", build_supervisor)?;
    let assets = match std::env::var_os("KUBEBUILDER_ASSETS").filter(|value| !value.is_empty()) {
        Some(folder) => release_assets(Path::new(&folder))?,
        None => cached(
            "assets",
            "the test control plane (about 6 minutes the first time)",
            build_assets,
        )?,
    };
    Ok(Binaries {
        supervisor: supervisor.join("supervisor"),
        assets,
    })
}

fn release_assets(folder: &Path) -> Result<PathBuf> {
    let missing: Vec<_> = ASSETS
        .iter()
        .copied()
        .filter(|name| !folder.join(name).is_file())
        .collect();
    ensure!(
        missing.is_empty(),
        "KUBEBUILDER_ASSETS={} lacks {}: add them from the same Kubernetes release, or unset the \
         variable to have all of them built",
        folder.display(),
        missing.join(", "),
    );
    // The supervisor runs them from another working folder.
    folder
        .canonicalize()
        .with_context(|| format!("resolving {}", folder.display()))
}

fn build_supervisor(sources: &Path, into: &Path, what: &str) -> Result<()> {
    go_build(sources, &into.join("supervisor"), "-s -w", what)
}

fn build_assets(sources: &Path, into: &Path, what: &str) -> Result<()> {
    let flags = format!("-s -w {}", version_flags(&kubernetes_version(sources)?));
    go_build(sources, &into.join("all-in-one"), &flags, what)?;
    for name in ASSETS {
        symlink("all-in-one", into.join(name))?;
    }
    Ok(())
}

/// The release that `go.mod` asks for, such as `v1.36.2`.
fn kubernetes_version(sources: &Path) -> Result<String> {
    let go_mod = fs::read_to_string(sources.join("go.mod"))?;
    go_mod
        .lines()
        .find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes v"))
        .map(|version| format!("v{}", version.trim()))
        .context("go.mod in tests/control-plane/assets no longer requires k8s.io/kubernetes")
}

/// Stamps the release into the binaries, as upstream's own build does: without it the API server
/// takes itself for a development version.
fn version_flags(version: &str) -> String {
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or("1"), numbers.next().unwrap_or("0"));
    let stamp = |package: &str| {
        format!(
            "-X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
        )
    };
    [
        stamp("k8s.io/component-base/version"),
        stamp("k8s.io/client-go/pkg/version"),
    ]
    .join(" ")
}

/// The cache's folder for these sources and this Go. It appears by a rename when the build is
/// through, so a killed build leaves nothing that looks finished.
fn cached(part: &str, what: &str, build: fn(&Path, &Path, &str) -> Result<()>) -> Result<PathBuf> {
    let sources = Path::new(SOURCES).join(part);
    let root = cache_root()?;
    let folder = root.join(format!("control-plane-{part}-{}", fingerprint(&sources)?));
    if folder.is_dir() {
        return Ok(folder);
    }
    let _lock = lock(&root, what)?;
    if folder.is_dir() {
        return Ok(folder);
    }
    // Only the holder of the lock builds, so an unfinished folder is a killed build's.
    let unfinished = root.join(format!("unfinished-{part}"));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    fs::create_dir_all(&unfinished)?;
    build(&sources, &unfinished, what)?;
    fs::rename(&unfinished, &folder)
        .with_context(|| format!("moving a build to {}", folder.display()))?;
    Ok(folder)
}

fn cache_root() -> Result<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let root = set("SSM_OPERATOR_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("ssm-session-operator")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/ssm-session-operator")))
        .context("no place for the test control plane: set SSM_OPERATOR_CACHE to a folder")?;
    fs::create_dir_all(&root).with_context(|| {
        format!(
            "creating {}: set SSM_OPERATOR_CACHE to a writable folder",
            root.display()
        )
    })?;
    Ok(root.canonicalize()?)
}

/// 16 hex digits that change with the sources, the Go release and the platform.
fn fingerprint(sources: &Path) -> Result<String> {
    let mut files = fs::read_dir(sources)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()?;
    files.sort();
    let mut hash = Sha256::new();
    for file in files.iter().filter(|file| file.is_file()) {
        hash.update(fs::read(file)?);
    }
    hash.update(go_release(sources)?);
    Ok(hash
        .finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn go_release(sources: &Path) -> Result<Vec<u8>> {
    let output = go(sources)
        .args(["env", "GOVERSION", "GOOS", "GOARCH"])
        .output();
    let output = match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
            "go is not installed: the tests build a Kubernetes control plane with it. \
             Install Go 1.26 or newer (https://go.dev/doc/install)"
        ),
        output => output.context("running go env")?,
    };
    ensure!(
        output.status.success(),
        "go env failed in {}; the sources need Go 1.26 or newer:\n{}",
        sources.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

/// The go command in a module's folder, out of reach of a workspace that the user may have.
fn go(sources: &Path) -> Command {
    let mut go = Command::new("go");
    go.current_dir(sources)
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .stdin(Stdio::null());
    go
}

/// Builds the main package of a folder, with a line on stderr now and then.
fn go_build(sources: &Path, output: &Path, link_flags: &str, what: &str) -> Result<()> {
    let log = output.with_extension("build.log");
    let mut go = go(sources)
        .args([
            "build",
            "-mod=readonly",
            "-trimpath",
            "-ldflags",
            link_flags,
            "-o",
        ])
        .args([output, Path::new(".")])
        .stdout(Stdio::null())
        .stderr(File::create(&log)?)
        .spawn()
        .context("running go build")?;
    let mut progress = Progress::start(format!("building {what}"));
    let status = wait_until(BUILT_WITHIN, || {
        progress.tick();
        go.try_wait()
    });
    if !matches!(status, Ok(Some(_))) {
        let _ = go.kill();
        let _ = go.wait();
    }
    let Some(status) = status.context("waiting for go build")? else {
        bail!("building {what} took more than {BUILT_WITHIN:?}: try again, the downloads are kept");
    };
    let text = fs::read_to_string(&log).unwrap_or_default();
    ensure!(
        status.success(),
        "go build failed in {}:\n{}",
        sources.display(),
        last_lines(&text)
    );
    fs::remove_file(&log)?;
    progress.done();
    Ok(())
}

/// The end of a build's output, where the error is.
fn last_lines(text: &str) -> String {
    const LINES_MAX: usize = 20;
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES_MAX)..].join("\n")
}

/// Makes this process the only builder until the file is dropped; the kernel unlocks it for a
/// process that was killed.
fn lock(root: &Path, what: &str) -> Result<File> {
    let path = root.join("lock");
    let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    let mut progress = Progress::new(format!("waiting for another process to build {what}"));
    let locked = wait_until(BUILT_WITHIN, || match file.try_lock() {
        Ok(()) => Ok(Some(())),
        Err(TryLockError::WouldBlock) => {
            progress.tick();
            Ok(None)
        }
        Err(TryLockError::Error(error)) => Err(error),
    });
    match locked.with_context(|| format!("locking {}", path.display()))? {
        Some(()) => Ok(file),
        None => bail!(
            "another process has held {} for {BUILT_WITHIN:?}",
            path.display()
        ),
    }
}

/// Looks until there is an answer; none when the time is up.
fn wait_until<T>(
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
struct Progress {
    what: String,
    started: Instant,
    told: u32,
}

impl Progress {
    /// Says nothing until the wait is a long one.
    fn new(what: String) -> Self {
        Self {
            what,
            started: Instant::now(),
            told: 0,
        }
    }

    fn start(what: String) -> Self {
        tell(&format!("{what} ..."));
        Self::new(what)
    }

    fn tick(&mut self) {
        if self.started.elapsed() >= PROGRESS_EVERY * (self.told + 1) {
            self.told += 1;
            tell(&format!(
                "{} ... {} s",
                self.what,
                self.started.elapsed().as_secs()
            ));
        }
    }

    fn done(&self) {
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
