//! The tunnel through one proxy: CONNECT, and what its answer means for whoever is on call.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;
use tower::ServiceExt as _;

use crate::words::with_causes;

/// How long a proxy may take altogether: to accept a connection, for TLS if its URL is `https://`, and to connect. It
/// leaves a websocket, which has 10 s in all, time for its own handshakes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(6);

/// How long all addresses of a proxy may take to accept a connection: each has its share, and all of it is time for three
/// or four to be tried after a lost packet.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection through a proxy; what is written reaches the host that was connected to.
pub type Carrier = MaybeHttpsStream<TokioIo<TcpStream>>;

/// One proxy.
#[derive(Clone)]
pub struct Proxy {
    url: Uri,
    /// `Basic …`, of the user and password in the proxy's URL.
    authorization: Option<HeaderValue>,
    tls: Arc<ClientConfig>,
}

/// Why there is no way through a proxy: words without user and password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The proxy itself is out of reach.
    #[error("the proxy {proxy} can't be connected to: {why}")]
    Unreachable {
        /// The proxy.
        proxy: String,
        /// The transport's words.
        why: String,
    },
    /// The proxy answered, and not with success.
    #[error("the proxy {proxy} does not connect to {to}: HTTP status {status}{}", hint(*status, *known))]
    Refused {
        /// The proxy.
        proxy: String,
        /// Host and port that were asked for.
        to: String,
        /// Its answer.
        status: StatusCode,
        /// Whether it was given a user and a password.
        known: bool,
    },
    /// It answered with something else than HTTP, or not to the end.
    #[error("the proxy {proxy} does not connect to {to}: {why}")]
    Broken {
        /// The proxy.
        proxy: String,
        /// Host and port that were asked for.
        to: String,
        /// What is wrong with its answer.
        why: String,
    },
    /// It did not answer in time.
    #[error("the proxy {proxy} did not connect to {to} within {CONNECT_TIMEOUT:?}")]
    Late {
        /// The proxy.
        proxy: String,
        /// Host and port that were asked for.
        to: String,
    },
}

/// What most often lies behind a status.
fn hint(status: StatusCode, known: bool) -> &'static str {
    match status {
        StatusCode::PROXY_AUTHENTICATION_REQUIRED if known => {
            "; it does not accept the user and password of its URL"
        }
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => "; its URL has no user and password",
        StatusCode::FORBIDDEN => "; it does not allow this host or port",
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            "; it can't reach it"
        }
        _ => "",
    }
}

impl Proxy {
    pub(super) fn new(way: &Intercept, tls: Arc<ClientConfig>) -> Option<Self> {
        way.uri().authority()?;
        Some(Self {
            url: way.uri().clone(),
            authorization: way.basic_auth().cloned(),
            tls,
        })
    }

    /// A connection through the proxy to `host:port`; whoever uses it checks who is there. The host is without
    /// brackets.
    ///
    /// # Errors
    /// As they say.
    pub async fn connect(&self, host: &str, port: u16) -> Result<Carrier, ConnectError> {
        let to = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        let connecting = async {
            let stream = self.reach().await.map_err(|why| self.unreachable(&*why))?;
            self.tunnel(stream, &to).await
        };
        let connected = timeout(CONNECT_TIMEOUT, connecting).await;
        connected.unwrap_or_else(|_| {
            let (proxy, to) = (self.to_string(), to.clone());
            Err(ConnectError::Late { proxy, to })
        })
    }

    async fn reach(&self) -> Result<Carrier, Box<dyn Error + Send + Sync>> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(REACH_TIMEOUT));
        let connector = HttpsConnector::from((tcp, self.tls.clone()));
        connector.oneshot(self.url.clone()).await
    }

    async fn tunnel(&self, stream: Carrier, to: &str) -> Result<Carrier, ConnectError> {
        let broken = |why: &str| ConnectError::Broken {
            proxy: self.to_string(),
            to: to.to_owned(),
            why: why.to_owned(),
        };
        let request = self
            .request(to)
            .map_err(|_| broken("the host is no name"))?;
        let handshake = http1::handshake(stream).await;
        let (mut sender, connection) = handshake.map_err(|error| broken(&with_causes(&error)))?;
        let answered = async move {
            let answer = sender.send_request(request).await;
            let status = answer
                .map_err(|error| broken(&with_causes(&error)))?
                .status();
            if status.is_success() {
                return Ok(());
            }
            Err(ConnectError::Refused {
                proxy: self.to_string(),
                to: to.to_owned(),
                status,
                known: self.authorization.is_some(),
            })
        };
        let running = async {
            let ended = connection.without_shutdown().await;
            ended.map_err(|error| broken(&with_causes(&error)))
        };
        let ((), parts) = try_join(answered, running).await?;
        if parts.read_buf.is_empty() {
            Ok(parts.io)
        } else {
            // Nobody on the far side speaks before it is spoken to.
            Err(broken("it sent something before the connection was used"))
        }
    }

    fn request(&self, to: &str) -> http::Result<Request<Empty<Bytes>>> {
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri(to)
            .header(HOST, to);
        if let Some(authorization) = &self.authorization {
            request = request.header(PROXY_AUTHORIZATION, authorization);
        }
        request.body(Empty::new())
    }

    fn unreachable(&self, error: &(dyn Error + 'static)) -> ConnectError {
        let (proxy, why) = (self.to_string(), with_causes(error));
        ConnectError::Unreachable { proxy, why }
    }
}

/// `host:port`, as its URL has them.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            self.url
                .authority()
                .map_or("", http::uri::Authority::as_str),
        )
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self}, [redacted])")
    }
}
