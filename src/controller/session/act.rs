//! Carries out a session's plan. Listeners and Services are created by POST, which collides where two make one; what
//! is known to be ours is written with its UID, so that no write brings back what was deleted. A write that was done has
//! not failed, whatever can be read of its answer.

use futures::future::join_all;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::timeout;
use tracing::{info, warn};

use super::desired;
use super::leave;
use super::observe::{Doomed, Observed};
use super::plan::{Plan, Release};
use super::service::ServiceFound;
use crate::controller::cached::reread;
use crate::controller::context::Context;
use crate::controller::error::Error;
use crate::controller::events;
use crate::controller::names::FIELD_MANAGER;
use crate::crd::session::AwsSession;
use crate::crd::{SsmListener, SsmSession, session_finalizer};
use crate::reading::Guarded;

fn post() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

fn patch() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// Writes what the plan says, in its order, and gives the session as it is then.
///
/// # Errors
/// Of the first write that failed; what comes after it is not written, but each deletion is tried.
pub async fn act(observed: &Observed, plan: &Plan, context: &Context) -> Result<SsmSession, Error> {
    let mut session = observed.session.as_ref().clone();
    let namespace = session.namespace().unwrap_or_default();
    let client = &context.client;
    let sessions: Api<Guarded<SsmSession>> = Api::namespaced(client.clone(), &namespace);
    let listeners: Api<Guarded<SsmListener>> =
        Api::namespaced(client.clone(), &context.options.namespace);
    let services: Api<Guarded<Service>> = Api::namespaced(client.clone(), &namespace);
    let slices: Api<Guarded<EndpointSlice>> = Api::namespaced(client.clone(), &namespace);
    if plan.add_finalizer {
        session = add_finalizer(&sessions, &session, &observed.installation).await?;
    }
    // Listeners are what access hangs on: they go whatever the user's namespace refuses.
    let gone = plan.delete_listeners.iter();
    let revoked = all(gone.map(|doomed| delete(&listeners, &doomed.0, Some(doomed)))).await;
    let gone = plan.delete_slices.iter();
    let withdrawn = all(gone.map(|name| delete(&slices, name, None)));
    // A webhook that hangs there must leave time for the rest of the reconcile.
    let withdrawn = timeout(context.options.api_timeout / 2, withdrawn).await;
    revoked.and(withdrawn.unwrap_or(Err(Error::Deadline)))?;
    if let Some(service) = &plan.create_service {
        create(&services, service).await?;
    }
    if let Some(service) = &plan.update_service {
        update_service(&services, observed, service).await?;
    }
    let mut unseen = Ok(());
    for listener in &plan.create_listeners {
        match create(&listeners, listener).await {
            // It is there though no cache shows it: not yet, or since it can't be read. The others don't wait for it.
            Err(error) if error.is_conflict() => unseen = Err(error),
            created => created?,
        }
    }
    for listener in &plan.update_listeners {
        update_listener(&listeners, listener).await?;
    }
    for slice in &plan.apply_slices {
        let name = slice.name_any();
        let apply = PatchParams::apply(FIELD_MANAGER).force();
        let action = format!("apply EndpointSlice {namespace}/{name}");
        slices
            .patch(&name, &apply, &Patch::Apply(slice))
            .await
            .map_err(Error::api(action))?;
    }
    for doomed in &plan.delete_services {
        delete(&services, &doomed.0, Some(doomed)).await?;
    }
    unseen?;
    Ok(session)
}

/// Waits for all of them, so that none is kept from being done by one that fails, and gives the first failure.
async fn all(
    writes: impl Iterator<Item = impl Future<Output = Result<(), Error>>>,
) -> Result<(), Error> {
    join_all(writes).await.into_iter().collect()
}

async fn create<K>(api: &Api<Guarded<K>>, object: &K) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + serde::Serialize + DeserializeOwned + std::fmt::Debug,
{
    let name = object.name_any();
    let kind = K::kind(&());
    // Guarded what comes, not what goes.
    api.create(&post(), &Guarded(Ok(object.clone())))
        .await
        .map_err(Error::api(format!("create {kind} {name}")))?;
    info!(%kind, %name, "created");
    Ok(())
}

/// Gives a listener its spec, and leaves the rest as it is: not all of one that is read in part is known.
async fn update_listener(
    api: &Api<Guarded<SsmListener>>,
    listener: &SsmListener,
) -> Result<(), Error> {
    let name = listener.name_any();
    let action = format!("update SsmListener {name}");
    let replace = |path, value| json!({ "op": "replace", "path": path, "value": value });
    let change = json!([
        replace("/metadata/uid", json!(listener.uid())),
        replace(
            "/metadata/resourceVersion",
            json!(listener.resource_version())
        ),
        replace("/spec", json!(listener.spec)),
    ]);
    let written = match serde_json::from_value(change) {
        Ok(change) => api.patch(&name, &patch(), &Patch::Json::<()>(change)).await,
        Err(error) => Err(kube::Error::SerdeError(error)),
    };
    written.map_err(Error::api(action)).map(drop)
}

