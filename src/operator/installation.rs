//! Whose the operator's namespace is. Listeners and relays of two installations can't be told apart there, so the first
//! controller writes its installation into a Lease, and no process of another one begins anything.
//!
//! The Lease is never renewed and never given back: it goes with the namespace, or by hand.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::backoff::halved;
use crate::binding;
use crate::crd::{INSTALLATION_LABEL, INSTALLATION_LEASE, installation};

/// How long the API server may take to accept a connection, and to answer at the start before it is asked again.
pub(super) const START_CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two tries at the start; probes say meanwhile that the process is not ready.
pub(super) const START_RETRY: Duration = Duration::from_secs(1);

/// Field manager of the Lease.
const FIELD_MANAGER: &str = "ssm-session-operator";

/// Between two looks at another installation's Lease, as a factor of [`START_RETRY`]: only people take it away.
const TAKEN_RETRY_FACTOR: u32 = 10;

/// Which installation asks for which namespace.
pub(super) struct Claim<'a> {
    /// The operator's namespace.
    pub(super) namespace: &'a str,
    /// Its UID.
    pub(super) namespace_uid: &'a str,
    /// The installation's `controllerName`.
    pub(super) controller_name: &'a str,
    /// A controller writes the Lease; a relay alone only reads it, since nobody binds a listener to it before.
    pub(super) writes: bool,
}

/// Whose the namespace is.
#[derive(Debug, PartialEq, Eq)]
enum Owner {
    Nobody,
    Us,
    /// With its `controllerName`, as far as the Lease says.
    Another(String),
}

fn owner(stored: Option<&Lease>, installation: &str) -> Owner {
    let Some(lease) = stored else {
        return Owner::Nobody;
    };
    let labels = lease.metadata.labels.as_ref();
    let label = labels.and_then(|labels| labels.get(INSTALLATION_LABEL));
    if label.is_some_and(|label| label == installation) {
        return Owner::Us;
    }
    let spec = lease.spec.as_ref();
    let name = spec.and_then(|spec| spec.holder_identity.clone());
    Owner::Another(name.unwrap_or_default())
}

fn lease(controller_name: &str, installation: &str) -> Lease {
    let label = (INSTALLATION_LABEL.to_owned(), installation.to_owned());
    Lease {
        metadata: ObjectMeta {
            name: Some(INSTALLATION_LEASE.to_owned()),
            labels: Some([label].into()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(controller_name.to_owned()),
            ..LeaseSpec::default()
        }),
    }
}

/// UID of the operator's namespace, asked for until it is known; `None` at `shutdown`.
pub(super) async fn namespace_uid(
    client: &Client,
    namespace: &str,
    shutdown: &CancellationToken,
) -> Option<String> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    loop {
        let error = match timeout(START_CALL_TIMEOUT, namespaces.get(namespace)).await {
            Ok(Ok(object)) => match object.metadata.uid {
                Some(uid) => return Some(uid),
                None => "it has no UID".to_owned(),
            },
            Ok(Err(error)) => binding::words(&error),
            Err(_) => format!("no answer within {START_CALL_TIMEOUT:?}"),
        };
        warn!(
            namespace,
            error, "the operator's namespace can't be read: trying again"
        );
        tokio::select! {
            () = shutdown.cancelled() => return None,
            () = tokio::time::sleep(halved(START_RETRY)) => {}
        }
    }
}

/// Waits until the namespace is no other installation's; false at `shutdown`.
pub(super) async fn wait_for_namespace(
    client: &Client,
    claim: &Claim<'_>,
    shutdown: &CancellationToken,
) -> bool {
    let api: Api<Lease> = Api::namespaced(client.clone(), claim.namespace);
    let namespace = claim.namespace;
    loop {
        let mut pause = START_RETRY;
        match timeout(START_CALL_TIMEOUT, ask(&api, claim)).await {
            Ok(Ok(Owner::Us | Owner::Nobody)) => return true,
            Ok(Ok(Owner::Another(controller_name))) => {
                pause *= TAKEN_RETRY_FACTOR;
                error!(
                    namespace,
                    controller_name,
                    lease = INSTALLATION_LEASE,
                    "the namespace is another installation's: nothing is begun. Give this one a namespace of its own; \
                     if the other is gone for good, and its SsmListeners with it, delete the Lease"
                );
            }
            Ok(Err(error)) => {
                let error = binding::words(&error);
                warn!(
                    namespace,
                    lease = INSTALLATION_LEASE,
                    error,
                    "whose the namespace is can't be told: trying again"
                );
            }
            Err(_) => warn!(
                namespace, lease = INSTALLATION_LEASE, limit = ?START_CALL_TIMEOUT,
                "whose the namespace is can't be told, no answer: trying again"
            ),
        }
        tokio::select! {
            () = shutdown.cancelled() => return false,
            () = tokio::time::sleep(halved(pause)) => {}
        }
    }
}

/// Reads the Lease, and writes it if it is nobody's: two that do so at once collide, and one of them asks again.
async fn ask(api: &Api<Lease>, claim: &Claim<'_>) -> Result<Owner, kube::Error> {
    let ours = installation(claim.namespace_uid, claim.controller_name);
    let stored = api.get_opt(INSTALLATION_LEASE).await?;
    let found = owner(stored.as_ref(), &ours);
    if found != Owner::Nobody || !claim.writes {
        return Ok(found);
    }
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let lease = lease(claim.controller_name, &ours);
    api.create(&params, &lease).await?;
    info!(
        namespace = claim.namespace,
        installation = ours,
        "the namespace is this installation's from now on"
    );
    Ok(Owner::Us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_belongs_to_the_installation_that_wrote_the_lease_and_to_no_other() {
        let ours = lease("example.com/a", "ours");
        assert_eq!(owner(None, "ours"), Owner::Nobody);
        assert_eq!(owner(Some(&ours), "ours"), Owner::Us);
        let another = Owner::Another("example.com/a".to_owned());
        assert_eq!(owner(Some(&ours), "another"), another);
        let strange = Lease::default();
        assert_eq!(owner(Some(&strange), "ours"), Owner::Another(String::new()));
    }
}
