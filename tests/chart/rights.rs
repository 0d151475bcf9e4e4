//! Least privilege: processes that are started as the installed pods say, with the pods' own tokens, carry bytes, move
//! and end sessions, are refused nothing, and are granted nothing that they do not use.

use std::time::Instant;

use k8s_openapi::api::core::v1::{Event, Service};
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use ssm_session_operator::crd::SsmSession;

use crate::WAIT_MAX;
use crate::audit::refused;
use crate::ground::{ground, ground_of_one};
use crate::installed::{Installed, SESSION};
use crate::policies;
use crate::programs::in_checkout;
use crate::requests::{Right, granted, granted_twice, used};
use crate::wait::ask_until;

/// The controllers of the release that serves all namespaces of the shared ground. Those that serve some of them let them pass.
pub const EVERYWHERE: &str =
    "system:serviceaccount:split-operator:split-ssm-session-operator-controller";

/// What a controller logs when it has won, beside its identity.
const ELECTED: &str = "elected: leading";

/// Rights that these courses are not sure to use; `tests/cluster/rights.rs` says what needs them.
const RARE: [&str; 3] = [
    "create discovery.k8s.io/endpointslices",
    "update ssm-operator.dev/ssmsessions/finalizers",
    "get ssm-operator.dev/ssmlisteners",
];

/// What the first course uses, and another need not: of a session that a cache lacks, and of a relay that has gone for good.
const IN_THE_FIRST: [&str; 2] = [
    "get ssm-operator.dev/ssmsessions",
    "delete coordination.k8s.io/leases",
];

/// What is told of a listener whose session is gone: in the operator's namespace, where `watchNamespaces` are others. The
/// table in `tests/cluster/rights.rs` says what needs it.
const OF_THE_GONE: &str = "create events.k8s.io/events";

/// Whether a condition of the session has this status.
pub fn is(session: &SsmSession, kind: &str, status: &str) -> bool {
    let conditions = session.status.iter().flat_map(|status| &status.conditions);
    let mut conditions = conditions.filter(|condition| condition.type_ == kind);
    conditions.any(|condition| condition.status == status)
}

/// The relay that serves the session.
fn relay(session: &SsmSession) -> Option<&str> {
    let status = session.status.as_ref()?;
    let live = status.sessions.first()?;
    live.relay.as_deref()
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "a figure for people")]
async fn controllers_and_relays_use_every_right_that_they_have_and_need_no_other() {
    // The other tests' installations are served by processes of their own.
    let named = "system:serviceaccount:named-operator:named-ssm-session-operator-controller";
    let going = "system:serviceaccount:going-operator:going-ssm-session-operator-all-in-one";
    let irsa = "system:serviceaccount:irsa-operator:irsa-ssm-session-operator-controller";
    let associated =
        "system:serviceaccount:associated-operator:associated-ssm-session-operator-controller";
    let restores = "somebody who restores a backup";
    let values =
        json!({ "admissionPolicy": { "exemptUsers": [named, going, irsa, associated, restores] } });
    let mut installed = Installed::prepare(ground().await, "split").await;
    let began = Instant::now();
    // The kinds were applied by kubectl before: docs/upgrade.md says so.
    let take_over = ["--take-ownership", "--force-conflicts"];
    installed.install(&values, &take_over).await;
    installed.start_pods(4).await;
    installed.apply(&installed.session("a test")).await;
    installed.carry().await;
    let first_byte = began.elapsed().as_millis();
    // For whoever asks with --nocapture: no test may depend on it, since it depends on the machine.
    println!("first byte {first_byte} ms after helm install began");
    let session = available(&installed).await;

    policies_are_well_typed(&installed).await;
    let serving = relay(&session).expect("a session that is Available is shown");
    policies::each_may_write_what_is_its_own(&installed, serving, restores).await;
    relays_reach_no_more(&installed).await;
    the_leader_leaves(&mut installed).await;
    let gone = the_relay_leaves(&mut installed).await;
    a_service_that_somebody_bent_is_put_right(&installed).await;
    trouble_that_comes_twice_is_counted(&installed).await;
    let lease = format!("lease/{gone}");
    let wait = ["wait", "--for=delete", "--timeout=90s", &lease];
    installed.kubectl(&wait).await;

    assert_used(installed, &[]).await;
}

#[tokio::test]
async fn one_process_does_with_rights_in_all_namespaces() {
    let mut installed = Installed::prepare(ground_of_one().await, "one").await;
    let values = in_checkout("tests/chart/values/all-in-one.yaml");
    let values = format!("--values={}", values.display());
    installed.install(&json!({}), &[&values]).await;
    installed.start_pods(1).await;
    installed.apply(&installed.session("a test")).await;
    available(&installed).await;
    installed.carry().await;
    a_service_that_somebody_bent_is_put_right(&installed).await;
    trouble_that_comes_twice_is_counted(&installed).await;
    assert_used(installed, &IN_THE_FIRST).await;
}

