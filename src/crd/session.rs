//! `SsmSession`: the wish to reach a target's ports, and what AWS says of it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::listener::EndReason;
use super::target::Target;
use super::{limit, rule, schema};

/// A session with a managed node, and the Service by which pods reach its ports.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "ssm-operator.dev",
    version = "v1alpha1",
    kind = "SsmSession",
    plural = "ssmsessions",
    shortname = "ssms",
    category = "aws",
    namespaced,
    status = "SsmSessionStatus",
    derive = "PartialEq",
    doc = "A session with a managed node, and the Service by which pods reach its ports.",
    validation = (
        "(has(self.spec.service) && has(self.spec.service.name)) \
         || (size(self.metadata.name) <= 63 && self.metadata.name.matches('^[a-z]([a-z0-9-]*[a-z0-9])?$'))",
        "metadata.name can't name a Service: set spec.service.name, or use a metadata.name of at most 63 \
         lower-case letters, digits and '-', beginning with a letter",
    ),
    validation = (
        "size(self.metadata.name) <= 236",
        "use a metadata.name of at most 236 characters: an Event is named after it, with 17 characters more",
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Target", type_ = "string", json_path = ".status.target.id"),
    printcolumn(name = "Session", type_ = "string", json_path = ".status.sessions[0].sessionId"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoint.host"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct SsmSessionSpec {
    /// The class; without it the default class of the installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limit::DNS_NAME_CHARS_MAX))]
    #[x_kube(validation = rule::OBJECT_NAME)]
    pub class_name: Option<String>,
    /// The managed node that the session reaches.
    pub target: Target,
    /// The ports that are forwarded, each by AWS sessions of its own.
    #[schemars(length(min = 1, max = limit::PORTS_MAX))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = (
        "self.all(one, self.exists_one(other, other.port == one.port))",
        "give each port a number of its own in 'port': a Service has each only once",
    ))]
    pub ports: Vec<Port>,
    /// Why this access is needed; goes into StartSession's Reason and so into CloudTrail.
    #[schemars(length(min = 1, max = limit::REASON_CHARS_MAX))]
    #[x_kube(validation = rule::REASON_ONE_LINE)]
    #[x_kube(validation = rule::REASON_NO_MARKER)]
    pub reason: String,
    /// The Service that clients dial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceTemplate>,
}

/// One forwarded port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// Name of the port, unique in the session; the Service's port has the same.
    #[schemars(length(min = 1, max = limit::LABEL_CHARS_MAX))]
    #[x_kube(validation = rule::PORT_NAME)]
    pub name: String,
    /// The port on which the Service listens.
    #[schemars(range(min = 1, max = limit::PORT_MAX))]
    pub port: i32,
    /// The port that the agent dials.
    #[schemars(range(min = 1, max = limit::PORT_MAX))]
    pub remote_port: i32,
    /// The host that the agent dials, as the target resolves it; without it the target itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limit::DNS_NAME_CHARS_MAX))]
    #[x_kube(validation = rule::HOST)]
    pub remote_host: Option<String>,
    /// `appProtocol` of the Service's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limit::QUALIFIED_NAME_CHARS_MAX))]
    #[x_kube(validation = rule::APP_PROTOCOL)]
    pub app_protocol: Option<String>,
}

/// What the Service is called and carries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceTemplate {
    /// Name of the Service; without it the session's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limit::LABEL_CHARS_MAX))]
    #[x_kube(validation = rule::SERVICE_NAME)]
    pub name: Option<String>,
    /// Labels of the Service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(
        extend("maxProperties" = limit::LABELS_MAX),
        extend("additionalProperties" = schema::text(0, limit::LABEL_CHARS_MAX))
    )]
    #[x_kube(validation = rule::METADATA_KEYS)]
    #[x_kube(validation = rule::METADATA_KEYS_NOT_OURS)]
    #[x_kube(validation = rule::METADATA_KEYS_NOT_RESERVED)]
    #[x_kube(validation = rule::LABEL_VALUES)]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the Service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(
        extend("maxProperties" = limit::ANNOTATIONS_MAX),
        extend("additionalProperties" = schema::text(0, limit::ANNOTATION_CHARS_MAX))
    )]
    #[x_kube(validation = rule::METADATA_KEYS)]
    #[x_kube(validation = rule::METADATA_KEYS_NOT_OURS)]
    #[x_kube(validation = rule::METADATA_KEYS_NOT_RESERVED)]
    pub annotations: BTreeMap<String, String>,
}

/// What is true of the session, as the controller last saw it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SsmSessionStatus {
    /// The generation of the spec that this status speaks of; -1 before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, Available, TargetConnected, AwsReachable, DestinationReachable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limit::CONDITIONS_MAX))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The class that serves the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The resolved target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<ResolvedTarget>,
    /// Where clients dial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// The AWS sessions that are live, as DescribeSessions shows them; 64 at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limit::SESSIONS_MAX))]
    pub sessions: Vec<AwsSession>,
    /// The last five AWS sessions that ended, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limit::HISTORY_MAX))]
    pub history: Vec<AwsSession>,
    /// When a failed start is tried again, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_retry_time: Option<String>,
}

/// The target as StartSession takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedTarget {
    /// `i-…`, `mi-…` or `ecs:…`.
    pub id: String,
}

/// Where clients dial.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Name of the Service.
    pub service: String,
    /// Its DNS name inside the cluster, `<service>.<namespace>.svc`.
    pub host: String,
    /// Its ports.
    #[schemars(length(max = limit::PORTS_MAX))]
    pub ports: Vec<EndpointPort>,
}

/// One port of the Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointPort {
    /// Name of the port.
    pub name: String,
    /// Number of the port.
    pub port: i32,
}

/// One AWS session: what DescribeSessions says, word for word, and what only we know.
// Nothing of AWS's is constrained by the schema: one strange value must not make the status unwritable. Whoever
// fills this cuts long values with `text::cut`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwsSession {
    /// Id of the session.
    pub session_id: String,
    /// Connected, Connecting, Disconnected, Terminated, Terminating, Failed; absent before the first poll.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The managed node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The document that started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_name: Option<String>,
    /// ARN of who started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The reason, with our marker at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Reserved by AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
    /// Standard or JustInTime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_type: Option<String>,
    /// When it started, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_date: Option<String>,
    /// When it ended, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_date: Option<String>,
    /// Maximum duration in minutes, as AWS writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_session_duration: Option<String>,
    /// Where AWS logs the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_url: Option<OutputUrl>,
    /// `endDate - startDate` such as `1h2m3s`, written once at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Name of the session's port that it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Index of the replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<i32>,
    /// The relay that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// Why it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
    /// The service's own words at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_message: Option<String>,
}

/// Where AWS logs a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutputUrl {
    /// S3 URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<String>,
    /// CloudWatch URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_watch: Option<String>,
}
