//! A world of its own for each test: namespaces, a class, a simulated AWS with one agent, and processes of the operator.
//!
//! Worlds share the control plane and nothing else: each has a controllerName, and its operator watches one namespace.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::{Event, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use kube_runtime::wait::await_condition;
use serde_json::{Value, json};
use ssm_session_operator::crd::{SsmListener, SsmSession, SsmSessionClass};
use ssm_session_operator::simulator::{
    Agent, AgentOptions, Overview, Pace, Simulator, SimulatorOptions, Status,
};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::dial;
use crate::ground::{Ground, ground};
use crate::process::Process;
use crate::transfer::Server;
use crate::wait::ask_until;

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
    /// Where processes that are started from now on find the API server, and who they are there.
    pub kubeconfig: PathBuf,
    folder: PathBuf,
}

impl World {
    /// Namespaces, a class, AWS, an agent and a destination; no operator yet.
    pub async fn new(name: &str) -> Self {
        let ground = ground().await;
        let client = ground.client().await;
        let operator_namespace = ground.namespace(&client, &format!("{name}-operator")).await;
        let namespace = ground.namespace(&client, name).await;
        let server = Server::start().await.expect("loopback takes a server");
        let options = SimulatorOptions::default();
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
            operator_namespace,
            namespace,
            class,
            simulator,
            _agent: agent,
            server,
            kubeconfig: ground.kubeconfig().to_owned(),
            folder,
        };
        world.create_class(&world.class, &json!({})).await;
        world
    }

    /// The controllerName of this world's installation.
    pub fn controller_name(&self) -> String {
        format!("test.ssm-operator.dev/{}", self.namespace)
    }

    /// Creates a class that this world's installation serves.
    pub async fn create_class(&self, name: &str, annotations: &Value) {
        self.post_class(name, annotations, &self.controller_name())
            .await;
    }

    /// Creates a class that another installation serves.
    pub async fn create_class_of(&self, name: &str, controller_name: &str) {
        self.post_class(name, &json!({}), controller_name).await;
    }

    async fn post_class(&self, name: &str, annotations: &Value, controller_name: &str) {
        let endpoint = self.simulator.endpoint();
        let class = json!({
            "apiVersion": "ssm-operator.dev/v1alpha1",
            "kind": "SsmSessionClass",
            "metadata": { "name": name, "annotations": annotations },
            "spec": {
                "controllerName": controller_name,
                "aws": {
                    "region": "eu-central-1",
                    "endpoints": { "ssm": endpoint, "ssmmessages": endpoint },
                },
            },
        });
        let class: SsmSessionClass = serde_json::from_value(class).expect("a class");
        let classes: Api<SsmSessionClass> = Api::all(self.client.clone());
        classes
            .create(&PostParams::default(), &class)
            .await
            .expect("the class is admitted");
    }

    /// Starts `all-in-one`.
    pub async fn all_in_one(&self, more: &[&str]) -> Process {
        let mut arguments = relay_arguments("relay-a");
        arguments.extend(controller_arguments(&self.namespace));
        self.start("all-in-one", "all-in-one", arguments, more)
            .await
    }

    /// Starts a controller.
    pub async fn controller(&self, more: &[&str]) -> Process {
        let arguments = controller_arguments(&self.namespace);
        self.start("controller", "controller", arguments, more)
            .await
    }

    /// Starts a relay.
    pub async fn relay(&self, name: &str, more: &[&str]) -> Process {
        self.start("relay", name, relay_arguments(name), more).await
    }

    async fn start(
        &self,
        command: &str,
        name: &str,
        arguments: Vec<String>,
        more: &[&str],
    ) -> Process {
        let number = std::fs::read_dir(&self.folder).map_or(0, Iterator::count);
        let log = self.folder.join(format!("{number}-{name}.log"));
        let mut all = vec![
            command.to_owned(),
            format!("--namespace={}", self.operator_namespace),
            format!("--controller-name={}", self.controller_name()),
            "--admin-address=127.0.0.1:0".to_owned(),
            "--lease-duration=1h".to_owned(),
            // Long enough for a loaded machine; the grace below must be longer than both together.
            "--aws-call-timeout=5s".to_owned(),
            "--record-timeout=4s".to_owned(),
            "--backoff-min=200ms".to_owned(),
            "--backoff-max=2s".to_owned(),
            "--log-filter=info,ssm_session_operator=trace".to_owned(),
        ];
        all.extend(arguments);
        // What a test says itself takes the place of what every test says.
        let name = |argument: &str| argument.split('=').next().unwrap_or_default().to_owned();
        all.retain(|argument| !more.iter().any(|own| name(own) == name(argument)));
        all.extend(more.iter().map(|argument| (*argument).to_owned()));
        let environment = [
            ("KUBECONFIG", self.kubeconfig.display().to_string()),
            ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ];
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_ssm-session-operator"));
        Process::start(&log, &binary, &all, &environment)
            .await
            .expect("the operator starts")
    }

    /// The usual session: one port that leads to this world's destination.
    pub fn session(&self, name: &str) -> Value {
        json!({
            "apiVersion": "ssm-operator.dev/v1alpha1",
            "kind": "SsmSession",
            "metadata": { "name": name, "namespace": self.namespace },
            "spec": {
                "className": self.class,
                "target": { "id": TARGET },
                "ports": [{ "name": "db", "port": 5432, "remotePort": REMOTE_PORT }],
                "reason": "a test",
            },
        })
    }

    /// Creates a session.
    pub async fn create(&self, session: &Value) -> SsmSession {
        let session: SsmSession = serde_json::from_value(session.clone()).expect("a session");
        let sessions = self.sessions();
        sessions
            .create(&PostParams::default(), &session)
            .await
            .expect("the session is admitted")
    }

    /// Changes a session's spec by a merge patch.
    pub async fn edit(&self, name: &str, spec: &Value) {
        let patch = Patch::Merge(json!({ "spec": spec }));
        let sessions = self.sessions();
        sessions
            .patch(name, &PatchParams::default(), &patch)
            .await
            .expect("the edit is admitted");
    }

    /// Begins to delete a session.
    pub async fn delete(&self, name: &str) {
        let sessions = self.sessions();
        sessions
            .delete(name, &DeleteParams::default())
            .await
            .expect("the session can be deleted");
    }

    /// Sessions of the user's namespace.
    pub fn sessions(&self) -> Api<SsmSession> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Listeners of the operator's namespace.
    pub fn listeners(&self) -> Api<SsmListener> {
        Api::namespaced(self.client.clone(), &self.operator_namespace)
    }

    /// Services of the user's namespace.
    pub fn services(&self) -> Api<Service> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// EndpointSlices of the user's namespace.
    pub fn slices(&self) -> Api<EndpointSlice> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Waits until a session is as it should be, and gives it.
    pub async fn wait(
        &self,
        name: &str,
        what: &str,
        condition: impl Fn(&SsmSession) -> bool,
    ) -> SsmSession {
        let met = |session: Option<&SsmSession>| session.is_some_and(&condition);
        let waiting = await_condition(self.sessions(), name, met);
        if let Ok(session) = timeout(WAIT_MAX, waiting).await {
            let session = session.expect("the watch holds");
            return session.expect("the session is there");
        }
        let session = self.sessions().get_opt(name).await;
        let session = session.expect("the API answers");
        let listeners = self.listeners().list(&ListParams::default()).await;
        let listeners = listeners.expect("the API answers").items;
        panic!(
            "{name}: {what} did not come about\nsession: {}\nlisteners: {}\nAWS: {:#?}\nlogs: {}",
            serde_json::to_string_pretty(&session).unwrap_or_default(),
            serde_json::to_string_pretty(&listeners).unwrap_or_default(),
            self.simulator.overview(),
            self.log_ends(),
        );
    }

    /// Waits until clients can dial a session.
    pub async fn wait_available(&self, name: &str) -> SsmSession {
        self.wait(name, "Available", |session| {
            condition(session, "Available") == "True"
        })
        .await
    }

    /// Waits until a session is gone.
    pub async fn wait_gone(&self, name: &str) {
        self.until(&format!("{name} is gone"), async || {
            Ok(self.sessions().get_opt(name).await?.is_none())
        })
        .await;
    }

    /// Waits until AWS is as it should be.
    pub async fn wait_aws(&self, what: &str, condition: impl FnMut(&Overview) -> bool) -> Overview {
        match self.simulator.wait_for(what, condition).await {
            Ok(overview) => overview,
            Err(error) => panic!("{error}\nlogs: {}", self.log_ends()),
        }
    }

    /// Asks until the answer is yes.
    pub async fn until(&self, what: &str, ask: impl AsyncFn() -> Result<bool>) {
        let met = ask_until(WAIT_MAX, async || {
            ask().await.is_ok_and(|yes| yes).then_some(())
        })
        .await;
        if met.is_none() {
            let answer = ask().await;
            panic!(
                "{what} did not come about ({answer:?})\nlogs: {}",
                self.log_ends()
            );
        }
    }

    /// Dials a Service's port, as soon as it has an endpoint.
    pub async fn dial(&self, service: &str, port: &str) -> TcpStream {
        let connection = ask_until(WAIT_MAX, async || {
            let endpoints = dial::endpoints(&self.client, &self.namespace, service, port).await;
            TcpStream::connect(endpoints.ok()?.first()?).await.ok()
        });
        match connection.await {
            Some(connection) => connection,
            None => panic!(
                "{service} has no endpoint that listens\n{}",
                self.log_ends()
            ),
        }
    }

    /// Events about objects of a name, as `Reason: note`.
    pub async fn events(&self, name: &str) -> Vec<String> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let events = events
            .list(&ListParams::default())
            .await
            .expect("events can be read");
        let about = |event: &Event| event.involved_object.name.as_deref() == Some(name);
        let say = |event: Event| {
            let (reason, message) = (event.reason, event.message);
            format!(
                "{}: {}",
                reason.unwrap_or_default(),
                message.unwrap_or_default()
            )
        };
        events.items.into_iter().filter(about).map(say).collect()
    }

    /// Sessions that AWS has not ended.
    pub fn live_sessions(&self) -> Vec<String> {
        let ended = |status| matches!(status, Status::Terminated | Status::Failed);
        let sessions = self.simulator.sessions().into_iter();
        sessions
            .filter(|session| !ended(session.status))
            .map(|session| session.id)
            .collect()
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

    /// Nothing of the operator is left: no object in Kubernetes, no live session in AWS.
    pub async fn assert_nothing_is_left(&self) {
        self.until("nothing is left in the cluster", async || {
            let all = ListParams::default();
            let listeners = self.listeners().list(&all).await?.items;
            let services = self.services().list(&all).await?.items;
            let slices = self.slices().list(&all).await?.items;
            Ok(listeners.is_empty() && services.is_empty() && slices.is_empty())
        })
        .await;
        // AWS calls a session Terminating for a moment after it has answered.
        self.wait_aws("no session is live in AWS", |_| {
            self.live_sessions().is_empty()
        })
        .await;
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
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn relay_arguments(name: &str) -> Vec<String> {
    [
        format!("--relay-name={name}"),
        "--listen-address=127.0.0.1".to_owned(),
        "--listen-address=::1".to_owned(),
        format!(
            "--advertise-address={},{}",
            dial::ADVERTISED_V4,
            dial::ADVERTISED_V6
        ),
        "--insecure-stream-urls".to_owned(),
        "--lease-renew=1s".to_owned(),
        "--hold=3s".to_owned(),
        "--external-end-delay=3s".to_owned(),
    ]
    .to_vec()
}

fn controller_arguments(namespace: &str) -> Vec<String> {
    [
        format!("--watch-namespace={namespace}"),
        "--poll-interval=300ms".to_owned(),
        "--grace=10s".to_owned(),
        "--stalled-after=2s".to_owned(),
        "--terminate-after=3s".to_owned(),
        "--relay-interval=200ms".to_owned(),
        "--mass-death-pause=1s".to_owned(),
        "--finalizer-timeout=10s".to_owned(),
        "--conflict-interval=500ms".to_owned(),
        "--election-duration=6s".to_owned(),
        "--election-renew-deadline=5s".to_owned(),
        "--election-retry=1s".to_owned(),
    ]
    .to_vec()
}

/// Status of a session's condition: `True`, `False`, `Unknown`, or empty when it is absent.
pub fn condition<'a>(session: &'a SsmSession, kind: &str) -> &'a str {
    find(session, kind).map_or("", |condition| &condition.status)
}

/// Reason of a session's condition, or empty when it is absent.
pub fn reason<'a>(session: &'a SsmSession, kind: &str) -> &'a str {
    find(session, kind).map_or("", |condition| &condition.reason)
}

fn find<'a>(
    session: &'a SsmSession,
    kind: &str,
) -> Option<&'a k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    session
        .status
        .as_ref()?
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind)
}
