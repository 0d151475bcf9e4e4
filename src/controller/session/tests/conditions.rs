//! What the conditions say, state by state.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::broker::{BrokerError, ErrorKind};
use crate::controller::context::Refusal;
use crate::controller::fixtures::{aws, listener};
use crate::crd::listener::{DestinationState, ErrorClass, ListenerError, ListenerState};

fn failed(class: ErrorClass) -> World {
    World::made(&["sql"], vec![listener("sql").failed("a", "1", class)])
}

#[test]
fn a_session_that_serves_is_ready_and_says_nothing_abnormal() {
    let mut world = World::made(&["sql"], vec![listener("sql").serving("a", "1", "s-1")]);
    let status = world.report();
    let expected = [
        "Ready=True/Available",
        "Available=True/Serving",
        "TargetConnected=True/Connected",
        "AwsReachable=True/Reachable",
    ];
    assert_eq!(words(&status), expected);
    let endpoint = status.endpoint.expect("an endpoint");
    assert_eq!(
        (endpoint.host.as_str(), endpoint.ports.len()),
        ("db.shop.svc", 1)
    );
    assert_eq!(status.class.as_deref(), Some("plain"));
}

#[test]
fn the_same_state_gives_the_same_bytes() {
    let mut world = failed(ErrorClass::Throttled);
    let first = serde_json::to_string(&world.report()).expect("a status");
    let second = serde_json::to_string(&world.after(3600)).expect("a status");
    assert_eq!(first, second);
}

#[test]
fn a_new_session_is_starting() {
    let status = World::new(&["sql"]).report();
    let expected = [
        "Ready=False/Progressing",
        "Reconciling=True/Starting",
        "Available=False/NoSession",
    ];
    assert_eq!(words(&status), expected);
    let mut world = World::made(
        &["sql"],
        vec![listener("sql").state("a", "1", ListenerState::Starting)],
    );
    assert!(says(&world.report(), "Reconciling=True/Starting"));
}

#[test]
fn without_a_relay_it_says_so() {
    let mut world = World::made(&["sql"], vec![listener("sql")]);
    world.observed.relays = fixtures::relays(&[]);
    let status = world.report();
    assert!(
        says(&status, "Available=False/NoRelay") && says(&status, "Reconciling=True/Resolving")
    );
}

#[test]
fn relays_without_room_are_said_and_one_that_only_waits_to_be_bound_is_not_called_that() {
    let mut world = World::made(&["sql"], vec![listener("sql")]);
    assert!(says(&world.report(), "Available=False/NoSession"));
    world.observed.relays_full = true;
    let status = world.report();
    assert!(says(&status, "Available=False/NoCapacity"));
    assert!(says(&status, "Reconciling=True/Resolving"));
    let status = failed(ErrorClass::NoPort).report();
    assert!(says(&status, "Available=False/NoCapacity"), "{status:?}");
}

#[test]
fn a_session_that_aws_does_not_let_us_resume_says_so_and_not_that_all_is_well() {
    let lost = listener("sql").serving("a", "1", "s-1").change(|listener| {
        let status = listener.status.as_mut().expect("set above");
        status.ready = false;
        status.last_error = Some(ListenerError {
            class: ErrorClass::AccessDenied,
            message: "ResumeSession: no permission".into(),
        });
    });
    let status = World::made(&["sql"], vec![lost]).report();
    assert!(says(&status, "AwsReachable=False/AccessDenied"));
    assert!(says(&status, "Available=False/NoSession"));
    assert!(
        !words(&status)
            .iter()
            .any(|word| word.starts_with("TargetConnected"))
    );
}

#[test]
fn until_a_slice_leads_there_nobody_can_dial() {
    let mut world = World::made(&["sql"], vec![listener("sql").serving("a", "1", "s-1")]);
    world.observed.slices.clear();
    assert!(says(&world.report(), "Available=False/NoSession"));
}

#[test]
fn one_port_of_two_is_degraded() {
    let listeners = vec![
        listener("sql").serving("a", "1", "s-1"),
        listener("web").failed("a", "1", ErrorClass::AwsUnavailable),
    ];
    let status = World::made(&["sql", "web"], listeners).report();
    assert!(says(&status, "Ready=False/Degraded") && says(&status, "Available=False/NoSession"));
    assert!(says(&status, "Reconciling=True/Retrying"));
}

#[test]
fn a_target_that_is_not_connected_is_retried_for_ever_and_never_stalled() {
    let mut world = failed(ErrorClass::TargetNotConnected);
    for status in [world.report(), world.after(100_000)] {
        assert!(says(&status, "TargetConnected=False/TargetNotConnected"));
        assert!(says(&status, "Reconciling=True/Retrying"));
        assert!(status.next_retry_time.is_some());
        assert!(
            !words(&status)
                .iter()
                .any(|word| word.starts_with("Stalled"))
        );
    }
}

