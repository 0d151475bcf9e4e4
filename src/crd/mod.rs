//! The kinds of the API group `ssm-operator.dev`, and the words of their statuses.
//!
//! Only data and its validation live here: no client, no clock, no decision. The schemas refuse what AWS or the API
//! server would refuse later, with a message that says what to do; what AWS says is taken into a status as it comes.

pub mod class;
pub mod condition;
mod lenient;
pub mod limit;
pub mod listener;
mod manifest;
mod rule;
mod schema;
pub mod session;
pub mod target;
pub mod text;

pub use class::{SsmSessionClass, SsmSessionClassSpec};
pub use listener::{SsmListener, SsmListenerSpec, SsmListenerStatus};
pub use manifest::{definitions, manifests, write_manifests};
pub use session::{SsmSession, SsmSessionSpec, SsmSessionStatus};
use std::time::Duration;

/// The API group of all kinds, and the prefix of our labels, annotations and finalizers.
pub const GROUP: &str = "ssm-operator.dev";

/// The `controllerName` that an installation serves unless it is told otherwise.
pub const DEFAULT_CONTROLLER_NAME: &str = "ssm-operator.dev/controller";

/// The role session name of a class that names a role and none of its own. A constant, so that every process of every
/// version takes the same: policies name sessions by it.
pub const DEFAULT_ROLE_SESSION_NAME: &str = "ssm-session-operator";

/// Annotation on an [`SsmSessionClass`]: `"true"` makes it the class of sessions that name none.
pub const DEFAULT_CLASS_ANNOTATION: &str = "ssm-operator.dev/is-default-class";

/// What the finalizers begin with that installations put on an [`SsmSession`].
const SESSION_FINALIZER_PREFIX: &str = "ssm-operator.dev/session-";

/// Finalizer that an [`installation`] puts on every [`SsmSession`] before anything is made for it. It says whose it is:
/// an installation whose finalizer is there has something to take away, also when the class became somebody else's.
#[must_use]
pub fn session_finalizer(installation: &str) -> String {
    format!("{SESSION_FINALIZER_PREFIX}{installation}")
}

/// The finalizer of the installation that holds a session: of several the first, since each is put behind those that
/// are there.
#[must_use]
pub fn session_holder(finalizers: &[String]) -> Option<&str> {
    let mut finalizers = finalizers.iter();
    let first = finalizers.find(|finalizer| finalizer.starts_with(SESSION_FINALIZER_PREFIX));
    first.map(String::as_str)
}

/// Which installation this is, as 16 hexadecimal digits: of SHA-256 of the UID of the operator's namespace and of the
/// `controllerName`. Two operators in two namespaces are two installations, also when they serve the same classes.
#[must_use]
pub fn installation(namespace_uid: &str, controller_name: &str) -> String {
    digest(&format!("{namespace_uid}\0{controller_name}"))
}

/// Finalizer that the controller puts on every [`SsmListener`], taken away once AWS has ended its sessions.
pub const LISTENER_FINALIZER: &str = "ssm-operator.dev/listener";

/// Value of `endpointslice.kubernetes.io/managed-by` and of `app.kubernetes.io/managed-by` on what we make.
pub const MANAGED_BY: &str = "ssm-session-operator";

/// Label with the UID of the [`SsmSession`] on listeners, Services and EndpointSlices.
pub const SESSION_UID_LABEL: &str = "ssm-operator.dev/session-uid";

/// Label on EndpointSlices, and on the [`INSTALLATION_LEASE`] and the [`DRAIN_LEASE`]: which [`installation`] wrote it.
pub const INSTALLATION_LABEL: &str = "ssm-operator.dev/installation";

/// Name of the Lease that says whose the operator's namespace is: the first controller there makes it, and no other
/// installation begins anything in that namespace. A relay of this name would find a Lease that is not a relay's, and say so.
pub const INSTALLATION_LEASE: &str = "installation.ssm-operator.dev";

/// Name of the Lease that asks an installation's controllers to drain, for as long as somebody renews it: they begin
/// nothing, end every listener, and take their finalizer off every [`SsmSession`]. It carries the [`INSTALLATION_LABEL`].
pub const DRAIN_LEASE: &str = "drain.ssm-operator.dev";

/// How long that Lease holds at most, whatever it says: one that somebody left behind must not stop an installation for
/// good.
pub const DRAIN_DURATION_MAX: Duration = Duration::from_hours(1);

/// Label on the Leases of relays: the `controllerName`'s installation finds its relays by it.
pub const RELAY_LEASE_LABEL: &str = "ssm-operator.dev/relay";

/// Name of the Lease for which an installation's controllers stand.
#[must_use]
pub fn election_lease(controller_name: &str) -> String {
    format!("ssm-controller-{}", relay_label_value(controller_name))
}

/// Annotation on the Lease of a relay: how many listeners it takes, as a decimal number.
pub const RELAY_CAPACITY_ANNOTATION: &str = "ssm-operator.dev/capacity";

/// Value of [`RELAY_LEASE_LABEL`]: the first 16 hexadecimal digits of SHA-256 of the installation's `controllerName`,
/// which itself may hold characters that a label may not.
#[must_use]
pub fn relay_label_value(controller_name: &str) -> String {
    digest(controller_name)
}

fn digest(text: &str) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(text.as_bytes());
    digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_is_a_namespace_and_a_controller_name() {
        let one = installation("uid", "example.com/a");
        assert_eq!(one, installation("uid", "example.com/a"));
        assert_eq!(one.len(), 16);
        assert_ne!(one, installation("other", "example.com/a"));
        assert_ne!(one, installation("uid", "example.com/b"));
    }

    #[test]
    fn of_several_installations_the_first_holds_a_session() {
        let (one, two) = (session_finalizer("one"), session_finalizer("two"));
        let strange = "example.com/session-three".to_owned();
        assert_eq!(session_holder(&[]), None);
        assert_eq!(session_holder(std::slice::from_ref(&strange)), None);
        assert_eq!(
            session_holder(&[strange, one.clone(), two]),
            Some(one.as_str())
        );
    }
}
