//! The SSM API: pages, limits, faults.

use std::collections::BTreeSet;

use serde_json::json;
use ssm_session_operator::simulator::{Fault, Operation, Pace};

use crate::client::SIGNATURE;
use crate::ground::{Ground, REMOTE, echo, id};

#[tokio::test]
async fn pages_may_be_short_or_empty_and_lose_no_session() {
    let ground = Ground::new(Pace::Unthrottled, echo().await).await;
    let mut expected = BTreeSet::new();
    for _ in 0..5 {
        expected.insert(id(&ground.start().await).to_owned());
    }
    ground
        .simulator
        .inject(Fault::Pages {
            size_max: 2,
            empty: true,
        })
        .expect("a fault");
    let (mut seen, mut sizes) = (BTreeSet::new(), Vec::new());
    let mut request = json!({ "State": "Active", "MaxResults": 200 });
    loop {
        let page = ground
            .service
            .call("DescribeSessions", &request)
            .await
            .expect("a page");
        let sessions = page["Sessions"].as_array().expect("sessions");
        sizes.push(sessions.len());
        seen.extend(sessions.iter().map(|session| id(session).to_owned()));
        let Some(token) = page.get("NextToken") else {
            break;
        };
        request["NextToken"] = token.clone();
    }
    assert_eq!((sizes, seen), (vec![0, 2, 0, 2, 0, 1], expected));
    ground.shutdown().await;
}

#[tokio::test]
async fn requests_outside_of_the_limits_are_refused_with_the_documented_errors() {
    let ground = Ground::new(Pace::Unthrottled, echo().await).await;
    let filters = |count| vec![json!({ "key": "Owner", "value": "x" }); count];
    let cases = [
        (
            "StartSession",
            json!({ "Target": "mi-2" }),
            "TargetNotConnected",
        ),
        (
            "StartSession",
            json!({ "Target": "mi-1", "DocumentName": "Other" }),
            "InvalidDocument",
        ),
        (
            "StartSession",
            json!({ "Target": "" }),
            "ValidationException",
        ),
        (
            "StartSession",
            json!({ "Target": "mi-1", "Reason": "a\nb" }),
            "ValidationException",
        ),
        (
            "StartSession",
            json!({ "Target": "mi-1", "DocumentName": "a b" }),
            "ValidationException",
        ),
        ("DescribeSessions", json!({}), "ValidationException"),
        (
            "DescribeSessions",
            json!({ "State": "Active", "MaxResults": 201 }),
            "ValidationException",
        ),
        (
            "DescribeSessions",
            json!({ "State": "Active", "Filters": filters(7) }),
            "ValidationException",
        ),
        (
            "DescribeSessions",
            json!({ "State": "Active", "Filters": [{ "key": "Reason", "value": "x" }] }),
            "InvalidFilterKey",
        ),
        (
            "DescribeSessions",
            json!({ "State": "Active", "NextToken": "x" }),
            "InvalidNextToken",
        ),
        (
            "TerminateSession",
            json!({ "SessionId": "" }),
            "AccessDeniedException",
        ),
    ];
    for (operation, request, expected) in cases {
        assert_eq!(
            ground.service.error(operation, &request).await,
            expected,
            "{request}"
        );
    }
    assert_eq!(ground.simulator.sessions(), []);
    ground.shutdown().await;
}

#[tokio::test]
async fn faults_happen_as_often_as_they_were_asked_for() {
    let ground = Ground::new(Pace::Unthrottled, echo().await).await;
    let inject = |fault| ground.simulator.inject(fault).expect("a fault");
    let start = json!({ "Target": "mi-1", "DocumentName": REMOTE });
    inject(Fault::throttle(Operation::StartSession, 1));
    assert_eq!(
        ground.service.error("StartSession", &start).await,
        "ThrottlingException"
    );
    inject(Fault::EmptyTokens {
        operation: Operation::StartSession,
        calls: 1,
    });
    let ticket = ground
        .service
        .call("StartSession", &start)
        .await
        .expect("a session");
    assert_eq!(ticket["TokenValue"], "");
    let fault = json!({ "fault": "swallowStarts", "calls": 1 }).to_string();
    let json_header = "Content-Type: application/json\r\n";
    let answer = ground
        .service
        .post("/_simulator/faults", json_header, &fault)
        .await;
    assert_eq!(answer, Some((204, String::new())));
    let headers = "X-Amz-Target: AmazonSSM.StartSession\r\n";
    assert_eq!(
        ground.service.post("/", headers, &start.to_string()).await,
        None
    );
    assert_eq!(ground.simulator.sessions().len(), 2);
    assert_eq!(ground.simulator.calls(Operation::StartSession), 3);
    inject(Fault::ConsistencyDelay {
        milliseconds: 3_600_000,
    });
    let request = json!({ "State": "Active" });
    let page = ground.service.call("DescribeSessions", &request).await;
    assert_eq!(page, Ok(json!({ "Sessions": [] })));
    inject(Fault::Clear);
    let page = ground
        .service
        .call("DescribeSessions", &request)
        .await
        .expect("a page");
    assert_eq!(page["Sessions"].as_array().map(Vec::len), Some(2));
    ground.shutdown().await;
}

