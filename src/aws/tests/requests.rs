//! What goes over the wire, and what is made of the answers.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::server::{Answer, Server};
use super::{STREAM_URL, TOKEN, broker, identity, options, request, session, ticket};
use crate::aws::AwsBroker;
use crate::broker::{
    Broker, DescribedSession, ErrorKind, Filter, FilterKey, SessionPage, SessionState, UrlPolicy,
};

/// The one request that `server` got: its target and its body.
fn only_request(server: &Server) -> (String, Value) {
    let requests = server.requests();
    let [request] = &requests[..] else {
        panic!("not one request: {requests:?}")
    };
    assert_eq!(request.line, "POST / HTTP/1.1");
    assert_eq!(
        request.headers["content-type"],
        "application/x-amz-json-1.1"
    );
    let authorization = &request.headers["authorization"];
    assert!(
        authorization.contains("/eu-central-1/ssm/aws4_request"),
        "{authorization}"
    );
    (
        request.headers["x-amz-target"].clone(),
        request.body.clone(),
    )
}

#[tokio::test]
async fn start_session_is_asked_for_as_the_api_has_it() {
    let server = Server::start([ticket()]).await;
    let (broker, identity) = broker(&server);
    let ticket = broker.start(&identity, &request()).await.unwrap();
    assert_eq!(ticket.session_id, session());
    assert_eq!(ticket.expose_token(), TOKEN);
    let url = ticket.stream_url(&identity, UrlPolicy::Strict).unwrap();
    assert_eq!(url.as_str(), STREAM_URL);
    let (target, body) = only_request(&server);
    assert_eq!(target, "AmazonSSM.StartSession");
    assert_eq!(
        body,
        json!({
            "Target": "i-0123456789abcdef0",
            "DocumentName": "AWS-StartPortForwardingSessionToRemoteHost",
            "Reason": "orders report [ssm-operator abcdefgh/aaaqeayeaudaocajbifqydiob4]",
            "Parameters": { "host": ["db.internal"], "portNumber": ["5432"] },
        })
    );
}

#[tokio::test]
async fn resume_and_terminate_name_the_session() {
    let server = Server::start([ticket()]).await;
    let (broker, identity) = broker(&server);
    let ticket = broker.resume(&identity, &session()).await.unwrap();
    assert_eq!(
        (ticket.session_id.as_str(), ticket.expose_token()),
        ("john-0a1b2c", TOKEN)
    );
    let resumed = only_request(&server);
    assert_eq!(
        resumed,
        (
            "AmazonSSM.ResumeSession".into(),
            json!({ "SessionId": "john-0a1b2c" })
        )
    );
    broker.terminate(&identity, &session()).await.unwrap();
    let terminated = server.requests().pop().unwrap();
    assert_eq!(
        terminated.headers["x-amz-target"],
        "AmazonSSM.TerminateSession"
    );
    assert_eq!(terminated.body, json!({ "SessionId": "john-0a1b2c" }));
}

#[tokio::test]
async fn a_page_is_asked_for_with_200_sessions_and_without_empty_filters() {
    let server = Server::start([Answer::ok(json!({ "Sessions": [], "NextToken": "more" }))]).await;
    let (broker, identity) = broker(&server);
    let page = broker
        .describe(&identity, SessionState::Active, &[], None)
        .await
        .unwrap();
    assert_eq!(
        (page.sessions.len(), page.next_token.as_deref()),
        (0, Some("more"))
    );
    let (target, body) = only_request(&server);
    assert_eq!(target, "AmazonSSM.DescribeSessions");
    assert_eq!(body, json!({ "State": "Active", "MaxResults": 200 }));
}

#[tokio::test]
async fn filters_are_written_in_lower_case_and_target_by_its_own_name() {
    let server = Server::start([Answer::ok(json!({}))]).await;
    let (broker, identity) = broker(&server);
    let keys = [
        FilterKey::InvokedAfter,
        FilterKey::InvokedBefore,
        FilterKey::Target,
        FilterKey::Owner,
        FilterKey::Status,
        FilterKey::SessionId,
    ];
    let filters = keys.map(|key| Filter {
        key,
        value: "v".to_owned(),
    });
    let page = broker
        .describe(&identity, SessionState::History, &filters, Some("t"))
        .await
        .unwrap();
    assert_eq!(page, SessionPage::default());
    let names = [
        "InvokedAfter",
        "InvokedBefore",
        "Target",
        "Owner",
        "Status",
        "SessionId",
    ];
    let filters = names.map(|key| json!({ "key": key, "value": "v" }));
    let expected =
        json!({ "State": "History", "MaxResults": 200, "NextToken": "t", "Filters": filters });
    assert_eq!(only_request(&server).1, expected);
}

