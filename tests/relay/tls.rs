//! The token goes to the message gateway and nowhere else.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use ssm_session_operator::broker::UrlPolicy;
use ssm_session_operator::relay::{EndReason, Failure, RelayOptions, Report};
use ssm_session_operator::simulator::{Operation, Overview, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::brokers::Around;
use crate::front::Front;
use crate::ground::{Ground, REMOTE, Setting, echo, within};

/// A ground whose stream URLs begin with `base`; the listener's identity names `gateway` as its message gateway.
pub async fn ground(
    base: String,
    gateway: String,
    adjust: impl FnOnce(&mut RelayOptions),
) -> Ground {
    let setting = Setting::with(adjust);
    let around = |_: &_, aws| Arc::new(Around::leading_to(aws, base)) as Arc<_>;
    let ground = Ground::with_broker(echo().await, setting, around).await;
    let mut spec = ground.spec(1, REMOTE);
    spec.identity.ssmmessages_endpoint = Some(gateway);
    ground.ensure_spec(spec);
    ground
}

/// Waits until the first session was given up, and says why; no websocket of it was ever admitted.
pub async fn wait_refused(ground: &Ground) -> String {
    let ended = |report: &Report| {
        let mut ends = report
            .sessions
            .iter()
            .filter_map(|session| session.end.as_ref());
        ends.any(|end| end.reason == EndReason::StartFailed)
    };
    let report = ground.shelf.wait_for("the session's end", ended).await;
    let over = |overview: &Overview| overview.sessions[0].status == Status::Terminated;
    let overview = ground.wait_aws("the session's end in AWS", over).await;
    let mut sessions = overview.sessions.iter();
    assert!(sessions.all(|session| session.client_websockets == 0));
    let ends = report
        .sessions
        .iter()
        .find_map(|session| session.end.clone());
    ends.expect("an end").message
}

pub fn authority(endpoint: &str) -> String {
    endpoint.trim_start_matches("http://").to_owned()
}

#[tokio::test]
async fn a_gateway_that_is_trusted_serves_over_tls() {
    let front = Front::named("127.0.0.1").await;
    let (address, tls) = (front.address(), front.trusting.clone());
    let strict = |options: &mut RelayOptions| {
        options.url_policy = UrlPolicy::Strict;
        options.tls = tls;
    };
    let ground = ground(
        format!("wss://{address}"),
        format!("https://{address}"),
        strict,
    )
    .await;
    front.serve(authority(&ground.simulator.endpoint()));
    let mut client = ground.dial().await;
    client.write_u64(42).await.expect("sent");
    let echoed = within("the echo", client.read_u64()).await;
    assert_eq!(echoed.expect("an echo"), 42);
}

#[tokio::test]
async fn a_gateway_with_an_unknown_certificate_gets_no_token() {
    let front = Front::named("127.0.0.1").await;
    let address = front.address();
    let short = |options: &mut RelayOptions| options.handshake_timeout = Duration::from_secs(5);
    let ground = ground(
        format!("wss://{address}"),
        format!("https://{address}"),
        short,
    )
    .await;
    front.serve(authority(&ground.simulator.endpoint()));
    let why = wait_refused(&ground).await;
    assert!(
        why.contains("TLS with") && why.contains("certificate"),
        "{why}"
    );
}

#[tokio::test]
async fn a_stream_url_that_leads_elsewhere_is_not_even_connected_to() {
    let elsewhere = Front::named("127.0.0.1").await;
    let base = format!("wss://localhost:{}", elsewhere.address().port());
    let strict = |options: &mut RelayOptions| {
        options.url_policy = UrlPolicy::Strict;
        // It is given up at once, and not when no handshake has come.
        options.handshake_timeout = Duration::from_hours(1);
        // One session, and then a pause.
        options.backoff_min = Duration::from_hours(1);
        options.backoff_max = Duration::from_hours(1);
    };
    let ground = ground(base, "https://gateway.test".to_owned(), strict).await;
    let why = wait_refused(&ground).await;
    assert!(
        why.starts_with("the stream URL is refused: ") && why.contains("leads to localhost"),
        "{why}"
    );
    let report = ground.shelf.last().expect("a report");
    let failure = report.failure.expect("a failure");
    assert!(matches!(failure, Failure::DataChannel(_)), "{failure}");
    assert_eq!(ground.simulator.calls(Operation::ResumeSession), 0);
    let visitor = elsewhere.accepted().now_or_never();
    assert!(visitor.is_none(), "somebody came: {visitor:?}");
}
