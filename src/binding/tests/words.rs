//! Objects and reports in each other's words.

use super::*;
use crate::binding::convert::{aws_of, id_of, inherited_of, spec_of};
use crate::binding::status::status_of;
use crate::broker::{BrokerError, ErrorKind, Marker};
use crate::crd::class::{Aws, Endpoints};
use crate::crd::listener::{
    DestinationState, EndReason as RecordedEnd, ErrorClass, ListenerState, LostSession,
};
use crate::identity::identity_of;
use crate::relay::{Destination, EndReason, Failure, SessionEnd};

const ENDS: [(EndReason, RecordedEnd); 8] = [
    (EndReason::Deleted, RecordedEnd::Deleted),
    (EndReason::Replaced, RecordedEnd::Replaced),
    (EndReason::RelayLost, RecordedEnd::RelayLost),
    (EndReason::StartFailed, RecordedEnd::StartFailed),
    (EndReason::Broken, RecordedEnd::Broken),
    (EndReason::Unanswered, RecordedEnd::Unanswered),
    (
        EndReason::TerminatedExternally,
        RecordedEnd::TerminatedExternally,
    ),
    (EndReason::ClosedByService, RecordedEnd::ClosedByService),
];

#[test]
fn a_spec_says_what_start_session_is_asked_for() {
    let mut object = listener("l");
    object.spec.identity.endpoints = Some(Endpoints {
        ssm: Some("https://a".into()),
        ssmmessages: Some("https://b".into()),
    });
    object.spec.lost_sessions = vec![
        LostSession {
            session_id: "user-1".into(),
            reason: RecordedEnd::TerminatedExternally,
        },
        LostSession {
            session_id: "no id at all".into(),
            reason: RecordedEnd::ClosedByService,
        },
    ];
    let spec = spec_of(&object.spec, 7, "namespace-uid", "listener-uid");
    assert_eq!(spec.generation, 7);
    assert_eq!(spec.identity.ssm_endpoint.as_deref(), Some("https://a"));
    assert_eq!(
        spec.identity.ssmmessages_endpoint.as_deref(),
        Some("https://b")
    );
    assert_eq!(spec.request.target, "i-0123456789abcdef0");
    assert_eq!(spec.request.document, "AWS-StartPortForwardingSession");
    assert_eq!(spec.request.parameters["portNumber"], ["5432"]);
    let marker = Marker::new("namespace-uid", "listener-uid");
    assert_eq!(spec.request.reason, marker.append_to("orders database"));
    let lost = (
        SessionId::parse("user-1").unwrap(),
        EndReason::TerminatedExternally,
    );
    assert_eq!(spec.lost, [lost]);
}

#[test]
fn a_recorded_port_counts_for_the_relay_that_held_it_and_sessions_for_all() {
    let object = recorded_by(listener("l"), RELAY, "run-1", 10_240);
    assert_eq!(inherited_of(&object, RELAY).port, Some(10_240));
    let other = inherited_of(&object, "relay-1");
    assert_eq!(other.port, None);
    assert_eq!(other.sessions.len(), 1);
    assert_eq!(other.sessions[0].incarnation, "run-1");
}

#[test]
fn a_session_is_read_back_as_it_was_recorded() {
    let mut sessions = vec![session("user-live")];
    for (index, (reason, recorded)) in ENDS.into_iter().enumerate() {
        let at = "2026-01-02T04:00:00Z".parse().unwrap();
        let end = SessionEnd {
            at,
            reason,
            message: format!("because of {recorded:?}"),
        };
        sessions.push(SessionRecord {
            end: Some(end),
            ..session(&format!("user-{index}"))
        });
    }
    let said = Report {
        sessions: sessions.clone(),
        ..report(State::Serving)
    };
    let status = status_of(&said, &writer());
    for (index, (_, recorded)) in ENDS.into_iter().enumerate() {
        assert_eq!(status.sessions[index + 1].end_reason, Some(recorded));
    }
    let mut object = listener("l");
    object.spec.former_identities = vec![aws_of(&sessions[0].identity)];
    object.status = Some(status);
    assert_eq!(inherited_of(&object, RELAY).sessions, sessions);
}

#[test]
fn a_session_is_ended_with_an_identity_that_its_listener_has_or_had_and_with_no_other() {
    let recorded = session("user-live").identity;
    let said = Report {
        sessions: vec![session("user-live")],
        ..report(State::Serving)
    };
    let mut object = listener("l");
    object.status = Some(status_of(&said, &writer()));
    let inherited = |object: &SsmListener| inherited_of(object, RELAY).sessions[0].identity.clone();
    assert_eq!(inherited(&object), identity_of(&object.spec.identity));
    object.spec.former_identities = vec![Aws::default(), aws_of(&recorded)];
    assert_eq!(inherited(&object), recorded);
}

