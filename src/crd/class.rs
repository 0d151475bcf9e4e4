//! `SsmSessionClass`: which installation serves a session, and with which AWS identity.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{DEFAULT_CONTROLLER_NAME, limit, rule};

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
    derive = "PartialEq",
    doc = "Where in AWS the sessions of this class are started, and which installation serves them.",
    printcolumn(
        name = "Controller",
        type_ = "string",
        json_path = ".spec.controllerName"
    ),
    printcolumn(name = "Region", type_ = "string", json_path = ".spec.aws.region"),
    printcolumn(
        name = "Default",
        type_ = "string",
        json_path = ".metadata.annotations.ssm-operator\\.dev/is-default-class"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[expect(
    clippy::duplicated_attributes,
    reason = "every print column has a name and a type"
)]
#[serde(rename_all = "camelCase")]
pub struct SsmSessionClassSpec {
    /// The installation that serves this class, as in IngressClass.
    #[serde(default = "default_controller_name")]
    #[schemars(length(min = 1, max = limit::CONTROLLER_NAME_CHARS_MAX))]
    #[x_kube(validation = rule::CONTROLLER_NAME)]
    #[x_kube(validation = rule::CONTROLLER_NAME_STAYS)]
    pub controller_name: String,
    /// Region and endpoints.
    pub aws: Aws,
}

fn default_controller_name() -> String {
    DEFAULT_CONTROLLER_NAME.to_owned()
}

/// Region and endpoints of the AWS API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Aws {
    /// The Region, such as `eu-central-1`.
    #[schemars(length(min = 1, max = limit::REGION_CHARS_MAX))]
    #[x_kube(validation = rule::REGION)]
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
    #[schemars(length(min = 1, max = limit::ENDPOINT_CHARS_MAX))]
    #[x_kube(validation = rule::ENDPOINT)]
    pub ssm: Option<String>,
    /// URL of the message gateway; the host of a stream URL must be its host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limit::ENDPOINT_CHARS_MAX))]
    #[x_kube(validation = rule::ENDPOINT)]
    pub ssmmessages: Option<String>,
}
