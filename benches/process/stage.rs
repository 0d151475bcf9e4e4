//! What the operator needs around it: control plane, simulated AWS with an agent, a destination; and the operator.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use ssm_session_operator::simulator::{Agent, AgentOptions, Pace, Simulator, SimulatorOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::control_plane::ControlPlane;
use crate::process::Process;
use crate::transfer::Server;
use crate::wait::ask_until;
use crate::{dial, forwarder};

/// The operator's own namespace.
const OPERATOR_NAMESPACE: &str = "ssm-operator";

/// The namespace of the sessions.
const NAMESPACE: &str = "bench";

/// The class of the sessions.
const CLASS: &str = "bench";

const TARGET: &str = "i-0123456789abcdef0";
const REMOTE_PORT: u16 = 5432;

/// How long a condition may take.
const WAIT_MAX: Duration = Duration::from_secs(90);

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
    /// Starts everything; there is a class and no session.
    pub async fn set() -> Result<Self> {
        let control_plane = ControlPlane::start().await.context("the control plane")?;
        let client = control_plane.client().await?;
        let server = Server::start().await?;
        let simulator = Simulator::start(SimulatorOptions::default()).await?;
        let mut options = AgentOptions::new(TARGET);
        options.pace = Pace::Unthrottled;
        let name = ("localhost".to_owned(), REMOTE_PORT);
        options.destinations.insert(name, server.address());
        let agent = Agent::start(&simulator.endpoint(), options)?;
        simulator.wait_for_target(TARGET).await?;

        let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/crds/");
        kubectl(&control_plane, &["apply", "-f", crds]).await?;
        for namespace in [OPERATOR_NAMESPACE, NAMESPACE] {
            kubectl(&control_plane, &["create", "namespace", namespace]).await?;
        }
        apply(&control_plane, &class(&simulator.endpoint())).await?;
        let operator = start_operator(&control_plane).await?;
        Ok(Self {
            operator,
            client,
            simulator,
            agent,
            server,
            control_plane,
        })
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

    /// The operator's process.
    pub fn operator_pid(&self) -> u32 {
        self.operator.pid()
    }

    /// The end of the operator's log.
    pub fn last_words(&self) -> String {
        let logged = self.operator.logged();
        let lines: Vec<_> = logged.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Calls of AWS so far, by their names.
    pub fn aws_calls(&self) -> Vec<(String, u64)> {
        let calls = self.simulator.overview().calls.into_iter();
        calls
            .map(|(operation, calls)| (format!("{operation:?}"), calls.total))
            .collect()
    }

    /// Applies so many SsmSessions of one port each, and waits until all are available and AWS has been asked for
    /// them: until then there is work left.
    pub async fn wish_for(&self, sessions: usize) -> Result<()> {
        let items: Vec<_> = (0..sessions).map(session).collect();
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
        apply(&self.control_plane, &list).await?;
        for condition in [
            "condition=Available",
            "jsonpath={.status.sessions[0].status}=Connected",
        ] {
            let wished = format!("--for={condition}");
            let limit = format!("--timeout={}s", WAIT_MAX.as_secs());
            let wait = [
                "wait",
                "ssmsessions",
                "--all",
                "-n",
                NAMESPACE,
                &wished,
                &limit,
            ];
            kubectl(&self.control_plane, &wait).await?;
        }
        Ok(())
    }

    /// Where the relay serves the first session.
    pub async fn relay_address(&self) -> Result<SocketAddr> {
        let service = session_name(0);
        let endpoints = dial::endpoints(&self.client, NAMESPACE, &service, "db").await?;
        let first = endpoints.first().copied();
        first.with_context(|| format!("{service} has no ready endpoint"))
    }

    /// A process that forwards to the destination, and where.
    pub async fn start_forwarder(&self) -> Result<(Process, SocketAddr)> {
        let log = self.control_plane.dir().join("forwarder.log");
        let arguments = [
            forwarder::COMMAND.to_owned(),
            self.server.address().to_string(),
        ];
        let program = std::env::current_exe()?;
        let mut process = Process::start(&log, &program, &arguments, &[]).await?;
        let line = process.wait_for_log(forwarder::LISTENING, WAIT_MAX).await?;
        let address = line.trim_start_matches(forwarder::LISTENING).parse()?;
        Ok((process, address))
    }
}

fn session_name(number: usize) -> String {
    format!("session-{number}")
}

fn session(number: usize) -> Value {
    json!({
        "apiVersion": "ssm-operator.dev/v1alpha1",
        "kind": "SsmSession",
        "metadata": { "name": session_name(number), "namespace": NAMESPACE },
        "spec": {
            "className": CLASS,
            "target": { "id": TARGET },
            "ports": [{ "name": "db", "port": 5432, "remotePort": REMOTE_PORT }],
            "reason": "a benchmark",
        },
    })
}

fn class(endpoint: &str) -> Value {
    json!({
        "apiVersion": "ssm-operator.dev/v1alpha1",
        "kind": "SsmSessionClass",
        "metadata": { "name": CLASS },
        "spec": {
            "controllerName": "ssm-operator.dev/controller",
            "aws": {
                "region": "eu-central-1",
                "endpoints": { "ssm": endpoint, "ssmmessages": endpoint },
            },
        },
    })
}

/// The operator with its defaults, ready.
async fn start_operator(control_plane: &ControlPlane) -> Result<Process> {
    let arguments = [
        "all-in-one".to_owned(),
        format!("--namespace={OPERATOR_NAMESPACE}"),
        "--relay-name=bench".to_owned(),
        "--listen-address=127.0.0.1".to_owned(),
        "--listen-address=::1".to_owned(),
        format!(
            "--advertise-address={},{}",
            dial::ADVERTISED_V4,
            dial::ADVERTISED_V6
        ),
        "--admin-address=127.0.0.1:0".to_owned(),
        "--insecure-stream-urls".to_owned(),
    ];
    let kubeconfig = control_plane.kubeconfig().display().to_string();
    let environment = [
        ("KUBECONFIG", kubeconfig),
        // The simulator takes these as any others.
        ("AWS_ACCESS_KEY_ID", "AKIABENCHMARK".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "benchmark".to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
    ];
    let log = control_plane.dir().join("operator.log");
    let program = Path::new(env!("CARGO_BIN_EXE_ssm-session-operator"));
    let mut operator = Process::start(&log, program, &arguments, &environment).await?;
    let line = operator
        .wait_for_log("serving probes and metrics", WAIT_MAX)
        .await?;
    let line: Value = serde_json::from_str(&line).context("the operator's log")?;
    let admin = line.pointer("/fields/address").or(line.get("address"));
    let admin = admin
        .and_then(Value::as_str)
        .context("the log names no admin address")?;
    let ready = ask_until(WAIT_MAX, async || {
        is_ready(admin).await.is_ok_and(|ready| ready).then_some(())
    });
    ready.await.context("the operator does not become ready")?;
    Ok(operator)
}

async fn is_ready(admin: &str) -> Result<bool> {
    let mut connection = TcpStream::connect(admin).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}

async fn apply(control_plane: &ControlPlane, manifest: &Value) -> Result<()> {
    let file = control_plane.dir().join("manifest.json");
    std::fs::write(&file, manifest.to_string())?;
    kubectl(control_plane, &["apply", "-f", &file.to_string_lossy()]).await
}

async fn kubectl(control_plane: &ControlPlane, arguments: &[&str]) -> Result<()> {
    let output = Command::new(control_plane.kubectl())
        .env("KUBECONFIG", control_plane.kubeconfig())
        .args(arguments)
        .output()
        .await
        .context("kubectl could not be started")?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("kubectl {}: {}", arguments.join(" "), stderr.trim());
    }
    Ok(())
}
