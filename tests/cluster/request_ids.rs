//! What AWS calls a request is found in the log, with the object that the request was for, and in no object.

use serde_json::Value;
use ssm_session_operator::crd::SsmSession;
use ssm_session_operator::simulator::Operation;

use crate::looks::message;
use crate::world::{World, reason};

/// The lines of the log that name one of these requests.
fn lines(world: &World, ids: &[String]) -> Vec<Value> {
    let logs = world.logs();
    let lines = logs
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    lines
        .filter(|line: &Value| {
            let id = line["request_id"].as_str();
            id.is_some_and(|id| ids.iter().any(|known| known == id))
        })
        .collect()
}

/// Whether a line, or a span around it, names session `orders` of this world.
fn is_of_orders(world: &World, line: &Value) -> bool {
    let orders = format!("{}/orders", world.namespace);
    let spans = line["spans"].as_array().into_iter().flatten();
    let mut places = spans.chain([line]);
    places.any(|place| place["ssmsession"] == orders.as_str())
}

#[tokio::test]
async fn a_failed_start_is_logged_with_awss_request_id_and_the_session_and_no_object_has_the_id() {
    let world = World::new("request-ids").await;
    world.fail(Operation::StartSession, "AccessDeniedException");
    let controller = world.controller(&[]).await;
    let relay = world.relay("relay-a", &[]).await;
    world.create(&world.session("orders")).await;
    let denied = |session: &SsmSession| reason(session, "AwsReachable") == "AccessDenied";
    let first = world.wait("orders", "a denied start", denied).await;
    world.wait_calls(Operation::StartSession, 2).await;
    let second = world.wait("orders", "another denied start", denied).await;
    assert_eq!(
        message(&first, "AwsReachable"),
        message(&second, "AwsReachable"),
        "one refusal is like the other"
    );
    let objects = world.objects().await;

    world.mend();
    world.wait_ready("orders").await;
    world.remove("orders").await;
    relay.stop().await.expect("it ends well");
    controller.stop().await.expect("it ends well");

    let started = world.simulator.request_ids(Operation::StartSession);
    let found = lines(&world, &started);
    let warned = |line: &&Value| {
        line["level"] == "WARN"
            && line["message"]
                .as_str()
                .is_some_and(|text| text.starts_with("session not started"))
    };
    let warnings: Vec<_> = found.iter().filter(warned).collect();
    // All but the last were denied, and each has its line.
    assert_eq!(warnings.len(), started.len() - 1, "{found:?}");
    let answered: Vec<_> = found
        .iter()
        .filter(|line| line["level"] == "DEBUG")
        .collect();
    assert!(answered.len() >= started.len(), "{found:?}");
    let strange = found.iter().find(|line| !is_of_orders(&world, line));
    assert_eq!(strange, None);

    let ended = world.simulator.request_ids(Operation::TerminateSession);
    let ends = lines(&world, &ended);
    assert!(
        !ends.is_empty() && ends.iter().all(|line| is_of_orders(&world, line)),
        "{ends:?}"
    );
    for object in objects {
        let text = object.to_string();
        let id = started.iter().find(|id| text.contains(id.as_str()));
        assert_eq!(id, None, "it is in {text}");
    }
}
