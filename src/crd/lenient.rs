//! What can be made of an object that can't be read as a whole: field by field, and nothing made up that grants anything.

use kube::api::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::listener::ListenerSession;
use super::{
    DEFAULT_CLASS_ANNOTATION, SsmListener, SsmListenerSpec, SsmListenerStatus, SsmSession,
    SsmSessionClass, SsmSessionClassSpec, SsmSessionStatus, limit,
};

/// Why a class can't be read: on none that the API server has, which are read without it.
const UNREAD_ANNOTATION: &str = "ssm-operator.dev/unread";

/// AWS sessions that a status has.
const SESSIONS_MAX: usize = limit::SESSIONS_MAX as usize;

fn read<T: DeserializeOwned>(raw: &Value) -> Option<T> {
    T::deserialize(raw).ok()
}

impl SsmListener {
    /// The listener with its spec, and what of its status can be read; what can't be is what it was before. None without
    /// a spec, unless it is being deleted and says with what AWS is called. `metadata`: as far as it could be read.
    /// `previous`: as it was when it could be read last.
    ///
    /// A status of which nothing can be read is still one: somebody may have called AWS.
    #[must_use]
    pub fn salvaged(metadata: ObjectMeta, raw: &Value, previous: Option<&Self>) -> Option<Self> {
        let previous = previous.filter(|previous| previous.metadata.uid == metadata.uid);
        let (spec, status) = (&raw["spec"], &raw["status"]);
        let is_deleted = metadata.deletion_timestamp.is_some();
        Some(Self {
            spec: read(spec)
                .or_else(|| Some(previous?.spec.clone()))
                .or_else(|| ends(spec).filter(|_| is_deleted))?,
            status: (!status.is_null()).then(|| {
                let previous = previous.and_then(|previous| previous.status.as_ref());
                read(status).unwrap_or_else(|| pieces(status, previous))
            }),
            metadata,
        })
    }
}

/// What is needed to end what runs for a listener.
fn ends(spec: &Value) -> Option<SsmListenerSpec> {
    Some(SsmListenerSpec {
        session_ref: read(&spec["sessionRef"]).unwrap_or_default(),
        relay: read(&spec["relay"]).unwrap_or_default(),
        identity: read(&spec["identity"])?,
        former_identities: read(&spec["formerIdentities"]).unwrap_or_default(),
        ..SsmListenerSpec::default()
    })
}

/// The status as it was, if the same run of the same relay wrote it, with every session that can be read, or could be:
/// whoever ends the listener has to end them. No more than a status takes: of what was before, those go first that have
/// ended, and what is on no record is swept.
fn pieces(raw: &Value, previous: Option<&SsmListenerStatus>) -> SsmListenerStatus {
    let (relay, incarnation) = (&raw["relay"], &raw["incarnation"]);
    let is_same = |previous: &&SsmListenerStatus| {
        let same = |raw: &Value, of: &str| raw.as_str().is_none_or(|raw| raw == of);
        same(relay, &previous.relay) && same(incarnation, &previous.incarnation)
    };
    let sessions = raw["sessions"].as_array().into_iter().flatten();
    let mut sessions: Vec<ListenerSession> = sessions.filter_map(read).collect();
    let before = previous.iter().flat_map(|previous| &previous.sessions);
    let mut before: Vec<_> = before.collect();
    before.sort_by_key(|before| before.ended_at.is_some());
    for before in before {
        if sessions.len() < SESSIONS_MAX
            && sessions.iter().all(|of| of.session_id != before.session_id)
        {
            sessions.push(before.clone());
        }
    }
    let new = || SsmListenerStatus {
        relay: read(relay).unwrap_or_default(),
        incarnation: read(incarnation).unwrap_or_default(),
        ..SsmListenerStatus::default()
    };
    SsmListenerStatus {
        sessions,
        ..previous.filter(is_same).cloned().unwrap_or_else(new)
    }
}

impl SsmSessionClass {
    /// A class that can't be read: that it is there, whether it is the default, and why. Whose it is nobody knows, so it
    /// is nobody's: its `controllerName` is empty, which no schema takes.
    #[must_use]
    pub fn unreadable(metadata: ObjectMeta, why: &str) -> Self {
        let mut annotations = metadata.annotations.unwrap_or_default();
        annotations.retain(|key, _| key == DEFAULT_CLASS_ANNOTATION);
        annotations.insert(UNREAD_ANNOTATION.to_owned(), why.to_owned());
        Self {
            metadata: ObjectMeta {
                name: metadata.name,
                uid: metadata.uid,
                resource_version: metadata.resource_version,
                annotations: Some(annotations),
                ..ObjectMeta::default()
            },
            spec: SsmSessionClassSpec::default(),
        }
    }

