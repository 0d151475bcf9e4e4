//! How sessions are let go: deleted, or handed over to another installation.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::super::leave::last_words;
use super::super::plan::Release;
use super::*;
use crate::controller::events::SessionEvent;
use crate::controller::fixtures::listener;
use crate::crd::INSTALLATION_LABEL;

/// A session that we serve, whose class became one of another installation.
fn handed_over() -> World {
    let mut world = World::made(&["sql"], vec![listener("sql").serving("a", "1", "s-1")]);
    world.report();
    world.observed.class = ClassFound::Foreign {
        name: "theirs".into(),
    };
    world
}

#[test]
fn a_session_that_another_installation_serves_is_nobodys_work_here() {
    let mut world = handed_over();
    let theirs = session_finalizer(THEIRS);
    world.change(|session| session.metadata.finalizers = Some(vec![theirs]));
    world.listeners(vec![]);
    world.observed.slices.clear();
    assert_eq!(world.decide(), Plan::default());
    world.change(|session| session.metadata.deletion_timestamp = Some(Time(at(0))));
    assert_eq!(world.decide(), Plan::default());
}

#[test]
fn what_we_made_for_a_session_of_another_installation_goes_and_then_our_finalizer() {
    let mut world = handed_over();
    let plan = world.decide();
    assert_eq!(
        (plan.delete_slices.len(), plan.delete_listeners.len()),
        (2, 1)
    );
    assert!(plan.delete_services.is_empty() && plan.apply_slices.is_empty());
    assert_eq!(
        (plan.release, plan.requeue_after),
        (None, Some(SETTINGS.finalizer_timeout))
    );
    world.listeners(vec![]);
    world.observed.slices.clear();
    assert_eq!(world.decide().release, Some(Release::Clean));
}

#[test]
fn a_listener_that_can_not_be_read_is_deleted_and_waited_for_like_any_other() {
    let mut world = World::made(&["sql"], vec![]);
    world.change(|session| session.metadata.deletion_timestamp = Some(Time(at(0))));
    let unread = ("l-unread".to_owned(), "uid".to_owned());
    world.observed.unread_listeners.staying = vec![unread.clone()];
    let plan = world.decide();
    assert_eq!((plan.delete_listeners, plan.release), (vec![unread], None));
    world.observed.unread_listeners = UnreadListeners {
        staying: vec![],
        deleted: 1,
    };
    let plan = world.decide();
    assert_eq!((plan.delete_listeners, plan.release), (vec![], None));
    world.report();
    world.seconds = 60;
    assert_eq!(world.decide().release, Some(Release::Pending(1)));
    world.observed.unread_listeners = UnreadListeners::default();
    assert_eq!(world.decide().release, Some(Release::Clean));
}

#[test]
fn the_slices_of_the_installation_that_takes_over_stay() {
    let mut world = handed_over();
    let mut theirs = world.observed.slices[0].as_ref().clone();
    theirs.metadata.name = Some("theirs".into());
    let labels = theirs.labels_mut();
    labels.insert(INSTALLATION_LABEL.into(), THEIRS.into());
    world.observed.slices.push(Arc::new(theirs));
    let plan = world.decide();
    assert_eq!(plan.delete_slices.len(), 2);
    assert!(!plan.delete_slices.contains(&"theirs".to_owned()));
}

#[test]
fn a_session_that_is_handed_over_says_so() {
    let mut world = handed_over();
    world.listeners(vec![
        listener("sql").serving("a", "1", "s-1").deleted_at(at(0)),
    ]);
    let status = world.report();
    assert!(
        says(&status, "Ready=False/Progressing") && says(&status, "Reconciling=True/Resolving")
    );
    assert!(says(&status, "Available=False/NoSession"));
    assert_eq!((status.class, status.endpoint), (None, None));
}

#[test]
fn a_session_with_the_finalizer_of_another_installation_is_waited_for() {
    let mut world = World::new(&["sql"]);
    assert!(world.decide().add_finalizer);
    let theirs = session_finalizer(THEIRS);
    world.change(|session| session.metadata.finalizers = Some(vec![theirs.clone()]));
    let waiting = Plan {
        held_by: Some(theirs),
        ..Plan::default()
    };
    assert_eq!(world.decide(), waiting, "no object, no status, no hot loop");
    world.observed.class = ClassFound::Missing {
        message: "none".into(),
        gone: true,
    };
    assert_eq!(world.decide(), waiting);
    world.change(|session| session.metadata.deletion_timestamp = Some(Time(at(0))));
    assert_eq!(world.decide(), Plan::default());
}

