//! The Lease says who runs under a relay's name; the newest run does.

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::json;

use super::api::{FakeApi, lease_path};
use super::*;
use crate::binding::lease::{Claim, LeaseError, RelayLease, Step, decide};
use crate::crd::{RELAY_CAPACITY_ANNOTATION, RELAY_LEASE_LABEL, relay_label_value};

fn claim() -> Claim {
    Claim {
        relay: RELAY.into(),
        incarnation: INCARNATION.into(),
        label: relay_label_value("example.org/controller"),
        duration: Duration::from_millis(11_500),
        capacity: 7,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn created(claim: &Claim) -> Lease {
    match decide(None, false, claim, at(0)) {
        Step::Create(lease) => *lease,
        other => panic!("{other:?}"),
    }
}

fn held_by(holder: Option<&str>) -> Lease {
    let mut lease = created(&claim());
    lease.spec.as_mut().unwrap().holder_identity = holder.map(str::to_owned);
    lease
}

fn lease_of(api: &FakeApi, renew_every: Duration) -> RelayLease {
    let leases = Api::namespaced(api.client.clone(), NAMESPACE);
    RelayLease::new(leases, claim(), renew_every, BindingMetrics::default())
}

fn stored(api: &FakeApi) -> Lease {
    serde_json::from_value(api.object(&lease_path(RELAY)).unwrap()).unwrap()
}

#[test]
fn a_lease_says_who_holds_it_for_how_long_and_how_many_listeners_it_takes() {
    let lease = created(&claim());
    let spec = lease.spec.unwrap();
    assert_eq!(lease.metadata.name.as_deref(), Some(RELAY));
    assert_eq!(
        lease.metadata.labels.unwrap()[RELAY_LEASE_LABEL],
        claim().label
    );
    assert_eq!(
        lease.metadata.annotations.unwrap()[RELAY_CAPACITY_ANNOTATION],
        "7"
    );
    assert_eq!(spec.holder_identity.as_deref(), Some(INCARNATION));
    assert_eq!(
        spec.lease_duration_seconds,
        Some(12),
        "a broken second is the holder's"
    );
    assert_eq!(spec.lease_transitions, Some(0));
}

#[test]
fn a_label_value_is_the_beginning_of_a_digest() {
    // From `printf %s ssm-operator.dev/controller | sha256sum`.
    assert_eq!(
        relay_label_value("ssm-operator.dev/controller"),
        "59e1e25c303e3056"
    );
}

#[test]
fn a_renewal_moves_only_the_time_of_renewal() {
    let lease = held_by(Some(INCARNATION));
    let Step::Replace(renewed) = decide(Some(&lease), true, &claim(), at(4)) else {
        panic!()
    };
    let (before, after) = (lease.spec.unwrap(), renewed.spec.unwrap());
    assert_eq!(after.acquire_time, before.acquire_time);
    assert_eq!(after.lease_transitions, before.lease_transitions);
    assert_eq!(after.renew_time.unwrap().0, at(4));
}

#[test]
fn a_new_run_takes_over_at_once_and_the_old_one_stops() {
    let lease = held_by(Some("run-1"));
    let Step::Replace(taken) = decide(Some(&lease), false, &claim(), at(4)) else {
        panic!()
    };
    let spec = taken.spec.unwrap();
    assert_eq!(spec.holder_identity.as_deref(), Some(INCARNATION));
    assert_eq!(spec.acquire_time.unwrap().0, at(4));
    assert_eq!(spec.lease_transitions, Some(1));

    let lease = held_by(Some("run-3"));
    let step = decide(Some(&lease), true, &claim(), at(4));
    assert_eq!(
        step,
        Step::Fenced {
            holder: "run-3".into()
        }
    );
}

#[test]
fn a_lease_that_somebody_deleted_or_emptied_is_taken_again() {
    assert!(matches!(
        decide(None, true, &claim(), at(4)),
        Step::Create(_)
    ));
    for holder in [None, Some("")] {
        let step = decide(Some(&held_by(holder)), true, &claim(), at(4));
        assert!(matches!(step, Step::Replace(_)), "{step:?}");
    }
}

#[test]
fn a_lease_of_something_else_is_left_alone() {
    let mut lease = held_by(Some("a leader"));
    lease.metadata.labels = None;
    assert_eq!(decide(Some(&lease), false, &claim(), at(4)), Step::Foreign);
}

#[tokio::test]
async fn a_lease_is_created_kept_and_given_back() {
    let api = FakeApi::start().await;
    let mut lease = lease_of(&api, Duration::from_millis(20));
    let stop = CancellationToken::new();
    assert!(lease.acquire(&stop).await.unwrap());
    let first = stored(&api).spec.unwrap().renew_time;

    let renewed = async {
        let path = lease_path(RELAY);
        let first = json!(first);
        api.wait_for(&path, |lease| lease["spec"]["renewTime"] != first)
            .await;
        stop.cancel();
    };
    let (kept, ()) = tokio::join!(lease.keep(&stop), renewed);
    kept.unwrap();
    lease.release().await;
    assert_eq!(stored(&api).spec.unwrap().holder_identity, None);
}

#[tokio::test]
async fn a_lease_is_given_back_though_a_renewal_that_was_broken_off_got_through() {
    let api = FakeApi::start().await;
    let mut lease = lease_of(&api, Duration::from_secs(20));
    lease.acquire(&CancellationToken::new()).await.unwrap();
    let mut renewed = api.object(&lease_path(RELAY)).unwrap();
    renewed["spec"]["renewTime"] = json!("2027-01-15T08:00:00.000000Z");
    api.put(&lease_path(RELAY), renewed);

    lease.release().await;
    assert_eq!(stored(&api).spec.unwrap().holder_identity, None);
}

#[tokio::test]
async fn a_lease_outlives_an_api_server_that_is_away() {
    let api = FakeApi::start().await;
    let mut lease = lease_of(&api, Duration::from_millis(20));
    let stop = CancellationToken::new();
    lease.acquire(&stop).await.unwrap();
    api.set_away(true);

    let back = async {
        let path = lease_path(RELAY);
        api.wait_for_refused(2).await;
        let before = api.object(&path).unwrap();
        api.set_away(false);
        api.wait_for(&path, |lease| *lease != before).await;
        stop.cancel();
    };
    let (kept, ()) = tokio::join!(lease.keep(&stop), back);
    kept.unwrap();
}

#[tokio::test]
async fn a_run_that_finds_another_holder_is_fenced_and_leaves_the_lease_alone() {
    let api = FakeApi::start().await;
    let mut lease = lease_of(&api, Duration::from_millis(20));
    let stop = CancellationToken::new();
    lease.acquire(&stop).await.unwrap();
    let mut other = api.object(&lease_path(RELAY)).unwrap();
    other["spec"]["holderIdentity"] = json!("run-3");
    let other = api.put(&lease_path(RELAY), other);

    let error = lease.keep(&stop).await.unwrap_err();
    assert!(
        matches!(&error, LeaseError::Fenced { holder, .. } if holder == "run-3"),
        "{error}"
    );
    lease.release().await;
    assert_eq!(api.object(&lease_path(RELAY)), Some(other));
}
