//! What becomes of a listener whose session asks for another identity: none is lost with which a session runs.

use super::*;
use crate::controller::fixtures::listener;
use crate::controller::session::plan::Held;
use crate::controller::session::update::{Update, listener_update};
use crate::crd::SsmListener;
use crate::crd::class::Aws;
use crate::crd::listener::{ErrorClass, ListenerError, ListenerSession, ListenerState};

fn region(number: usize) -> Aws {
    Aws {
        region: format!("eu-test-{number}"),
        ..Aws::default()
    }
}

/// A listener that relay `a` serves with the first identity, in this state.
fn served(state: ListenerState) -> SsmListener {
    let listener = listener("sql").state("a", "1", state).build();
    assert_eq!(listener.spec.identity, region(1));
    listener
}

fn record(listener: &mut SsmListener, id: &str, identity: &Aws, ended: bool) {
    let status = listener.status.as_mut().expect("it is served");
    status.sessions.push(ListenerSession {
        session_id: id.into(),
        identity: identity.clone(),
        ended_at: ended.then(|| at(60).to_string()),
        ..ListenerSession::default()
    });
}

/// The listener once its session asked for this identity, and the API server took the update.
fn asked(existing: &SsmListener, identity: &Aws) -> SsmListener {
    let mut desired = existing.clone();
    desired.spec.identity = identity.clone();
    desired.spec.former_identities = Vec::new();
    match listener_update(existing, &desired) {
        Update::None => existing.clone(),
        Update::Write(mut update) => {
            update.metadata.generation = update.metadata.generation.map(|of| of + 1);
            *update
        }
        Update::Held(_) => panic!("held"),
    }
}

/// The message of the condition of this type.
fn told<'a>(status: &'a SsmSessionStatus, type_: &str) -> &'a str {
    let mut conditions = status.conditions.iter();
    let condition = conditions.find(|condition| condition.type_ == type_);
    condition.map_or("", |condition| &condition.message)
}

/// The relay has read the newest spec.
fn read(mut listener: SsmListener, state: ListenerState) -> SsmListener {
    let status = listener.status.as_mut().expect("it is served");
    status.observed_generation = listener.metadata.generation;
    status.state = state;
    listener
}

#[test]
fn a_former_identity_stays_until_nothing_on_record_names_it() {
    let mut listener = served(ListenerState::Serving);
    record(&mut listener, "s-1", &region(1), false);
    let changed = asked(&listener, &region(2));
    assert_eq!(changed.spec.identity, region(2));
    assert_eq!(changed.spec.former_identities, [region(1)]);

    let mut serving = read(changed, ListenerState::Serving);
    assert_eq!(asked(&serving, &region(2)), serving);
    let status = serving.status.as_mut().expect("it is served");
    status.sessions[0].ended_at = Some(at(60).to_string());
    assert_eq!(
        asked(&serving, &region(2)),
        serving,
        "AWS is asked for its end"
    );
    serving
        .status
        .as_mut()
        .expect("it is served")
        .sessions
        .clear();
    assert_eq!(asked(&serving, &region(2)).spec.former_identities, []);
}

#[test]
fn a_former_identity_stays_while_a_start_with_it_may_be_on_its_way() {
    let waiting = served(ListenerState::Waiting);
    let changed = asked(&waiting, &region(2));
    assert_eq!(
        changed.spec.former_identities,
        [region(1)],
        "it may be read"
    );
    assert_eq!(asked(&changed, &region(2)), changed, "it was not read");
    let starting = read(changed, ListenerState::Starting);
    assert_eq!(asked(&starting, &region(2)), starting, "it may be answered");
    let serving = read(starting, ListenerState::Serving);
    assert_eq!(asked(&serving, &region(2)).spec.former_identities, []);

    let unbound = listener("sql").build();
    let changed = asked(&unbound, &region(2));
    assert_eq!(changed.spec.former_identities, [], "nobody can start it");
}

#[test]
fn an_identity_that_comes_back_is_former_no_more() {
    let mut listener = served(ListenerState::Serving);
    record(&mut listener, "s-1", &region(1), false);
    let there = read(asked(&listener, &region(2)), ListenerState::Serving);
    let back = asked(&there, &region(1));
    assert_eq!(back.spec.identity, region(1));
    assert_eq!(back.spec.former_identities, [region(2)]);
    let back = asked(&read(back, ListenerState::Serving), &region(1));
    assert_eq!(back.spec.former_identities, []);
}

#[test]
fn with_too_many_that_are_needed_the_change_waits_and_no_session_is_lost() {
    let mut listener = served(ListenerState::Serving);
    for number in 1..5 {
        record(
            &mut listener,
            &format!("s-{number}"),
            &region(number),
            false,
        );
        listener = read(
            asked(&listener, &region(number + 1)),
            ListenerState::Serving,
        );
    }
    let formers = [region(4), region(3), region(2), region(1)];
    assert_eq!(listener.spec.former_identities, formers);

    let mut world = World::made(&["sql"], Vec::new());
    world.observed.listeners = vec![Arc::new(listener.clone())];
    world.apply_slices();
    world.observed.class = ClassFound::Ours {
        name: "plain".into(),
        identity: region(6),
    };
    let held = Held {
        port: "sql".into(),
        sessions: (1..5).map(|number| format!("s-{number}")).collect(),
    };
    let plan = world.decide();
    assert_eq!(plan.held_listeners, [held]);
    assert!(plan.update_listeners.is_empty() && !plan.is_settled());

    let waits = "port sql goes on as before the last change of its class, until AWS sessions have ended that only its former \
                 identities can end: s-1, s-2, s-3, s-4";
    let status = world.report();
    assert!(says(&status, "Ready=False/Progressing"));
    assert!(says(&status, "Reconciling=True/Retargeting"));
    assert_eq!(told(&status, "Reconciling"), waits);

    let failing = ListenerError {
        class: ErrorClass::AccessDenied,
        message: "the former role is gone".into(),
    };
    let mut denied = listener.clone();
    let status = denied.status.as_mut().expect("it is served");
    (status.state, status.last_error) = (ListenerState::Waiting, Some(failing));
    world.observed.listeners = vec![Arc::new(denied)];
    let both = format!("port sql: the former role is gone; {waits}");
    assert_eq!(told(&world.report(), "Reconciling"), both);
    assert_eq!(told(&world.after(120), "Stalled"), both);

    let status = listener.status.as_mut().expect("it is served");
    status.sessions[1].ended_at = Some(at(60).to_string());
    world.observed.listeners = vec![Arc::new(listener)];
    let plan = world.decide();
    let spec = &plan.update_listeners[0].spec;
    assert_eq!(spec.identity, region(6));
    let formers = [region(5), region(4), region(3), region(1)];
    assert_eq!(spec.former_identities, formers, "an ended one makes room");
}
