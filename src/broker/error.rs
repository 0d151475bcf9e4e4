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
    /// For logs only.
    pub request_id: RequestId,
}

/// AWS's id of a request that it answered, by which its support finds the request.
///
/// It is another one for each call, so that no status, no message and no report has it: nothing is said anew because of
/// another id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestId(Option<String>);

/// Several times what those of SSM and STS have, which are UUIDs of 36 characters.
const REQUEST_ID_CHARS_MAX: usize = 128;

impl RequestId {
    /// The id in an answer, if it has one. It is a stranger's text that goes into logs: what is longer than 128 characters,
    /// or has others than ASCII's letters, digits and signs, is no id.
    #[must_use]
    pub fn new(id: Option<&str>) -> Self {
        let sound = |id: &&str| {
            (1..=REQUEST_ID_CHARS_MAX).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_graphic())
        };
        Self(id.filter(sound).map(str::to_owned))
    }

    /// The id, for the field `request_id` of a log line.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        self.0.as_deref()
    }
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

impl ErrorKind {
    /// Each of them.
    pub const ALL: [Self; 8] = [
        Self::AccessDenied,
        Self::CredentialsUnavailable,
        Self::InvalidDocument,
        Self::InvalidRequest,
        Self::TargetNotConnected,
        Self::Throttled,
        Self::Unavailable,
        Self::Gone,
    ];
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
            request_id: RequestId::default(),
        }
    }

    /// The call and the kind, without AWS's words: for traces.
    #[must_use]
    pub fn summary(&self) -> String {
        format!("{}: {:?}", self.operation, self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_short_and_readable_or_left_out() {
        let longest = "x".repeat(REQUEST_ID_CHARS_MAX);
        for id in ["0dc5b7af-96ef-4c1b-8d0e-example", "a/b+c==", &longest] {
            assert_eq!(RequestId::new(Some(id)).as_str(), Some(id));
        }
        let longer = format!("{longest}x");
        for none in ["", "two words", "line\n", "\u{1b}[31m", "größe", &longer] {
            assert_eq!(RequestId::new(Some(none)), RequestId::default(), "{none:?}");
        }
    }
}
