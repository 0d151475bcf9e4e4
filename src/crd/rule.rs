//! The CEL rules that several fields share, each with the message that tells a user what to do.
//!
//! A pattern in the schema would be shorter, but its message is the pattern, and it hides the messages of CEL, which
//! is not asked about a value that the schema refuses. So the schema holds lengths and ranges, and CEL all else.

/// Rule and message, in the order in which the derive takes them.
type Rule = (&'static str, &'static str);

/// Names of ports: what Service and EndpointSlice take.
pub(super) const PORT_NAME: Rule = (
    "!format.dns1123Label().validate(self).hasValue()",
    "use lower-case letters, digits and '-', with a letter or digit at both ends",
);

/// `appProtocol`, as Service takes it.
pub(super) const APP_PROTOCOL: Rule = (
    "!format.qualifiedName().validate(self).hasValue()",
    "use a protocol's name such as 'http' or a name with a domain such as 'kubernetes.io/h2c'",
);

/// Names of Services.
pub(super) const SERVICE_NAME: Rule = (
    "!format.dns1035Label().validate(self).hasValue()",
    "use a name that a Service can have: at most 63 lower-case letters, digits and '-', beginning with a letter",
);

/// Names of classes and relays.
pub(super) const OBJECT_NAME: Rule = (
    "!format.dns1123Subdomain().validate(self).hasValue()",
    "use the name of an object: lower-case letters, digits, '-' and '.', with a letter or digit at both ends",
);

/// Names of namespaces.
pub(super) const NAMESPACE: Rule = (
    "!format.dns1123Label().validate(self).hasValue()",
    "use the name of a namespace: lower-case letters, digits and '-', with a letter or digit at both ends",
);

/// The target's id. What follows the prefix is AWS's to judge.
pub(super) const TARGET_ID: Rule = (
    "self.matches('^(i-|mi-|ecs:)[A-Za-z0-9_-]+$')",
    "use the id of an instance (i-...), of a managed node (mi-...) or of a container \
     (ecs:<cluster>_<task id>_<runtime id>)",
);

/// Hosts, as the target resolves them.
pub(super) const HOST: Rule = (
    r"isIP(self) || (self.matches('^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\\.?$') && !self.matches('(^|\\.)[0-9]+\\.?$'))",
    "use a host name or an IP address, without scheme, port, brackets or spaces",
);

/// Reason is one line: what StartSession takes.
pub(super) const REASON_ONE_LINE: Rule = (
    r"self.matches('^[^\\p{Cc}\\x{2028}\\x{2029}]*$')",
    "write the reason in one line, without line breaks and other control characters",
);

/// The sweeper trusts what looks like our marker.
pub(super) const REASON_NO_MARKER: Rule = (
    "!self.contains('[ssm-operator ')",
    "leave '[ssm-operator ' out: the operator marks its own sessions with it",
);

/// Regions of all partitions.
pub(super) const REGION: Rule = (
    "self.matches('^[a-z]+(-[a-z]+)*-[0-9]+$')",
    "use the code of an AWS Region, such as 'eu-central-1'",
);

/// Endpoints. The answers carry tokens, so only loopback may be spoken to in the clear. One spelling only: the
/// host is compared with that of stream URLs, and two spellings would make two identities of one.
pub(super) const ENDPOINT: Rule = (
    r"isURL(self) && (self.matches('^https://([a-z0-9]([a-z0-9-]*[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*|\\[[0-9a-f:.]+\\])(:[1-9][0-9]{0,4})?$') || self.matches('^http://(localhost|127(\\.[0-9]{1,3}){3}|\\[::1\\])(:[1-9][0-9]{0,4})?$')) && (url(self).getPort() == '' || int(url(self).getPort()) <= 65535)",
    "write https://host or https://host:port in lower case, without path, query and user; http:// is only for loopback",
);

/// ARNs of roles, of all partitions.
pub(super) const ROLE_ARN: Rule = (
    "self.matches('^arn:aws(-[a-z]+)*:iam::[0-9]{12}:role/([!-~]+/)?[A-Za-z0-9_+=,.@-]{1,64}$')",
    "use the ARN of an IAM role, such as 'arn:aws:iam::123456789012:role/sessions'",
);

/// External ids, as AssumeRole takes them.
pub(super) const EXTERNAL_ID: Rule = (
    "self.matches('^[A-Za-z0-9_+=,.@:/-]*$')",
    "use an external id of letters, digits and '_+=,.@:/-'",
);

/// Role session names, as AssumeRole takes them.
pub(super) const ROLE_SESSION_NAME: Rule = (
    "self.matches('^[A-Za-z0-9_+=,.@-]*$')",
    "use a role session name of letters, digits and '_+=,.@-'",
);

/// An external id goes with AssumeRole, and with nothing else.
pub(super) const EXTERNAL_ID_OF_ROLE: Rule = (
    "has(self.roleArn) || !has(self.externalId)",
    "name the role in roleArn, or leave externalId out: only a role is assumed with it",
);

/// The pods' own role session name is set where their identity is.
pub(super) const SESSION_NAME_OF_ROLE: Rule = (
    "has(self.roleArn) || !has(self.sessionName)",
    "name the role in roleArn, or leave sessionName out: only a role is assumed under it",
);

/// Names of controllers: a domain and a path, as in IngressClass.
pub(super) const CONTROLLER_NAME: Rule = (
    r"self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*/[A-Za-z0-9/._~-]+$')",
    "use a domain and a path, such as 'ssm-operator.dev/controller'",
);

/// A class that changes hands would end all of its sessions at once; as in IngressClass, it does not.
pub(super) const CONTROLLER_NAME_STAYS: Rule = (
    "self == oldSelf",
    "make another class for another installation: the sessions of this one would all be ended at once",
);

/// Keys of labels and annotations.
pub(super) const METADATA_KEYS: Rule = (
    "self.all(key, !format.qualifiedName().validate(key).hasValue())",
    "use keys such as 'team' or 'example.com/team': at most 63 letters, digits, '-', '_' and '.' after the slash",
);

/// Keys that the operator sets itself.
pub(super) const METADATA_KEYS_NOT_OURS: Rule = (
    "self.all(key, !key.startsWith('ssm-operator.dev/') && key != 'app.kubernetes.io/managed-by')",
    "remove 'app.kubernetes.io/managed-by' and what begins with 'ssm-operator.dev/': the operator sets them",
);

/// Keys by which Kubernetes itself reads a Service: some make kube-proxy and the endpoint controllers ignore it.
pub(super) const METADATA_KEYS_NOT_RESERVED: Rule = (
    "self.all(key, !(key.startsWith('kubernetes.io/') || key.contains('.kubernetes.io/')) \
     || key.startsWith('app.kubernetes.io/') || key == 'service.kubernetes.io/topology-mode')",
    "remove the keys of kubernetes.io: of those only 'app.kubernetes.io/...' and \
     'service.kubernetes.io/topology-mode' may be set",
);

/// Values of labels.
pub(super) const LABEL_VALUES: Rule = (
    "self.all(key, !format.labelValue().validate(self[key]).hasValue())",
    "use label values of letters, digits, '-', '_' and '.', with a letter or digit at both ends",
);
