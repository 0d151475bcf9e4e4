//! What the machine says of itself.

use super::*;
use crate::relay::report::SessionEnd;

#[test]
fn the_same_state_gives_an_equal_report() {
    for mut world in [
        World::listening(),
        World::starting(),
        World::opening(),
        World::serving(),
    ] {
        let before = world.report();
        world.advance(SECOND);
        world.record();
        assert_eq!(world.report(), Report { ..before });
    }
}

#[test]
fn a_listener_is_ready_from_the_moment_it_listens() {
    let mut world = World::with(options(), Inherited::default());
    assert!(!world.report().ready);
    world.listener.handle_listening(PORT);
    assert!(world.report().ready);
    assert_eq!(world.report().port, Some(PORT));
}

#[test]
fn a_listener_that_fails_to_start_is_ready_for_the_hold_and_no_longer() {
    let mut world = World::listening();
    world.advance(options().hold - SECOND);
    assert!(world.report().ready);
    world.advance(SECOND);
    assert!(!world.report().ready);
    world.record();
    world.expect_start();
    world.started("s-1");
    world.record();
    assert!(!world.report().ready);
    world.established();
    assert!(world.report().ready, "a session that serves makes it ready");
}

#[test]
fn a_session_that_ends_and_is_followed_within_the_hold_changes_nothing_for_clients() {
    let mut world = World::serving();
    world.advance(600 * SECOND);
    world.ended(End::Closed(String::new()));
    assert!(world.report().ready);
    world.advance(options().backoff_min);
    world.record();
    world.started("s-2");
    world.record();
    world.established();
    assert_eq!(world.state(), State::Serving);
    world.advance(options().hold);
    assert!(world.report().ready);
}

#[test]
fn a_session_that_ends_and_is_not_followed_makes_it_unready_after_the_hold() {
    let mut world = World::serving();
    world.lost("s-1", EndReason::TerminatedExternally);
    assert!(world.report().ready);
    world.advance(options().hold);
    assert!(!world.report().ready);
}

#[test]
fn live_sessions_come_first_and_five_that_ended_are_kept() {
    let mut world = World::serving();
    for round in 2..10 {
        world.spec(spec(round, &format!("i-{round}")));
        world.record();
        world.actions();
        world.started(&format!("s-{round}"));
        world.record();
        world.established();
        world.advance(60 * SECOND);
        world.terminated(&format!("s-{}", round - 1));
    }
    let sessions = world.report().sessions;
    let names: Vec<_> = sessions.iter().map(|s| s.session_id.as_str()).collect();
    assert_eq!(names, ["s-9", "s-8", "s-7", "s-6", "s-5", "s-4"]);
    assert!(sessions.iter().skip(1).all(|session| session.end.is_some()));
}

#[test]
fn of_what_is_inherited_five_that_ended_are_kept() {
    let ended = |n| SessionRecord {
        end: Some(SessionEnd {
            at: Timestamp::UNIX_EPOCH,
            reason: EndReason::Replaced,
            message: String::new(),
        }),
        ..earlier(&format!("old-{n}"))
    };
    let inherited = Inherited {
        port: None,
        sessions: (0..9).map(ended).collect(),
    };
    let sessions = World::with(options(), inherited).report().sessions;
    let names: Vec<_> = sessions.iter().map(|s| s.session_id.as_str()).collect();
    assert_eq!(names, ["old-0", "old-1", "old-2", "old-3", "old-4"]);
}

#[test]
fn a_session_says_who_started_it_and_when() {
    let world = World::opening();
    let session = world.report().sessions.remove(0);
    let SessionRecord {
        session_id,
        identity: with,
        relay,
        incarnation,
        started_at,
        end,
    } = session;
    assert_eq!((session_id, with), (id("s-1"), identity("eu-central-1")));
    assert_eq!((relay.as_str(), incarnation.as_str()), ("relay-1", "run-2"));
    assert_eq!((started_at, end), (world.now.wall, None));
}

#[test]
fn the_last_dial_is_told_until_the_wish_changes() {
    let mut world = World::serving();
    assert_eq!(world.report().destination, None);
    world.tunnel(&destination(Destination::Refused));
    assert_eq!(world.report().destination, Some(Destination::Refused));
    world.tunnel(&destination(Destination::Dialled));
    assert_eq!(world.report().destination, Some(Destination::Refused));
    world.advance_to_deadline();
    assert_eq!(world.report().destination, Some(Destination::Dialled));
    world.ended(End::Closed(String::new()));
    assert_eq!(world.report().destination, Some(Destination::Dialled));
    world.spec(spec(2, "i-2"));
    assert_eq!(world.report().destination, None);
}

#[test]
fn a_destination_that_comes_and_goes_is_not_told_with_each_dial() {
    let mut world = World::serving();
    let mut changes = 0;
    let mut last = world.report().destination;
    for dial in 0..600 {
        let outcome = if dial % 2 == 0 {
            Destination::Dialled
        } else {
            Destination::Refused
        };
        world.tunnel(&destination(outcome));
        if dial == 0 {
            assert_eq!(
                world.report().destination,
                Some(outcome),
                "the first at once"
            );
        }
        world.advance(SECOND / 10);
        changes += usize::from(world.report().destination != last);
        last = world.report().destination;
    }
    assert!((2..=7).contains(&changes), "{changes} in a minute");
    world.advance(10 * SECOND);
    assert_eq!(world.report().destination, Some(Destination::Refused));
    assert_eq!(world.listener.poll_timeout(), None);
}
