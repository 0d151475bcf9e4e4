//! Websockets come and go; the session and its streams stay.

use std::time::Duration;

use ssm_session_operator::protocol::{End, Event, Read};

use crate::agent::Destination;
use crate::wire;
use crate::world::{Faults, PERFECT, World, noise};

const MINUTES: Duration = Duration::from_mins(30);

#[test]
fn a_transport_that_is_lost_again_and_again_loses_nothing() {
    for seed in 20..26 {
        let faults = Faults {
            loss: 0.02,
            duplication: 0.05,
            delay_ms: (1, 60),
        };
        let (upload, answer) = (noise(150_000, seed), noise(150_000, seed + 100));
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut world = World::new(faults, seed, |agent| {
            let (answer, closes_after) = (answer.clone(), upload.len());
            agent.destination = Box::new(move |_| Destination::Answers {
                answer: answer.clone(),
                closes_after,
            });
        });
        let ids = [(); 2].map(|()| world.connect(&upload));
        for _ in 0..6 {
            world.run_for(Duration::from_millis(rng.u64(0..200)));
            world.lose_transport();
            world.run_for(Duration::from_millis(rng.u64(0..3_000)));
            world.open_transport();
        }
        world.run_until("all streams are finished", MINUTES, |world| {
            world.clients.values().all(|client| client.end.is_some())
        });
        for id in ids {
            let client = &world.clients[&id];
            assert_eq!(client.end, Some(Read::Finished), "seed {seed}, stream {id}");
            assert!(
                client.heard == answer,
                "seed {seed}, stream {id}: the answer is damaged"
            );
            let heard = &world.agent.flows[&id].heard;
            assert!(
                *heard == upload,
                "seed {seed}, stream {id}: the upload is damaged"
            );
        }
    }
}

#[test]
fn what_a_client_says_without_a_transport_is_kept_and_sent_later() {
    let mut world = World::new(PERFECT, 30, |_| {});
    world.run_for(Duration::from_secs(1));
    world.lose_transport();
    let before = world.sent.len();
    let id = world.connect(b"still here");
    world.run_for(Duration::from_mins(10));
    assert_eq!(world.sent.len(), before, "there is nowhere to send to");
    world.open_transport();
    world.run_for(Duration::from_millis(100));
    assert_eq!(world.agent.flows[&id].heard, b"still here");
}

#[test]
fn everything_unacknowledged_is_sent_again_in_order_on_a_new_transport() {
    let mut world = World::new(PERFECT, 31, |_| {});
    world.run_for(Duration::from_secs(1));
    world.agent.acknowledges = false;
    world.connect(&noise(50_000, 31));
    world.run_for(Duration::from_millis(50));
    world.lose_transport();
    let known = world.sent.len();
    world.open_transport();
    world.run_for(Duration::from_millis(10));
    let again: Vec<i64> = world.sent[known..]
        .iter()
        .map(|(_, message)| wire::read(message))
        .filter(|message| message.name == "input_stream_data")
        .map(|message| message.sequence)
        .collect();
    let last = again.last().copied().expect("something was unacknowledged");
    assert!(
        again.iter().copied().eq(1..=last),
        "the response was acknowledged: {again:?}"
    );
    assert!(last > 40);
}

#[test]
fn acknowledgements_that_a_lost_transport_left_behind_go_over_the_next() {
    let mut world = World::new(PERFECT, 32, |_| {});
    world.run_for(Duration::from_secs(1));
    let sequence = 2;
    let message = wire::write("output_stream_data", sequence, wire::FLAG, 1, &[0, 0, 0, 1]);
    world.session.handle_message(&message.into(), world.now);
    world.lose_transport();
    let known = world.sent.len();
    world.open_transport();
    world.run_for(Duration::ZERO);
    // Those of the handshake as well: whether they arrived over the old one is not known.
    let said: Vec<String> = world.sent[known..]
        .iter()
        .map(|(_, ack)| String::from_utf8(wire::read(ack).payload).expect("JSON"))
        .collect();
    assert_eq!(said.len(), 3, "{said:?}");
    for (sequence, text) in said.iter().enumerate() {
        let number = format!("\"AcknowledgedMessageSequenceNumber\":{sequence},");
        assert!(text.contains(&number), "{text}");
    }
}

#[test]
fn a_paused_publication_does_not_stop_probes() {
    let mut world = World::new(PERFECT, 33, |_| {});
    world.run_for(Duration::from_secs(1));
    world.agent.acknowledges = false;
    let id = world.connect(b"hello");
    world.run_for(Duration::from_millis(200));
    // The gateway's own messages are digested by nobody.
    let mut pause = wire::write("pause_publication", 0, 0, 1, b"{}");
    pause[80] ^= 1;
    world.deliver(pause);
    let known = world.sent.len();
    world.run_for(Duration::from_mins(1));
    assert!(
        world.sent.len() > known + 10,
        "nobody knows that a start follows"
    );
    world.agent.acknowledges = true;
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.agent.flows[&id].heard, b"hello");
    assert_eq!(world.session.poll_timeout(), None, "all is acknowledged");
}

#[test]
fn an_agent_that_answers_nothing_for_five_minutes_is_given_up() {
    let mut world = World::new(PERFECT, 34, |_| {});
    world.run_for(Duration::from_secs(1));
    world.agent.acknowledges = false;
    world.connect(b"hello");
    world.run_for(Duration::from_mins(4));
    let ended = |world: &World| {
        let ends = world.events.iter();
        ends.filter(|(_, event)| matches!(event, Event::Ended(End::Unanswered(_))))
            .count()
    };
    assert_eq!(ended(&world), 0);
    world.run_for(Duration::from_mins(2));
    assert_eq!(ended(&world), 1);
}

#[test]
fn an_idle_session_is_not_given_up() {
    let mut world = World::new(PERFECT, 35, |_| {});
    world.run_for(Duration::from_secs(1));
    let id = world.connect(b"hello");
    world.run_for(Duration::from_hours(3));
    assert_eq!(world.agent.flows[&id].heard, b"hello");
    assert!(
        !world
            .events
            .iter()
            .any(|(_, event)| matches!(event, Event::Ended(_)))
    );
}
