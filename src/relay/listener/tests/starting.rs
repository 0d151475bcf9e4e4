//! From the claim to a session that serves, and every way in which that fails.

use super::*;
use crate::relay::listener::transition::AWAIT_CHANGE_MIN;
use crate::relay::report::Failure;

#[test]
fn aws_is_not_called_before_the_claim_is_on_record() {
    let mut world = World::listening();
    assert_eq!(world.listener.awaited_claim(), Some(world.listener.claim()));
    world.advance(60 * SECOND);
    assert!(world.actions().is_empty());
    world.record();
    assert_eq!(world.expect_start().target, "i-1");
}

#[test]
fn a_claim_is_a_report_that_says_starting() {
    let mut world = World::listening();
    let report = Report {
        state: State::Waiting,
        ..world.report()
    };
    let claim = world.listener.claim();
    world.listener.handle_recorded(claim, &report, world.now);
    assert!(world.actions().is_empty());
}

#[test]
fn each_start_needs_a_claim_of_its_own() {
    let mut world = World::starting();
    let (claim, report) = (world.listener.claim(), world.report());
    world.start_failed(failure(ErrorKind::Unavailable));
    world.advance_to_deadline();
    assert_eq!(world.state(), State::Starting);
    world.listener.handle_recorded(claim, &report, world.now);
    assert!(world.actions().is_empty(), "an old claim counted again");
    world.record();
    world.expect_start();
}

#[test]
fn a_claim_that_is_recorded_twice_starts_once() {
    let mut world = World::starting();
    world.record();
    assert!(world.actions().is_empty());
}

#[test]
fn nothing_is_claimed_before_it_listens() {
    let mut world = World::with(options(), Inherited::default());
    assert_eq!(world.listener.awaited_claim(), None);
    world.record();
    assert!(world.actions().is_empty());
    world.listener.handle_listening(PORT);
    assert!(world.listener.awaited_claim().is_some());
}

#[test]
fn a_session_serves_once_it_is_recorded_and_established() {
    let mut world = World::opening();
    world.established();
    assert!(world.actions().is_empty(), "served without a record");
    assert_eq!(world.state(), State::Starting);
    world.record();
    assert!(matches!(world.actions().as_slice(), [Action::Admit]));
    assert_eq!(world.state(), State::Serving);
}

#[test]
fn a_session_serves_once_it_is_established_and_recorded() {
    let mut world = World::opening();
    world.record();
    assert!(world.actions().is_empty(), "served without a handshake");
    world.established();
    assert!(matches!(world.actions().as_slice(), [Action::Admit]));
}

#[test]
fn a_report_without_the_session_does_not_record_it() {
    let mut world = World::starting();
    let (claim, before) = (world.listener.claim(), world.report());
    world.started("s-1");
    world.established();
    world.listener.handle_recorded(claim, &before, world.now);
    assert_eq!(world.state(), State::Starting);
}

#[test]
fn a_session_that_is_not_recorded_in_time_is_terminated_again() {
    let mut world = World::opening();
    world.established();
    world.advance(options().record_timeout);
    let actions = world.actions();
    assert!(matches!(actions.first(), Some(Action::Close(_))));
    assert_eq!(terminations(&actions), ["s-1"]);
    let report = world.report();
    assert_eq!(report.state, State::Waiting);
    assert!(matches!(report.failure, Some(Failure::Recording(_))));
    assert!(report.retry_at > Some(world.now.wall));
    world.terminated("s-1");
    assert_eq!(
        world.end_of("s-1").map(|end| end.0),
        Some(EndReason::StartFailed)
    );
}

#[test]
fn a_session_without_a_handshake_in_time_is_terminated_again() {
    let mut world = World::opening();
    world.record();
    world.advance(options().handshake_timeout - SECOND / 1000);
    assert!(world.actions().is_empty());
    world.advance(SECOND / 1000);
    assert_eq!(terminations(&world.actions()), ["s-1"]);
    let failure = world.report().failure.expect("a failure").to_string();
    assert_eq!(failure, "data channel: no handshake within 15s");
}

#[test]
fn a_missing_handshake_says_what_the_websocket_failed_with() {
    let mut world = World::opening();
    world.record();
    world.tunnel(&TunnelState {
        trouble: Some(Failure::DataChannel(
            "the gateway can't be connected to".to_owned(),
        )),
        ..TunnelState::default()
    });
    world.advance(options().handshake_timeout);
    let failure = world.report().failure.expect("a failure").to_string();
    assert!(
        failure.ends_with("within 15s: the gateway can't be connected to"),
        "{failure}"
    );
}

#[test]
fn a_missing_handshake_says_what_aws_refuses() {
    let refusal = Failure::from(failure(ErrorKind::AccessDenied));
    let mut world = World::opening();
    world.record();
    world.tunnel(&TunnelState {
        trouble: Some(refusal.clone()),
        ..TunnelState::default()
    });
    world.advance(options().handshake_timeout);
    assert_eq!(world.report().failure, Some(refusal));
    assert_eq!(terminations(&world.actions()), ["s-1"]);
}

