//! A small client written by hand: HTTP, websocket, handshake, numbering. It shares the codecs with
//! the rest and none of the relay's machines.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_smux::{MuxBuilder, MuxConnector};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use ssm_session_operator::protocol::handshake::{
    CLIENT_VERSION, HandshakeRequest, HandshakeResponse, OpenDataChannel, ProcessedAction,
};
use ssm_session_operator::protocol::message::{FLAGS_CONTROL, Message, MessageType, PayloadType};
use ssm_session_operator::protocol::payload::{Acknowledgement, ChannelClosed, Flag};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::{TlsConnector, rustls};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use uuid::Uuid;

pub const SIGNATURE: &str = "AWS4-HMAC-SHA256 Credential=AKIDTEST/20260101/us-east-1/SERVICE/\
                             aws4_request, SignedHeaders=host;x-amz-date, Signature=0";

/// Long enough for everything here, on a machine that is busy with something else.
pub const DEADLINE: Duration = Duration::from_mins(1);

pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Fails the test instead of waiting for ever.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let output = tokio::time::timeout(DEADLINE, future).await;
    output.unwrap_or_else(|_| panic!("{what} took longer than {DEADLINE:?}"))
}

/// Where the simulator is.
#[derive(Clone)]
pub struct Service {
    pub endpoint: String,
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

impl Service {
    async fn connect(&self) -> Box<dyn Io> {
        let address = self.endpoint.split_once("://").expect("a URL").1;
        let stream = TcpStream::connect(address)
            .await
            .expect("the simulator listens");
        let Some(tls) = &self.tls else {
            return Box::new(stream);
        };
        let name = "127.0.0.1".try_into().expect("an address");
        let connector = TlsConnector::from(Arc::clone(tls));
        Box::new(
            connector
                .connect(name, stream)
                .await
                .expect("a TLS handshake"),
        )
    }

    /// One POST on a connection of its own; `None` when the connection closes without an answer.
    pub async fn post(&self, path: &str, headers: &str, body: &str) -> Option<(u16, String)> {
        self.send("POST", path, headers, body).await
    }

    /// The same by any method.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> Option<(u16, String)> {
        let mut stream = self.connect().await;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: simulator\r\nConnection: close\r\n{headers}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream
            .write_all(request.as_bytes())
            .await
            .expect("the request is taken");
        let mut answer = Vec::new();
        // TLS reports a connection that was cut as an error, which is the same here.
        let _ = within("an answer", stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8(answer).expect("an answer of text");
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        let body = answer.split_once("\r\n\r\n")?.1.to_owned();
        Some((status, body))
    }

    /// One call of the SSM API.
    pub async fn call(&self, operation: &str, request: &Value) -> Result<Value, (u16, Value)> {
        let headers = format!(
            "Content-Type: application/x-amz-json-1.1\r\nX-Amz-Target: AmazonSSM.{operation}\r\n\
             Authorization: {}\r\n",
            SIGNATURE.replace("SERVICE", "ssm")
        );
        let answer = self.post("/", &headers, &request.to_string()).await;
        let (status, body) = answer.expect("an answer");
        let value = serde_json::from_str(&body).expect("an answer of JSON");
        if status == 200 {
            Ok(value)
        } else {
            Err((status, value))
        }
    }

    /// The part of an error's type behind the `#`.
    pub async fn error(&self, operation: &str, request: &Value) -> String {
        let (_, error) = self.call(operation, request).await.expect_err("an error");
        let full = error["__type"].as_str().expect("a type").to_owned();
        full.strip_prefix("com.amazonaws.ssm#")
            .expect("a prefix")
            .to_owned()
    }

    pub async fn start(&self, document: &str, parameters: Value) -> Value {
        let request = json!({
            "Target": "mi-1", "DocumentName": document, "Reason": "a test", "Parameters": parameters,
        });
        self.call("StartSession", &request)
            .await
            .expect("a session")
    }

    /// Opens a websocket; the upgrade is signed.
    pub async fn websocket(&self, url: &str, opening: String) -> WebSocketStream<Box<dyn Io>> {
        let mut request = url.into_client_request().expect("a URL");
        let signature = SIGNATURE.replace("SERVICE", "ssmmessages");
        request
            .headers_mut()
            .insert("authorization", signature.parse().expect("a header"));
        let stream = self.connect().await;
        let (mut socket, _) = tokio_tungstenite::client_async(request, stream)
            .await
            .expect("an upgrade");
        socket
            .send(Frame::Text(opening.into()))
            .await
            .expect("the token is taken");
        socket
    }

    /// Opens the client's side of a data channel with the answer of `StartSession` or `ResumeSession`.
    pub async fn open(&self, ticket: &Value) -> Channel {
        let url = ticket["StreamUrl"].as_str().expect("a URL");
        let token = ticket["TokenValue"].as_str().expect("a token");
        let opening = OpenDataChannel::new(Uuid::new_v4(), Uuid::new_v4(), token);
        let opening = serde_json::to_string(&opening).expect("plain data");
        let socket = self.websocket(url, opening).await;
        Channel {
            socket,
            sequence: 0,
            expected: 0,
            unacknowledged: VecDeque::new(),
        }
    }
}

/// What came, other than acknowledgements.
#[derive(Debug)]
pub enum Event {
    Data(PayloadType, Bytes),
    Closed(ChannelClosed),
    /// The websocket's close code.
    Bye(Option<u16>),
}

/// The client's side of a data channel.
pub struct Channel {
    socket: WebSocketStream<Box<dyn Io>>,
    sequence: i64,
    expected: i64,
    unacknowledged: VecDeque<(i64, Bytes)>,
}

/// A message as clients send it.
pub fn message(
    message_type: MessageType,
    sequence: i64,
    kind: PayloadType,
    payload: Bytes,
) -> Bytes {
    let control = message_type != MessageType::InputStreamData;
    let message = Message {
        message_type,
        created_ms: 1,
        sequence,
        flags: if control { FLAGS_CONTROL } else { 0 },
        message_id: Uuid::new_v4(),
        payload_type: kind,
        payload,
    };
    message.encode()
}

impl Channel {
    pub async fn send(&mut self, kind: PayloadType, payload: impl Into<Bytes>) {
        let frame = message(
            MessageType::InputStreamData,
            self.sequence,
            kind,
            payload.into(),
        );
        self.unacknowledged
            .push_back((self.sequence, frame.clone()));
        self.sequence += 1;
        self.socket
            .send(Frame::Binary(frame))
            .await
            .expect("the websocket is open");
    }