#[tokio::test]
async fn controllers_and_relays_do_with_rights_in_the_namespaces_that_values_name() {
    let ground = ground().await;
    let mut installed = Installed::prepare(ground, "named").await;
    installed.user_namespace = "shop".to_owned();
    let values = in_checkout("tests/chart/values/namespaced.yaml");
    let values = format!("--values={}", values.display());
    let besides = json!({
        "crds": { "enabled": false },
        "controllerName": "example.com/named",
        "admissionPolicy": { "exemptUsers": [EVERYWHERE] },
    });
    installed.install(&besides, &[&values]).await;
    installed.start_pods(4).await;
    installed.apply(&installed.session("a test")).await;
    available(&installed).await;
    installed.carry().await;
    the_leader_leaves(&mut installed).await;
    a_service_that_somebody_bent_is_put_right(&installed).await;
    trouble_that_comes_twice_is_counted(&installed).await;
    assert_used(installed, &[&IN_THE_FIRST[..], &[OF_THE_GONE]].concat()).await;
}

async fn available(installed: &Installed) -> SsmSession {
    installed
        .wait_session("Available", |session| is(session, "Available", "True"))
        .await
}

/// The API server looks at the expressions of the policies in its own time.
async fn policies_are_well_typed(installed: &Installed) {
    let label = format!(
        "--selector=app.kubernetes.io/instance={}",
        installed.release
    );
    let get = [
        "get",
        "validatingadmissionpolicies",
        &label,
        "--output=json",
    ];
    let checked = ask_until(WAIT_MAX, async || {
        let policies: Value = serde_json::from_str(&installed.kubectl(&get).await).ok()?;
        let policies = policies["items"].as_array()?.clone();
        let mut all = policies.iter();
        all.all(|policy| policy["status"]["typeChecking"].is_object())
            .then_some(policies)
    });
    let policies = checked.await.expect("the policies are checked");
    assert_eq!(policies.len(), 6);
    for policy in policies {
        let warnings = &policy["status"]["typeChecking"]["expressionWarnings"];
        assert!(
            warnings.is_null(),
            "{}: {warnings:#}",
            policy["metadata"]["name"]
        );
    }
}

/// A relay whose node is taken over reads no Secret and reaches no user's namespace.
async fn relays_reach_no_more(installed: &Installed) {
    let mut pods = installed.pods.iter();
    let relay = pods.find(|pod| pod.pod.contains("relay"));
    let relay = relay.expect("there are two");
    let as_relay = format!("--kubeconfig={}", relay.kubeconfig.display());
    for what in [
        ["get", "secrets"],
        ["list", "ssmsessions.ssm-operator.dev"],
        ["create", "endpointslices.discovery.k8s.io"],
        ["update", "ssmlisteners.ssm-operator.dev"],
        ["create", "pods"],
    ] {
        let home = format!("--namespace={}", installed.namespace());
        let user = format!("--namespace={}", installed.user_namespace);
        for namespace in [&home, &user] {
            let can = [&as_relay, "auth", "can-i", what[0], what[1], namespace];
            // It says no, and fails.
            let said = installed.refused(&can, &Value::Null).await;
            assert!(said.trim().ends_with("no"), "{what:?}: {said}");
        }
    }
}

/// The second Event of a kind is a patch of the first.
async fn trouble_that_comes_twice_is_counted(installed: &Installed) {
    for reason in ["the first time", "the second time"] {
        installed.aws.deny_starts(true);
        installed.apply(&installed.session(reason)).await;
        let denied = |session: &SsmSession| is(session, "AwsReachable", "False");
        installed.wait_session("that AWS refuses", denied).await;
        installed.aws.deny_starts(false);
        let mended = |session: &SsmSession| {
            is(session, "AwsReachable", "True") && is(session, "Ready", "True")
        };
        installed
            .wait_session("that AWS does not refuse", mended)
            .await;
    }
    let events: Api<Event> = Api::namespaced(installed.client.clone(), &installed.user_namespace);
    let counted = ask_until(WAIT_MAX, async || {
        let events = events.list(&ListParams::default()).await.ok()?.items;
        let mut denied = events.into_iter();
        denied.find(|event| {
            let series = event.series.as_ref().and_then(|series| series.count);
            event.reason.as_deref() == Some("AccessDenied") && series == Some(2)
        })
    });
    assert!(counted.await.is_some(), "no Event is counted twice");
    installed.carry().await;
}

