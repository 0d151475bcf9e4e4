//! What can be set on a relay, with defaults and their reasons.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::ClientConfig;

use crate::broker::UrlPolicy;
use crate::proxy::Proxies;

/// Settings of one relay.
#[derive(Clone, Debug)]
pub struct RelayOptions {
    /// Name of the relay, the same across restarts.
    pub name: String,
    /// This run of its process.
    pub incarnation: String,
    /// Addresses on which every listener listens, each on the same port.
    pub listen_addresses: Vec<IpAddr>,
    /// Ports for listeners, below the kernel's ephemeral ports so that no outgoing connection takes one.
    pub ports: RangeInclusive<u16>,
    /// How long a freed port goes to nobody else: a stale slice must never lead into another team's target.
    pub port_quarantine: Duration,
    /// How long a client that dials while no session is up is held before it is reset, and how long a listener
    /// may fail to start before it is reported as not ready.
    pub hold: Duration,
    /// How long the agent may take to ask for a handshake.
    pub handshake_timeout: Duration,
    /// How long a started session may stay unrecorded before it is terminated again.
    pub record_timeout: Duration,
    /// The first delay after a failed start; doubles up to `backoff_max`, with jitter.
    pub backoff_min: Duration,
    /// The longest delay between starts.
    pub backoff_max: Duration,
    /// The delay after somebody terminated the session in AWS: who did so meant it.
    pub external_end_delay: Duration,
    /// How often a websocket is pinged; it counts as lost when no pong came by the next ping.
    pub ping_interval: Duration,
    /// How long a half-closed client may hear nothing before the agent is told to close: it closes both ways. At most
    /// 2 s where more than half of a listener's places are taken, since a client that has gone looks the same.
    pub half_close_hold: Duration,
    /// How long one stream may keep the session's whole receive budget full before it is reset.
    pub stall_limit: Duration,
    /// Clients at once on one listener.
    pub connections_max: usize,
    /// Those of them that may come from one address.
    pub connections_max_per_client: usize,
    /// Clients at once on all listeners. One listener has as many as are left for others at most.
    pub clients_max: usize,
    /// Bytes that all sessions together keep for their clients and destinations.
    pub buffers_max: usize,
    /// Which stream URLs are trusted with a token.
    pub url_policy: UrlPolicy,
    /// TLS towards the message gateway.
    pub tls: Arc<ClientConfig>,
    /// The ways to the message gateway.
    pub proxies: Proxies,
}

impl RelayOptions {
    /// The defaults, for a relay of that name.
    #[must_use]
    pub fn new(name: &str, incarnation: &str, tls: Arc<ClientConfig>) -> Self {
        Self {
            name: name.to_owned(),
            incarnation: incarnation.to_owned(),
            listen_addresses: vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
            ports: 10240..=32767,
            port_quarantine: Duration::from_mins(5),
            hold: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(15),
            record_timeout: Duration::from_secs(10),
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_mins(5),
            external_end_delay: Duration::from_mins(5),
            ping_interval: Duration::from_secs(30),
            half_close_hold: Duration::from_mins(1),
            stall_limit: Duration::from_secs(30),
            connections_max: 256,
            connections_max_per_client: 128,
            clients_max: 65_536,
            buffers_max: 512 << 20,
            url_policy: UrlPolicy::Strict,
            tls,
            proxies: Proxies::default(),
        }
    }
}
