//! The main job: from `kubectl apply` to bytes, and from `kubectl delete` to nothing.

use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use ssm_session_operator::crd::{SsmSession, session_finalizer};
use ssm_session_operator::simulator::Status;

use crate::looks::port;
use crate::transfer::exchange;
use crate::world::{REMOTE_PORT, TARGET, World, carry, condition, reason};

#[tokio::test]
async fn a_session_carries_bytes_both_ways_and_leaves_nothing() {
    let world = World::new("main").await;
    let operator = world.all_in_one(&[]).await;
    world.create(&world.session("orders")).await;

    // Available says that a client can dial; Ready waits for the slice of the other family too.
    let ready = |session: &SsmSession| condition(session, "Ready") == "True";
    let session = world.wait("orders", "Ready", ready).await;
    assert_eq!(condition(&session, "Available"), "True");
    assert_eq!(reason(&session, "Ready"), "Available");
    assert_eq!(condition(&session, "Reconciling"), "");
    assert_eq!(condition(&session, "Stalled"), "");
    let finalizer = session_finalizer(&world.installation().await);
    assert!(session.finalizers().contains(&finalizer));

    let mut connection = world.dial("orders", "db").await;
    exchange(&mut connection, 4 << 20, 4 << 20)
        .await
        .expect("all bytes arrive");
    drop(connection);

    let session = world
        .wait("orders", "a mirrored session", |session| {
            let status = session.status.as_ref();
            status.is_some_and(|s| {
                s.sessions
                    .iter()
                    .any(|s| s.status.as_deref() == Some("Connected"))
            })
        })
        .await;
    let status = session.status.expect("it has a status");
    let mirrored = &status.sessions[0];
    let view = &world.simulator.sessions()[0];
    assert_eq!(mirrored.session_id, view.id);
    assert_eq!(mirrored.target.as_deref(), Some(TARGET));
    assert_eq!(
        mirrored.document_name.as_deref(),
        Some("AWS-StartPortForwardingSession")
    );
    assert_eq!(mirrored.reason, view.reason);
    assert!(
        view.reason
            .as_deref()
            .is_some_and(|r| r.starts_with("a test [ssm-operator "))
    );
    assert!(mirrored.start_date.is_some());
    assert_eq!(
        (mirrored.port.as_deref(), mirrored.replica),
        (Some("db"), Some(0))
    );
    assert_eq!(mirrored.relay.as_deref(), Some("relay-a"));
    assert_eq!(mirrored.duration, None);
    let endpoint = status.endpoint.expect("it has an endpoint");
    assert_eq!(endpoint.host, format!("orders.{}.svc", world.namespace));

    world.remove("orders").await;
    let view = &world.simulator.sessions()[0];
    assert_eq!(view.status, Status::Terminated);
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn both_families_lead_to_the_relay() {
    let (world, operator, _) = World::serving("families").await;
    world
        .until("two endpoints", async || {
            let endpoints =
                crate::dial::endpoints(&world.client, &world.namespace, "orders", "db").await?;
            Ok(endpoints.len() == 2)
        })
        .await;
    let endpoints = crate::dial::endpoints(&world.client, &world.namespace, "orders", "db")
        .await
        .expect("slices");
    for endpoint in endpoints {
        let mut connection = tokio::net::TcpStream::connect(endpoint)
            .await
            .expect("the relay listens");
        carry(&mut connection).await;
    }
    world.remove("orders").await;
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_session_that_goes_to_another_installation_leaves_nothing_of_ours() {
    let (world, operator, _) = World::serving("handover").await;
    let theirs = format!("{}-theirs", world.namespace);
    world.create_class_of(&theirs, "example.com/nobody").await;
    world.edit("orders", &json!({ "className": theirs })).await;
    let ours = session_finalizer(&world.installation().await);
    let session = world
        .wait("orders", "our finalizer goes", |session| {
            !session.finalizers().contains(&ours)
        })
        .await;
    assert_eq!(condition(&session, "Available"), "False");
    assert_eq!(condition(&session, "Ready"), "False");
    world
        .until("no listener and no slice is left", async || {
            let all = kube::api::ListParams::default();
            let listeners = world.listeners().list(&all).await?.items;
            let slices = world.slices().list(&all).await?.items;
            Ok(listeners.is_empty() && slices.is_empty())
        })
        .await;
    world
        .wait_aws("no session is live", |_| world.live_sessions().is_empty())
        .await;
    world.delete("orders").await;
    world.wait_gone("orders").await;
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_service_that_somebody_bent_leads_to_the_relay_again() {
    let (world, operator, _) = World::serving("bent").await;
    let ports = async || {
        let service = world.services().get("orders").await?;
        anyhow::Ok(service.spec.unwrap_or_default().ports)
    };
    let before = ports().await.expect("the Service");
    let bent = Patch::Merge(json!({ "spec": {
        "selector": { "app": "somebody-else" },
        "externalIPs": ["192.0.2.9"],
        "type": "NodePort",
        "ports": [
            { "name": "db", "port": 5432, "targetPort": 22 },
            { "name": "more", "port": 9999 },
            { "name": "udp", "port": 5432, "protocol": "UDP" },
        ],
    }}));
    world
        .services()
        .patch("orders", &PatchParams::default(), &bent)
        .await
        .expect("the API server takes it");
    world
        .until("the Service is straight again", async || {
            let spec = world
                .services()
                .get("orders")
                .await?
                .spec
                .unwrap_or_default();
            Ok(spec.selector.is_none()
                && spec.external_ips.is_none()
                && spec.type_.as_deref() == Some("ClusterIP")
                && spec.ports == before)
        })
        .await;
    let again = world.wait_ready("orders").await;
    assert_eq!(reason(&again, "Ready"), "Available");

    // As kubectl does, which knows the key of the list.
    let added =
        Patch::Strategic(json!({ "spec": { "ports": [{ "name": "more", "port": 9999 }] } }));
    let patched = world
        .services()
        .patch("orders", &PatchParams::default(), &added)
        .await;
    let patched = patched.expect("the API server takes it");
    assert_eq!(
        patched
            .spec
            .and_then(|spec| spec.ports)
            .map(|ports| ports.len()),
        Some(2)
    );
    world
        .until("the port that was added is gone", async || {
            Ok(ports().await? == before)
        })
        .await;
    world.wait_ready("orders").await;
    // Ports of our own come and go as before.
    for count in [3, 1] {
        let ports: Vec<_> = (0..count)
            .map(|n| port(&format!("p{n}"), 5432 + n, REMOTE_PORT))
            .collect();
        world.edit("orders", &json!({ "ports": ports })).await;
        world.wait_ready("orders").await;
        let names: Vec<_> = (0..count).map(|n| format!("p{n}")).collect();
        assert_eq!(world.service_ports("orders").await, names);
    }
    world.remove("orders").await;
    operator.stop().await.expect("it ends well");
}
