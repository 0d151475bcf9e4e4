//! Listeners and slices: what is made, changed and taken away.

use super::*;
use crate::controller::fixtures::listener;
use crate::controller::names::listener_name;
use crate::controller::relays::Liveness;
use crate::crd::listener::ListenerState;

#[test]
fn a_new_session_gets_finalizer_service_and_one_listener_for_each_port() {
    let plan = World::new(&["sql", "web"]).decide();
    assert!(plan.add_finalizer && plan.create_service.is_some());
    let names: Vec<String> = plan
        .create_listeners
        .iter()
        .map(kube::ResourceExt::name_any)
        .collect();
    let expected = ["sql", "web"].map(|port| listener_name(fixtures::SESSION_UID, port, 0));
    assert_eq!(names, expected);
    assert!(plan.create_listeners.iter().all(|l| l.spec.relay.is_none()));
    assert!(plan.apply_slices.is_empty());
}

#[test]
fn when_all_is_made_nothing_is_written() {
    let mut world = World::made(&["sql"], vec![listener("sql").serving("a", "1", "s-1")]);
    world.report();
    world.seconds += 3600;
    let plan = world.decide();
    assert_eq!(plan.status.as_ref(), Some(&world.observed.previous));
    let nothing = Plan {
        status: plan.status.clone(),
        mirror: plan.mirror.clone(),
        ..Plan::default()
    };
    assert_eq!(plan, nothing);
}

#[test]
fn the_document_follows_from_the_port() {
    let mut world = World::new(&["sql"]);
    let plain = world.decide().create_listeners.remove(0).spec.document;
    assert_eq!(plain.name, "AWS-StartPortForwardingSession");
    assert!(!plain.parameters.contains_key("host"));
    world.change(|session| session.spec.ports[0].remote_host = Some("db.internal".into()));
    let remote = world.decide().create_listeners.remove(0).spec.document;
    assert_eq!(remote.name, "AWS-StartPortForwardingSessionToRemoteHost");
    assert_eq!(remote.parameters["host"], ["db.internal"]);
    assert_eq!(remote.parameters["portNumber"], ["5432"]);
}

#[test]
fn each_address_family_of_service_and_relay_has_a_slice_of_its_own() {
    let world = World::made(&["sql"], vec![listener("sql").serving("a", "1", "s-1")]);
    let of = |family: &str| {
        let slice = world
            .observed
            .slices
            .iter()
            .find(|slice| slice.address_type == family);
        slice.expect("a slice of each family").clone()
    };
    assert_eq!(of("IPv4").endpoints[0].addresses, ["192.0.2.1"]);
    assert_eq!(of("IPv6").endpoints[0].addresses, ["2001:db8::1"]);
    let slice = of("IPv4");
    let port = &slice.ports.as_ref().expect("a port")[0];
    assert_eq!(
        (port.name.as_deref(), port.port),
        (Some("sql"), Some(10240))
    );
}

#[test]
fn a_single_stack_service_has_one_slice() {
    let mut world = World::made(&["sql"], vec![listener("sql").serving("a", "1", "s-1")]);
    let mut service = world.stored_service();
    service.spec.as_mut().expect("a spec").ip_families = Some(vec!["IPv6".into()]);
    world.observed.service = ServiceFound::Ours(Arc::new(service));
    world.apply_slices();
    let types: Vec<&str> = world
        .observed
        .slices
        .iter()
        .map(|slice| slice.address_type.as_str())
        .collect();
    assert_eq!(types, ["IPv6"]);
}

#[test]
fn a_slice_is_ready_only_while_this_run_of_the_relay_lives_and_keeps_its_address() {
    let mut world = World::made(&["sql"], vec![listener("sql").serving("a", "1", "s-1")]);
    let ready = |world: &World| {
        let conditions = world.observed.slices[0].endpoints[0].conditions.clone();
        conditions.and_then(|conditions| conditions.ready)
    };
    assert_eq!(ready(&world), Some(true));
    world.observed.relays = fixtures::relays(&[("a", "2")]);
    world.apply_slices();
    assert_eq!(ready(&world), Some(false));
    world.observed.relays = fixtures::relays(&[("a", "1")]);
    world
        .observed
        .relays
        .relays
        .get_mut("a")
        .expect("a relay")
        .liveness = Liveness::Dead;
    world.apply_slices();
    assert_eq!(
        (world.observed.slices.len(), ready(&world)),
        (2, Some(false))
    );
}

