//! A session without memory to spare takes little at once, goes on, and says what it keeps.

use std::time::Duration;

use ssm_session_operator::protocol::inbox::MESSAGE_MEMORY_BYTES;
use ssm_session_operator::protocol::memory::{
    FRUGAL_AHEAD_BYTES, FRUGAL_SEND_BYTES, FRUGAL_UNREAD_BYTES,
};
use ssm_session_operator::protocol::{Event, Memory, Read, StreamId};

use crate::agent::Destination;
use crate::wire;
use crate::world::{PERFECT, STALL_LIMIT, World, noise};

/// What a client is told, and what it says.
const BYTES: usize = 2 << 20;

/// Of a stream that is about to be the last that fits.
const STREAM_BYTES: usize = 64 << 10;

const MESSAGE_BYTES: usize = 2048;

fn frugal(world: &mut World, frugal: bool) {
    world.session.set_frugal(frugal, world.now);
}

/// A world whose destinations say much.
fn talkative(seed: u64) -> World {
    let mut world = World::new(PERFECT, seed, |agent| {
        agent.pause = Duration::ZERO;
        agent.destination = Box::new(|_| Destination::Answers {
            answer: noise(BYTES, 80),
            closes_after: BYTES,
        });
    });
    frugal(&mut world, true);
    world
}

fn pauses(world: &mut World, id: StreamId, pauses: bool) {
    world.clients.get_mut(&id).expect("it is there").pauses = pauses;
}

#[test]
fn a_frugal_session_takes_no_more_of_its_clients_than_the_agent_acknowledges() {
    let mut world = World::new(PERFECT, 81, |agent| agent.acknowledges = false);
    frugal(&mut world, true);
    for seed in 0..20 {
        world.connect(&noise(BYTES, seed));
    }
    world.run_for(Duration::from_secs(10));
    let held = world.session.memory();
    assert!(held.outgoing >= FRUGAL_SEND_BYTES, "{held:?}");
    let most = FRUGAL_SEND_BYTES + STREAM_BYTES;
    assert!(held.outgoing < most, "{held:?}");
    assert!(!world.session.takes());
    frugal(&mut world, false);
    world.run_for(Duration::from_secs(10));
    let held = world.session.memory();
    assert!(held.outgoing > 2 << 20, "{held:?}");
}

#[test]
fn a_frugal_session_carries_everything_both_ways_and_keeps_nothing() {
    let mut world = talkative(82);
    let upload = noise(BYTES, 82);
    let ids: Vec<_> = (0..4).map(|_| world.connect(&upload)).collect();
    world.run_until("all bytes", Duration::from_mins(10), |world| {
        let all = |id| {
            world.clients[id].heard.len() == BYTES && world.agent.flows[id].heard.len() == BYTES
        };
        ids.iter().all(all)
    });
    for id in ids {
        assert!(world.clients[&id].heard == noise(BYTES, 80));
        assert!(world.agent.flows[&id].heard == upload);
    }
    world.run_for(Duration::from_secs(10));
    assert_eq!(world.session.memory(), Memory::default());
}

#[test]
fn a_frugal_session_reads_no_more_than_its_clients_take() {
    let mut world = talkative(83);
    let id = world.connect(b"?");
    pauses(&mut world, id, true);
    world.run_for(Duration::from_secs(10));
    assert!(!world.session.wants_to_read());
    let held = world.session.memory();
    // The last piece grows by a quarter.
    assert!(held.incoming >= FRUGAL_UNREAD_BYTES, "{held:?}");
    let most = FRUGAL_UNREAD_BYTES + STREAM_BYTES / 4 + MESSAGE_BYTES;
    assert!(held.incoming < most, "{held:?}");
    // What a client was handed and has not taken counts.
    assert!(matches!(world.session.read(id, usize::MAX), Read::Bytes(_)));
    assert_eq!(world.session.memory(), held);
    assert!(!world.session.wants_to_read());
    assert!(matches!(world.session.read(id, usize::MAX), Read::Bytes(_)));
    assert!(world.session.memory().incoming < held.incoming);
    assert!(world.session.wants_to_read());
}

