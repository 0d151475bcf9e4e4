//! Whose the Service is that has the name that a session asks for.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Resource as _, ResourceExt as _};

use crate::controller::cached::owner;
use crate::controller::context::Context;
use crate::controller::error::Error;
use crate::crd::SsmSession;
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
    /// Nobody can tell, nor whether there are slices: what is in the namespace can't be read, or the session's own Service.
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

/// Whether an `SsmSession` of this UID owns it.
#[must_use]
pub fn is_owned(references: &[OwnerReference], uid: &str) -> bool {
    owner(references).is_some_and(|owner| owner.uid == uid)
}

impl ServiceFound {
    /// The same of a Service of which only whose it is can be read: our own is neither changed nor taken for gone.
    #[must_use]
    pub fn unread(self, name: &str, why: &str) -> Self {
        match self {
            Self::Ours(_) => Self::Unread {
                message: format!("Service {name} can't be read: {why}"),
            },
            Self::Absent | Self::Leaving { .. } | Self::Unread { .. } | Self::Conflict { .. } => {
                self
            }
        }
    }
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
    let mut why = None;
    let service = if let Some(service) = cached {
        service
    } else {
        let api: Api<Guarded<Service>> = Api::namespaced(context.client.clone(), &namespace);
        let action = format!("read Service {namespace}/{name}");
        match api.get_opt(name).await.map_err(Error::api(action))? {
            Some(Guarded(Ok(service))) => Arc::new(service),
            Some(Guarded(Err(unreadable))) => {
                why = Some(unreadable.why);
                Arc::new(Service {
                    metadata: unreadable.metadata,
                    ..Service::default()
                })
            }
            None => return Ok(ServiceFound::Absent),
        }
    };
    let owner_lives = match owner(service.owner_references()) {
        Some(owner) if owner.uid != uid => find_owner(&namespace, owner, context).await?,
        Some(_) | None => false,
    };
    let found = judge_service(&uid, service, owner_lives);
    Ok(match why {
        Some(why) => found.unread(name, &why),
        None => found,
    })
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