#[test]
fn a_session_without_a_token_is_terminated_again() {
    let mut world = World::starting();
    let without = Ticket::new(id("s-1"), "wss://gateway.test/".to_owned(), String::new());
    world.listener.handle_started(Ok(without), world.now);
    let actions = world.actions();
    assert_eq!(terminations(&actions), ["s-1"]);
    assert!(
        !actions
            .iter()
            .any(|action| matches!(action, Action::Open(..)))
    );
    assert!(matches!(
        world.report().failure,
        Some(Failure::DataChannel(_))
    ));
}

#[test]
fn a_session_of_another_kind_is_terminated_and_seldom_tried_again() {
    let mut world = World::opening();
    world.record();
    let why = "not a port session".to_owned();
    world.tunnel(&TunnelState {
        end: Some(End::Unsupported(why.clone())),
        ..TunnelState::default()
    });
    assert_eq!(terminations(&world.actions()), ["s-1"]);
    assert_eq!(
        world.report().failure,
        Some(Failure::Unsupported(why.clone()))
    );
    assert!(
        world.advance_to_deadline() <= options().hold,
        "readiness comes first"
    );
    assert!(world.advance_to_deadline() >= AWAIT_CHANGE_MIN - options().hold);
    world.terminated("s-1");
    assert_eq!(world.end_of("s-1"), Some((EndReason::StartFailed, why)));
}

/// How long a listener waits after its first start has failed.
fn delay_after(error: BrokerError) -> Duration {
    let mut world = World::starting();
    let wall = world.now.wall;
    world.start_failed(error.clone());
    assert_eq!(world.report().failure, Some(Failure::Broker(error)));
    let retry_at = world.report().retry_at.expect("a time");
    while world.state() == State::Waiting {
        world.advance_to_deadline();
    }
    assert_eq!(world.now.wall, retry_at, "it says when it tries again");
    assert_eq!(world.report().retry_at, None);
    world.now.wall.duration_since(wall).unsigned_abs()
}

#[test]
fn what_needs_a_change_is_tried_again_seldom() {
    for kind in [
        ErrorKind::AccessDenied,
        ErrorKind::InvalidDocument,
        ErrorKind::InvalidRequest,
    ] {
        let delay = delay_after(failure(kind));
        assert!(delay >= AWAIT_CHANGE_MIN, "{kind:?}: {delay:?}");
    }
}

#[test]
fn what_may_pass_is_tried_again_soon() {
    for kind in [
        ErrorKind::Unavailable,
        ErrorKind::Throttled,
        ErrorKind::TargetNotConnected,
        ErrorKind::CredentialsUnavailable,
    ] {
        let (delay, min) = (delay_after(failure(kind)), options().backoff_min);
        assert!(delay >= min / 2 && delay <= min, "{kind:?}: {delay:?}");
    }
}

#[test]
fn the_service_may_ask_for_a_longer_delay() {
    let error = BrokerError {
        retry_after: Some(90 * SECOND),
        ..failure(ErrorKind::Throttled)
    };
    let delay = delay_after(error);
    assert!(delay >= 90 * SECOND && delay <= 113 * SECOND, "{delay:?}");
}

#[test]
fn failures_in_a_row_are_tried_again_ever_more_rarely() {
    let mut world = World::starting();
    for attempt in 0..20 {
        world.start_failed(failure(ErrorKind::Unavailable));
        let before = world.now.monotonic;
        while world.state() == State::Waiting {
            world.advance_to_deadline();
        }
        let whole = (options().backoff_min * (1 << attempt)).min(options().backoff_max);
        let delay = world.now.monotonic - before;
        assert!(
            delay >= whole / 2 && delay <= whole,
            "attempt {attempt}: {delay:?}"
        );
        world.record();
        world.expect_start();
    }
}

#[test]
fn a_listener_without_a_port_tries_again_and_says_so() {
    let mut world = World::with(options(), Inherited::default());
    let none = Failure::NoPort("all taken".to_owned());
    let first = world.listener.handle_no_port(none.clone(), world.now);
    assert!(first <= options().backoff_min);
    assert_eq!(world.report().failure, Some(none.clone()));
    assert!(world.report().retry_at.is_some());
    world.spec(spec(2, "i-2"));
    assert_eq!(
        world.report().failure,
        Some(none.clone()),
        "a wish brings no port"
    );
    assert!(world.listener.handle_no_port(none, world.now) >= options().backoff_min / 2);
    world.listener.handle_listening(PORT);
    assert_eq!(
        (world.report().failure, world.report().retry_at),
        (None, None)
    );
    world.record();
    assert_eq!(world.expect_start().target, "i-2");
}
