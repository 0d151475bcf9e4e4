//! What a client may rely on from the agent's receiving half, on virtual time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::incoming::Incoming;
use super::order::{Order, SessionType};
use super::outcome::{Outcome, Status};
use super::outgoing::Outgoing;
use super::{AgentOptions, Pace};
use crate::protocol::handshake::{CLIENT_VERSION, HandshakeResponse, ProcessedAction};
use crate::protocol::message::{Message, MessageType, PayloadType};
use crate::protocol::mux::frame::{Command, Header};
use crate::protocol::payload::Acknowledgement;

struct Client {
    messages: mpsc::Sender<Message>,
    frames: mpsc::Receiver<Bytes>,
    outgoing: Arc<Outgoing>,
    agent: tokio::task::JoinHandle<Outcome>,
}

impl Client {
    fn new(pace: Pace) -> Self {
        let (sender, frames) = mpsc::channel(64);
        let (messages, taken) = mpsc::channel(64);
        let outgoing = Arc::new(Outgoing::new(sender));
        let order = Order {
            session: "session".to_owned(),
            session_type: SessionType::Port,
            properties: json!({
                "host": "db", "portNumber": "1", "type": "LocalPortForwarding",
            }),
        };
        let mut options = AgentOptions::new("mi-1");
        options.pace = pace;
        options
            .destinations
            .insert(("db".to_owned(), 1), ([127, 0, 0, 1], 1).into());
        let incoming = Incoming::new(order, Arc::clone(&outgoing), Arc::new(options));
        let agent = tokio::spawn(incoming.run(taken));
        Self {
            messages,
            frames,
            outgoing,
            agent,
        }
    }

    async fn send(&self, sequence: i64, payload_type: PayloadType, payload: Vec<u8>) {
        let message = Message {
            message_type: MessageType::InputStreamData,
            created_ms: 1,
            sequence,
            flags: 0,
            message_id: Uuid::new_v4(),
            payload_type,
            payload: payload.into(),
        };
        self.messages
            .send(message)
            .await
            .expect("the agent takes messages");
    }

    async fn answer_handshake(&self) {
        let response = HandshakeResponse {
            client_version: CLIENT_VERSION.to_owned(),
            processed_client_actions: vec![ProcessedAction::success("SessionType")],
            errors: None,
        };
        let payload = serde_json::to_vec(&response).expect("plain data");
        self.send(0, PayloadType::HandshakeResponse, payload).await;
    }

    async fn next(&mut self) -> Message {
        let frame = self.frames.recv().await.expect("the agent runs");
        Message::decode(&frame).expect("the agent sends messages")
    }

    /// The number of the next message that is acknowledged.
    async fn acknowledged(&mut self) -> i64 {
        loop {
            let message = self.next().await;
            if message.message_type == MessageType::Acknowledge {
                let payload: Acknowledgement =
                    serde_json::from_slice(&message.payload).expect("an acknowledgement");
                return payload.acknowledged_message_sequence_number;
            }
        }
    }
}

fn nop() -> Vec<u8> {
    Header {
        command: Command::Nop,
        length: 0,
        stream: 0,
    }
    .encode()
    .to_vec()
}

#[tokio::test(start_paused = true)]
async fn a_faithful_agent_rejects_early_data_and_acknowledges_what_comes_behind() {
    let mut client = Client::new(Pace::Faithful);
    client.answer_handshake().await;
    client.send(1, PayloadType::Output, nop()).await;
    client.send(2, PayloadType::Output, nop()).await;
    assert_eq!(client.acknowledged().await, 0);
    assert_eq!(client.acknowledged().await, 2);
    // Nothing more comes, for as long as the client does not send the first one again.
    tokio::time::advance(Duration::from_millis(10)).await;
    client.send(1, PayloadType::Output, nop()).await;
    assert_eq!(client.acknowledged().await, 1);
    client.send(3, PayloadType::Output, nop()).await;
    assert_eq!(client.acknowledged().await, 3);
}

#[tokio::test(start_paused = true)]
async fn an_unthrottled_agent_takes_data_at_once_and_acknowledges_duplicates_again() {
    let mut client = Client::new(Pace::Unthrottled);
    client.answer_handshake().await;
    client.send(1, PayloadType::Output, nop()).await;
    client.send(1, PayloadType::Output, nop()).await;
    client.send(3, PayloadType::Output, nop()).await;
    for expected in [0, 1, 1, 3] {
        assert_eq!(client.acknowledged().await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_nobody_answers_fails_the_session_after_fifteen_seconds() {
    let mut client = Client::new(Pace::Faithful);
    let request = client.next().await;
    assert_eq!(request.payload_type, PayloadType::HandshakeRequest);
    let started = tokio::time::Instant::now();
    let outcome = (&mut client.agent).await.expect("the agent does not panic");
    assert_eq!(outcome.status, Status::Failed);
    assert!(
        outcome.output.contains("Handshake timed out"),
        "{}",
        outcome.output
    );
    assert_eq!(started.elapsed().as_secs(), 15);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_version_of_the_multiplexer_fails_the_session() {
    let mut client = Client::new(Pace::Unthrottled);
    client.answer_handshake().await;
    client.send(1, PayloadType::Output, vec![9; 8]).await;
    let outcome = (&mut client.agent).await.expect("the agent does not panic");
    assert_eq!(outcome.status, Status::Failed);
}

#[tokio::test(start_paused = true)]
async fn only_the_oldest_message_is_sent_again_and_not_while_paused() {
    let mut client = Client::new(Pace::Faithful);
    let request = client.next().await;
    let outgoing = Arc::clone(&client.outgoing);
    outgoing
        .send(PayloadType::Output, Bytes::from_static(b"second"))
        .await;
    assert_eq!(outgoing.due(), None);
    tokio::time::advance(Duration::from_millis(201)).await;
    outgoing.pause(true);
    assert_eq!(outgoing.due(), None);
    outgoing.pause(false);
    assert_eq!(outgoing.due(), Some(request.encode()));
    assert_eq!(outgoing.due(), None);
    let acknowledgement = Acknowledgement::of(request.message_type, request.message_id, 0);
    let payload = serde_json::to_vec(&acknowledgement).expect("plain data");
    outgoing.handle_acknowledgement(&payload);
    tokio::time::advance(Duration::from_secs(2)).await;
    let again = Message::decode(&outgoing.due().expect("the second is due")).expect("a message");
    assert_eq!(again.sequence, 1);
}
