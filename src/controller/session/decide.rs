//! What is to be done about a session, and what to say of it: pure, without a client and a clock.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use tokio::time::Instant;

use super::conditions::{self, Trouble};
use super::desired::{self, REPLICA};
use super::leave;
use super::mirror::{Mirror, Sources, mirror};
use super::observe::{ClassFound, Observed, ServiceFound};
use crate::controller::names::listener_name;
use crate::crd::class::Aws;
use crate::crd::listener::ListenerState;
use crate::crd::session::{Endpoint, EndpointPort, Port, ResolvedTarget};
use crate::crd::{SsmListener, SsmSessionStatus, relay_label_value};

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Until a missing class or a denied call is called Stalled.
    pub stalled_after: Duration,
    /// Until a deleted session goes without its listeners.
    pub finalizer_timeout: Duration,
    /// Until an end that AWS does not show is given up.
    pub history_timeout: Duration,
    /// Between two looks at a Service that is not ours.
    pub conflict_interval: Duration,
}

/// One moment on both clocks: conditions carry the wall's, delays are measured on the other.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For people and for comparison with the API server's.
    pub wall: Timestamp,
    /// Monotonic.
    pub instant: Instant,
}

/// Name and UID of an object that is to be deleted.
pub type Doomed = (String, String);

/// How the session's finalizer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Nothing of it is left.
    Clean,
    /// This many listeners still wait for AWS; they go on without the session.
    Pending(usize),
}

/// What to write, in the order of the fields; the status after them, and the release last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The finalizer goes on before anything is made.
    pub add_finalizer: bool,
    /// Slices that are no longer true.
    pub delete_slices: Vec<String>,
    /// Listeners that are no longer asked for.
    pub delete_listeners: Vec<Doomed>,
    /// The Service does not exist.
    pub create_service: Option<Service>,
    /// Our Service lacks something.
    pub update_service: Option<Service>,
    /// Ports without a listener.
    pub create_listeners: Vec<SsmListener>,
    /// Listeners whose target, document, reason or identity changed.
    pub update_listeners: Vec<SsmListener>,
    /// Slices that are missing or say something else.
    pub apply_slices: Vec<EndpointSlice>,
    /// Our Services of an earlier name.
    pub delete_services: Vec<Doomed>,
    /// What the status shall say; nothing is written when absent.
    pub status: Option<SsmSessionStatus>,
    /// The finalizer goes.
    pub release: Option<Release>,
    /// Since when this process has seen that the session goes, or goes over to another installation.
    pub leaving: Option<Instant>,
    /// A deleted session has waited long enough: the release comes whatever failed in its namespace.
    pub overdue: bool,
    /// What the mirror remembers and looks for.
    pub mirror: Mirror,
    /// The trouble that there is.
    pub trouble: Option<Trouble>,
    /// When to look again though nothing happens; at the next resync if absent.
    pub requeue_after: Option<Duration>,
}

impl Plan {
    /// Whether nothing is left to be written for what the spec asks.
    fn is_settled(&self) -> bool {
        self.delete_listeners.is_empty()
            && self.create_service.is_none()
            && self.update_service.is_none()
            && self.create_listeners.is_empty()
            && self.update_listeners.is_empty()
            && self.apply_slices.is_empty()
    }
}

