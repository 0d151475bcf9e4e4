//! No secret is ever said, whatever the level of the log.

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex};

use ssm_session_operator::broker::Broker;
use ssm_session_operator::relay::Report;
use ssm_session_operator::simulator::{Fault, Operation, Overview};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::brokers::Around;
use crate::ground::{Ground, REMOTE, SECRET_KEY, SESSION_TOKEN, Setting, aws, request, within};
use crate::transfer::{Server, exchange};

/// Everything that was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("a log").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn tokens_credentials_and_stream_urls_are_never_said() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    // The test has one thread, so that this hears all of it and nothing of other tests.
    let _listening = tracing::subscriber::set_default(subscriber);
    let around = Arc::new(Around::new(aws()));
    let broker = around.clone();
    let server = Server::start().await.expect("a server");
    let ground = Ground::with_broker(server.address(), Setting::default(), |_, _| broker).await;
    ground.inject(Fault::EmptyTokens {
        operation: Operation::StartSession,
        calls: 1,
    });
    ground.ensure();
    let serving = ground.wait_serving().await;
    let live = serving
        .sessions
        .iter()
        .find(|session| session.end.is_none());
    let session = live.expect("a session").session_id.to_string();
    ground.inject(Fault::throttle(Operation::ResumeSession, 1));
    ground.inject(Fault::CloseWebsockets {
        session: session.clone(),
    });
    let resumed = |overview: &Overview| overview.session(&session).is_some_and(|s| s.resumed > 0);
    ground.wait_aws("a resumed session", resumed).await;
    let mut client = ground.dial().await;
    let exchanged = within("the exchange", exchange(&mut client, 4096, 4096)).await;
    exchanged.expect("all bytes");
    let ticket = around.start(&ground.identity(), &request(REMOTE)).await;
    let mut said = format!("{ticket:?}");
    ground.stop();
    ground.shelf.wait_ended().await;

    said.push_str(&String::from_utf8_lossy(&log.0.lock().expect("a log")));
    assert!(said.contains("session started"), "nothing was heard");
    for report in &ground.shelf.reports() {
        write!(said, "{report:?}").expect("text");
        if let Report {
            failure: Some(failure),
            ..
        } = report
        {
            write!(said, "{failure}").expect("text");
        }
    }
    said.push_str(&ground.metrics());
    let mut secrets = around.secrets();
    secrets.retain(|secret| !secret.is_empty());
    assert!(secrets.len() > 4, "secrets have passed");
    secrets.extend([SECRET_KEY.to_owned(), SESSION_TOKEN.to_owned()]);
    for secret in &secrets {
        if let Some(at) = said.find(secret) {
            let around = &said[at.saturating_sub(200)..at];
            panic!("a secret was said behind: {around}");
        }
    }
    assert!(
        !ground.metrics().contains(&session),
        "a metric names a session"
    );
}
