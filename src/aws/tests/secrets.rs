//! No secret reaches a log, whatever its level and its target.

use std::io::Write;
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;

use super::server::{Answer, Server};
use super::{STREAM_URL, TOKEN, broker, request, session, ticket};
use crate::broker::{Broker, SessionState, StreamUrl, UrlPolicy};

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Every target at TRACE, the SDK's and the HTTP client's among them.
#[tokio::test]
async fn no_secret_is_logged_printed_or_part_of_an_error() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .with_ansi(false)
        .finish();
    let _default = tracing::subscriber::set_default(subscriber);
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

    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(
        logged.contains("the log is open") && logged.contains("it is sent again"),
        "{logged}"
    );
    for secret in [TOKEN, "CeLlSeCrEt", "SeCrEtAcCeSsKeY", "SeSsIoNtOkEn"] {
        assert!(!printed.contains(secret), "{secret} is printed: {printed}");
        let line = logged.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret} is logged: {line:?}");
    }
}
