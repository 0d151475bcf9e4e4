//! What the demo needs around it: control plane, simulated AWS with its agent, a private server, the operator.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use ssm_session_operator::simulator::{
    Agent, AgentOptions, Pace, Simulator, SimulatorOptions, Status,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::control_plane::ControlPlane;
use crate::dial;
use crate::process::Process;
use crate::transfer::Server;

/// The operator's own namespace.
const OPERATOR_NAMESPACE: &str = "ssm-operator";

/// The target of `examples/quickstart.yaml`.
const TARGET: &str = "i-0123456789abcdef0";

/// How long a condition may take.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Everything that runs.
pub struct Stage {
    operator: Process,
    client: kube::Client,
    simulator: Simulator,
    agent: Agent,
    server: Server,
    control_plane: ControlPlane,
}

impl Stage {
    /// Starts everything, one after the other.
    pub async fn set() -> Result<Self> {
        let control_plane = ControlPlane::start().await.context("the control plane")?;
        let client = control_plane.client().await?;

        crate::say(
            "Starting a simulated AWS, and a node in it whose agent alone reaches a TCP server",
        );
        let server = Server::start().await?;
        let simulator = Simulator::start(SimulatorOptions::default()).await?;
        let mut options = AgentOptions::new(TARGET);
        options.pace = Pace::Unthrottled;
        options
            .destinations
            .insert(("localhost".to_owned(), 5432), server.address());
        let agent = Agent::start(&simulator.endpoint(), options)?;
        simulator.wait_for_target(TARGET).await?;
        println!("   the agent reads without the pauses of a real one, which gives under 1 MB/s");

        crate::say(
            "Installing the kinds and starting the operator (controller and relay in one process)",
        );
        let log = control_plane.dir().join("operator.log");
        let arguments = operator_arguments();
        let environment = operator_environment(control_plane.kubeconfig());
        kubectl(&control_plane, "apply -f crds/")
            .await
            .context("kubectl apply -f crds/")?;
        kubectl(
            &control_plane,
            &format!("create namespace {OPERATOR_NAMESPACE}"),
        )
        .await?;
        let mut operator =
            Process::start(&log, &operator_binary()?, &arguments, &environment).await?;
        let line = operator
            .wait_for_log("serving probes and metrics", WAIT_MAX)
            .await?;
        let fields: Value = serde_json::from_str(&line).context("the operator's log")?;
        println!("   it logs to {}", log.display());
        let admin = admin_address(&fields).context("the operator's log names no admin address")?;
        wait_until_ready(&admin).await?;

        let stage = Self {
            operator,
            client,
            simulator,
            agent,
            server,
            control_plane,
        };
        stage
            .apply(&class(&stage.simulator.endpoint()))
            .await
            .context("the SsmSessionClass")?;
        Ok(stage)
    }

    /// Stops everything, the operator first and in order.
    pub async fn strike(self) -> Result<()> {
        let Self {
            operator,
            client,
            simulator,
            agent,
            server,
            control_plane,
        } = self;
        operator.stop().await.context("the operator")?;
        drop(client);
        agent.shutdown().await;
        simulator.shutdown().await;
        drop(server);
        drop(control_plane);
        Ok(())
    }

    /// A client of the API server.
    pub fn client(&self) -> &kube::Client {
        &self.client
    }

    /// Runs kubectl and gives what it prints.
    pub async fn kubectl(&self, arguments: &str) -> Result<String> {
        kubectl(&self.control_plane, arguments).await
    }

    /// Runs kubectl and shows what it prints.
    pub async fn kubectl_shown(&self, arguments: &str) -> Result<()> {
        print!("{}", self.kubectl(arguments).await?);
        Ok(())
    }

