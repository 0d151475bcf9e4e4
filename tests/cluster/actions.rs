//! The smallest policies: what `docs/iam.md` lets controller and relay do in AWS is what each does, on what it does it and as
//! it does it, and nothing else.

use std::collections::BTreeSet;

use serde_json::json;
use ssm_session_operator::simulator::{Fault, Operation, SessionView, SimulatorOptions};

use crate::http;
use crate::iam::{Context, Policy, actions, calls, policy, session};
use crate::listeners::live_session;
use crate::looks::port;
use crate::process::Process;
use crate::programs::{in_checkout, objects};
use crate::world::{REMOTE_PORT, WAIT_MAX, World, carry};

const START: &str = "ssm:StartSession";
const RESUME: &str = "ssm:ResumeSession";
const TERMINATE: &str = "ssm:TerminateSession";
const OPEN: &str = "ssmmessages:OpenDataChannel";

/// What AWS knows of a start on a target that is tagged as the page says, and of the document that it names.
const ON_TARGET: Context<'_> = &[
    ("ssm:resourceTag/ssm-operator", "my-cluster"),
    ("ssm:SessionDocumentAccessCheck", "true"),
];
const ON_DOCUMENT: Context<'_> = &[("ssm:SessionDocumentAccessCheck", "true")];

/// A hybrid node.
const HYBRID: &str = "mi-0123456789abcdef0";

fn target(id: &str) -> String {
    if id.starts_with("mi-") {
        return format!("arn:aws:ssm:eu-central-1:123456789012:managed-instance/{id}");
    }
    format!("arn:aws:ec2:eu-central-1:123456789012:instance/{id}")
}

fn document(name: &str) -> String {
    format!("arn:aws:ssm:eu-central-1::document/{name}")
}

/// What AWS is asked for with these actions and this session: each action, its resource, and what is known besides.
fn requests(asked: &BTreeSet<String>, of: &SessionView) -> Vec<(String, String, Context<'static>)> {
    let mut requests = Vec::new();
    for action in asked {
        let on: Vec<(String, Context<'static>)> = match action.as_str() {
            START => vec![
                (target(&of.target), ON_TARGET),
                (document(&of.document), ON_DOCUMENT),
            ],
            RESUME | TERMINATE | OPEN => vec![(session(&of.id), &[])],
            _ => vec![("*".to_owned(), &[])],
        };
        requests.extend(
            on.into_iter()
                .map(|(on, context)| (action.clone(), on, context)),
        );
    }
    requests
}

/// The policy allows all of this, and has no right that none of it needs.
fn assert_smallest(policy: &Policy, asked: &BTreeSet<String>, sessions: &[SessionView]) {
    let mut needed = BTreeSet::new();
    for (action, on, context) in sessions.iter().flat_map(|of| requests(asked, of)) {
        let allowed = policy.allows(&action, &on, context);
        assert!(!allowed.is_empty(), "{action} on {on} is denied");
        needed.extend(allowed);
    }
    assert_eq!(needed, policy.rights());
}

/// The role session name of the chart's pods, with which AWS begins the ids of their sessions.
fn role_session_name() -> String {
    let values = in_checkout("charts/ssm-session-operator/values.yaml");
    let values = std::fs::read_to_string(values).expect("it is in the checkout");
    let name = objects(&values)[0]["aws"]["roleSessionName"]
        .as_str()
        .map(str::to_owned);
    name.expect("it has one")
}

/// What the process has asked of AWS, as its metrics have it.
async fn asked(process: &mut Process) -> BTreeSet<String> {
    let admin = process.admin_address(WAIT_MAX).await.expect("an address");
    let metrics = http::get(&admin, "/metrics").await.expect("metrics").body;
    let samples = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("ssm_operator_aws_requests_total{"));
    let asked = samples.filter(|sample| !sample.ends_with(" 0"));
    let operation = |sample: &str| {
        let (_, rest) = sample.split_once("operation=\"").expect("its label");
        let (operation, _) = rest.split_once('"').expect("an end");
        format!("ssm:{operation}")
    };
    asked.map(operation).collect()
}

