//! What every test stands on: a simulator, an agent, a destination.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use ssm_session_operator::simulator::{
    Agent, AgentOptions, Pace, Simulator, SimulatorOptions, Status,
};
use tokio::net::TcpListener;
use tokio_rustls::rustls;

use crate::client::{Service, within};

pub const REMOTE: &str = "AWS-StartPortForwardingSessionToRemoteHost";

/// A simulator with one agent, `mi-1`, which alone knows where `db.internal:5432` is.
pub struct Ground {
    pub simulator: Simulator,
    pub agent: Agent,
    pub service: Service,
}

impl Ground {
    pub async fn new(pace: Pace, destination: SocketAddr) -> Self {
        Self::with(pace, destination, None).await
    }

    pub async fn with(pace: Pace, destination: SocketAddr, tls: Option<Tls>) -> Self {
        let (server, trusting) = tls.map(|t| (t.server, t.client)).unzip();
        let options = SimulatorOptions {
            tls: server,
            ..Default::default()
        };
        let simulator = Simulator::start(options).await.expect("a simulator");
        let mut options = AgentOptions::new("mi-1");
        options.pace = pace;
        options.tls = trusting.clone();
        options
            .destinations
            .insert(("db.internal".to_owned(), 5432), destination);
        let endpoint = simulator.endpoint();
        let agent = Agent::start(&endpoint, options).expect("an agent");
        simulator
            .wait_for_target("mi-1")
            .await
            .expect("the agent comes online");
        Self {
            simulator,
            agent,
            service: Service {
                endpoint,
                tls: trusting,
            },
        }
    }

    pub async fn start(&self) -> Value {
        self.service
            .start(
                REMOTE,
                json!({ "host": ["db.internal"], "portNumber": ["5432"] }),
            )
            .await
    }

    pub async fn wait_for_status(&self, ticket: &Value, status: Status) {
        let what = format!("{status:?}");
        let waiting = self.simulator.wait_for(&what, |overview| {
            overview
                .session(id(ticket))
                .is_some_and(|session| session.status == status)
        });
        waiting.await.expect("the status comes");
    }

    pub async fn shutdown(self) {
        within("the agent's end", self.agent.shutdown()).await;
        within("the simulator's end", self.simulator.shutdown()).await;
    }
}

pub struct Tls {
    pub server: Arc<rustls::ServerConfig>,
    pub client: Arc<rustls::ClientConfig>,
}

impl Tls {
    pub fn new() -> Self {
        let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("keys");
        let certificate = certified.cert.der().clone();
        let key = certified
            .signing_key
            .serialize_der()
            .try_into()
            .expect("a key");
        let server = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .expect("a configuration");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).expect("a root");
        let client = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            server: Arc::new(server),
            client: Arc::new(client),
        }
    }
}

pub fn id(ticket: &Value) -> &str {
    ticket["SessionId"].as_str().expect("an id")
}

/// A TCP server on loopback that sends back what it gets.
pub async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.into_split();
                tokio::io::copy(&mut reader, &mut writer).await
            });
        }
    });
    address
}

/// An address where nobody listens.
pub async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("an address")
}
