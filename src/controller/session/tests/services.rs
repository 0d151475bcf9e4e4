//! Classes and Services: whose a session is, and which Service it may have.

use k8s_openapi::api::core::v1::ServiceSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, Time};
use serde_json::json;

use super::*;
use crate::controller::fixtures::{class, listener};
use crate::controller::names::FIELD_MANAGER;
use crate::crd::session::ServiceTemplate;
use crate::crd::{DEFAULT_CLASS_ANNOTATION, SsmSessionClass};

#[test]
fn another_service_name_makes_the_new_service_first_and_deletes_the_old_one_after_it() {
    let mut world = World::made(&["sql"], vec![listener("sql").serving("a", "1", "s-1")]);
    let old = Arc::new(world.stored_service());
    world.change(|session| {
        let template = ServiceTemplate {
            name: Some("orders".into()),
            ..ServiceTemplate::default()
        };
        session.spec.service = Some(template);
    });
    world.observed.old_services = vec![old];
    world.observed.service = ServiceFound::Absent;
    let first = world.decide();
    assert_eq!(
        first
            .create_service
            .map(|service| service.name_any())
            .as_deref(),
        Some("orders")
    );
    assert!(first.delete_services.is_empty() && first.delete_slices.is_empty());
    world.observed.service = ServiceFound::Ours(Arc::new(world.stored_service()));
    let second = world.decide();
    assert_eq!(second.apply_slices.len(), 2);
    assert_eq!(
        second.delete_services,
        [("db".to_owned(), "uid-of-service".to_owned())]
    );
}

#[test]
fn a_label_that_is_no_longer_asked_for_is_taken_from_our_service_and_a_strangers_stays() {
    let world = World::made(&["sql"], vec![]);
    let mut service = world.stored_service();
    service
        .metadata
        .labels
        .as_mut()
        .expect("labels")
        .insert("theirs".into(), "x".into());
    let wanted = desired::service(&world.observed.session);
    assert!(!desired::service_differs(&service, &wanted));
    service.metadata.managed_fields = Some(vec![ManagedFieldsEntry {
        manager: Some(FIELD_MANAGER.into()),
        fields_v1: Some(FieldsV1(
            json!({ "f:metadata": { "f:labels": { "f:old": {} } } }),
        )),
        ..ManagedFieldsEntry::default()
    }]);
    assert!(desired::service_differs(&service, &wanted));
}

#[test]
fn a_service_of_somebody_else_gets_no_listener_and_takes_ours() {
    let mut world = World::made(&["sql"], vec![listener("sql").serving("a", "1", "s-1")]);
    world.observed.service = ServiceFound::Conflict {
        message: "theirs".into(),
    };
    let plan = world.decide();
    assert!(plan.create_service.is_none() && plan.update_service.is_none());
    assert_eq!(
        (plan.delete_listeners.len(), plan.delete_slices.len()),
        (1, 2)
    );
    assert_eq!(plan.requeue_after, Some(SETTINGS.conflict_interval));
}

#[test]
fn whose_a_service_is() {
    let world = World::new(&["sql"]);
    let judge =
        |service: Service, lives| judge_service(fixtures::SESSION_UID, Arc::new(service), lives);
    let ours = world.stored_service();
    assert!(matches!(judge(ours.clone(), false), ServiceFound::Ours(_)));
    let mut stranger = ours.clone();
    stranger.metadata.owner_references = None;
    assert!(matches!(
        judge(stranger, false),
        ServiceFound::Conflict { .. }
    ));
    let mut other = ours.clone();
    other.metadata.owner_references.as_mut().expect("an owner")[0].uid = "another".into();
    assert!(matches!(
        judge(other.clone(), true),
        ServiceFound::Conflict { .. }
    ));
    assert!(matches!(judge(other, false), ServiceFound::Leaving { .. }));
    let mut going = ours;
    going.metadata.deletion_timestamp = Some(Time(at(0)));
    assert!(matches!(judge(going, false), ServiceFound::Leaving { .. }));
}

#[test]
fn a_missing_class_ends_the_sessions_only_once_it_is_stalled() {
    let mut world = World::made(&["sql"], vec![listener("sql").serving("a", "1", "s-1")]);
    world.observed.class = ClassFound::Missing {
        message: "none".into(),
        gone: true,
    };
    world.report();
    assert_eq!(world.decide().delete_listeners, []);
    world.seconds = 120;
    let plan = world.decide();
    assert_eq!(
        (plan.delete_listeners.len(), plan.delete_slices.len()),
        (1, 2)
    );
}

