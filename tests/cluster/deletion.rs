//! Deletion is revocation, whoever is away and whenever it comes: the client is reset, every AWS session that ever was
//! is terminated, listener, Service and slices go, and no finalizer is stuck.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt as _};
use ssm_session_operator::crd::{SsmSession, session_finalizer};
use ssm_session_operator::simulator::{Fault, Operation, Status};
use tokio::net::TcpStream;

use crate::listeners::live_session;
use crate::transfer::dead;
use crate::world::{WAIT_MAX, World, condition, reason};

/// Longer than any test waits: what comes about did not wait for it.
const NEVER_LET_GO: &str = "--finalizer-timeout=1h";

/// AWS terminates nothing until it is mended.
fn break_terminations(world: &World) {
    world.fail(Operation::TerminateSession, "InternalServerError");
}

/// Deletes the user's namespace, and waits until it is gone.
async fn delete_namespace(world: &World) {
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    let name = &world.namespace;
    let deleted = namespaces.delete(name, &DeleteParams::default()).await;
    deleted.expect("the namespace can be deleted");
    world.rights_go_with_the_namespace();
    world
        .until("the namespace is gone", async || {
            Ok(namespaces.get_opt(name).await?.is_none())
        })
        .await;
}

#[tokio::test]
async fn while_the_session_starts_its_clients_are_reset_and_it_is_terminated() {
    let world = World::new("starting").await;
    // The agent never answers, and nobody gives up on it or on a client in the time of this test.
    world.inject(Fault::SilentStarts { calls: u32::MAX });
    let operator = world
        .all_in_one(&["--hold=1h", "--handshake-timeout=1h", NEVER_LET_GO])
        .await;
    world.create(&world.session("orders")).await;
    let mut client = world.dial("orders", "db").await;
    let aws = world
        .wait_aws("a session that starts", |aws| !aws.sessions.is_empty())
        .await;
    assert_eq!(aws.sessions[0].status, Status::Connecting);

    world.delete("orders").await;
    dead(&mut client, WAIT_MAX)
        .await
        .expect("the client is told");
    world.wait_gone("orders").await;
    world.assert_nothing_is_left().await;
    assert_eq!(world.simulator.sessions().len(), 1, "none was started anew");
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn before_any_session_could_be_started_it_leaves_nothing_either() {
    let world = World::new("waiting").await;
    world.fail(Operation::StartSession, "AccessDeniedException");
    let operator = world.all_in_one(&[NEVER_LET_GO]).await;
    world.create(&world.session("orders")).await;
    let failed = |session: &SsmSession| reason(session, "AwsReachable") == "AccessDenied";
    world.wait("orders", "a failed start", failed).await;
    world.remove("orders").await;
    assert_eq!(world.simulator.sessions().len(), 0);
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_second_deletion_changes_nothing_about_the_first() {
    let world = World::new("twice").await;
    let operator = world.all_in_one(&[NEVER_LET_GO]).await;
    world.create(&world.session("orders")).await;
    let before = world.wait_ready("orders").await;
    let mut client = world.connect("orders", "db").await;
    break_terminations(&world);
    world.delete("orders").await;
    dead(&mut client, WAIT_MAX)
        .await
        .expect("the client is told");
    let deleting = |session: &SsmSession| reason(session, "Ready") == "Deleting";
    let first = world.wait("orders", "Deleting", deleting).await;
    assert_eq!(condition(&first, "Ready"), "False");

    world.delete("orders").await;
    world.wait_calls(Operation::TerminateSession, 2).await;
    let second = world.sessions().get("orders").await;
    let second = second.expect("it waits for AWS");
    assert_eq!(second.uid(), before.uid());
    assert_eq!(
        second.metadata.deletion_timestamp,
        first.metadata.deletion_timestamp
    );
    let finalizer = session_finalizer(&world.installation().await);
    assert_eq!(second.finalizers(), [finalizer]);
    assert_eq!(world.live_sessions().len(), 1, "nobody could end it");

    world.mend();
    world.wait_gone("orders").await;
    world.assert_nothing_is_left().await;
    assert_eq!(world.simulator.sessions().len(), 1, "none was started anew");
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn without_any_relay_the_controller_terminates_the_sessions_of_what_is_deleted() {
    let (world, controller, relay, _) = World::serving_apart("no-relay", &[]).await;
    relay.kill().await.expect("it can be killed");
    world.remove("orders").await;
    controller.stop().await.expect("it ends well");
}

#[tokio::test]
async fn without_aws_a_deletion_ends_the_traffic_at_once_and_the_sessions_when_it_is_back() {
    let (world, controller, relay, listener) = World::serving_apart("no-aws", &[]).await;
    let session = live_session(&listener);
    let one = std::slice::from_ref(&session);
    let mut connection = world.connect("orders", "db").await;
    let endpoint = connection.peer_addr().expect("it is connected");

    break_terminations(&world);
    world.delete("orders").await;
    dead(&mut connection, WAIT_MAX)
        .await
        .expect("the client is told");
    let refused = TcpStream::connect(endpoint).await;
    refused.expect_err("nobody listens any more");
    assert_eq!(world.live_sessions(), one, "nobody could end it");

    // No user's namespace hangs on AWS.
    world.wait_gone("orders").await;
    let told = async || world.events_of("orders", "TerminationPending").await.len();
    world
        .until("what still waits is told", async || Ok(told().await > 0))
        .await;
    let listener = world.listener_of("orders").await.expect("the API answers");
    let listener = listener.expect("the listener is the wish to terminate");
    assert!(listener.metadata.deletion_timestamp.is_some());
    let all = ListParams::default();
    let services = world.services().list(&all).await.expect("the API answers");
    let slices = world.slices().list(&all).await.expect("the API answers");
    assert!(services.items.is_empty() && slices.items.is_empty());
    assert_eq!(world.live_sessions(), one, "nobody could end it");

    world.mend();
    world.assert_nothing_is_left().await;
    assert_eq!(told().await, 1);
    relay.stop().await.expect("it ends well");
    controller.stop().await.expect("it ends well");
}

#[tokio::test]
async fn foreground_deletion_leaves_nothing() {
    let (world, operator, _) = World::serving("foreground").await;
    let foreground = DeleteParams::foreground();
    let deleted = world.sessions().delete("orders", &foreground).await;
    deleted.expect("the session can be deleted");
    world.wait_gone("orders").await;
    world.assert_nothing_is_left().await;
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn deleting_the_whole_namespace_leaves_nothing() {
    let (world, operator, _) = World::serving("whole").await;
    world.create(&world.session("ledger")).await;
    world.wait_ready("ledger").await;
    delete_namespace(&world).await;
    world.assert_nothing_is_left().await;
    assert_eq!(world.simulator.sessions().len(), 2, "none was started anew");
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_namespace_goes_without_aws_and_its_sessions_end_when_aws_is_back() {
    let world = World::new("hanging").await;
    let operator = world.all_in_one(&["--finalizer-timeout=1s"]).await;
    for name in ["orders", "ledger"] {
        world.create(&world.session(name)).await;
        world.wait_ready(name).await;
    }
    break_terminations(&world);
    delete_namespace(&world).await;
    assert_eq!(world.live_sessions().len(), 2, "nobody could end them");
    let listeners = world.listeners().list(&ListParams::default()).await;
    let listeners = listeners.expect("the API answers").items;
    let waiting = listeners
        .iter()
        .filter(|listener| listener.metadata.deletion_timestamp.is_some());
    assert_eq!(waiting.count(), 2, "they are the wish to terminate");

    world.mend();
    world.assert_nothing_is_left().await;
    assert_eq!(world.simulator.sessions().len(), 2, "none was started anew");
    operator.stop().await.expect("it ends well");
}
