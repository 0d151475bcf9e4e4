//! The main job on one machine: a real Kubernetes control plane, a simulated AWS, and the operator as it is deployed.
//!
//! Everything that is shown was asked of the API server by kubectl, or of the AWS API. Any step that fails ends the
//! demo with an error that names it. `KEEP=1` leaves all of it running.

#![allow(clippy::print_stdout, reason = "it is a demonstration")]

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

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use ssm_session_operator::simulator::Status;
use tokio::net::TcpStream;

use stage::{Setting, Stage, WAIT_MAX};
use wait::ask_until;

/// Bytes sent each way.
const TRANSFER_BYTES: u64 = 16 << 20;

/// The resource of `examples/quickstart.yaml`.
const NAMESPACE: &str = "shop";
const SESSION: &str = "orders-db";

/// A demonstration does not wait for AWS's pace.
/// Controller and relay in one process.
const COMMAND: &str = "all-in-one";

const OPTIONS: &[&str] = &[
    "--poll-interval=1s",
    "--aws-call-timeout=5s",
    "--record-timeout=4s",
    "--grace=10s",
];

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nFailed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let setting = Setting {
        class: "standard",
        program: operator_program()?,
        commands: &[COMMAND],
        options: OPTIONS,
        say,
    };
    let stage = Stage::set(setting).await?;
    println!(
        "   it logs to {}\n   the agent reads without the pauses of a real one, which gives under 1 MB/s",
        stage.log(COMMAND).display()
    );
    let result = perform(&stage).await;
    if result.is_err() {
        println!("\nThe operator's last words:\n{}", stage.last_words());
    } else if std::env::var("KEEP").is_ok_and(|keep| keep == "1") {
        keep(&stage).await?;
    }
    stage.strike().await.context("stopping everything")?;
    result
}

/// Built beside this program.
fn operator_program() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().and_then(Path::parent);
    let folder = folder.context("this program has no folder")?;
    Ok(folder.join("ssm-session-operator"))
}

async fn perform(stage: &Stage) -> Result<()> {
    say("Applying examples/quickstart.yaml");
    let applied = stage.kubectl("apply -f examples/quickstart.yaml").await?;
    println!("{}", applied.trim_end());
    say("Waiting until the session is available");
    watch(stage).await?;
    move_bytes(stage)
        .await
        .context("moving bytes through the relay")?;
    show_mirror(stage)
        .await
        .context("mirroring the session of AWS")?;
    if std::env::var("KEEP").is_ok_and(|keep| keep == "1") {
        return Ok(());
    }
    delete(stage).await.context("deleting the session")
}

/// Shows the resource as kubectl prints it, each time that it has changed.
async fn watch(stage: &Stage) -> Result<()> {
    let mut shown = String::new();
    let available = ask_until(WAIT_MAX, async || {
        let get = format!("get ssmsession {SESSION} -n {NAMESPACE}");
        let table = stage.kubectl(&get).await.ok()?;
        let row = table.lines().last().unwrap_or_default();
        // The age alone is no news.
        let news = row
            .rsplit_once(' ')
            .map_or(row, |(rest, _)| rest.trim_end())
            .to_owned();
        if news != shown {
            println!(
                "{}",
                if shown.is_empty() {
                    table.trim_end()
                } else {
                    row
                }
            );
            shown = news;
        }
        let available = "-o jsonpath={.status.conditions[?(@.type=='Available')].status}";
        let status = stage.kubectl(&format!("{get} {available}")).await.ok()?;
        (status == "True").then_some(())
    });
    let late = || format!("the session has not become available within {WAIT_MAX:?}");
    available.await.with_context(late)
}

/// Runs kubectl until it prints `wanted`.
async fn wait_for_kubectl(stage: &Stage, arguments: &str, wanted: &str) -> Result<()> {
    let mut printed = Ok(String::new());
    let wait = ask_until(WAIT_MAX, async || {
        printed = stage.kubectl(arguments).await;
        printed
            .as_ref()
            .is_ok_and(|printed| printed.trim() == wanted)
            .then_some(())
    });
    if wait.await.is_none() {
        let printed = printed?;
        bail!("`kubectl {arguments}` still prints {printed:?} instead of {wanted:?}");
    }
    Ok(())
}

