//! Every buffer has an end, and a full one slows down who fills it.

use std::collections::BTreeMap;
use std::time::Duration;

use ssm_session_operator::protocol::{Event, Read, ResetCause, StreamId};

use crate::agent::Destination;
use crate::wire;
use crate::world::{OUTBOX_BYTES, PERFECT, STALL_LIMIT, STREAMS_MAX, World, noise};

/// Unread bytes of a session before it reads no further.
const BUDGET_BYTES: usize = 4 << 20;

/// A world in which stream 3 is told more than the budget, at once, and its client does not read.
fn stuck() -> (World, StreamId) {
    let mut world = World::new(PERFECT, 70, |agent| {
        agent.pause = Duration::ZERO;
        agent.destination = Box::new(|stream| Destination::Answers {
            answer: noise(
                if stream == 3 {
                    BUDGET_BYTES + 100_000
                } else {
                    10
                },
                70,
            ),
            closes_after: 5,
        });
    });
    let id = world.connect(b"?");
    world.clients.get_mut(&id).expect("it is there").pauses = true;
    world.run_until("the budget is used up", Duration::from_secs(5), |world| {
        !world.session.wants_to_read()
    });
    (world, id)
}

#[test]
fn a_client_that_does_not_read_fills_the_budget_and_no_more() {
    let (mut world, id) = stuck();
    world.run_for(10 * STALL_LIMIT);
    assert!(!world.socket.is_empty(), "the rest waits in the socket");
    assert!(
        !world.happened(|event| matches!(event, Event::StreamStalled(_))),
        "it harms nobody"
    );
    world.clients.get_mut(&id).expect("it is there").pauses = false;
    let all = noise(BUDGET_BYTES + 100_000, 70);
    world.run_until("it has read everything", Duration::from_mins(10), |world| {
        world.clients[&id].heard.len() == all.len()
    });
    assert!(world.clients[&id].heard == all);
    assert!(world.session.wants_to_read());
}

#[test]
fn a_stream_that_keeps_others_waiting_is_reset_after_the_limit() {
    let (mut world, id) = stuck();
    let other = world.connect(b"hello");
    let from = world.now;
    world.run_until("the other is served", 2 * STALL_LIMIT, |world| {
        world.clients[&other].end.is_some()
    });
    assert_eq!(world.clients[&other].end, Some(Read::Finished));
    assert_eq!(world.clients[&other].heard, noise(10, 70));
    assert!(world.happened(|event| *event == Event::StreamStalled(id)));
    assert_eq!(world.session.read(id, 1), Read::Reset(ResetCause::Stalled));
    assert!(world.now >= from + STALL_LIMIT);
    world.run_for(Duration::from_secs(5));
    assert!(world.agent.flows[&id].client_finished, "the agent is told");
}

#[test]
fn the_limit_counts_from_when_another_stream_is_there_to_wait() {
    let (mut world, id) = stuck();
    world.run_for(10 * STALL_LIMIT);
    world.connect(b"hello");
    world.run_for(STALL_LIMIT.checked_sub(Duration::from_millis(1)).unwrap());
    assert!(!world.happened(|event| matches!(event, Event::StreamStalled(_))));
    world.run_for(Duration::from_secs(1));
    assert!(world.happened(|event| *event == Event::StreamStalled(id)));
}

#[test]
fn who_takes_a_piece_now_and_then_keeps_others_waiting_no_longer_than_who_takes_none() {
    let (mut world, id) = stuck();
    world.connect(b"hello");
    let from = world.now;
    while !world.happened(|event| *event == Event::StreamStalled(id)) {
        assert!(world.now < from + 2 * STALL_LIMIT, "it goes on for ever");
        let read = world.session.read(id, 64 << 10);
        assert!(matches!(read, Read::Bytes(_)), "{read:?}");
        world.run_for(STALL_LIMIT / 4);
    }
    assert!(world.now >= from + STALL_LIMIT);
}

#[test]
fn who_reads_steadily_and_slower_than_the_agent_sends_is_not_reset() {
    let mut world = World::new(PERFECT, 75, |agent| {
        agent.pause = Duration::ZERO;
        agent.destination = Box::new(|stream| Destination::Answers {
            answer: noise(if stream == 3 { 12 << 20 } else { 10 }, 75),
            closes_after: 5,
        });
    });
    let id = world.connect(b"?");
    world.clients.get_mut(&id).expect("it is there").pauses = true;
    world.run_until("the budget is used up", Duration::from_secs(5), |world| {
        !world.session.wants_to_read()
    });
    world.connect(b"hello");
    // 200 KB a second: the budget is full all the time.
    for _ in 0..40 {
        for _ in 0..3 {
            let read = world.session.read(id, 64 << 10);
            assert!(matches!(read, Read::Bytes(_)), "{read:?}");
        }
        world.run_for(Duration::from_secs(1));
    }
    assert!(!world.happened(|event| matches!(event, Event::StreamStalled(_))));
}

