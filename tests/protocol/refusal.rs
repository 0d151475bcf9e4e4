//! A destination that refuses is told from one that closes, though the word of it carries no stream.

use std::time::Duration;

use ssm_session_operator::protocol::{Event, Read, ResetCause};

use crate::agent::Destination;
use crate::wire;
use crate::world::{Faults, PERFECT, World};

/// Stream 5 meets this; all others answer.
fn at_stream_5(other: Destination) -> Box<dyn Fn(u32) -> Destination> {
    Box::new(move |stream| match stream {
        5 => other.clone(),
        _ => Destination::Answers {
            answer: b"welcome".to_vec(),
            closes_after: 3,
        },
    })
}

#[test]
fn a_refused_destination_is_a_reset_in_whatever_order_the_agent_says_so() {
    let jitter = Faults {
        loss: 0.0,
        duplication: 0.2,
        delay_ms: (1, 60),
    };
    for destination in [Destination::RefusesFlagFirst, Destination::RefusesFinFirst] {
        for (seed, faults) in [(40, PERFECT), (41, jitter), (42, jitter)] {
            let mut world = World::new(faults, seed, |agent| {
                agent.destination = at_stream_5(destination.clone());
            });
            for _ in 0..3 {
                world.connect(b"bye");
            }
            world.run_for(Duration::from_secs(10));
            let refused = &world.clients[&5];
            let what = format!("{destination:?}, seed {seed}");
            assert_eq!(
                refused.end,
                Some(Read::Reset(ResetCause::Refused)),
                "{what}"
            );
            assert_eq!(world.session.write(5, b"more"), None);
            let count = |wanted: Event| world.events.iter().filter(|(_, e)| *e == wanted).count();
            assert_eq!(count(Event::DestinationRefused), 1, "{what}");
            assert_eq!(count(Event::DestinationReached), 2, "{what}");
            for id in [3, 7] {
                let client = &world.clients[&id];
                assert_eq!(
                    (client.heard.as_slice(), &client.end),
                    (&b"welcome"[..], &Some(Read::Finished))
                );
            }
            world.session.discard(5);
            assert_eq!(
                world.session.read(5, 1),
                Read::Reset(ResetCause::SessionEnded)
            );
        }
    }
}

#[test]
fn a_refused_stream_is_closed_on_our_side_too() {
    let mut world = World::new(PERFECT, 43, |agent| {
        agent.destination = at_stream_5(Destination::RefusesFlagFirst);
    });
    world.connect(b"");
    world.connect(b"");
    world.run_for(Duration::from_secs(1));
    assert!(world.agent.flows[&5].client_finished);
    assert!(!world.agent.flows[&3].client_finished);
}

#[test]
fn a_silent_close_without_a_flag_is_an_end_but_only_after_the_window() {
    let mut world = World::new(PERFECT, 44, |agent| {
        agent.destination = at_stream_5(Destination::Closes);
    });
    world.run_for(Duration::from_secs(1));
    world.connect(b"bye");
    let id = world.connect(b"");
    let opened = world.now;
    world.run_until("the stream ends", Duration::from_secs(1), |world| {
        world.clients[&id].end.is_some()
    });
    assert_eq!(world.clients[&id].end, Some(Read::Finished));
    assert!(
        world.now >= opened + Duration::from_millis(100),
        "{:?}",
        world.now - opened
    );
    assert!(!world.happened(|event| *event == Event::DestinationRefused));
}

#[test]
fn a_flag_without_a_stream_does_not_reset_a_later_one() {
    let mut world = World::new(PERFECT, 45, |agent| {
        agent.destination = at_stream_5(Destination::Closes);
    });
    world.run_for(Duration::from_secs(1));
    world.agent.send(wire::FLAG, &3_u32.to_be_bytes());
    world.run_for(Duration::from_secs(1));
    assert!(world.happened(|event| *event == Event::DestinationRefused));
    world.connect(b"");
    let id = world.connect(b"");
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.clients[&id].end, Some(Read::Finished));
}

#[test]
fn other_flags_mean_nothing_with_the_multiplexer() {
    let mut world = World::new(PERFECT, 46, |agent| {
        agent.destination = at_stream_5(Destination::Closes);
    });
    for flag in [&[0, 0, 0, 1][..], &[0, 0, 0, 9], &[3], &[0; 64]] {
        world.agent.send(wire::FLAG, flag);
    }
    let id = world.connect(b"bye");
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.clients[&id].end, Some(Read::Finished));
    assert!(!world.happened(|event| *event == Event::DestinationRefused));
}