#[tokio::test]
async fn sessions_are_mirrored_word_for_word() {
    let whole = json!({
        "SessionId": "john-0a1b2c", "Target": "i-1", "Status": "Paused", "StartDate": 1_700_000_000.25,
        "EndDate": 1_700_003_723.5, "DocumentName": "D", "Owner": "arn:x", "Reason": "r", "Details": "d",
        "OutputUrl": { "S3OutputUrl": "s3", "CloudWatchOutputUrl": "cw" },
        "MaxSessionDuration": "60", "AccessType": "Standard",
    });
    let sessions = json!({ "Sessions": [whole, { "SessionId": "bare" }, { "Target": "no id" }] });
    let server = Server::start([Answer::ok(sessions)]).await;
    let (broker, identity) = broker(&server);
    let page = broker
        .describe(&identity, SessionState::Active, &[], None)
        .await
        .unwrap();
    let [first, second] = &page.sessions[..] else {
        panic!("{page:?}")
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        *first,
        DescribedSession {
            session_id: session(),
            status: text("Paused"),
            target: text("i-1"),
            document_name: text("D"),
            owner: text("arn:x"),
            reason: text("r"),
            details: text("d"),
            access_type: text("Standard"),
            start_date: Some(Timestamp::new(1_700_000_000, 250_000_000).unwrap()),
            end_date: Some(Timestamp::new(1_700_003_723, 500_000_000).unwrap()),
            max_session_duration: text("60"),
            s3_output_url: text("s3"),
            cloud_watch_output_url: text("cw"),
        }
    );
    assert_eq!(
        (second.session_id.as_str(), &second.status, second.end_date),
        ("bare", &None, None)
    );
    assert_eq!(page.next_token, None);
}

#[tokio::test]
async fn a_start_that_cannot_be_opened_gives_a_ticket_without_token() {
    let answers = [
        json!({ "SessionId": "john-0a1b2c", "TokenValue": "", "StreamUrl": STREAM_URL }),
        json!({ "SessionId": "john-0a1b2c", "StreamUrl": STREAM_URL }),
        json!({ "SessionId": "john-0a1b2c", "TokenValue": TOKEN, "StreamUrl": "" }),
        json!({ "SessionId": "john-0a1b2c", "TokenValue": TOKEN }),
    ];
    let server = Server::start(answers.map(Answer::ok)).await;
    let (broker, identity) = broker(&server);
    for _ in 0..4 {
        let ticket = broker.start(&identity, &request()).await.unwrap();
        assert!(!ticket.has_token());
        assert_eq!(ticket.session_id, session());
    }
}

#[tokio::test]
async fn a_start_without_usable_session_id_is_an_error() {
    let answers = [
        json!({ "TokenValue": TOKEN, "StreamUrl": STREAM_URL }),
        json!({ "SessionId": "a b", "TokenValue": TOKEN, "StreamUrl": STREAM_URL }),
    ];
    let server = Server::start(answers.map(Answer::ok)).await;
    let (broker, identity) = broker(&server);
    for _ in 0..2 {
        let error = broker.start(&identity, &request()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
    }
}

#[tokio::test]
async fn a_resume_without_token_says_that_the_session_is_over() {
    let answers = [
        Answer::ok(json!({ "SessionId": "john-0a1b2c", "StreamUrl": STREAM_URL })),
        Answer::ok(
            json!({ "SessionId": "john-0a1b2c", "TokenValue": "", "StreamUrl": STREAM_URL }),
        ),
        Answer::error(400, "DoesNotExistException", "no such session"),
        Answer::ok(json!({ "SessionId": "john-0a1b2c", "TokenValue": TOKEN })),
    ];
    let server = Server::start(answers).await;
    let (broker, identity) = broker(&server);
    for kind in [
        ErrorKind::Gone,
        ErrorKind::Gone,
        ErrorKind::Gone,
        ErrorKind::Unavailable,
    ] {
        assert_eq!(
            broker.resume(&identity, &session()).await.unwrap_err().kind,
            kind
        );
    }
}

#[tokio::test]
async fn each_identity_has_its_own_endpoint_and_region() {
    let (one, other) = (
        Server::start([ticket()]).await,
        Server::start([ticket()]).await,
    );
    let broker = AwsBroker::new(options());
    let mut elsewhere = identity(&other);
    elsewhere.region = "us-east-1".to_owned();
    broker.terminate(&identity(&one), &session()).await.unwrap();
    broker.terminate(&elsewhere, &session()).await.unwrap();
    only_request(&one);
    let requests = other.requests();
    assert!(requests[0].headers["authorization"].contains("/us-east-1/ssm/aws4_request"));
    assert_eq!(requests.len(), 1);
}
