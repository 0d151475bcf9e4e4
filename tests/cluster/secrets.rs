//! No secret leaves a relay's memory: not in an object, not in an Event, not in a metric, not in a log at any level.

use serde_json::json;
use ssm_session_operator::broker::Role;
use ssm_session_operator::crd::DEFAULT_ROLE_SESSION_NAME;
use ssm_session_operator::crd::listener::EndReason;
use ssm_session_operator::simulator::{Fault, Operation};

use crate::history::terminate_in_aws_as;
use crate::http;
use crate::listeners::live_session;
use crate::process::Process;
use crate::proxied::{PASSWORD as PROXY_PASSWORD, ROLE, behind_a_proxy};
use crate::transfer;
use crate::world::{SECRET_KEY, WAIT_MAX, World, reason};

/// Parts of what nobody may see, besides the tokens: the secret key, a signature, the query of a stream URL.
const SECRETS: &[&str] = &[
    SECRET_KEY,
    PROXY_PASSWORD,
    // The same in the header by which it is shown to the proxy.
    "Q29ObkVjVHBBc1N3T3JE",
    "Signature=",
    "X-Amz-Signature",
    "publish_subscribe",
    "cell-number",
];

/// All levels of all crates, also of those that see secrets and are quiet unless they are named.
const EVERYTHING: &str = "--log-filter=trace,aws_config=trace,aws_runtime=trace,aws_sdk_ssm=trace,aws_sdk_sts=trace,aws_sigv4=trace,\
                          aws_smithy_runtime=trace,aws_smithy_http_client=trace,hyper=trace,hyper_util=trace,\
                          tungstenite=trace,tokio_tungstenite=trace,rustls=trace,kube_client=trace,tower=trace";

/// What was published so far, with a name for each.
#[derive(Default)]
struct Published(Vec<(String, String)>);

impl Published {
    /// Every object and every metric as they are now.
    async fn collect(&mut self, world: &World, processes: &mut [Process]) {
        for object in world.objects().await {
            let name = format!("{} {}", object["kind"], object["metadata"]["name"]);
            self.0.push((name, object.to_string()));
        }
        for process in processes {
            let address = process.admin_address(WAIT_MAX).await;
            let metrics = http::get(&address.expect("it says where"), "/metrics").await;
            let metrics = metrics.expect("metrics are served").body;
            self.0.push(("metrics".to_owned(), metrics));
        }
    }
}

#[tokio::test]
async fn no_token_and_no_key_is_in_any_object_log_or_metric() {
    // Whatever goes to AWS shows the password to the proxy first; and what STS hands out for the role is secret too.
    let (world, proxy, class) = behind_a_proxy("secrets").await;
    let everything = [EVERYTHING, "--handshake-timeout=1s"];
    let controller = world.controller(&everything[..1]).await;
    let mut processes = [controller, world.relay("relay-a", &everything).await];
    let mut published = Published::default();
    let session = world.session_with("orders", json!({ "className": class }));
    world.create(&session).await;
    world.wait_available("orders").await;
    let first = live_session(&world.wait_serving("orders").await);
    let mut connection = world.dial("orders", "db").await;
    transfer::exchange(&mut connection, 300_000, 300_000)
        .await
        .expect("all bytes arrive");
    published.collect(&world, &mut processes).await;

    // A websocket is closed and the session resumed with a fresh token.
    let session = first.clone();
    world
        .simulator
        .inject(Fault::CloseWebsockets { session })
        .expect("a fault");
    world
        .wait_aws("a resumed session", |aws| {
            aws.session(&first)
                .is_some_and(|session| session.resumed > 0 && session.client_attached)
        })
        .await;
    transfer::exchange(&mut connection, 300_000, 300_000)
        .await
        .expect("the stream goes on");

    fail_some_starts(&world, &first, &mut published, &mut processes).await;
    world.delete("orders").await;
    world.wait_gone("orders").await;
    world.assert_nothing_is_left().await;
    published.collect(&world, &mut processes).await;
    for process in processes {
        process.stop().await.expect("it ends well");
    }

    assert!(proxy.asked().len() > 2, "{:?}", proxy.asked());
    let tokens = world.simulator.issued_tokens();
    assert!(
        tokens.len() >= 4,
        "the search has nothing to look for: {}",
        tokens.len()
    );
    let logs = world.logs();
    assert!(
        logs.contains(&first) && logs.contains("\"TRACE\""),
        "the search has nowhere to look"
    );
    assert!(published.0.iter().any(|(_, text)| text.contains(&first)));
    published.0.push(("logs".to_owned(), logs));
    for (place, text) in &published.0 {
        for secret in tokens
            .iter()
            .map(String::as_str)
            .chain(SECRETS.iter().copied())
        {
            let found = text.lines().find(|line| line.contains(secret));
            assert_eq!(found, None, "{secret:?} is in {place}");
        }
    }
}

/// Ends the session that serves, and lets starts fail: with AWS's own words, without a token, without a handshake.
async fn fail_some_starts(
    world: &World,
    serving: &str,
    published: &mut Published,
    processes: &mut [Process],
) {
    let inject = |fault| world.simulator.inject(fault).expect("a fault");
    inject(Fault::Fail {
        operation: Operation::StartSession,
        calls: u32::MAX,
        code: "AccessDeniedException".to_owned(),
    });
    let role = Role {
        arn: ROLE.to_owned(),
        external_id: None,
        session_name: DEFAULT_ROLE_SESSION_NAME.to_owned(),
    };
    terminate_in_aws_as(world, Some(role), serving).await;
    world
        .wait("orders", "a denied start", |session| {
            reason(session, "AwsReachable") == "AccessDenied"
        })
        .await;
    published.collect(world, processes).await;
    inject(Fault::Clear);
    inject(Fault::EmptyTokens {
        operation: Operation::StartSession,
        calls: 1,
    });
    inject(Fault::SilentStarts { calls: 2 });
    world
        .wait_listener("orders", "two starts failed", |listener| {
            let sessions = listener.status.iter().flat_map(|status| &status.sessions);
            let failed = sessions.filter(|s| s.end_reason == Some(EndReason::StartFailed));
            failed.count() >= 2
        })
        .await;
    published.collect(world, processes).await;
    world.wait_serving("orders").await;
    world.wait_available("orders").await;
    published.collect(world, processes).await;
}