/// STS's answer to a form, signed with an access key.
async fn assume(ground: &Ground, form: &str) -> (u16, String) {
    let signature = SIGNATURE.replace("SERVICE", "sts");
    let headers = format!(
        "Content-Type: application/x-www-form-urlencoded\r\nAuthorization: {signature}\r\n"
    );
    let answer = ground.service.post("/", &headers, form).await;
    answer.expect("an answer")
}

/// The text of an XML element.
pub fn element<'a>(xml: &'a str, name: &str) -> &'a str {
    let (_, rest) = xml.split_once(&format!("<{name}>")).expect(name);
    rest.split_once("</").expect(name).0
}

#[tokio::test]
async fn a_session_belongs_to_the_role_whose_access_key_signed_its_start() {
    let ground = Ground::new(Pace::Unthrottled, echo().await).await;
    let form = |name: &str| {
        format!(
            "Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A111122223333%3Arole%2Fa&\
             RoleSessionName={name}"
        )
    };
    let (status, refusal) = assume(&ground, &form("a%2Fb")).await;
    assert_eq!(
        (status, element(&refusal, "Code")),
        (400, "ValidationError")
    );
    let (status, answer) = assume(&ground, &form("orders")).await;
    assert_eq!(status, 200);
    let key = element(&answer, "AccessKeyId");
    let token = element(&answer, "SessionToken");

    let call = async |operation: &str, token: &str, request: serde_json::Value| {
        let signature = SIGNATURE.replace("SERVICE", "ssm").replace("AKIDTEST", key);
        let headers = format!(
            "X-Amz-Target: AmazonSSM.{operation}\r\nAuthorization: {signature}\r\n\
             X-Amz-Security-Token: {token}\r\n"
        );
        let body = request.to_string();
        let answer = ground.service.post("/", &headers, &body).await;
        answer.expect("an answer").1
    };
    let start = json!({ "Target": "mi-1", "DocumentName": REMOTE });
    let refused = call("StartSession", "another", start.clone()).await;
    assert!(refused.contains("UnrecognizedClientException"), "{refused}");
    call("StartSession", token, start).await;
    let session = ground.simulator.sessions().remove(0);
    assert_eq!(
        session.owner,
        "arn:aws:sts::111122223333:assumed-role/a/orders"
    );
    assert!(session.id.starts_with("orders-"), "{}", session.id);

    let one = json!({ "SessionId": session.id });
    for operation in ["ResumeSession", "TerminateSession"] {
        let error = ground.service.error(operation, &one).await;
        assert_eq!(error, "AccessDeniedException", "{operation}");
    }
    let active = json!({ "State": "Active" });
    let page = ground.service.call("DescribeSessions", &active).await;
    assert_eq!(
        page,
        Ok(json!({ "Sessions": [] })),
        "it is another account's"
    );
    let page = call("DescribeSessions", token, active).await;
    assert!(page.contains(&session.owner), "{page}");
    let ended = call("TerminateSession", token, one.clone()).await;
    assert!(ended.contains(&session.id), "{ended}");

    let none = Fault::CredentialsLifetime { seconds: 0 };
    ground.simulator.inject(none).expect("a fault");
    let (_, answer) = assume(&ground, &form("orders")).await;
    let (key, token) = (
        element(&answer, "AccessKeyId"),
        element(&answer, "SessionToken"),
    );
    let signature = SIGNATURE.replace("SERVICE", "ssm").replace("AKIDTEST", key);
    let headers = format!(
        "X-Amz-Target: AmazonSSM.TerminateSession\r\nAuthorization: {signature}\r\n\
         X-Amz-Security-Token: {token}\r\n"
    );
    let answer = ground.service.post("/", &headers, &one.to_string()).await;
    let (_, error) = answer.expect("an answer");
    assert!(error.contains("ExpiredTokenException"), "{error}");
    ground.shutdown().await;
}