#[test]
fn which_class_serves_a_session() {
    let ours = "ssm-operator.dev/controller";
    let default = |name: &str, controller: &str| {
        let mut class = class(name, controller);
        class
            .annotations_mut()
            .insert(DEFAULT_CLASS_ANNOTATION.into(), "true".into());
        class
    };
    let found = |name: Option<&str>, classes: Vec<SsmSessionClass>| {
        let mut session = fixtures::session(&["sql"]);
        session.spec.class_name = name.map(str::to_owned);
        let classes: Vec<_> = classes.into_iter().map(Arc::new).collect();
        find_class(&session, &classes, ours)
    };
    assert!(matches!(
        found(Some("x"), vec![class("x", ours)]),
        ClassFound::Ours { .. }
    ));
    assert!(
        matches!(found(Some("x"), vec![class("x", "other")]), ClassFound::Foreign { name } if name == "x")
    );
    assert!(matches!(
        found(Some("x"), vec![class("y", ours)]),
        ClassFound::Missing { .. }
    ));
    assert!(matches!(
        found(None, vec![class("x", ours)]),
        ClassFound::Missing { .. }
    ));
    let mixed = vec![default("x", ours), default("y", "other")];
    assert!(matches!(found(None, mixed), ClassFound::Ours { name, .. } if name == "x"));
    assert!(matches!(
        found(None, vec![default("y", "other")]),
        ClassFound::Foreign { .. }
    ));
    let ClassFound::Missing { message, .. } =
        found(None, vec![default("b", ours), default("a", ours)])
    else {
        panic!("two defaults are none")
    };
    assert!(message.contains("a, b"), "{message}");
}

#[test]
fn a_session_without_a_class_name_keeps_its_class_while_there_is_no_single_default() {
    let ours = DEFAULT_CONTROLLER_NAME;
    let default = |name: &str, controller: &str| {
        let mut class = class(name, controller);
        class
            .annotations_mut()
            .insert(DEFAULT_CLASS_ANNOTATION.into(), "true".into());
        class
    };
    let mut session = fixtures::session(&["sql"]);
    session.spec.class_name = None;
    session.status = Some(SsmSessionStatus {
        class: Some("a".into()),
        ..SsmSessionStatus::default()
    });
    let found = |classes: Vec<SsmSessionClass>| {
        let classes: Vec<_> = classes.into_iter().map(Arc::new).collect();
        find_class(&session, &classes, ours)
    };
    for classes in [
        vec![default("a", ours), default("b", ours)],
        vec![class("a", ours), class("b", ours)],
        vec![class("a", ours), default("b", "other")],
    ] {
        assert!(matches!(found(classes), ClassFound::Ours { name, .. } if name == "a"));
    }
    let moved = vec![class("a", ours), default("b", ours)];
    assert!(matches!(found(moved), ClassFound::Ours { name, .. } if name == "b"));
    assert!(matches!(
        found(vec![class("b", ours)]),
        ClassFound::Missing { gone: true, .. }
    ));
}

#[test]
fn a_class_that_can_not_be_read_is_neither_gone_nor_anothers() {
    let ours = DEFAULT_CONTROLLER_NAME;
    let default = |mut class: SsmSessionClass| {
        let annotations = class.annotations_mut();
        annotations.insert(DEFAULT_CLASS_ANNOTATION.into(), "true".into());
        class
    };
    let unread = |of: SsmSessionClass| SsmSessionClass::unreadable(of.metadata, "nonsense");
    let mut session = fixtures::session(&["sql"]);
    let found = |session: &SsmSession, classes: Vec<SsmSessionClass>| {
        let classes: Vec<_> = classes.into_iter().map(Arc::new).collect();
        find_class(session, &classes, ours)
    };
    let is_unread = |found: ClassFound| matches!(found, ClassFound::Missing { gone: false, message } if message.contains("x can't be read: nonsense"));
    session.spec.class_name = Some("x".into());
    assert!(is_unread(found(&session, vec![unread(class("x", ours))])));

    session.spec.class_name = None;
    let (x, theirs) = (
        || unread(default(class("x", ours))),
        || default(class("y", "other")),
    );
    let mine = || default(class("z", ours));
    assert!(
        is_unread(found(&session, vec![x(), theirs()])),
        "it may be ours"
    );
    assert!(
        matches!(found(&session, vec![x(), mine()]), ClassFound::Ours { name, .. } if name == "z")
    );
    session.status = Some(SsmSessionStatus {
        class: Some("x".into()),
        ..SsmSessionStatus::default()
    });
    for classes in [
        vec![x()],
        vec![x(), theirs()],
        vec![x(), mine()],
        vec![unread(class("x", ours)), theirs()],
    ] {
        assert!(is_unread(found(&session, classes)), "it was its class");
    }
    let moved = vec![unread(class("x", ours)), mine()];
    assert!(matches!(found(&session, moved), ClassFound::Ours { name, .. } if name == "z"));
}

