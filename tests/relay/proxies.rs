//! The relay behind an HTTP proxy: calls and websockets take it, and nothing of it is trusted.

use std::sync::Arc;
use std::time::Duration;

use ssm_session_operator::aws::{AwsBroker, AwsOptions};
use ssm_session_operator::broker::UrlPolicy;
use ssm_session_operator::proxy::Proxies;
use ssm_session_operator::relay::{RelayOptions, Report};
use ssm_session_operator::simulator::Simulator;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::ClientConfig;

use crate::brokers::Around;
use crate::front::Front;
use crate::ground::{Ground, REMOTE, Setting, aws_options, echo, no_trust, options, within};
use crate::proxy::{Answer, HERE, PAGE, Proxy};
use crate::tls::{authority, ground, wait_refused};

const PASSWORD: &str = "the-password-of-the-proxy";

/// The header for user `operator` and the password.
const AUTHORIZATION: &str = "Basic b3BlcmF0b3I6dGhlLXBhc3N3b3JkLW9mLXRoZS1wcm94eQ==";

/// What the environment says: this proxy for everything, with user and password.
fn proxies(proxy: &Proxy, password: &str) -> Proxies {
    let url = format!("http://operator:{password}@{}", proxy.address());
    read(&url, "", no_trust())
}

fn read(url: &str, no: &str, tls: Arc<ClientConfig>) -> Proxies {
    let variable = |name: &str| match name {
        "HTTPS_PROXY" | "HTTP_PROXY" => Some(url.to_owned()),
        "NO_PROXY" => Some(no.to_owned()),
        _ => None,
    };
    Proxies::read(variable, tls).expect("a URL of a proxy")
}

/// How AWS is reached, which is on this machine: by this host of its URLs, and with these proxies.
struct Way {
    host: &'static str,
    proxies: Proxies,
}

impl Way {
    /// Without a proxy.
    fn direct() -> Self {
        Self::to("127.0.0.1", &Proxies::default())
    }

    /// By the name that only the proxy knows.
    fn through(proxies: &Proxies) -> Self {
        Self::to(HERE, proxies)
    }

    fn to(host: &'static str, proxies: &Proxies) -> Self {
        let proxies = proxies.clone();
        Self { host, proxies }
    }
}

/// The simulated AWS as `host:port`, of this host.
fn at(host: &str, simulator: &Simulator) -> String {
    let endpoint = simulator.endpoint();
    let (_, port) = endpoint.rsplit_once(':').expect("a port");
    format!("{host}:{port}")
}

/// A relay that reaches AWS so.
async fn behind(calls: Way, websockets: Way, handshake_timeout: Duration) -> Ground {
    let options = RelayOptions {
        proxies: websockets.proxies,
        handshake_timeout,
        ..options("run-1")
    };
    let setting = Setting {
        options,
        ..Setting::default()
    };
    let aws = AwsBroker::new(AwsOptions {
        proxies: calls.proxies,
        ..aws_options()
    });
    let around = |simulator: &Simulator, _| {
        let base = format!("ws://{}", at(websockets.host, simulator));
        Arc::new(Around::leading_to(aws, base)) as Arc<_>
    };
    let ground = Ground::with_broker(echo().await, setting, around).await;
    let mut spec = ground.spec(1, REMOTE);
    spec.identity.ssm_endpoint = Some(format!("http://{}", at(calls.host, &ground.simulator)));
    ground.ensure_spec(spec);
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
    let proxies = proxies(&proxy, PASSWORD);
    let calls_alone = behind(Way::through(&proxies), Way::direct(), PATIENT).await;
    assert_carries(&calls_alone).await;
    let aws = at(HERE, &calls_alone.simulator);
    assert_eq!(proxy.asked(), [aws], "one connection for all calls");

    let both = behind(Way::through(&proxies), Way::through(&proxies), PATIENT).await;
    assert_carries(&both).await;
    let aws = at(HERE, &both.simulator);
    assert_eq!(
        proxy.asked()[1..],
        [aws.clone(), aws],
        "calls and a websocket"
    );
}

#[tokio::test]
async fn what_no_proxy_names_does_without_and_so_does_loopback() {
    let proxy = Proxy::start(&[], None).await.expect("a proxy");
    // This machine too, by an address that is none of loopback.
    let (any, named) = ("0.0.0.0", "10.0.0.0/8,0.0.0.0/8");
    let url = format!("http://{}", proxy.address());
    for (calls, websockets, no) in [(any, any, named), ("127.0.0.1", "localhost", "")] {
        let proxies = read(&url, no, no_trust());
        let (calls, websockets) = (Way::to(calls, &proxies), Way::to(websockets, &proxies));
        let ground = behind(calls, websockets, PATIENT).await;
        assert_carries(&ground).await;
    }
    assert_eq!(proxy.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_call_that_the_proxy_refuses_is_told_in_its_words_and_heals() {
    let proxy = Proxy::start(&[], Some(AUTHORIZATION))
        .await
        .expect("a proxy");
    proxy.answer(Answer::Refuse(403));
    let proxies = proxies(&proxy, PASSWORD);
    let ground = behind(Way::through(&proxies), Way::through(&proxies), PATIENT).await;
    let (address, aws) = (proxy.address(), at(HERE, &ground.simulator));
    let words = format!(
        "StartSession: no answer: the proxy {address} does not connect to {aws}: HTTP status 403 \
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
    let websockets = Way::through(&proxies(&proxy, wrong));
    let short = Duration::from_secs(5);
    let ground = behind(Way::direct(), websockets, short).await;
    let why = wait_refused(&ground).await;
    let words = format!(
        "the proxy {} does not connect to {}: HTTP status 407 Proxy Authentication Required; it \
         does not accept the user and password of its URL",
        proxy.address(),
        at(HERE, &ground.simulator),
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
    let (tls, proxies) = (front.trusting.clone(), proxies(&proxy, PASSWORD));
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
    let (tls, proxies) = (elsewhere.trusting.clone(), proxies(&proxy, PASSWORD));
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
    let refused = behind(Way::direct(), Way::through(&doubting), short).await;
    let why = wait_refused(&refused).await;
    assert!(
        why.contains("can't be connected to") && why.contains("certificate"),
        "{why}"
    );
    assert_eq!(proxy.asked(), Vec::<String>::new());

    let ground = behind(Way::through(&trusting), Way::through(&trusting), PATIENT).await;
    assert_carries(&ground).await;
    assert_eq!(proxy.asked().len(), 2, "calls and a websocket");
}
