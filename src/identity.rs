//! With what AWS is called for a snapshot of a class or a listener. Controller and relays must agree on it: a session is
//! found and ended only with what it was started with.

use crate::broker::{Identity, Role};
use crate::crd::class::Aws;

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
}