#[test]
fn of_two_installations_that_have_their_finalizers_on_a_session_the_first_keeps_it() {
    let mut world = World::made(&["sql"], vec![listener("sql").serving("a", "1", "s-1")]);
    let both = [session_finalizer(OURS), session_finalizer(THEIRS)];
    world.change(|session| session.metadata.finalizers = Some(both.to_vec()));
    let plan = world.decide();
    assert!(plan.status.is_some() && plan.delete_listeners.is_empty());

    let [ours, theirs] = both;
    world.change(|session| session.metadata.finalizers = Some(vec![theirs, ours]));
    let plan = world.decide();
    assert_eq!(
        (plan.delete_slices.len(), plan.delete_listeners.len()),
        (2, 1)
    );
    assert!(plan.delete_services.is_empty());
    let status = plan.status.expect("ours was the last word");
    assert!(says(&status, "Ready=False/HeldByAnother"));
    world.listeners(vec![]);
    assert_eq!(world.decide().release, Some(Release::Clean));
}

#[test]
fn a_session_is_handed_over_after_a_minute_with_listeners_left_but_never_with_slices() {
    let mut world = handed_over();
    world.report();
    world.seconds = 60;
    let plan = world.decide();
    assert_eq!(plan.release, Some(Release::Pending(1)));
    assert!(!plan.overdue, "a slice that can't be deleted keeps it");
    world.change(|session| session.metadata.deletion_timestamp = Some(Time(at(0))));
    assert!(world.decide().overdue);
}

#[test]
fn the_wait_begins_when_we_see_the_deletion_whatever_the_api_servers_clock_says() {
    for deleted_at in [at(-3600), at(3600)] {
        let mut world = World::made(&["sql"], vec![listener("sql").serving("a", "1", "s-1")]);
        world.change(|session| session.metadata.deletion_timestamp = Some(Time(deleted_at)));
        assert_eq!(world.decide().release, None);
        world.report();
        world.seconds = 60;
        assert_eq!(world.decide().release, Some(Release::Pending(1)));
    }
}

#[test]
fn while_the_session_is_deleted_slices_and_listeners_go_and_nothing_is_made() {
    let mut world = World::made(
        &["sql", "web"],
        vec![listener("sql").serving("a", "1", "s-1")],
    );
    world.change(|session| session.metadata.deletion_timestamp = Some(Time(at(0))));
    let plan = world.decide();
    assert_eq!(
        plan.delete_services,
        [("db".to_owned(), "uid-of-service".to_owned())]
    );
    world.observed.service = ServiceFound::Absent;
    let plan = world.decide();
    assert!(plan.create_service.is_none() && plan.create_listeners.is_empty());
    assert!(plan.apply_slices.is_empty() && !plan.add_finalizer);
    assert_eq!(
        (plan.delete_slices.len(), plan.delete_listeners.len()),
        (2, 1)
    );
    assert_eq!(
        (plan.release, plan.requeue_after),
        (None, Some(SETTINGS.finalizer_timeout))
    );
}

#[test]
fn the_session_goes_with_its_last_listener_or_after_a_minute() {
    let going = listener("sql").serving("a", "1", "s-1").deleted_at(at(0));
    let mut world = World::made(&["sql"], vec![going]);
    world.change(|session| session.metadata.deletion_timestamp = Some(Time(at(0))));
    world.report();
    world.seconds = 59;
    assert_eq!(world.decide().release, None);
    world.seconds = 60;
    assert_eq!(world.decide().release, Some(Release::Pending(1)));
    world.observed.listeners.clear();
    assert_eq!(world.decide().release, Some(Release::Clean));
}

#[test]
fn with_a_deleted_session_goes_the_word_of_every_end_that_aws_has_not_shown() {
    let ended = listener("sql").serving("a", "1", "s-1").ended("s-1");
    let live = listener("web").serving("a", "1", "s-2");
    let mut world = World::made(&["sql", "web"], vec![ended, live]);
    let say = |world: &World, release| {
        let untold = world.decide().mirror.untold();
        last_words(&world.observed.session, release, &untold)
    };
    assert_eq!(
        say(&world, Release::Clean),
        [],
        "whoever takes the session over tells it"
    );
    world.change(|session| session.metadata.deletion_timestamp = Some(Time(at(0))));
    let told = SessionEvent::SessionEnded {
        session: "s-1".into(),
        why: "ClosedByService, closed".into(),
    };
    let pending = SessionEvent::TerminationPending { listeners: 1 };
    let both = say(&world, Release::Pending(1));
    assert_eq!(both, [told.clone(), pending]);
    assert_eq!(say(&world, Release::Clean), [told]);
}

