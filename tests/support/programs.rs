//! The programs of tests of the chart, and what they print; the ways to render it.

#![allow(
    dead_code,
    reason = "each test program that includes this file uses a part of it"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::control_plane::ChartTools;

/// The operator's namespace in the ways to render the chart that nobody installs.
pub const NAMESPACE: &str = "ssm-operator";

/// Far above what any of the programs takes on a loaded machine.
const RUN_TIMEOUT: Duration = Duration::from_mins(3);

static TOOLS: OnceCell<Result<ChartTools>> = OnceCell::const_new();

/// What a program has printed on standard output and standard error.
#[derive(Debug)]
pub struct Printed {
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// helm, kube-score and actionlint.
pub async fn tools() -> &'static ChartTools {
    match TOOLS.get_or_init(ChartTools::prepare).await {
        Ok(tools) => tools,
        Err(error) => panic!("a program that judges the chart is missing: {error:#}"),
    }
}

/// Runs a program that must succeed, with this on its standard input.
///
/// # Errors
///
/// What it has printed, when it fails.
pub async fn run(program: &Path, arguments: &[&str], input: &str) -> Result<Printed> {
    let (status, printed) = finish(program, arguments, input).await?;
    if !status.success() {
        let Printed { out, err } = printed;
        bail!("{} {arguments:?}: {err}{out}", program.display());
    }
    Ok(printed)
}

/// Runs a program to its end, whatever that is.
///
/// # Errors
///
/// When it can't be run.
pub async fn finish(
    program: &Path,
    arguments: &[&str],
    input: &str,
) -> Result<(ExitStatus, Printed)> {
    let mut running = Command::new(program)
        .args(arguments)
        .env_remove("HELM_NAMESPACE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{} could not be started", program.display()))?;
    let mut stdin = running.stdin.take().context("a pipe was asked for")?;
    let input = input.to_owned();
    // One that reads no input, or not all of it, ends all the same.
    let writing = tokio::spawn(async move { stdin.write_all(input.as_bytes()).await });
    let output = timeout(RUN_TIMEOUT, running.wait_with_output())
        .await
        .with_context(|| format!("{} {arguments:?} does not end", program.display()))??;
    writing.abort();
    let printed = Printed {
        out: String::from_utf8(output.stdout)?,
        err: String::from_utf8(output.stderr)?,
    };
    Ok((output.status, printed))
}

/// A folder or file of the checkout.
pub fn in_checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The chart's folder.
pub fn chart() -> String {
    in_checkout("charts/ssm-session-operator")
        .display()
        .to_string()
}

/// The ways to render the chart: its defaults, and each file of `values/`.
pub fn ways() -> Vec<Vec<String>> {
    let files = fs::read_dir(in_checkout("tests/chart/values")).expect("it is in the checkout");
    let files = files.map(|file| file.expect("it can be listed").path());
    let mut ways: Vec<_> = files
        .map(|file| vec![format!("--values={}", file.display())])
        .collect();
    ways.sort();
    assert_eq!(ways.len(), 3, "tests/chart/README.md speaks of three");
    ways.insert(0, Vec::new());
    ways
}

/// What helm renders with these options.
///
/// # Errors
///
/// What helm says when it refuses.
pub async fn render(options: &[String]) -> Result<String> {
    let (chart, namespace) = (chart(), format!("--namespace={NAMESPACE}"));
    let mut arguments = vec!["template", "ssm", &chart, &namespace];
    arguments.extend(options.iter().map(String::as_str));
    Ok(run(&tools().await.helm, &arguments, "").await?.out)
}

/// The objects of a manifest.
pub fn objects(manifest: &str) -> Vec<Value> {
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(manifest).expect("it is YAML");
    objects.retain(|object| !object.is_null());
    objects
}
