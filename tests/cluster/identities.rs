//! With what AWS is called: the identities that the controller wrote, whatever a relay writes beside a session.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use ssm_session_operator::crd::listener::EndReason;
use ssm_session_operator::crd::{SsmListener, SsmSessionClass};
use tokio::net::TcpListener;

use crate::listeners::{live_session, serves};
use crate::world::{MORTAL, World};

/// An endpoint of an attacker's: it counts who calls.
struct Trap {
    endpoint: String,
    callers: Arc<AtomicUsize>,
}

impl Trap {
    async fn set() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await;
        let socket = socket.expect("loopback takes a listener");
        let address = socket.local_addr().expect("it is bound");
        let callers = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&callers);
        tokio::spawn(async move {
            while socket.accept().await.is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self {
            endpoint: format!("http://{address}"),
            callers,
        }
    }

    fn callers(&self) -> usize {
        self.callers.load(Ordering::Relaxed)
    }
}

/// Writes into the record of a listener's sessions what a relay writes that was taken over: they are of its endpoint.
async fn take_over(world: &World, trap: &Trap) {
    let listener = world.listener_of("orders").await.expect("an answer");
    let listener = listener.expect("a listener");
    let mut status = listener.status.clone().expect("a status");
    for session in &mut status.sessions {
        session.identity.endpoints =
            serde_json::from_value(json!({ "ssm": trap.endpoint })).expect("endpoints");
    }
    let patch = Patch::Merge(json!({ "status": { "sessions": status.sessions } }));
    let name = listener.name_any();
    let written = world
        .listeners()
        .patch_status(&name, &PatchParams::default(), &patch)
        .await;
    written.expect("the API server takes it");
}

#[tokio::test]
async fn what_a_relay_recorded_leads_no_call_of_another_relay_or_the_controller_to_its_endpoint() {
    let (world, controller, victim, before) = World::serving_apart("taken-over", MORTAL).await;
    let old = live_session(&before);
    let trap = Trap::set().await;
    victim.kill().await.expect("it can be killed");
    take_over(&world, &trap).await;
    world.wait_ten_polls().await;

    let other = world.relay("relay-b", MORTAL).await;
    world
        .wait_listener("orders", "served by the other relay", |listener| {
            serves(listener).is_some_and(|status| status.relay == "relay-b")
        })
        .await;
    world.wait_terminated(&old).await;
    world.wait_ended("orders", &old, EndReason::RelayLost).await;

    let last = live_session(&world.wait_serving("orders").await);
    other.kill().await.expect("it can be killed");
    take_over(&world, &trap).await;
    world.remove("orders").await;
    world.wait_terminated(&last).await;
    assert_eq!(trap.callers(), 0);
    let told = "a relay recorded a session with an AWS identity that its listener never had";
    assert!(world.logs().contains(told));
    controller.stop().await.expect("it ends well");
}

#[tokio::test]
async fn when_a_class_gets_another_identity_its_sessions_are_ended_with_the_one_that_they_had() {
    let (world, operator, _) = World::serving("former").await;
    let before = world.wait_serving("orders").await;
    let old = live_session(&before);
    let classes: Api<SsmSessionClass> = Api::all(world.client.clone());
    let role = json!({ "spec": { "aws": { "roleArn": "arn:aws:iam::111122223333:role/orders" } } });
    let edited = classes
        .patch(&world.class, &PatchParams::default(), &Patch::Merge(&role))
        .await;
    edited.expect("the class can be edited");

    let serves_anew = |listener: &SsmListener| {
        serves(listener).is_some_and(|status| {
            let mut sessions = status.sessions.iter();
            let new = sessions.any(|s| s.identity.role_arn.is_some() && s.ended_at.is_none());
            let mut sessions = status.sessions.iter();
            new && sessions.any(|s| s.session_id == old && s.ended_at.is_some())
        })
    };
    let what = "served with the role, and the session without it ended";
    let after = world.wait_listener("orders", what, serves_anew).await;
    let former = [before.spec.identity];
    assert_eq!(after.spec.former_identities, former);
    world.wait_terminated(&old).await;
    world.wait_ended("orders", &old, EndReason::Replaced).await;
    world.connect("orders", "db").await;
    world.remove("orders").await;
    operator.stop().await.expect("it ends well");
}
