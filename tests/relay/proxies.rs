//! The relay behind an HTTP proxy: calls and websockets take it, and nothing of it is trusted.

use std::sync::Arc;
use std::time::Duration;

use ssm_session_operator::aws::{AwsBroker, AwsOptions};
use ssm_session_operator::broker::UrlPolicy;
use ssm_session_operator::proxy::Proxies;
use ssm_session_operator::relay::{RelayOptions, Report};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::ClientConfig;

use crate::front::Front;
use crate::ground::{Ground, Setting, aws_options, echo, no_trust, options, within};
use crate::proxy::{Answer, PAGE, Proxy};
use crate::tls::{authority, ground, wait_refused};

const PASSWORD: &str = "the-password-of-the-proxy";

/// The header for user `operator` and the password.
const AUTHORIZATION: &str = "Basic b3BlcmF0b3I6dGhlLXBhc3N3b3JkLW9mLXRoZS1wcm94eQ==";

/// What the environment says: this proxy, with user and password, but not for what `no` names.
fn proxies(proxy: &Proxy, password: &str, no: &str) -> Proxies {
    let url = format!("http://operator:{password}@{}", proxy.address());
    read(&url, no, no_trust())
}

fn read(url: &str, no: &str, tls: Arc<ClientConfig>) -> Proxies {
    let variable = |name: &str| match name {
        "HTTPS_PROXY" | "HTTP_PROXY" => Some(url.to_owned()),
        "NO_PROXY" => Some(no.to_owned()),
        _ => None,
    };
    Proxies::read(variable, tls).expect("a URL of a proxy")
}

/// A relay that reaches AWS so.
async fn behind(calls: Proxies, websockets: Proxies, handshake_timeout: Duration) -> Ground {
    let options = RelayOptions {
        proxies: websockets,
        handshake_timeout,
        ..options("run-1")
    };
    let setting = Setting {
        options,
        ..Setting::default()
    };
    let aws = AwsBroker::new(AwsOptions {
        proxies: calls,
        ..aws_options()
    });
    let ground = Ground::with_broker(echo().await, setting, |_, _| Arc::new(aws)).await;
    ground.ensure();
    ground
}

async fn assert_carries(ground: &Ground) {
    let mut client = ground.dial().await;
    client.write_u64(42).await.expect("sent");
    let echoed = within("the echo", client.read_u64()).await;
    assert_eq!(echoed.expect("an echo"), 42);
}

/// Long enough for a busy machine.
const PATIENT: Duration = Duration::from_mins(1);

#[tokio::test]
async fn calls_and_websockets_take_the_proxy() {
    let proxy = Proxy::start(&[], Some(AUTHORIZATION))
        .await
        .expect("a proxy");
    let proxies = proxies(&proxy, PASSWORD, "");
    let calls_alone = behind(proxies.clone(), Proxies::default(), PATIENT).await;
    assert_carries(&calls_alone).await;
    let aws = authority(&calls_alone.simulator.endpoint());
    assert_eq!(proxy.asked(), [aws], "one connection for all calls");

    let both = behind(proxies.clone(), proxies, PATIENT).await;
    assert_carries(&both).await;
    let aws = authority(&both.simulator.endpoint());
    assert_eq!(
        proxy.asked()[1..],
        [aws.clone(), aws],
        "calls and a websocket"
    );
}

