//! What can be set on a simulator.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls;

/// Sessions on a page of `DescribeSessions` at most, as in AWS.
pub(super) const PAGE_SIZE_MAX: usize = 200;

/// How the simulator serves. The defaults behave like AWS, as far as AWS is documented.
#[derive(Clone)]
pub struct SimulatorOptions {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Serves TLS with this configuration, or plain HTTP without one.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// How stream URLs begin, such as `wss://host`, where clients reach it by another name than its address.
    pub stream_base: Option<String>,
    /// Who calls without having assumed a role: `Owner` of the sessions that it starts. What follows the last `/` of an
    /// owner begins the ids of its sessions.
    pub owner_arn: String,
    /// Refuses calls to the gateway that carry no `SigV4` header for `ssmmessages`.
    pub require_signature: bool,
    /// How long a token opens a websocket.
    pub token_lifetime: Duration,
    /// Sessions on a page of `DescribeSessions` at most, whatever `MaxResults` says.
    pub page_size_max: usize,
    /// Puts an empty page with a token before each page of `DescribeSessions`.
    pub empty_pages: bool,
    /// Ends each session after so many minutes, 1..1440, and says so in `MaxSessionDuration`.
    pub max_session_duration_minutes: Option<u32>,
}

impl Default for SimulatorOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: None,
            stream_base: None,
            owner_arn: "arn:aws:sts::123456789012:assumed-role/ssm-operator/ssm-operator"
                .to_owned(),
            require_signature: true,
            token_lifetime: Duration::from_mins(1),
            page_size_max: PAGE_SIZE_MAX,
            empty_pages: false,
            max_session_duration_minutes: None,
        }
    }
}
