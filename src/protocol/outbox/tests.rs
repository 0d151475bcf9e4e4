//! Nothing that is unacknowledged is lost, and little is sent twice.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Push(usize),
    Transmit(usize),
    Acknowledge(i64),
    Wait(u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (120..1200_usize).prop_map(Step::Push),
        4 => (0..8_usize).prop_map(Step::Transmit),
        6 => (-2..80_i64).prop_map(Step::Acknowledge),
        3 => (0..5000_u64).prop_map(Step::Wait),
        1 => Just(Step::Reopen),
    ]
}

/// A message that says its own number.
fn frame(sequence: i64, bytes: usize) -> Bytes {
    let mut frame = sequence.to_be_bytes().to_vec();
    frame.resize(bytes, 0);
    frame.into()
}

fn number(frame: &Bytes) -> i64 {
    i64::from_be_bytes(frame[..8].try_into().expect("eight bytes"))
}

fn transmit(outbox: &mut Outbox, now: Instant) -> Vec<i64> {
    std::iter::from_fn(|| outbox.poll_transmit(now))
        .map(|frame| number(&frame))
        .collect()
}

/// An outbox with `count` messages that were all sent at `now`.
fn sent(count: i64, now: Instant) -> Outbox {
    let mut outbox = Outbox::new(1 << 20);
    for sequence in 0..count {
        outbox.push(frame(sequence, 1144));
    }
    assert_eq!(transmit(&mut outbox, now), (0..count).collect::<Vec<_>>());
    outbox
}

/// Lets the next time-out pass; what is sent then, and after how long.
fn time_out(outbox: &mut Outbox, now: &mut Instant) -> (Vec<i64>, Duration) {
    let deadline = outbox.poll_timeout().expect("something is unacknowledged");
    let pause = deadline.saturating_duration_since(*now);
    *now += pause;
    outbox.handle_timeout(*now);
    (transmit(outbox, *now), pause)
}

proptest! {
    #[test]
    fn what_is_not_acknowledged_is_kept_counted_and_sent_again(steps in vec(step(), 0..200)) {
        let mut now = Instant::now();
        let mut outbox = Outbox::new(usize::MAX);
        let (mut unacked, mut sent) = (BTreeMap::new(), BTreeSet::new());
        for step in steps {
            match step {
                Step::Push(bytes) => {
                    let sequence = outbox.next_sequence();
                    outbox.push(frame(sequence, bytes));
                    unacked.insert(sequence, bytes);
                }
                Step::Transmit(count) => {
                    for _ in 0..count {
                        let Some(frame) = outbox.poll_transmit(now) else { break };
                        let sequence = number(&frame);
                        prop_assert_eq!(unacked.get(&sequence), Some(&frame.len()));
                        sent.insert(sequence);
                    }
                }
                Step::Acknowledge(sequence) => {
                    outbox.handle_acknowledge(sequence, now);
                    // What was never sent can't have arrived.
                    if sent.contains(&sequence) {
                        unacked.remove(&sequence);
                    }
                }
                Step::Wait(ms) => {
                    now += Duration::from_millis(ms);
                    outbox.handle_timeout(now);
                }
                Step::Reopen => outbox.handle_transport_opened(),
            }
            prop_assert_eq!(outbox.bytes, unacked.values().sum::<usize>());
            prop_assert_eq!(outbox.is_empty(), unacked.is_empty());
        }
        outbox.handle_transport_opened();
        let again = transmit(&mut outbox, now);
        prop_assert_eq!(again, unacked.keys().copied().collect::<Vec<_>>());
    }
}

#[test]
fn a_silent_peer_is_probed_with_the_oldest_message_ever_more_rarely() {
    let mut now = Instant::now();
    let mut outbox = sent(10, now);
    let mut pauses = Vec::new();
    for _ in 0..40 {
        let (again, pause) = time_out(&mut outbox, &mut now);
        assert_eq!(again, [0]);
        pauses.push(pause);
    }
    assert_eq!(pauses.first(), Some(&INITIAL_RTO));
    assert_eq!(pauses.last(), Some(&PROBE_INTERVAL_MAX));
    assert!(pauses.is_sorted(), "{pauses:?}");
}

