//! The tables of mode split, one for each kind that the policies are about.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use ssm_session_operator::crd::{
    DEFAULT_CONTROLLER_NAME, DRAIN_LEASE, SsmListener, SsmSession, election_lease,
};

use super::Cast;
use super::table::Verb::{Create, Merge, Replace, Report};
use super::table::{What, hold, merge};
use crate::WAIT_MAX;
use crate::installed::{Installed, SESSION};
use crate::wait::ask_until;

/// What refusals say.
pub const SLICES: &str = "only the operator may write it";
pub const STATUS: &str = "says what the operator has found, and only the operator may write it";
const LISTENERS: &str = "only the controller may write it";
const RELAYS: &str = "only relays may write it";
const OWN_LISTENERS: &str = "of its own SsmListeners only";
const OWN_LEASE: &str = "its own Lease only";
const FINALIZER: &str = "and change nothing else";
const FINALIZERS: &str = "use at most 16 finalizers";
const OWNERS: &str = "use at most 16 ownerReferences";

/// Not even the administrator writes what leads clients to their target.
pub async fn slices(installed: &Installed, cast: &Cast) {
    let user = installed.user_namespace.as_str();
    let slices: Api<EndpointSlice> = Api::namespaced(installed.client.clone(), user);
    let label = "endpointslice.kubernetes.io/managed-by";
    let ours = ListParams::default().labels(&format!("{label}=ssm-session-operator"));
    let ours = slices.list(&ours).await.expect("slices").items;
    let v4 = ours.iter().find(|slice| slice.address_type == "IPv4");
    let ours = What::new::<EndpointSlice>(user, &v4.expect("relays have one").name_any());

    let labelled = |value: Value| json!({ "metadata": { "labels": { label: value } } });
    let new = What::new::<EndpointSlice>(user, "new");
    let leads = json!({ "addressType": "IPv4", "endpoints": [{ "addresses": ["192.0.2.99"] }] });
    let mut astray = leads.clone();
    merge(&mut astray, &labelled(json!("ssm-session-operator")));
    // Without it, it would be none of a session's, which a controller may not make either.
    let of_session = json!({ "metadata": { "labels": {
        "app.kubernetes.io/managed-by": "ssm-session-operator"
    } } });
    merge(&mut astray, &of_session);
    let theirs = What::new::<EndpointSlice>(user, "theirs");
    let made = theirs.write(&cast.administrator, Create, &leads, false);
    made.await.expect("anybody's slice");

    let elsewhere = json!({ "endpoints": [{ "addresses": ["192.0.2.99"] }] });
    let orphan = json!({ "metadata": { "ownerReferences": null } });
    let on = labelled(json!("ssm-session-operator"));
    let off = labelled(Value::Null);
    let Cast {
        administrator,
        controller,
        relay_account,
        collector,
        controller_manager,
        exempt,
        ..
    } = cast;
    hold(&[
        administrator.may(Create, &new, &leads),
        administrator.may_not(Create, &new, &astray, SLICES),
        exempt.may(Create, &new, &astray),
        controller.may(Create, &new, &astray),
        relay_account.may_not(Create, &new, &astray, SLICES),
        administrator.may_not(Merge, &ours, &elsewhere, SLICES),
        relay_account.may_not(Merge, &ours, &elsewhere, SLICES),
        exempt.may(Merge, &ours, &elsewhere),
        controller.may(Merge, &ours, &elsewhere),
        administrator.may_not(Merge, &ours, &off, SLICES),
        exempt.may(Merge, &ours, &off),
        administrator.may_not(Merge, &theirs, &on, SLICES),
        exempt.may(Merge, &theirs, &on),
        administrator.may_not(Merge, &ours, &orphan, SLICES),
        collector.may(Merge, &ours, &orphan),
        controller_manager.may(Merge, &ours, &orphan),
        // As it is, to have it stored anew.
        administrator.may(Replace, &ours, &json!({})),
    ])
    .await;
    theirs.delete(administrator).await;
}

