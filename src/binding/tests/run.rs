//! The binding as a whole: Lease, watch, end.

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::api::{FakeApi, lease_path};
use super::plane::{Call, FakePlane};
use super::*;
use crate::binding::{BindingError, BindingOptions, LeaseError, Readiness, run};
use crate::relay::{EndReason, RecordError};

struct Running {
    api: FakeApi,
    plane: FakePlane,
    shutdown: CancellationToken,
    metrics: BindingMetrics,
    listed: watch::Receiver<bool>,
    task: JoinHandle<Result<(), BindingError>>,
}

async fn running(objects: &[SsmListener]) -> Running {
    let api = FakeApi::start().await;
    for object in objects {
        api.put_listener(object);
    }
    let plane = FakePlane::default();
    let shutdown = CancellationToken::new();
    let metrics = BindingMetrics::default();
    let (lease, _) = watch::channel(false);
    let (listed_tx, listed) = watch::channel(false);
    let options = BindingOptions {
        namespace: NAMESPACE.into(),
        namespace_uid: "namespace-uid".into(),
        relay_name: RELAY.into(),
        incarnation: INCARNATION.into(),
        controller_name: "example.org/controller".into(),
        advertise_addresses: writer().addresses,
        lease_duration: Duration::from_secs(1),
        lease_renew: Duration::from_millis(50),
        capacity: 7,
        record_deadline: Duration::from_secs(20),
        shutdown_deadline: Duration::from_secs(20),
    };
    let readiness = Readiness {
        lease,
        listed: listed_tx,
    };
    let task = tokio::spawn(run(
        api.client.clone(),
        plane.clone(),
        options,
        shutdown.clone(),
        readiness,
        metrics.clone(),
    ));
    Running {
        api,
        plane,
        shutdown,
        metrics,
        listed,
        task,
    }
}

fn is_ensure(call: &Call, name: &str) -> bool {
    matches!(call, Call::Ensure(id, _, _) if id.0.starts_with(&format!("{name}/")))
}

#[tokio::test]
async fn it_serves_what_is_bound_to_it_and_follows_every_change() {
    let mut elsewhere = listener("elsewhere");
    elsewhere.spec.relay = Some("relay-1".into());
    let mut running = running(&[listener("l"), elsewhere.clone()]).await;
    let call = running.plane.next_call().await;
    assert!(is_ensure(&call, "l"), "{call:?}");
    running.listed.wait_for(|listed| *listed).await.unwrap();

    elsewhere.spec.relay = Some(RELAY.into());
    running.api.put_listener(&elsewhere);
    let call = running.plane.next_call().await;
    assert!(is_ensure(&call, "elsewhere"), "{call:?}");

    let mut moved = running.api.listener("l");
    moved.spec.relay = Some("relay-1".into());
    running.api.put_listener(&moved);
    let call = running.plane.next_call().await;
    assert!(
        matches!(call, Call::Stop(_, EndReason::Replaced)),
        "{call:?}"
    );

    running.shutdown.cancel();
    running.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn it_ends_its_sessions_and_then_gives_the_lease_back() {
    let running = running(&[listener("l")]).await;
    running.plane.next_call().await;
    running.shutdown.cancel();
    running.task.await.unwrap().unwrap();
    assert_eq!(running.plane.take_calls(), [Call::Shutdown]);
    let lease = running.api.object(&lease_path(RELAY)).unwrap();
    assert!(lease["spec"]["holderIdentity"].is_null(), "{lease}");
}

#[tokio::test]
async fn losing_the_api_server_stops_nothing() {
    let running = running(&[listener("l")]).await;
    running.plane.next_call().await;
    running.api.set_away(true);
    running.api.wait_for_refused(4).await;
    running.api.set_away(false);
    running.api.put_listener(&listener("m"));
    let call = running.plane.next_call().await;
    assert!(
        is_ensure(&call, "m"),
        "nothing was stopped meanwhile: {call:?}"
    );
    assert!(running.metrics.watch_errors.get() > 0);
    running.shutdown.cancel();
    running.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_run_that_was_overtaken_stops_serving_and_writes_nothing_more() {
    let running = running(&[listener("l")]).await;
    let Call::Ensure(id, _, _) = running.plane.next_call().await else {
        panic!()
    };
    let mut lease = running.api.object(&lease_path(RELAY)).unwrap();
    lease["spec"]["holderIdentity"] = json!("run-3");
    running.api.put(&lease_path(RELAY), lease);

    let error = running.task.await.unwrap().unwrap_err();
    assert!(
        matches!(error, BindingError::Lease(LeaseError::Fenced { .. })),
        "{error}"
    );
    assert_eq!(running.plane.take_calls(), [Call::Shutdown]);
    let result = running
        .plane
        .recorder(&id)
        .record(&report(State::Ended))
        .await;
    assert_eq!(result, Err(RecordError::NotOurs));
    let lease = running.api.object(&lease_path(RELAY)).unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "run-3");
}
