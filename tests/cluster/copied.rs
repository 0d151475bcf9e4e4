//! A manifest that was copied from another cluster brings the finalizer of another installation along, and with it takes
//! ours away.

use kube::ResourceExt as _;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use ssm_session_operator::crd::{SsmSession, session_finalizer};

use crate::transfer;
use crate::world::{WAIT_MAX, World, condition, reason};

/// An installation of another cluster.
const ELSEWHERE: &str = "fedcba9876543210";

/// Puts these finalizers onto the session, and no others.
async fn finalizers(world: &World, finalizers: &[String]) {
    let patch = Patch::Merge(json!({ "metadata": { "finalizers": finalizers } }));
    let sessions = world.sessions();
    let params = PatchParams::default();
    let patched = sessions.patch("orders", &params, &patch).await;
    patched.expect("people may change finalizers");
}

/// What is said of a session that was let go, once nothing of it is left.
fn is_let_go(session: &SsmSession) -> bool {
    let status = session.status.as_ref();
    reason(session, "Ready") == "HeldByAnother"
        && status.is_some_and(|status| status.sessions.is_empty() && status.history.len() == 1)
}

#[tokio::test]
async fn of_a_session_whose_finalizers_were_replaced_nothing_leads_anywhere_and_nothing_says_so() {
    let (world, operator, _) = World::serving("copied").await;
    let mut connection = world.connect("orders", "db").await;
    finalizers(&world, &[session_finalizer(ELSEWHERE)]).await;
    transfer::dead(&mut connection, WAIT_MAX)
        .await
        .expect("the client is told");
    let session = world.wait("orders", "let go", is_let_go).await;
    assert_eq!(condition(&session, "Ready"), "False");
    assert_eq!(condition(&session, "Available"), "False");
    assert_eq!(session.finalizers(), [session_finalizer(ELSEWHERE)]);
    world
        .until("no slice and no listener is left", async || {
            let all = ListParams::default();
            let slices = world.slices().list(&all).await?.items;
            Ok(slices.is_empty() && world.listener_of("orders").await?.is_none())
        })
        .await;
    assert!(world.live_sessions().is_empty());
    let services = world.services().list(&ListParams::default()).await;
    let services = services.expect("the API answers").items;
    assert_eq!(
        services.len(),
        1,
        "it is the session's, and whoever serves that leads it"
    );

    let before = world.sessions().get("orders").await.expect("it is there");
    world.wait_ten_polls().await;
    let after = world.sessions().get("orders").await.expect("it is there");
    let versions = [before, after].map(|session| session.resource_version());
    assert_eq!(versions[0], versions[1], "nobody writes on and on");

    finalizers(&world, &[]).await;
    world.wait_ready("orders").await;
    world.connect("orders", "db").await;
    world.remove("orders").await;
    operator.stop().await.expect("it ends well");
}