#[tokio::test]
async fn what_no_proxy_names_does_without() {
    let proxy = Proxy::start(&[], None).await.expect("a proxy");
    let proxies = proxies(&proxy, PASSWORD, "10.0.0.0/8,127.0.0.0/8");
    let ground = behind(proxies.clone(), proxies, PATIENT).await;
    assert_carries(&ground).await;
    assert_eq!(proxy.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_call_that_the_proxy_refuses_is_told_in_its_words_and_heals() {
    let proxy = Proxy::start(&[], Some(AUTHORIZATION))
        .await
        .expect("a proxy");
    proxy.answer(Answer::Refuse(403));
    let proxies = proxies(&proxy, PASSWORD, "");
    let ground = behind(proxies.clone(), proxies, PATIENT).await;
    let (at, aws) = (proxy.address(), authority(&ground.simulator.endpoint()));
    let words = format!(
        "StartSession: no answer: the proxy {at} does not connect to {aws}: HTTP status 403 \
         Forbidden; it does not allow this host or port"
    );
    let told = |report: &Report| {
        let failure = report.failure.as_ref().map(ToString::to_string);
        failure.is_some_and(|failure| failure.contains(&words))
    };
    ground.shelf.wait_for("the proxy's refusal", told).await;
    proxy.answer(Answer::Connect);
    ground.wait_serving().await;
    assert_carries(&ground).await;
}

#[tokio::test]
async fn a_websocket_that_the_proxy_refuses_says_so_without_its_password() {
    let proxy = Proxy::start(&[], Some(AUTHORIZATION))
        .await
        .expect("a proxy");
    let wrong = "another-password";
    let websockets = proxies(&proxy, wrong, "");
    let short = Duration::from_secs(5);
    let ground = behind(Proxies::default(), websockets, short).await;
    let why = wait_refused(&ground).await;
    let words = format!(
        "the proxy {} does not connect to {}: HTTP status 407 Proxy Authentication Required; it \
         does not accept the user and password of its URL",
        proxy.address(),
        authority(&ground.simulator.endpoint()),
    );
    assert!(why.contains(&words), "{why}");
    assert!(!why.contains(wrong) && !why.contains(PAGE), "{why}");
    let reports = format!("{:?}", ground.shelf.reports());
    assert!(
        !reports.contains(wrong) && !reports.contains(PAGE),
        "{reports}"
    );
}

/// A gateway that only the proxy knows by this name.
const GATEWAY: &str = "gateway.test:443";

#[tokio::test]
async fn a_token_goes_through_the_proxy_to_the_gateway() {
    let front = Front::named("gateway.test").await;
    let names = [(GATEWAY, front.address())];
    let proxy = Proxy::start(&names, None).await.expect("a proxy");
    let (tls, proxies) = (
        front.trusting.clone(),
        proxies(&proxy, PASSWORD, "127.0.0.1"),
    );
    let strict = |options: &mut RelayOptions| {
        options.url_policy = UrlPolicy::Strict;
        (options.tls, options.proxies) = (tls, proxies);
    };
    let (base, gateway) = (
        "wss://gateway.test".to_owned(),
        "https://gateway.test".to_owned(),
    );
    let ground = ground(base, gateway, strict).await;
    front.serve(authority(&ground.simulator.endpoint()));
    assert_carries(&ground).await;
    assert_eq!(proxy.asked(), [GATEWAY]);
}

#[tokio::test]
async fn a_proxy_that_leads_elsewhere_gets_no_token() {
    let elsewhere = Front::named("elsewhere.test").await;
    let names = [(GATEWAY, elsewhere.address())];
    let proxy = Proxy::start(&names, None).await.expect("a proxy");
    let (tls, proxies) = (elsewhere.trusting.clone(), proxies(&proxy, PASSWORD, ""));
    let strict = |options: &mut RelayOptions| {
        options.url_policy = UrlPolicy::Strict;
        options.handshake_timeout = Duration::from_secs(5);
        // Trusted, and still not the gateway.
        (options.tls, options.proxies) = (tls, proxies);
    };
    let (base, gateway) = (
        "wss://gateway.test".to_owned(),
        "https://gateway.test".to_owned(),
    );
    let ground = ground(base, gateway, strict).await;
    elsewhere.serve(authority(&ground.simulator.endpoint()));
    let why = wait_refused(&ground).await;
    assert!(
        why.contains("TLS with") && why.contains("certificate"),
        "{why}"
    );
}

#[tokio::test]
async fn a_proxy_behind_tls_gets_the_password_only_if_it_is_trusted() {
    let proxy = Proxy::start(&[], Some(AUTHORIZATION))
        .await
        .expect("a proxy");
    let front = Front::named("127.0.0.1").await;
    let url = format!("https://operator:{PASSWORD}@{}", front.address());
    let trusting = read(&url, "", front.trusting.clone());
    let doubting = read(&url, "", no_trust());
    front.serve(proxy.address());

    let short = Duration::from_secs(5);
    let refused = behind(Proxies::default(), doubting, short).await;
    let why = wait_refused(&refused).await;
    assert!(
        why.contains("can't be connected to") && why.contains("certificate"),
        "{why}"
    );
    assert_eq!(proxy.asked(), Vec::<String>::new());

    let ground = behind(trusting.clone(), trusting, PATIENT).await;
    assert_carries(&ground).await;
    assert_eq!(proxy.asked().len(), 2, "calls and a websocket");
}
