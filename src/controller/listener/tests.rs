//! What is promised of listeners: whom they are bound to, what they are told, and when they may go.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::LazyLock;

use super::decide::{Orphaned, Plan, Step};
use super::observe::{Observed, SessionFound};
use super::*;
use crate::broker::{Marker, SessionId};
use crate::controller::drain::Drain;
use crate::controller::fixtures::{self, ListenerBuilder, at, described, listener, relays};
use crate::controller::poll::Snapshot;
use crate::controller::relays::{Liveness, RelaysView};
use crate::crd::listener::{EndReason, ListenerState, LostSession};
use crate::identity::identity_of;

pub(super) const SETTINGS: Settings = Settings {
    terminate_after: Duration::from_mins(1),
    sweep_after: Duration::from_mins(2),
    unbound_interval: Duration::from_secs(10),
};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// So many seconds after this controller saw the deletion, if there is one.
pub(super) fn after(seconds: u64) -> Instant {
    *START + Duration::from_secs(seconds)
}

pub(super) fn id(id: &str) -> SessionId {
    SessionId::parse(id).expect("an id")
}

/// The marker of the listeners of these tests.
pub(super) fn marker() -> Marker {
    Marker::new("namespace-uid", "uid-of-sql")
}

pub(super) fn observed(listener: ListenerBuilder, relays: RelaysView) -> Observed {
    let listener = listener.arc();
    let is_deleting = listener.metadata.deletion_timestamp.is_some();
    Observed {
        listener,
        is_watched: true,
        drain: Drain::No,
        session: SessionFound::There,
        deleting_since: is_deleting.then(|| after(0)),
        relays,
        load: BTreeMap::new(),
        siblings: BTreeSet::new(),
        marker: marker(),
        snapshots: HashMap::new(),
        terminated: HashSet::new(),
    }
}

/// History says that the session is over.
fn history(mut observed: Observed, session: &str) -> Observed {
    let mut snapshot = Snapshot {
        round: 7,
        ..Snapshot::default()
    };
    snapshot
        .ended
        .insert(id(session), described(session, "Terminated").build());
    observed
        .snapshots
        .insert(identity_of(&fixtures::aws()), Arc::new(snapshot));
    observed
}

/// Nothing to do but to look for a relay again later.
fn looking() -> Plan {
    Plan {
        steps: Vec::new(),
        requeue_after: Some(SETTINGS.unbound_interval),
    }
}

fn bound_to(observed: &Observed) -> Option<String> {
    decide(observed, &SETTINGS, after(0))
        .binds_to()
        .map(str::to_owned)
}

fn kill(view: &mut RelaysView, relay: &str) {
    view.relays.get_mut(relay).expect("a relay").liveness = Liveness::Dead;
}

#[test]
fn a_new_listener_goes_to_the_living_relay_with_fewest_listeners() {
    let mut observed = observed(
        listener("sql"),
        relays(&[("a", "1"), ("b", "1"), ("c", "1")]),
    );
    assert_eq!(bound_to(&observed).as_deref(), Some("a"));
    observed.load = BTreeMap::from([("a".into(), 3), ("b".into(), 1), ("c".into(), 2)]);
    assert_eq!(bound_to(&observed).as_deref(), Some("b"));
    kill(&mut observed.relays, "b");
    assert_eq!(bound_to(&observed).as_deref(), Some("c"));
}

#[test]
fn a_relay_that_claims_more_room_than_others_gets_no_more_listeners_than_they() {
    let mut observed = observed(listener("sql"), relays(&[("a", "1"), ("b", "1")]));
    let claims = observed.relays.relays.get_mut("b").expect("a relay");
    claims.capacity = usize::MAX;
    observed.load = BTreeMap::from([("a".into(), 3), ("b".into(), 4)]);
    assert_eq!(bound_to(&observed).as_deref(), Some("a"));
    observed.load.insert("a".into(), 4);
    assert_eq!(bound_to(&observed).as_deref(), Some("a"));
    observed.load.insert("a".into(), 5);
    assert_eq!(bound_to(&observed).as_deref(), Some("b"));
}

#[test]
fn a_replica_stays_away_from_its_siblings_while_another_relay_has_room() {
    let mut observed = observed(listener("sql"), relays(&[("a", "1"), ("b", "1")]));
    observed.siblings.insert("a".into());
    observed.load.insert("b".into(), 9);
    assert_eq!(bound_to(&observed).as_deref(), Some("b"));
    observed.load.insert("b".into(), 10);
    assert_eq!(bound_to(&observed).as_deref(), Some("a"));
}

#[test]
fn without_room_it_waits() {
    let mut observed = observed(listener("sql"), relays(&[("a", "1")]));
    observed.load.insert("a".into(), 10);
    assert_eq!(decide(&observed, &SETTINGS, after(0)), looking());
}