#[test]
fn messages_that_later_ones_overtook_are_sent_again_and_no_others() {
    let mut now = Instant::now();
    let mut outbox = sent(10, now);
    now += Duration::from_millis(50);
    for sequence in [1, 3, 4, 6] {
        outbox.handle_acknowledge(sequence, now);
    }
    assert_eq!(time_out(&mut outbox, &mut now).0, [0, 2, 5]);
}

#[test]
fn a_slow_destination_is_not_sent_everything_twice() {
    // One acknowledgement each 100 ms, so that the last message waits for 20 s.
    let mut now = Instant::now();
    let mut outbox = sent(200, now);
    let mut again = 0;
    for sequence in 0..200 {
        now += Duration::from_millis(100);
        outbox.handle_timeout(now);
        again += transmit(&mut outbox, now).len();
        outbox.handle_acknowledge(sequence, now);
    }
    assert!(outbox.is_empty());
    assert!(again <= 2, "{again} of 200 were sent twice");
}

#[test]
fn an_agent_that_is_far_away_is_measured_and_not_sent_everything_twice() {
    for round_trip in [220, 300, 600, 900].map(Duration::from_millis) {
        let mut now = Instant::now();
        let mut outbox = Outbox::new(1 << 20);
        let (mut transmissions, mut measured) = (0, 0);
        for sequence in 0..40 {
            outbox.push(frame(sequence, 129));
            let answered = now + round_trip;
            transmissions += transmit(&mut outbox, now).len();
            while let Some(deadline) = outbox.poll_timeout().filter(|at| *at < answered) {
                outbox.handle_timeout(deadline);
                transmissions += transmit(&mut outbox, deadline).len();
            }
            now = answered;
            let took = outbox.handle_acknowledge(sequence, now);
            assert!(took.is_none_or(|took| took == round_trip));
            measured += usize::from(took.is_some());
        }
        assert!(measured >= 35, "{round_trip:?}: {measured} of 40 measured");
        assert!(
            transmissions <= 50,
            "{round_trip:?}: {transmissions} for 40"
        );
    }
}

#[test]
fn only_what_was_sent_once_measures_a_round_trip_and_only_once() {
    let mut now = Instant::now();
    let mut outbox = sent(3, now);
    let rest = Duration::from_millis(50);
    now += rest;
    assert_eq!(outbox.handle_acknowledge(1, now), Some(rest));
    assert_eq!(outbox.handle_acknowledge(1, now), None, "it is known");
    assert_eq!(time_out(&mut outbox, &mut now).0, [0]);
    assert_eq!(outbox.handle_acknowledge(0, now), None, "it was sent twice");
    assert_eq!(outbox.handle_acknowledge(3, now), None, "it was never sent");
    outbox.handle_transport_opened();
    assert_eq!(outbox.handle_acknowledge(2, now), None, "it is sent again");
}

#[test]
fn a_late_acknowledgement_counts_while_its_message_waits_to_be_sent_again() {
    let mut now = Instant::now();
    let mut outbox = sent(1, now);
    now += INITIAL_RTO;
    outbox.handle_timeout(now);
    outbox.handle_acknowledge(0, now);
    assert!(outbox.is_empty());
    assert_eq!(outbox.poll_transmit(now), None);
}

#[test]
fn a_head_that_is_never_acknowledged_does_not_make_room_without_end() {
    let now = Instant::now();
    let mut outbox = Outbox::new(1 << 20);
    while outbox.has_room() {
        let sequence = outbox.next_sequence();
        outbox.push(frame(sequence, 129));
        assert!(outbox.poll_transmit(now).is_some());
        if sequence > 0 {
            outbox.handle_acknowledge(sequence, now);
        }
        assert!(outbox.unacked.len() <= 100_000);
    }
    assert_eq!(outbox.bytes, 129);
}
