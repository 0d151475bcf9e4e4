//! The kinds of the API group `ssm-operator.dev`, and the words of their statuses.
//!
//! Only data and its validation live here: no client, no clock, no decision. The schemas refuse what AWS or the API
//! server would refuse later, with a message that says what to do; what AWS says is taken into a status as it comes.

pub mod class;
pub mod condition;
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

/// The API group of all kinds, and the prefix of our labels, annotations and finalizers.
pub const GROUP: &str = "ssm-operator.dev";

/// The `controllerName` that an installation serves unless it is told otherwise.
pub const DEFAULT_CONTROLLER_NAME: &str = "ssm-operator.dev/controller";

/// Annotation on an [`SsmSessionClass`]: `"true"` makes it the class of sessions that name none.
pub const DEFAULT_CLASS_ANNOTATION: &str = "ssm-operator.dev/is-default-class";

/// Finalizer that an installation puts on every [`SsmSession`] before anything is made for it. It says whose it is: an
/// installation whose finalizer is there has something to take away, also when the class became somebody else's.
#[must_use]
pub fn session_finalizer(controller_name: &str) -> String {
    format!("{GROUP}/session-{}", relay_label_value(controller_name))
}

/// Finalizer that the controller puts on every [`SsmListener`], taken away once AWS has ended its sessions.
pub const LISTENER_FINALIZER: &str = "ssm-operator.dev/listener";

/// Value of `endpointslice.kubernetes.io/managed-by` and of `app.kubernetes.io/managed-by` on what we make.
pub const MANAGED_BY: &str = "ssm-session-operator";

/// Label with the UID of the [`SsmSession`] on listeners, Services and EndpointSlices.
pub const SESSION_UID_LABEL: &str = "ssm-operator.dev/session-uid";

/// Label on EndpointSlices: which installation wrote it, as [`relay_label_value`] spells it.
pub const INSTALLATION_LABEL: &str = "ssm-operator.dev/installation";

/// Label on the Leases of relays: the `controllerName`'s installation finds its relays by it.
pub const RELAY_LEASE_LABEL: &str = "ssm-operator.dev/relay";

/// Name of the Lease for which an installation's controllers stand.
#[must_use]
pub fn election_lease(controller_name: &str) -> String {
    format!("ssm-controller-{}", relay_label_value(controller_name))
}

/// Annotation on the Lease of a relay: how many listeners it takes, as a decimal number.
pub const RELAY_CAPACITY_ANNOTATION: &str = "ssm-operator.dev/capacity";

/// Value of [`RELAY_LEASE_LABEL`] and [`INSTALLATION_LABEL`]: the first 16 hexadecimal digits of SHA-256 of the installation's
/// `controllerName`, which itself may hold characters that a label may not.
#[must_use]
pub fn relay_label_value(controller_name: &str) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(controller_name.as_bytes());
    digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
