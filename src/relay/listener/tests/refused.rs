//! Sessions that AWS does not let us end, and what they stand in the way of.

use super::*;
use crate::relay::listener::TERMINATING_MAX;
use crate::relay::report::Failure;

/// What TerminateSession says where IAM does not let us end a session.
fn denied() -> Result<(), BrokerError> {
    let kind = ErrorKind::AccessDenied;
    Err(BrokerError::new(kind, "TerminateSession", "no"))
}

#[test]
fn what_an_earlier_run_recorded_and_iam_does_not_let_us_end_keeps_no_listener_down() {
    let names: Vec<_> = (0..2 * TERMINATING_MAX)
        .map(|n| format!("alice-{n}"))
        .collect();
    let inherited = Inherited {
        port: None,
        sessions: names.iter().map(|name| earlier(name)).collect(),
    };
    let mut world = World::with(options(), inherited);
    world.listener.handle_listening(PORT);
    world.record();
    assert_eq!(terminations(&world.actions()).len(), names.len());
    for (refused, name) in names.iter().enumerate() {
        let room = refused > names.len() - TERMINATING_MAX;
        assert_eq!(world.listener.awaited_claim().is_some(), room, "{refused}");
        world
            .listener
            .handle_terminated(&id(name), denied(), world.now);
    }
    world.record();
    world.expect_start();
    world.started("s-1");
    world.actions();
    world.record();
    world.established();
    assert_eq!(world.state(), State::Serving);
    assert_eq!(world.report().failure, None);
    world.advance(2 * options().backoff_min);
    let again = world.actions();
    assert_eq!(terminations(&again).len(), names.len(), "tried again");
    let live = world.report().sessions;
    assert_eq!(
        live.len(),
        1 + names.len(),
        "they stay on record as what they are"
    );
}

#[test]
fn a_claim_that_was_recorded_before_there_was_room_is_followed_by_one_that_starts() {
    let names: Vec<_> = (0..TERMINATING_MAX).map(|n| format!("alice-{n}")).collect();
    let inherited = Inherited {
        port: None,
        sessions: names.iter().map(|name| earlier(name)).collect(),
    };
    let mut world = World::with(options(), inherited);
    world.listener.handle_listening(PORT);
    world.record();
    assert_eq!(terminations(&world.actions()).len(), TERMINATING_MAX);
    let (recorded, report) = (world.listener.claim(), world.report());
    let last = names.last().expect("some");
    world
        .listener
        .handle_terminated(&id(last), denied(), world.now);
    assert_eq!(world.report(), report, "nothing else is to be recorded");
    assert!(world.listener.awaited_claim() > Some(recorded));
    world.record();
    world.expect_start();
}

#[test]
fn what_this_run_began_and_iam_does_not_let_it_end_is_not_followed_by_more_and_more() {
    let mut world = World::listening();
    for n in 0..TERMINATING_MAX {
        world.record();
        world.expect_start();
        let name = format!("s-{n}");
        world.started(&name);
        world.ended(End::Closed("closed".to_owned()));
        assert_eq!(terminations(&world.actions()), [name.as_str()]);
        world
            .listener
            .handle_terminated(&id(&name), denied(), world.now);
        // The next start comes before the next try to end it.
        while world.state() == State::Waiting {
            world.advance_to_deadline();
            for called in terminations(&world.actions()) {
                world
                    .listener
                    .handle_terminated(&id(called), denied(), world.now);
            }
        }
    }
    assert_eq!(world.listener.awaited_claim(), None);
    let failure = world.report().failure;
    assert!(
        matches!(failure, Some(Failure::Broker(error)) if error.operation == "TerminateSession")
    );
}

/// A listener that serves beside a session that an earlier run left, and that AWS refuses to end.
fn serving_beside_a_refused_one() -> World {
    let inherited = Inherited {
        port: None,
        sessions: vec![earlier("alice")],
    };
    let mut world = World::with(options(), inherited);
    world.listener.handle_listening(PORT);
    world.record();
    assert_eq!(terminations(&world.actions()), ["alice"]);
    world
        .listener
        .handle_terminated(&id("alice"), denied(), world.now);
    world.started("s-1");
    world.actions();
    world.record();
    world.established();
    world
}

#[test]
fn what_aws_refuses_to_end_holds_up_no_shutdown_since_it_stays_on_record() {
    let mut world = serving_beside_a_refused_one();
    world.listener.handle_shutdown(None, world.now);
    assert_eq!(terminations(&world.actions()), ["s-1"]);
    assert!(!world.listener.is_over(), "its own session is not over");
    world.terminated("s-1");
    assert!(world.listener.is_over());
    assert_eq!(world.end_of("alice"), None, "the next run tries on");
}

#[test]
fn nor_does_it_where_the_listener_is_being_deleted_which_is_not_said_to_have_ended() {
    let mut world = serving_beside_a_refused_one();
    world.listener.handle_stop(EndReason::Deleted, world.now);
    world.terminated("s-1");
    assert!(!world.listener.is_over());
    world
        .listener
        .handle_shutdown(Some(EndReason::Deleted), world.now);
    assert!(world.listener.is_over());
    assert_ne!(world.state(), State::Ended, "it is on record as live");
    assert_eq!(world.end_of("alice"), None, "the next run tries on");
}

#[test]
fn what_aws_refuses_to_end_is_tried_again_while_the_record_is_ours_and_then_left_to_others() {
    let mut world = serving_beside_a_refused_one();
    world.listener.handle_stop(EndReason::Deleted, world.now);
    world
        .listener
        .handle_terminated(&id("s-1"), denied(), world.now);
    world.advance(2 * options().backoff_min);
    assert_eq!(terminations(&world.actions()), ["alice", "s-1"]);
    assert!(!world.listener.is_over() && world.state() != State::Ended);
    world.listener.handle_disowned(world.now);
    assert!(world.listener.is_over());

    let mut world = serving_beside_a_refused_one();
    world.listener.handle_disowned(world.now);
    assert_eq!(terminations(&world.actions()), ["s-1"]);
    world
        .listener
        .handle_terminated(&id("s-1"), unanswered(), world.now);
    assert!(!world.listener.is_over(), "nobody has refused to end it");
    world.terminated("s-1");
    assert!(world.listener.is_over());
}