#[test]
fn memory_to_spare_lets_a_session_read_on_at_once() {
    let mut world = talkative(84);
    let id = world.connect(b"?");
    pauses(&mut world, id, true);
    world.run_for(Duration::from_secs(1));
    assert!(!world.session.wants_to_read());
    frugal(&mut world, false);
    assert!(world.session.wants_to_read());
    world.run_for(Duration::from_secs(10));
    assert!(world.session.memory().incoming >= BYTES, "all of it fits");
}

#[test]
fn a_client_that_keeps_the_others_of_a_frugal_session_waiting_is_reset_after_the_limit() {
    let mut world = talkative(85);
    let stuck = world.connect(b"?");
    pauses(&mut world, stuck, true);
    let other = world.connect(b"?");
    world.run_until("the other is served", 2 * STALL_LIMIT, |world| {
        world.clients[&other].heard.len() == BYTES
    });
    assert!(world.happened(|event| *event == Event::StreamStalled(stuck)));
}

#[test]
fn a_frugal_session_keeps_little_ahead_of_a_missing_message() {
    let mut world = World::new(PERFECT, 86, |_| {});
    world.run_for(Duration::from_secs(1));
    frugal(&mut world, true);
    let known = world.sent.len();
    let payload = vec![1; 1024];
    for sequence in 3..200 {
        let message = wire::write("output_stream_data", sequence, wire::OUTPUT, 1, &payload);
        world.deliver(message);
    }
    // Each takes more than its payload.
    let each = payload.len() + MESSAGE_MEMORY_BYTES;
    let kept = FRUGAL_AHEAD_BYTES / each;
    assert_eq!(world.session.memory().incoming, kept * each);
    assert_eq!(world.sent.len() - known, kept, "the others come again");
}

/// A session of which one client has not taken what another limit let in, which another client shares, and that has
/// become frugal.
fn frugal_with_a_backlog(seed: u64) -> (World, StreamId) {
    let mut world = talkative(seed);
    frugal(&mut world, false);
    let slow = world.connect(b"?");
    pauses(&mut world, slow, true);
    world.run_until("it is all here", Duration::from_secs(10), |world| {
        world.session.memory().incoming >= BYTES
    });
    frugal(&mut world, true);
    world.connect(b"?");
    (world, slow)
}

#[test]
fn a_client_that_reads_on_is_not_reset_since_its_session_became_frugal() {
    let (mut world, slow) = frugal_with_a_backlog(87);
    // 25 KB a second: it is half empty after longer than the limit.
    for _ in 0..60 {
        assert!(!world.session.wants_to_read(), "others wait for it");
        let read = world.session.read(slow, 64 << 10);
        assert!(matches!(read, Read::Bytes(_)), "{read:?}");
        world.run_for(STALL_LIMIT / 12);
        if world.session.wants_to_read() {
            break;
        }
    }
    assert!(world.session.wants_to_read(), "it has caught up");
    assert!(!world.happened(|event| matches!(event, Event::StreamStalled(_))));
}

#[test]
fn a_client_that_does_not_read_on_is_reset_though_its_session_became_frugal() {
    let (mut world, slow) = frugal_with_a_backlog(88);
    let read = world.session.read(slow, 64 << 10);
    assert!(matches!(read, Read::Bytes(_)), "{read:?}");
    world.run_for(3 * STALL_LIMIT);
    assert!(world.happened(|event| *event == Event::StreamStalled(slow)));
}

#[test]
fn acknowledged_messages_behind_a_missing_one_take_memory_and_give_it_back() {
    let mut world = World::new(PERFECT, 89, |agent| agent.acknowledges = false);
    let id = world.connect(b"");
    world.run_for(Duration::from_secs(1));
    // One message for each.
    for _ in 0..5000 {
        assert_eq!(world.session.write(id, b"x"), Some(1));
        world.run_for(Duration::ZERO);
    }
    let sent = world.sent.iter().map(|(_, sent)| wire::read(sent));
    let data: Vec<_> = sent
        .filter(|seen| seen.name == "input_stream_data")
        .collect();
    let (first, others): (Vec<_>, Vec<_>) = data.iter().partition(|seen| seen.sequence == 0);
    assert!(others.len() >= 5000);
    for seen in others {
        world.deliver(wire::write_acknowledgement(seen, 1));
    }
    let held = world.session.memory();
    assert!(held.outgoing >= 5000 * 40, "{held:?}");
    world.deliver(wire::write_acknowledgement(first[0], 1));
    assert_eq!(world.session.memory(), Memory::default());
}