#[test]
fn a_relay_that_was_not_seen_alive_gets_nothing_new_and_keeps_what_it_has() {
    let mut view = relays(&[("a", "1"), ("b", "1")]);
    view.relays.get_mut("a").expect("a relay").liveness = Liveness::Unconfirmed;
    assert_eq!(
        bound_to(&observed(listener("sql"), view.clone())).as_deref(),
        Some("b")
    );
    let kept = observed(listener("sql").serving("a", "1", "s-1"), view);
    assert_eq!(decide(&kept, &SETTINGS, after(0)), Plan::default());
}

#[test]
fn a_dead_relay_loses_its_listener_and_a_paused_move_waits() {
    let mut view = relays(&[("a", "1"), ("b", "1")]);
    kill(&mut view, "a");
    view.moves_paused = true;
    let mut observed = observed(listener("sql").serving("a", "1", "s-1"), view);
    assert_eq!(decide(&observed, &SETTINGS, after(0)), Plan::default());
    observed.relays.moves_paused = false;
    assert_eq!(bound_to(&observed).as_deref(), Some("b"));
}

#[test]
fn without_another_relay_it_stays_bound_to_the_dead_one() {
    let mut view = relays(&[("a", "1")]);
    kill(&mut view, "a");
    let observed = observed(listener("sql").serving("a", "1", "s-1"), view);
    assert_eq!(decide(&observed, &SETTINGS, after(0)), looking());
}

#[test]
fn a_restart_in_place_moves_nothing() {
    let observed = observed(
        listener("sql").serving("a", "1", "s-1"),
        relays(&[("a", "2"), ("b", "1")]),
    );
    assert_eq!(decide(&observed, &SETTINGS, after(0)), Plan::default());
}

#[test]
fn a_live_session_that_history_calls_over_is_told_until_the_relay_has_recorded_it() {
    let serving = listener("sql").serving("a", "1", "s-1");
    let told = history(observed(serving.clone(), relays(&[("a", "1")])), "s-1");
    let lost = vec![LostSession {
        session_id: "s-1".into(),
        reason: EndReason::TerminatedExternally,
    }];
    let step = Step::SetSpec {
        relay: Some("a".into()),
        lost_sessions: lost.clone(),
    };
    assert_eq!(decide(&told, &SETTINGS, after(0)).steps, [step]);

    let serving = serving.change(|listener| listener.spec.lost_sessions = lost);
    let still = observed(serving.clone(), relays(&[("a", "1")]));
    assert_eq!(decide(&still, &SETTINGS, after(0)), Plan::default());

    let recorded = observed(serving.ended("s-1"), relays(&[("a", "1")]));
    let step = Step::SetSpec {
        relay: Some("a".into()),
        lost_sessions: Vec::new(),
    };
    assert_eq!(decide(&recorded, &SETTINGS, after(0)).steps, [step]);
}

#[test]
fn an_orphan_is_deleted_and_never_bound() {
    let mut observed = observed(listener("sql"), relays(&[("a", "1")]));
    for (session, why) in [
        (SessionFound::Gone, Orphaned::SessionGone),
        (SessionFound::Anothers, Orphaned::SessionAnothers),
    ] {
        observed.session = session;
        let steps = decide(&observed, &SETTINGS, after(0)).steps;
        assert_eq!(steps, [Step::Delete(why)]);
    }
}

#[test]
fn the_listener_of_a_session_in_a_namespace_that_is_not_watched_is_deleted() {
    let serving = listener("sql").serving("a", "1", "s-1");
    let mut observed = observed(serving, relays(&[("a", "1")]));
    observed.is_watched = false;
    let steps = decide(&observed, &SETTINGS, after(0)).steps;
    assert_eq!(steps, [Step::Delete(Orphaned::NotWatched)]);
}

#[test]
fn when_a_drain_may_be_asked_for_no_listener_is_bound() {
    let mut observed = observed(listener("sql"), relays(&[("a", "1")]));
    assert_eq!(bound_to(&observed).as_deref(), Some("a"));
    observed.drain = Drain::Unconfirmed;
    assert_eq!(decide(&observed, &SETTINGS, after(0)).steps, []);
}

#[test]
fn when_a_drain_is_asked_for_every_listener_is_deleted_and_when_one_may_be_none() {
    let serving = listener("sql").serving("a", "1", "s-1");
    let mut observed = observed(serving, relays(&[("a", "1")]));
    observed.drain = Drain::Unconfirmed;
    assert_eq!(decide(&observed, &SETTINGS, after(0)).steps, []);
    kill(&mut observed.relays, "a");
    assert_eq!(decide(&observed, &SETTINGS, after(0)).steps, []);
    observed.drain = Drain::Asked;
    let steps = decide(&observed, &SETTINGS, after(0)).steps;
    assert_eq!(steps, [Step::Delete(Orphaned::Draining)]);
}

#[test]
fn a_listener_being_deleted_is_never_bound_and_one_that_never_had_a_status_goes_at_once() {
    for listener in [listener("sql"), listener("sql").bound("a")] {
        let observed = observed(listener.deleted_at(at(0)), relays(&[("a", "1")]));
        assert_eq!(
            decide(&observed, &SETTINGS, after(0)).steps,
            [Step::RemoveFinalizer]
        );
    }
}

