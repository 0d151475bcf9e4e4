//! What can be made of an object that can't be read as a whole: field by field, and nothing made up that grants anything.

use kube::api::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::listener::ListenerSession;
use super::{SsmListener, SsmListenerStatus, SsmSession, SsmSessionStatus};

fn read<T: DeserializeOwned>(raw: &Value) -> Option<T> {
    T::deserialize(raw).ok()
}

impl SsmListener {
    /// The listener with its spec, and what of its status can be read; none without a readable spec. `metadata`: as far
    /// as it could be read.
    ///
    /// A status of which nothing can be read is still one: somebody may have called AWS.
    #[must_use]
    pub fn salvaged(metadata: ObjectMeta, raw: &Value) -> Option<Self> {
        let status = &raw["status"];
        Some(Self {
            metadata,
            spec: read(&raw["spec"])?,
            status: (!status.is_null()).then(|| read(status).unwrap_or_else(|| pieces(status))),
        })
    }
}

/// Every session that can be read: whoever ends the listener has to end them.
fn pieces(raw: &Value) -> SsmListenerStatus {
    let sessions = raw["sessions"].as_array().into_iter().flatten();
    SsmListenerStatus {
        relay: read(&raw["relay"]).unwrap_or_default(),
        incarnation: read(&raw["incarnation"]).unwrap_or_default(),
        sessions: sessions.filter_map(read::<ListenerSession>).collect(),
        ..SsmListenerStatus::default()
    }
}

impl SsmSession {
    /// The session with its spec, and its status as far as that can be read. Without a readable spec it asks for nothing,
    /// and is there only to be let go: none, unless it is being deleted. `metadata`: as far as it could be read.
    #[must_use]
    pub fn salvaged(metadata: ObjectMeta, raw: &Value) -> Option<Self> {
        let spec = read(&raw["spec"]);
        let is_deleted = metadata.deletion_timestamp.is_some();
        let mut status = raw["status"].clone();
        let status = read::<SsmSessionStatus>(&status).or_else(|| {
            // Only conditions have times that are more than text here, and they are made anew.
            status.as_object_mut()?.remove("conditions");
            read(&status)
        });
        Some(Self {
            metadata,
            spec: spec.or_else(|| is_deleted.then(Default::default))?,
            status,
        })
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;
    use crate::crd::listener::{
        DestinationState, EndReason, ErrorClass, ListenerState, SsmListenerSpec,
    };
    use crate::crd::session::SsmSessionSpec;

    const LATE: &str = "9999-12-31T23:59:59Z";

    fn listener(status: &Value) -> Value {
        let mut listener = json!({
            "apiVersion": "ssm-operator.dev/v1alpha1",
            "kind": "SsmListener",
            "metadata": { "name": "a" },
            "status": status,
        });
        listener["spec"] = serde_json::to_value(SsmListenerSpec::default()).expect("it is data");
        listener
    }

    fn record(id: &str) -> Value {
        json!({
            "sessionId": id,
            "relay": "r",
            "incarnation": "i",
            "identity": { "region": "eu-central-1" },
            "startedAt": "",
        })
    }

    #[test]
    fn words_of_another_version_are_read_and_none_of_them_is_written() {
        let mut ended = record("s-1");
        ended["endedAt"] = json!(LATE);
        ended["endReason"] = json!("Evaporated");
        let raw = listener(&json!({
            "relay": "r",
            "incarnation": "i",
            "state": "Dreaming",
            "ready": true,
            "sessions": [ended],
            "lastError": { "class": "Boredom", "message": "" },
            "destination": "Elsewhere",
        }));
        let read: SsmListener = serde_json::from_value(raw).expect("it is read");
        let status = read.status.clone().expect("it has one");
        assert_eq!(status.state, ListenerState::Unknown);
        assert_eq!(status.sessions[0].end_reason, Some(EndReason::Unknown));
        assert_eq!(status.destination, Some(DestinationState::Unknown));
        let class = status.last_error.map(|error| error.class);
        assert_eq!(class, Some(ErrorClass::Unknown));

        let written = serde_json::to_value(read).expect("it is data")["status"].clone();
        assert_eq!(written["state"], "Starting");
        assert_eq!(written["sessions"][0]["endReason"], "ClosedByService");
        let session = json!({ "history": [{ "sessionId": "s-1", "endReason": "Evaporated" }] });
        let session: SsmSessionStatus = serde_json::from_value(session).expect("it is read");
        assert_eq!(session.history[0].end_reason, Some(EndReason::Unknown));
    }

    #[test]
    fn of_a_broken_status_every_session_is_kept_that_can_be_read() {
        let sessions = [record("s-1"), json!({ "sessionId": 7 }), record("s-2")];
        let raw = listener(&json!({ "state": "Serving", "ready": "yes", "sessions": sessions }));
        serde_json::from_value::<SsmListener>(raw.clone()).expect_err("it is broken");
        let salvaged = SsmListener::salvaged(ObjectMeta::default(), &raw).expect("it has a spec");
        let status = salvaged.status.expect("it has one");
        let ids: Vec<&str> = status
            .sessions
            .iter()
            .map(|s| s.session_id.as_str())
            .collect();
        assert_eq!(ids, ["s-1", "s-2"]);
        assert_eq!(
            (status.state, status.ready),
            (ListenerState::Starting, false)
        );
        for status in [json!(3), json!({}), json!([])] {
            let salvaged = SsmListener::salvaged(ObjectMeta::default(), &listener(&status));
            let status = salvaged.expect("it has a spec").status;
            assert_eq!(
                status,
                Some(SsmListenerStatus::default()),
                "AWS may have been called"
            );
        }
        let none = SsmListener::salvaged(ObjectMeta::default(), &listener(&Value::Null));
        assert_eq!(none.expect("it has a spec").status, None);
        let no_spec = SsmListener::salvaged(ObjectMeta::default(), &json!({ "spec": 1 }));
        assert!(no_spec.is_none());
    }

    #[test]
    fn a_session_without_a_readable_spec_is_there_only_to_be_let_go() {
        let raw = json!({ "spec": 7 });
        assert!(SsmSession::salvaged(ObjectMeta::default(), &raw).is_none());
        let deleted = ObjectMeta {
            deletion_timestamp: Some(Time(jiff::Timestamp::UNIX_EPOCH)),
            ..ObjectMeta::default()
        };
        let salvaged = SsmSession::salvaged(deleted, &raw).expect("it is to be let go");
        assert_eq!(salvaged.spec, SsmSessionSpec::default());
    }

    #[test]
    fn a_time_that_no_clock_shows_costs_a_session_its_conditions_and_nothing_else() {
        let mut raw = json!({ "status": { "class": "c", "conditions": [{
            "type": "Ready", "status": "True", "reason": "r", "message": "", "lastTransitionTime": LATE,
        }] } });
        raw["spec"] = serde_json::to_value(SsmSessionSpec::default()).expect("it is data");
        let salvaged = SsmSession::salvaged(ObjectMeta::default(), &raw).expect("it has a spec");
        let status = salvaged.status.expect("it has one");
        assert_eq!(status.class.as_deref(), Some("c"));
        assert!(status.conditions.is_empty());
    }
}
