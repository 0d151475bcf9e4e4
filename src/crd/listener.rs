//! `SsmListener`: one port of one session, bound to one relay as a Pod is bound to a node.
//!
//! The controller writes metadata and spec, the relay writes the status, and neither writes the other's half.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::class::Aws;
use super::{limit, rule, schema};

/// What a relay serves: internal, made by the controller in the operator's namespace.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema,
)]
#[kube(
    group = "ssm-operator.dev",
    version = "v1alpha1",
    kind = "SsmListener",
    plural = "ssmlisteners",
    shortname = "ssml",
    category = "aws",
    namespaced,
    status = "SsmListenerStatus",
    selectable = ".spec.relay",
    derive = "PartialEq",
    doc = "One port of one session, bound to a relay. Made by the operator, in its own namespace.",
    printcolumn(
        name = "Session Namespace",
        type_ = "string",
        json_path = ".spec.sessionRef.namespace"
    ),
    printcolumn(
        name = "Session",
        type_ = "string",
        json_path = ".spec.sessionRef.name"
    ),
    printcolumn(name = "Port", type_ = "string", json_path = ".spec.port"),
    printcolumn(name = "Relay", type_ = "string", json_path = ".spec.relay"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Ready", type_ = "boolean", json_path = ".status.ready"),
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
pub struct SsmListenerSpec {
    /// The session that this listener serves.
    pub session_ref: SessionReference,
    /// The relay to which it is bound; absent until it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limit::DNS_NAME_CHARS_MAX))]
    #[x_kube(validation = rule::OBJECT_NAME)]
    pub relay: Option<String>,
    /// Name of the session's port.
    #[schemars(length(min = 1, max = limit::LABEL_CHARS_MAX))]
    #[x_kube(validation = rule::PORT_NAME)]
    pub port: String,
    /// Index of the replica.
    #[schemars(range(min = 0, max = limit::REPLICA_MAX))]
    pub replica: i32,
    /// The managed node, as StartSession takes it.
    #[schemars(length(min = 1, max = limit::TARGET_CHARS_MAX))]
    #[x_kube(validation = rule::TARGET_ID)]
    pub target: String,
    /// The document, as StartSession takes it.
    pub document: Document,
    /// The user's reason; the relay puts the marker behind it.
    #[schemars(length(min = 1, max = limit::REASON_CHARS_MAX))]
    #[x_kube(validation = rule::REASON_ONE_LINE)]
    #[x_kube(validation = rule::REASON_NO_MARKER)]
    pub reason: String,
    /// With what AWS is called; a snapshot, good for describing and terminating after the class has gone.
    pub identity: Aws,
    /// What `identity` was before, for as long as sessions are, or may still come, on record with it; newest first.
    /// Sessions are ended with what stands here and in `identity` alone, whatever their record says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limit::FORMER_IDENTITIES_MAX))]
    pub former_identities: Vec<Aws>,
    /// AWS sessions of which AWS says that they ended: the relay drops them and starts anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limit::SESSIONS_MAX))]
    pub lost_sessions: Vec<LostSession>,
}

impl SsmListenerSpec {
    /// With what sessions of this listener may have been started, as the controller wrote it: the present first.
    pub fn identities(&self) -> impl Iterator<Item = &Aws> {
        std::iter::once(&self.identity).chain(&self.former_identities)
    }

    /// With what a recorded session was started. The record is a relay's word, and only picks one of the identities that
    /// the controller wrote; none if it names another.
    #[must_use]
    pub fn identity_of_record(&self, session: &ListenerSession) -> Option<&Aws> {
        let mut known = self.identities();
        known.find(|identity| identity.is_same_as(&session.identity))
    }
}

/// An AWS session of which DescribeSessions says that it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LostSession {
    /// Its id.
    #[schemars(length(min = 1, max = limit::SESSION_ID_CHARS_MAX))]
    pub session_id: String,
    /// Why, as far as AWS says.
    pub reason: EndReason,
}

/// A document and its parameters, as StartSession takes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// Name of the document.
    #[schemars(length(min = 3, max = 128))]
    #[x_kube(validation = (
        r"self.matches('^[a-zA-Z0-9_.:/-]*$')",
        "use the name or ARN of a document: letters, digits, '_', '-', '.', ':' and '/'",
    ))]
    pub name: String,
    /// Its parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(
        extend("maxProperties" = limit::PARAMETERS_MAX),
        extend("additionalProperties" = schema::texts(limit::PARAMETER_VALUES_MAX, limit::PARAMETER_VALUE_CHARS_MAX))
    )]
    #[x_kube(validation = (
        "self.all(key, size(key) >= 1 && size(key) <= 255)",
        "use keys of 1 to 255 characters",
    ))]
    pub parameters: BTreeMap<String, Vec<String>>,
}

/// Names an `SsmSession` across namespaces, where ownerReferences may not go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionReference {
    /// Namespace of the session.
    #[schemars(length(min = 1, max = limit::LABEL_CHARS_MAX))]
    #[x_kube(validation = rule::NAMESPACE)]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = limit::DNS_NAME_CHARS_MAX))]
    #[x_kube(validation = rule::OBJECT_NAME)]
    pub name: String,
    /// Its UID.
    #[schemars(length(min = 1, max = limit::UID_CHARS_MAX))]
    pub uid: String,
}

