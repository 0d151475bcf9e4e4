//! AWS sessions that nobody has recorded are ended, and nobody else's ever are.

use k8s_openapi::api::core::v1::{Event, Namespace};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use ssm_session_operator::broker::Marker;
use ssm_session_operator::simulator::{Fault, Operation, Status};

use crate::http::call_ssm;
use crate::listeners::live_session;
use crate::world::{REMOTE_PORT, TARGET, World, carry, condition};

/// UIDs that no object of these tests has.
const NO_NAMESPACE: &str = "6f1c0f5e-0d4c-4f5c-9a7e-2b1f3c4d5e6f";
const NO_LISTENER: &str = "00010203-0405-0607-0809-0a0b0c0d0e0f";

/// The sweeper waits no longer than it must: what begins later may still be on its way to the record.
const SOON: [&str; 3] = [
    "--aws-call-timeout=5s",
    "--record-timeout=4s",
    "--grace=10s",
];

/// Lets the agent hear of none of the next starts: one that no client joins it would give up after 15 s, and tell AWS.
fn keep_from_agent(world: &World, calls: u32) {
    world.inject(Fault::SilentStarts { calls });
}

/// Starts a session in AWS behind the operator's back, and gives its id.
async fn start(world: &World, reason: &str) -> String {
    let request = json!({
        "Target": TARGET,
        "DocumentName": "AWS-StartPortForwardingSession",
        "Parameters": { "portNumber": [REMOTE_PORT.to_string()] },
        "Reason": reason,
    });
    let started = call_ssm(&world.simulator.endpoint(), "StartSession", &request).await;
    let started: Value = started.expect("AWS starts it");
    started["SessionId"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_session_whose_answer_was_lost_is_swept_and_another_one_serves() {
    let world = World::new("lost-answer").await;
    world.inject(Fault::SwallowStarts { calls: 1 });
    keep_from_agent(&world, 1);
    let operator = world.all_in_one(&SOON).await;
    world.create(&world.session("orders")).await;
    world.wait_available("orders").await;
    let mut connection = world.connect("orders", "db").await;
    let serving = live_session(&world.wait_serving("orders").await);
    let orphan = world.simulator.sessions()[0].id.clone();
    assert_ne!(orphan, serving);

    world.wait_terminated(&orphan).await;
    world
        .until("an Event names the orphan", async || {
            let events = world.events("orders").await;
            Ok(events
                .iter()
                .any(|event| event.starts_with(&format!("OrphanTerminated: {orphan} "))))
        })
        .await;
    // Only the orphan was ended.
    carry(&mut connection).await;
    assert_eq!(world.live_sessions(), [serving]);
    assert_eq!(world.simulator.calls(Operation::TerminateSession), 1);

    world.remove("orders").await;
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn what_was_started_for_a_session_that_is_gone_is_swept_too() {
    let world = World::new("gone").await;
    world.inject(Fault::SwallowStarts { calls: u32::MAX });
    keep_from_agent(&world, u32::MAX);
    let operator = world.all_in_one(&SOON).await;
    world.create(&world.session("orders")).await;
    world
        .wait_aws("a start without an answer", |aws| !aws.sessions.is_empty())
        .await;
    world.delete("orders").await;
    world.wait_gone("orders").await;
    // Waits for AWS too: nobody but the sweeper knows of what was started.
    world.assert_nothing_is_left().await;
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn sessions_of_strangers_and_of_other_installations_are_never_touched() {
    let world = World::new("strangers").await;
    let operator = world.all_in_one(&SOON).await;
    world.create(&world.session("orders")).await;
    let own = live_session(&world.wait_serving("orders").await);

    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    let namespace = namespaces.get(&world.operator_namespace).await;
    let installation = namespace.expect("it is there").uid().expect("it has one");
    let ours = Marker::new(&installation, NO_LISTENER).append_to("a test");
    let theirs = Marker::new(NO_NAMESPACE, NO_LISTENER).append_to("a test");
    keep_from_agent(&world, 4);
    let untouched = [
        start(&world, "a person's own").await,
        start(&world, &theirs).await,
        // Only the very end of a reason is a marker.
        start(&world, &format!("{ours}, said a person")).await,
    ];
    // What is swept is the proof that the sweeper was there, after all of them.
    let orphan = start(&world, &ours).await;
    world.wait_terminated(&orphan).await;
    world.wait_ten_polls().await;
    let mut expected = untouched.to_vec();
    expected.insert(0, own);
    assert_eq!(world.live_sessions(), expected);

    // Nobody's session and nobody's listener: the Event is at the operator's own place.
    let events: Api<Event> = Api::namespaced(world.client.clone(), &world.operator_namespace);
    world
        .until("an Event names the orphan", async || {
            let events = events.list(&ListParams::default()).await?;
            Ok(events.items.iter().any(|event| {
                let note = event.message.as_deref().unwrap_or_default();
                event.reason.as_deref() == Some("OrphanTerminated") && note.starts_with(&orphan)
            }))
        })
        .await;

    world.delete("orders").await;
    world.wait_gone("orders").await;
    world.wait_ten_polls().await;
    assert_eq!(world.live_sessions(), untouched);
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_session_that_aws_does_not_show_yet_lives() {
    let world = World::new("late").await;
    let late = Fault::ConsistencyDelay { milliseconds: 4000 };
    world.inject(late);
    let operator = world.all_in_one(&SOON).await;
    world.create(&world.session("orders")).await;
    world.wait_available("orders").await;
    let mut connection = world.connect("orders", "db").await;
    let mirrored = |session: &ssm_session_operator::crd::SsmSession| {
        let mut sessions = session.status.iter().flat_map(|status| &status.sessions);
        sessions.any(|session| session.status.as_deref() == Some("Connected"))
    };
    world.wait("orders", "a mirrored session", mirrored).await;

    // A service that has forgotten what it showed before: it shows the session neither as Active nor as ended.
    let never = Fault::ConsistencyDelay {
        milliseconds: 3_600_000,
    };
    world.inject(never);
    // Longer than the grace: each poll of these is two calls.
    for _ in 0..8 {
        world.wait_ten_polls().await;
    }
    // The stream goes on.
    carry(&mut connection).await;
    let session = world.sessions().get("orders").await.expect("it is there");
    assert_eq!(condition(&session, "Available"), "True");
    assert_eq!(world.simulator.calls(Operation::StartSession), 1);
    assert_eq!(world.simulator.calls(Operation::TerminateSession), 0);
    let view = &world.simulator.sessions()[0];
    assert_eq!(view.status, Status::Connected);

    world.simulator.inject(Fault::Clear).expect("a fault");
    world.remove("orders").await;
    operator.stop().await.expect("it ends well");
}
