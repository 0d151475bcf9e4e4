//! What is counted of calls: each try with what it came to, those that nobody waits for and those that are not sent.

use std::time::Duration;

use futures::FutureExt as _;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::json;

use super::server::{Answer, Server};
use super::{identity, options, request, session, ticket};
use crate::aws::{AwsBroker, AwsOptions, Metrics};
use crate::broker::{Broker, Identity, Role, SessionState};

/// A broker, and what it shows.
fn counted(options: AwsOptions) -> (AwsBroker, Registry) {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    (AwsBroker::new(AwsOptions { metrics, ..options }), registry)
}

/// The counts that are not 0, of tries and of calls that were not sent; and the number of durations.
fn counts(registry: &Registry) -> (Vec<String>, u64) {
    let mut text = String::new();
    encode(&mut text, registry).expect("text");
    let samples = text
        .lines()
        .filter_map(|line| line.strip_prefix("ssm_operator_aws_"));
    let (durations, counts): (Vec<_>, Vec<_>) = samples
        .filter(|sample| !sample.ends_with(" 0"))
        .partition(|sample| sample.starts_with("request_duration"));
    let mut counts: Vec<_> = counts.into_iter().map(str::to_owned).collect();
    counts.sort();
    let durations = durations.into_iter().filter(|line| line.contains("_count"));
    let durations = durations.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
    (counts, durations.sum())
}

fn tries(operation: &str, outcome: &str, count: u64) -> String {
    format!("requests_total{{operation=\"{operation}\",outcome=\"{outcome}\"}} {count}")
}

#[tokio::test]
async fn each_try_is_counted_with_what_it_came_to() {
    let server = Server::start([
        Answer::error(500, "InternalServerError", "try later"),
        Answer::ok(json!({ "Sessions": [] })),
        Answer::error(400, "ThrottlingException", "Rate exceeded"),
        Answer::error(400, "DoesNotExistException", "no such session"),
        ticket(),
    ])
    .await;
    let (broker, registry) = counted(options());
    let identity = identity(&server);
    assert_eq!(counts(&registry), (Vec::new(), 0));
    let described = broker.describe(&identity, SessionState::Active, &[], None);
    described.await.unwrap();
    broker.start(&identity, &request()).await.unwrap_err();
    broker.terminate(&identity, &session()).await.unwrap();
    broker.start(&identity, &request()).await.unwrap();
    let expected = [
        tries("DescribeSessions", "Success", 1),
        tries("DescribeSessions", "Unavailable", 1),
        tries("StartSession", "Success", 1),
        tries("StartSession", "Throttled", 1),
        tries("TerminateSession", "Gone", 1),
    ];
    assert_eq!(counts(&registry), (expected.to_vec(), 5));
}

#[tokio::test]
async fn a_role_that_is_assumed_is_a_call_too() {
    let denied = "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
                  <Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>";
    let sts = Server::start([Answer::Http(403, String::new(), denied.to_owned())]).await;
    let ssm = Server::start([ticket()]).await;
    let (broker, registry) = counted(AwsOptions {
        sts_endpoint: Some(sts.endpoint()),
        ..options()
    });
    let identity = Identity {
        role: Some(Role {
            arn: "arn:aws:iam::111122223333:role/sessions".to_owned(),
            external_id: None,
            session_name: "orders-cluster".to_owned(),
        }),
        ..identity(&ssm)
    };
    broker.start(&identity, &request()).await.unwrap_err();
    let expected = [
        tries("AssumeRole", "AccessDenied", 1),
        tries("StartSession", "AccessDenied", 1),
    ];
    assert_eq!(counts(&registry), (expected.to_vec(), 2));
}

#[tokio::test]
async fn a_try_that_nobody_waits_for_is_counted_as_abandoned() {
    let server = Server::start([Answer::Hang]).await;
    let (broker, registry) = counted(options());
    let identity = identity(&server);
    let session = session();
    let mut call = broker.terminate(&identity, &session);
    while server.requests().is_empty() {
        assert!((&mut call).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    drop(call);
    let expected = [tries("TerminateSession", "Abandoned", 1)];
    assert_eq!(counts(&registry), (expected.to_vec(), 1));
}

#[tokio::test]
async fn a_call_that_our_own_limiter_holds_back_for_too_long_is_counted_as_not_sent() {
    let server = Server::start([ticket()]).await;
    let (broker, registry) = counted(AwsOptions {
        calls_per_second: 1,
        calls_burst: 1,
        call_timeout: Duration::from_millis(20),
        ..options()
    });
    let identity = identity(&server);
    // The first takes the only turn of this second, whatever comes of it.
    let _ = broker.start(&identity, &request()).await;
    broker.start(&identity, &request()).await.unwrap_err();
    let (counts, tried) = counts(&registry);
    assert_eq!(tried, 1, "{counts:?}");
    let unsent = "requests_unsent_total{operation=\"StartSession\"} 1".to_owned();
    assert!(counts.contains(&unsent), "{counts:?}");
}
