//! The smallest policies: what `docs/iam.md` lets controller and relay do in AWS is what each does, and nothing else.

use std::collections::BTreeSet;

use serde_json::json;
use ssm_session_operator::simulator::{Fault, Operation};

use crate::http;
use crate::iam::{actions, calls};
use crate::listeners::live_session;
use crate::process::Process;
use crate::world::{WAIT_MAX, World, carry};

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
    let (world, mut controller, mut relay, listener) = World::serving_apart("iam", &[]).await;
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
    assert!(by_relay.insert("ssmmessages:OpenDataChannel".to_owned()));
    assert_eq!(by_relay, actions("The relay's policy"));
    assert_eq!(by_relay, calls("Relay"));

    // The controller ends what a relay has left.
    relay.kill().await.expect("it can be killed");
    world.remove("orders").await;
    let by_controller = asked(&mut controller).await;
    assert_eq!(by_controller, actions("The controller's policy"));
    assert_eq!(by_controller, calls("Controller"));
    controller.stop().await.expect("it ends well");
}