#[tokio::test]
async fn the_policies_of_the_page_allow_what_controller_and_relay_call_and_nothing_else() {
    let role = format!(
        "arn:aws:sts::123456789012:assumed-role/ssm-operator-relay/{}",
        role_session_name()
    );
    let options = SimulatorOptions {
        owner_arn: role,
        ..SimulatorOptions::default()
    };
    let world = World::with("iam", options).await;
    let mut controller = world.controller(&[]).await;
    let mut relay = world.relay("relay-a", &[]).await;
    // Of each kind of target, and with each document.
    let _agent = world.start_agent(HYBRID, None).await;
    let mut elsewhere = port("db", 5432, REMOTE_PORT);
    elsewhere["remoteHost"] = json!("localhost");
    let hybrid = json!({ "target": { "id": HYBRID }, "ports": [elsewhere] });
    world.create(&world.session_with("hybrid", hybrid)).await;
    world.create(&world.session("orders")).await;
    world.wait_available("hybrid").await;
    world.wait_available("orders").await;
    let listener = world.wait_serving("orders").await;
    let first = live_session(&listener);
    let mut connection = world.connect("orders", "db").await;
    let session = first.clone();
    world.inject(Fault::CloseWebsockets { session });
    world.wait_calls(Operation::ResumeSession, 1).await;
    carry(&mut connection).await;
    // The relay ends what it started.
    let edit = json!({ "reason": "another one" });
    world.edit("orders", &edit).await;
    world.wait_terminated(&first).await;
    world.wait_ready("orders").await;
    let mut by_relay = asked(&mut relay).await;
    // Bytes were carried, so that the websocket was opened: no metric of calls counts it.
    assert!(by_relay.insert(OPEN.to_owned()));
    assert_eq!(by_relay, actions("The relay's policy"));
    assert_eq!(by_relay, calls("Relay"));

    // The controller ends what a relay has left.
    relay.kill().await.expect("it can be killed");
    world.delete("hybrid").await;
    world.wait_gone("hybrid").await;
    world.remove("orders").await;
    let by_controller = asked(&mut controller).await;
    assert_eq!(by_controller, actions("The controller's policy"));
    assert_eq!(by_controller, calls("Controller"));
    controller.stop().await.expect("it ends well");

    let sessions = world.simulator.sessions();
    assert_smallest(&policy("The relay's policy"), &by_relay, &sessions);
    assert_smallest(
        &policy("The controller's policy"),
        &by_controller,
        &sessions,
    );
}

#[test]
fn the_policies_of_the_page_deny_what_the_operator_never_does() {
    let own = format!("{}-0dc5b7af96EXAMPLE", role_session_name());
    let (relay, controller) = (
        policy("The relay's policy"),
        policy("The controller's policy"),
    );
    let instance = target("i-0123456789abcdef0");
    let another: Context<'_> = &[
        ("ssm:resourceTag/ssm-operator", "other-cluster"),
        ("ssm:SessionDocumentAccessCheck", "true"),
    ];
    // No document is named: AWS would open a shell.
    let shell: Context<'_> = &[
        ("ssm:resourceTag/ssm-operator", "my-cluster"),
        ("ssm:SessionDocumentAccessCheck", "false"),
    ];
    let forwarding = document("AWS-StartPortForwardingSession");
    for (action, on, context) in [
        (START, &instance, another),
        (START, &instance, ON_DOCUMENT),
        (START, &instance, shell),
        (START, &target(HYBRID), shell),
        (START, &forwarding, shell),
        (START, &document("AWS-StartSSHSession"), ON_DOCUMENT),
        (START, &document("SSM-SessionManagerRunShell"), ON_DOCUMENT),
        (RESUME, &session("somebody-0dc5b7af96EXAMPLE"), &[]),
        (TERMINATE, &session("somebody-0dc5b7af96EXAMPLE"), &[]),
        (OPEN, &session("somebody-0dc5b7af96EXAMPLE"), &[]),
        (
            OPEN,
            &session(&own).replace("123456789012", "444455556666"),
            &[],
        ),
        ("ssm:DescribeSessions", &session(&own), &[]),
    ] {
        let allowed = relay.allows(action, on, context);
        assert!(allowed.is_empty(), "{action} on {on}: {allowed:?}");
    }
    for (action, on) in [
        (TERMINATE, session("somebody-0dc5b7af96EXAMPLE")),
        (RESUME, session(&own)),
        (START, instance),
    ] {
        let allowed = controller.allows(action, &on, ON_TARGET);
        assert!(allowed.is_empty(), "{action} on {on}: {allowed:?}");
    }
}
