//! `SsmSessionClass`: which installation serves a session, and with which AWS identity.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// Decided once by an administrator: where in AWS the sessions of this class are started.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema,
)]
#[kube(
    group = "ssm-operator.dev",
    version = "v1alpha1",
    kind = "SsmSessionClass",
    plural = "ssmsessionclasses",
    shortname = "ssmc",
    category = "aws",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct SsmSessionClassSpec {
    /// The installation that serves this class, as in IngressClass.
    pub controller_name: String,
    /// Region and endpoints.
    pub aws: Aws,
}

/// Region and endpoints of the AWS API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Aws {
    /// The Region, such as `eu-central-1`.
    pub region: String,
    /// Endpoints other than the Region's public ones, such as VPC endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,
}

/// Endpoints of the two services that a session needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// URL of the SSM API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssm: Option<String>,
    /// URL of the message gateway; the host of a stream URL must be its host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssmmessages: Option<String>,
}
