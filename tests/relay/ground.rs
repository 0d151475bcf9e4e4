//! The ground of a test: a simulated AWS with one agent, a relay, and clients that dial it.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use prometheus_client::registry::Registry;
use ssm_session_operator::aws::{AwsBroker, AwsOptions};
use ssm_session_operator::broker::{Broker, Identity, StartRequest, UrlPolicy};
use ssm_session_operator::relay::{
    EndReason, Inherited, ListenerId, ListenerSpec, Metrics, Relay, RelayOptions, Report, State,
};
use ssm_session_operator::simulator::{
    Agent, AgentOptions, Fault, Overview, Pace, SessionView, Simulator, SimulatorOptions, Status,
};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::recorder::Shelf;
use crate::wait::ask_until;

pub const REMOTE: &str = "AWS-StartPortForwardingSessionToRemoteHost";
pub const SECRET_KEY: &str = "the-secret-access-key";
pub const SESSION_TOKEN: &str = "the-session-token-of-the-credentials";

/// Far above what anything here takes on a busy machine.
pub const WAIT_MAX: Duration = Duration::from_mins(1);

pub struct Ground {
    pub simulator: Simulator,
    /// Gone with the ground.
    _agent: Agent,
    pub relay: Relay,
    pub shelf: Arc<Shelf>,
    pub registry: Registry,
}

/// What differs from test to test.
pub struct Setting {
    pub pace: Pace,
    pub options: RelayOptions,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            pace: Pace::Unthrottled,
            options: options("run-1"),
        }
    }
}

impl Setting {
    /// The usual one, but for these options.
    pub fn with(adjust: impl FnOnce(&mut RelayOptions)) -> Self {
        let mut setting = Self::default();
        adjust(&mut setting.options);
        setting
    }
}

/// Trusts nobody.
pub fn no_trust() -> Arc<ClientConfig> {
    let roots = RootCertStore::empty();
    let config = ClientConfig::builder().with_root_certificates(roots);
    Arc::new(config.with_no_client_auth())
}

/// Back-offs as short as a test wants them; patience as long as a busy machine needs it.
pub fn options(incarnation: &str) -> RelayOptions {
    RelayOptions {
        listen_addresses: vec![Ipv4Addr::LOCALHOST.into()],
        hold: WAIT_MAX,
        backoff_min: Duration::from_millis(10),
        backoff_max: Duration::from_millis(50),
        external_end_delay: Duration::from_millis(10),
        handshake_timeout: WAIT_MAX,
        url_policy: UrlPolicy::Insecure,
        ..RelayOptions::new("relay-1", incarnation, no_trust())
    }
}

pub fn aws() -> AwsBroker {
    AwsBroker::new(aws_options())
}

pub fn aws_options() -> AwsOptions {
    let token = Some(SESSION_TOKEN.to_owned());
    let credentials = Credentials::new("AKIDEXAMPLE", SECRET_KEY, token, None, "test");
    AwsOptions {
        credentials: Some(SharedCredentialsProvider::new(credentials)),
        // No test waits for a pause of the broker.
        retry_pause: Duration::from_millis(10),
        calls_per_second: 1000,
        calls_burst: 1000,
        ..AwsOptions::default()
    }
}

pub fn listener(name: &str) -> ListenerId {
    ListenerId(name.to_owned())
}

pub fn request(document: &str) -> StartRequest {
    let parameters: &[(&str, &str)] = match document {
        REMOTE => &[("host", "db.internal"), ("portNumber", "5432")],
        "AWS-StartSSHSession" => &[("portNumber", "22")],
        _ => &[],
    };
    let parameters = parameters
        .iter()
        .map(|(name, value)| ((*name).to_owned(), vec![(*value).to_owned()]));
    StartRequest {
        target: "mi-1".to_owned(),
        document: document.to_owned(),
        parameters: parameters.collect(),
        reason: "a test".to_owned(),
    }
}

impl Ground {
    /// A relay with an unthrottled agent that forwards to `destination`, which serves listener `a`.
    pub async fn serving(destination: SocketAddr) -> Self {
        let ground = Self::new(destination, Setting::default()).await;
        ground.ensure();
        ground
    }

    /// A relay that serves nothing yet.
    pub async fn new(destination: SocketAddr, setting: Setting) -> Self {
        Self::with_broker(destination, setting, |_, aws| Arc::new(aws)).await
    }

    pub async fn with_broker(
        destination: SocketAddr,
        setting: Setting,
        broker: impl FnOnce(&Simulator, AwsBroker) -> Arc<dyn Broker>,
    ) -> Self {
        let Setting { pace, options } = setting;
        let simulator = Simulator::start(SimulatorOptions::default()).await;
        let simulator = simulator.expect("a simulator");
        let mut agent = AgentOptions::new("mi-1");
        agent.pace = pace;
        let name = ("db.internal".to_owned(), 5432);
        agent.destinations.insert(name, destination);
        let agent = Agent::start(&simulator.endpoint(), agent).expect("an agent");
        let online = simulator.wait_for_target("mi-1").await;
        online.expect("the agent comes online");
        let (mut registry, metrics) = (Registry::default(), Metrics::default());
        metrics.register(&mut registry);
        let relay = Relay::new(options, broker(&simulator, aws()), metrics);
        Self {
            simulator,
            _agent: agent,
            relay,
            shelf: Arc::default(),
            registry,
        }
    }

