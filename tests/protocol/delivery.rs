//! Bytes arrive, all of them, once and in order, whatever the network does.

use std::collections::BTreeMap;
use std::time::Duration;

use ssm_session_operator::protocol::{Event, Read};

use crate::agent::Destination;
use crate::wire;
use crate::world::{Faults, PERFECT, World, noise};

const MINUTES: Duration = Duration::from_mins(30);

fn answers(answer: Vec<u8>, closes_after: usize) -> Box<dyn Fn(u32) -> Destination> {
    Box::new(move |_| Destination::Answers {
        answer: answer.clone(),
        closes_after,
    })
}

#[test]
fn several_streams_arrive_whole_both_ways_over_a_bad_network() {
    for (seed, loss) in [(1, 0.05), (2, 0.1), (3, 0.2), (4, 0.2), (5, 0.2)] {
        let faults = Faults {
            loss,
            duplication: 0.1,
            delay_ms: (1, 80),
        };
        let (upload, answer) = (noise(60_000, seed), noise(50_000, seed + 100));
        let mut world = World::new(faults, seed, |agent| {
            agent.destination = answers(answer.clone(), upload.len());
        });
        let ids = [(); 4].map(|()| world.connect(&upload));
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
        world.run_until("both ends are quiet", MINUTES, |world| {
            world.agent.is_quiet()
        });
    }
}

#[test]
fn how_long_the_agent_takes_is_told_once_a_second_at_most() {
    // It acknowledges at once; a message takes 5 ms there, and as long back.
    let mut world = World::new(PERFECT, 7, |_| {});
    let id = world.connect(b"hello");
    for _ in 0..50 {
        let client = world.clients.get_mut(&id).expect("it is connected");
        client.upload.extend(noise(2000, 7));
        world.run_for(Duration::from_millis(100));
    }
    let told: Vec<_> = world
        .events
        .iter()
        .filter_map(|(at, event)| match event {
            Event::RoundTrip(took) => Some((*at, *took)),
            _ => None,
        })
        .collect();
    assert!((4..=5).contains(&told.len()), "{told:?}");
    let ten = Duration::from_millis(10);
    assert!(told.iter().all(|(_, took)| *took == ten), "{told:?}");
    let pauses = told.windows(2).map(|pair| pair[1].0 - pair[0].0);
    assert!(pauses.min() >= Some(Duration::from_secs(1)), "{told:?}");
}

#[test]
fn a_fin_comes_behind_the_data() {
    let faults = Faults {
        loss: 0.1,
        duplication: 0.1,
        delay_ms: (1, 50),
    };
    let upload = noise(100_000, 6);
    let mut world = World::new(faults, 6, |_| {});
    let id = world.connect(&upload);
    world.clients.get_mut(&id).expect("it is there").finishes = true;
    world.run_until("the agent hears of the end", MINUTES, |world| {
        world
            .agent
            .flows
            .get(&id)
            .is_some_and(|flow| flow.client_finished)
    });
    assert!(world.agent.flows[&id].heard == upload);
    assert_eq!(world.session.write(id, b"more"), None);
}

#[test]
fn an_agent_that_is_deaf_at_first_gets_the_head_again() {
    // It acknowledges all but the first data message, which is as good as lost.
    let mut world = World::new(PERFECT, 7, |agent| {
        agent.deaf_for = Duration::from_millis(60);
    });
    let upload = noise(200_000, 7);
    let id = world.connect(&upload);
    world.run_until("the upload is there", MINUTES, |world| {
        world
            .agent
            .flows
            .get(&id)
            .is_some_and(|flow| flow.heard.len() == upload.len())
    });
    assert!(world.agent.flows[&id].heard == upload);
    assert!(
        world.now < world.start + Duration::from_secs(2),
        "it took {:?}",
        world.now - world.start
    );
}

#[test]
fn a_perfect_network_sees_each_message_once() {
    let upload = noise(200_000, 8);
    let mut world = World::new(PERFECT, 8, |agent| {
        agent.destination = answers(noise(50_000, 9), upload.len());
    });
    let id = world.connect(&upload);
    world.run_until("the stream is finished", MINUTES, |world| {
        world.clients[&id].end.is_some()
    });
    world.run_for(Duration::from_mins(1));
    let arrivals: Vec<i64> = world
        .agent
        .arrivals
        .iter()
        .map(|(_, seen)| seen.sequence)
        .collect();
    assert!(
        arrivals
            .iter()
            .copied()
            .eq(0..i64::try_from(arrivals.len()).expect("few"))
    );
    assert!(world.agent.acknowledged.values().all(|acks| *acks == 1));
    assert!(
        world
            .agent
            .arrivals
            .iter()
            .all(|(_, seen)| seen.payload.len() <= 1024)
    );
    assert_eq!(
        world.session.poll_timeout(),
        None,
        "an idle session wants nothing"
    );
}

#[test]
fn every_duplicate_is_acknowledged_again() {
    let faults = Faults {
        loss: 0.0,
        duplication: 1.0,
        delay_ms: (1, 20),
    };
    let mut world = World::new(faults, 10, |agent| {
        agent.destination = answers(noise(20_000, 10), 1);
    });
    let id = world.connect(b"?");
    world.run_until("the stream is finished", MINUTES, |world| {
        world.clients[&id].end.is_some()
    });
    world.run_for(Duration::from_secs(5));
    let mut acks: BTreeMap<i64, u32> = BTreeMap::new();
    for (_, message) in &world.sent {
        let seen = wire::read(message);
        if seen.name == "acknowledge" {
            let json: serde_json::Value = serde_json::from_slice(&seen.payload).expect("JSON");
            let number = json["AcknowledgedMessageSequenceNumber"]
                .as_i64()
                .expect("a number");
            *acks.entry(number).or_default() += 1;
        }
    }
    for (sequence, transmissions) in &world.agent.transmissions {
        assert_eq!(
            acks.get(sequence),
            Some(&(2 * transmissions)),
            "message {sequence}"
        );
    }
}

#[test]
fn stream_ids_are_odd_and_begin_with_3() {
    let mut world = World::new(PERFECT, 11, |_| {});
    let ids: Vec<u32> = (0..5).map(|_| world.connect(b"x")).collect();
    assert_eq!(ids, [3, 5, 7, 9, 11]);
    world.run_for(Duration::from_secs(1));
    assert!(world.agent.flows.keys().copied().eq(ids));
}

#[test]
fn a_stream_is_opened_before_its_client_says_anything() {
    let mut world = World::new(PERFECT, 12, |agent| {
        agent.destination = answers(b"220 ready\r\n".to_vec(), usize::MAX);
    });
    let id = world.connect(b"");
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.clients[&id].heard, b"220 ready\r\n");
    assert!(world.happened(|event| *event == Event::DestinationReached));
}

#[test]
fn a_lone_newline_is_not_changed() {
    let mut world = World::new(PERFECT, 13, |_| {});
    let lone = world.connect(b"\n");
    // With the header of its frame this leaves a newline alone behind a cut at 1024 bytes.
    let line: Vec<u8> = [&[b'x'; 1016][..], b"\n"].concat();
    let long = world.connect(&line);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.agent.flows[&lone].heard, b"\n");
    assert_eq!(world.agent.flows[&long].heard, line);
}
