//! Carries out a listener's plan. Every write names the object's UID, and every change of the spec the version read. A
//! write that was done has not failed, whatever can be read of its answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};

use futures::future::join_all;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::time::Instant;
use tracing::{Instrument as _, error_span, info, warn};

use super::decide::{Orphaned, Plan, Step};
use super::observe::Observed;
use crate::broker::{BrokerError, Identity, SessionId};
use crate::controller::context::Context;
use crate::controller::error::Error;
use crate::controller::names::FIELD_MANAGER;
use crate::controller::turns::Place;
use crate::crd::listener::LostSession;
use crate::crd::{LISTENER_FINALIZER, SsmListener};
use crate::reading::Guarded;

/// Terminations of one listener that wait for AWS at the same time with one identity: all of these share its rate, and a relay
/// may have put any number of sessions on record. As many as a relay leaves behind that is about to replace a session.
const TERMINATED_AT_ONCE: usize = 2;

/// When a listener is to be looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// As the plan says.
    AsPlanned,
    /// At once: something was done that the next decision needs to know.
    AtOnce,
    /// In a while: others have all turns to wait for AWS, and nothing failed.
    AtItsTurn,
}

/// Takes the steps in order, terminations at last and some at the same time.
///
/// # Errors
/// Of the first step that failed, and no further one is taken. One termination that fails keeps no other from being tried.
pub async fn act(observed: &Observed, plan: &Plan, context: &Context) -> Result<Again, Error> {
    let listener = observed.listener.as_ref();
    let api: Api<Guarded<SsmListener>> =
        Api::namespaced(context.client.clone(), &context.options.namespace);
    let mut terminations = Vec::new();
    for step in &plan.steps {
        match step {
            Step::Delete(why) => delete(&api, listener, *why).await?,
            Step::SetSpec {
                relay,
                lost_sessions,
            } => {
                set_spec(&api, listener, relay.as_deref(), lost_sessions, context).await?;
            }
            Step::Terminate { identity, session } => {
                terminations.push((identity, session));
            }
            Step::LeaveAlone(session) => {
                warn!(listener = %listener.name_any(), %session,
                    "session on record for a deleted listener left alone: AWS shows that it was started for something \
                     else. The relay that recorded it may have been taken over");
            }
            Step::RemoveFinalizer => remove_finalizer(&api, listener, context).await?,
        }
    }
    if terminations.is_empty() {
        return Ok(Again::AsPlanned);
    }
    terminate_all(context, listener, &terminations).await
}