    pub fn identity(&self) -> Identity {
        Identity {
            region: "eu-central-1".to_owned(),
            ssm_endpoint: Some(self.simulator.endpoint()),
            ssmmessages_endpoint: Some(self.simulator.endpoint()),
            role: None,
        }
    }

    pub fn spec(&self, generation: i64, document: &str) -> ListenerSpec {
        ListenerSpec {
            generation,
            identity: self.identity(),
            request: request(document),
            lost: Vec::new(),
        }
    }

    /// Listener `a` is wished for.
    pub fn ensure(&self) {
        self.ensure_spec(self.spec(1, REMOTE));
    }

    pub fn ensure_spec(&self, spec: ListenerSpec) {
        self.ensure_with(spec, Inherited::default());
    }

    pub fn ensure_with(&self, spec: ListenerSpec, inherited: Inherited) {
        let recorder = self.shelf.clone();
        self.relay.ensure(&listener("a"), spec, inherited, recorder);
    }

    pub fn stop(&self) {
        self.relay.stop(&listener("a"), EndReason::Deleted);
    }

    /// Waits until a session of listener `a` serves.
    pub async fn wait_serving(&self) -> Report {
        let serving = |report: &Report| report.state == State::Serving;
        self.shelf.wait_for("a session that serves", serving).await
    }

    /// Where clients dial listener `a`, once it listens.
    pub async fn address(&self) -> SocketAddr {
        let listens = |report: &Report| report.port.is_some();
        let report = self.shelf.wait_for("a port", listens).await;
        (Ipv4Addr::LOCALHOST, report.port.expect("a port")).into()
    }

    pub async fn dial(&self) -> TcpStream {
        let address = self.address().await;
        TcpStream::connect(address).await.expect("it listens")
    }

    pub async fn wait_aws(&self, what: &str, condition: impl FnMut(&Overview) -> bool) -> Overview {
        let waited = self.simulator.wait_for(what, condition).await;
        waited.expect("it comes so far")
    }

    /// Takes a session's websockets away so often, each time when both are there, and waits until it is resumed.
    pub async fn interrupt(&self, session: &str, times: u64, fault: impl Fn(String) -> Fault) {
        for time in 1..=times {
            let attached = |overview: &Overview| {
                let session = overview.session(session).expect("the session");
                // One that was taken away is there for a while after the session was resumed.
                let anew = session.resumed == time - 1 && session.client_websockets >= time;
                anew && session.client_attached && session.agent_attached
            };
            self.wait_aws("both websockets", attached).await;
            self.inject(fault(session.to_owned()));
            let resumed = |overview: &Overview| {
                overview.session(session).expect("the session").resumed == time
            };
            self.wait_aws("a resumed session", resumed).await;
        }
    }

    /// Waits until all AWS sessions so far are over, at least one of them.
    pub async fn wait_all_over(&self) -> Vec<SessionView> {
        let over = |overview: &Overview| {
            let over = |session: &SessionView| session.status == Status::Terminated;
            !overview.sessions.is_empty() && overview.sessions.iter().all(over)
        };
        self.wait_aws("the end of all sessions", over)
            .await
            .sessions
    }

    /// Waits until the relay has so many listeners.
    pub async fn wait_listeners(&self, count: usize) {
        let waited = async {
            while self.relay.listeners().len() != count {
                tokio::task::yield_now().await;
            }
        };
        within("the relay to let go", waited).await;
    }

    pub fn inject(&self, fault: Fault) {
        self.simulator.inject(fault).expect("a fault");
    }

    /// The metrics as they are scraped.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("metrics");
        text
    }
}

/// Waits for what must come.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let waited = tokio::time::timeout(WAIT_MAX, future).await;
    waited.unwrap_or_else(|_| panic!("waited {WAIT_MAX:?} for {what}"))
}

/// How the line of the metrics ends that counts websockets lost for this reason.
pub fn lost(reason: &str, count: u64) -> String {
    format!("ssm_operator_relay_websockets_lost_total{{reason=\"{reason}\"}} {count}")
}

/// Waits until a line of the relay's metrics ends so.
pub async fn wait_metric(ground: &Ground, line: &str) {
    let has = async || {
        let metrics = ground.metrics();
        metrics
            .lines()
            .any(|shown| shown.ends_with(line))
            .then_some(())
    };
    let counted = ask_until(WAIT_MAX, has).await;
    assert!(counted.is_some(), "no {line:?} in\n{}", ground.metrics());
}

/// Waits until the relay resets a connection.
pub async fn wait_reset(client: &mut TcpStream) {
    let mut rest = Vec::new();
    let read = within("a reset", client.read_to_end(&mut rest)).await;
    let kind = read.map_err(|error| error.kind());
    assert_eq!(kind, Err(io::ErrorKind::ConnectionReset));
}

/// An address where nobody listens.
pub async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("an address")
}

/// A destination that serves each connection with `serve`.
pub async fn destination<S, F>(serve: S) -> SocketAddr
where
    S: Fn(TcpStream) -> F + Send + 'static,
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((connection, _)) = listener.accept().await {
            connections.spawn(serve(connection));
        }
    });
    address
}

/// A destination that sends back what it gets.
pub async fn echo() -> SocketAddr {
    destination(|mut connection| async move {
        let (mut reader, mut writer) = connection.split();
        tokio::io::copy(&mut reader, &mut writer).await.map(drop)
    })
    .await
}
