//! Sessions of a namespace in which nothing can be read: nothing is made there, and nothing that is there is taken for gone.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::super::plan::Release;
use super::*;
use crate::controller::fixtures::listener;

const WHY: &str = "what is in namespace shop can't be read: services is forbidden";

/// A session that was served, as a controller sees it that was started after the rights were gone.
fn unread(listeners: Vec<ListenerBuilder>) -> World {
    let mut world = World::made(&["sql"], listeners);
    world.report();
    world.observed.memory = Memory::default();
    world.observed.slices.clear();
    world.observed.service = ServiceFound::Unread {
        message: WHY.into(),
    };
    world
}

fn serving() -> World {
    unread(vec![listener("sql").serving("a", "1", "s-1")])
}

#[test]
fn nothing_is_made_and_nothing_is_taken_away_and_why_is_said() {
    let mut world = serving();
    let plan = world.decide();
    assert!(plan.is_settled() && plan.delete_slices.is_empty());
    assert_eq!((plan.release, plan.requeue_after), (None, None));
    let endpoint = world.observed.previous.endpoint.clone();
    let status = world.report();
    assert_eq!(status.endpoint, endpoint, "it may well be there");
    assert!(says(&status, "Ready=False/Progressing"));
    assert!(says(&status, "Reconciling=True/Resolving"));
    let types = status.conditions.iter().map(|c| c.type_.as_str());
    assert!(
        !types.into_iter().any(|of| of == "Available"),
        "nobody knows"
    );
    for condition in &status.conditions[..2] {
        assert_eq!(condition.message, WHY);
    }

    let mut new = World::new(&["sql"]);
    new.observed.service = world.observed.service.clone();
    let plan = new.decide();
    assert!(!plan.add_finalizer && plan.create_listeners.is_empty());
    assert!(plan.status.is_some());
}

#[test]
fn what_is_no_longer_asked_for_ends_all_the_same() {
    let mut world = serving();
    world.change(|session| session.spec.target.id = Some("i-00000000000000002".into()));
    assert_eq!(world.decide().update_listeners.len(), 1);
    world.change(|session| session.spec.ports[0].name = "web".into());
    let plan = world.decide();
    assert_eq!(
        (plan.delete_listeners.len(), plan.create_listeners.len()),
        (1, 0)
    );

    let mut world = serving();
    world.observed.class = ClassFound::Missing {
        message: "none".into(),
        gone: true,
    };
    world.report();
    assert_eq!(world.decide().requeue_after, Some(SETTINGS.stalled_after));
    world.after(120);
    assert_eq!(world.decide().delete_listeners.len(), 1);
}

#[test]
fn a_deleted_session_goes_with_its_last_listener() {
    let mut world = serving();
    world.change(|session| session.metadata.deletion_timestamp = Some(Time(at(0))));
    let plan = world.decide();
    assert_eq!((plan.delete_listeners.len(), plan.release), (1, None));
    assert!(plan.delete_services.is_empty());
    world.listeners(vec![]);
    assert_eq!(world.decide().release, Some(Release::Clean));
}

#[test]
fn a_session_is_not_handed_over_while_slices_may_lead_here_and_a_drain_waits_for_a_minute() {
    let mut world = unread(vec![]);
    world.observed.class = ClassFound::Foreign {
        name: "theirs".into(),
    };
    world.after(600);
    assert_eq!(world.decide().release, None);

    let mut world = unread(vec![]);
    world.observed.drain = Drain::Asked;
    world.report();
    assert_eq!(world.decide().release, None);
    world.after(60);
    assert_eq!(world.decide().release, Some(Release::Clean));
}