async fn move_bytes(stage: &Stage) -> Result<()> {
    let client = stage.client();
    let endpoints = dial::endpoints(client, NAMESPACE, SESSION, "postgres").await?;
    let endpoint = endpoints
        .first()
        .context("the Service has no ready endpoint")?;
    say(&format!(
        "Sending and receiving {} MiB on {endpoint}, the relay's port in the EndpointSlice.\n   \
         A pod would dial {SESSION}.{NAMESPACE}.svc:5432; no kube-proxy runs here, so the Service's own\n   \
         address carries nothing and the relay's port is dialled instead",
        TRANSFER_BYTES >> 20
    ));
    let begun = Instant::now();
    let mut connection = TcpStream::connect(endpoint)
        .await
        .context("dialling the relay")?;
    transfer::exchange(&mut connection, TRANSFER_BYTES, TRANSFER_BYTES).await?;
    println!("   both checksums agree ({:.1?})", begun.elapsed());
    Ok(())
}

async fn show_mirror(stage: &Stage) -> Result<()> {
    say("What AWS says of the session, in the resource's status");
    let get = format!("get ssmsession {SESSION} -n {NAMESPACE} -o jsonpath=");
    let path = "{.status.sessions[0].status}";
    wait_for_kubectl(stage, &format!("{get}{path}"), "Connected").await?;
    let sessions = stage.kubectl(&format!("{get}{{.status.sessions}}")).await?;
    let sessions: Value = serde_json::from_str(&sessions).context("status.sessions")?;
    println!("{}", serde_json::to_string_pretty(&sessions)?);
    Ok(())
}

async fn delete(stage: &Stage) -> Result<()> {
    let get = format!("get ssmsession {SESSION} -n {NAMESPACE} -o jsonpath=");
    let id = stage
        .kubectl(&format!("{get}{{.status.sessions[0].sessionId}}"))
        .await?;
    say("Deleting it");
    let delete = format!("delete ssmsession {SESSION} -n {NAMESPACE} --timeout=60s");
    println!("{}", stage.kubectl(&delete).await?.trim_end());
    say("What AWS says of the session now (DescribeSessions, State=History)");
    let request = json!({
        "State": "History",
        "Filters": [{ "key": "SessionId", "value": id }],
    });
    let endpoint = stage.simulator().endpoint();
    let mut answer = http::call_ssm(&endpoint, "DescribeSessions", &request).await?;
    let described = answer["Sessions"][0].take();
    println!("{}", serde_json::to_string_pretty(&described)?);
    ensure!(
        described["Status"] == "Terminated",
        "AWS does not say Terminated of {id}"
    );
    say("What is left in the cluster");
    let left = "get ssmsessions,ssmlisteners,services,endpointslices -A -o name \
                -l ssm-operator.dev/session-uid";
    wait_for_kubectl(stage, left, "").await?;
    let sessions = stage
        .kubectl("get ssmsessions,ssmlisteners -A -o name")
        .await?;
    ensure!(sessions.is_empty(), "something is left: {sessions}");
    println!("   nothing: no SsmSession, SsmListener, Service or EndpointSlice of it");
    let ended = |status: Status| matches!(status, Status::Terminated | Status::Failed);
    let sessions = stage.simulator().sessions();
    let live = sessions.iter().filter(|s| !ended(s.status)).count();
    ensure!(live == 0, "{live} sessions are still live in AWS");
    println!("   nothing in AWS: no session is live\n\nDone.");
    Ok(())
}

async fn keep(stage: &Stage) -> Result<()> {
    println!(
        "\nAll of it runs until Ctrl-C. In another terminal:\n\n  \
         export KUBECONFIG={}\n  \
         alias kubectl={}\n  \
         kubectl get ssms -A -w\n  \
         kubectl describe ssms {SESSION} -n {NAMESPACE}\n  \
         kubectl get ssmlisteners -A -o wide\n  \
         kubectl get endpointslices -n {NAMESPACE} -o yaml    # dial its port on 127.0.0.1\n  \
         kubectl delete ssms {SESSION} -n {NAMESPACE}\n\n\
         The operator's log: {}\nThe simulated AWS: {}",
        stage.control_plane().kubeconfig().display(),
        stage.control_plane().kubectl().display(),
        stage.log(COMMAND).display(),
        stage.simulator().endpoint(),
    );
    tokio::signal::ctrl_c().await.context("waiting for Ctrl-C")
}

/// A heading of the demo.
fn say(text: &str) {
    println!("\n=> {text}");
}
