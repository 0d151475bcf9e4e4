//! What the operator needs around it on one machine, and the operator: a control plane, a simulated AWS, a node in it
//! whose agent alone reaches a TCP server, and the operator's processes. For the demo and for benchmarks.

#![allow(dead_code, reason = "the demo and the benchmark each use a part of it")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use ssm_session_operator::crd::DEFAULT_CLASS_ANNOTATION;
use ssm_session_operator::simulator::{Agent, AgentOptions, Pace, Simulator, SimulatorOptions};
use tokio::process::Command;

use crate::control_plane::ControlPlane;
use crate::process::Process;
use crate::transfer::Server;
use crate::wait::ask_until;
use crate::{dial, http};

/// The operator's own namespace.
const OPERATOR_NAMESPACE: &str = "ssm-operator";

/// The target that is connected to the simulated AWS.
pub const TARGET: &str = "i-0123456789abcdef0";

/// The port of [`TARGET`] on which the server is reached.
pub const REMOTE_PORT: u16 = 5432;

/// How long a condition may take.
pub const WAIT_MAX: Duration = Duration::from_secs(90);

/// What differs between those who set a stage.
pub struct Setting {
    /// Name of the class, which is the default class.
    pub class: &'static str,
    /// The operator's program.
    pub program: PathBuf,
    /// Its commands, each for a process of its own.
    pub commands: &'static [&'static str],
    /// Its options beyond those that the stage needs.
    pub options: &'static [&'static str],
    /// Told what comes next.
    pub say: fn(&str),
}

/// Everything that runs.
pub struct Stage {
    operator: Vec<Process>,
    client: kube::Client,
    simulator: Simulator,
    agent: Agent,
    server: Server,
    control_plane: ControlPlane,
}

impl Stage {
    /// Starts everything, one after the other; there is a class and no session.
    pub async fn set(setting: Setting) -> Result<Self> {
        let Setting {
            class,
            program,
            commands,
            options,
            say,
        } = setting;
        ensure!(program.exists(), "{} is missing", program.display());
        say("Starting a Kubernetes control plane (etcd, kube-apiserver, kube-controller-manager)");
        let control_plane = ControlPlane::start().await.context("the control plane")?;
        let client = control_plane.client().await?;

        say("Starting a simulated AWS, and a node in it whose agent alone reaches a TCP server");
        let server = Server::start().await?;
        let simulator = Simulator::start(SimulatorOptions::default()).await?;
        let mut agent = AgentOptions::new(TARGET);
        agent.pace = Pace::Unthrottled;
        let destination = ("localhost".to_owned(), REMOTE_PORT);
        agent.destinations.insert(destination, server.address());
        let agent = Agent::start(&simulator.endpoint(), agent)?;
        simulator.wait_for_target(TARGET).await?;

        say(&format!(
            "Installing the kinds and starting the operator ({})",
            commands.join(", ")
        ));
        let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/crds/");
        kubectl(&control_plane, &["apply", "-f", crds]).await?;
        kubectl(&control_plane, &["create", "namespace", OPERATOR_NAMESPACE]).await?;
        let mut operator = Vec::new();
        for command in commands {
            let process = start_operator(&control_plane, &program, command, options);
            operator.push(process.await?);
        }
        let stage = Self {
            operator,
            client,
            simulator,
            agent,
            server,
            control_plane,
        };
        let endpoint = stage.simulator.endpoint();
        stage.apply(&class_manifest(class, &endpoint)).await?;
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
        for process in operator {
            process.stop().await.context("the operator")?;
        }
        drop(client);
        agent.shutdown().await;
        simulator.shutdown().await;
        drop(server);
        drop(control_plane);
        Ok(())
    }

    /// The operator's processes, in the order of their commands.
    pub fn operator(&self) -> &[Process] {
        &self.operator
    }

    /// A client of the API server.
    pub fn client(&self) -> &kube::Client {
        &self.client
    }

    /// The simulated AWS.
    pub fn simulator(&self) -> &Simulator {
        &self.simulator
    }

    /// The server that only the agent reaches.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The control plane.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// The log of the operator's process with this command.
    pub fn log(&self, command: &str) -> PathBuf {
        operator_log(&self.control_plane, command)
    }

    /// The end of the operator's logs.
    pub fn last_words(&self) -> String {
        let mut last = String::new();
        for process in &self.operator {
            let logged = process.logged();
            let lines: Vec<_> = logged.lines().collect();
            last += &lines[lines.len().saturating_sub(20)..].join("\n");
            last.push('\n');
        }
        last
    }

    /// Runs kubectl with arguments that have no blanks in them, and gives what it prints.
    pub async fn kubectl(&self, arguments: &str) -> Result<String> {
        let arguments: Vec<_> = arguments.split_whitespace().collect();
        kubectl(&self.control_plane, &arguments).await
    }

    /// Applies a manifest.
    pub async fn apply(&self, manifest: &Value) -> Result<String> {
        let file = self.control_plane.dir().join("manifest.json");
        std::fs::write(&file, manifest.to_string())?;
        self.kubectl(&format!("apply -f {}", file.display())).await
    }
}

fn class_manifest(name: &str, endpoint: &str) -> Value {
    json!({
        "apiVersion": "ssm-operator.dev/v1alpha1",
        "kind": "SsmSessionClass",
        "metadata": {
            "name": name,
            // Examples name no class.
            "annotations": { DEFAULT_CLASS_ANNOTATION: "true" },
        },
        "spec": {
            "controllerName": "ssm-operator.dev/controller",
            "aws": {
                "region": "eu-central-1",
                "endpoints": { "ssm": endpoint, "ssmmessages": endpoint },
            },
        },
    })
}

fn operator_log(control_plane: &ControlPlane, command: &str) -> PathBuf {
    control_plane.dir().join(format!("{command}.log"))
}

/// A process of the operator, ready.
async fn start_operator(
    control_plane: &ControlPlane,
    program: &Path,
    command: &str,
    options: &[&str],
) -> Result<Process> {
    let namespace = format!("--namespace={OPERATOR_NAMESPACE}");
    let mut arguments = vec![command, &namespace, "--admin-address=127.0.0.1:0"];
    let advertised = format!("{},{}", dial::ADVERTISED_V4, dial::ADVERTISED_V6);
    let advertise = format!("--advertise-address={advertised}");
    if command != "controller" {
        arguments.extend([
            "--relay-name=stage",
            "--listen-address=127.0.0.1",
            "--listen-address=::1",
            &advertise,
            "--insecure-stream-urls",
        ]);
    }
    let arguments = arguments.iter().chain(options);
    let arguments: Vec<_> = arguments.map(|argument| (*argument).to_owned()).collect();
    let kubeconfig = control_plane.kubeconfig().display().to_string();
    let environment = [
        ("KUBECONFIG", kubeconfig),
        // The simulator takes these as any others.
        ("AWS_ACCESS_KEY_ID", "AKIASTAGE".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "stage".to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
    ];
    let log = operator_log(control_plane, command);
    let mut operator = Process::start(&log, program, &arguments, &environment).await?;
    let admin = operator.admin_address(WAIT_MAX).await?;
    let ready = ask_until(WAIT_MAX, async || {
        let answer = http::get(&admin, "/readyz").await.ok()?;
        (answer.status == 200).then_some(())
    });
    let ready = ready.await;
    ready.with_context(|| format!("the {command} does not become ready"))?;
    Ok(operator)
}

async fn kubectl(control_plane: &ControlPlane, arguments: &[&str]) -> Result<String> {
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
    Ok(String::from_utf8(output.stdout)?)
}
