//! A wish that changes, and sessions that AWS says are over.

use super::*;
use crate::relay::report::Failure;

#[test]
fn a_wish_that_changes_while_it_claims_is_what_is_started() {
    let mut world = World::listening();
    world.spec(spec(2, "i-2"));
    world.record();
    assert_eq!(world.expect_start().target, "i-2");
}

#[test]
fn a_wish_that_changes_while_it_starts_terminates_what_was_started() {
    let mut world = World::starting();
    world.spec(spec(2, "i-2"));
    world.started("s-1");
    assert_eq!(terminations(&world.actions()), ["s-1"]);
    assert_eq!(world.state(), State::Starting);
    world.record();
    assert_eq!(world.expect_start().target, "i-2");
    world.terminated("s-1");
    assert_eq!(
        world.end_of("s-1").map(|end| end.0),
        Some(EndReason::Replaced)
    );
}

#[test]
fn a_wish_that_changes_while_its_start_fails_is_started_at_once() {
    let mut world = World::starting();
    world.spec(spec(2, "i-2"));
    world.start_failed(failure(ErrorKind::TargetNotConnected));
    assert_eq!(
        (world.state(), world.report().failure),
        (State::Starting, None)
    );
    world.record();
    assert_eq!(world.expect_start().target, "i-2");
}

#[test]
fn a_wish_that_changes_replaces_the_session_on_the_same_port() {
    for mut world in [World::opening(), World::serving()] {
        world.spec(spec(2, "i-2"));
        let actions = world.actions();
        assert!(matches!(actions.first(), Some(Action::Close(_))));
        assert_eq!(terminations(&actions), ["s-1"]);
        let report = world.report();
        assert_eq!((report.state, report.port), (State::Starting, Some(PORT)));
        assert_eq!(report.generation, 2);
        world.record();
        assert_eq!(world.expect_start().target, "i-2");
        world.terminated("s-1");
        assert_eq!(
            world.end_of("s-1").map(|end| end.0),
            Some(EndReason::Replaced)
        );
    }
}

