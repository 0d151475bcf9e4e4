//! Objects for tests: each builder begins with the plainest object that is valid, and a test says what differs.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use http::{Request, Response};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use kube::api::ObjectMeta;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::context::Context;
use super::drain::Drain;
use super::metrics::Metrics;
use super::names;
use super::options::ControllerOptions;
use super::relays::{Liveness, Relay, RelaysView};
use super::wiring::{Parts, Watches};
use crate::broker::{Broker, DescribedSession, SessionId};
use crate::crd::class::Aws;
use crate::crd::listener::{
    Document, EndReason, ErrorClass, ListenerError, ListenerSession, ListenerState,
    SessionReference,
};
use crate::crd::session::Port;
use crate::crd::target::Target;
use crate::crd::{
    LISTENER_FINALIZER, SESSION_UID_LABEL, SsmListener, SsmListenerSpec, SsmListenerStatus,
    SsmSession, SsmSessionClass, SsmSessionClassSpec, SsmSessionSpec,
};
use crate::lease::Term;

pub const SESSION_UID: &str = "11111111-1111-4111-8111-111111111111";
pub const STARTED_AT: &str = "2026-11-22T10:00:00Z";

pub fn at(seconds: i64) -> Timestamp {
    let start: Timestamp = STARTED_AT.parse().expect("a timestamp");
    start + jiff::SignedDuration::from_secs(seconds)
}

pub fn aws() -> Aws {
    Aws {
        region: "eu-test-1".into(),
        ..Aws::default()
    }
}

/// An `SsmSession` `shop/db` with these ports, of class `plain`.
pub fn session(ports: &[&str]) -> SsmSession {
    let port = |name: &&str| Port {
        name: (*name).to_owned(),
        port: 5432,
        remote_port: 5432,
        ..Port::default()
    };
    let spec = SsmSessionSpec {
        class_name: Some("plain".into()),
        target: Target {
            id: Some("i-0123456789abcdef0".into()),
            ecs_task: None,
        },
        ports: ports.iter().map(port).collect(),
        reason: "because".into(),
        service: None,
    };
    let mut session = SsmSession::new("db", spec);
    session.metadata.namespace = Some("shop".into());
    session.metadata.uid = Some(SESSION_UID.into());
    session.metadata.generation = Some(1);
    session.metadata.resource_version = Some("1".into());
    session
}

/// What reconcilers share, without an API server and with empty caches.
pub fn context(broker: Arc<dyn Broker>, view: RelaysView) -> Context {
    let nowhere = "http://127.0.0.1:1".parse().expect("a URL");
    let client = kube::Client::try_from(kube::Config::new(nowhere)).expect("a client");
    let options = ControllerOptions::new("operator", "namespace-uid");
    let metrics = Metrics::default();
    Watches::new(&client, &options, &metrics).context(Parts {
        client,
        broker,
        options,
        metrics,
        relays: watch::channel(view).1,
        drain: watch::channel(Drain::No).1,
        synced: watch::channel(true).1,
        term: term(),
    })
}

/// Method and name of each object that an API server was asked for, and what was sent.
pub type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// An API server that does what it is asked, and answers with what nobody can read. These names are taken.
pub fn unreadable_api(taken: &'static [&'static str]) -> (Client, Asked) {
    let asked = Asked::default();
    let heard = asked.clone();
    let server = tower::service_fn(move |request: Request<Body>| {
        let heard = heard.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().await.expect("a body");
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let name = body["metadata"]["name"].as_str();
            let name = name.or(head.uri.path().rsplit('/').next());
            let name = name.unwrap_or_default().to_owned();
            let answer = if taken.contains(&name.as_str()) {
                json!({ "kind": "Status", "status": "Failure", "reason": "AlreadyExists", "code": 409 })
            } else {
                json!({ "metadata": { "name": name, "labels": 7 } })
            };
            let code = answer["code"].as_u64().map_or(200, |_| 409);
            let mut asked = heard.lock().expect("no test panics in here");
            asked.push((format!("{} {name}", head.method), body));
            let answer = Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()));
            Ok::<_, Infallible>(answer.expect("an answer"))
        }
        .boxed()
    });
    (Client::new(server, "default"), asked)
}

/// What was asked, without what was sent.
pub fn calls(asked: &Asked) -> Vec<String> {
    let asked = asked.lock().expect("no test panics in here");
    asked.iter().map(|(call, _)| call.clone()).collect()
}

/// One that outlasts the test.
pub fn term() -> Term {
    Term::new(Instant::now() + Duration::from_hours(1000))
}

pub fn class(name: &str, controller_name: &str) -> SsmSessionClass {
    let spec = SsmSessionClassSpec {
        controller_name: controller_name.into(),
        aws: aws(),
    };
    SsmSessionClass::new(name, spec)
}

/// Relays that are alive, each with room for ten listeners.
pub fn relays(alive: &[(&str, &str)]) -> RelaysView {
    let relay = |(name, incarnation): &(&str, &str)| {
        let relay = Relay {
            incarnation: (*incarnation).into(),
            capacity: 10,
            liveness: Liveness::Alive,
        };
        ((*name).to_owned(), relay)
    };
    let relays: BTreeMap<_, _> = alive.iter().map(relay).collect();
    RelaysView {
        known: true,
        relays,
        moves_paused: false,
        absent_is_gone: true,
    }
}

