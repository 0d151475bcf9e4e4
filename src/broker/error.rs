//! Errors of the AWS API, classified by what to do next.

use std::time::Duration;

/// Why a call to AWS failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: {message}")]
pub struct BrokerError {
    /// What kind of failure it is.
    pub kind: ErrorKind,
    /// The call that failed, such as `StartSession`.
    pub operation: &'static str,
    /// AWS's code and words, or the transport's, without any secret.
    pub message: String,
    /// How long the service asked us to wait, if it did.
    pub retry_after: Option<Duration>,
}

/// The kinds of failure that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// IAM denies the call.
    AccessDenied,
    /// No credentials, or expired or unknown ones.
    CredentialsUnavailable,
    /// The document does not exist or does not take these parameters.
    InvalidDocument,
    /// AWS refuses the request as it stands.
    InvalidRequest,
    /// The target is not connected to Session Manager.
    TargetNotConnected,
    /// AWS throttles.
    Throttled,
    /// Internal error, time-out or no connection: nobody knows whether the call was carried out.
    Unavailable,
    /// The session is over.
    Gone,
}

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The same request will fail again until something is changed; try rarely all the same.
    AwaitChange,
    /// Try again, ever more rarely.
    BackOff,
    /// Try again soon.
    Retry,
    /// Stop: there is nothing left to act on.
    Gone,
}

impl ErrorKind {
    /// The policy: one place, every kind.
    #[must_use]
    pub fn next(self) -> Next {
        match self {
            Self::InvalidDocument | Self::InvalidRequest | Self::AccessDenied => Next::AwaitChange,
            Self::CredentialsUnavailable | Self::TargetNotConnected | Self::Throttled => {
                Next::BackOff
            }
            Self::Unavailable => Next::Retry,
            Self::Gone => Next::Gone,
        }
    }
}

impl BrokerError {
    /// An error of `kind` in `operation`.
    #[must_use]
    pub fn new(kind: ErrorKind, operation: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            operation,
            message: message.into(),
            retry_after: None,
        }
    }
}
