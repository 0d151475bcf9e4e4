//! What is no message, or not what it claims to be, ends the session and nothing else.

use std::time::Duration;

use ssm_session_operator::protocol::{End, Event};

use crate::agent::Destination;
use crate::wire;
use crate::world::{PERFECT, World};

fn ended(world: &World) -> Vec<&End> {
    let ends = world.events.iter().filter_map(|(_, event)| match event {
        Event::Ended(end) => Some(end),
        _ => None,
    });
    ends.collect()
}

/// A world whose client gets 20,000 bytes of sevens, and is in the midst of it.
fn answering(seed: u64) -> (World, u32) {
    let mut world = World::new(PERFECT, seed, |agent| {
        agent.destination = Box::new(|_| Destination::Answers {
            answer: vec![7; 20_000],
            closes_after: 3,
        });
    });
    let id = world.connect(b"now");
    world.run_until("the first bytes", Duration::from_secs(5), |world| {
        !world.clients[&id].heard.is_empty()
    });
    (world, id)
}

#[test]
fn what_is_no_message_is_a_violation_and_nothing_of_it_is_believed() {
    let mut rng = fastrand::Rng::with_seed(60);
    for seed in 0..100 {
        let (mut world, id) = answering(seed);
        let sequence = rng.i64(0..40);
        let mut broken = wire::write("output_stream_data", sequence, 1, 1, b"\x02garbage");
        match rng.u8(0..5) {
            0 => broken = (0..rng.usize(0..400)).map(|_| rng.u8(..)).collect(),
            1 => broken.truncate(rng.usize(0..broken.len())),
            2 => broken[rng.usize(0..4)] ^= 1 << rng.u32(0..8),
            3 => broken[rng.usize(80..112)] ^= 1 << rng.u32(0..8),
            _ => broken[rng.usize(116..120)] ^= 1 << rng.u32(0..8),
        }
        world.deliver(broken.clone());
        assert!(
            matches!(ended(&world)[..], [End::Violation(_)]),
            "{broken:?}: {:?}",
            ended(&world)
        );
        world.run_for(Duration::from_secs(1));
        assert!(world.clients[&id].heard.iter().all(|byte| *byte == 7));
    }
}

#[test]
fn well_formed_messages_of_any_content_neither_panic_nor_pass_for_an_answer() {
    const NAMES: [&str; 6] = [
        "output_stream_data",
        "input_stream_data",
        "acknowledge",
        "start_publication",
        "agent_task_complete",
        "a_type_that_nobody_knows",
    ];
    let mut rng = fastrand::Rng::with_seed(61);
    for seed in 0..100 {
        let (mut world, id) = answering(seed);
        for _ in 0..20 {
            let name = NAMES[rng.usize(0..NAMES.len())];
            // Far ahead, behind, or absurd, and never the number that is expected next.
            let sequence = [-1, 0, i64::MIN, i64::MAX, 1 << 40][rng.usize(0..5)];
            let payload: Vec<u8> = (0..rng.usize(1..200)).map(|_| rng.u8(..)).collect();
            world.deliver(wire::write(name, sequence, rng.u32(0..14), 1, &payload));
        }
        assert!(world.clients[&id].heard.iter().all(|byte| *byte == 7));
    }
}

#[test]
fn an_acknowledgement_that_can_not_be_read_is_a_violation() {
    for payload in [&b"not JSON"[..], b"{}", b"[]", b"\xff"] {
        let (mut world, _) = answering(62);
        world.deliver(wire::write("acknowledge", 0, 0, 9, payload));
        assert!(
            matches!(ended(&world)[..], [End::Violation(why)] if why.starts_with("acknowledgement: ")),
            "{:?}",
            ended(&world)
        );
    }
}

#[test]
fn a_message_of_a_type_that_nobody_knows_is_passed_over() {
    let (mut world, id) = answering(63);
    world.deliver(wire::write("news_of_tomorrow", 0, 0, 9, b"?"));
    world.run_for(Duration::from_secs(5));
    assert!(ended(&world).is_empty(), "{:?}", ended(&world));
    assert_eq!(world.clients[&id].heard, vec![7; 20_000]);
}

#[test]
fn a_broken_multiplexer_is_a_violation_and_nothing_of_it_is_believed() {
    for broken in [
        *b"\x02\x02\x01\x00\x03\x00\x00\x00",
        *b"\x01\x07\x00\x00\x03\x00\x00\x00",
    ] {
        let mut world = World::new(PERFECT, 58, |_| {});
        let id = world.connect(b"?");
        world.run_for(Duration::from_secs(1));
        world.agent.send(wire::OUTPUT, &broken);
        world.agent.say(wire::PSH, id, b"out of step");
        world.run_for(Duration::from_secs(1));
        assert!(
            matches!(ended(&world)[..], [End::Violation(_)]),
            "{:?}",
            world.events
        );
        assert!(world.clients[&id].heard.is_empty());
    }
}