    /// Why it can't be read, if so.
    #[must_use]
    pub fn unread(&self) -> Option<&str> {
        let annotations = self.metadata.annotations.as_ref();
        let why = annotations.and_then(|of| of.get(UNREAD_ANNOTATION));
        let why = why.map_or("no words", String::as_str);
        self.spec.controller_name.is_empty().then_some(why)
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
        let salvaged = SsmListener::salvaged(ObjectMeta::default(), &raw, None).expect("a spec");
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
            let salvaged = SsmListener::salvaged(ObjectMeta::default(), &listener(&status), None);
            let status = salvaged.expect("it has a spec").status;
            assert_eq!(
                status,
                Some(SsmListenerStatus::default()),
                "AWS may have been called"
            );
        }
        let none = SsmListener::salvaged(ObjectMeta::default(), &listener(&Value::Null), None);
        assert_eq!(none.expect("it has a spec").status, None);
        let no_spec = SsmListener::salvaged(ObjectMeta::default(), &json!({ "spec": 1 }), None);
        assert!(no_spec.is_none());
    }

    fn deleted() -> ObjectMeta {
        ObjectMeta {
            deletion_timestamp: Some(Time(jiff::Timestamp::UNIX_EPOCH)),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn what_can_not_be_read_of_a_listener_is_what_it_was_before() {
        let status = json!({
            "relay": "r", "incarnation": "i", "state": "Serving", "ready": true, "port": 7,
            "addresses": ["192.0.2.1"], "sessions": [record("s-1"), record("s-2")],
        });
        let before: SsmListener = serde_json::from_value(listener(&status)).expect("it is read");
        let salvaged = |change: Value, previous: &SsmListener| {
            let mut raw = listener(&status);
            for (key, value) in change.as_object().expect("fields") {
                raw["status"][key] = value.clone();
            }
            let salvaged = SsmListener::salvaged(ObjectMeta::default(), &raw, Some(previous));
            salvaged.and_then(|of| of.status).expect("a status")
        };
        let ids = |status: &SsmListenerStatus| {
            let ids = status.sessions.iter().map(|of| of.session_id.clone());
            ids.collect::<Vec<_>>()
        };
        let sessions = json!([record("s-3"), { "sessionId": 7 }, record("s-2")]);
        let served = salvaged(json!({ "port": "x", "sessions": sessions }), &before);
        assert_eq!(
            (served.port, served.ready),
            (Some(7), true),
            "clients are led there"
        );
        assert_eq!(ids(&served), ["s-3", "s-2", "s-1"]);

        let moved = salvaged(json!({ "port": "x", "incarnation": "j" }), &before);
        assert_eq!(
            (moved.port, moved.ready),
            (None, false),
            "another run wrote it"
        );
        assert_eq!(
            (moved.relay.as_str(), moved.incarnation.as_str()),
            ("r", "j")
        );
        assert_eq!(ids(&moved), ["s-1", "s-2"]);

        let mut other = before.clone();
        other.metadata.uid = Some("another".into());
        assert_eq!(salvaged(json!({ "port": "x" }), &other).port, None);
    }

    #[test]
    fn of_sessions_that_come_and_go_unread_no_more_are_kept_than_a_status_takes() {
        let mut ended = record("s-ended");
        ended["endedAt"] = json!(LATE);
        let status = json!({ "sessions": [ended, record("s-live")] });
        let mut known = SsmListener::salvaged(ObjectMeta::default(), &listener(&status), None);
        for number in 1..SESSIONS_MAX {
            let sessions = json!([record(&format!("s-{number}")), { "sessionId": 7 }]);
            let raw = listener(&json!({ "sessions": sessions }));
            known = SsmListener::salvaged(ObjectMeta::default(), &raw, known.as_ref());
        }
        let status = known.and_then(|known| known.status).expect("a status");
        let ids = || status.sessions.iter().map(|of| of.session_id.as_str());
        assert_eq!(ids().count(), SESSIONS_MAX);
        assert_eq!(ids().next(), Some("s-63"), "what can be read comes first");
        assert!(ids().all(|id| id != "s-ended") && ids().any(|id| id == "s-live"));
    }

    #[test]
    fn a_deleted_listener_without_a_readable_spec_is_ended_with_its_identity() {
        let mut raw = listener(&Value::Null);
        raw["spec"]["document"] = json!(7);
        raw["spec"]["identity"]["region"] = json!("eu-central-1");
        raw["spec"]["sessionRef"]["uid"] = json!("u");
        assert!(SsmListener::salvaged(ObjectMeta::default(), &raw, None).is_none());
        let salvaged = SsmListener::salvaged(deleted(), &raw, None).expect("it is to be ended");
        assert_eq!(salvaged.spec.identity.region, "eu-central-1");
        assert_eq!(salvaged.spec.session_ref.uid, "u");
        raw["spec"]["identity"] = json!(7);
        assert!(SsmListener::salvaged(deleted(), &raw, None).is_none());
    }

    #[test]
    fn a_class_that_can_not_be_read_is_nobodys_and_says_why() {
        let annotations = [(DEFAULT_CLASS_ANNOTATION, "true"), ("a", "b")];
        let annotations = annotations.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let metadata = ObjectMeta {
            name: Some("plain".into()),
            annotations: Some(annotations.into()),
            ..ObjectMeta::default()
        };
        let class = SsmSessionClass::unreadable(metadata, "spec: nonsense");
        assert_eq!(class.unread(), Some("spec: nonsense"));
        let kept = class.metadata.annotations.expect("some");
        assert!(kept.contains_key(DEFAULT_CLASS_ANNOTATION) && !kept.contains_key("a"));
        let spec = json!({ "spec": { "aws": { "region": "eu-central-1" } }, "metadata": {} });
        let read: SsmSessionClass = serde_json::from_value(spec).expect("it is read");
        assert_eq!(read.unread(), None);
    }

    #[test]
    fn a_session_without_a_readable_spec_is_there_only_to_be_let_go() {
        let raw = json!({ "spec": 7 });
        assert!(SsmSession::salvaged(ObjectMeta::default(), &raw).is_none());
        let salvaged = SsmSession::salvaged(deleted(), &raw).expect("it is to be let go");
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
