//! Each code of AWS has its kind, and no message holds what it must not.

use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ssm::config::http::HttpResponse;
use aws_sdk_ssm::error::SdkError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::error::ErrorMetadata;
use proptest::prelude::*;

use super::classify::{Cause, classify};
use crate::broker::{ErrorKind, RequestId};

fn service(status: u16, code: Option<&str>, message: Option<&str>) -> Cause {
    Cause::Service {
        status,
        code: code.map(str::to_owned),
        message: message.map(str::to_owned),
        retry_after: None,
        request_id: RequestId::default(),
    }
}

#[test]
fn every_code_of_aws_has_its_kind_whatever_the_status() {
    let table: &[(ErrorKind, &[&str])] = &[
        (
            ErrorKind::AccessDenied,
            &["AccessDeniedException", "AccessDenied"],
        ),
        (
            ErrorKind::CredentialsUnavailable,
            &[
                "ExpiredTokenException",
                "ExpiredToken",
                "UnrecognizedClientException",
                "InvalidClientTokenId",
                "InvalidSignatureException",
                "SignatureDoesNotMatch",
                "IncompleteSignatureException",
                "MissingAuthenticationTokenException",
                "MissingAuthenticationToken",
            ],
        ),
        (
            ErrorKind::Throttled,
            &[
                "ThrottlingException",
                "Throttling",
                "ThrottledException",
                "TooManyRequestsException",
                "RequestLimitExceeded",
                "ServiceQuotaExceededException",
            ],
        ),
        (
            ErrorKind::InvalidDocument,
            &[
                "InvalidDocument",
                "InvalidDocumentVersion",
                "InvalidDocumentOperation",
                "InvalidParameters",
            ],
        ),
        (ErrorKind::TargetNotConnected, &["TargetNotConnected"]),
        (
            ErrorKind::InvalidRequest,
            &[
                "ValidationException",
                "BadRequest",
                "BadRequestException",
                "InvalidFilterKey",
                "InvalidNextToken",
            ],
        ),
        (
            ErrorKind::Unavailable,
            &[
                "InternalServerError",
                "InternalFailure",
                "ServiceUnavailable",
            ],
        ),
        (ErrorKind::Gone, &["DoesNotExistException"]),
    ];
    for (kind, codes) in table {
        for code in *codes {
            for status in [400, 403, 500, 503] {
                let error = classify("ResumeSession", service(status, Some(code), Some("words")));
                assert_eq!(error.kind, *kind, "{code}");
                assert_eq!(error.to_string(), format!("ResumeSession: {code}: words"));
            }
        }
    }
}

#[test]
fn an_unknown_code_is_classified_by_its_status() {
    let table = [
        (400, ErrorKind::InvalidRequest),
        (401, ErrorKind::AccessDenied),
        (403, ErrorKind::AccessDenied),
        (404, ErrorKind::InvalidRequest),
        (408, ErrorKind::Unavailable),
        (429, ErrorKind::Throttled),
        (500, ErrorKind::Unavailable),
        (502, ErrorKind::Unavailable),
        (503, ErrorKind::Unavailable),
        (200, ErrorKind::Unavailable),
    ];
    for (status, kind) in table {
        assert_eq!(
            classify("StartSession", service(status, Some("Novel"), None)).kind,
            kind
        );
        assert_eq!(
            classify("StartSession", service(status, None, None)).kind,
            kind
        );
        let request_id = RequestId::default();
        let unreadable = Cause::Unreadable { status, request_id };
        assert_eq!(classify("StartSession", unreadable).kind, kind);
    }
    let error = classify("StartSession", service(500, None, None));
    assert_eq!(error.to_string(), "StartSession: HTTP 500");
}

#[test]
fn a_start_never_ends_with_gone() {
    let cause = service(400, Some("DoesNotExistException"), None);
    assert_eq!(
        classify("StartSession", cause.clone()).kind,
        ErrorKind::InvalidRequest
    );
    assert_eq!(classify("TerminateSession", cause).kind, ErrorKind::Gone);
}

