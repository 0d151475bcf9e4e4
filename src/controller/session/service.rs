//! Whose the Service is that has the name that a session asks for.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Resource as _, ResourceExt as _};

use crate::controller::context::Context;
use crate::controller::error::Error;
use crate::crd::{GROUP, SsmSession};
use crate::reading::Guarded;

/// The Service of the name that a session asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum ServiceFound {
    /// The name is free.
    Absent,
    /// It is the session's own.
    Ours(Arc<Service>),
    /// It is on its way out, and waited for.
    Leaving {
        /// What is waited for.
        message: String,
    },
    /// Nobody can tell, nor whether there are slices: what is in the namespace can't be read.
    Unread {
        /// Why.
        message: String,
    },
    /// It is somebody else's, and stays as it is.
    Conflict {
        /// Whose, and what to do.
        message: String,
    },
}

fn owner(references: &[OwnerReference]) -> Option<&OwnerReference> {
    let is_session = |reference: &&OwnerReference| {
        let group = reference.api_version.split('/').next();
        reference.kind == SsmSession::kind(&()) && group == Some(GROUP)
    };
    references.iter().find(is_session)
}

/// Whether an `SsmSession` of this UID owns it.
#[must_use]
pub fn is_owned(references: &[OwnerReference], uid: &str) -> bool {
    owner(references).is_some_and(|owner| owner.uid == uid)
}

/// The cache has only Services with our label, so any other name is asked for.
pub async fn find_service(
    session: &SsmSession,
    name: &str,
    context: &Context,
) -> Result<ServiceFound, Error> {
    let uid = session.uid().unwrap_or_default();
    let namespace = session.namespace().unwrap_or_default();
    let cached = context.services.get(&namespace, name);
    let cached = cached.filter(|service| is_owned(service.owner_references(), &uid));
    let service = if let Some(service) = cached {
        service
    } else {
        let api: Api<Service> = Api::namespaced(context.client.clone(), &namespace);
        let action = format!("read Service {namespace}/{name}");
        match api.get_opt(name).await.map_err(Error::api(action))? {
            Some(service) => Arc::new(service),
            None => return Ok(ServiceFound::Absent),
        }
    };
    let owner_lives = match owner(service.owner_references()) {
        Some(owner) if owner.uid != uid => find_owner(&namespace, owner, context).await?,
        Some(_) | None => false,
    };
    Ok(judge_service(&uid, service, owner_lives))
}

/// Whether the `SsmSession` that owns a Service is there and stays.
async fn find_owner(
    namespace: &str,
    owner: &OwnerReference,
    context: &Context,
) -> Result<bool, Error> {
    let api: Api<Guarded<SsmSession>> = Api::namespaced(context.client.clone(), namespace);
    let action = format!("read SsmSession {namespace}/{}", owner.name);
    let found = api.get_opt(&owner.name).await.map_err(Error::api(action))?;
    Ok(found.is_some_and(|session| {
        session.uid().as_deref() == Some(&owner.uid) && session.meta().deletion_timestamp.is_none()
    }))
}

/// Whose a Service is. `owner_lives`: another `SsmSession` that owns it is there and stays.
#[must_use]
pub fn judge_service(session_uid: &str, service: Arc<Service>, owner_lives: bool) -> ServiceFound {
    let name = service.name_any();
    if service.meta().deletion_timestamp.is_some() {
        return ServiceFound::Leaving {
            message: format!("Service {name} is being deleted"),
        };
    }
    match owner(service.owner_references()) {
        Some(owner) if owner.uid == session_uid => ServiceFound::Ours(service),
        Some(owner) if owner_lives => ServiceFound::Conflict {
            message: format!(
                "Service {name} belongs to SsmSession {}: set another spec.service.name",
                owner.name
            ),
        },
        Some(owner) => ServiceFound::Leaving {
            message: format!(
                "Service {name} goes with the deleted SsmSession {}",
                owner.name
            ),
        },
        None => ServiceFound::Conflict {
            message: format!(
                "Service {name} exists and is not this session's: set another spec.service.name, or delete it"
            ),
        },
    }
}
