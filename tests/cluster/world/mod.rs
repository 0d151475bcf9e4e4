//! A world of its own for each test: namespaces, a class, a simulated AWS with one agent, and processes of the operator.
//!
//! Worlds share the control plane and nothing else: each has a controllerName, and its operator watches one namespace.

mod aws;
mod course;
mod operator;
mod rights;
mod waits;
mod wishes;

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Client;
use serde_json::json;
use ssm_session_operator::simulator::{Agent, AgentOptions, Pace, Simulator, SimulatorOptions};

use crate::ground::{Ground, ground};
use crate::transfer::Server;
use rights::Rights;

pub use course::carry;
pub use rights::rendered_rights;
pub use waits::{condition, reason};

/// How long a condition may take: far above what anything here takes on a loaded machine.
pub const WAIT_MAX: Duration = Duration::from_secs(90);

/// The target of every world.
pub const TARGET: &str = "i-0123456789abcdef0";

/// The port on which the agent's destination is known to documents.
pub const REMOTE_PORT: u16 = 5432;

/// What operators are given as AWS's secret key; it must show up nowhere.
pub const SECRET_KEY: &str = "wJalrXUtnFEMI-K7MDENG-bPxRfiCYSECRETKEY";

/// For relays that are to be taken for dead. All others hold their Leases for longer than any test takes: on a machine
/// that is busy with all tests at once a living relay may be late with its renewals.
pub const MORTAL: &[&str] = &["--lease-duration=4s", "--lease-renew=1s"];

/// One test's world.
pub struct World {
    /// The shared control plane.
    pub ground: &'static Ground,
    /// A client of this test's runtime.
    pub client: Client,
    /// What its test calls it.
    name: String,
    /// Namespace of the operator.
    pub operator_namespace: String,
    /// Namespace of the user.
    pub namespace: String,
    /// The class, and the controllerName that it is served by.
    pub class: String,
    /// AWS.
    pub simulator: Simulator,
    /// The target's agent, which lives as long as the world.
    _agent: Agent,
    /// The destination that only the agent reaches.
    pub server: Server,
    /// Where processes that are started from now on find the API server. Where it names the administrator, they are
    /// there who the chart makes them.
    pub kubeconfig: PathBuf,
    rights: Rights,
    /// With what processes that are started from now on call AWS: variables of the default chain.
    pub credentials: Vec<(&'static str, String)>,
    folder: PathBuf,
}

impl World {
    /// Namespaces, a class, AWS, an agent and a destination; no operator yet.
    pub async fn new(name: &str) -> Self {
        Self::with(name, SimulatorOptions::default()).await
    }

    /// The same, with an AWS of its own kind.
    pub async fn with(name: &str, options: SimulatorOptions) -> Self {
        let ground = ground().await;
        let client = ground.client().await;
        let operator_namespace = ground.namespace(&client, &format!("{name}-operator")).await;
        let namespace = ground.namespace(&client, name).await;
        let server = Server::start().await.expect("loopback takes a server");
        let simulator = Simulator::start(options)
            .await
            .expect("loopback takes a simulator");
        let mut options = AgentOptions::new(TARGET);
        options.pace = Pace::Unthrottled;
        options
            .destinations
            .insert(("localhost".to_owned(), REMOTE_PORT), server.address());
        let agent = Agent::start(&simulator.endpoint(), options).expect("the endpoint is a URL");
        simulator
            .wait_for_target(TARGET)
            .await
            .expect("the agent connects");
        let folder = std::env::temp_dir().join(format!("{namespace}-{}", std::process::id()));
        let mut private = std::fs::DirBuilder::new();
        let made = private.recursive(true).mode(0o700).create(&folder);
        made.expect("the temporary folder takes a folder");
        let class = namespace.clone();
        let world = Self {
            ground,
            client,
            name: name.to_owned(),
            operator_namespace,
            namespace,
            class,
            simulator,
            _agent: agent,
            server,
            kubeconfig: ground.kubeconfig().to_owned(),
            rights: Rights::default(),
            credentials: vec![
                ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE".to_owned()),
                ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ],
            folder,
        };
        world.create_class(&world.class, &json!({})).await;
        world
    }

    /// The controllerName of this world's installation.
    pub fn controller_name(&self) -> String {
        format!("test.ssm-operator.dev/{}", self.namespace)
    }

    /// A folder of this world's own, for logs and kubeconfigs; it goes with the world.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Everything that this world's processes have logged.
    pub fn logs(&self) -> String {
        let files = std::fs::read_dir(&self.folder).expect("the folder is there");
        let mut paths: Vec<_> = files.flatten().map(|file| file.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        paths.sort();
        let read = |path: &PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        paths.iter().map(read).collect()
    }

    fn log_ends(&self) -> String {
        let logs = self.logs();
        let lines: Vec<_> = logs.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "{}: logs are kept in {}",
                self.namespace,
                self.folder.display()
            );
            return;
        }
        self.rights_fit();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
