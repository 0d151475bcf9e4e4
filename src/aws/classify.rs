//! What went wrong in a call, and which kind of failure that is.
//!
//! It promises that a message holds AWS's code and the first line of its words, or the transport's, and never a
//! request, a header or a body. Later lines of AWS's words may quote the signed headers, the session token among
//! them, when a signature does not match.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use aws_config::meta::ProviderChainError;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ssm::config::http::HttpResponse;
use aws_sdk_ssm::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ssm::operation;
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;

use crate::broker::{BrokerError, ErrorKind, RequestId};
use crate::words::{levels, plain, told_once};

/// The operation of STS, as errors name it.
pub(super) const ASSUME_ROLE: &str = "AssumeRole";
/// Enough for every error of AWS that was seen, and small in a status.
const MESSAGE_CHARS_MAX: usize = 512;
/// What stands before the output of an external process in the SDK's words.
const PROCESS_OUTPUT: &str = "Stderr:";
/// What the SDK's chain calls for a pod with a web identity.
const WEB_IDENTITY: &str = "AssumeRoleWithWebIdentity";
/// A service that asks for more is asked again all the same.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);

/// Why a call failed, taken out of the SDK's error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// AWS answered with an error.
    Service {
        status: u16,
        code: Option<String>,
        message: Option<String>,
        retry_after: Option<Duration>,
        request_id: RequestId,
    },
    /// An answer came that is none of AWS: a proxy's page, or a body that was cut off.
    Unreadable { status: u16, request_id: RequestId },
    /// The provider of credentials failed.
    Credentials(String),
    /// The identity's role could not be assumed.
    Role(Box<Cause>),
    /// The pod's own role could not be, with its web identity.
    WebIdentity(Box<Cause>),
    /// No answer in time.
    Timeout,
    /// No connection, or one that was lost.
    Transport(String),
    /// The request could not be built, so nothing was sent.
    Construction(String),
}

impl<E> From<&SdkError<E, HttpResponse>> for Cause
where
    E: ProvideErrorMetadata + Error + 'static,
{
    fn from(error: &SdkError<E, HttpResponse>) -> Self {
        match error {
            SdkError::ServiceError(answer) => Self::Service {
                status: answer.raw().status().as_u16(),
                code: answer.err().code().map(str::to_owned),
                message: answer.err().message().map(str::to_owned),
                retry_after: retry_after(answer.raw().headers().get("retry-after")),
                request_id: id_in(error),
            },
            SdkError::ResponseError(answer) => Self::Unreadable {
                status: answer.raw().status().as_u16(),
                request_id: id_in(error),
            },
            SdkError::TimeoutError(_) => Self::Timeout,
            SdkError::DispatchFailure(failure) => match credentials_error(error) {
                Some(credentials) => credentials,
                None if failure.is_timeout() => Self::Timeout,
                None => {
                    Self::Transport(chain(failure.as_connector_error().and_then(Error::source)))
                }
            },
            other => credentials_error(error)
                .unwrap_or_else(|| Self::Construction(chain(other.source()))),
        }
    }
}

impl From<&CredentialsError> for Cause {
    fn from(error: &CredentialsError) -> Self {
        // Several callers may share one, which alone says what went wrong.
        let shared = error
            .source()
            .and_then(|source| source.downcast_ref::<Arc<CredentialsError>>());
        if let Some(shared) = shared {
            return Self::from(shared.as_ref());
        }
        if let Some(refused) = refusal::<AssumeRoleError>(error) {
            return Self::Role(Box::new(refused));
        }
        // As the SDK displays it, it would be another each time: with the id of the request.
        if let Some(refused) = refusal::<AssumeRoleWithWebIdentityError>(error) {
            return Self::WebIdentity(Box::new(refused));
        }
        let tried = error
            .source()
            .and_then(|source| source.downcast_ref::<ProviderChainError<CredentialsError>>());
        let Some(tried) = tried else {
            return Self::Credentials(chain(Some(error)));
        };
        // It displays each attempt on a line of its own, and only the first line of a message is kept.
        let attempts = tried.attempts().iter().map(|attempt| {
            let why = chain(Some(attempt.error()));
            format!("{}: {}", attempt.name(), first_line(&why))
        });
        Self::Credentials(attempts.collect::<Vec<_>>().join("; "))
    }
}

/// What came of the call of STS behind a failure, if there is one.
fn refusal<E>(error: &CredentialsError) -> Option<Cause>
where
    E: ProvideErrorMetadata + Error + 'static,
{
    levels(error)
        .find_map(|level| level.downcast_ref::<SdkError<E, HttpResponse>>())
        .map(Cause::from)
}

/// AWS's id of the request that it answered, or failed to.
pub(super) fn id_in(answer: &impl operation::RequestId) -> RequestId {
    RequestId::new(answer.request_id())
}

