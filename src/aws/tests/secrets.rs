//! No secret reaches a log, whatever its level and its target.

use super::log::Log;
use super::server::{Answer, Server};
use super::{STREAM_URL, TOKEN, broker, request, session, ticket};
use crate::broker::{Broker, SessionState, StreamUrl, UrlPolicy};

/// Every target at TRACE, the SDK's and the HTTP client's among them.
#[tokio::test]
async fn no_secret_is_logged_printed_or_part_of_an_error() {
    let log = Log::default();
    let _default = log.listen();
    tracing::trace!("the log is open");

    let leaky = format!("does not match\n\nx-amz-security-token:{TOKEN}");
    let server = Server::start([
        ticket(),
        ticket(),
        Answer::error(403, "InvalidSignatureException", &leaky),
        Answer::error(500, "InternalServerError", "later"),
        ticket(),
    ])
    .await;
    let (broker, identity) = broker(&server);
    let ticket = broker.start(&identity, &request()).await.unwrap();
    let resumed = broker.resume(&identity, &session()).await.unwrap();
    let error = broker.start(&identity, &request()).await.unwrap_err();
    broker.terminate(&identity, &session()).await.unwrap();
    broker
        .describe(&identity, SessionState::Active, &[], None)
        .await
        .unwrap();
    let url = StreamUrl::check(STREAM_URL, &identity, UrlPolicy::Strict).unwrap();
    let headers = broker.sign_upgrade(&identity, &url).await.unwrap();
    let printed = format!("{ticket:?} {resumed:?} {error} {error:?} {url:?} {headers:?}");

    let logged = log.text();
    assert!(
        logged.contains("the log is open") && logged.contains("a call of AWS failed"),
        "{logged}"
    );
    for secret in [TOKEN, "CeLlSeCrEt", "SeCrEtAcCeSsKeY", "SeSsIoNtOkEn"] {
        assert!(!printed.contains(secret), "{secret} is printed: {printed}");
        let line = logged.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret} is logged: {line:?}");
    }
}
