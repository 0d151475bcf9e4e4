//! What several tests look at and wait for, beyond what every world offers.
//!
//! A [`Following`] sees every version of an object in its order, so that a test can say what came first and what never
//! was, without a clock.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Event;
use kube::api::{ListParams, PostParams};
use kube::{Api, Resource, ResourceExt as _};
use kube_runtime::watcher::{self, watcher};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use ssm_session_operator::crd::session::AwsSession;
use ssm_session_operator::crd::{
    MANAGED_BY, SsmListener, SsmSession, SsmSessionClass, SsmSessionStatus,
};
use ssm_session_operator::simulator::{Agent, AgentOptions, Operation, Pace};
use tokio::time::timeout;

use crate::world::{WAIT_MAX, World, condition, reason};

/// All versions of one kind's objects, from a moment on.
pub struct Following<K> {
    changes: Pin<Box<dyn Stream<Item = watcher::Result<watcher::Event<K>>> + Send>>,
    /// Every version so far, oldest first.
    pub versions: Vec<K>,
}

impl<K> Following<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    /// Follows the objects with this name, or all; whatever is written after this returns is seen.
    pub async fn new(api: Api<K>, name: Option<&str>) -> Self {
        let config = watcher::Config::default();
        let config = match name {
            Some(name) => config.fields(&format!("metadata.name={name}")),
            None => config,
        };
        let mut following = Self {
            changes: watcher(api, config).boxed(),
            versions: Vec::new(),
        };
        let listed = async { while !following.next().await {} };
        timeout(WAIT_MAX, listed).await.expect("the API answers");
        following
    }

    /// Takes the next change; true when a listing is complete.
    async fn next(&mut self) -> bool {
        let change = self.changes.next().await.expect("a watch has no end");
        match change.expect("the watch holds") {
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
                self.versions.push(object);
                false
            }
            watcher::Event::InitDone => true,
            watcher::Event::Init | watcher::Event::Delete(_) => false,
        }
    }

    /// Waits until the newest version is as it should be, and gives it.
    pub async fn until(&mut self, what: &str, met: impl Fn(&K) -> bool) -> K {
        let seen = async {
            loop {
                if let Some(newest) = self.versions.last().filter(|object| met(object)) {
                    return newest.clone();
                }
                self.next().await;
            }
        };
        let seen = timeout(WAIT_MAX, seen).await.ok();
        seen.unwrap_or_else(|| {
            panic!(
                "{what} did not come about; last: {:#?}",
                self.versions.last()
            )
        })
    }
}

impl World {
    /// Follows a session from now on; it need not exist yet.
    pub async fn follow(&self, name: &str) -> Following<SsmSession> {
        Following::new(self.sessions(), Some(name)).await
    }

    /// Waits until what the spec asks for is done, as kubectl and GitOps tools judge it.
    pub async fn wait_ready(&self, name: &str) -> SsmSession {
        self.wait(name, "ready for its newest spec", is_ready).await
    }

    /// Waits until the controller has asked AWS so many more times what sessions there are.
    pub async fn wait_polls(&self, count: u64) {
        let asked = |calls| self.simulator.calls(calls);
        let enough = asked(Operation::DescribeSessions) + count;
        self.wait_aws("more polls", |overview| {
            let calls = overview.calls.get(&Operation::DescribeSessions);
            calls.is_some_and(|calls| calls.total >= enough)
        })
        .await;
    }

    /// The listener of a session's port.
    pub async fn listener(&self, session: &SsmSession, port: &str) -> SsmListener {
        let uid = session.uid().expect("a UID");
        let listeners = self.listeners().list(&ListParams::default()).await;
        let mut listeners = listeners.expect("the API answers").items.into_iter();
        let found = listeners
            .find(|listener| listener.spec.session_ref.uid == uid && listener.spec.port == port);
        found.expect("the port has a listener")
    }

    /// Names of the Service's ports, sorted.
    pub async fn service_ports(&self, service: &str) -> Vec<String> {
        let service = self.services().get(service).await.expect("the Service");
        let ports = service.spec.expect("a spec").ports.unwrap_or_default();
        let mut names: Vec<_> = ports.into_iter().filter_map(|port| port.name).collect();
        names.sort();
        names
    }

