//! What no agent would send ends the session with an error on record, and neither the listener nor the process.

use ssm_session_operator::relay::{EndReason, Report, SessionEnd, State};
use ssm_session_operator::simulator::{Fault, Mangling};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::ground::{Ground, echo, wait_reset, within};
use crate::transfer::{Server, exchange};

/// A client that has got an answer through the relay.
async fn connected(ground: &Ground) -> TcpStream {
    let mut client = ground.dial().await;
    client.write_u64(42).await.expect("sent");
    let echoed = within("the echo", client.read_u64()).await;
    assert_eq!(echoed.expect("an echo"), 42);
    client
}

/// The session that serves, and waits for one if none does.
async fn session(ground: &Ground) -> String {
    let serving = |report: &Report| report.state == State::Serving;
    let report = ground.shelf.wait_last("a session", serving).await;
    report.sessions[0].session_id.to_string()
}

/// How a session ended that is on record.
fn end_of(report: &Report, session: &str) -> Option<SessionEnd> {
    let mut sessions = report.sessions.iter();
    let session = sessions.find(|record| record.session_id.as_str() == session);
    session?.end.clone()
}

/// Waits until `session` is on record as ended and another one serves; how it ended.
async fn wait_follower(ground: &Ground, session: &str) -> SessionEnd {
    let follows =
        |report: &Report| report.state == State::Serving && end_of(report, session).is_some();
    let report = ground.shelf.wait_last("a session that follows", follows);
    end_of(&report.await, session).expect("it was there")
}

#[tokio::test]
async fn a_malformed_frame_ends_the_session_with_an_error_and_another_one_serves_on_the_same_port()
{
    let ground = Ground::serving(echo().await).await;
    let port = ground.address().await.port();
    for (mangling, why) in [
        (Mangling::Noise { seed: 7 }, "message "),
        (Mangling::CutTo { bytes: 0 }, "message is cut short"),
        (Mangling::CutTo { bytes: 119 }, "message is cut short"),
        (
            Mangling::CutTo { bytes: 121 },
            "message lies about the length of its payload",
        ),
        (
            Mangling::HeaderLength { length: u32::MAX },
            "message is cut short",
        ),
        (
            Mangling::HeaderLength { length: 0 },
            "message has a header of a length that no version uses",
        ),
        (
            Mangling::PayloadLength { length: u32::MAX },
            "message lies about the length of its payload",
        ),
        (
            Mangling::WrongDigest,
            "message's payload does not match its digest",
        ),
        (
            Mangling::MultiplexerVersion { version: 2 },
            "multiplexer frame of version 2, expected 1",
        ),
        (Mangling::Text, "message is cut short"),
        (Mangling::Huge { bytes: 2 << 20 }, "Space limit exceeded: "),
    ] {
        let what = format!("{mangling:?}");
        let mut client = connected(&ground).await;
        let session = session(&ground).await;
        ground.inject(Fault::Mangle {
            session: session.clone(),
            frames: 1,
            mangling,
        });
        client.write_u64(7).await.expect("sent");
        wait_reset(&mut client).await;
        let end = wait_follower(&ground, &session).await;
        assert!(end.message.starts_with(why), "{what}: {}", end.message);
        // Neither the service nor anybody in AWS has ended it.
        let blamed = [EndReason::ClosedByService, EndReason::TerminatedExternally];
        assert!(!blamed.contains(&end.reason), "{what}: {:?}", end.reason);
        assert_eq!(ground.address().await.port(), port, "{what}");
    }
    connected(&ground).await;
}

#[tokio::test]
async fn a_message_of_a_type_that_nobody_knows_costs_nothing_but_time() {
    let ground = Ground::serving(echo().await).await;
    let mut client = connected(&ground).await;
    ground.inject(Fault::Mangle {
        session: session(&ground).await,
        frames: 3,
        mangling: Mangling::MessageType {
            name: "news_of_tomorrow".to_owned(),
        },
    });
    for number in 0..8 {
        client.write_u64(number).await.expect("sent");
        let echoed = within("the echo", client.read_u64()).await;
        assert_eq!(echoed.expect("an echo"), number);
    }
    assert_eq!(ground.simulator.sessions().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_damage_to_frames_ends_the_process_or_passes_for_bytes_of_the_destination() {
    let server = Server::start().await.expect("a server");
    let ground = Ground::serving(server.address()).await;
    for seed in 0..12 {
        let session = session(&ground).await;
        // Where the damage is harmless, the session goes on and has more of it.
        let mangling = if seed % 3 == 0 {
            Mangling::Noise { seed }
        } else {
            Mangling::Damage { seed }
        };
        ground.inject(Fault::Mangle {
            session: session.clone(),
            frames: 1000,
            mangling,
        });
        let mut client = ground.dial().await;
        // Whether it is reset or served, no wrong byte comes: the digests are compared.
        let exchanged = within("an exchange", exchange(&mut client, 64 << 10, 1 << 20)).await;
        let why = exchanged.err().map(|error| error.to_string());
        assert!(
            why.as_deref()
                .is_none_or(|why| !why.contains("other bytes")),
            "seed {seed}: {why:?}"
        );
        ground.inject(Fault::Clear);
        if why.is_some() {
            let end = wait_follower(&ground, &session).await;
            assert_ne!(end.message, "", "seed {seed}");
        }
    }
    let mut client = ground.dial().await;
    let exchanged = within("an exchange", exchange(&mut client, 1 << 20, 1 << 20)).await;
    exchanged.expect("all bytes");
}