#[test]
fn a_listener_that_moved_is_not_ready_on_the_word_of_its_old_relay() {
    let moved = listener("sql").serving("a", "1", "s-1").bound("b");
    let mut world = World::made(&["sql"], vec![moved]);
    world.observed.relays = fixtures::relays(&[("a", "1"), ("b", "1")]);
    world.apply_slices();
    let conditions = world.observed.slices[0].endpoints[0]
        .conditions
        .clone()
        .expect("conditions");
    assert_eq!(
        (conditions.ready, conditions.serving),
        (Some(false), Some(false))
    );
}

#[test]
fn a_deleted_slice_comes_back_and_a_stray_one_goes() {
    let mut world = World::made(&["sql"], vec![listener("sql").serving("a", "1", "s-1")]);
    let mut stray = world.observed.slices.remove(0).as_ref().clone();
    let lost = stray.name_any();
    stray.metadata.name = Some("stray".into());
    world.observed.slices.push(Arc::new(stray));
    let plan = world.decide();
    assert_eq!(
        plan.apply_slices
            .iter()
            .map(kube::ResourceExt::name_any)
            .collect::<Vec<_>>(),
        [lost]
    );
    assert_eq!(plan.delete_slices, ["stray"]);
}

#[test]
fn a_removed_port_takes_listener_slices_and_service_port_with_it() {
    let both = vec![
        listener("sql").serving("a", "1", "s-1"),
        listener("web").serving("a", "1", "s-2"),
    ];
    let mut world = World::made(&["sql", "web"], both);
    world.change(|session| session.spec.ports.truncate(1));
    let plan = world.decide();
    assert_eq!(plan.delete_slices.len(), 2);
    assert_eq!(plan.delete_listeners.len(), 1);
    assert_eq!(plan.delete_listeners[0].1, "uid-of-web");
    let service = plan.update_service.expect("a port less");
    assert_eq!(
        service
            .spec
            .and_then(|spec| spec.ports)
            .map(|ports| ports.len()),
        Some(1)
    );
}

#[test]
fn a_changed_target_changes_the_same_listener_and_keeps_its_relay() {
    let mut world = World::made(&["sql"], vec![listener("sql").serving("a", "1", "s-1")]);
    world.change(|session| session.spec.target.id = Some("i-0fedcba9876543210".into()));
    let plan = world.decide();
    let update = &plan.update_listeners[0];
    assert_eq!(update.spec.target, "i-0fedcba9876543210");
    assert_eq!(update.spec.relay.as_deref(), Some("a"));
    assert_eq!(update.resource_version().as_deref(), Some("1"));
    assert!(plan.create_listeners.is_empty() && plan.delete_listeners.is_empty());
}

#[test]
fn ports_that_are_renamed_again_and_again_wait_for_those_of_before() {
    let ports: Vec<String> = (0..16).map(|number| format!("port-{number}")).collect();
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    let going = |names: &[&str]| {
        let going = names.iter().map(|name| listener(name).deleted_at(at(0)));
        going.collect::<Vec<_>>()
    };
    let renamed = World::made(&ports[8..], going(&ports[..8])).decide();
    assert_eq!(renamed.create_listeners.len(), 8);
    let world = World::made(&["sql", "web"], going(&ports[..15]));
    assert_eq!(world.decide().create_listeners.len(), 1);
    let world = World::made(&["sql", "web"], going(&ports));
    assert!(world.decide().create_listeners.is_empty());
}

#[test]
fn a_listener_that_is_being_deleted_is_waited_for_and_not_made_twice() {
    let going = listener("sql").serving("a", "1", "s-1").deleted_at(at(0));
    let plan = World::made(&["sql"], vec![going]).decide();
    assert!(plan.create_listeners.is_empty() && plan.update_listeners.is_empty());
    assert!(plan.delete_listeners.is_empty());
}

#[test]
fn a_listener_without_a_port_has_no_slice() {
    let ended = listener("sql").state("a", "1", ListenerState::Ended);
    assert!(
        World::made(&["sql"], vec![ended])
            .observed
            .slices
            .is_empty()
    );
}