#[test]
fn a_deleted_session_without_our_finalizer_is_nobodys_work() {
    let mut world = World::new(&["sql"]);
    world.change(|session| session.metadata.deletion_timestamp = Some(Time(at(0))));
    assert_eq!(world.decide(), Plan::default());
}

/// A session that we serve, after somebody replaced its finalizers by those of another installation.
fn replaced() -> World {
    let mut world = World::made(&["sql"], vec![listener("sql").serving("a", "1", "s-1")]);
    let status = world.report();
    assert!(
        says(&status, "Ready=True/Available"),
        "{:?}",
        words(&status)
    );
    let theirs = session_finalizer(THEIRS);
    world.change(|session| session.metadata.finalizers = Some(vec![theirs]));
    world
}

#[test]
fn of_a_session_whose_finalizers_were_replaced_nothing_stays_and_nothing_stays_said() {
    let mut world = replaced();
    let plan = world.decide();
    assert_eq!(
        (plan.delete_slices.len(), plan.delete_listeners.len()),
        (2, 1)
    );
    assert!(plan.delete_services.is_empty() && !plan.add_finalizer);
    assert_eq!((&plan.held_by, plan.release), (&world.held_by(), None));
    let status = world.report();
    let held = ["Ready=False/HeldByAnother", "Available=False/NoSession"];
    assert_eq!(words(&status), held);
    assert_eq!((status.class, status.endpoint), (None, None));
    assert_eq!(status.sessions.len(), 1, "it lives until AWS has ended it");

    // What follows is still ours to say: nobody else says anything.
    world.observed.slices.clear();
    world.listeners(vec![]);
    let status = world.report();
    assert_eq!(words(&status), held);
    assert!(status.sessions.is_empty());
    assert_eq!(status.history.len(), 1);
    let again = world.report();
    assert_eq!(again, status, "and nothing is written on and on");
}

#[test]
fn the_status_of_a_session_is_the_one_that_holds_its_own_once_that_one_says_anything() {
    let mut world = replaced();
    let theirs = world.observed.previous.clone();
    world.report();
    world.observed.previous = theirs;
    let plan = world.decide();
    assert_eq!(plan.status, None, "said once");
    assert_eq!(plan.delete_listeners.len(), 1, "and what is left goes");
    // One that comes back and has some of its own there does not take the word from who serves it by now.
    world.observed.memory = Memory::default();
    world.observed.previous.sessions[0].session_id = "s-of-theirs".into();
    assert_eq!(world.decide().status, None);
    // Another process that comes to it late has nothing there, and says nothing.
    world.observed.memory = Memory::default();
    world.observed.slices.clear();
    world.listeners(vec![]);
    let waiting = Plan {
        held_by: world.held_by(),
        ..Plan::default()
    };
    assert_eq!(world.decide(), waiting);
}

#[test]
fn a_status_that_was_not_written_is_not_taken_for_said() {
    let mut world = replaced();
    let plan = world.decide();
    let memory = memory::decided(Memory::default(), &plan, world.start);
    assert!(!memory.last_word, "the write may be overtaken");
    assert!(memory::written(memory.clone(), &plan).last_word);
    world.observed.memory = memory::written(memory, &plan);
    let ours = session_finalizer(OURS);
    world.change(|session| session.metadata.finalizers = Some(vec![ours]));
    world.report();
    assert!(!world.observed.memory.last_word, "it is ours again");
}

#[test]
fn what_is_ours_goes_also_if_the_session_is_deleted_or_of_another_class_by_then() {
    let mut foreign = replaced();
    foreign.observed.class = ClassFound::Foreign {
        name: "theirs".into(),
    };
    let mut deleted = replaced();
    deleted.change(|session| session.metadata.deletion_timestamp = Some(Time(at(0))));
    for world in [foreign, deleted] {
        let plan = world.decide();
        assert_eq!(
            (plan.delete_slices.len(), plan.delete_listeners.len()),
            (2, 1)
        );
        let status = plan.status.expect("ours was the last word");
        assert!(says(&status, "Ready=False/HeldByAnother"));
    }
}