    /// Runs kubectl until it prints `wanted`.
    pub async fn wait_for_kubectl(&self, arguments: &str, wanted: &str) -> Result<()> {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let printed = self.kubectl(arguments).await?;
            if printed.trim() == wanted {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "`kubectl {arguments}` still prints {printed:?} instead of {wanted:?}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Where kubectl finds the control plane.
    pub fn kubeconfig(&self) -> &Path {
        self.control_plane.kubeconfig()
    }

    /// The kubectl that is used.
    pub fn kubectl_path(&self) -> &Path {
        self.control_plane.kubectl()
    }

    /// The operator's log.
    pub fn log(&self) -> PathBuf {
        self.control_plane.dir().join("operator.log")
    }

    /// URL of the simulated AWS.
    pub fn aws_endpoint(&self) -> String {
        self.simulator.endpoint()
    }

    /// The end of the operator's log.
    pub fn last_words(&self) -> String {
        let logged = self.operator.logged();
        let lines: Vec<_> = logged.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Sessions that AWS has not ended.
    pub fn live_sessions(&self) -> usize {
        let ended = |status: Status| matches!(status, Status::Terminated | Status::Failed);
        self.simulator
            .sessions()
            .iter()
            .filter(|session| !ended(session.status))
            .count()
    }

    /// What DescribeSessions says of an ended session.
    pub async fn describe_from_history(&self, id: &str) -> Result<Value> {
        let filter = json!([{ "key": "SessionId", "value": id }]);
        let body = json!({ "State": "History", "Filters": filter });
        let mut answer = describe_sessions(&self.simulator.endpoint(), &body).await?;
        Ok(answer["Sessions"][0].take())
    }

    async fn apply(&self, manifest: &Value) -> Result<()> {
        let file = self.control_plane.dir().join("manifest.json");
        std::fs::write(&file, manifest.to_string())?;
        self.kubectl_shown(&format!("apply -f {}", file.display()))
            .await
    }
}

fn class(endpoint: &str) -> Value {
    json!({
        "apiVersion": "ssm-operator.dev/v1alpha1",
        "kind": "SsmSessionClass",
        "metadata": { "name": "quickstart" },
        "spec": {
            "controllerName": "ssm-operator.dev/controller",
            "aws": {
                "region": "eu-central-1",
                "endpoints": { "ssm": endpoint, "ssmmessages": endpoint },
            },
        },
    })
}

fn operator_arguments() -> Vec<String> {
    let advertised = format!("{},{}", dial::ADVERTISED_V4, dial::ADVERTISED_V6);
    [
        "all-in-one",
        &format!("--namespace={OPERATOR_NAMESPACE}"),
        "--relay-name=demo",
        "--listen-address=127.0.0.1",
        "--listen-address=::1",
        &format!("--advertise-address={advertised}"),
        "--admin-address=127.0.0.1:0",
        "--insecure-stream-urls",
        // A demonstration is not to wait for AWS's pace.
        "--poll-interval=1s",
        "--aws-call-timeout=5s",
        "--record-timeout=4s",
        "--grace=10s",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Credentials that the simulator takes as any others.
fn operator_environment(kubeconfig: &Path) -> Vec<(&'static str, String)> {
    vec![
        ("KUBECONFIG", kubeconfig.display().to_string()),
        ("AWS_ACCESS_KEY_ID", "AKIADEMONSTRATION".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "demonstration".to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
    ]
}

/// The operator's binary, built beside this one.
fn operator_binary() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own
        .parent()
        .and_then(Path::parent)
        .context("this program has no folder")?;
    let binary = folder.join("ssm-session-operator");
    ensure!(
        binary.exists(),
        "{} is missing: run this through `make demo`",
        binary.display()
    );
    Ok(binary)
}

fn admin_address(fields: &Value) -> Option<String> {
    let inner = fields.get("fields").unwrap_or(fields);
    inner
        .get("address")
        .and_then(Value::as_str)
        .map(str::to_owned)
}

async fn wait_until_ready(admin: &str) -> Result<()> {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let answer = http(admin, "GET /readyz HTTP/1.1\r\n", "")
            .await
            .unwrap_or_default();
        if answer.starts_with("HTTP/1.1 200") {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "the operator is not ready: {answer}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One call of the AWS API, as the wire has it.
async fn describe_sessions(endpoint: &str, body: &Value) -> Result<Value> {
    let host = endpoint.trim_start_matches("http://");
    let head = "POST / HTTP/1.1\r\nContent-Type: application/x-amz-json-1.1\r\n\
                X-Amz-Target: AmazonSSM.DescribeSessions\r\n";
    let answer = http(host, head, &body.to_string()).await?;
    let Some((_, json)) = answer.split_once("\r\n\r\n") else {
        bail!("no body: {answer}")
    };
    serde_json::from_str(json).with_context(|| format!("not JSON: {json}"))
}

async fn http(host: &str, head: &str, body: &str) -> Result<String> {
    let mut connection = TcpStream::connect(host).await?;
    let length = body.len();
    let rest =
        format!("Host: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    connection
        .write_all(format!("{head}{rest}").as_bytes())
        .await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn kubectl(control_plane: &ControlPlane, arguments: &str) -> Result<String> {
    let output = Command::new(control_plane.kubectl())
        .env("KUBECONFIG", control_plane.kubeconfig())
        .args(arguments.split_whitespace())
        .output()
        .await
        .context("kubectl could not be started")?;
    if !output.status.success() {
        bail!(
            "kubectl {arguments}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}