/// Decides; the same observation at the same time gives the same plan.
#[must_use]
pub fn decide(observed: &Observed, settings: &Settings, now: Now) -> Plan {
    let mut plan = Plan::default();
    let leaving = observed.is_leaving();
    if leaving && !observed.has_finalizer() {
        return plan;
    }
    if leaving {
        leave::decide_leaving(&mut plan, observed, settings, now);
    } else {
        plan.trouble = conditions::trouble(observed);
    }
    let trouble = plan.trouble.clone();
    let stalled = trouble
        .as_ref()
        .is_some_and(|t| conditions::is_stalled(t, observed, settings, now));
    if !leaving {
        match &observed.class {
            ClassFound::Ours { identity, .. } => decide_objects(&mut plan, observed, identity),
            // A class that is gone permits nothing; its sessions end once that is sure, with the snapshot's identity.
            ClassFound::Missing { gone: true, .. } if stalled => {
                plan.delete_slices = observed.slices.iter().map(|s| s.name_any()).collect();
                plan.delete_listeners = doomed(observed, |_| true);
            }
            ClassFound::Missing { .. } | ClassFound::Foreign { .. } => {
                decide_slices(&mut plan, observed);
            }
        }
        plan.requeue_after = match (&trouble, &observed.service) {
            (Some(trouble), ServiceFound::Ours(_) | ServiceFound::Absent) if !stalled => {
                Some(conditions::until_stalled(trouble, observed, settings, now))
            }
            (_, ServiceFound::Conflict { .. } | ServiceFound::Leaving { .. }) => {
                Some(settings.conflict_interval)
            }
            (_, ServiceFound::Ours(_) | ServiceFound::Absent) => None,
        };
    }
    plan.mirror = decide_mirror(observed, settings, now);
    if !leave::is_said_by_another(observed) {
        plan.status = Some(status(&plan, observed, trouble.as_ref(), stalled, now));
    }
    plan
}

/// Listeners that are to be deleted and are not being deleted yet.
pub(super) fn doomed(observed: &Observed, is_doomed: impl Fn(&SsmListener) -> bool) -> Vec<Doomed> {
    let listeners = observed.listeners.iter();
    let listeners = listeners.filter(|l| l.metadata.deletion_timestamp.is_none() && is_doomed(l));
    listeners
        .map(|l| (l.name_any(), l.uid().unwrap_or_default()))
        .collect()
}

/// What the class and the spec ask for.
fn decide_objects(plan: &mut Plan, observed: &Observed, identity: &Aws) {
    plan.add_finalizer = !observed.has_finalizer();
    let session = &observed.session;
    let Some(target) = session.spec.target.to_aws() else {
        return;
    };
    let service = desired::service(session);
    let may_create = match &observed.service {
        ServiceFound::Absent => {
            plan.create_service = Some(service);
            true
        }
        ServiceFound::Ours(existing) => {
            plan.update_service =
                Some(service).filter(|desired| desired::service_differs(existing, desired));
            let old = observed.old_services.iter();
            plan.delete_services = old
                .map(|old| (old.name_any(), old.uid().unwrap_or_default()))
                .collect();
            true
        }
        ServiceFound::Leaving { .. } | ServiceFound::Conflict { .. } => false,
    };
    // A session whose Service is somebody else's has no listener, unless an earlier Service of its own still leads there.
    let may_keep = may_create || !observed.old_services.is_empty();
    for port in &session.spec.ports {
        let wanted = desired::listener(session, port, &target, identity);
        match existing_listener(observed, port) {
            None if may_create => plan.create_listeners.push(wanted),
            // One that is being deleted is waited for: its name is free only when its AWS sessions are over.
            Some(existing) if existing.metadata.deletion_timestamp.is_none() => {
                plan.update_listeners
                    .extend(desired::listener_update(existing, &wanted));
            }
            None | Some(_) => {}
        }
    }
    plan.delete_listeners = doomed(observed, |listener| {
        !may_keep || !is_wanted(observed, listener)
    });
    decide_slices(plan, observed);
}

fn existing_listener<'a>(observed: &'a Observed, port: &Port) -> Option<&'a SsmListener> {
    let uid = observed.session.uid().unwrap_or_default();
    let name = listener_name(&uid, &port.name, REPLICA);
    observed
        .listeners
        .iter()
        .find(|l| l.name_any() == name)
        .map(AsRef::as_ref)
}

fn is_wanted(observed: &Observed, listener: &SsmListener) -> bool {
    let mut ports = observed.session.spec.ports.iter();
    ports.any(|port| port.name == listener.spec.port) && listener.spec.replica == REPLICA
}