fn credentials_error(error: &(dyn Error + 'static)) -> Option<Cause> {
    levels(error)
        .find_map(|e| e.downcast_ref::<CredentialsError>())
        .map(Cause::from)
}

/// An error and its sources, each as it displays itself. Those of the SDK display no bodies and no headers.
fn chain(error: Option<&(dyn Error + 'static)>) -> String {
    // What a `credential_process` prints is its own affair, and may be a secret.
    let words = |level: &(dyn Error + 'static)| {
        let level = level.to_string();
        let own = level.split(PROCESS_OUTPUT).next().unwrap_or_default();
        own.trim_end().to_owned()
    };
    told_once(error.into_iter().flat_map(levels).map(words))
}

/// Seconds, as HTTP writes them; the form with a date is not used by AWS.
fn retry_after(header: Option<&str>) -> Option<Duration> {
    let seconds = header?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// The error that callers get. Pure, and the only place that knows AWS's codes.
pub(super) fn classify(operation: &'static str, cause: Cause) -> BrokerError {
    let mut wait = None;
    let mut id = RequestId::default();
    let (kind, message) = match cause {
        Cause::Service {
            status,
            code,
            message,
            retry_after,
            request_id,
        } => {
            (wait, id) = (retry_after, request_id);
            let code = code.unwrap_or_else(|| format!("HTTP {status}"));
            let kind = kind_of_code(operation, &code).unwrap_or_else(|| kind_of_status(status));
            let message = message.filter(|text| !text.is_empty());
            (
                kind,
                message.map_or_else(|| code.clone(), |text| format!("{code}: {text}")),
            )
        }
        Cause::Unreadable { status, request_id } => {
            id = request_id;
            let message = format!("HTTP {status} with an answer that is none of AWS");
            (kind_of_status(status), message)
        }
        Cause::Credentials(why) => (
            ErrorKind::CredentialsUnavailable,
            format!("no usable credentials: {why}"),
        ),
        Cause::Role(cause) => {
            let refused = classify(ASSUME_ROLE, *cause);
            let words = refused.to_string();
            (wait, id) = (refused.retry_after, refused.request_id);
            (kind_of_refusal(refused.kind), words)
        }
        Cause::WebIdentity(cause) => {
            let refused = classify(WEB_IDENTITY, *cause);
            let words = format!("no usable credentials: {refused}");
            (wait, id) = (refused.retry_after, refused.request_id);
            (ErrorKind::CredentialsUnavailable, words)
        }
        Cause::Timeout => (ErrorKind::Unavailable, "no answer in time".to_owned()),
        Cause::Transport(why) => (ErrorKind::Unavailable, format!("no answer: {why}")),
        Cause::Construction(why) => (
            ErrorKind::InvalidRequest,
            format!("the request can't be built: {why}"),
        ),
    };
    BrokerError {
        retry_after: wait,
        request_id: id,
        ..BrokerError::new(kind, operation, first_line(&message))
    }
}

/// What it means for a call that its role could not be assumed. The call itself was not sent, so nothing is wrong with
/// its request.
fn kind_of_refusal(kind: ErrorKind) -> ErrorKind {
    match kind {
        ErrorKind::AccessDenied | ErrorKind::Throttled | ErrorKind::Unavailable => kind,
        ErrorKind::CredentialsUnavailable
        | ErrorKind::InvalidDocument
        | ErrorKind::InvalidRequest
        | ErrorKind::TargetNotConnected
        | ErrorKind::Gone => ErrorKind::CredentialsUnavailable,
    }
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    plain(line).chars().take(MESSAGE_CHARS_MAX).collect()
}

fn kind_of_code(operation: &str, code: &str) -> Option<ErrorKind> {
    // AWS writes most codes with or without `Exception`, according to which of its front ends refuses.
    let kind = match code.strip_suffix("Exception").unwrap_or(code) {
        "AccessDenied"
        | "NotAuthorized"
        | "Unauthorized"
        | "UnauthorizedOperation"
        | "OptInRequired" => ErrorKind::AccessDenied,
        "ExpiredToken"
        | "UnrecognizedClient"
        | "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "InvalidSignature"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "RequestExpired"
        | "RequestTimeTooSkewed"
        | "TokenRefreshRequired" => ErrorKind::CredentialsUnavailable,
        "Throttling"
        | "Throttled"
        | "RequestThrottled"
        | "TooManyRequests"
        | "RequestLimitExceeded"
        | "LimitExceeded"
        | "ServiceQuotaExceeded"
        | "BandwidthLimitExceeded"
        | "SlowDown" => ErrorKind::Throttled,
        "InvalidParameters" => ErrorKind::InvalidDocument,
        document if document.starts_with("InvalidDocument") => ErrorKind::InvalidDocument,
        "TargetNotConnected" => ErrorKind::TargetNotConnected,
        // A start that does not find something is no end of anything.
        "DoesNotExist" if operation == "StartSession" => ErrorKind::InvalidRequest,
        "DoesNotExist" => ErrorKind::Gone,
        "Validation" | "ValidationError" | "BadRequest" | "Serialization" | "InvalidFilterKey"
        | "InvalidNextToken" | "UnknownOperation" => ErrorKind::InvalidRequest,
        "InternalServerError"
        | "InternalFailure"
        | "InternalServer"
        | "ServiceUnavailable"
        | "RequestTimeout" => ErrorKind::Unavailable,
        _ => return None,
    };
    Some(kind)
}

fn kind_of_status(status: u16) -> ErrorKind {
    match status {
        401 | 403 => ErrorKind::AccessDenied,
        408 => ErrorKind::Unavailable,
        429 => ErrorKind::Throttled,
        400..=499 => ErrorKind::InvalidRequest,
        _ => ErrorKind::Unavailable,
    }
}