async fn delete(
    api: &Api<Guarded<SsmListener>>,
    listener: &SsmListener,
    why: Orphaned,
) -> Result<(), Error> {
    let name = listener.name_any();
    let uid = listener.uid();
    let params = DeleteParams::default().preconditions(Preconditions {
        uid,
        resource_version: None,
    });
    match api.delete(&name, &params).await {
        Ok(_) => {
            let reference = &listener.spec.session_ref;
            let (session, namespace) = (&reference.name, &reference.namespace);
            match why {
                Orphaned::SessionGone => {
                    info!(listener = %name, %session, %namespace, "listener deleted: its SsmSession is gone");
                }
                Orphaned::SessionAnothers => {
                    warn!(listener = %name, %session, %namespace,
                        "listener deleted: another installation holds its SsmSession");
                }
                Orphaned::NotWatched => {
                    warn!(listener = %name, %session, %namespace,
                        "listener deleted: the namespace of its SsmSession is not watched; the finalizer of that \
                         SsmSession is to be taken away by hand");
                }
                Orphaned::Draining => {
                    info!(listener = %name, %session, %namespace, "listener deleted: a drain is asked for");
                }
            }
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(Error::api(format!("delete SsmListener {name}"))(error)),
    }
}

async fn set_spec(
    api: &Api<Guarded<SsmListener>>,
    listener: &SsmListener,
    relay: Option<&str>,
    lost_sessions: &[LostSession],
    context: &Context,
) -> Result<(), Error> {
    let name = listener.name_any();
    let lost = (!lost_sessions.is_empty()).then_some(lost_sessions);
    let patch = json!({
        "metadata": { "uid": listener.uid(), "resourceVersion": listener.resource_version() },
        "spec": { "relay": relay, "lostSessions": lost },
    });
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    match api.patch(&name, &params, &Patch::Merge(&patch)).await {
        Ok(_) => {
            info!(listener = %name, relay, was = listener.spec.relay, lost = lost_sessions.len(),
                "listener bound");
            Ok(())
        }
        Err(error) => {
            let mut reserved = context
                .reserved
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            reserved.remove(&listener.uid().unwrap_or_default());
            drop(reserved);
            Err(Error::api(format!("bind SsmListener {name}"))(error))
        }
    }
}

/// One session that can't be terminated keeps no other alive: what succeeds is noted, and the error names the rest. Nor does
/// one identity keep those of others waiting. Where there is no turn they are left for later.
async fn terminate_all(
    context: &Context,
    listener: &SsmListener,
    sessions: &[(&Identity, &SessionId)],
) -> Result<Again, Error> {
    let mut by_identity: BTreeMap<&Identity, Vec<&SessionId>> = BTreeMap::new();
    for (identity, session) in sessions {
        by_identity.entry(identity).or_default().push(session);
    }
    // What can't all be asked now is not the same each time.
    let mut by_identity: Vec<_> = by_identity.into_iter().collect();
    fastrand::shuffle(&mut by_identity);
    let (mut turns, mut asked) = (HashMap::new(), Vec::new());
    let mut again = Again::AtOnce;
    for (identity, mut sessions) in by_identity {
        fastrand::shuffle(&mut sessions);
        let place = Place::of(identity);
        let turn = turns.entry(place.clone());
        let turn = turn.or_insert_with(|| context.turns.take(place).map(Arc::new));
        let Some(turn) = turn.clone() else {
            again = Again::AtItsTurn;
            continue;
        };
        // The last of a place gives the turn back, however long another place takes.
        asked.push(async move {
            let _turn = turn;
            terminate(context, listener, identity, &sessions).await
        });
    }
    drop(turns);
    let mut failures: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
    failures.sort_by(|(session, _), (other, _)| session.cmp(other));
    let failed: Vec<_> = failures
        .iter()
        .map(|(session, _)| session.as_str())
        .collect();
    let action = format!(
        "terminate {} of SsmListener {}",
        failed.join(", "),
        listener.name_any()
    );
    match failures.into_iter().next() {
        None => Ok(again),
        Some((_, source)) => Err(Error::Aws { action, source }),
    }
}

/// Those sessions of one identity that could not be terminated, and why. After half of the reconcile's deadline the rest is
/// left for the next, so that it is AWS's error that counts.
async fn terminate(
    context: &Context,
    listener: &SsmListener,
    identity: &Identity,
    sessions: &[&SessionId],
) -> Vec<(SessionId, BrokerError)> {
    let name = listener.name_any();
    let of = &listener.spec.session_ref;
    let ssmsession = &format!("{}/{}", of.namespace, of.name);
    let call = async |session| {
        let span = error_span!("listener", ssmsession);
        context.terminate(identity, session).instrument(span).await
    };
    let begun = Instant::now();
    let mut failures = Vec::new();
    for some in sessions.chunks(TERMINATED_AT_ONCE) {
        let calls = some.iter().map(|session| call(*session));
        for (session, answer) in some.iter().zip(join_all(calls).await) {
            match answer {
                Ok(()) => {
                    info!(listener = %name, %session, "session of a deleted listener terminated, since no relay did");
                    note_terminated(context, listener, identity, session);
                }
                Err(error) => {
                    warn!(listener = %name, ssmsession, %session, %error, request_id = error.request_id.as_str(), "session of a deleted listener not terminated; tried again");
                    failures.push(((*session).clone(), error));
                }
            }
        }
        if begun.elapsed() >= context.options.api_timeout {
            break;
        }
    }
    failures
}

fn note_terminated(
    context: &Context,
    listener: &SsmListener,
    identity: &Identity,
    session: &SessionId,
) {
    let mut terminated = context
        .terminated
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    terminated
        .entry(listener.uid().unwrap_or_default())
        .or_default()
        .insert((identity.clone(), session.clone()));
}

async fn remove_finalizer(
    api: &Api<Guarded<SsmListener>>,
    listener: &SsmListener,
    context: &Context,
) -> Result<(), Error> {
    let name = listener.name_any();
    let uid = listener.uid().unwrap_or_default();
    let others: Vec<&String> = listener
        .finalizers()
        .iter()
        .filter(|finalizer| *finalizer != LISTENER_FINALIZER)
        .collect();
    let patch = json!({
        "metadata": {
            "uid": uid,
            "resourceVersion": listener.resource_version(),
            "finalizers": others,
        },
    });
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    match api.patch(&name, &params, &Patch::Merge(&patch)).await {
        Ok(_) => info!(listener = %name, "listener is gone: AWS has ended its sessions"),
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(error) => return Err(Error::api(format!("release SsmListener {name}"))(error)),
    }
    context.polls.want(&uid, None);
    context
        .terminated
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(&uid);
    context
        .reserved
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(&uid);
    context
        .deletions
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(&uid);
    Ok(())
}