#[test]
fn what_has_no_answer_is_unavailable_and_what_was_not_sent_is_not() {
    let refused = Cause::Transport("Connection refused".to_owned());
    assert_eq!(
        classify("StartSession", refused).kind,
        ErrorKind::Unavailable
    );
    assert_eq!(
        classify("StartSession", Cause::Timeout).kind,
        ErrorKind::Unavailable
    );
    let none = Cause::Credentials("none found".to_owned());
    assert_eq!(
        classify("StartSession", none).kind,
        ErrorKind::CredentialsUnavailable
    );
    let unbuilt = Cause::Construction("no such endpoint".to_owned());
    assert_eq!(
        classify("StartSession", unbuilt).kind,
        ErrorKind::InvalidRequest
    );
}

/// So AWS answers when a signature does not match: with the canonical request, and in it the token.
#[test]
fn a_message_ends_with_its_first_line() {
    let words = "The request signature we calculated does not match.\n\nThe Canonical String should have been\n\
                 'POST\n/\n\nx-amz-security-token:SECRET\n'";
    let error = classify(
        "StartSession",
        service(403, Some("InvalidSignatureException"), Some(words)),
    );
    let first = "InvalidSignatureException: The request signature we calculated does not match.";
    assert_eq!(error.message, first);
    let crlf = classify(
        "StartSession",
        service(403, Some("X"), Some("one\r\nSECRET")),
    );
    assert_eq!(crlf.message, "X: one");
}

#[test]
fn how_long_aws_asks_to_wait_is_passed_on() {
    let cause = Cause::Service {
        status: 400,
        code: Some("ThrottlingException".to_owned()),
        message: None,
        retry_after: Some(Duration::from_secs(7)),
        request_id: RequestId::default(),
    };
    assert_eq!(
        classify("DescribeSessions", cause).retry_after,
        Some(Duration::from_secs(7))
    );
}

proptest! {
    #[test]
    fn a_message_is_short_and_on_one_line(code in any::<String>(), message in any::<String>(), status in 100_u16..600) {
        let error = classify("StartSession", service(status, Some(&code), Some(&message.repeat(20))));
        prop_assert!(error.message.chars().count() <= 512);
        prop_assert!(!error.message.chars().any(char::is_control));
    }
}

#[test]
fn what_an_external_process_prints_is_not_repeated() {
    let words = "Error retrieving credentials: external process exited with code 1. Stderr: SECRET";
    let error = CredentialsError::provider_error(words);
    let Cause::Credentials(message) = Cause::from(&error) else {
        panic!("not a failure of credentials");
    };
    assert!(message.contains("exited with code 1"), "{message}");
    assert!(!message.contains("SECRET"), "{message}");
}

/// The most frequent mistake with IRSA. Conditions quote the message, and must not change with each try.
#[test]
fn a_role_that_does_not_trust_a_web_identity_is_told_in_words_of_sts_without_the_requests_id() {
    let words = "Not authorized to perform sts:AssumeRoleWithWebIdentity";
    let refused = ErrorMetadata::builder()
        .code("AccessDenied")
        .message(format!("{words}\nand more"))
        .custom("aws_request_id", "the-id")
        .build();
    let mut answer = HttpResponse::new(403.try_into().unwrap(), SdkBody::empty());
    answer.headers_mut().insert("x-amzn-requestid", "the-id");
    let refused = AssumeRoleWithWebIdentityError::generic(refused);
    let error = CredentialsError::provider_error(SdkError::service_error(refused, answer));
    let error = classify("StartSession", Cause::from(&error));
    assert_eq!(error.kind, ErrorKind::CredentialsUnavailable);
    let said = format!("no usable credentials: AssumeRoleWithWebIdentity: AccessDenied: {words}");
    assert_eq!(error.message, said);
    assert_eq!(error.request_id.as_str(), Some("the-id"));
}
