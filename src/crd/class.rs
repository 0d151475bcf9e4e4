//! `SsmSessionClass`: which installation serves a session, and with which AWS identity.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{DEFAULT_CONTROLLER_NAME, DEFAULT_ROLE_SESSION_NAME, limit, rule};

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
        name = "Role",
        type_ = "string",
        json_path = ".spec.aws.roleArn",
        priority = 1
    ),
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
    /// Region, endpoints and role.
    pub aws: Aws,
}

fn default_controller_name() -> String {
    DEFAULT_CONTROLLER_NAME.to_owned()
}

/// Where the AWS API is, and with which role it is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = rule::EXTERNAL_ID_OF_ROLE)]
#[x_kube(validation = rule::SESSION_NAME_OF_ROLE)]
#[serde(rename_all = "camelCase")]
pub struct Aws {
    /// The Region, such as `eu-central-1`.
    #[schemars(length(min = 1, max = limit::REGION_CHARS_MAX))]
    #[x_kube(validation = rule::REGION)]
    pub region: String,
    /// Endpoints other than the Region's public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,
    /// ARN of the IAM role that controller and relays assume for every call, in whatever account it is. Without it they
    /// call with their pods' own identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limit::ROLE_ARN_CHARS_MAX))]
    #[x_kube(validation = rule::ROLE_ARN)]
    pub role_arn: Option<String>,
    /// External id that the role's trust policy asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = limit::EXTERNAL_ID_CHARS_MAX))]
    #[x_kube(validation = rule::EXTERNAL_ID)]
    pub external_id: Option<String>,
    /// Role session name, `ssm-session-operator` by default. The ids of all sessions begin with it, so that a policy can
    /// say that who starts a session may end it: it is the same for controller and relays, and the same after a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = limit::ROLE_SESSION_NAME_CHARS_MAX))]
    #[x_kube(validation = rule::ROLE_SESSION_NAME)]
    pub session_name: Option<String>,
}

impl Aws {
    /// Whether both call AWS alike, be it that only one of them has the defaults written out.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.written_out() == other.written_out()
    }

    /// The same with its defaults, and without what counts for a role only where there is none.
    fn written_out(&self) -> Self {
        let Self {
            region,
            endpoints,
            role_arn,
            external_id,
            session_name: _,
        } = self;
        let has_role = role_arn.is_some();
        Self {
            region: region.clone(),
            endpoints: Some(endpoints.clone().unwrap_or_default()),
            role_arn: role_arn.clone(),
            external_id: external_id.clone().filter(|_| has_role),
            session_name: has_role.then(|| self.role_session_name().to_owned()),
        }
    }

    /// The role session name under which the role is assumed.
    #[must_use]
    pub fn role_session_name(&self) -> &str {
        let named = self.session_name.as_deref();
        named.unwrap_or(DEFAULT_ROLE_SESSION_NAME)
    }
}

/// Endpoints of the two services that a session needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// URL of the SSM API, such as a VPC endpoint without private DNS name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limit::ENDPOINT_CHARS_MAX))]
    #[x_kube(validation = rule::ENDPOINT)]
    pub ssm: Option<String>,
    /// URL by which the message gateway is reached. AWS names its public gateway in every stream URL; this takes its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limit::ENDPOINT_CHARS_MAX))]
    #[x_kube(validation = rule::ENDPOINT)]
    pub ssmmessages: Option<String>,
}
