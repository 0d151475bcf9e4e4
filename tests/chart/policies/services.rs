//! The table of Services and EndpointSlices: what a controller may write of them.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::Cast;
use super::table::Verb::{Create, Delete, Merge};
use super::table::{What, hold, merge};
use crate::installed::{Installed, SESSION};

/// What refusals say.
const OF_SESSIONS: &str = "Services and EndpointSlices of SsmSessions only";

/// A controller that is taken over neither bends nor deletes what is no session's.
pub async fn services(installed: &Installed, cast: &Cast) {
    let user = installed.user_namespace.as_str();
    let slices: Api<EndpointSlice> = Api::namespaced(installed.client.clone(), user);
    let label = "endpointslice.kubernetes.io/managed-by=ssm-session-operator";
    let our_slices = slices.list(&ListParams::default().labels(label)).await;
    let mut our_slices = our_slices.expect("slices").items.into_iter();
    let our_slice = our_slices.find(|slice| slice.address_type == "IPv4");
    let our_slice = our_slice.expect("relays have one").name_any();
    let session = installed.wait_session("its UID", |_| true).await;
    let owned = json!({ "metadata": { "ownerReferences": [{
        "apiVersion": "ssm-operator.dev/v1alpha1",
        "kind": "SsmSession",
        "name": SESSION,
        "uid": session.uid(),
        "controller": true,
    }] } });

    let service = json!({ "spec": { "ports": [{ "port": 80 }] } });
    let slice = json!({ "addressType": "IPv4", "endpoints": [{ "addresses": ["192.0.2.99"] }] });
    let ours = json!({ "metadata": { "labels": {
        "app.kubernetes.io/managed-by": "ssm-session-operator"
    } } });
    let nobodys = json!({ "metadata": {
        "labels": { "app.kubernetes.io/managed-by": null }, "ownerReferences": null
    } });
    let bent = json!({ "spec": { "selector": { "app": "mine" } } });
    let elsewhere = json!({ "endpoints": [{ "addresses": ["192.0.2.98"] }] });
    let both = |one: &serde_json::Value, other: &serde_json::Value| {
        let mut both = one.clone();
        merge(&mut both, other);
        both
    };

    // Somebody's, and a session's whose label was taken off.
    let of_user = What::new::<Service>(user, "of-user");
    let bare = What::new::<Service>(user, "bare");
    let slice_of_user = What::new::<EndpointSlice>(user, "of-user");
    let there = [
        (&of_user, service.clone()),
        (&bare, both(&service, &owned)),
        (&slice_of_user, slice.clone()),
    ];
    for (what, object) in &there {
        let made = what.write(&cast.administrator, Create, object, false).await;
        made.expect("anybody's");
    }
    let new = What::new::<Service>(user, "new");
    let new_slice = What::new::<EndpointSlice>(user, "new");
    let our_service = What::new::<Service>(user, SESSION);
    let our_slice = What::new::<EndpointSlice>(user, &our_slice);
    let (ours_made, our_slice_made) = (both(&service, &ours), both(&slice, &ours));
    let bent_as_ours = both(&bent, &ours);
    let nothing = json!({});
    let Cast {
        administrator,
        controller,
        ..
    } = cast;
    hold(&[
        controller.may_not(Create, &new, &service, OF_SESSIONS),
        controller.may(Create, &new, &ours_made),
        administrator.may(Create, &new, &service),
        controller.may_not(Merge, &of_user, &bent, OF_SESSIONS),
        controller.may_not(Merge, &of_user, &bent_as_ours, OF_SESSIONS),
        controller.may_not(Merge, &of_user, &owned, OF_SESSIONS),
        administrator.may(Merge, &of_user, &bent),
        controller.may_not(Delete, &of_user, &nothing, OF_SESSIONS),
        administrator.may(Delete, &of_user, &nothing),
        controller.may(Merge, &our_service, &bent),
        controller.may_not(Merge, &our_service, &nobodys, OF_SESSIONS),
        controller.may(Delete, &our_service, &nothing),
        controller.may(Merge, &bare, &bent),
        controller.may(Merge, &bare, &ours),
        controller.may(Delete, &bare, &nothing),
        controller.may_not(Create, &new_slice, &slice, OF_SESSIONS),
        controller.may(Create, &new_slice, &our_slice_made),
        controller.may_not(Merge, &slice_of_user, &elsewhere, OF_SESSIONS),
        controller.may_not(Merge, &slice_of_user, &ours, OF_SESSIONS),
        controller.may_not(Delete, &slice_of_user, &nothing, OF_SESSIONS),
        administrator.may(Delete, &slice_of_user, &nothing),
        controller.may(Merge, &our_slice, &elsewhere),
        controller.may_not(Merge, &our_slice, &nobodys, OF_SESSIONS),
        controller.may(Delete, &our_slice, &nothing),
    ])
    .await;
    for (what, _) in there {
        what.delete(administrator).await;
    }
}