#[test]
fn an_own_service_that_can_not_be_read_is_neither_changed_nor_taken_for_gone() {
    let session = fixtures::session(&["sql"]);
    let own = Arc::new(desired::service(&session));
    let uid = session.uid().expect("a UID");
    let found = judge_service(&uid, Arc::clone(&own), false).unread("db", "nonsense");
    assert!(matches!(found, ServiceFound::Unread { message } if message.contains("nonsense")));
    let found = judge_service("another", own, true).unread("db", "nonsense");
    assert!(matches!(found, ServiceFound::Conflict { .. }));
}

#[test]
fn an_ambiguous_default_ends_no_session_however_long_it_lasts() {
    let mut world = World::made(&["sql"], vec![listener("sql").serving("a", "1", "s-1")]);
    world.observed.class = ClassFound::Missing {
        message: "two".into(),
        gone: false,
    };
    world.report();
    assert!(is_stalled(&world.after(3600), StalledReason::ClassNotFound));
    let plan = world.decide();
    assert!(plan.delete_listeners.is_empty() && plan.delete_slices.is_empty());
}

#[test]
fn a_service_that_somebody_bent_is_taken_back() {
    let world = World::made(&["sql"], vec![]);
    let wanted = desired::service(&world.observed.session);
    let bends: [fn(&mut ServiceSpec); 5] = [
        |spec| spec.selector = Some([("app".to_owned(), "db".to_owned())].into()),
        |spec| spec.external_ips = Some(vec!["192.0.2.9".into()]),
        |spec| spec.external_name = Some("example.com".into()),
        |spec| spec.publish_not_ready_addresses = Some(true),
        |spec| spec.type_ = Some("LoadBalancer".into()),
    ];
    for bend in bends {
        let mut service = world.stored_service();
        assert!(!desired::service_differs(&service, &wanted));
        bend(service.spec.as_mut().expect("a spec"));
        assert!(desired::service_differs(&service, &wanted), "{service:?}");
    }
}

/// The fields that an entry of our manager owns, as the API server writes them down.
fn owned(operation: &str, ports: &[&str]) -> ManagedFieldsEntry {
    let ports: serde_json::Map<String, serde_json::Value> = ports
        .iter()
        .map(|port| (format!("k:{{\"port\":{port}}}"), json!({ ".": {} })))
        .collect();
    ManagedFieldsEntry {
        manager: Some(FIELD_MANAGER.into()),
        operation: Some(operation.into()),
        fields_v1: Some(FieldsV1(json!({ "f:spec": { "f:ports": ports } }))),
        ..ManagedFieldsEntry::default()
    }
}

#[test]
fn a_port_that_somebody_added_is_bent_and_one_that_we_no_longer_ask_for_is_not() {
    let mut world = World::made(&["sql"], vec![]);
    let wanted = desired::service(&world.observed.session);
    let stranger = r#"9999,"protocol":"TCP""#;
    world.change(|session| {
        let mut second = session.spec.ports[0].clone();
        second.name = "second".into();
        second.port = 9999;
        session.spec.ports.push(second);
    });
    let mut service = world.stored_service();
    assert!(desired::service_differs(&service, &wanted));
    let ours = r#"5432,"protocol":"TCP""#;
    for (entries, bent) in [
        (vec![], true),
        (vec![owned("Apply", &[ours])], true),
        (vec![owned("Apply", &[ours, stranger])], false),
        // Before the first apply, what POST wrote is handed over to it.
        (vec![owned("Update", &[ours, stranger])], false),
        // An apply leaves what our own patch wrote.
        (
            vec![owned("Update", &[stranger]), owned("Apply", &[ours])],
            true,
        ),
    ] {
        service.metadata.managed_fields = Some(entries.clone());
        assert_eq!(
            desired::service_is_bent(&service, &wanted),
            bent,
            "{entries:?}"
        );
    }
    let mut other = world.stored_service();
    let ports = &mut other.spec.as_mut().expect("a spec").ports;
    ports.as_mut().expect("ports")[1].port = 5432;
    ports.as_mut().expect("ports")[1].protocol = Some("UDP".into());
    assert!(desired::service_is_bent(&other, &wanted), "by its protocol");
}

#[test]
fn the_target_of_a_port_is_its_number_which_a_name_of_any_length_may_have() {
    let world = World::new(&["postgres-replica-1"]);
    let service = desired::service(&world.observed.session);
    let ports = service.spec.and_then(|spec| spec.ports).expect("ports");
    let target = k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(5432);
    assert_eq!(ports[0].target_port, Some(target));
    assert_eq!(ports[0].name.as_deref(), Some("postgres-replica-1"));
}