#[test]
fn a_session_with_an_unreadable_time_can_still_be_terminated() {
    let mut object = recorded_by(listener("l"), RELAY, "run-1", 10_240);
    object.status.as_mut().unwrap().sessions[0].started_at = "yesterday".into();
    let inherited = inherited_of(&object, RELAY);
    assert_eq!(inherited.sessions[0].session_id.as_str(), "user-1");
    assert_eq!(inherited.sessions[0].end, None);
}

#[test]
fn a_status_says_who_wrote_it_and_where_clients_go() {
    let said = Report {
        retry_at: Some("2026-01-02T03:04:05.123456Z".parse().unwrap()),
        destination: Some(Destination::Refused),
        ..report(State::Waiting)
    };
    let status = status_of(&said, &writer());
    assert_eq!(status.relay, RELAY);
    assert_eq!(status.incarnation, INCARNATION);
    assert_eq!(status.addresses, ["192.0.2.7", "2001:db8::7"]);
    assert_eq!(status.port, Some(10_240));
    assert_eq!(status.observed_generation, Some(1));
    assert_eq!(status.state, ListenerState::Waiting);
    assert_eq!(status.retry_at.as_deref(), Some("2026-01-02T03:04:05.123Z"));
    assert_eq!(status.destination, Some(DestinationState::Refused));
}

#[test]
fn every_failure_has_its_class() {
    let broker = |kind| Failure::Broker(BrokerError::new(kind, "StartSession", "no"));
    let cases = [
        (broker(ErrorKind::AccessDenied), ErrorClass::AccessDenied),
        (
            broker(ErrorKind::CredentialsUnavailable),
            ErrorClass::CredentialsUnavailable,
        ),
        (
            broker(ErrorKind::InvalidDocument),
            ErrorClass::InvalidDocument,
        ),
        (
            broker(ErrorKind::InvalidRequest),
            ErrorClass::InvalidRequest,
        ),
        (
            broker(ErrorKind::TargetNotConnected),
            ErrorClass::TargetNotConnected,
        ),
        (broker(ErrorKind::Throttled), ErrorClass::Throttled),
        (broker(ErrorKind::Unavailable), ErrorClass::AwsUnavailable),
        (broker(ErrorKind::Gone), ErrorClass::SessionClosed),
        (Failure::DataChannel("x".into()), ErrorClass::DataChannel),
        (
            Failure::Unsupported("x".into()),
            ErrorClass::UnsupportedSessionType,
        ),
        (
            Failure::SessionClosed("x".into()),
            ErrorClass::SessionClosed,
        ),
        (Failure::EditedAgain(None), ErrorClass::SessionClosed),
        (
            Failure::EditedAgain(Some(broker(ErrorKind::AccessDenied).into())),
            ErrorClass::SessionClosed,
        ),
        (Failure::NoPort("x".into()), ErrorClass::NoPort),
        (Failure::Recording("x".into()), ErrorClass::DataChannel),
    ];
    for (failure, class) in cases {
        let words = failure.to_string();
        let said = Report {
            failure: Some(failure),
            ..report(State::Waiting)
        };
        let error = status_of(&said, &writer()).last_error.unwrap();
        assert_eq!((error.class, error.message), (class, words));
    }
}

#[test]
fn a_listener_made_anew_under_its_name_is_another_one() {
    let mut anew = listener("l");
    anew.metadata.uid = Some("another".into());
    assert_ne!(id_of(&anew), id_of(&listener("l")));
    assert_eq!(
        id_of(&SsmListener::new("l", SsmListenerSpec::default())),
        None
    );
}

#[test]
fn a_role_is_recorded_with_the_session_name_under_which_it_is_assumed() {
    let aws = Aws {
        region: "eu-central-1".into(),
        role_arn: Some("arn:aws:iam::111122223333:role/sessions".into()),
        external_id: Some("orders".into()),
        ..Aws::default()
    };
    let identity = identity_of(&aws);
    let role = identity.role.clone().unwrap();
    assert_eq!(role.arn, "arn:aws:iam::111122223333:role/sessions");
    assert_eq!(role.external_id.as_deref(), Some("orders"));
    assert_eq!(role.session_name, "ssm-session-operator");
    let recorded = aws_of(&identity);
    assert_eq!(
        recorded.session_name.as_deref(),
        Some("ssm-session-operator")
    );
    assert_eq!(
        identity_of(&recorded),
        identity,
        "with one name, one identity"
    );

    let named = Aws {
        session_name: Some("orders-cluster".into()),
        ..aws
    };
    assert_eq!(aws_of(&identity_of(&named)), named);
    assert_eq!(identity_of(&Aws::default()).role, None);
}
