//! Carries out a listener's plan. Every write names the object's UID, and every change of the spec the version read.

use std::sync::PoisonError;

use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tracing::info;

use super::decide::{Plan, Step};
use super::observe::Observed;
use crate::broker::{Identity, SessionId};
use crate::controller::context::Context;
use crate::controller::error::Error;
use crate::controller::names::FIELD_MANAGER;
use crate::crd::listener::LostSession;
use crate::crd::{LISTENER_FINALIZER, SsmListener};

/// Takes the steps in order; true when the listener is to be looked at again at once.
pub async fn act(observed: &Observed, plan: &Plan, context: &Context) -> Result<bool, Error> {
    let listener = observed.listener.as_ref();
    let api: Api<SsmListener> = Api::namespaced(context.client.clone(), &context.options.namespace);
    let mut again = false;
    for step in &plan.steps {
        match step {
            Step::Delete => delete(&api, listener).await?,
            Step::SetSpec {
                relay,
                lost_sessions,
            } => {
                set_spec(&api, listener, relay.as_deref(), lost_sessions, context).await?;
            }
            Step::Terminate { identity, session } => {
                terminate(context, listener, identity, session).await?;
                again = true;
            }
            Step::RemoveFinalizer => remove_finalizer(&api, listener, context).await?,
        }
    }
    Ok(again)
}

async fn delete(api: &Api<SsmListener>, listener: &SsmListener) -> Result<(), Error> {
    let name = listener.name_any();
    let uid = listener.uid();
    let params = DeleteParams::default().preconditions(Preconditions {
        uid,
        resource_version: None,
    });
    match api.delete(&name, &params).await {
        Ok(_) => {
            let session = &listener.spec.session_ref;
            info!(listener = %name, session = %session.name, namespace = %session.namespace,
                "listener deleted: its SsmSession is gone");
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(Error::api(format!("delete SsmListener {name}"))(error)),
    }
}

async fn set_spec(
    api: &Api<SsmListener>,
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

async fn terminate(
    context: &Context,
    listener: &SsmListener,
    identity: &Identity,
    session: &SessionId,
) -> Result<(), Error> {
    let name = listener.name_any();
    context
        .broker
        .terminate(identity, session)
        .await
        .map_err(|source| Error::Aws {
            action: format!("terminate {session} of SsmListener {name}"),
            source,
        })?;
    info!(listener = %name, %session, "session of a deleted listener terminated, since no relay did");
    let mut terminated = context
        .terminated
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    terminated
        .entry(listener.uid().unwrap_or_default())
        .or_default()
        .insert(session.clone());
    Ok(())
}

async fn remove_finalizer(
    api: &Api<SsmListener>,
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
    Ok(())
}
