//! How often a call is sent, and what callers learn when it fails.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::server::{Answer, Server};
use super::{broker, identity, options, request, session, ticket};
use crate::aws::{AwsBroker, AwsOptions};
use crate::broker::{Broker, ErrorKind, Identity, SessionState};

fn internal_error() -> Answer {
    Answer::error(500, "InternalServerError", "try later")
}

/// A broker that waits a second for an answer.
fn impatient() -> AwsBroker {
    let attempt_timeout = Duration::from_secs(1);
    AwsBroker::new(AwsOptions {
        attempt_timeout,
        ..options()
    })
}

#[tokio::test]
async fn start_session_is_sent_once_when_aws_answers_500() {
    let server = Server::start([internal_error(), ticket()]).await;
    let (broker, identity) = broker(&server);
    let error = broker.start(&identity, &request()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(
        error.to_string(),
        "StartSession: InternalServerError: try later"
    );
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn start_session_is_sent_once_when_no_answer_comes() {
    let server = Server::start([Answer::Hang, ticket()]).await;
    let error = impatient()
        .start(&identity(&server), &request())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn start_session_is_sent_once_when_the_connection_is_closed() {
    let server = Server::start([Answer::Close, ticket()]).await;
    let (broker, identity) = broker(&server);
    let error = broker.start(&identity, &request()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(server.requests().len(), 1);
}

/// HTTP clients like to repeat what they sent on a connection that was idle.
#[tokio::test]
async fn start_session_is_sent_once_when_a_reused_connection_is_closed() {
    let server = Server::start([ticket(), Answer::Close, ticket()]).await;
    let (broker, identity) = broker(&server);
    broker.start(&identity, &request()).await.unwrap();
    let error = broker.start(&identity, &request()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn start_session_is_sent_once_when_aws_throttles() {
    let throttled = Answer::error(400, "ThrottlingException", "Rate exceeded");
    let server = Server::start([throttled, ticket()]).await;
    let (broker, identity) = broker(&server);
    let error = broker.start(&identity, &request()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Throttled);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn terminate_is_sent_again_until_it_is_answered() {
    let server = Server::start([internal_error(), Answer::Close, ticket()]).await;
    let (broker, identity) = broker(&server);
    broker.terminate(&identity, &session()).await.unwrap();
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn terminate_is_sent_three_times_at_most() {
    let server = Server::start([internal_error()]).await;
    let (broker, identity) = broker(&server);
    let error = broker.terminate(&identity, &session()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_call_that_hangs_is_sent_again() {
    let page = Answer::ok(json!({ "Sessions": [{ "SessionId": "a-1" }] }));
    let server = Server::start([Answer::Hang, page]).await;
    let page = impatient()
        .describe(&identity(&server), SessionState::Active, &[], None)
        .await
        .unwrap();
    assert_eq!((page.sessions.len(), server.requests().len()), (1, 2));
}

#[tokio::test]
async fn a_refusal_is_not_sent_again() {
    let server = Server::start([Answer::error(400, "AccessDeniedException", "no")]).await;
    let (broker, identity) = broker(&server);
    let error = broker.terminate(&identity, &session()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::AccessDenied);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn terminating_what_does_not_exist_succeeds() {
    let server = Server::start([Answer::error(400, "DoesNotExistException", "unknown")]).await;
    let (broker, identity) = broker(&server);
    broker.terminate(&identity, &session()).await.unwrap();
}

#[tokio::test]
async fn errors_of_aws_arrive_as_their_kind() {
    let table = [
        (400, "AccessDeniedException", ErrorKind::AccessDenied),
        (400, "InvalidDocument", ErrorKind::InvalidDocument),
        (400, "TargetNotConnected", ErrorKind::TargetNotConnected),
        (400, "ThrottlingException", ErrorKind::Throttled),
        (400, "ValidationException", ErrorKind::InvalidRequest),
        (
            400,
            "ExpiredTokenException",
            ErrorKind::CredentialsUnavailable,
        ),
        (
            400,
            "UnrecognizedClientException",
            ErrorKind::CredentialsUnavailable,
        ),
        (500, "InternalServerError", ErrorKind::Unavailable),
    ];
    let server =
        Server::start(table.map(|(status, code, _)| Answer::error(status, code, "words"))).await;
    let (broker, identity) = broker(&server);
    for (_, code, kind) in table {
        let error = broker.start(&identity, &request()).await.unwrap_err();
        assert_eq!(
            (error.kind, error.message),
            (kind, format!("{code}: words"))
        );
    }
}

#[tokio::test]
async fn the_page_of_a_proxy_is_no_answer_of_aws() {
    let html = || "<html>SECRET</html>".to_owned();
    let retry_after = "retry-after: 7\r\n".to_owned();
    let answers = [
        Answer::Http(502, String::new(), html()),
        Answer::Http(200, String::new(), html()),
        Answer::Http(
            429,
            retry_after,
            "{\"__type\":\"ThrottlingException\"}".to_owned(),
        ),
    ];
    let server = Server::start(answers).await;
    let (broker, identity) = broker(&server);
    for kind in [
        ErrorKind::Unavailable,
        ErrorKind::Unavailable,
        ErrorKind::Throttled,
    ] {
        let error = broker.start(&identity, &request()).await.unwrap_err();
        assert_eq!(error.kind, kind);
        assert!(!error.message.contains("SECRET"), "{error}");
        let expected = (kind == ErrorKind::Throttled).then_some(Duration::from_secs(7));
        assert_eq!(error.retry_after, expected);
    }
}

#[tokio::test]
async fn an_api_that_nobody_serves_is_unavailable_and_an_endpoint_that_is_none_is_invalid() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let broker = AwsBroker::new(options());
    let table = [
        (format!("http://{address}"), ErrorKind::Unavailable),
        ("not a url".to_owned(), ErrorKind::InvalidRequest),
    ];
    for (endpoint, kind) in table {
        let identity = Identity {
            region: "eu-central-1".to_owned(),
            ssm_endpoint: Some(endpoint),
            ssmmessages_endpoint: None,
            role: None,
        };
        let error = broker.start(&identity, &request()).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
    }
}

/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 0x16;

#[tokio::test]
async fn an_https_endpoint_is_spoken_to_in_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let first_byte = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        connection.read_u8().await.unwrap()
    });
    let identity = Identity {
        region: "eu-central-1".to_owned(),
        ssm_endpoint: Some(endpoint),
        ssmmessages_endpoint: None,
        role: None,
    };
    let error = AwsBroker::new(options())
        .start(&identity, &request())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert_eq!(first_byte.await.unwrap(), HANDSHAKE);
}

/// The first call takes the only turn; the second's deadline comes before the next one.
#[tokio::test]
async fn a_call_that_the_limiter_holds_past_its_deadline_is_throttled_and_not_sent() {
    let server = Server::start([ticket()]).await;
    let options = AwsOptions {
        calls_per_second: 1,
        calls_burst: 1,
        call_timeout: Duration::from_millis(1500),
        ..options()
    };
    let (broker, identity) = (AwsBroker::new(options), identity(&server));
    let request = request();
    let (sent, held) = tokio::join!(
        broker.start(&identity, &request),
        broker.start(&identity, &request)
    );
    sent.unwrap();
    let error = held.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Throttled);
    assert!(error.message.contains("nothing was sent"), "{error}");
    assert_eq!(server.requests().len(), 1);
}
