//! Which Events follow from which statuses, claim by claim.

use super::*;
use crate::crd::condition::{
    AvailableReason, AwsReachableReason, Condition as Said, Conditions, DestinationReachableReason,
    ReadyReason, StalledReason, TargetConnectedReason,
};
use crate::crd::listener::EndReason;

fn session(id: &str, reason: Option<EndReason>) -> AwsSession {
    AwsSession {
        session_id: id.into(),
        port: Some("sql".into()),
        end_reason: reason,
        ..AwsSession::default()
    }
}

fn saying(said: &[Said]) -> SsmSessionStatus {
    let mut conditions = Conditions::new(1);
    for condition in said {
        conditions.set(*condition, "words");
    }
    SsmSessionStatus {
        conditions: conditions.merge(&[], jiff::Timestamp::UNIX_EPOCH),
        ..SsmSessionStatus::default()
    }
}

fn trouble(reason: &str) -> SessionEvent {
    SessionEvent::Trouble {
        reason: reason.into(),
        message: "words".into(),
    }
}

#[test]
fn the_same_status_again_is_no_event() {
    let mut status = saying(&[Said::Stalled(StalledReason::ServiceConflict)]);
    status.sessions.push(session("a", None));
    assert_eq!(between(&status, &status, &[]), []);
}

#[test]
fn a_session_starts_once_and_ends_once() {
    let none = SsmSessionStatus::default();
    let up = SsmSessionStatus {
        sessions: vec![session("a", None)],
        ..none.clone()
    };
    let end = session("a", Some(EndReason::Deleted));
    let over = SsmSessionStatus {
        history: vec![end.clone()],
        ..none.clone()
    };
    let started = SessionEvent::SessionStarted {
        session: "a".into(),
        port: "sql".into(),
    };
    let ended = SessionEvent::SessionEnded {
        session: "a".into(),
        why: "Deleted".into(),
    };
    assert_eq!(between(&none, &up, &[]), [started]);
    assert_eq!(between(&up, &over, &[end]), [ended]);
    assert_eq!(between(&over, &over, &[]), []);
}

#[test]
fn an_end_for_which_the_history_has_no_room_is_told_all_the_same() {
    let none = SsmSessionStatus::default();
    let end = AwsSession {
        end_message: Some("Idle".into()),
        ..session("a", Some(EndReason::ClosedByService))
    };
    let ended = SessionEvent::SessionEnded {
        session: "a".into(),
        why: "ClosedByService, Idle".into(),
    };
    assert_eq!(between(&none, &none, &[end]), [ended]);
}

#[test]
fn a_session_that_is_seen_only_after_its_end_was_not_started_now() {
    let none = SsmSessionStatus::default();
    let ending = SsmSessionStatus {
        sessions: vec![session("a", Some(EndReason::RelayLost))],
        ..none.clone()
    };
    assert_eq!(between(&none, &ending, &[]), []);
}

#[test]
fn each_trouble_is_a_warning_with_the_reason_and_the_words_of_its_condition() {
    let none = SsmSessionStatus::default();
    let stalled = StalledReason::ALL.iter().map(|r| Said::Stalled(*r));
    let troubles = [
        Said::TargetConnected(TargetConnectedReason::TargetNotConnected),
        Said::AwsReachable(AwsReachableReason::Throttled),
        Said::AwsReachable(AwsReachableReason::AccessDenied),
        Said::AwsReachable(AwsReachableReason::CredentialsUnavailable),
        Said::AwsReachable(AwsReachableReason::AwsUnavailable),
        Said::DestinationReachable(DestinationReachableReason::Refused),
    ];
    for condition in troubles.into_iter().chain(stalled) {
        let told = between(&none, &saying(&[condition]), &[]);
        assert_eq!(told, [trouble(condition.reason())], "{condition:?}");
        let event = told[0].to_event();
        assert_eq!(event.type_, EventType::Warning);
        assert_eq!(event.reason, condition.reason());
        assert_eq!(event.note.as_deref(), Some("words"));
    }
}

#[test]
fn what_goes_well_or_only_follows_is_no_trouble() {
    let none = SsmSessionStatus::default();
    let quiet = saying(&[
        Said::Ready(ReadyReason::Failed),
        Said::Available(AvailableReason::NoSession),
        Said::TargetConnected(TargetConnectedReason::Connected),
        Said::AwsReachable(AwsReachableReason::Reachable),
        Said::DestinationReachable(DestinationReachableReason::Dialled),
    ]);
    assert_eq!(between(&none, &quiet, &[]), []);
    let stalled = saying(&[Said::Stalled(StalledReason::InvalidDocument)]);
    assert_eq!(between(&stalled, &none, &[]), [], "nor what has healed");
}

#[test]
fn a_trouble_is_told_once_until_its_reason_changes() {
    let denied = Said::AwsReachable(AwsReachableReason::AccessDenied);
    let throttled = Said::AwsReachable(AwsReachableReason::Throttled);
    let stalled = Said::Stalled(StalledReason::AccessDenied);
    let first = saying(&[denied]);
    let later = saying(&[denied, stalled]);
    assert_eq!(between(&first, &later, &[]), [], "Stalled repeats it");
    assert_eq!(between(&later, &first, &[]), []);
    let none = SsmSessionStatus::default();
    assert_eq!(between(&none, &later, &[]), [trouble("AccessDenied")]);
    let other = saying(&[throttled]);
    assert_eq!(between(&first, &other, &[]), [trouble("Throttled")]);
}

#[test]
fn long_words_fit_into_an_event() {
    let message = "\u{1F600}".repeat(2000);
    let told = SessionEvent::Trouble {
        reason: "AwsUnavailable".into(),
        message,
    };
    let note = told.to_event().note.expect("a note");
    assert!(note.len() <= 1024, "{}", note.len());
}

#[test]
fn a_missing_right_is_said_and_a_namespace_that_goes_is_not() {
    let refused = |code: u16, cause: &str| {
        let status = serde_json::json!({
            "code": code,
            "message": "words",
            "details": { "causes": [{ "reason": cause }] },
        });
        let status: kube::core::Status = serde_json::from_value(status).expect("a status");
        Error::api("publish an Event")(kube::Error::Api(status.boxed()))
    };
    assert_eq!(denied(&refused(403, "")), Some("words"));
    assert_eq!(denied(&refused(403, "NamespaceTerminating")), None);
    assert_eq!(denied(&refused(404, "")), None);
}
