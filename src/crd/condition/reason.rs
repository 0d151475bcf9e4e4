//! The reasons of each condition type; the table is in the module above.

use super::ConditionStatus;

/// Writes the closed enum of a type's reasons, each with the status that it stands for.
macro_rules! reasons {
    ($(#[$about:meta])* $name:ident { $($(#[doc = $why:literal])+ $reason:ident => $status:ident,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[doc = $why])+ $reason,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$reason,)+];

            /// As the status spells it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$reason => stringify!($reason),)+
                }
            }

            /// What it means, in a sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$reason => concat!($($why),+).trim_ascii(),)+
                }
            }

            /// What it makes of its condition.
            #[must_use]
            pub const fn status(self) -> ConditionStatus {
                match self {
                    $(Self::$reason => ConditionStatus::$status,)+
                }
            }
        }
    };
}

reasons! {
    /// Why the session is ready or not.
    ReadyReason {
        /// Every port can be dialled.
        Available => True,
        /// The declared state is not reached yet; `Reconciling` says what is being done.
        Progressing => False,
        /// Some ports can be dialled, others can't.
        Degraded => False,
        /// The declared state is out of reach until somebody changes something; `Stalled` says what.
        Failed => False,
        /// The session is being deleted, and its AWS sessions are being terminated.
        Deleting => False,
        /// The operator lets everything go, as before it is uninstalled: nothing serves the session until a controller
        /// runs that does not.
        Draining => False,
        /// Another installation's finalizer is on the session: that one serves it, or nobody does.
        HeldByAnother => False,
    }
}

reasons! {
    /// What is being done.
    ReconcilingReason {
        /// The class, the Service or a relay is being looked for.
        Resolving => True,
        /// AWS sessions are being started.
        Starting => True,
        /// A start failed and is tried again at `nextRetryTime`.
        Retrying => True,
        /// Target, document, reason or class changed, and the AWS sessions follow.
        Retargeting => True,
    }
}

reasons! {
    /// What somebody must change.
    StalledReason {
        /// IAM denies a call, for longer than the delay.
        AccessDenied => True,
        /// No class is named and there is no single default, or the named one does not exist, for longer than the delay.
        ClassNotFound => True,
        /// The Service's name is taken by a Service that is not this session's.
        ServiceConflict => True,
        /// The document does not exist or does not take these parameters.
        InvalidDocument => True,
        /// AWS or the API server refuses a request as it stands.
        InvalidRequest => True,
        /// The agent's session is not a port session with the multiplexer.
        UnsupportedSessionType => True,
    }
}

reasons! {
    /// Whether a client can dial.
    AvailableReason {
        /// Every port accepts connections.
        Serving => True,
        /// No relay is alive.
        NoRelay => False,
        /// Relays are alive, and none has room for a port.
        NoCapacity => False,
        /// A port has no AWS session; other conditions say why.
        NoSession => False,
    }
}

reasons! {
    /// Whether Session Manager reaches the target.
    TargetConnectedReason {
        /// StartSession took the target.
        Connected => True,
        /// StartSession said that the target is not connected; tried again for ever.
        TargetNotConnected => False,
    }
}

reasons! {
    /// Whether AWS serves us.
    AwsReachableReason {
        /// The last call was answered.
        Reachable => True,
        /// AWS throttles us.
        Throttled => False,
        /// IAM denies a call.
        AccessDenied => False,
        /// There are no usable credentials.
        CredentialsUnavailable => False,
        /// AWS does not answer, or answers with an internal error.
        AwsUnavailable => False,
    }
}

reasons! {
    /// What the agent's last dial came to.
    DestinationReachableReason {
        /// The destination accepted.
        Dialled => True,
        /// The destination refused, or could not be reached from the target.
        Refused => False,
    }
}
