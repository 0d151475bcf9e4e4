//! The AWS of one installation: simulated, behind TLS, with a target whose agent alone reaches a server.

use std::net::SocketAddr;

use serde_json::Value;
use ssm_session_operator::simulator::{
    Agent, AgentOptions, Fault, Operation, Pace, Simulator, SimulatorOptions,
};

use crate::front::Front;
use crate::http;
use crate::transfer::Server;

/// The target of every session.
pub const TARGET: &str = "i-0123456789abcdef0";

/// The port of the target that leads to the server.
pub const REMOTE_PORT: u16 = 5432;

/// Loopback, which needs no name.
const LOOPBACK: &str = "127.0.0.1";

/// It ends with the test's runtime.
pub struct Aws {
    simulator: Simulator,
    address: SocketAddr,
    pem: String,
    _agent: Agent,
    _server: Server,
}

impl Aws {
    /// One that is reached on loopback.
    pub async fn on_loopback() -> Self {
        Self::start(&[LOOPBACK], None).await
    }

    /// One that is reached by these names alone, each at port 443. Stream URLs are of the host `gateway`.
    pub async fn behind(names: &[&str], gateway: &str) -> Self {
        Self::start(names, Some(gateway)).await
    }

    async fn start(names: &[&str], gateway: Option<&str>) -> Self {
        let front = Front::of(names).await;
        let address = front.address();
        let gateway = gateway.map_or_else(|| address.to_string(), str::to_owned);
        let options = SimulatorOptions {
            stream_base: Some(format!("wss://{gateway}")),
            ..SimulatorOptions::default()
        };
        let simulator = Simulator::start(options).await;
        let simulator = simulator.expect("loopback takes a simulator");
        let pem = front.pem.clone();
        let plain = simulator.endpoint();
        front.serve(plain.trim_start_matches("http://").to_owned());

        let server = Server::start().await.expect("loopback takes a server");
        let mut agent = AgentOptions::new(TARGET);
        agent.pace = Pace::Unthrottled;
        let destination = ("localhost".to_owned(), REMOTE_PORT);
        agent.destinations.insert(destination, server.address());
        let agent = Agent::start(&plain, agent).expect("the endpoint is a URL");
        let connected = simulator.wait_for_target(TARGET).await;
        connected.expect("the agent connects");
        Self {
            simulator,
            address,
            pem,
            _agent: agent,
            _server: server,
        }
    }

    /// Where TLS is spoken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, for classes; good when it is on loopback.
    pub fn endpoint(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Its certificate, which is its own authority.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// What is behind TLS.
    pub fn simulator(&self) -> &Simulator {
        &self.simulator
    }

    /// Starts a session that lives on without a client, by the identity of all pods. Gives its id.
    pub async fn start_session(&self, request: &Value) -> String {
        // The agent would end it: nobody shakes hands.
        let silent = Fault::SilentStarts { calls: 1 };
        self.simulator.inject(silent).expect("a fault");
        let endpoint = self.simulator.endpoint();
        let started = http::call_ssm(&endpoint, "StartSession", request).await;
        let id = started.expect("it is started")["SessionId"].take();
        id.as_str().expect("it has an id").to_owned()
    }

    /// It fails an operation from now on, or none any more.
    pub fn fail(&self, operation: Operation, code: &str, fails: bool) {
        let fault = if fails {
            Fault::Fail {
                operation,
                calls: u32::MAX,
                code: code.to_owned(),
            }
        } else {
            Fault::Clear
        };
        self.simulator.inject(fault).expect("a fault");
    }

    /// It refuses to start sessions from now on, or does so no more.
    pub fn deny_starts(&self, deny: bool) {
        self.fail(Operation::StartSession, "AccessDeniedException", deny);
    }
}