/// A controller that is taken over grants nothing, and takes nobody else's hold off a grant.
pub async fn sessions(installed: &Installed, cast: &Cast) {
    let user = installed.user_namespace.as_str();
    let ours = What::new::<SsmSession>(user, SESSION);
    let held = What::new::<SsmSession>(user, "held");
    let mut wish = installed.session("a test of policies");
    wish["metadata"] = json!({ "finalizers": ["example.com/theirs"] });
    wish["spec"]["className"] = json!("nobody");
    let made = held.write(&cast.administrator, Create, &wish, false);
    made.await.expect("anybody's session");

    let status = json!({ "status": { "nextRetryTime": "2030-01-01T00:00:00Z" } });
    let spec = json!({ "spec": { "reason": "another" } });
    let label = json!({ "metadata": { "labels": { "team": "mine" } } });
    let annotation = json!({ "metadata": { "annotations": { "example.com/mine": "1" } } });
    let owners = json!({ "metadata": { "ownerReferences": [
        { "apiVersion": "v1", "kind": "ConfigMap", "name": "mine", "uid": "mine" }
    ] } });
    let finalizers = |all: Value| json!({ "metadata": { "finalizers": all } });
    let none = finalizers(json!([]));
    let beside = finalizers(json!([
        "example.com/theirs",
        "ssm-operator.dev/session-0123456789abcdef"
    ]));
    let many = |count: usize| finalizers(vec!["example.com/theirs"; count].into());
    let (most, more, most_of_all) = (many(16), many(17), many(18));
    let owned = |count: usize| {
        let owner = |uid| json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": format!("{uid}") });
        json!({ "metadata": { "ownerReferences": (0..count).map(owner).collect::<Vec<_>>() } })
    };
    let (owned, overowned) = (owned(16), owned(17));
    let new = What::new::<SsmSession>(user, "new");
    let [as_many, too_many, too_owned] = [&most, &more, &overowned].map(|metadata| {
        let mut new = wish.clone();
        merge(&mut new, metadata);
        new
    });
    let full = What::new::<SsmSession>(user, "full");
    let made = full.write(&cast.administrator, Create, &as_many, false);
    made.await.expect("it is not too many");
    let mut one_more = most.clone();
    let all = one_more["metadata"]["finalizers"].as_array_mut();
    all.expect("a list")
        .push("ssm-operator.dev/session-0123456789abcdef".into());
    let Cast {
        administrator,
        controller,
        controller_account,
        relay_account,
        exempt,
        ..
    } = cast;
    hold(&[
        administrator.may(Create, &new, &as_many),
        administrator.may_not(Create, &new, &too_many, FINALIZERS),
        exempt.may_not(Create, &new, &too_many, FINALIZERS),
        administrator.may_not(Create, &new, &too_owned, OWNERS),
        administrator.may_not(Merge, &held, &more, FINALIZERS),
        administrator.may(Merge, &held, &owned),
        administrator.may_not(Merge, &held, &overowned, OWNERS),
        controller.may(Merge, &full, &one_more),
    ])
    .await;
    let grown = full.write(controller, Merge, &one_more, false);
    grown.await.expect("the controller's own comes beside them");
    hold(&[
        administrator.may(Merge, &full, &more),
        administrator.may(Merge, &full, &spec),
        administrator.may_not(Merge, &full, &most_of_all, FINALIZERS),
        administrator.may(Merge, &full, &none),
    ])
    .await;
    let freed = full.write(administrator, Merge, &none, false);
    freed.await.expect("it may be let go");
    full.delete(administrator).await;
    hold(&[
        administrator.may_not(Report, &ours, &status, STATUS),
        relay_account.may_not(Report, &ours, &status, STATUS),
        exempt.may(Report, &ours, &status),
        controller.may(Report, &ours, &status),
        administrator.may(Merge, &ours, &spec),
        controller.may_not(Merge, &ours, &spec, FINALIZER),
        administrator.may(Merge, &ours, &label),
        controller.may_not(Merge, &ours, &label, FINALIZER),
        controller.may_not(Merge, &ours, &annotation, FINALIZER),
        // With every right, since some clusters let nobody write owners of what they may not delete.
        controller_account.may_not(Merge, &ours, &owners, FINALIZER),
        controller.may(Merge, &ours, &none),
        controller.may(Merge, &held, &beside),
        controller.may_not(Merge, &held, &none, FINALIZER),
        administrator.may(Merge, &held, &none),
        controller.may_not(
            Merge,
            &ours,
            &finalizers(json!(["example.com/mine"])),
            FINALIZER,
        ),
    ])
    .await;
    let freed = held.write(administrator, Merge, &none, false);
    freed.await.expect("it may be let go");
    held.delete(administrator).await;
}

