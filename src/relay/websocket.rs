//! One websocket to the message gateway: connected, signed, admitted with a token, and pumped.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::{Sink, SinkExt, Stream};
use hyper_util::rt::TokioIo;
use secrecy::ExposeSecret;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, Sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use uuid::Uuid;

use super::loss::{Loss, LossReason};
use super::options::RelayOptions;
use crate::broker::{Broker, Identity, RequestId, StreamUrl, Ticket};
use crate::protocol::handshake::OpenDataChannel;

/// How long connecting, TLS and the upgrade may take together; the agent waits 15 s for its handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Read at once: about 14 messages of the agent's usual size. The buffer is cleared for each read, so that a larger one
/// costs more than it saves.
const READ_BYTES: usize = 16 << 10;

/// Written at once: about 50 messages of our size to one system call. While the socket does not take them nothing more
/// is taken from the session.
const WRITE_BYTES: usize = 64 << 10;

/// The largest message that is accepted. The agent's data come in 1 KiB, its multiplexer's frames are of 64 KiB at most,
/// and of its last words the service takes 120,000 bytes.
pub(super) const MESSAGE_BYTES_MAX: usize = 128 << 10;

/// How long one address of the gateway may take to accept a connection, so that a dead one leaves time for the next.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(3);

/// Why there is no websocket; without any secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The stream URL leads somewhere else than to the message gateway: no token goes there.
    Refused(String),
    /// It did not come about this time.
    Failed(Failure),
}

impl OpenError {
    /// What failed, in words of our own.
    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::Refused(_) => "the stream URL is refused".to_owned(),
            Self::Failed(failure) => failure.at.to_string(),
        }
    }
}

/// A websocket that did not come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What failed.
    pub at: Step,
    /// Why, for a status too.
    pub why: String,
    /// That of the upgrade, or of what its signature needs, if AWS refused it.
    pub request_id: RequestId,
}

/// A step on the way to a websocket that failed, in words of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Step {
    /// The request for the upgrade.
    #[error("the upgrade could not be signed")]
    Request,
    /// The connection to the gateway, or to a proxy and through it.
    #[error("the gateway can't be connected to")]
    Connection,
    /// TLS with the gateway.
    #[error("no TLS with the gateway")]
    Tls,
    /// The upgrade, with its status if it was answered.
    #[error("the gateway refuses the websocket{}", .0.map(|status| format!(": HTTP status {status}")).unwrap_or_default())]
    Upgrade(Option<u16>),
    /// The token.
    #[error("the token could not be shown")]
    Admission,
    /// All of them together took too long.
    #[error("no websocket within {CONNECT_TIMEOUT:?}")]
    Time,
}

impl Step {
    /// It failed for this reason.
    fn failed(self, why: String) -> Failure {
        let request_id = RequestId::default();
        Failure {
            at: self,
            why,
            request_id,
        }
    }
}

/// Something that carries a websocket.
trait Carrier: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Carrier for T {}

/// An admitted websocket, with its pings.
pub struct Websocket {
    inner: WebSocketStream<Box<dyn Carrier>>,
    ping_interval: Duration,
    ping_at: Pin<Box<Sleep>>,
    awaiting_pong: bool,
    unflushed: bool,
}

impl Websocket {
    /// Connects to the ticket's stream URL, once that is known to lead to the message gateway, and shows the token.
    ///
    /// # Errors
    /// The URL is refused, or there was no admission.
    pub async fn open(
        options: &RelayOptions,
        broker: &dyn Broker,
        identity: &Identity,
        ticket: &Ticket,
        client_id: Uuid,
    ) -> Result<Self, OpenError> {
        let url = ticket
            .stream_url(identity, options.url_policy)
            .map_err(|why| OpenError::Refused(format!("the stream URL is refused: {why}")))?;
        let opening = async {
            let mut inner = upgrade(options, broker, identity, &url).await?;
            let open = OpenDataChannel::new(Uuid::new_v4(), client_id, ticket.expose_token());
            let text = serde_json::to_string(&open)
                .map_err(|e| Step::Admission.failed(format!("admission: {e}")))?;
            inner
                .send(Message::text(text))
                .await
                .map_err(|e| Step::Admission.failed(format!("admission: {e}")))?;
            Ok(inner)
        };
        let inner = timeout(CONNECT_TIMEOUT, opening)
            .await
            .unwrap_or_else(|_| {
                let why = format!("{url:?} did not answer in {CONNECT_TIMEOUT:?}");
                Err(Step::Time.failed(why))
            })
            .map_err(OpenError::Failed)?;
        Ok(Self {
            inner,
            ping_interval: options.ping_interval,
            ping_at: Box::pin(tokio::time::sleep(options.ping_interval)),
            awaiting_pong: false,
            unflushed: false,
        })
    }

