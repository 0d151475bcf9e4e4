//! Behind an HTTP proxy: AWS is reached through it and in no other way, the API server never.

use serde_json::json;
use ssm_session_operator::crd::SsmSession;
use ssm_session_operator::simulator::{Fault, Operation, SimulatorOptions};

use crate::front::Front;
use crate::looks::message;
use crate::proxy::{Answer, Proxy};
use crate::world::{World, carry, condition, reason};

/// AWS, by a name that nobody but the proxy can resolve.
const AWS: &str = "aws.test:443";

/// The environment of processes: this proxy for everything, with user `operator` and the password.
fn environment(proxy: &Proxy) -> [(&'static str, String); 2] {
    let url = format!("http://operator:{PASSWORD}@{}", proxy.address());
    [("HTTPS_PROXY", url.clone()), ("http_proxy", url)]
}

/// It must show up nowhere, and in the header neither.
pub const PASSWORD: &str = "CoNnEcTpAsSwOrD";
const AUTHORIZATION: &str = "Basic b3BlcmF0b3I6Q29ObkVjVHBBc1N3T3JE";

/// The role of the class behind the proxy.
pub const ROLE: &str = "arn:aws:iam::111122223333:role/sessions";

/// A world whose AWS is behind a proxy and TLS, and its class with a role.
pub async fn behind_a_proxy(name: &str) -> (World, Proxy, String) {
    let options = SimulatorOptions {
        stream_base: Some("wss://aws.test".to_owned()),
        ..SimulatorOptions::default()
    };
    let mut world = World::with(name, options).await;
    let front = Front::named("aws.test").await;
    let proxy = Proxy::start(&[(AWS, front.address())], Some(AUTHORIZATION)).await;
    let proxy = proxy.expect("a proxy");
    let trusted = world.folder().join("trusted.pem");
    std::fs::write(&trusted, &front.pem).expect("the folder takes a file");
    let endpoint = world.simulator.endpoint();
    front.serve(endpoint.trim_start_matches("http://").to_owned());
    world.credentials.extend(environment(&proxy));
    world.credentials.extend([
        ("AWS_ENDPOINT_URL_STS", "https://aws.test".to_owned()),
        ("SSL_CERT_FILE", trusted.display().to_string()),
    ]);
    let class = format!("{}-proxied", world.class);
    let aws = json!({
        "endpoints": { "ssm": "https://aws.test", "ssmmessages": "https://aws.test" },
        "roleArn": ROLE,
    });
    world.create_class_with(&class, &aws).await;
    (world, proxy, class)
}

#[tokio::test]
async fn all_of_aws_is_reached_through_the_proxy_and_nothing_of_the_api_server() {
    let (world, proxy, class) = behind_a_proxy("proxied").await;
    let operator = world.all_in_one(&[]).await;
    let session = world.session_with("orders", json!({ "className": class }));
    world.create(&session).await;
    world.wait_ready("orders").await;
    let mut connection = world.connect("orders", "db").await;

    let sessions = world.simulator.sessions();
    let [session] = sessions.as_slice() else {
        panic!("one session, not {sessions:?}");
    };
    let id = session.id.clone();
    world.inject(Fault::CloseWebsockets {
        session: id.clone(),
    });
    world
        .wait_aws("a resumed session", |aws| {
            let session = aws.session(&id);
            session.is_some_and(|session| session.resumed > 0 && session.client_attached)
        })
        .await;
    carry(&mut connection).await;
    world.remove("orders").await;
    for operation in [
        Operation::AssumeRole,
        Operation::StartSession,
        Operation::ResumeSession,
        Operation::DescribeSessions,
        Operation::TerminateSession,
    ] {
        assert!(world.simulator.calls(operation) > 0, "{operation:?}");
    }

    // The two websockets, and at least one connection for the calls.
    let asked = proxy.asked();
    assert!(asked.len() >= 3, "{asked:?}");
    // The world's own class, on loopback, is polled directly.
    let other = asked.iter().find(|to| *to != AWS);
    assert_eq!(other, None);
    let logs = world.logs();
    assert!(logs.contains("AWS is called through a proxy"));
    assert!(!logs.contains(PASSWORD), "the password is in a log");
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_in_the_status_and_the_session_heals() {
    let (world, proxy, class) = behind_a_proxy("refusing-proxy").await;
    proxy.answer(Answer::Refuse(403));
    let operator = world.all_in_one(&[]).await;
    let session = world.session_with("orders", json!({ "className": class }));
    world.create(&session).await;
    let words = format!(
        "the proxy {} does not connect to {AWS}: HTTP status 403 Forbidden",
        proxy.address()
    );
    let told = |session: &SsmSession| {
        condition(session, "AwsReachable") == "False"
            && message(session, "AwsReachable").contains(&words)
    };
    let session = world.wait("orders", "the proxy's refusal", told).await;
    assert!(!message(&session, "AwsReachable").contains(PASSWORD));
    let answers = ["AwsUnavailable", "CredentialsUnavailable"];
    let shown = reason(&session, "AwsReachable");
    assert!(answers.contains(&shown), "{shown}");

    proxy.answer(Answer::Connect);
    world.wait_ready("orders").await;
    world.connect("orders", "db").await;
    world.remove("orders").await;
    operator.stop().await.expect("it ends well");
}

/// As of a pod with IRSA in a private network: its proxy, or its endpoint, is for the STS of its own Region.
#[tokio::test]
async fn a_web_identity_is_shown_to_sts_of_the_process_own_region_for_a_class_of_any() {
    let mut world = World::new("own-region").await;
    let proxy = Proxy::start(&[], None).await.expect("a proxy");
    proxy.answer(Answer::Refuse(403));
    let token = world.folder().join("token");
    std::fs::write(&token, "a-web-identity-token").expect("the folder takes a file");
    world.credentials = vec![
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.display().to_string()),
        (
            "AWS_ROLE_ARN",
            "arn:aws:iam::123456789012:role/relay".to_owned(),
        ),
        ("AWS_REGION", "eu-west-1".to_owned()),
        ("AWS_ENDPOINT_URL_STS", String::new()),
        ("HTTPS_PROXY", format!("http://{}", proxy.address())),
    ];
    let class = format!("{}-far", world.class);
    let aws = json!({ "region": "us-east-1" });
    world.create_class_with(&class, &aws).await;
    let operator = world.all_in_one(&[]).await;
    let session = world.session_with("orders", json!({ "className": class }));
    world.create(&session).await;
    let told = |session: &SsmSession| {
        let words = "does not connect to sts.eu-west-1.amazonaws.com:443";
        reason(session, "AwsReachable") == "CredentialsUnavailable"
            && message(session, "AwsReachable").contains(words)
    };
    world.wait("orders", "where it asked", told).await;
    let asked = proxy.asked();
    let elsewhere = asked
        .iter()
        .find(|to| *to != "sts.eu-west-1.amazonaws.com:443");
    assert_eq!(elsewhere, None);
    world.remove("orders").await;
    operator.stop().await.expect("it ends well");
}