/// Slices of the Service that is ours; without one, those of an earlier Service go on.
fn decide_slices(plan: &mut Plan, observed: &Observed) {
    let service = match &observed.service {
        ServiceFound::Ours(service) => Some(service),
        ServiceFound::Absent | ServiceFound::Leaving { .. } | ServiceFound::Conflict { .. } => {
            observed.old_services.first()
        }
    };
    let mut wanted: Vec<EndpointSlice> = Vec::new();
    let installation = relay_label_value(&observed.controller_name);
    if let Some(service) = service {
        for port in &observed.session.spec.ports {
            let Some(listener) = existing_listener(observed, port) else {
                continue;
            };
            let session = &observed.session;
            wanted.extend(desired::slices(
                &installation,
                session,
                service,
                port,
                listener,
                &observed.relays,
            ));
        }
    }
    let existing: HashMap<String, _> = observed
        .slices
        .iter()
        .map(|slice| (slice.name_any(), slice))
        .collect();
    let is_wanted = |name: &String| wanted.iter().any(|slice| slice.name_any() == *name);
    plan.delete_slices = existing
        .keys()
        .filter(|name| !is_wanted(name))
        .cloned()
        .collect();
    plan.delete_slices.sort();
    wanted.retain(|slice| {
        let existing = existing.get(&slice.name_any());
        existing.is_none_or(|existing| desired::slice_differs(existing, slice))
    });
    plan.apply_slices = wanted;
}

fn decide_mirror(observed: &Observed, settings: &Settings, now: Now) -> Mirror {
    mirror(&Sources {
        previous: observed.previous(),
        listeners: &observed.listeners,
        snapshots: &observed.snapshots,
        ending: &observed.memory.ending,
        started_with: &observed.memory.started_with,
        finished: &observed.memory.finished,
        history_timeout: settings.history_timeout,
        now: now.instant,
    })
}

fn status(
    plan: &Plan,
    observed: &Observed,
    trouble: Option<&Trouble>,
    stalled: bool,
    now: Now,
) -> SsmSessionStatus {
    let session = &observed.session;
    let previous = observed.previous();
    let conditions = conditions::conditions(observed, trouble, stalled, plan.is_settled());
    let class = match &observed.class {
        ClassFound::Ours { name, .. } => Some(name.clone()),
        ClassFound::Missing { .. } => previous.class.clone(),
        ClassFound::Foreign { .. } => None,
    };
    let endpoint = match (&observed.service, &observed.class) {
        (ServiceFound::Ours(_), ClassFound::Ours { .. } | ClassFound::Missing { .. }) => {
            Some(endpoint(observed))
        }
        (
            ServiceFound::Ours(_)
            | ServiceFound::Absent
            | ServiceFound::Leaving { .. }
            | ServiceFound::Conflict { .. },
            _,
        ) => None,
    };
    let waiting = observed
        .listeners
        .iter()
        .filter_map(|listener| listener.status.as_ref());
    let waiting = waiting.filter(|status| status.state == ListenerState::Waiting);
    let retries = waiting.filter_map(|status| status.retry_at.clone());
    SsmSessionStatus {
        observed_generation: session.metadata.generation,
        conditions: conditions.merge(&previous.conditions, now.wall),
        class,
        target: session.spec.target.to_aws().map(|id| ResolvedTarget { id }),
        endpoint,
        sessions: plan.mirror.sessions.clone(),
        history: plan.mirror.history.clone(),
        next_retry_time: retries.min(),
    }
}

fn endpoint(observed: &Observed) -> Endpoint {
    let session = &observed.session;
    let service = desired::service_name(session);
    let ports = session.spec.ports.iter();
    Endpoint {
        host: format!("{service}.{}.svc", session.namespace().unwrap_or_default()),
        service,
        ports: ports
            .map(|p| EndpointPort {
                name: p.name.clone(),
                port: p.port,
            })
            .collect(),
    }
}