/// The listener of a port of [`session`], as the controller makes it.
pub fn listener(port: &str) -> ListenerBuilder {
    let spec = SsmListenerSpec {
        session_ref: SessionReference {
            namespace: "shop".into(),
            name: "db".into(),
            uid: SESSION_UID.into(),
        },
        port: port.into(),
        target: "i-0123456789abcdef0".into(),
        document: Document {
            name: "AWS-StartPortForwardingSession".into(),
            parameters: BTreeMap::from([
                ("localPortNumber".into(), vec!["0".into()]),
                ("portNumber".into(), vec!["5432".into()]),
            ]),
        },
        reason: "because".into(),
        identity: aws(),
        ..SsmListenerSpec::default()
    };
    let mut listener = SsmListener::new(&names::listener_name(SESSION_UID, port, 0), spec);
    listener.metadata = ObjectMeta {
        name: listener.metadata.name,
        namespace: Some("operator".into()),
        uid: Some(format!("uid-of-{port}")),
        generation: Some(1),
        resource_version: Some("1".into()),
        finalizers: Some(vec![LISTENER_FINALIZER.into()]),
        labels: Some(BTreeMap::from([
            (SESSION_UID_LABEL.to_owned(), SESSION_UID.to_owned()),
            (
                names::MANAGED_BY_LABEL.to_owned(),
                crate::crd::MANAGED_BY.to_owned(),
            ),
        ])),
        ..ObjectMeta::default()
    };
    ListenerBuilder(listener)
}

#[derive(Clone)]
pub struct ListenerBuilder(SsmListener);

impl ListenerBuilder {
    pub fn uid(mut self, uid: &str) -> Self {
        self.0.metadata.uid = Some(uid.into());
        self
    }

    pub fn bound(mut self, relay: &str) -> Self {
        self.0.spec.relay = Some(relay.into());
        self
    }

    pub fn deleted_at(mut self, at: Timestamp) -> Self {
        self.0.metadata.deletion_timestamp = Some(Time(at));
        self
    }

    /// The relay listens, in this state and without a session.
    pub fn state(mut self, relay: &str, incarnation: &str, state: ListenerState) -> Self {
        self = self.bound(relay);
        let sessions = self
            .0
            .status
            .take()
            .map(|status| status.sessions)
            .unwrap_or_default();
        let listens = state != ListenerState::Ended;
        self.0.status = Some(SsmListenerStatus {
            observed_generation: self.0.metadata.generation,
            relay: relay.into(),
            incarnation: incarnation.into(),
            addresses: vec!["192.0.2.1".into(), "2001:db8::1".into()],
            port: listens.then_some(10240),
            state,
            ready: listens,
            sessions,
            ..SsmListenerStatus::default()
        });
        self
    }

    /// The relay serves it with this AWS session.
    pub fn serving(mut self, relay: &str, incarnation: &str, session: &str) -> Self {
        self = self.state(relay, incarnation, ListenerState::Serving);
        let record = ListenerSession {
            session_id: session.into(),
            relay: relay.into(),
            incarnation: incarnation.into(),
            identity: aws(),
            started_at: STARTED_AT.into(),
            ..ListenerSession::default()
        };
        self.0
            .status
            .as_mut()
            .expect("set above")
            .sessions
            .insert(0, record);
        self
    }

    /// The relay recorded its AWS sessions with this identity.
    pub fn recorded_with(mut self, identity: &Aws) -> Self {
        let statuses = self.0.status.iter_mut();
        for record in statuses.flat_map(|status| &mut status.sessions) {
            record.identity = identity.clone();
        }
        self
    }

    /// The relay recorded the end of this AWS session.
    pub fn ended(mut self, session: &str) -> Self {
        let sessions = self
            .0
            .status
            .iter_mut()
            .flat_map(|status| &mut status.sessions);
        for record in sessions.filter(|record| record.session_id == session) {
            record.ended_at = Some(at(60).to_string());
            record.end_reason = Some(EndReason::ClosedByService);
            record.end_message = Some("closed".into());
        }
        self
    }

    /// The last start failed, and the relay waits.
    pub fn failed(mut self, relay: &str, incarnation: &str, class: ErrorClass) -> Self {
        self = self.state(relay, incarnation, ListenerState::Waiting);
        let status = self.0.status.as_mut().expect("set above");
        status.last_error = Some(ListenerError {
            class,
            message: "words of AWS".into(),
        });
        status.retry_at = Some(at(300).to_string());
        self
    }

    pub fn change(mut self, change: impl FnOnce(&mut SsmListener)) -> Self {
        change(&mut self.0);
        self
    }

    pub fn build(self) -> SsmListener {
        self.0
    }

    pub fn arc(self) -> Arc<SsmListener> {
        Arc::new(self.0)
    }
}

/// A session as DescribeSessions shows it.
pub fn described(id: &str, status: &str) -> DescribedBuilder {
    DescribedBuilder(DescribedSession {
        session_id: SessionId::parse(id).expect("an id"),
        status: Some(status.into()),
        target: Some("i-0123456789abcdef0".into()),
        document_name: None,
        owner: Some("arn:aws:sts::111122223333:assumed-role/ssm/operator".into()),
        reason: None,
        details: None,
        access_type: None,
        start_date: Some(at(0)),
        end_date: None,
        max_session_duration: None,
        s3_output_url: None,
        cloud_watch_output_url: None,
    })
}

pub struct DescribedBuilder(DescribedSession);

impl DescribedBuilder {
    pub fn reason(mut self, reason: &str) -> Self {
        self.0.reason = Some(reason.into());
        self
    }

    pub fn ended_at(mut self, at: Timestamp) -> Self {
        self.0.end_date = Some(at);
        self
    }

    pub fn build(self) -> DescribedSession {
        self.0
    }
}
