//! Sessions that end, listeners that are stopped, and what is terminated until AWS has answered.

use super::*;
use crate::broker::RequestId;
use crate::relay::listener::TERMINATING_MAX;
use crate::relay::report::Failure;

#[test]
fn a_session_that_the_service_closes_is_followed_by_another() {
    let mut world = World::serving();
    world.ended(End::Closed("Session idle for too long".to_owned()));
    let actions = world.actions();
    assert!(matches!(actions.first(), Some(Action::Close(_))));
    assert_eq!(terminations(&actions), ["s-1"]);
    let failure = world.report().failure.expect("a failure").to_string();
    assert_eq!(failure, "the session ended: Session idle for too long");
    assert_eq!(world.state(), State::Waiting);
    world.terminated("s-1");
    let end = (
        EndReason::ClosedByService,
        "Session idle for too long".to_owned(),
    );
    assert_eq!(world.end_of("s-1"), Some(end));
    assert!(matches!(
        world.actions().as_slice(),
        [Action::Ended { own: true, .. }]
    ));
    world.advance(options().backoff_min);
    world.record();
    world.expect_start();
    world.started("s-2");
    world.record();
    world.established();
    assert_eq!(
        (world.state(), world.report().failure),
        (State::Serving, None)
    );
}

#[test]
fn a_session_that_served_well_is_followed_with_the_shortest_delay() {
    let mut world = World::serving();
    for round in 2..10 {
        world.advance(120 * SECOND);
        world.ended(End::Closed(String::new()));
        world.actions();
        world.advance(options().backoff_min);
        assert_eq!(world.state(), State::Starting, "round {round}");
        world.record();
        world.actions();
        world.started(&format!("s-{round}"));
        world.record();
        world.established();
        world.terminated(&format!("s-{}", round - 1));
    }
}

#[test]
fn sessions_that_end_at_once_are_followed_ever_more_rarely() {
    let mut world = World::serving();
    for round in 2..8 {
        world.ended(End::Closed(String::new()));
        world.terminated(&format!("s-{}", round - 1));
        world.actions();
        let whole = options().backoff_min * (1 << (round - 2));
        world.advance(whole / 2 - SECOND / 1000);
        assert_eq!(world.state(), State::Waiting, "round {round}");
        world.advance(whole / 2 + SECOND / 1000);
        world.record();
        world.actions();
        world.started(&format!("s-{round}"));
        world.record();
        world.established();
    }
}

#[test]
fn a_broken_protocol_ends_the_session() {
    let mut world = World::serving();
    world.ended(End::Violation("a frame of version 9".to_owned()));
    assert_eq!(terminations(&world.actions()), ["s-1"]);
    assert!(matches!(
        world.report().failure,
        Some(Failure::DataChannel(_))
    ));
}

#[test]
fn a_tunnel_that_was_closed_has_no_say() {
    let mut world = World::serving();
    world.spec(spec(2, "i-2"));
    world.record();
    world.actions();
    world.ended(End::Closed("too late".to_owned()));
    assert_eq!(
        (world.state(), world.report().failure),
        (State::Starting, None)
    );
    world.started("s-2");
    assert_eq!(
        world.report().sessions.len(),
        2,
        "the start was lost sight of"
    );
}

#[test]
fn stop_ends_whatever_goes_on() {
    for mut world in [World::listening(), World::opening(), World::serving()] {
        let live = world.report().sessions.len();
        world.listener.handle_stop(EndReason::Deleted, world.now);
        let actions = world.actions();
        assert_eq!(terminations(&actions).len(), live);
        assert_eq!((world.report().port, world.report().ready), (None, false));
        if live > 0 {
            assert!(matches!(actions.first(), Some(Action::Close(_))));
            assert_ne!(world.state(), State::Ended, "AWS has not answered");
            assert!(!world.listener.is_over());
            world.terminated("s-1");
            assert_eq!(
                world.end_of("s-1").map(|end| end.0),
                Some(EndReason::Deleted)
            );
        }
        assert_eq!(world.state(), State::Ended);
        assert!(world.listener.is_over());
        world.record();
        world.advance(600 * SECOND);
        let left = world.actions();
        assert!(
            !left
                .iter()
                .any(|action| matches!(action, Action::Start(..) | Action::Open(..)))
        );
    }
}

