//! The main job on one machine: a real Kubernetes control plane, a simulated AWS, and the operator as it is deployed.
//!
//! Everything that is shown was asked of the API server by kubectl, or of the AWS API. Any step that fails ends the
//! demo with an error that names it. `KEEP=1` leaves all of it running.

#![allow(clippy::print_stdout, reason = "it is a demonstration")]

#[path = "../../tests/support/control_plane/mod.rs"]
mod control_plane;
#[path = "../../tests/support/dial.rs"]
mod dial;
#[path = "../../tests/support/process.rs"]
mod process;
#[path = "../../tests/support/transfer.rs"]
mod transfer;
#[path = "../../tests/support/wait.rs"]
mod wait;

mod stage;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::net::TcpStream;

use stage::Stage;

/// Bytes sent each way.
const TRANSFER_BYTES: u64 = 16 << 20;

/// The resource of `examples/quickstart.yaml`.
const NAMESPACE: &str = "shop";
const SESSION: &str = "orders-db";

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
    say("Starting a Kubernetes control plane (etcd, kube-apiserver, kube-controller-manager)");
    let stage = Stage::set().await?;
    let result = perform(&stage).await;
    if result.is_err() {
        println!("\nThe operator's last words:\n{}", stage.last_words());
    } else if std::env::var("KEEP").is_ok_and(|keep| keep == "1") {
        keep(&stage).await?;
    }
    stage.strike().await.context("stopping everything")?;
    result
}

async fn perform(stage: &Stage) -> Result<()> {
    say("Applying examples/quickstart.yaml");
    stage
        .kubectl_shown("apply -f examples/quickstart.yaml")
        .await?;
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
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut shown = String::new();
    loop {
        let table = stage
            .kubectl(&format!("get ssmsession {SESSION} -n {NAMESPACE}"))
            .await?;
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
        let ready = "-o jsonpath={.status.conditions[?(@.type=='Available')].status}";
        let get = format!("get ssmsession {SESSION} -n {NAMESPACE} {ready}");
        if stage.kubectl(&get).await? == "True" {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "the session has not become available within a minute"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
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
    stage
        .wait_for_kubectl(&format!("{get}{path}"), "Connected")
        .await?;
    let sessions = stage.kubectl(&format!("{get}{{.status.sessions}}")).await?;
    let sessions: serde_json::Value = serde_json::from_str(&sessions).context("status.sessions")?;
    println!("{}", serde_json::to_string_pretty(&sessions)?);
    Ok(())
}

async fn delete(stage: &Stage) -> Result<()> {
    let get = format!("get ssmsession {SESSION} -n {NAMESPACE} -o jsonpath=");
    let id = stage
        .kubectl(&format!("{get}{{.status.sessions[0].sessionId}}"))
        .await?;
    say("Deleting it");
    stage
        .kubectl_shown(&format!(
            "delete ssmsession {SESSION} -n {NAMESPACE} --timeout=60s"
        ))
        .await?;
    say("What AWS says of the session now (DescribeSessions, State=History)");
    let described = stage.describe_from_history(&id).await?;
    println!("{}", serde_json::to_string_pretty(&described)?);
    ensure!(
        described["Status"] == "Terminated",
        "AWS does not say Terminated of {id}"
    );
    say("What is left in the cluster");
    let left = "get ssmsessions,ssmlisteners,services,endpointslices -A -o name \
                -l ssm-operator.dev/session-uid";
    stage.wait_for_kubectl(left, "").await?;
    let sessions = stage
        .kubectl("get ssmsessions,ssmlisteners -A -o name")
        .await?;
    ensure!(sessions.is_empty(), "something is left: {sessions}");
    println!("   nothing: no SsmSession, SsmListener, Service or EndpointSlice of it");
    let live = stage.live_sessions();
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
        stage.kubeconfig().display(),
        stage.kubectl_path().display(),
        stage.log().display(),
        stage.aws_endpoint(),
    );
    tokio::signal::ctrl_c().await.context("waiting for Ctrl-C")
}

/// A heading of the demo.
fn say(text: &str) {
    println!("\n=> {text}");
}
