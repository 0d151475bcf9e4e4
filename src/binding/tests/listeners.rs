//! The relay is told what the API server shows: once, in order, and never over what is still being stopped.

use super::api::FakeApi;
use super::plane::{Call, FakePlane};
use super::*;
use crate::binding::convert::id_of;
use crate::binding::listeners::Listeners;
use crate::crd::listener::ListenerState;
use crate::relay::{EndReason, ListenerId, RecordError};

struct Fixture {
    api: FakeApi,
    plane: FakePlane,
    listeners: Listeners<FakePlane>,
}

async fn fixture() -> Fixture {
    let api = FakeApi::start().await;
    let plane = FakePlane::default();
    let listeners = Listeners::new(
        api.listeners(),
        desk(),
        "namespace-uid".into(),
        plane.clone(),
    );
    Fixture {
        api,
        plane,
        listeners,
    }
}

fn id(name: &str) -> ListenerId {
    id_of(&listener(name)).unwrap()
}

/// The ids of all calls, which must be `ensure`.
fn ensured(plane: &FakePlane) -> Vec<ListenerId> {
    let ids = plane.take_calls().into_iter().map(|call| match call {
        Call::Ensure(id, _, _) => id,
        other => panic!("{other:?}"),
    });
    ids.collect()
}

#[tokio::test]
async fn recorded_ports_are_taken_back_before_any_new_one_is_given() {
    let mut fixture = fixture().await;
    fixture.listeners.replace(vec![
        listener("a"),
        recorded_by(listener("b"), "relay-1", "run-1", 10_300),
        recorded_by(listener("c"), RELAY, "run-1", 10_240),
    ]);
    let calls = fixture.plane.take_calls();
    let ports = calls.iter().map(|call| match call {
        Call::Ensure(id, _, inherited) => (id.clone(), inherited.port),
        other => panic!("{other:?}"),
    });
    let expected = [(id("c"), Some(10_240)), (id("a"), None), (id("b"), None)];
    assert_eq!(ports.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_listener_is_told_again_only_when_its_spec_changed() {
    let mut fixture = fixture().await;
    fixture.listeners.apply(listener("l"));
    fixture
        .listeners
        .apply(recorded_by(listener("l"), RELAY, INCARNATION, 10_240));
    assert_eq!(ensured(&fixture.plane).len(), 1, "a status is no wish");

    let mut changed = listener("l");
    changed.spec.target = "i-11111111111111111".into();
    changed.metadata.generation = Some(2);
    fixture.listeners.apply(changed);
    assert_eq!(ensured(&fixture.plane), [id("l")]);
}

#[tokio::test]
async fn a_listener_that_the_relay_let_go_of_unasked_is_begun_anew() {
    let mut fixture = fixture().await;
    fixture.listeners.apply(listener("l"));
    fixture.plane.take_calls();
    fixture.plane.let_go(&id("l"));
    assert!(fixture.listeners.is_unsettled());
    fixture.listeners.settle();
    assert_eq!(ensured(&fixture.plane), [id("l")]);

    fixture.listeners.apply(deleted(recorded_by(
        listener("l"),
        RELAY,
        INCARNATION,
        10_240,
    )));
    fixture.plane.take_calls();
    fixture.plane.let_go(&id("l"));
    fixture.listeners.settle();
    let calls = fixture.plane.take_calls();
    let again = matches!(calls.as_slice(), [Call::Ensure(..), Call::Stop(..)]);
    assert!(again, "its end is not on record: {calls:?}");
}

#[tokio::test]
async fn a_deleted_listener_is_stopped_once_and_never_served_again() {
    let mut fixture = fixture().await;
    let object = fixture.api.put_listener(&listener("l"));
    fixture.listeners.apply(object.clone());
    fixture.plane.take_calls();
    fixture.listeners.apply(deleted(object.clone()));
    fixture.listeners.apply(deleted(object));
    assert_eq!(
        fixture.plane.take_calls(),
        [Call::Stop(id("l"), EndReason::Deleted)]
    );

    let end = report(State::Ended);
    let recorder = fixture.plane.recorder(&id("l"));
    assert_eq!(recorder.record(&end).await, Ok(()));
    fixture.plane.let_go(&id("l"));
    fixture.listeners.settle();
    assert!(
        fixture.plane.take_calls().is_empty(),
        "its finalizer still keeps the object"
    );
    fixture.listeners.remove(&deleted(listener("l")));
    assert!(!fixture.listeners.is_unsettled());
    assert!(fixture.plane.take_calls().is_empty());
    let gone = recorder.record(&end).await;
    assert_eq!(gone, Err(RecordError::NotOurs), "nobody reads it any more");
}

#[tokio::test]
async fn a_listener_that_is_moved_away_is_stopped_and_nothing_is_written_any_more() {
    let mut fixture = fixture().await;
    let object = fixture.api.put_listener(&listener("l"));
    fixture.listeners.apply(object.clone());
    fixture.plane.take_calls();
    fixture.listeners.remove(&object);
    assert_eq!(
        fixture.plane.take_calls(),
        [Call::Stop(id("l"), EndReason::Replaced)]
    );
    let result = fixture
        .plane
        .recorder(&id("l"))
        .record(&report(State::Ended))
        .await;
    assert_eq!(result, Err(RecordError::NotOurs));
    assert!(fixture.api.take_requests().is_empty());
}

#[tokio::test]
async fn a_listener_that_comes_back_waits_until_the_relay_has_let_go_of_it() {
    let mut fixture = fixture().await;
    fixture.listeners.apply(listener("l"));
    fixture.listeners.remove(&listener("l"));
    fixture.plane.take_calls();

    fixture
        .listeners
        .apply(recorded_by(listener("l"), "relay-1", "run-9", 10_300));
    assert!(fixture.plane.take_calls().is_empty());
    assert!(fixture.listeners.is_unsettled());

    fixture.plane.let_go(&id("l"));
    fixture.listeners.settle();
    let calls = fixture.plane.take_calls();
    let [Call::Ensure(back, _, inherited)] = calls.as_slice() else {
        panic!("{calls:?}")
    };
    assert_eq!(*back, id("l"));
    assert_eq!(
        inherited.sessions.len(),
        1,
        "what the other relay recorded is terminated here"
    );
    assert!(!fixture.listeners.is_unsettled());
}

#[tokio::test]
async fn a_listener_that_was_overtaken_is_let_go_and_served_anew() {
    let mut fixture = fixture().await;
    let object = fixture.api.put_listener(&listener("l"));
    fixture.listeners.apply(object);
    fixture
        .plane
        .recorder(&id("l"))
        .record(&report(State::Serving))
        .await
        .unwrap();
    fixture.plane.take_calls();

    let overtaken = recorded_by(fixture.api.listener("l"), "relay-1", "run-9", 10_300);
    fixture
        .listeners
        .replace(vec![fixture.api.put_listener(&overtaken)]);
    assert_eq!(
        fixture.plane.take_calls(),
        [Call::Stop(id("l"), EndReason::Replaced)]
    );
    fixture.plane.let_go(&id("l"));
    fixture.listeners.settle();
    assert_eq!(ensured(&fixture.plane), [id("l")]);
}

#[tokio::test]
async fn what_is_missing_from_a_new_list_has_left() {
    let mut fixture = fixture().await;
    fixture
        .listeners
        .replace(vec![listener("a"), listener("b")]);
    fixture.plane.take_calls();
    fixture
        .listeners
        .replace(vec![listener("b"), listener("c")]);
    let calls = fixture.plane.take_calls();
    assert_eq!(calls[0], Call::Stop(id("a"), EndReason::Replaced));
    assert!(
        matches!(&calls[1], Call::Ensure(new, _, _) if *new == id("c")),
        "{calls:?}"
    );
    assert_eq!(calls.len(), 2);
}

#[tokio::test]
async fn a_deleted_listener_of_an_earlier_run_is_taken_over_only_to_end_its_sessions() {
    let mut fixture = fixture().await;
    fixture.listeners.replace(vec![
        deleted(listener("never-served")),
        deleted(recorded_by(listener("left"), RELAY, "run-1", 10_240)),
    ]);
    let calls = fixture.plane.take_calls();
    assert!(
        matches!(&calls[0], Call::Ensure(left, _, _) if *left == id("left")),
        "{calls:?}"
    );
    assert_eq!(calls[1..], [Call::Stop(id("left"), EndReason::Deleted)]);
}

#[tokio::test]
async fn a_deleted_listener_without_sessions_is_ended_at_once_unless_this_run_has_said_so() {
    let mut fixture = fixture().await;
    let in_state = |name: &str, incarnation: &str, state: ListenerState| {
        let mut object = recorded_by(listener(name), RELAY, incarnation, 10_240);
        let status = object.status.as_mut().unwrap();
        (status.state, status.sessions) = (state, Vec::new());
        deleted(object)
    };
    fixture.listeners.replace(vec![
        in_state("a-waiting", "run-1", ListenerState::Waiting),
        in_state("b-ended-before", "run-1", ListenerState::Ended),
        in_state("c-ended-now", INCARNATION, ListenerState::Ended),
    ]);
    let stopped = fixture.plane.take_calls().into_iter();
    let stopped = stopped.filter_map(|call| match call {
        Call::Stop(id, EndReason::Deleted) => Some(id),
        Call::Ensure(..) => None,
        other => panic!("{other:?}"),
    });
    assert_eq!(
        stopped.collect::<Vec<_>>(),
        [id("a-waiting"), id("b-ended-before")]
    );
}

#[tokio::test]
async fn an_object_that_is_bound_elsewhere_is_not_served() {
    let mut fixture = fixture().await;
    let mut other = listener("l");
    other.spec.relay = Some("relay-1".into());
    fixture.listeners.apply(other);
    assert!(fixture.plane.take_calls().is_empty());
}

#[tokio::test]
async fn a_listener_that_can_not_be_read_is_as_it_was_and_still_stopped_when_it_is_deleted() {
    let mut fixture = fixture().await;
    let guarded = |raw: &serde_json::Value| serde_json::from_value(raw.clone()).expect("any JSON");
    let served = recorded_by(listener("l"), RELAY, INCARNATION, 10_240);
    let mut raw = serde_json::to_value(&served).expect("plain data");
    raw["spec"]["document"] = 7.into();
    raw["status"]["port"] = "x".into();
    assert!(fixture.listeners.read(guarded(&raw)).is_none());
    fixture.listeners.apply(served.clone());
    fixture.plane.take_calls();

    let read = fixture.listeners.read(guarded(&raw)).expect("it was read");
    assert_eq!((&read.spec, &read.status), (&served.spec, &served.status));
    fixture.listeners.apply(read);
    assert_eq!(fixture.plane.take_calls(), []);
    raw["metadata"]["deletionTimestamp"] = "2026-11-22T10:00:00Z".into();
    let read = fixture.listeners.read(guarded(&raw)).expect("it was read");
    fixture.listeners.apply(read);
    assert_eq!(
        fixture.plane.take_calls(),
        [Call::Stop(id("l"), EndReason::Deleted)]
    );
}