#[test]
fn another_identity_is_another_session() {
    let mut world = World::serving();
    let mut other = spec(2, "i-1");
    other.identity = identity("us-east-1");
    world.spec(other);
    match world.actions().as_slice() {
        [Action::Close(_), Action::Terminate(_, old)] => assert_eq!(old.region, "eu-central-1"),
        other => panic!("{other:?}"),
    }
    world.record();
    match world.actions().as_slice() {
        [Action::Start(new, _)] => assert_eq!(new.region, "us-east-1"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_wish_that_changes_ends_the_wait() {
    let mut world = World::starting();
    world.start_failed(failure(ErrorKind::AccessDenied));
    world.spec(spec(2, "i-2"));
    let report = world.report();
    assert_eq!((report.state, report.failure), (State::Starting, None));
    assert_eq!(report.retry_at, None);
    world.record();
    assert_eq!(world.expect_start().target, "i-2");
}

#[test]
fn the_same_wish_again_changes_nothing() {
    let mut world = World::serving();
    world.spec(spec(7, "i-1"));
    assert!(world.actions().is_empty());
    assert_eq!(
        (world.state(), world.report().generation),
        (State::Serving, 7)
    );
    let mut waiting = World::starting();
    waiting.start_failed(failure(ErrorKind::AccessDenied));
    let before = waiting.report();
    waiting.spec(spec(1, "i-1"));
    assert_eq!(waiting.report(), before);
}

#[test]
fn a_session_that_somebody_terminated_is_not_started_again_at_once() {
    for mut world in [World::opening(), World::serving()] {
        world.lost("s-1", EndReason::TerminatedExternally);
        let actions = world.actions();
        assert!(matches!(
            actions.as_slice(),
            [Action::Close(_), Action::Ended { own: true, .. }]
        ));
        assert_eq!(
            world.end_of("s-1").map(|end| end.0),
            Some(EndReason::TerminatedExternally)
        );
        assert!(matches!(
            world.report().failure,
            Some(Failure::SessionClosed(_))
        ));
        world.advance(options().external_end_delay - SECOND);
        assert_eq!(world.state(), State::Waiting);
        world.advance(options().external_end_delay / 4 + SECOND);
        assert_eq!(world.state(), State::Starting);
    }
}

#[test]
fn a_session_that_aws_lost_is_started_again_after_a_back_off() {
    let mut world = World::serving();
    world.lost("s-1", EndReason::ClosedByService);
    assert_eq!(world.state(), State::Waiting);
    world.advance(options().backoff_min);
    assert_eq!(world.state(), State::Starting);
    world.lost("s-1", EndReason::ClosedByService);
    assert_eq!(
        world.state(),
        State::Starting,
        "what is lost already is lost once"
    );
}

#[test]
fn an_old_session_that_aws_says_is_over_is_no_longer_terminated() {
    let mut world = World::serving();
    world.spec(spec(2, "i-2"));
    assert_eq!(terminations(&world.actions()), ["s-1"]);
    world
        .listener
        .handle_terminated(&id("s-1"), unanswered(), world.now);
    let mut spec = spec(3, "i-2");
    spec.lost.push((id("s-1"), EndReason::ClosedByService));
    world.spec(spec);
    world.advance(60 * SECOND);
    assert_eq!(terminations(&world.actions()), Vec::<&str>::new());
    assert_eq!(world.state(), State::Starting, "the present wish goes on");
    assert_eq!(
        world.end_of("s-1").map(|end| end.0),
        Some(EndReason::Replaced)
    );
}

#[test]
fn an_inherited_session_that_is_lost_is_not_terminated() {
    let inherited = Inherited {
        port: None,
        sessions: vec![earlier("old")],
    };
    let mut spec = spec(1, "i-1");
    spec.lost.push((id("old"), EndReason::ClosedByService));
    let now = World::listening().now;
    let mut listener = Listener::new(Arc::new(options()), spec, inherited, now);
    assert!(matches!(
        listener.poll_action(now),
        Some(Action::Ended { own: false, .. })
    ));
    assert!(listener.poll_action(now).is_none());
}

/// When the machine starts again after an edit, counted from now; it does at once or says when.
fn restarted(world: &mut World) -> Duration {
    let waited = waited(world);
    world.actions();
    world.record();
    world.expect_start();
    waited
}

/// How long it waits from now.
fn waited(world: &mut World) -> Duration {
    let since = world.now.monotonic;
    while world.state() == State::Waiting {
        assert!(world.report().retry_at.is_some());
        world.actions();
        world.advance_to_deadline();
    }
    world.now.monotonic - since
}

#[test]
fn who_edits_in_a_loop_starts_no_sessions_in_a_loop() {
    let (min, max) = (options().backoff_min, options().backoff_max);
    let mut world = World::serving();
    for edit in 0..20_i64 {
        world.spec(spec(2 + edit, &format!("i-{edit}")));
        let waited = restarted(&mut world);
        let whole = match u32::try_from(edit).expect("a small number") {
            0 => Duration::ZERO,
            n => (min * (1 << (n - 1).min(20))).min(max),
        };
        assert!(
            waited >= whole / 2 && waited <= whole,
            "edit {edit}: {waited:?}"
        );
        let name = format!("t-{edit}");
        world.started(&name);
        world.record();
        world.established();
        assert_eq!(world.state(), State::Serving);
        world.actions();
        for n in 0..edit {
            world.terminated(&format!("t-{n}"));
        }
        world.terminated("s-1");
        world.actions();
    }
    // One that served for a minute was a success, and the next edit is followed at once.
    world.advance(60 * SECOND);
    world.spec(spec(40, "i-40"));
    assert_eq!(restarted(&mut world), Duration::ZERO);
}

#[test]
fn an_edit_does_not_make_the_next_failure_the_first() {
    let mut world = World::starting();
    for attempt in 0..9 {
        world.start_failed(failure(ErrorKind::TargetNotConnected));
        assert_eq!(world.state(), State::Waiting, "attempt {attempt}");
        waited(&mut world);
        world.record();
        world.expect_start();
    }
    world.start_failed(failure(ErrorKind::TargetNotConnected));
    world.spec(spec(2, "i-2"));
    assert_eq!(world.state(), State::Starting, "it is followed at once");
    world.record();
    assert_eq!(world.expect_start().target, "i-2");
    world.start_failed(failure(ErrorKind::TargetNotConnected));
    let again = waited(&mut world);
    assert!(again >= options().backoff_max / 2, "{again:?}");
}

#[test]
fn edits_while_one_is_waited_with_bring_nothing_forward_and_put_nothing_off() {
    let mut world = World::serving();
    world.spec(spec(2, "i-2"));
    world.actions();
    world.record();
    world.expect_start();
    world.spec(spec(3, "i-3"));
    world.started("s-2");
    assert_eq!(terminations(&world.actions()), ["s-2"]);
    let report = world.report();
    assert_eq!(report.state, State::Waiting);
    assert_eq!(report.failure, Some(Failure::EditedAgain(None)));
    for edit in 4..100 {
        world.spec(spec(edit, &format!("i-{edit}")));
        assert_eq!(world.report().retry_at, report.retry_at);
    }
    world.advance(options().backoff_min);
    assert_eq!(world.state(), State::Starting);
    world.actions();
    world.record();
    assert_eq!(world.expect_start().target, "i-99");
}

#[test]
fn an_edit_that_waits_does_not_hide_what_had_gone_wrong_and_ends_no_session_in_words() {
    let mut world = World::starting();
    let error = failure(ErrorKind::TargetNotConnected);
    world.start_failed(error.clone());
    world.spec(spec(2, "i-2"));
    assert_eq!(world.report().failure, None, "it is followed at once");
    world.record();
    world.expect_start();
    world.start_failed(error.clone());
    let before = Some(Box::new(Failure::Broker(error.clone())));
    for edit in 3..6 {
        world.spec(spec(edit, &format!("i-{edit}")));
        let failure = world.report().failure;
        assert_eq!(failure, Some(Failure::EditedAgain(before.clone())));
    }
    let words = world.report().failure.expect("a failure").to_string();
    assert!(words.starts_with("the spec changed again"), "{words}");
    assert!(words.ends_with(&format!(": {error}")), "{words}");
    waited(&mut world);
    world.record();
    assert_eq!(world.expect_start().target, "i-5");
}
