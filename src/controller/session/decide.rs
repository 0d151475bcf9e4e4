//! What is to be done about a session, and what to say of it: pure, without a client and a clock.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;

use super::conditions;
use super::desired::{self, REPLICA};
use super::leave;
use super::mirror::{Mirror, Sources, mirror};
use super::observe::{ClassFound, Observed};
use super::plan::{Held, Now, Plan, Settings, Trouble, doomed};
use super::service::ServiceFound;
use super::update::{Update, listener_update};
use crate::controller::drain::Drain;
use crate::controller::names::listener_name;
use crate::crd::class::Aws;
use crate::crd::listener::ListenerState;
use crate::crd::session::{Endpoint, EndpointPort, Port, ResolvedTarget};
use crate::crd::{SsmListener, SsmSessionStatus, limit};

/// Listeners of one session at once, those that are being deleted among them: all its ports may be renamed, and then again
/// only when what was there before is over. So a session has a bounded part of what relays take.
const LISTENERS_MAX: usize = 2 * limit::PORTS_MAX as usize;

/// Decides; the same observation at the same time gives the same plan.
#[must_use]
pub fn decide(observed: &Observed, settings: &Settings, now: Now) -> Plan {
    let mut plan = Plan::default();
    let leaving = observed.is_leaving();
    let held = observed.held_by();
    if !observed.has_finalizer() {
        if leaving || held.is_some() {
            // What another one made still leads there, and two writers would never end: it lets go first.
            plan.held_by = held.filter(|_| !leaving).map(str::to_owned);
            leave::decide_let_go(&mut plan, observed);
            decide_last_word(&mut plan, observed, settings, now);
            return plan;
        }
        if !may_begin(observed) {
            return plan;
        }
    }
    plan.mirror = decide_mirror(observed, settings, now, false);
    decide_last_word(&mut plan, observed, settings, now);
    let draining = observed.is_draining();
    if leaving {
        leave::decide_leaving(&mut plan, observed, settings, now);
    } else if draining {
        leave::decide_draining(&mut plan, observed, settings, now);
    } else {
        plan.trouble = conditions::trouble(observed);
    }
    let trouble = plan.trouble.clone();
    let stalled = trouble
        .as_ref()
        .is_some_and(|t| conditions::is_stalled(t, observed, settings, now));
    if !leaving && !draining {
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
            (
                Some(trouble),
                ServiceFound::Ours(_) | ServiceFound::Absent | ServiceFound::Unread { .. },
            ) if !stalled => Some(conditions::until_stalled(trouble, observed, settings, now)),
            (_, ServiceFound::Conflict { .. } | ServiceFound::Leaving { .. }) => {
                Some(settings.conflict_interval)
            }
            // One that can't be read asks for this again when it can.
            (_, ServiceFound::Ours(_) | ServiceFound::Absent | ServiceFound::Unread { .. }) => None,
        };
    }
    if held.is_none() {
        plan.status = Some(status(&plan, observed, trouble.as_ref(), stalled, now));
    }
    plan
}

/// The status of a session that another installation holds is that one's. But what only we have said stays said if there
/// is no such installation: so it is corrected once, while something of ours is there, and after that for as long as
/// nobody else has written it.
fn decide_last_word(plan: &mut Plan, observed: &Observed, settings: &Settings, now: Now) {
    if observed.held_by().is_none() {
        return;
    }
    plan.last_word = observed.memory.last_word;
    let says = if plan.last_word {
        conditions::says_held(&observed.previous)
    } else {
        leave::may_have_said(observed)
    };
    if says {
        plan.last_word = true;
        // Nobody corrects it once our listeners are gone.
        let last = observed.left() == 0;
        plan.mirror = decide_mirror(observed, settings, now, last);
        plan.status = Some(SsmSessionStatus {
            class: None,
            endpoint: None,
            ..status(plan, observed, None, false, now)
        });
    }
}