#[test]
fn the_relays_word_that_all_has_ended_releases_it() {
    let listener = listener("sql")
        .serving("a", "1", "s-1")
        .state("a", "1", ListenerState::Ended);
    let listener = listener.deleted_at(at(0));
    let waiting = observed(listener.clone(), relays(&[("a", "1")]));
    assert_eq!(decide(&waiting, &SETTINGS, after(1)).steps, []);
    let over = observed(listener.ended("s-1"), relays(&[("a", "1")]));
    assert_eq!(
        decide(&over, &SETTINGS, after(1)).steps,
        [Step::RemoveFinalizer]
    );
}

#[test]
fn the_word_of_an_earlier_run_of_the_relay_does_not_release_it() {
    let listener = listener("sql")
        .state("a", "1", ListenerState::Ended)
        .deleted_at(at(0));
    let observed = observed(listener, relays(&[("a", "2")]));
    let plan = decide(&observed, &SETTINGS, after(10));
    assert_eq!(
        plan,
        Plan {
            steps: vec![],
            requeue_after: Some(Duration::from_secs(50))
        }
    );
}

#[test]
fn a_living_relay_has_a_minute_and_then_the_controller_terminates() {
    let listener = listener("sql").serving("a", "1", "s-1").deleted_at(at(0));
    let mut observed = observed(listener, relays(&[("a", "1")]));
    assert_eq!(decide(&observed, &SETTINGS, after(59)).steps, []);
    let identity = identity_of(&fixtures::aws());
    let terminate = Step::Terminate {
        identity,
        session: id("s-1"),
    };
    assert_eq!(decide(&observed, &SETTINGS, after(60)).steps, [terminate]);
    observed
        .terminated
        .insert((identity_of(&fixtures::aws()), id("s-1")));
    assert_eq!(
        decide(&observed, &SETTINGS, after(60)).steps,
        [Step::RemoveFinalizer]
    );
}

#[test]
fn with_a_dead_relay_the_controller_terminates_at_once_and_believes_history() {
    let mut view = relays(&[("a", "1")]);
    kill(&mut view, "a");
    let listener = listener("sql").serving("a", "1", "s-1").deleted_at(at(0));
    let open = observed(listener, view);
    assert!(matches!(
        decide(&open, &SETTINGS, after(0)).steps[..],
        [Step::Terminate { .. }]
    ));
    let over = history(open, "s-1");
    assert_eq!(
        decide(&over, &SETTINGS, after(0)).steps,
        [Step::RemoveFinalizer]
    );
}

#[test]
fn a_dead_relay_that_was_starting_leaves_the_rest_to_the_sweeper_and_the_listener_until_then() {
    let starting = listener("sql").state("a", "1", ListenerState::Starting);
    let lost = observed(starting.clone().deleted_at(at(0)), relays(&[]));
    let waiting = Plan {
        steps: Vec::new(),
        requeue_after: Some(Duration::from_secs(1)),
    };
    assert_eq!(decide(&lost, &SETTINGS, after(119)), waiting);
    let steps = decide(&lost, &SETTINGS, after(120)).steps;
    assert_eq!(steps, [Step::RemoveFinalizer]);

    let recorded = listener("sql").serving("a", "1", "s-1");
    let recorded = recorded.state("a", "1", ListenerState::Starting);
    let lost = observed(recorded.deleted_at(at(0)), relays(&[]));
    let steps = decide(&lost, &SETTINGS, after(0)).steps;
    assert!(matches!(steps[..], [Step::Terminate { .. }]));
}

#[test]
fn the_wait_for_a_relay_begins_when_we_see_the_deletion_whatever_the_api_servers_clock_says() {
    for deleted_at in [at(-3600), at(3600)] {
        let going = listener("sql").serving("a", "1", "s-1");
        let observed = observed(going.deleted_at(deleted_at), relays(&[("a", "1")]));
        let plan = decide(&observed, &SETTINGS, after(59));
        assert_eq!(plan.requeue_after, Some(Duration::from_secs(1)));
        let steps = decide(&observed, &SETTINGS, after(60)).steps;
        assert!(matches!(steps[..], [Step::Terminate { .. }]));
    }
}

#[test]
fn reservations_count_as_load() {
    let mine = listener("sql").build();
    let others = [
        listener("web").bound("a").arc(),
        listener("ssh").arc(),
        Arc::new(mine.clone()),
    ];
    let reserved = HashMap::from([("uid-of-ssh".to_owned(), "b".to_owned())]);
    let load = observe::load(&mine, &others, &reserved);
    assert_eq!(
        load,
        BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 1)])
    );
}

#[test]
fn who_waits_for_a_turn_looks_for_one_ever_more_rarely_and_each_minute_at_last() {
    let seconds = |waited| turn_pause(Some(Duration::from_secs(waited))).as_secs();
    assert_eq!(turn_pause(None), TURN_PAUSE);
    assert_eq!([0, 80, 400, 36_000].map(seconds), [4, 10, 50, 60]);
}
