//! What becomes of sessions when the installation is asked to drain: they stay, and are let go.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::super::plan::Release;
use super::*;
use crate::controller::fixtures::{described, listener};
use crate::crd::listener::EndReason;

/// A session that is served, in an installation that is asked to drain.
fn asked() -> World {
    let mut world = World::made(&["sql"], vec![listener("sql").serving("a", "1", "s-1")]);
    world.report();
    world.observed.drain = Drain::Asked;
    world
}

/// The same once its listener and its slices are gone.
fn ended() -> World {
    let mut world = asked();
    world.report();
    world.listeners(vec![]);
    world.observed.slices.clear();
    world
}

/// What AWS says of its end.
fn aws_shows_the_end(world: &mut World) {
    world.poll(|snapshot| {
        let session = described("s-1", "Terminated").ended_at(at(90)).build();
        snapshot.ended.insert(session.session_id.clone(), session);
    });
}

#[test]
fn listeners_and_slices_go_and_the_service_stays() {
    let mut world = asked();
    let plan = world.decide();
    assert_eq!(
        (plan.delete_slices.len(), plan.delete_listeners.len()),
        (2, 1)
    );
    assert!(plan.delete_services.is_empty() && plan.apply_slices.is_empty());
    assert!(plan.create_service.is_none() && plan.create_listeners.is_empty());
    assert_eq!(plan.release, None, "its listener is there");
    let status = world.report();
    assert!(says(&status, "Ready=False/Draining"));
    assert_eq!(status.sessions.len(), 1, "it lives until AWS has ended it");
    assert!(
        status.endpoint.is_some(),
        "the Service is there to be dialled again"
    );
}

#[test]
fn a_session_is_let_go_once_its_status_says_how_all_of_it_ended() {
    let mut world = ended();
    assert_eq!(world.decide().release, None, "AWS has not shown the end");
    aws_shows_the_end(&mut world);
    assert_eq!(world.decide().release, Some(Release::Clean));
    let status = world.report();
    assert_eq!(
        words(&status),
        ["Ready=False/Draining", "Available=False/NoSession"],
        "what nobody will look at any more is not said"
    );
    assert!(status.sessions.is_empty());
    let [end] = &status.history[..] else {
        panic!("{:?}", status.history)
    };
    assert_eq!(end.end_reason, Some(EndReason::Deleted));
    assert_eq!(end.duration.as_deref(), Some("1m30s"));
}

#[test]
fn an_end_that_aws_does_not_show_is_waited_for_a_minute_and_a_listener_for_ever() {
    let mut world = ended();
    let plan = world.decide();
    assert_eq!(plan.requeue_after, Some(SETTINGS.finalizer_timeout));
    world.after(59);
    assert_eq!(world.decide().release, None);
    let status = world.after(1);
    assert_eq!(world.decide().release, Some(Release::Clean));
    assert!(status.sessions.is_empty() && status.history[0].end_date.is_none());

    let mut world = asked();
    world.listeners(vec![
        listener("sql").serving("a", "1", "s-1").deleted_at(at(0)),
    ]);
    world.report();
    let status = world.after(3600);
    let plan = world.decide();
    assert_eq!((plan.release, plan.overdue), (None, false));
    let ready = &status.conditions[0].message;
    assert!(ready.contains("1 listeners wait"), "{ready}");
}

#[test]
fn what_is_said_of_a_session_stays_the_same_after_it_was_let_go() {
    let mut world = ended();
    aws_shows_the_end(&mut world);
    let last = world.report();
    world.change(|session| session.metadata.finalizers = None);
    world.observed.memory = Memory::default();
    world.seconds = 7;
    let plan = world.decide();
    assert_eq!(
        plan.status.as_ref(),
        Some(&last),
        "nothing is written twice"
    );
    assert!(!plan.add_finalizer && plan.release.is_none() && plan.requeue_after.is_none());
}

#[test]
fn a_session_that_is_made_meanwhile_is_told_and_not_begun_with() {
    let mut world = World::new(&["sql"]);
    world.observed.drain = Drain::Asked;
    let plan = world.decide();
    let nothing = Plan {
        status: plan.status.clone(),
        ..Plan::default()
    };
    assert_eq!(plan, nothing);
    let status = plan.status.expect("it is of our class");
    assert!(says(&status, "Ready=False/Draining"));

    // What may be another installation's is left to that one.
    for class in [
        ClassFound::Foreign { name: "of".into() },
        ClassFound::Missing {
            message: "none".into(),
            gone: true,
        },
    ] {
        world.observed.class = class;
        assert_eq!(world.decide(), Plan::default());
    }
}

#[test]
fn a_session_that_is_deleted_meanwhile_goes_as_ever() {
    let mut world = asked();
    world.report();
    world.seconds = 3600;
    world.change(|session| session.metadata.deletion_timestamp = Some(Time(at(0))));
    let plan = world.decide();
    assert_eq!(plan.delete_services.len(), 1);
    assert_eq!(plan.release, None, "its minute begins now");
    let status = world.report();
    assert!(says(&status, "Ready=False/Deleting"));
    world.after(60);
    assert_eq!(world.decide().release, Some(Release::Pending(1)));
}

#[test]
fn while_nobody_knows_whether_a_drain_is_asked_for_no_session_is_begun_with_and_none_ends() {
    let mut world = World::new(&["sql"]);
    world.observed.drain = Drain::Unconfirmed;
    assert_eq!(world.decide(), Plan::default());

    let mut served = World::made(&["sql"], vec![listener("sql").serving("a", "1", "s-1")]);
    let plan = served.decide();
    served.observed.drain = Drain::Unconfirmed;
    assert_eq!(served.decide(), plan);

    // What a drain has ended already, and another controller goes on with.
    let mut ended = ended();
    ended.observed.drain = Drain::Unconfirmed;
    let plan = ended.decide();
    assert!(plan.create_service.is_none() && plan.create_listeners.is_empty());
    assert_eq!(plan.release, None);
}

#[test]
fn when_the_drain_is_over_all_is_made_again() {
    let mut world = ended();
    aws_shows_the_end(&mut world);
    world.report();
    world.change(|session| session.metadata.finalizers = None);
    world.observed.drain = Drain::No;
    let plan = world.decide();
    assert!(plan.add_finalizer && plan.create_service.is_none());
    assert_eq!(plan.create_listeners.len(), 1);
    let status = plan.status.expect("it is ours");
    assert!(says(&status, "Reconciling=True/Starting"));
    assert_eq!(status.history.len(), 1);
}
