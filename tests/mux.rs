//! Our multiplexer against an independent one: `async_smux` is the server, memory the transport.
#![cfg(feature = "simulator")]
#![allow(clippy::expect_used, clippy::panic, reason = "so does a test fail")]

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use async_smux::MuxBuilder;
use bytes::Bytes;
use fastrand::Rng;
use ssm_session_operator::protocol::StreamId;
use ssm_session_operator::protocol::mux::multiplexer::Multiplexer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Bytes of a payload, as on a data channel.
const PAYLOAD_BYTES: usize = 1024;

/// Virtual: it passes only when all of the runtime waits.
const PATIENCE: Duration = Duration::from_mins(1);

/// Our end: streams with something to say, and what they heard.
struct Ours {
    mux: Multiplexer,
    transport: DuplexStream,
    outgoing: VecDeque<u8>,
    uploads: BTreeMap<StreamId, VecDeque<u8>>,
    heard: BTreeMap<StreamId, Vec<u8>>,
    rng: Rng,
}

impl Ours {
    fn new(transport: DuplexStream, seed: u64) -> Self {
        Self {
            mux: Multiplexer::default(),
            transport,
            outgoing: VecDeque::new(),
            uploads: BTreeMap::new(),
            heard: BTreeMap::new(),
            rng: Rng::with_seed(seed),
        }
    }

    /// A stream that says this and is then finished.
    fn open(&mut self, upload: &[u8]) -> StreamId {
        let id = self.mux.open().expect("ids are left");
        self.uploads.insert(id, upload.iter().copied().collect());
        self.heard.insert(id, Vec::new());
        id
    }

    fn is_finished(&self, id: StreamId) -> bool {
        let stream = self.mux.stream(id);
        stream.is_some_and(|stream| stream.remote_finished() && stream.incoming_bytes() == 0)
    }

    /// Moves bytes until `done`.
    async fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        let run = async {
            while !done(self) {
                self.fill();
                let mut incoming = vec![0; self.rng.usize(1..5_000)];
                let (mut reader, mut writer) = tokio::io::split(&mut self.transport);
                let outgoing = self.outgoing.make_contiguous();
                tokio::select! {
                    written = writer.write(outgoing), if !outgoing.is_empty() => {
                        let written = written.expect("the transport is open");
                        self.outgoing.drain(..written);
                    }
                    read = reader.read(&mut incoming) => {
                        incoming.truncate(read.expect("the transport is open"));
                        assert!(!incoming.is_empty(), "the server has closed the transport");
                        let bytes = Bytes::from(incoming);
                        self.mux.handle_bytes(bytes, Instant::now()).expect("frames of version 1");
                    }
                }
                for (id, heard) in &mut self.heard {
                    while let Some(bytes) = self.mux.read(*id, 1000) {
                        heard.extend(&bytes);
                    }
                }
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, run).await;
        assert!(in_time.is_ok(), "both ends wait for each other");
    }

    fn fill(&mut self) {
        for (id, upload) in &mut self.uploads {
            let bytes = upload.len().min(self.rng.usize(1..3_000));
            let written = self.mux.write(*id, &upload.make_contiguous()[..bytes]);
            upload.drain(..written);
            if upload.is_empty() {
                self.mux.finish(*id);
            }
        }
        self.uploads.retain(|_, upload| !upload.is_empty());
        if self.outgoing.len() < 8 * PAYLOAD_BYTES
            && let Some(payload) = self.mux.poll_payload(PAYLOAD_BYTES, Instant::now())
        {
            assert!(payload.len() <= PAYLOAD_BYTES);
            self.outgoing.extend(&payload);
        }
    }
}

/// A server that hears a stream to its end and then says it all backwards.
fn serve_backwards(transport: DuplexStream) {
    let (_, mut acceptor, worker) = MuxBuilder::server().with_connection(transport).build();
    tokio::spawn(worker);
    tokio::spawn(async move {
        while let Some(mut stream) = acceptor.accept().await {
            tokio::spawn(async move {
                let mut heard = Vec::new();
                stream
                    .read_to_end(&mut heard)
                    .await
                    .expect("it ends with FIN");
                heard.reverse();
                stream
                    .write_all(&heard)
                    .await
                    .expect("the client still hears");
                stream.shutdown().await.expect("the client still hears");
            });
        }
    });
}

fn noise(rng: &mut Rng, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    rng.fill(&mut noise);
    noise
}

#[tokio::test(start_paused = true)]
async fn streams_of_all_lengths_are_heard_by_another_implementation_and_hear_it() {
    for seed in 0..4 {
        let (ours, theirs) = tokio::io::duplex(4096);
        serve_backwards(theirs);
        let (mut ours, mut rng) = (Ours::new(ours, seed), Rng::with_seed(seed));
        let mut said = BTreeMap::new();
        for bytes in [1, 7, 1008, 1009, 1016, 1024, 65_535, 65_536, 200_000] {
            let upload = noise(&mut rng, bytes);
            said.insert(ours.open(&upload), upload);
        }
        ours.mux.keep_alive();
        ours.run_until(|ours| ours.heard.keys().all(|id| ours.is_finished(*id)))
            .await;
        for (id, mut upload) in said {
            upload.reverse();
            assert!(ours.heard[&id] == upload, "seed {seed}, stream {id}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_says_nothing_is_opened_and_closed() {
    let (ours, theirs) = tokio::io::duplex(4096);
    serve_backwards(theirs);
    let mut ours = Ours::new(ours, 9);
    let id = ours.open(b"");
    ours.run_until(|ours| ours.is_finished(id)).await;
    assert!(ours.heard[&id].is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_discarded_stream_leaves_the_others_alone() {
    let (ours, theirs) = tokio::io::duplex(4096);
    serve_backwards(theirs);
    let (mut ours, mut rng) = (Ours::new(ours, 10), Rng::with_seed(10));
    let upload = noise(&mut rng, 300_000);
    let discarded = ours.open(&upload);
    let kept = ours.open(&upload);
    ours.run_until(|ours| ours.uploads[&kept].len() < 200_000)
        .await;
    ours.mux.discard(discarded);
    ours.uploads.remove(&discarded);
    ours.run_until(|ours| ours.is_finished(kept)).await;
    assert!(ours.heard[&kept].iter().eq(upload.iter().rev()));
    assert!(ours.mux.stream(discarded).is_none(), "it is forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_first_is_heard_to_its_end() {
    let (ours, theirs) = tokio::io::duplex(4096);
    let (_, mut acceptor, worker) = MuxBuilder::server().with_connection(theirs).build();
    tokio::spawn(worker);
    let mut rng = Rng::with_seed(11);
    let answer = noise(&mut rng, 150_000);
    let said = answer.clone();
    tokio::spawn(async move {
        let mut stream = acceptor.accept().await.expect("a stream");
        stream.write_all(&said).await.expect("the client hears");
        stream.shutdown().await.expect("the client hears");
        // The handle outlives the test: dropping it would close the session.
        std::future::pending::<()>().await;
        drop(stream);
    });
    let mut ours = Ours::new(ours, 11);
    let id = ours.mux.open().expect("ids are left");
    ours.heard.insert(id, Vec::new());
    ours.run_until(|ours| ours.is_finished(id)).await;
    assert!(ours.heard[&id] == answer);
    assert_eq!(ours.mux.write(id, b"more"), 0);
}