    /// Hands a binary message to the websocket when it has room. [`Self::poll_flush`] puts it on the wire.
    ///
    /// # Errors
    /// The websocket is lost.
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        next: impl FnOnce() -> Option<Bytes>,
    ) -> Poll<Result<bool, WsError>> {
        ready!(Pin::new(&mut self.inner).poll_ready(cx))?;
        let Some(message) = next() else {
            return Poll::Ready(Ok(false));
        };
        self.unflushed = true;
        Pin::new(&mut self.inner).start_send(Message::Binary(message))?;
        Poll::Ready(Ok(true))
    }

    /// Puts on the wire what was sent.
    ///
    /// # Errors
    /// The websocket is lost.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        if self.unflushed {
            ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// The next message; `None` once the websocket is closed. Text is handed on as the real peers do, who read it as they
    /// read all else.
    ///
    /// # Errors
    /// The websocket is lost, or the peer [broke its rules](super::loss::breaks_rules).
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, WsError>>> {
        loop {
            let message = match ready!(Pin::new(&mut self.inner).poll_next(cx)) {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
            // Whatever comes shows that the peer is there.
            self.awaiting_pong = false;
            match message {
                Message::Binary(bytes) => return Poll::Ready(Some(Ok(bytes))),
                Message::Text(text) => return Poll::Ready(Some(Ok(text.into()))),
                Message::Close(_) => return Poll::Ready(None),
                // An answer to a ping was queued by the library and wants to be flushed.
                Message::Ping(_) => self.unflushed = true,
                Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// Sends the pings. Ready when the last one was not answered by the time of the next: the peer is gone.
    /// A websocket that is not read, with `reading` false, can't hear an answer and is not judged.
    pub fn poll_ping(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<Loss> {
        while self.ping_at.as_mut().poll(cx).is_ready() {
            if self.awaiting_pong && reading {
                let why = format!("no answer to a ping in {:?}", self.ping_interval);
                return Poll::Ready(Loss::new(LossReason::PingUnanswered, why));
            }
            self.ping_at
                .as_mut()
                .reset(Instant::now() + self.ping_interval);
            if let Poll::Ready(outcome) = Pin::new(&mut self.inner).poll_ready(cx) {
                let sent = outcome.and_then(|()| {
                    let ping = Message::Ping(Bytes::from_static(b"keepalive"));
                    Pin::new(&mut self.inner).start_send(ping)
                });
                if let Err(error) = sent {
                    return Poll::Ready(error.into());
                }
                self.unflushed = true;
            }
            // A socket that takes nothing for a whole interval is no better than one that does not answer.
            self.awaiting_pong = true;
        }
        Poll::Pending
    }
}

async fn upgrade(
    options: &RelayOptions,
    broker: &dyn Broker,
    identity: &Identity,
    url: &StreamUrl,
) -> Result<WebSocketStream<Box<dyn Carrier>>, Failure> {
    let headers = broker
        .sign_upgrade(identity, url)
        .await
        .map_err(|error| Failure {
            at: Step::Request,
            why: format!("the upgrade could not be signed: {error}"),
            request_id: error.request_id,
        })?;
    let unsound = |why| Step::Request.failed(why);
    let mut request = url
        .as_str()
        .into_client_request()
        .map_err(|e| unsound(format!("stream URL: {e}")))?;
    for (name, value) in &headers.0 {
        let name =
            HeaderName::try_from(name.as_str()).map_err(|e| unsound(format!("header: {e}")))?;
        let mut value = HeaderValue::try_from(value.expose_secret()).map_err(|_| {
            unsound(format!(
                "header {name} has characters that no header may have"
            ))
        })?;
        value.set_sensitive(true);
        request.headers_mut().insert(name, value);
    }
    let carrier = carrier(options, url).await?;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(WRITE_BYTES)
        .max_write_buffer_size(WRITE_BYTES + MESSAGE_BYTES_MAX)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let (websocket, _) =
        tokio_tungstenite::client_async_with_config(request, carrier, Some(config))
            .await
            .map_err(|error| Failure {
                at: Step::Upgrade(status(&error)),
                why: format!("{url:?} refuses the websocket: {}", refusal(&error)),
                request_id: id_in(&error),
            })?;
    Ok(websocket)
}

/// What the websocket runs over: a connection to the gateway, or one through a proxy, and TLS with the gateway over
/// either.
async fn carrier(options: &RelayOptions, url: &StreamUrl) -> Result<Box<dyn Carrier>, Failure> {
    let unconnected = |why| Step::Connection.failed(why);
    if let Some(proxy) = options.proxies.to(url.authority(), url.tls()) {
        let through = proxy.connect(url.host(), url.port()).await;
        let through = through.map_err(|error| unconnected(error.to_string()))?;
        return secure(options, url, TokioIo::new(through)).await;
    }
    let tcp = connect(url)
        .await
        .map_err(|error| unconnected(format!("{url:?} can't be connected to: {error}")))?;
    tcp.set_nodelay(true)
        .map_err(|error| unconnected(format!("socket: {error}")))?;
    secure(options, url, tcp).await
}

/// TLS with who is there, checked to be the host of the URL; a URL without TLS does without.
async fn secure<S: Carrier + 'static>(
    options: &RelayOptions,
    url: &StreamUrl,
    stream: S,
) -> Result<Box<dyn Carrier>, Failure> {
    if !url.tls() {
        return Ok(Box::new(stream));
    }
    let insecure = |why| Step::Tls.failed(why);
    let name = ServerName::try_from(url.host().to_owned())
        .map_err(|_| insecure(format!("{url:?} has no name that TLS could check")))?;
    let tls = TlsConnector::from(options.tls.clone());
    let secured = tls.connect(name, stream).await;
    Ok(Box::new(
        secured.map_err(|e| insecure(format!("TLS with {url:?}: {e}")))?,
    ))
}

fn status(error: &WsError) -> Option<u16> {
    match error {
        WsError::Http(response) => Some(response.status().as_u16()),
        _ => None,
    }
}

/// AWS's id of the refused upgrade.
fn id_in(error: &WsError) -> RequestId {
    let WsError::Http(response) = error else {
        return RequestId::default();
    };
    let id = response.headers().get("x-amzn-requestid");
    RequestId::new(id.and_then(|id| id.to_str().ok()))
}

/// What an upgrade's failure says; the body of a refusal is left out, since nobody knows what it repeats.
fn refusal(error: &WsError) -> String {
    match error {
        WsError::Http(response) => format!("HTTP status {}", response.status()),
        other => other.to_string(),
    }
}

/// Connects to the first address that accepts.
async fn connect(url: &StreamUrl) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((url.host(), url.port())).await? {
        match timeout(ADDRESS_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = std::io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}