/// What the relay says of the listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SsmListenerStatus {
    /// Generation of the spec that the relay serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The relay that wrote this.
    #[schemars(length(max = limit::DNS_NAME_CHARS_MAX))]
    pub relay: String,
    /// The run of its process that wrote this.
    #[schemars(length(max = limit::DNS_NAME_CHARS_MAX))]
    pub incarnation: String,
    /// Addresses by which pods reach the relay, one at most of each family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limit::ADDRESSES_MAX), inner(length(max = limit::ADDRESS_CHARS_MAX)))]
    pub addresses: Vec<String>,
    /// The relay's TCP port for this listener; absent until it listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limit::PORT_MAX))]
    pub port: Option<i32>,
    /// Where the listener is in its life.
    pub state: ListenerState,
    /// It listens, and has not failed to start for longer than the hold.
    pub ready: bool,
    /// The AWS sessions that are live, then the last five that ended, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limit::SESSIONS_MAX))]
    pub sessions: Vec<ListenerSession>,
    /// What went wrong last; cleared when a session serves again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<ListenerError>,
    /// When a failed start is tried again, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limit::TIME_CHARS_MAX))]
    pub retry_at: Option<String>,
    /// What the agent's last dial of the destination came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<DestinationState>,
}

/// Where a listener is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ListenerState {
    /// A session is being started, or is about to be. AWS is not called before this is written.
    #[default]
    Starting,
    /// A session is up.
    Serving,
    /// The last start failed; `retryAt` says when the next comes, its absence that a change is awaited.
    Waiting,
    /// The listener was deleted or moved: nothing listens, and every session is terminated.
    Ended,
    /// A word of another version. What is written instead is the word that says least.
    #[serde(other, rename(serialize = "Starting"))]
    #[schemars(skip)]
    Unknown,
}

/// One AWS session of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerSession {
    /// Its id.
    #[schemars(length(max = limit::SESSION_ID_CHARS_MAX))]
    pub session_id: String,
    /// The relay that started it.
    #[schemars(length(max = limit::DNS_NAME_CHARS_MAX))]
    pub relay: String,
    /// The run of that relay's process: under another run its token is lost, and it can only be terminated.
    #[schemars(length(max = limit::DNS_NAME_CHARS_MAX))]
    pub incarnation: String,
    /// With what it was started, and so must be terminated: one of those that the spec names.
    pub identity: Aws,
    /// When StartSession answered, RFC 3339.
    #[schemars(length(max = limit::TIME_CHARS_MAX))]
    pub started_at: String,
    /// When the relay saw it end, and TerminateSession was answered; absent while it lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limit::TIME_CHARS_MAX))]
    pub ended_at: Option<String>,
    /// Why it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
    /// The service's own words at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limit::WORDS_CHARS_MAX))]
    pub end_message: Option<String>,
}

/// Why an AWS session ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EndReason {
    /// The `SsmSession` was deleted.
    Deleted,
    /// Its target, document, reason, class or relay changed.
    Replaced,
    /// The relay that held it is gone.
    RelayLost,
    /// It could not be used: no data channel, no handshake, or not a port session.
    StartFailed,
    /// It served, until what came over its data channel could not be understood.
    Broken,
    /// It served, until its agent answered nothing for minutes: the target may have stopped.
    Unanswered,
    /// Somebody terminated it in AWS.
    TerminatedExternally,
    /// The service closed it, and nothing more is known.
    #[default]
    ClosedByService,
    /// A word of another version. What is written instead is the word that says least.
    #[serde(other, rename(serialize = "ClosedByService"))]
    #[schemars(skip)]
    Unknown,
}

/// What the agent's last dial came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DestinationState {
    /// The destination accepted.
    #[default]
    Dialled,
    /// The destination refused, or could not be reached from the target.
    Refused,
    /// A word of another version. What is written instead is the word that says least.
    #[serde(other, rename(serialize = "Refused"))]
    #[schemars(skip)]
    Unknown,
}

/// What went wrong, in a closed class and in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerError {
    /// What kind of error it is.
    pub class: ErrorClass,
    /// What failed, without any secret.
    #[schemars(length(max = limit::WORDS_CHARS_MAX))]
    pub message: String,
}

/// The kinds of errors that a relay reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ErrorClass {
    /// IAM denies a call.
    AccessDenied,
    /// There are no usable credentials.
    CredentialsUnavailable,
    /// The document does not exist or does not take these parameters.
    InvalidDocument,
    /// AWS refuses the request as it stands.
    InvalidRequest,
    /// The agent's session is not a port session with the multiplexer.
    UnsupportedSessionType,
    /// The target is not connected to Session Manager.
    TargetNotConnected,
    /// AWS throttles.
    Throttled,
    /// AWS does not answer, or answers with an internal error.
    #[default]
    AwsUnavailable,
    /// The data channel could not be opened, or the agent did not shake hands in time.
    DataChannel,
    /// The session was up and the service closed it.
    SessionClosed,
    /// The relay has no free port to listen on.
    NoPort,
    /// A word of another version. What is written instead is the word that says least.
    #[serde(other, rename(serialize = "AwsUnavailable"))]
    #[schemars(skip)]
    Unknown,
}