/// The controller whose Lease of the election it is.
async fn leader(installed: &Installed) -> Option<String> {
    let holders = "--output=jsonpath={.items[*].spec.holderIdentity}";
    let holders = installed.kubectl(&["get", "leases", holders]).await;
    let elected = |line: &str| {
        let mut holders = holders.split_whitespace();
        line.contains(ELECTED) && holders.any(|holder| line.contains(holder))
    };
    let mut pods = installed.pods.iter();
    let leader = pods.find(|pod| pod.process.logged().lines().any(elected));
    leader.map(|pod| pod.pod.clone())
}

/// The Lease of the election changes hands.
async fn the_leader_leaves(installed: &mut Installed) {
    let leading = leader(installed).await.expect("one leads");
    let mut pods = installed.pods.iter();
    let at = pods.position(|pod| pod.pod == leading).expect("it runs");
    let leading = installed.pods.remove(at);
    leading.process.stop().await.expect("it ends well");
    let other = ask_until(WAIT_MAX, async || leader(installed).await);
    assert!(other.await.is_some(), "the other leads now");
}

/// Listeners are moved. Gives the name of the relay that has gone.
async fn the_relay_leaves(installed: &mut Installed) -> String {
    let served = |session: &SsmSession| relay(session).is_some();
    let session = installed.wait_session("a relay", served).await;
    let gone = relay(&session).expect("it was waited for").to_owned();
    let mut pods = installed.pods.iter();
    let leaving = pods.position(|pod| pod.pod == gone).expect("it runs");
    let leaving = installed.pods.remove(leaving);
    leaving.process.stop().await.expect("it ends well");
    installed
        .wait_session("the other relay", |session| {
            relay(session).is_some_and(|now| now != gone) && is(session, "Available", "True")
        })
        .await;
    installed.carry().await;
    gone
}

async fn a_service_that_somebody_bent_is_put_right(installed: &Installed) {
    let namespace = format!("--namespace={}", installed.user_namespace);
    let bend = [
        "patch",
        "service",
        SESSION,
        &namespace,
        r#"--patch={"spec":{"externalIPs":["192.0.2.9"]}}"#,
    ];
    let bent = installed.ground.kubectl(&bend, "").await;
    bent.expect("the administrator may patch Services");
    let services: Api<Service> =
        Api::namespaced(installed.client.clone(), &installed.user_namespace);
    let straight = ask_until(WAIT_MAX, async || {
        let spec = services.get(SESSION).await.ok()?.spec?;
        spec.external_ips.is_none().then_some(())
    });
    assert!(straight.await.is_some(), "the Service is still bent");
}

/// The session is deleted, the processes end, and the release is uninstalled, for which its hook is run. No process was
/// refused anything, and each right was used, in one of the served namespaces at least, but for those that are rarely used
/// and those that another course uses.
async fn assert_used(mut installed: Installed, elsewhere: &[&str]) {
    let granted = granted(&installed).await;
    installed.delete_session().await;
    for pod in installed.pods.drain(..) {
        pod.process.stop().await.expect("it ends well");
    }
    installed.uninstall().await;

    let requests = installed.requests();
    let refused = refused(&requests);
    assert!(
        refused.is_empty(),
        "the chart gives no right to {refused:#?}"
    );
    let twice = granted_twice(&granted);
    assert!(twice.is_empty(), "granted everywhere besides: {twice:#?}");
    let left = ["get", "crds,ssmsessionclasses", "--output=name"];
    let left = installed.kubectl(&left).await;
    let class = format!("ssmsessionclass.ssm-operator.dev/{}", installed.release);
    for kept in ["ssmsessions.ssm-operator.dev", &class] {
        assert!(
            left.contains(kept),
            "{kept} is gone with the release: {left}"
        );
    }
    let used = used(&granted, &requests);
    let excused = [&RARE[..], elsewhere].concat();
    let is_excused = |right: &&Right| excused.contains(&right.words.as_str());
    let home = installed.namespace();
    let is_served = |right: &Right| right.namespace.as_ref().is_some_and(|of| *of != home);
    let is_used = |right: &&Right| {
        let mut alike = used
            .iter()
            .filter(|other| other.account == right.account && other.words == right.words);
        used.contains(right) || is_served(right) && alike.any(is_served)
    };
    let idle = granted.iter().filter(|right| !is_used(right));
    let idle: Vec<_> = idle.filter(|right| !is_excused(right)).collect();
    assert!(idle.is_empty(), "granted and not used: {idle:#?}");
}
