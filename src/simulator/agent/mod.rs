//! An agent that connects to a message gateway as the real one does, multiplexes with `async_smux`
//! and really dials TCP.
//!
//! It numbers, acknowledges and retransmits by itself, in the agent's way and not in our client's.

mod connection;
mod control;
mod handshake;
mod incoming;
mod order;
mod outcome;
mod outgoing;
mod port;
#[cfg(test)]
mod tests;
mod transport;
mod worker;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use connection::Gateway;

/// How fast the agent is, and how careful a client must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// As the real one: it reads 1024 bytes and sleeps 1 ms, and rejects data that comes within 10 ms
    /// after `HandshakeComplete` while it acknowledges what comes behind.
    #[default]
    Faithful,
    /// It sends the same messages without a pause, and takes data from the start.
    Unthrottled,
}

impl Pace {
    /// Pause after each message.
    fn pause(self) -> Option<Duration> {
        match self {
            Self::Faithful => Some(Duration::from_millis(1)),
            Self::Unthrottled => None,
        }
    }

    /// How long after `HandshakeComplete` data is rejected.
    fn deaf(self) -> Duration {
        match self {
            Self::Faithful => Duration::from_millis(10),
            Self::Unthrottled => Duration::ZERO,
        }
    }
}

/// How the agent behaves.
#[derive(Clone)]
pub struct AgentOptions {
    /// The managed node that it is.
    pub instance_id: String,
    /// How fast it is.
    pub pace: Pace,
    /// `AgentVersion`, four numeric parts: clients choose by it.
    pub agent_version: String,
    /// Destinations that only this agent reaches: host and port as the document names them
    /// (`localhost` without a host), and where they really are. All others are dialled as they are.
    pub destinations: BTreeMap<(String, u16), SocketAddr>,
    /// Trusts the gateway's certificate; needed for `https` endpoints.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

impl AgentOptions {
    /// A faithful agent of a recent version that reaches what this machine reaches.
    #[must_use]
    pub fn new(instance_id: impl Into<String>) -> Self {
        Self {
            instance_id: instance_id.into(),
            pace: Pace::default(),
            agent_version: "3.3.1142.0".to_owned(),
            destinations: BTreeMap::new(),
            tls: None,
        }
    }
}

/// A running agent.
pub struct Agent {
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl Agent {
    /// Connects to the gateway at `endpoint` (`http://host:port` or `https`) and stays connected.
    ///
    /// # Errors
    /// The endpoint is no such URL, or is `https` and the options trust no certificate.
    pub fn start(endpoint: &str, options: AgentOptions) -> io::Result<Self> {
        let gateway = Arc::new(Gateway::new(endpoint, options.tls.clone())?);
        let cancel = CancellationToken::new();
        let tasks = TaskTracker::new();
        let control = control::run(gateway, Arc::new(options), tasks.clone(), cancel.clone());
        tasks.spawn(control);
        Ok(Self { cancel, tasks })
    }

    /// Ends all sessions of this agent without a word, as a node does that loses its power, and waits
    /// until no task is left.
    pub async fn shutdown(self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