    /// Sends the oldest message again that was not acknowledged.
    async fn retransmit(&mut self) {
        if let Some((_, frame)) = self.unacknowledged.front() {
            self.socket
                .send(Frame::Binary(frame.clone()))
                .await
                .expect("the websocket is open");
        }
    }

    /// The next event; acknowledges data.
    pub async fn next(&mut self) -> Event {
        loop {
            let bytes = match self.socket.next().await {
                Some(Ok(Frame::Binary(bytes))) => bytes,
                Some(Ok(Frame::Close(frame))) => return Event::Bye(frame.map(|f| f.code.into())),
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return Event::Bye(None),
            };
            let got = Message::decode(&bytes).expect("a message");
            match got.message_type {
                MessageType::OutputStreamData => {
                    let acknowledgement =
                        Acknowledgement::of(got.message_type, got.message_id, got.sequence);
                    let payload = serde_json::to_vec(&acknowledgement).expect("plain data");
                    let kind = MessageType::Acknowledge;
                    let frame = message(kind, 0, PayloadType::None, payload.into());
                    let _ = self.socket.send(Frame::Binary(frame)).await;
                    if got.sequence == self.expected {
                        self.expected += 1;
                        return Event::Data(got.payload_type, got.payload);
                    }
                    assert!(
                        got.sequence < self.expected,
                        "nothing is reordered on loopback"
                    );
                }
                MessageType::Acknowledge => {
                    let payload: Acknowledgement =
                        serde_json::from_slice(&got.payload).expect("an acknowledgement");
                    let number = payload.acknowledged_message_sequence_number;
                    self.unacknowledged
                        .retain(|(sequence, _)| *sequence != number);
                }
                MessageType::ChannelClosed => {
                    let closed = serde_json::from_slice(&got.payload).expect("a last word");
                    return Event::Closed(closed);
                }
                other => panic!("{other:?} is not for clients"),
            }
        }
    }

    /// Waits for `channel_closed`; data before it is thrown away.
    pub async fn closed(&mut self) -> ChannelClosed {
        loop {
            match within("channel_closed", self.next()).await {
                Event::Closed(closed) => return closed,
                Event::Data(..) => {}
                Event::Bye(code) => panic!("closed with {code:?} and without channel_closed"),
            }
        }
    }

    /// Answers the agent's handshake, and gives what it asked for.
    pub async fn shake_hands(&mut self) -> HandshakeRequest {
        let Event::Data(PayloadType::HandshakeRequest, payload) = self.next().await else {
            panic!("the agent begins with a handshake");
        };
        let request = serde_json::from_slice(&payload).expect("a request");
        let response = HandshakeResponse {
            client_version: CLIENT_VERSION.to_owned(),
            processed_client_actions: vec![ProcessedAction::success("SessionType")],
            errors: None,
        };
        let response = serde_json::to_vec(&response).expect("plain data");
        self.send(PayloadType::HandshakeResponse, response).await;
        let event = self.next().await;
        assert!(
            matches!(event, Event::Data(PayloadType::HandshakeComplete, _)),
            "{event:?}"
        );
        request
    }

    /// Multiplexes over the channel from now on. Flags of the agent come out of the receiver.
    pub fn multiplex(self) -> (MuxConnector<DuplexStream>, mpsc::Receiver<Flag>) {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (connector, acceptor, worker) = MuxBuilder::client().with_connection(near).build();
        tokio::spawn(async move {
            // The agent opens no streams, but without an acceptor the session would end.
            let _acceptor = acceptor;
            worker.await
        });
        let (flags, receiver) = mpsc::channel(16);
        tokio::spawn(self.carry(far, flags));
        (connector, receiver)
    }

    async fn carry(mut self, pipe: DuplexStream, flags: mpsc::Sender<Flag>) {
        let (mut from_mux, mut to_mux) = tokio::io::split(pipe);
        let mut retransmission = tokio::time::interval(Duration::from_millis(100));
        let mut buffer = vec![0; 1024];
        loop {
            tokio::select! {
                event = self.next() => match event {
                    Event::Data(PayloadType::Output, bytes) => {
                        to_mux.write_all(&bytes).await.expect("the multiplexer takes bytes");
                    }
                    Event::Data(PayloadType::Flag, payload) => {
                        let _ = flags.send(Flag::decode(&payload).expect("a flag")).await;
                    }
                    Event::Data(kind, _) => panic!("{kind:?} in the middle of a session"),
                    Event::Closed(_) | Event::Bye(_) => return,
                },
                read = from_mux.read(&mut buffer) => match read {
                    Ok(bytes @ 1..) => {
                        let payload = Bytes::copy_from_slice(&buffer[..bytes]);
                        self.send(PayloadType::Output, payload).await;
                    }
                    Ok(0) | Err(_) => return,
                },
                _ = retransmission.tick() => self.retransmit().await,
            }
        }
    }
}
