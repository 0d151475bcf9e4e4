//! Names that follow from what they name, so that two writers collide instead of making two objects.

use std::fmt::Write as _;

use kube::{Resource, ResourceExt as _};
use sha2::{Digest, Sha256};

/// The field manager of every write of the controller.
pub const FIELD_MANAGER: &str = "ssm-session-operator-controller";

/// Label of Kubernetes: the Service to which an `EndpointSlice` belongs.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Label of Kubernetes: who writes an `EndpointSlice`.
pub const SLICE_MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";

/// Label of Kubernetes: what made an object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// Name of the listener of one port and replica of one session.
#[must_use]
pub fn listener_name(session_uid: &str, port: &str, replica: i32) -> String {
    format!(
        "l-{}",
        digest(&[session_uid, port, &replica.to_string()], 32)
    )
}

/// Name of the slice of one listener and address family, beginning with the session's name for those who read lists.
///
/// Two installations name the listeners of one session alike, but never their slices: while a session is handed over,
/// what one takes away is never what the other has just made.
#[must_use]
pub fn slice_name(session_name: &str, installation: &str, listener: &str, family: &str) -> String {
    let readable: String = session_name.chars().take(40).collect();
    let readable = readable.trim_end_matches(['.', '-']);
    format!(
        "{readable}-{}",
        digest(&[installation, listener, family], 16)
    )
}

/// Namespace and name of an object, by which its failures are counted.
#[must_use]
pub fn key<K: Resource<DynamicType = ()>>(object: &K) -> String {
    key_of(object.namespace().as_deref(), &object.name_any())
}

/// As [`key`], of the parts.
#[must_use]
pub fn key_of(namespace: Option<&str>, name: &str) -> String {
    format!("{}/{name}", namespace.unwrap_or_default())
}

/// The first `length` hex characters of a hash of all parts, which may not hold a NUL.
fn digest(parts: &[&str], length: usize) -> String {
    let hash = Sha256::digest(parts.join("\0").as_bytes());
    let mut hex = String::with_capacity(64);
    for byte in hash {
        // Writing to a String can't fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex.truncate(length);
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_has_the_same_name_whoever_makes_it() {
        assert_eq!(listener_name("u", "sql", 0), listener_name("u", "sql", 0));
        assert_eq!(listener_name("u", "sql", 0).len(), 34);
    }

    #[test]
    fn session_port_and_replica_make_the_name() {
        let name = listener_name("u", "sql", 0);
        for other in [
            listener_name("v", "sql", 0),
            listener_name("u", "web", 0),
            listener_name("u", "sql", 1),
        ] {
            assert_ne!(name, other);
        }
    }

    #[test]
    fn a_slice_of_a_session_with_a_long_dotted_name_has_a_valid_name() {
        let session = format!("{}.{}", "a".repeat(39), "b".repeat(200));
        let name = slice_name(&session, "i", "l-1", "IPv4");
        assert_eq!(name.len(), 39 + 1 + 16);
        assert!(name.starts_with(&format!("{}-", "a".repeat(39))));
        assert_ne!(name, slice_name(&session, "i", "l-1", "IPv6"));
        assert_ne!(name, slice_name(&session, "j", "l-1", "IPv4"));
    }
}
