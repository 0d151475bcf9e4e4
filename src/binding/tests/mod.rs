//! The binding against an API server of its own on loopback, which holds resourceVersions as the real one does.

mod api;
mod lease;
mod listeners;
mod plane;
mod recorder;
mod run;
mod words;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio_util::sync::CancellationToken;

use super::metrics::BindingMetrics;
use super::record::Desk;
use super::status::Writer;
use crate::broker::{Identity, SessionId};
use crate::crd::class::Aws;
use crate::crd::listener::{Document, ListenerSession, SessionReference};
use crate::crd::{SsmListener, SsmListenerSpec, SsmListenerStatus};
use crate::relay::{Report, SessionRecord, State};

const NAMESPACE: &str = "ssm-system";
const RELAY: &str = "relay-0";
const INCARNATION: &str = "run-2";

/// A listener bound to [`RELAY`], as the controller makes it; its UID is made of its name.
fn listener(name: &str) -> SsmListener {
    let mut object = SsmListener::new(
        name,
        SsmListenerSpec {
            session_ref: SessionReference {
                namespace: "shop".into(),
                name: "orders".into(),
                uid: "session-uid".into(),
            },
            relay: Some(RELAY.into()),
            port: "db".into(),
            target: "i-0123456789abcdef0".into(),
            document: Document {
                name: "AWS-StartPortForwardingSession".into(),
                parameters: [("portNumber".to_owned(), vec!["5432".to_owned()])].into(),
            },
            reason: "orders database".into(),
            identity: Aws {
                region: "eu-central-1".into(),
                ..Aws::default()
            },
            ..SsmListenerSpec::default()
        },
    );
    object.metadata.namespace = Some(NAMESPACE.into());
    object.metadata.uid = Some(format!("uid-{name}"));
    object.metadata.generation = Some(1);
    object
}

/// The listener as it looks once it was deleted and waits for its finalizer.
fn deleted(mut object: SsmListener) -> SsmListener {
    object.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    object
}

/// The listener with the status that a relay wrote in an earlier run.
fn recorded_by(mut object: SsmListener, relay: &str, incarnation: &str, port: i32) -> SsmListener {
    object.status = Some(SsmListenerStatus {
        relay: relay.into(),
        incarnation: incarnation.into(),
        port: Some(port),
        sessions: vec![ListenerSession {
            session_id: "user-1".into(),
            relay: relay.into(),
            incarnation: incarnation.into(),
            started_at: "2026-01-02T03:04:05Z".into(),
            ..ListenerSession::default()
        }],
        ..SsmListenerStatus::default()
    });
    object
}

fn report(state: State) -> Report {
    Report {
        generation: 1,
        port: Some(10_240),
        state,
        ready: true,
        sessions: Vec::new(),
        failure: None,
        retry_at: None,
        destination: None,
    }
}

fn session(id: &str) -> SessionRecord {
    SessionRecord {
        session_id: SessionId::parse(id).unwrap(),
        identity: Identity {
            region: "eu-central-1".into(),
            ssm_endpoint: Some("http://127.0.0.1:1".into()),
            ssmmessages_endpoint: None,
            role: None,
        },
        relay: RELAY.into(),
        incarnation: INCARNATION.into(),
        started_at: "2026-01-02T03:04:05.678Z".parse().unwrap(),
        end: None,
    }
}

fn writer() -> Writer {
    Writer {
        relay: RELAY.into(),
        incarnation: INCARNATION.into(),
        addresses: vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
    }
}

fn desk() -> Desk {
    Desk {
        writer: writer(),
        fenced: CancellationToken::new(),
        deadline: Duration::from_secs(20),
        metrics: BindingMetrics::default(),
    }
}
