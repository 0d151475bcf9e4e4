//! AWS's id of each request is in the log, and in no words of an error.

use serde_json::json;

use super::log::Log;
use super::server::{Answer, Server};
use super::{broker, identity, options, request, session};
use crate::aws::{AwsBroker, AwsOptions};
use crate::broker::{Broker, ErrorKind, Identity, Role};

fn answered(status: u16, id: &str, body: &str) -> Answer {
    let header = format!("x-amzn-RequestId: {id}\r\n");
    Answer::Http(status, header, body.to_owned())
}

fn denied(id: &str) -> Answer {
    let body = json!({ "__type": "AccessDeniedException", "message": "no" });
    answered(400, id, &body.to_string())
}

/// The lines about a request; the span of its call may name it besides.
fn lines(log: &Log, id: &str) -> Vec<String> {
    let (text, field) = (log.text(), format!(" request_id=\"{id}\""));
    let lines = text.lines().filter(|line| line.contains(&field));
    lines.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_refusal_has_the_id_of_its_request_and_the_words_of_the_next_one() {
    let server = Server::start([denied("id-one"), denied("id-two")]).await;
    let (broker, identity) = broker(&server);
    let first = broker.start(&identity, &request()).await.unwrap_err();
    let second = broker.start(&identity, &request()).await.unwrap_err();
    assert_eq!(first.request_id.as_str(), Some("id-one"));
    assert_eq!(second.request_id.as_str(), Some("id-two"));
    assert_ne!(first, second);
    for error in [first, second] {
        assert_eq!(error.to_string(), "StartSession: AccessDeniedException: no");
    }
}

#[tokio::test]
async fn each_attempt_is_logged_with_the_id_of_its_request_and_for_whom_it_was() {
    let log = Log::default();
    let _listening = log.listen();
    let later = json!({ "__type": "InternalServerError", "message": "later" }).to_string();
    let ended = json!({ "SessionId": "john-0a1b2c" }).to_string();
    let answers = [
        answered(500, "id-failed", &later),
        answered(200, "id-good", &ended),
    ];
    let server = Server::start(answers).await;
    let (broker, identity) = broker(&server);
    let span = tracing::error_span!("listener", ssmsession = "shop/orders");
    let session = session();
    let terminated = broker.terminate(&identity, &session);
    tracing::Instrument::instrument(terminated, span)
        .await
        .unwrap();
    for id in ["id-failed", "id-good"] {
        let lines = lines(&log, id);
        assert_eq!(lines.len(), 1, "{id}: {}", log.text());
        let object = "listener{ssmsession=\"shop/orders\"}";
        assert!(lines[0].contains(object), "{lines:?}");
    }
}

#[tokio::test]
async fn what_can_be_no_id_of_aws_is_in_no_log_and_no_error() {
    let log = Log::default();
    let _listening = log.listen();
    let strange = "strange".repeat(100);
    let ended = json!({ "SessionId": "john-0a1b2c" }).to_string();
    let server = Server::start([denied(&strange), answered(200, &strange, &ended)]).await;
    let (broker, identity) = broker(&server);
    let error = broker.start(&identity, &request()).await.unwrap_err();
    assert_eq!(error.request_id.as_str(), None);
    broker.terminate(&identity, &session()).await.unwrap();
    let text = log.text();
    assert!(
        text.contains("AWS has answered") && !text.contains("strange"),
        "{text}"
    );
}

#[tokio::test]
async fn an_answer_that_is_none_of_aws_and_a_refusal_of_sts_keep_their_ids() {
    let server = Server::start([answered(502, "id-page", "<html>")]).await;
    let (broker, own) = broker(&server);
    let error = broker.start(&own, &request()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(error.request_id.as_str(), Some("id-page"));

    let refusal = "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
                   <Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>";
    let sts = Server::start([answered(403, "id-of-sts", refusal)]).await;
    let broker = AwsBroker::new(AwsOptions {
        sts_endpoint: Some(sts.endpoint()),
        ..options()
    });
    let role = Role {
        arn: "arn:aws:iam::111122223333:role/sessions".to_owned(),
        external_id: None,
        session_name: "orders".to_owned(),
    };
    let identity = Identity {
        role: Some(role),
        ..identity(&server)
    };
    let error = broker.start(&identity, &request()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::AccessDenied);
    assert_eq!(error.request_id.as_str(), Some("id-of-sts"));
}
