//! What tests look at besides the session: its listener, its endpoints, relays' Leases, AWS's polls.

use std::cell::RefCell;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::ListParams;
use kube_runtime::watcher::{self, Event, watcher};
use serde_json::Value;
use ssm_session_operator::crd::SsmListener;
use ssm_session_operator::crd::listener::{EndReason, ListenerState, SsmListenerStatus};
use ssm_session_operator::simulator::{Operation, Status};

use crate::dial;
use crate::world::World;

impl World {
    /// The listener of a session that has one port; none before it is made and after it is gone.
    pub async fn listener_of(&self, session: &str) -> Result<Option<SsmListener>> {
        let mut listeners = self.listeners().list(&ListParams::default()).await?.items;
        listeners.retain(|listener| listener.spec.session_ref.name == session);
        assert!(listeners.len() <= 1, "{session} has several listeners");
        Ok(listeners.pop())
    }

    /// Waits until the listener of a session is as it should be, and gives it.
    pub async fn wait_listener(
        &self,
        session: &str,
        what: &str,
        condition: impl Fn(&SsmListener) -> bool,
    ) -> SsmListener {
        let found = RefCell::new(None);
        self.until(&format!("{session}'s listener: {what}"), async || {
            let listener = self.listener_of(session).await?;
            found.replace(listener.filter(&condition));
            Ok(found.borrow().is_some())
        })
        .await;
        found.take().expect("it was found")
    }

    /// Waits until a relay serves the listener of a session with an AWS session, and gives the listener.
    pub async fn wait_serving(&self, session: &str) -> SsmListener {
        // What was taken over is ended meanwhile, and is on record as live until AWS has answered.
        self.wait_listener(session, "serving", |listener| {
            serves(listener).is_some_and(|status| {
                let live = status.sessions.iter().filter(|s| s.ended_at.is_none());
                live.count() == 1
            })
        })
        .await
    }

    /// Records all versions of all listeners that a watch shows, from now on.
    pub async fn record_listeners(&self) -> Versions {
        let versions = Versions::default();
        let seen = versions.clone();
        let mut events = Box::pin(watcher(self.listeners(), watcher::Config::default()));
        let first = events.next().await.expect("a watch has no end");
        assert!(matches!(first, Ok(Event::Init)), "{first:?}");
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                match event.expect("the watch holds") {
                    Event::Init | Event::InitDone => {}
                    Event::InitApply(listener)
                    | Event::Apply(listener)
                    | Event::Delete(listener) => {
                        seen.0.lock().expect("nobody panics here").push(listener);
                    }
                }
            }
        });
        versions
    }

    /// Waits until the slices of both families lead to this port of a relay, and to no other.
    pub async fn wait_endpoints(&self, session: &str, port: u16) {
        self.until(&format!("{session} leads to port {port}"), async || {
            let found = dial::endpoints(&self.client, &self.namespace, session, "db").await?;
            Ok(found.len() == 2 && found.iter().all(|endpoint| endpoint.port() == port))
        })
        .await;
    }

    /// Waits until the slices of a session lead nowhere, though they are there.
    pub async fn wait_endpoints_gone(&self, session: &str) {
        self.until(&format!("{session} leads nowhere"), async || {
            let found = dial::endpoints(&self.client, &self.namespace, session, "db").await?;
            Ok(found.is_empty() && self.slice_ports().await == ["db", "db"])
        })
        .await;
    }

    /// Waits until AWS says Terminated of a session.
    pub async fn wait_terminated(&self, id: &str) {
        self.wait_aws(&format!("{id} is Terminated"), |aws| {
            aws.session(id)
                .is_some_and(|session| session.status == Status::Terminated)
        })
        .await;
    }

    /// Waits until an AWS session stands in a session's history, ended for this reason.
    pub async fn wait_ended(&self, session: &str, id: &str, reason: EndReason) {
        self.wait(session, &format!("{id} ended: {reason:?}"), |session| {
            let mut history = session.status.iter().flat_map(|status| &status.history);
            history.any(|ended| ended.session_id == id && ended.end_reason == Some(reason))
        })
        .await;
    }

    /// Waits until the controller has asked AWS for its sessions ten times more.
    pub async fn wait_ten_polls(&self) {
        let before = self.simulator.calls(Operation::DescribeSessions);
        self.wait_aws("ten more polls", |aws| {
            let calls = aws.calls.get(&Operation::DescribeSessions);
            calls.is_some_and(|calls| calls.total >= before + 10)
        })
        .await;
    }

    /// Every object of both namespaces and every class, with who owns which of its fields.
    pub async fn objects(&self) -> Vec<Value> {
        let kubectl = async |arguments: &[&str]| {
            let printed = self.ground.kubectl(arguments).await;
            printed.expect("kubectl may read everything")
        };
        let kinds = [
            "api-resources",
            "--namespaced",
            "--verbs=list",
            "-o",
            "name",
        ];
        let kinds = kubectl(&kinds).await.lines().collect::<Vec<_>>().join(",");
        let mut objects = Vec::new();
        let classes = ["get", "ssmsessionclasses"].to_vec();
        let (theirs, ours) = (&self.operator_namespace, &self.namespace);
        for what in [
            classes,
            vec!["get", &kinds, "-n", theirs],
            vec!["get", &kinds, "-n", ours],
        ] {
            let print = ["-o", "json", "--show-managed-fields"];
            let list = kubectl(&[what, print.to_vec()].concat()).await;
            let list: Value = serde_json::from_str(&list).expect("JSON");
            objects.extend(list["items"].as_array().expect("a list").clone());
        }
        objects
    }

    /// Waits until a relay holds its Lease.
    pub async fn wait_lease(&self, relay: &str) {
        self.until(&format!("{relay} holds its Lease"), async || {
            Ok(self.lease(relay).await.is_ok())
        })
        .await;
    }

    /// The Lease of a relay.
    pub async fn lease(&self, relay: &str) -> Result<Lease> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.operator_namespace);
        Ok(leases.get(relay).await?)
    }
}

/// Versions of listeners, oldest first.
#[derive(Clone, Default)]
pub struct Versions(Arc<Mutex<Vec<SsmListener>>>);

impl Versions {
    /// Those that were seen so far.
    pub fn so_far(&self) -> Vec<SsmListener> {
        self.0.lock().expect("nobody panics here").clone()
    }
}

/// What a listener says, while a relay serves it.
pub fn serves(listener: &SsmListener) -> Option<&SsmListenerStatus> {
    let status = listener.status.as_ref()?;
    let bound = listener.spec.relay.as_ref() == Some(&status.relay);
    (bound && status.ready && status.state == ListenerState::Serving).then_some(status)
}

/// The relay that serves a listener.
pub fn relay(listener: &SsmListener) -> String {
    let status = serves(listener).expect("it is served");
    status.relay.clone()
}

/// The port on which a relay serves a listener.
pub fn port(listener: &SsmListener) -> u16 {
    let port = serves(listener).and_then(|status| status.port);
    port.and_then(|port| u16::try_from(port).ok())
        .expect("it is served on a port")
}

/// The AWS session that serves a listener.
pub fn live_session(listener: &SsmListener) -> String {
    let sessions = listener.status.iter().flat_map(|status| &status.sessions);
    let live: Vec<_> = sessions.filter(|s| s.ended_at.is_none()).collect();
    match live.as_slice() {
        [one] => one.session_id.clone(),
        several => panic!("not one live session: {several:?}"),
    }
}
