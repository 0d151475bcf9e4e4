//! How the agent reaches the gateway: TCP or TLS, one signed POST for a token, one signed websocket.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use axum::body::Body;
use http::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, rustls};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// Bytes of an answer to a POST; the real ones have a few hundred.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How long one exchange with the gateway may take.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(15);

/// Region of the signature. The simulator serves all of them.
const REGION: &str = "us-east-1";

/// A connection, plain or TLS.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A websocket of the agent.
pub(super) type Socket = WebSocketStream<Box<dyn Io>>;

/// Why the gateway gave no token or no websocket.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The session is over: trying again is useless.
    SessionOver,
    /// Everything else.
    Failed(io::Error),
}

/// Where the gateway is, and with what it is asked.
pub(super) struct Gateway {
    authority: String,
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
    credentials: Credentials,
}

fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

impl Gateway {
    /// # Errors
    /// The endpoint is no URL with a host, or is `https` without a TLS configuration.
    pub(super) fn new(endpoint: &str, tls: Option<Arc<rustls::ClientConfig>>) -> io::Result<Self> {
        let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidInput, text.to_owned());
        let uri: Uri = endpoint
            .parse()
            .map_err(|_| invalid("the endpoint is not a URL"))?;
        let authority = uri
            .authority()
            .ok_or_else(|| invalid("the endpoint has no host"))?;
        let https = uri.scheme_str() == Some("https");
        let tls = match (https, tls) {
            (false, _) => None,
            (true, Some(config)) => Some(TlsConnector::from(config)),
            (true, None) => return Err(invalid("an https endpoint needs a TLS configuration")),
        };
        Ok(Self {
            authority: authority.to_string(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(if https { 443 } else { 80 }),
            tls,
            // The gateway asks for a signature and knows no secret key to check it with.
            credentials: Credentials::new("AKIDAGENT", "agent", None, None, "simulator"),
        })
    }

    async fn connect(&self) -> io::Result<Box<dyn Io>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let name = ServerName::try_from(self.host.clone()).map_err(other)?;
        Ok(Box::new(tls.connect(name, stream).await?))
    }

    /// Signs a request with `SigV4`, service `ssmmessages`.
    fn sign<B>(&self, request: &mut Request<B>, body: &[u8]) -> io::Result<()> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str());
        let url = format!("{scheme}://{}{path}", self.authority);
        let identity = self.credentials.clone().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(REGION)
            .name("ssmmessages")
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(other)?
            .into();
        let method = request.method().as_str().to_owned();
        let signable =
            SignableRequest::new(&method, url, std::iter::empty(), SignableBody::Bytes(body))
                .map_err(other)?;
        let (instructions, _) = sign(signable, &params).map_err(other)?.into_parts();
        instructions.apply_to_request_http1x(request);
        Ok(())
    }

    /// Creates a channel: one POST, answered 201 with a token in XML.
    ///
    /// # Errors
    /// As [`Refusal`].
    pub(super) async fn create(&self, path: &str, body: String) -> Result<String, Refusal> {
        let exchange = async {
            let mut request = Request::post(path)
                .header(header::HOST, &self.authority)
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::empty())
                .map_err(other)?;
            self.sign(&mut request, body.as_bytes())?;
            *request.body_mut() = Body::from(body);
            let io = TokioIo::new(self.connect().await?);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
                .await
                .map_err(other)?;
            let answering = async {
                let answer = sender.send_request(request).await.map_err(other)?;
                let status = answer.status();
                let body = axum::body::to_bytes(Body::new(answer.into_body()), ANSWER_BYTES_MAX);
                let body = body.await.map_err(other)?;
                Ok((status, String::from_utf8_lossy(&body).into_owned()))
            };
            tokio::pin!(answering, connection);
            tokio::select! {
                answer = &mut answering => answer,
                // The connection may end first, with the answer already here.
                _ = &mut connection => answering.await,
            }
        };
        let answer = tokio::time::timeout(EXCHANGE_TIMEOUT, exchange).await;
        let (status, text) = answer
            .map_err(io::Error::from)
            .flatten()
            .map_err(Refusal::Failed)?;
        if text.contains("Session is already terminated") {
            return Err(Refusal::SessionOver);
        }
        let token = text
            .split_once("<TokenValue>")
            .and_then(|(_, rest)| rest.split_once("</TokenValue>"))
            .map(|(token, _)| token.to_owned());
        match (status, token) {
            (StatusCode::CREATED, Some(token)) => Ok(token),
            (status, _) => Err(Refusal::Failed(other(format!(
                "the gateway answered {status}"
            )))),
        }
    }

    /// Opens a websocket.
    ///
    /// # Errors
    /// As [`Refusal`]; the gateway does not say here that a session is over.
    pub(super) async fn open(&self, path_and_query: &str) -> Result<Socket, Refusal> {
        let exchange = async {
            let scheme = if self.tls.is_some() { "wss" } else { "ws" };
            let url = format!("{scheme}://{}{path_and_query}", self.authority);
            let mut request = url.into_client_request().map_err(other)?;
            self.sign(&mut request, &[])?;
            let stream = self.connect().await?;
            let (socket, _) = tokio_tungstenite::client_async(request, stream)
                .await
                .map_err(other)?;
            Ok(socket)
        };
        let opened = tokio::time::timeout(EXCHANGE_TIMEOUT, exchange).await;
        opened
            .map_err(io::Error::from)
            .flatten()
            .map_err(Refusal::Failed)
    }
}