#[test]
fn stop_while_it_waits_ends_it_at_once() {
    let mut world = World::starting();
    world.start_failed(failure(ErrorKind::Unavailable));
    world.listener.handle_stop(EndReason::Deleted, world.now);
    assert_eq!(
        (world.state(), world.report().retry_at),
        (State::Ended, None)
    );
    assert_eq!(world.listener.poll_timeout(), None);
}

#[test]
fn stop_waits_for_a_start_that_is_on_its_way_and_terminates_its_session() {
    let mut world = World::starting();
    world.listener.handle_stop(EndReason::Deleted, world.now);
    assert!(!world.listener.is_over());
    assert_ne!(world.state(), State::Ended);
    world.started("s-1");
    assert_eq!(terminations(&world.actions()), ["s-1"]);
    assert!(!world.listener.is_over());
    world.terminated("s-1");
    assert_eq!(
        world.end_of("s-1").map(|end| end.0),
        Some(EndReason::Deleted)
    );
    assert_eq!(world.state(), State::Ended);
}

#[test]
fn stop_is_done_when_the_start_that_was_on_its_way_failed() {
    let mut world = World::starting();
    world.listener.handle_stop(EndReason::Deleted, world.now);
    world.start_failed(failure(ErrorKind::Unavailable));
    assert_eq!(world.state(), State::Ended);
    assert!(world.listener.is_over());
}

#[test]
fn a_stopped_listener_stays_stopped() {
    let mut world = World::serving();
    world.listener.handle_stop(EndReason::Deleted, world.now);
    world.spec(spec(2, "i-2"));
    world.listener.handle_shutdown(None, world.now);
    world.terminated("s-1");
    assert_eq!(world.state(), State::Ended);
    assert_eq!(
        world.end_of("s-1").map(|end| end.0),
        Some(EndReason::Deleted)
    );
}

#[test]
fn shutdown_keeps_the_port_for_the_next_run_and_is_not_the_end() {
    let mut world = World::serving();
    world.listener.handle_shutdown(None, world.now);
    assert_eq!(terminations(&world.actions()), ["s-1"]);
    world.terminated("s-1");
    let report = world.report();
    assert_eq!((report.port, report.ready), (Some(PORT), false));
    assert_eq!(report.state, State::Waiting);
    assert_eq!(
        world.end_of("s-1").map(|end| end.0),
        Some(EndReason::RelayLost)
    );
    assert!(world.listener.is_over());
}

