//! What the protocol costs on one core: a message of 1 KiB written and read, and an upload through
//! a port session, next to the least that any client has to do: copy the bytes and digest them.
#![allow(
    clippy::expect_used,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    reason = "a benchmark prints what it has measured, and ends when it can't"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use sha2::{Digest, Sha256};
use ssm_session_operator::protocol::handshake::{
    HandshakeComplete, HandshakeRequest, RequestedAction,
};
use ssm_session_operator::protocol::message::{Message, MessageType, PayloadType};
use ssm_session_operator::protocol::payload::Acknowledgement;
use ssm_session_operator::protocol::{Config, Limits, PortSession, StreamId};
use uuid::Uuid;

const PAYLOAD_BYTES: usize = 1024;
const UPLOAD_BYTES: usize = 4 << 20;

/// Messages that may be under way before acknowledgements are taken, as over a real round trip.
const FLIGHT_MESSAGES: usize = 64;

/// The baseline's and the machine's medians of so many runs are compared.
const RUNS: usize = 15;

fn message(message_type: MessageType, sequence: i64, kind: PayloadType, payload: Bytes) -> Bytes {
    let message = Message {
        message_type,
        created_ms: 1,
        sequence,
        flags: 0,
        message_id: Uuid::from_u128(1),
        payload_type: kind,
        payload,
    };
    message.encode()
}

fn output(sequence: i64, kind: PayloadType, json: &impl serde::Serialize) -> Bytes {
    let json = serde_json::to_vec(json).expect("plain data");
    message(MessageType::OutputStreamData, sequence, kind, json.into())
}

/// An established session, the instant from which it sends, and a stream.
fn established() -> (PortSession, Instant, StreamId) {
    let origin = Instant::now();
    let config = Config {
        origin,
        epoch_ms: 1,
        seed: 1,
        outbox_bytes_max: 1 << 20,
    };
    let mut session = PortSession::new(
        config,
        Limits {
            streams_max: 256,
            stall_limit: Duration::from_secs(30),
        },
    );
    session.handle_transport_opened();
    let request = HandshakeRequest {
        agent_version: "3.3.0.0".to_owned(),
        requested_client_actions: vec![RequestedAction {
            action_type: "SessionType".to_owned(),
            action_parameters: serde_json::json!({
                "SessionType": "Port",
                "Properties": { "type": "LocalPortForwarding" },
            }),
        }],
    };
    session.handle_message(&output(0, PayloadType::HandshakeRequest, &request), origin);
    let complete = HandshakeComplete::default();
    session.handle_message(
        &output(1, PayloadType::HandshakeComplete, &complete),
        origin,
    );
    while session.poll_transmit(origin).is_some() {}
    session.handle_message(&acknowledgement(0), origin);
    let id = session.open().expect("the session is alive");
    (session, origin + Duration::from_secs(1), id)
}

fn acknowledgement(sequence: i64) -> Bytes {
    let ack = Acknowledgement::of(MessageType::InputStreamData, Uuid::from_u128(1), sequence);
    let json = serde_json::to_vec(&ack).expect("plain data");
    message(MessageType::Acknowledge, 0, PayloadType::None, json.into())
}

/// Acknowledgements of all messages of an upload, which the far end would make.
fn acknowledgements() -> Vec<Bytes> {
    let messages = i64::try_from(UPLOAD_BYTES / 512).expect("few");
    (1..=messages).map(acknowledgement).collect()
}

/// Sends the data through the session; how many messages it took.
fn upload(
    session: &mut PortSession,
    id: StreamId,
    now: Instant,
    data: &[u8],
    acks: &[Bytes],
) -> usize {
    let (mut written, mut sent, mut acked) = (0, 0, 0);
    loop {
        written += session.write(id, &data[written..]).unwrap_or(0);
        while sent - acked < FLIGHT_MESSAGES
            && let Some(message) = session.poll_transmit(now)
        {
            black_box(message);
            sent += 1;
        }
        for ack in &acks[acked..sent] {
            session.handle_message(ack, now);
        }
        if written == data.len() && acked == sent {
            return sent;
        }
        acked = sent;
        while session.poll_event().is_some() {}
    }
}

/// What no client can do without: each byte copied once and digested once, in pieces of a payload.
fn copy_and_digest(data: &[u8], copy: &mut Vec<u8>) {
    for piece in data.chunks(PAYLOAD_BYTES) {
        copy.clear();
        copy.extend_from_slice(piece);
        black_box(Sha256::digest(&copy));
    }
}

fn median(mut run: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..RUNS).map(|_| run()).collect();
    times.sort();
    times[RUNS / 2]
}

/// The machine's time for an upload as a multiple of the baseline's, measured side by side.
fn print_ratio(data: &[u8], acks: &[Bytes]) {
    let mut copy = Vec::new();
    let baseline = median(|| {
        let start = Instant::now();
        copy_and_digest(data, &mut copy);
        start.elapsed()
    });
    let machine = median(|| {
        let (mut session, now, id) = established();
        let start = Instant::now();
        black_box(upload(&mut session, id, now, data, acks));
        start.elapsed()
    });
    let megabytes = data.len() as f64 / 1e6;
    println!(
        "upload: {:.0} MB/s through the session, {:.0} MB/s copied and digested, ratio {:.2}",
        megabytes / machine.as_secs_f64(),
        megabytes / baseline.as_secs_f64(),
        machine.as_secs_f64() / baseline.as_secs_f64(),
    );
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let payload = Bytes::from(vec![7; PAYLOAD_BYTES]);
    let encoded = message(
        MessageType::OutputStreamData,
        1,
        PayloadType::Output,
        payload.clone(),
    );

    let mut group = criterion.benchmark_group("message of 1 KiB");
    group.throughput(Throughput::Bytes(PAYLOAD_BYTES as u64));
    group.bench_function("digest alone", |bencher| {
        bencher.iter(|| Sha256::digest(black_box(&payload)));
    });
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            message(
                MessageType::InputStreamData,
                1,
                PayloadType::Output,
                black_box(payload.clone()),
            )
        });
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| Message::decode(black_box(&encoded)));
    });
    group.finish();

    let data = vec![7; UPLOAD_BYTES];
    let acks = acknowledgements();
    let mut copy = Vec::new();
    let mut group = criterion.benchmark_group("upload of 4 MiB");
    group
        .throughput(Throughput::Bytes(UPLOAD_BYTES as u64))
        .sample_size(20);
    group.bench_function("copied and digested", |bencher| {
        bencher.iter(|| copy_and_digest(&data, &mut copy));
    });
    group.bench_function("port session", |bencher| {
        bencher.iter_batched_ref(
            established,
            |(session, now, id)| upload(session, *id, *now, &data, &acks),
            BatchSize::PerIteration,
        );
    });
    group.finish();
    print_ratio(&data, &acks);
    criterion.final_summary();
}