#[test]
fn one_stalled_stream_takes_no_other_with_it() {
    let shares = [(3, 1_900_000), (5, 1_400_000), (7, 1_300_000)];
    let mut world = World::new(PERFECT, 76, |agent| {
        agent.pause = Duration::ZERO;
        agent.destination = Box::new(move |stream| {
            let share = shares.iter().find(|(id, _)| *id == stream);
            Destination::Answers {
                answer: noise(share.map_or(0, |(_, bytes)| *bytes), 76),
                closes_after: 5,
            }
        });
    });
    for (id, _) in shares {
        assert_eq!(world.connect(b"?"), id);
        world.clients.get_mut(&id).expect("it is there").pauses = true;
    }
    world.run_until("the budget is used up", Duration::from_secs(5), |world| {
        !world.session.wants_to_read()
    });
    world.run_for(3 * STALL_LIMIT);
    let stalled = world.events.iter();
    let stalled = stalled.filter(|(_, event)| matches!(event, Event::StreamStalled(_)));
    assert_eq!(stalled.count(), 1, "the rest fits");
    assert!(world.session.wants_to_read());
}

#[test]
fn streams_that_nobody_uses_keep_their_places_until_their_bytes_are_on_their_way() {
    let mut world = World::new(PERFECT, 74, |_| {});
    world.run_for(Duration::from_secs(1));
    world.lose_transport();
    for _ in 0..STREAMS_MAX {
        let id = world.session.open().expect("there is a place");
        assert_eq!(world.session.write(id, b"the last words"), Some(14));
        world.session.finish(id);
        world.session.discard(id);
    }
    assert_eq!(world.session.open(), None);
    world.open_transport();
    world.run_for(Duration::from_secs(1));
    assert!(world.session.open().is_some());
    let heard = world.agent.flows.values();
    let all = heard.filter(|flow| flow.client_finished).count();
    assert_eq!(all, STREAMS_MAX, "nothing was lost");
}

#[test]
fn an_agent_that_never_acknowledges_stops_the_client_and_takes_no_more_memory() {
    let mut world = World::new(PERFECT, 71, |agent| agent.acknowledges = false);
    let upload = noise(8 << 20, 71);
    let id = world.connect(&upload);
    world.run_for(Duration::from_secs(10));
    assert_eq!(world.session.write(id, b"more"), Some(0));
    let taken = upload.len() - world.clients[&id].upload.len();
    assert!(
        taken <= OUTBOX_BYTES + (64 << 10),
        "{taken} bytes were taken"
    );
    let count = world.agent.arrivals.len();
    let distinct: BTreeMap<i64, usize> = world
        .agent
        .arrivals
        .iter()
        .map(|(_, seen)| (seen.sequence, 120 + seen.payload.len()))
        .collect();
    let outstanding: usize = distinct.values().sum();
    assert!(
        outstanding < OUTBOX_BYTES + 120 + 1024,
        "{outstanding} bytes are outstanding"
    );
    world.run_for(Duration::from_mins(1));
    let probes = world.agent.arrivals.len() - count;
    assert!(
        (14..=16).contains(&probes),
        "{probes} probes in a minute, one each 4 s at last"
    );
}

#[test]
fn streams_take_turns() {
    let mut world = World::new(PERFECT, 72, |_| {});
    world.connect(&noise(50_000, 72));
    world.connect(b"quick");
    world.connect(&noise(50_000, 73));
    world.run_for(Duration::from_secs(1));
    let output = world
        .agent
        .arrivals
        .iter()
        .filter(|(_, seen)| seen.payload_type == wire::OUTPUT);
    let turn = output
        .take(2)
        .position(|(_, seen)| seen.payload.ends_with(b"quick"));
    assert_eq!(turn, Some(1), "the second stream has the second turn");
}

#[test]
fn a_writer_is_told_when_there_is_room_again() {
    let mut world = World::new(PERFECT, 73, |_| {});
    let id = world.session.open().expect("the session is alive");
    let upload = noise(1 << 20, 73);
    let first = world.session.write(id, &upload).expect("it is open");
    assert_eq!(first, 64 << 10);
    assert_eq!(world.session.write(id, &upload), Some(0));
    world.run_for(Duration::from_secs(1));
    assert!(world.happened(|event| *event == Event::Writable(id)));
    assert!(
        world
            .session
            .write(id, &upload[first..])
            .is_some_and(|bytes| bytes > 0)
    );
}

#[test]
fn messages_far_ahead_of_a_missing_one_are_not_kept_for_ever() {
    let mut world = World::new(PERFECT, 74, |_| {});
    world.run_for(Duration::from_secs(1));
    let known = world.sent.len();
    for sequence in 3..20_003 {
        let message = wire::write("output_stream_data", sequence, wire::OUTPUT, 1, b"\x01");
        world.deliver(message);
    }
    assert_eq!(
        world.sent.len() - known,
        10_000,
        "the others are not acknowledged"
    );
}
