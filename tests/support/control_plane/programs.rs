//! The programs of a control plane: those of a Kubernetes release, or our own builds from the cache. And those that
//! judge chart and workflows, which are built in the same way.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::cache::cached;
use super::progress::run_to_end;

/// What a folder in `KUBEBUILDER_ASSETS` must hold.
const ASSETS: [&str; 4] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kubectl",
];

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

/// helm, which renders the chart. Blocks like [`prepare`].
///
/// Helm takes the release of Kubernetes that it renders for from what it was built with.
pub fn helm() -> Result<PathBuf> {
    pinned("helm", "helm.sh/helm/v4/cmd/helm", "about 4 minutes")
}

/// kube-score, which has its opinion about what was rendered. Blocks like [`prepare`].
pub fn kube_score() -> Result<PathBuf> {
    let package = "github.com/zegl/kube-score/cmd/kube-score";
    pinned("kube-score", package, "about a minute")
}

/// actionlint, which reads the workflows. Blocks like [`prepare`].
pub fn actionlint() -> Result<PathBuf> {
    let package = "github.com/rhysd/actionlint/cmd/actionlint";
    pinned("actionlint", package, "seconds")
}

/// The program of a module that has no sources of ours, and only says which version it is.
fn pinned(name: &str, package: &str, takes: &str) -> Result<PathBuf> {
    let what = format!("{name} ({takes} the first time)");
    let folder = cached(name, &what, |sources, into, what| {
        go_build(sources, package, &into.join(name), "-s -w", what)
    })?;
    Ok(folder.join(name))
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
    go_build(sources, ".", &into.join("supervisor"), "-s -w", what)
}

fn build_assets(sources: &Path, into: &Path, what: &str) -> Result<()> {
    let flags = format!("-s -w {}", version_flags(&kubernetes_version(sources)?));
    go_build(sources, ".", &into.join("all-in-one"), &flags, what)?;
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

pub(super) fn go_release(sources: &Path) -> Result<Vec<u8>> {
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

/// Builds a main package of a folder's module or of what that requires, with a line on stderr now and then.
fn go_build(
    sources: &Path,
    package: &str,
    output: &Path,
    link_flags: &str,
    what: &str,
) -> Result<()> {
    let mut build = go(sources);
    build
        .args([
            "build",
            "-mod=readonly",
            "-trimpath",
            "-ldflags",
            link_flags,
            "-o",
        ])
        .arg(output)
        .arg(package);
    let log = output.with_extension("build.log");
    run_to_end(&mut build, &log, &format!("building {what}"))
        .with_context(|| format!("go build in {}", sources.display()))
}