#[test]
fn sessions_of_an_earlier_run_are_terminated_with_the_identity_that_started_them() {
    let inherited = Inherited {
        port: Some(PORT),
        sessions: vec![earlier("old")],
    };
    let mut world = World::with(options(), inherited);
    world.listener.handle_listening(PORT);
    assert!(
        world.actions().is_empty(),
        "it may be another relay's, and serving"
    );
    world.record();
    match world.actions().as_slice() {
        [Action::Start(..), Action::Terminate(old, with)] => {
            assert_eq!((old.as_str(), with.region.as_str()), ("old", "eu-west-1"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.end_of("old"), None, "AWS has not answered");
    world.terminated("old");
    assert_eq!(
        world.end_of("old").map(|end| end.0),
        Some(EndReason::RelayLost)
    );
    assert!(matches!(
        world.actions().as_slice(),
        [Action::Ended { own: false, .. }]
    ));
}

#[test]
fn sessions_of_a_listener_that_turns_out_to_be_another_relays_are_left_alone() {
    let inherited = Inherited {
        port: Some(PORT),
        sessions: vec![earlier("old")],
    };
    let mut world = World::with(options(), inherited);
    world.listener.handle_listening(PORT);
    world.listener.handle_disowned(world.now);
    assert!(world.actions().is_empty());
    assert!(world.listener.is_over(), "nothing is waited for");
}

#[test]
fn what_was_started_before_the_listener_was_lost_is_terminated() {
    let mut world = World::serving();
    world.listener.handle_disowned(world.now);
    assert_eq!(terminations(&world.actions()), ["s-1"]);
    assert!(!world.listener.is_over());
    world.terminated("s-1");
    assert!(world.listener.is_over());
}

#[test]
fn terminate_session_is_called_until_it_is_answered() {
    let mut world = World::serving();
    world.listener.handle_stop(EndReason::Deleted, world.now);
    assert_eq!(terminations(&world.actions()), ["s-1"]);
    assert!(world.actions().is_empty(), "one call at a time");
    for attempt in 0..20 {
        world
            .listener
            .handle_terminated(&id("s-1"), unanswered(), world.now);
        assert!(world.actions().is_empty(), "no call before its delay");
        assert_eq!(world.end_of("s-1"), None);
        let delay = world.advance_to_deadline();
        let whole = (options().backoff_min * (1 << attempt)).min(options().backoff_max);
        assert!(
            delay >= whole / 2 && delay <= whole,
            "attempt {attempt}: {delay:?}"
        );
        assert_eq!(terminations(&world.actions()), ["s-1"]);
    }
    world.terminated("s-1");
    assert_eq!(world.state(), State::Ended);
}

#[test]
fn nothing_new_is_started_while_too_many_old_sessions_wait_for_their_end() {
    let sessions = (0..TERMINATING_MAX).map(|n| earlier(&format!("old-{n}")));
    let inherited = Inherited {
        port: None,
        sessions: sessions.collect(),
    };
    let mut world = World::with(options(), inherited);
    world.listener.handle_listening(PORT);
    assert_eq!(world.listener.awaited_claim(), None);
    world.record();
    let actions = world.actions();
    assert_eq!(terminations(&actions).len(), TERMINATING_MAX);
    assert_eq!(actions.len(), TERMINATING_MAX, "{actions:?}");

    // The same failure for another request is no news.
    let reports = ["id-one", "id-two"].map(|request| {
        let failure = BrokerError {
            request_id: RequestId::new(Some(request)),
            ..failure(ErrorKind::Throttled)
        };
        let listener = &mut world.listener;
        listener.handle_terminated(&id("old-1"), Err(failure), world.now);
        world.report()
    });
    assert!(reports[0].failure.is_some());
    assert_eq!(reports[0], reports[1]);

    world.terminated("old-0");
    world.actions();
    assert!(world.listener.awaited_claim().is_some());
    world.record();
    world.expect_start();
}

#[test]
fn a_session_that_had_served_breaks_and_one_that_had_not_never_started() {
    for (mut world, reason) in [
        (World::serving(), EndReason::Broken),
        (World::opening(), EndReason::StartFailed),
    ] {
        world.ended(End::Violation("a frame of version 9".to_owned()));
        world.actions();
        world.terminated("s-1");
        let end = world.end_of("s-1");
        assert_eq!(end, Some((reason, "a frame of version 9".to_owned())));
    }
}

#[test]
fn an_agent_that_falls_silent_is_not_taken_for_a_session_that_the_service_closed() {
    let why = "the agent has answered nothing".to_owned();
    for (end, reason) in [
        (End::Unanswered(why.clone()), EndReason::Unanswered),
        (End::Closed(why.clone()), EndReason::ClosedByService),
    ] {
        let mut world = World::serving();
        world.ended(end);
        assert_eq!(terminations(&world.actions()), ["s-1"]);
        world.terminated("s-1");
        assert_eq!(world.end_of("s-1"), Some((reason, why.clone())));
        assert!(world.report().retry_at.is_some(), "a new one is started");
    }
}

#[test]
fn while_the_websocket_is_away_no_more_clients_are_let_in_and_then_that_is_said() {
    let mut world = World::serving();
    let lost = TunnelState {
        trouble: Some(Failure::DataChannel("credentials were revoked".to_owned())),
        ..established()
    };
    world.tunnel(&lost);
    assert!(matches!(world.actions().as_slice(), [Action::Hold]));
    assert!(world.report().ready, "clients are held for so long");
    world.advance(options().hold);
    let report = world.report();
    assert_eq!((report.ready, report.state), (false, State::Serving));
    let why = Failure::DataChannel("credentials were revoked".to_owned());
    assert_eq!(report.failure, Some(why));

    world.established();
    assert!(matches!(world.actions().as_slice(), [Action::Admit]));
    assert!(world.report().ready);
    assert_eq!(world.report().failure, None);
}

#[test]
fn a_websocket_that_is_resumed_in_time_changes_no_report() {
    let mut world = World::serving();
    let before = world.report();
    for _ in 0..10 {
        world.tunnel(&TunnelState {
            trouble: Some(Failure::DataChannel(
                "the service closed the websocket".to_owned(),
            )),
            ..established()
        });
        world.advance(options().hold / 2);
        assert_eq!(world.report(), before);
        world.established();
        world.advance(options().hold);
        assert_eq!(world.report(), before);
    }
}
