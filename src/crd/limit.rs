//! The limits that the schemas hold, each with its reason.

/// Ports of one session: each is an AWS session of its own, and the accounts' limits on those are not documented.
pub const PORTS_MAX: u32 = 8;

/// Live AWS sessions in a status, and lost ones in a listener's spec: keeps an object far from what etcd takes.
pub const SESSIONS_MAX: u32 = 64;

/// Identities that a listener had before: while four of its own sessions wait for their end, a relay starts no other. What
/// AWS refuses to end of earlier runs keeps none from starting, so that a class may come to a fifth: that waits for one of these
/// then, since a session is ended with an identity of its listener's spec alone.
pub const FORMER_IDENTITIES_MAX: u32 = 4;

/// Ended AWS sessions that a status remembers.
pub const HISTORY_MAX: u32 = 5;

/// Conditions of a status: more than there are types, so that a later version can add some.
pub const CONDITIONS_MAX: u32 = 16;

/// Address families: a relay has one address at most of each.
pub const ADDRESSES_MAX: u32 = 2;

/// A user's reason: 256 characters is what StartSession takes, and the marker needs 51 of them.
pub const REASON_CHARS_MAX: u32 = 200;

/// What StartSession takes as a target.
pub const TARGET_CHARS_MAX: u32 = 400;

/// What ECS takes as the name of a cluster.
pub const ECS_CLUSTER_CHARS_MAX: u32 = 255;

/// A task's id is 32 digits, and was a UUID of 36 characters before.
pub const ECS_TASK_ID_CHARS_MAX: u32 = 64;

/// A runtime id is 64 digits on EC2, and the task's id with a number behind it on Fargate.
pub const ECS_RUNTIME_ID_CHARS_MAX: u32 = 128;

/// A DNS label: names of ports, Services and namespaces, and values of labels.
pub const LABEL_CHARS_MAX: u32 = 63;

/// A DNS name: names of objects, and hosts.
pub const DNS_NAME_CHARS_MAX: u32 = 253;

/// A qualified name: a DNS name, a slash and a label.
pub const QUALIFIED_NAME_CHARS_MAX: u32 = 317;

/// What IngressClass takes as the name of a controller.
pub const CONTROLLER_NAME_CHARS_MAX: u32 = 250;

/// The longest Region that exists has 14 characters.
pub const REGION_CHARS_MAX: u32 = 32;

/// `https://`, a DNS name, and a port.
pub const ENDPOINT_CHARS_MAX: u32 = 267;

/// `arn:aws-us-gov:iam::123456789012:role`, a path of 512 characters and a name of 64.
pub const ROLE_ARN_CHARS_MAX: u32 = 640;

/// What AssumeRole takes as an external id.
pub const EXTERNAL_ID_CHARS_MAX: u32 = 1224;

/// What AssumeRole takes as a role session name. A session's id is 18 characters longer, and may have 96.
pub const ROLE_SESSION_NAME_CHARS_MAX: u32 = 64;

/// Labels of the Service: CEL looks at each, and has a budget.
pub const LABELS_MAX: u32 = 16;

/// Annotations of the Service: CEL looks at each, and has a budget.
pub const ANNOTATIONS_MAX: u32 = 16;

/// One annotation: 16 of them stay below the 256 KiB that an object may have in all.
pub const ANNOTATION_CHARS_MAX: u32 = 4096;

/// The highest TCP port.
pub const PORT_MAX: u32 = 65_535;

/// The highest index of a replica.
pub const REPLICA_MAX: u32 = 4;

/// A UID has 36 characters; nothing promises that it stays so.
pub const UID_CHARS_MAX: u32 = 128;

/// Parameters of a document: the derived documents have three.
pub const PARAMETERS_MAX: u32 = 16;

/// Values of one parameter: the derived documents have one.
pub const PARAMETER_VALUES_MAX: u32 = 16;

/// What StartSession takes as one value of a parameter.
pub const PARAMETER_VALUE_CHARS_MAX: u32 = 65_535;

/// A point in time, RFC 3339: ours have 24 characters, and another version may write more.
pub const TIME_CHARS_MAX: u32 = 64;

/// An IP address has 45 characters at most.
pub const ADDRESS_CHARS_MAX: u32 = 64;

/// Words of others, as relays cut them: long enough for every error of AWS that was seen, and short enough that a status of
/// 64 sessions stays far from what etcd takes (1.5 MiB).
pub const WORDS_CHARS_MAX: u32 = 1024;

/// Id of an AWS session: AWS promises 96 characters, and nothing depends on that here.
pub const SESSION_ID_CHARS_MAX: u32 = 400;
