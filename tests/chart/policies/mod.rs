//! What the admission policies let through and what they refuse: to the pods' own tokens, to the administrator, and to
//! those who are exempt.

mod kinds;
mod services;
mod table;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;
use ssm_session_operator::crd::SsmSession;

use crate::WAIT_MAX;
use crate::installed::{Installed, SESSION};
use crate::wait::ask_until;
use table::Verb::{Create, Merge, Report};
use table::{What, Who, hold};

/// Those of an installation in mode split.
struct Cast {
    administrator: Who,
    controller: Who,
    controller_account: Who,
    /// The one that serves the session.
    relay: Who,
    other_relay: Who,
    relay_account: Who,
    collector: Who,
    controller_manager: Who,
    exempt: Who,
}

impl Cast {
    async fn of(installed: &Installed, relay: &str, exempt: &str) -> Self {
        let pods = || installed.pods.iter();
        let pod = |met: &dyn Fn(&str) -> bool| {
            let pod = pods().find(|pod| met(&pod.pod));
            pod.expect("it runs").kubeconfig.clone()
        };
        let account = |component: &str| {
            let (namespace, release) = (installed.namespace(), &installed.release);
            format!("system:serviceaccount:{namespace}:{release}-ssm-session-operator-{component}")
        };
        let (controls, relays) = (account("controller"), account("relay"));
        let collects = "system:serviceaccount:kube-system:generic-garbage-collector";
        let is_other = |pod: &str| pod.contains("-relay-") && pod != relay;
        Self {
            administrator: Who::of("the administrator", installed.ground.kubeconfig()).await,
            controller: Who::of("a controller", &pod(&|pod| pod.contains("-controller-"))).await,
            controller_account: Who::named("the controllers' account", installed, &controls).await,
            relay: Who::of("the relay", &pod(&|pod| pod == relay)).await,
            other_relay: Who::of("the other relay", &pod(&is_other)).await,
            relay_account: Who::named("the relays' account", installed, &relays).await,
            collector: Who::named("the garbage collector", installed, collects).await,
            controller_manager: Who::named(
                "the controller manager",
                installed,
                "system:kube-controller-manager",
            )
            .await,
            exempt: Who::named("who is exempt", installed, exempt).await,
        }
    }
}

/// Of an installation that serves a session, in mode split: `relay` is the pod that does, and `exempt` a user among
/// `admissionPolicy.exemptUsers`.
pub async fn each_may_write_what_is_its_own(installed: &Installed, relay: &str, exempt: &str) {
    let cast = Cast::of(installed, relay, exempt).await;
    kinds::slices(installed, &cast).await;
    kinds::sessions(installed, &cast).await;
    kinds::listeners(installed, &cast).await;
    kinds::leases(installed, &cast, relay).await;
    services::services(installed, &cast).await;
}

/// Of an installation in mode all-in-one that serves its user's namespace alone: it writes SsmSessions nowhere else.
pub async fn sessions_are_written_where_they_are_served(installed: &Installed) {
    let elsewhere = format!("{}-elsewhere", installed.release);
    let created = installed.ground.create_namespace(&elsewhere).await;
    created.expect("the administrator may create namespaces");
    let administrator = Who::of("the administrator", installed.ground.kubeconfig()).await;
    let [pod] = &installed.pods[..] else {
        panic!("there is not one pod");
    };
    let operator = Who::of("the operator", &pod.kubeconfig).await;
    let served = What::new::<SsmSession>(&installed.user_namespace, SESSION);
    let unserved = What::new::<SsmSession>(&elsewhere, SESSION);
    let mut wish = installed.session("a test of policies");
    wish["metadata"] = json!({});
    wish["spec"]["className"] = json!("nobody");
    let made = unserved.write(&administrator, Create, &wish, false);
    made.await.expect("anybody's session");

    let finalizer = json!({ "metadata": {
        "finalizers": ["ssm-operator.dev/session-0123456789abcdef"]
    } });
    let status = json!({ "status": { "nextRetryTime": "2030-01-01T00:00:00Z" } });
    hold(&[
        operator.may(Merge, &served, &finalizer),
        operator.may(Report, &served, &status),
        operator.may_not(
            Merge,
            &unserved,
            &finalizer,
            "only in the namespaces that it serves",
        ),
        operator.may_not(
            Report,
            &unserved,
            &status,
            "only in the namespaces that it serves",
        ),
        administrator.may(Merge, &unserved, &finalizer),
    ])
    .await;
    let delete = ["delete", "namespace", &elsewhere, "--wait=false"];
    let deleted = installed.ground.kubectl(&delete, "").await;
    deleted.expect("the administrator may delete namespaces");
}

/// Of an installation and of another that it does not know, by the accounts of their controllers: in a namespace that both
/// serve, and in which a session is, its policies let only its own serve a session.
pub async fn others_are_kept_out(namespace: &str, installed: &Installed, accounts: [&str; 2]) {
    let own = Who::named("its controllers", installed, accounts[0]).await;
    let others = Who::named("the other's controllers", installed, accounts[1]).await;
    let slice = What::new::<EndpointSlice>(namespace, "new");
    let session = What::new::<SsmSession>(namespace, SESSION);
    let leads = json!({
        "metadata": { "labels": {
            "app.kubernetes.io/managed-by": "ssm-session-operator",
            "endpointslice.kubernetes.io/managed-by": "ssm-session-operator",
        } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": ["192.0.2.99"] }],
    });
    let status = json!({ "status": { "nextRetryTime": "2030-01-01T00:00:00Z" } });
    let in_force = ask_until(WAIT_MAX, async || {
        let led = slice.write(&others, Create, &leads, true).await;
        let reported = session.write(&others, Report, &status, true).await;
        (led.is_err() && reported.is_err()).then_some(())
    });
    in_force
        .await
        .expect("the API server reads new policies soon");
    hold(&[
        own.may(Create, &slice, &leads),
        own.may(Report, &session, &status),
        others.may_not(Create, &slice, &leads, kinds::SLICES),
        others.may_not(Report, &session, &status, kinds::STATUS),
    ])
    .await;
}
