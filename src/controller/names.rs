//! Names that follow from what they name, so that two writers collide instead of making two objects.

use std::fmt::Write as _;

use kube::{Resource, ResourceExt as _};
use sha2::{Digest, Sha256};

use crate::broker::{Identity, Role};
use crate::crd::class::Aws;

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

/// The identity with which AWS is called for a class's or a listener's snapshot.
#[must_use]
pub fn identity_of(aws: &Aws) -> Identity {
    let Aws {
        region,
        endpoints,
        role_arn,
        external_id,
        session_name: _,
    } = aws;
    let endpoints = endpoints.clone().unwrap_or_default();
    Identity {
        region: region.clone(),
        ssm_endpoint: endpoints.ssm,
        ssmmessages_endpoint: endpoints.ssmmessages,
        role: role_arn.clone().map(|arn| Role {
            arn,
            external_id: external_id.clone(),
            session_name: aws.role_session_name().to_owned(),
        }),
    }
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
    use crate::crd::class::Endpoints;

    #[test]
    fn snapshots_are_the_same_when_aws_is_called_alike_with_them() {
        let region = |region: &str| Aws {
            region: region.to_owned(),
            ..Aws::default()
        };
        let with = |change: fn(&mut Aws)| {
            let mut aws = region("eu-test-1");
            change(&mut aws);
            aws
        };
        let role = |aws: &mut Aws| aws.role_arn = Some("arn:aws:iam::1:role/a".to_owned());
        let mut defaults_written_out = with(role);
        defaults_written_out.session_name = Some("ssm-session-operator".to_owned());
        let snapshots = [
            region("eu-test-1"),
            region("eu-test-2"),
            with(|aws| aws.endpoints = Some(Endpoints::default())),
            with(|aws| aws.session_name = Some("without-a-role".to_owned())),
            with(|aws| {
                aws.endpoints = Some(Endpoints {
                    ssm: Some("https://a".to_owned()),
                    ssmmessages: None,
                });
            }),
            with(|aws| {
                aws.endpoints = Some(Endpoints {
                    ssm: None,
                    ssmmessages: Some("https://a".to_owned()),
                });
            }),
            with(role),
            defaults_written_out,
            Aws {
                external_id: Some("x".to_owned()),
                ..with(role)
            },
            Aws {
                session_name: Some("other".to_owned()),
                ..with(role)
            },
        ];
        for a in &snapshots {
            for b in &snapshots {
                let alike = identity_of(a) == identity_of(b);
                assert_eq!(a.is_same_as(b), alike, "{a:?} and {b:?}");
            }
        }
    }

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