#[test]
fn what_only_the_user_can_mend_is_stalled_at_once() {
    for (class, reason) in [
        (ErrorClass::InvalidDocument, StalledReason::InvalidDocument),
        (ErrorClass::InvalidRequest, StalledReason::InvalidRequest),
        (
            ErrorClass::UnsupportedSessionType,
            StalledReason::UnsupportedSessionType,
        ),
    ] {
        let status = failed(class).report();
        assert!(
            is_stalled(&status, reason) && says(&status, "Ready=False/Failed"),
            "{class:?}"
        );
    }
}

#[test]
fn a_denied_call_is_stalled_after_two_minutes_and_heals_when_it_works() {
    let mut world = failed(ErrorClass::AccessDenied);
    let status = world.report();
    assert!(says(&status, "AwsReachable=False/AccessDenied"));
    assert!(!is_stalled(&status, StalledReason::AccessDenied));
    assert_eq!(world.decide().requeue_after, Some(SETTINGS.stalled_after));
    assert!(!is_stalled(&world.after(119), StalledReason::AccessDenied));
    assert_eq!(world.decide().requeue_after, Some(Duration::from_secs(1)));
    assert!(is_stalled(&world.after(1), StalledReason::AccessDenied));
    world.observed.memory = Memory::default();
    assert!(
        is_stalled(&world.after(1), StalledReason::AccessDenied),
        "also for a new controller"
    );
    world.listeners(vec![listener("sql").serving("a", "1", "s-1")]);
    world.apply_slices();
    assert!(says(&world.after(1), "Ready=True/Available"));
}

#[test]
fn a_missing_class_is_looked_for_and_stalled_after_two_minutes() {
    let mut world = World::new(&["sql"]);
    world.observed.class = ClassFound::Missing {
        message: "no class".into(),
        gone: true,
    };
    let plan = world.decide();
    assert!(
        !plan.add_finalizer && plan.create_service.is_none() && plan.create_listeners.is_empty()
    );
    assert!(says(&world.report(), "Reconciling=True/Resolving"));
    assert!(is_stalled(&world.after(120), StalledReason::ClassNotFound));
}

#[test]
fn a_service_of_somebody_else_is_stalled_at_once() {
    let mut world = World::new(&["sql"]);
    world.observed.service = ServiceFound::Conflict {
        message: "theirs".into(),
    };
    let status = world.report();
    assert!(is_stalled(&status, StalledReason::ServiceConflict) && status.endpoint.is_none());
    world.observed.service = ServiceFound::Leaving {
        message: "going".into(),
    };
    assert!(says(&world.report(), "Reconciling=True/Resolving"));
}

#[test]
fn what_the_api_server_refuses_is_stalled_for_that_generation() {
    let mut world = World::new(&["sql"]);
    world.observed.memory.refusal = Some(refusal(false));
    assert!(is_stalled(&world.report(), StalledReason::InvalidRequest));
    world.change(|session| session.metadata.generation = Some(2));
    assert!(!is_stalled(&world.report(), StalledReason::InvalidRequest));
}

fn refusal(forbidden: bool) -> Refusal {
    Refusal {
        generation: 1,
        message: "exceeded quota".into(),
        forbidden,
    }
}

#[test]
fn what_a_quota_or_a_policy_forbids_is_said_at_once_and_stalled_once_it_lasts() {
    let mut world = World::new(&["sql"]);
    world.observed.memory.refusal = Some(refusal(true));
    let status = world.report();
    assert!(says(&status, "Reconciling=True/Retrying"));
    let said = status
        .conditions
        .iter()
        .any(|c| c.message == "exceeded quota");
    assert!(said, "{:?}", status.conditions);
    assert!(is_stalled(&world.after(120), StalledReason::InvalidRequest));
    world.observed.memory.refusal = None;
    assert!(says(&world.after(1), "Reconciling=True/Starting"));
}

#[test]
fn what_is_refused_while_a_session_is_deleted_is_said() {
    let mut world = World::made(&["sql"], vec![listener("sql").serving("a", "1", "s-1")]);
    world.change(|session| session.metadata.deletion_timestamp = Some(Time(at(0))));
    world.observed.memory.refusal = Some(refusal(true));
    let status = world.report();
    assert!(says(&status, "Ready=False/Deleting"));
    assert!(status.conditions[0].message.contains("exceeded quota"));
}

#[test]
fn a_spec_that_the_relay_has_not_taken_up_is_retargeting() {
    let serving = listener("sql").serving("a", "1", "s-1");
    let newer = serving.change(|listener| listener.metadata.generation = Some(2));
    let status = World::made(&["sql"], vec![newer]).report();
    assert!(says(&status, "Reconciling=True/Retargeting"));
    assert!(says(&status, "Ready=False/Progressing"));
    assert!(says(&status, "Available=True/Serving"), "it still serves");
}