/// A relay speaks for what is bound to it, and nobody else does.
pub async fn listeners(installed: &Installed, cast: &Cast) {
    let home = installed.namespace();
    let listeners: Api<SsmListener> = Api::namespaced(installed.client.clone(), &home);
    let all = listeners.list(&ListParams::default()).await;
    let all = all.expect("listeners").items;
    let [bound] = &all[..] else {
        panic!("there is not one listener");
    };
    let ours = What::new::<SsmListener>(&home, &bound.name_any());
    let leaving = What::new::<SsmListener>(&home, "leaving");
    let mut wish = json!({ "spec": serde_json::to_value(&bound.spec).expect("plain data") });
    let to_nothing = json!({
        "metadata": { "finalizers": ["example.com/held"] },
        "spec": { "relay": null, "sessionRef": { "name": "nobodys", "uid": "nobodys" } },
    });
    merge(&mut wish, &to_nothing);
    let made = leaving.write(&cast.exempt, Create, &wish, false);
    made.await.expect("it is exempt");
    let is_leaving = ask_until(WAIT_MAX, async || {
        let listener = listeners.get("leaving").await.ok()?;
        listener.metadata.deletion_timestamp.map(drop)
    });
    let is_leaving = is_leaving.await;
    is_leaving.expect("the controller deletes a listener of no session");

    let new = What::new::<SsmListener>(&home, "new");
    let spec = json!({ "spec": { "target": "mi-0123456789abcdef0" } });
    let label = json!({ "metadata": { "labels": { "team": "mine" } } });
    let status = json!({ "status": { "observedGeneration": 7 } });
    let anothers = json!({ "status": { "relay": "another" } });
    let free = json!({ "metadata": { "finalizers": null } });
    let mut bent = free.clone();
    merge(&mut bent, &spec);
    let Cast {
        administrator,
        controller,
        controller_account,
        relay,
        other_relay,
        relay_account,
        exempt,
        ..
    } = cast;
    hold(&[
        administrator.may_not(Create, &new, &wish, LISTENERS),
        relay_account.may_not(Create, &new, &wish, LISTENERS),
        exempt.may(Create, &new, &wish),
        controller.may(Create, &new, &wish),
        administrator.may_not(Merge, &ours, &spec, LISTENERS),
        relay_account.may_not(Merge, &ours, &spec, LISTENERS),
        exempt.may(Merge, &ours, &spec),
        controller.may(Merge, &ours, &spec),
        administrator.may_not(Merge, &ours, &label, LISTENERS),
        administrator.may_not(Merge, &ours, &free, LISTENERS),
        administrator.may(Replace, &ours, &json!({})),
        administrator.may_not(Report, &ours, &status, RELAYS),
        controller_account.may_not(Report, &ours, &status, RELAYS),
        exempt.may(Report, &ours, &status),
        relay.may(Report, &ours, &status),
        relay.may_not(Report, &ours, &anothers, OWN_LISTENERS),
        other_relay.may_not(Report, &ours, &status, OWN_LISTENERS),
        relay_account.may_not(Report, &ours, &status, OWN_LISTENERS),
        // The way by force.
        administrator.may(Merge, &leaving, &free),
        administrator.may_not(Merge, &leaving, &bent, LISTENERS),
    ])
    .await;
    let freed = leaving.write(administrator, Merge, &free, false);
    freed.await.expect("the way by force");
}

/// A relay renews its own Lease, and neither leads nor drains.
pub async fn leases(installed: &Installed, cast: &Cast, relay: &str) {
    let home = installed.namespace();
    let lease = |name: &str| What::new::<Lease>(&home, name);
    let (own, new) = (lease(relay), lease("new"));
    let other = installed.pods.iter().find(|pod| {
        let name = pod.pod.as_str();
        name.contains("-relay-") && name != relay
    });
    let others = lease(&other.expect("there are two").pod);
    let election = lease(&election_lease(DEFAULT_CONTROLLER_NAME));
    let drain = lease(DRAIN_LEASE);
    let renewed = json!({ "spec": { "leaseDurationSeconds": 60 } });
    let labelled =
        |value: Value| json!({ "metadata": { "labels": { "ssm-operator.dev/relay": value } } });
    let Cast {
        controller,
        relay,
        relay_account,
        ..
    } = cast;
    hold(&[
        relay.may(Replace, &own, &renewed),
        relay.may_not(Replace, &own, &labelled(Value::Null), OWN_LEASE),
        relay.may_not(Replace, &others, &renewed, OWN_LEASE),
        relay_account.may_not(Replace, &own, &renewed, OWN_LEASE),
        relay.may_not(Replace, &election, &renewed, OWN_LEASE),
        relay.may_not(Replace, &election, &labelled(json!("mine")), OWN_LEASE),
        relay.may_not(Create, &drain, &renewed, OWN_LEASE),
        relay.may_not(Create, &new, &labelled(json!("mine")), OWN_LEASE),
        controller.may(Replace, &election, &renewed),
        // So does the drain, whose ServiceAccount it is.
        controller.may(Create, &drain, &renewed),
    ])
    .await;
}