/// Deletes an object, of this UID only where one is given. One that is gone, or is another by now, is as good, and so is
/// one that can't be read.
async fn delete<K>(api: &Api<Guarded<K>>, name: &str, doomed: Option<&Doomed>) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let kind = K::kind(&());
    let mut params = DeleteParams::default();
    if let Some((_, uid)) = doomed {
        params.preconditions = Some(Preconditions {
            uid: Some(uid.clone()),
            resource_version: None,
        });
    }
    match api.delete(name, &params).await {
        Ok(_) => {
            info!(%kind, %name, "deleted");
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(error) => Err(Error::api(format!("delete {kind} {name}"))(error)),
    }
}

async fn add_finalizer(
    api: &Api<Guarded<SsmSession>>,
    session: &SsmSession,
    installation: &str,
) -> Result<SsmSession, Error> {
    let mut finalizers = session.finalizers().to_vec();
    finalizers.push(session_finalizer(installation));
    set_finalizers(api, session, &finalizers).await
}

async fn set_finalizers(
    api: &Api<Guarded<SsmSession>>,
    session: &SsmSession,
    finalizers: &[String],
) -> Result<SsmSession, Error> {
    let name = session.name_any();
    let change = json!({
        "metadata": {
            "uid": session.uid(),
            "resourceVersion": session.resource_version(),
            "finalizers": finalizers,
        },
    });
    let action = format!("set the finalizer of SsmSession {name}");
    let written = api.patch(&name, &patch(), &Patch::Merge(&change)).await;
    Ok(reread(session, written.map_err(Error::api(action))?))
}

/// Applies our fields to our Service, so that a port, label or annotation that is no longer asked for goes.
///
/// What POST wrote is owned by our manager's `Update`, and server-side apply would take the same fields for another
/// manager's and leave them: so that ownership is handed over first, once. One that turns out to be unreadable is left as it
/// is: the next look says so.
async fn update_service(
    api: &Api<Guarded<Service>>,
    observed: &Observed,
    desired: &Service,
) -> Result<(), Error> {
    let ServiceFound::Ours(existing) = &observed.service else {
        return Ok(());
    };
    let name = existing.name_any();
    let action = format!("update Service {name}");
    let mut existing = existing.as_ref().clone();
    if desired::service_is_bent(&existing, desired) {
        // Apply leaves what another manager wrote, an entry of a list too. The Service is the session's own, so it is
        // taken back.
        let ports = desired.spec.as_ref().map(|spec| &spec.ports);
        let straight = json!({
            "metadata": { "uid": existing.uid(), "resourceVersion": existing.resource_version() },
            "spec": {
                "type": "ClusterIP",
                "selector": null,
                "externalIPs": null,
                "externalName": null,
                "publishNotReadyAddresses": null,
                "ports": ports,
            },
        });
        let straight = api.patch(&name, &patch(), &Patch::Merge(&straight)).await;
        let straight = straight.map_err(Error::api(action.clone()))?;
        warn!(service = %name, "somebody changed our Service; taken back");
        let Ok(straight) = straight.0 else {
            return Ok(());
        };
        existing = straight;
    }
    let mine = |service: &Service, operation: &str| {
        service.managed_fields().iter().position(|entry| {
            entry.manager.as_deref() == Some(FIELD_MANAGER)
                && entry.operation.as_deref() == Some(operation)
                && entry.subresource.is_none()
        })
    };
    if mine(&existing, "Update").is_some() && mine(&existing, "Apply").is_none() {
        // The cache knows of nobody's fields but ours.
        let read = api.get(&name).await.map_err(Error::api(action.clone()))?;
        let Ok(read) = read.0 else {
            return Ok(());
        };
        let mut entries = read.managed_fields().to_vec();
        if let Some(index) = mine(&read, "Update") {
            entries[index].operation = Some("Apply".to_owned());
        }
        let handover = json!({
            "metadata": {
                "uid": existing.uid(),
                "resourceVersion": existing.resource_version(),
                "managedFields": entries,
            },
        });
        let handover = api.patch(&name, &patch(), &Patch::Merge(&handover)).await;
        handover.map_err(Error::api(action.clone()))?;
    }
    let mut desired = desired.clone();
    desired.metadata.uid = existing.uid();
    let apply = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(&name, &apply, &Patch::Apply(&desired))
        .await
        .map_err(Error::api(action))?;
    info!(service = %name, "Service updated");
    Ok(())
}

/// Takes the finalizer away, which lets the session go, and then tells what nobody tells after it.
///
/// `untold`: AWS sessions whose end was recorded and not told yet, since AWS has not shown it.
///
/// # Errors
/// When the API server refuses it, other than because the session is gone already.
pub async fn release(
    session: &SsmSession,
    release: Release,
    untold: &[AwsSession],
    context: &Context,
) -> Result<(), Error> {
    let namespace = session.namespace().unwrap_or_default();
    let api: Api<Guarded<SsmSession>> = Api::namespaced(context.client.clone(), &namespace);
    let ours = session_finalizer(&context.options.installation());
    let mut finalizers = session.finalizers().to_vec();
    if !finalizers.contains(&ours) {
        // Somebody took it off, or the list can't be read any more: what is not known is not written.
        return Ok(());
    }
    finalizers.retain(|finalizer| *finalizer != ours);
    let last_words = match set_finalizers(&api, session, &finalizers).await {
        Ok(_) => {
            info!(session = %session.name_any(), %namespace, ?release, "session let go");
            leave::last_words(session, release, untold)
        }
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(error),
    };
    context.forget_session(session);
    for event in last_words {
        events::publish(context, session, event).await;
    }
    Ok(())
}