    /// The port of each of our slices in the namespace, sorted.
    pub async fn slice_ports(&self) -> Vec<String> {
        let ours = format!("endpointslice.kubernetes.io/managed-by={MANAGED_BY}");
        let slices = self
            .slices()
            .list(&ListParams::default().labels(&ours))
            .await;
        let slices = slices.expect("the API answers").items.into_iter();
        let ports = slices.flat_map(|slice| slice.ports.unwrap_or_default());
        let mut names: Vec<_> = ports.filter_map(|port| port.name).collect();
        names.sort();
        names
    }

    /// Events with a reason about SsmSessions of a name.
    pub async fn events_of(&self, name: &str, why: &str) -> Vec<Event> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let fields =
            format!("involvedObject.kind=SsmSession,involvedObject.name={name},reason={why}");
        let events = events.list(&ListParams::default().fields(&fields)).await;
        events.expect("events can be read").items
    }

    /// Reasons of all Events about SsmSessions of a name.
    pub async fn told(&self, name: &str) -> BTreeSet<String> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let fields = format!("involvedObject.kind=SsmSession,involvedObject.name={name}");
        let events = events.list(&ListParams::default().fields(&fields)).await;
        let events = events.expect("events can be read").items.into_iter();
        events.filter_map(|event| event.reason).collect()
    }

    /// Starts another agent, and waits until sessions with it can be started.
    pub async fn start_agent(&self, target: &str, version: Option<&str>) -> Agent {
        let mut options = AgentOptions::new(target);
        options.pace = Pace::Unthrottled;
        if let Some(version) = version {
            version.clone_into(&mut options.agent_version);
        }
        let destination = ("localhost".to_owned(), crate::world::REMOTE_PORT);
        options
            .destinations
            .insert(destination, self.server.address());
        let agent = Agent::start(&self.simulator.endpoint(), options).expect("a URL");
        let online = self.simulator.wait_for_target(target).await;
        online.expect("the agent connects");
        agent
    }

    /// Creates a class that leads to the same AWS by the name of another Region.
    pub async fn create_class_in(&self, name: &str, region: &str) {
        let endpoint = self.simulator.endpoint();
        let class: SsmSessionClass = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": {
                "controllerName": self.controller_name(),
                "aws": {
                    "region": region,
                    "endpoints": { "ssm": endpoint, "ssmmessages": endpoint },
                },
            },
        }))
        .expect("a class");
        let classes = Api::all(self.client.clone());
        let created = classes.create(&PostParams::default(), &class).await;
        created.expect("the class is admitted");
    }

    /// The usual session with these fields of its spec in place of the usual ones.
    pub fn session_with(&self, name: &str, spec: Value) -> Value {
        let mut session = self.session(name);
        let fields = spec.as_object().expect("fields").clone();
        let usual = session["spec"].as_object_mut().expect("a spec");
        for (field, value) in fields {
            if value.is_null() {
                usual.remove(&field);
            } else {
                usual.insert(field, value);
            }
        }
        session
    }
}

/// One entry of `spec.ports`.
pub fn port(name: &str, port: u16, remote_port: u16) -> Value {
    json!({ "name": name, "port": port, "remotePort": remote_port })
}

/// Whether the newest spec is what is served, by the rules of kstatus.
pub fn is_ready(session: &SsmSession) -> bool {
    let observed = status(session).observed_generation;
    observed == session.metadata.generation
        && condition(session, "Ready") == "True"
        && condition(session, "Reconciling").is_empty()
        && condition(session, "Stalled").is_empty()
}

/// Whether a session is Stalled for this reason.
pub fn is_stalled(session: &SsmSession, why: &str) -> bool {
    condition(session, "Stalled") == "True" && reason(session, "Stalled") == why
}

/// Words of a session's condition, or nothing when it is absent.
pub fn message(session: &SsmSession, kind: &str) -> String {
    let conditions = status(session).conditions.into_iter();
    let mut of_kind = conditions.filter(|condition| condition.type_ == kind);
    of_kind
        .next()
        .map(|condition| condition.message)
        .unwrap_or_default()
}

/// The status of a session; an empty one before the first.
pub fn status(session: &SsmSession) -> SsmSessionStatus {
    session.status.clone().unwrap_or_default()
}

/// The live AWS session of a port.
pub fn live(session: &SsmSession, port: &str) -> Option<AwsSession> {
    let is_live = |of: &AwsSession| of.port.as_deref() == Some(port) && of.end_reason.is_none();
    status(session).sessions.into_iter().find(is_live)
}

/// An AWS session that has ended, as the status remembers it.
pub fn ended(session: &SsmSession, id: &str) -> Option<AwsSession> {
    let mut history = status(session).history.into_iter();
    history.find(|ended| ended.session_id == id)
}