/// Whether a session without our finalizer is looked at. While drains are asked for, one of our class is told so; what
/// may be another installation's is left to that one.
fn may_begin(observed: &Observed) -> bool {
    match (observed.drain, &observed.class) {
        (Drain::No, _) | (Drain::Asked, ClassFound::Ours { .. }) => true,
        (Drain::Unconfirmed, _)
        | (Drain::Asked, ClassFound::Missing { .. } | ClassFound::Foreign { .. }) => false,
    }
}

/// What the class and the spec ask for.
fn decide_objects(plan: &mut Plan, observed: &Observed, identity: &Aws) {
    // Nothing is made where nothing can be read, and so nothing has to be taken away.
    plan.add_finalizer = !observed.has_finalizer() && observed.unread().is_none();
    let session = &observed.session;
    let Some(target) = session.spec.target.to_aws() else {
        return;
    };
    let service = desired::service(session);
    // Not while a drain may be under way: what it has just ended would be begun again.
    let begins = observed.drain == Drain::No;
    let may_create = match &observed.service {
        ServiceFound::Absent => {
            plan.create_service = Some(service).filter(|_| begins);
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
        ServiceFound::Unread { .. }
        | ServiceFound::Leaving { .. }
        | ServiceFound::Conflict { .. } => false,
    };
    // A session whose Service is somebody else's has no listener, unless an earlier Service of its own still leads there.
    let may_keep = may_create || !observed.old_services.is_empty() || observed.unread().is_some();
    let mut room = LISTENERS_MAX.saturating_sub(observed.left());
    for port in &session.spec.ports {
        let wanted = desired::listener(session, port, &target, identity);
        match existing_listener(observed, port) {
            // Else each that goes makes room for one, and is news.
            None if may_create && begins && room > 0 => {
                room -= 1;
                plan.create_listeners.push(wanted);
            }
            // One that is being deleted is waited for: its name is free only when its AWS sessions are over.
            Some(existing) if existing.metadata.deletion_timestamp.is_none() => {
                match listener_update(existing, &wanted) {
                    Update::None => {}
                    Update::Write(update) => plan.update_listeners.push(*update),
                    Update::Held(sessions) => plan.held_listeners.push(Held {
                        port: port.name.clone(),
                        sessions,
                    }),
                }
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
        ServiceFound::Unread { .. } => return,
    };
    let mut wanted: Vec<EndpointSlice> = Vec::new();
    if let Some(service) = service {
        for port in &observed.session.spec.ports {
            let Some(listener) = existing_listener(observed, port) else {
                continue;
            };
            let session = &observed.session;
            wanted.extend(desired::slices(
                &observed.installation,
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

/// `last`: what AWS has not said of an end by now is not waited for.
fn decide_mirror(observed: &Observed, settings: &Settings, now: Now, last: bool) -> Mirror {
    let history_timeout = if last || leave::gives_up(observed, settings, now) {
        Duration::ZERO
    } else {
        settings.history_timeout
    };
    mirror(&Sources {
        previous: &observed.previous,
        listeners: &observed.listeners,
        snapshots: &observed.snapshots,
        ending: &observed.memory.ending,
        started_with: &observed.memory.started_with,
        finished: &observed.memory.finished,
        history_timeout,
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
    let previous = &observed.previous;
    let conditions = conditions::conditions(observed, trouble, stalled, plan);
    let class = match &observed.class {
        ClassFound::Ours { name, .. } => Some(name.clone()),
        ClassFound::Missing { .. } => previous.class.clone(),
        ClassFound::Foreign { .. } => None,
    };
    let endpoint = match (&observed.service, &observed.class) {
        (ServiceFound::Ours(_), ClassFound::Ours { .. } | ClassFound::Missing { .. }) => {
            Some(endpoint(observed))
        }
        // It may well be there.
        (ServiceFound::Unread { .. }, ClassFound::Ours { .. } | ClassFound::Missing { .. }) => {
            previous.endpoint.clone()
        }
        (
            ServiceFound::Ours(_)
            | ServiceFound::Unread { .. }
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