#[test]
fn an_error_of_an_earlier_run_of_the_relay_counts_no_more() {
    let mut world = failed(ErrorClass::InvalidDocument);
    world.observed.relays = fixtures::relays(&[("a", "2")]);
    let status = world.report();
    assert!(!is_stalled(&status, StalledReason::InvalidDocument));
    assert!(says(&status, "Reconciling=True/Starting"));
}

#[test]
fn each_failure_of_aws_has_its_reason() {
    for (class, reason) in [
        (ErrorClass::Throttled, "Throttled"),
        (ErrorClass::CredentialsUnavailable, "CredentialsUnavailable"),
        (ErrorClass::AwsUnavailable, "AwsUnavailable"),
    ] {
        let status = failed(class).report();
        assert!(
            says(&status, &format!("AwsReachable=False/{reason}")),
            "{class:?}"
        );
        assert!(says(&status, "Reconciling=True/Retrying"), "{class:?}");
    }
}

#[test]
fn a_failed_poll_shows_without_taking_readiness() {
    let mut world = World::made(&["sql"], vec![listener("sql").serving("a", "1", "s-1")]);
    let denied = BrokerError::new(
        ErrorKind::AccessDenied,
        "DescribeSessions",
        "not authorized",
    );
    world.poll(|snapshot| snapshot.error = Some(denied));
    let status = world.report();
    assert!(
        says(&status, "AwsReachable=False/AccessDenied") && says(&status, "Ready=True/Available")
    );
}

#[test]
fn an_identity_with_which_nothing_runs_any_more_is_not_spoken_of() {
    let mut other = aws();
    other.region = "eu-test-2".into();
    let moved = listener("sql").serving("a", "1", "s-1").ended("s-1");
    let mut moved = moved.serving("a", "1", "s-2");
    moved = moved.change(|listener| {
        listener.spec.former_identities = vec![other.clone()];
        let status = listener.status.as_mut().expect("serving");
        status.sessions[1].identity = other.clone();
    });
    let mut world = World::made(&["sql"], vec![moved.clone()]);
    let denied = BrokerError::new(ErrorKind::AccessDenied, "DescribeSessions", "denied");
    let snapshot = Snapshot {
        error: Some(denied),
        ..Snapshot::default()
    };
    world
        .observed
        .snapshots
        .insert(identity_of(&other), Arc::new(snapshot));
    world.poll(|_| {});
    assert!(says(&world.report(), "AwsReachable=True/Reachable"));
    world.listeners(vec![moved.change(|listener| {
        let status = listener.status.as_mut().expect("serving");
        status.sessions[1].ended_at = None;
    })]);
    assert!(says(&world.report(), "AwsReachable=False/AccessDenied"));
}

#[test]
fn an_answer_to_another_identity_is_none_to_the_class() {
    let mut world = World::made(&["sql"], vec![listener("sql")]);
    let mut other = aws();
    other.region = "eu-test-2".into();
    let answered = Snapshot {
        round: 1,
        ..Snapshot::default()
    };
    world
        .observed
        .snapshots
        .insert(identity_of(&other), Arc::new(answered));
    assert!(!says(&world.report(), "AwsReachable=True/Reachable"));
    world.poll(|_| {});
    assert!(says(&world.report(), "AwsReachable=True/Reachable"));
}

#[test]
fn a_refused_destination_changes_neither_availability_nor_readiness() {
    let refused = listener("sql").serving("a", "1", "s-1").change(|listener| {
        let status = listener.status.as_mut().expect("serving");
        status.destination = Some(DestinationState::Refused);
    });
    let status = World::made(&["sql"], vec![refused]).report();
    assert!(says(&status, "DestinationReachable=False/Refused"));
    assert!(says(&status, "Ready=True/Available") && says(&status, "Available=True/Serving"));
}

#[test]
fn a_deleted_session_says_deleting_and_nothing_abnormal() {
    let mut world = World::made(&["sql"], vec![listener("sql").serving("a", "1", "s-1")]);
    world.change(|session| session.metadata.deletion_timestamp = Some(Time(at(0))));
    let status = world.report();
    assert!(says(&status, "Ready=False/Deleting"));
    assert!(
        !words(&status)
            .iter()
            .any(|word| word.contains("Stalled") || word.contains("Reconc"))
    );
}

#[test]
fn a_changed_identity_reaches_the_listener() {
    let mut world = World::made(&["sql"], vec![listener("sql").serving("a", "1", "s-1")]);
    let mut other = aws();
    other.region = "eu-test-2".into();
    world.observed.class = ClassFound::Ours {
        name: "plain".into(),
        identity: other.clone(),
    };
    let plan = world.decide();
    assert_eq!(plan.update_listeners[0].spec.identity, other);
    let status = plan.status.expect("a status");
    assert!(says(&status, "Ready=False/Progressing"));
}
