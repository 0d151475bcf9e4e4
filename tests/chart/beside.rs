//! Two releases in one cluster, in a control plane of their own: where one would keep the other from working, helm refuses
//! it with words that say what to set, and with that set both carry bytes.

use serde_json::{Value, json};

use crate::audit::refused;
use crate::ground::ground_of_two;
use crate::installed::Installed;
use crate::policies;
use crate::programs::chart;
use crate::rights::is;

/// What nothing is done with.
const DRY_RUN: &str = "--dry-run=server";

/// The controllers of both, in mode split.
const FIRSTS: &str = "system:serviceaccount:first-operator:first-ssm-session-operator-controller";
const SECONDS: &str =
    "system:serviceaccount:second-operator:second-ssm-session-operator-controller";

impl Installed {
    /// What helm says when a release of this name would be installed here.
    async fn would(&self, command: &str, release: &str, values: &Value) -> Result<String, String> {
        let file = self.values(values);
        let tried = [command, release, &chart(), &file, DRY_RUN];
        let tried = self.try_helm(&tried).await.map(|printed| printed.out);
        tried.map_err(|error| format!("{error:#}"))
    }

    /// The release can't be installed, for these reasons and for as many.
    async fn is_refused(&self, release: &str, values: &Value, reasons: &[&str]) {
        let said = self.would("install", release, values).await;
        let said = said.expect_err("it would be in the way");
        assert_reasons(&said, reasons);
    }

    /// The release can be installed.
    async fn is_accepted(&self, release: &str, values: &Value) {
        let said = self.would("install", release, values).await;
        said.unwrap_or_else(|said| panic!("{values}: {said}"));
    }
}

/// A reason says what to do, in one of three ways.
fn assert_reasons(said: &str, reasons: &[&str]) {
    for reason in reasons {
        assert!(said.contains(reason), "{reason} is missing: {said}");
    }
    let all = [
        "uninstall that one first",
        "uninstall the other first",
        "kubectl delete",
    ];
    let all: usize = all.iter().map(|what| said.matches(what).count()).sum();
    assert_eq!(all, reasons.len(), "{said}");
}

/// The second's values, which leave the kinds to the first.
fn beside(values: &Value) -> Value {
    let mut all = json!({
        "crds": { "enabled": false },
        "controllerName": "example.com/second",
    });
    let values = values.as_object().expect("values are a map").clone();
    all.as_object_mut().expect("it is one").extend(values);
    all
}

#[tokio::test]
async fn a_release_that_would_break_another_is_refused_and_both_serve_with_what_helm_says() {
    let ground = ground_of_two().await;
    let mut first = Installed::prepare(ground, "first").await;
    let mut second = Installed::prepare(ground, "second").await;

    // The first serves all namespaces, and lets nobody else write there.
    let take_over = ["--take-ownership", "--force-conflicts"];
    first.install(&json!({}), &take_over).await;
    second.apply(&second.session("a test")).await;
    a_tenant_pretends_to_be_a_release(&first).await;
    policies::others_are_kept_out(&second.user_namespace, &first, [FIRSTS, SECONDS]).await;
    what_does_not_know_of_the_first_is_refused(&first, &second).await;
    a_release_within_its_namespace_is_for_those_who_may_do_no_more(&second).await;
    what_a_release_leaves_behind_is_named(&first, &second).await;

    // Each in namespaces of its own.
    let of_first = json!({ "watchNamespaces": ["first-user"] });
    first.install(&of_first, &[]).await;
    let both = beside(&json!({ "watchNamespaces": ["first-user", "second-user"] }));
    let (ours, theirs) = (
        format!(
            "would refuse the controllers of the release first in namespace first-operator in first-user: add \"{FIRSTS}\" to admissionPolicy.exemptUsers here"
        ),
        format!(
            "refuse the controllers of this release in first-user: add \"{SECONDS}\" to admissionPolicy.exemptUsers there"
        ),
    );
    for values in [&both, &beside(&json!({}))] {
        second.is_refused("second", values, &[&ours, &theirs]).await;
    }
    let of_second = beside(&json!({
        "mode": "all-in-one",
        "watchNamespaces": ["second-user"],
    }));
    second.install(&of_second, &[]).await;
    first.start_pods(4).await;
    second.start_pods(1).await;
    for installed in [&first, &second] {
        installed.apply(&installed.session("a test")).await;
        let available = |session: &_| is(session, "Available", "True");
        installed.wait_session("Available", available).await;
        installed.carry().await;
    }
    upgrades_are_refused_for_what_they_do_to_others(&first, &second, of_second).await;

    for installed in [&mut first, &mut second] {
        installed.delete_session().await;
        for pod in installed.pods.drain(..) {
            pod.process.stop().await.expect("it ends well");
        }
        let (requests, release) = (installed.requests(), &installed.release);
        let refused = refused(&requests);
        assert!(
            !requests.is_empty() && refused.is_empty(),
            "{release}: {refused:#?}"
        );
    }
}

/// Whoever may edit a namespace keeps nobody from upgrading, and gets no account of his own named to be exempted.
async fn a_tenant_pretends_to_be_a_release(first: &Installed) {
    let labels = json!({
        "app.kubernetes.io/part-of": "ssm-session-operator",
        "app.kubernetes.io/instance": "tenant",
        "app.kubernetes.io/component": "controller",
    });
    let pod = json!({
        "serviceAccountName": "tenant",
        "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [{ "name": "any", "image": "any" }],
    });
    first
        .apply(&json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": { "name": "tenant", "namespace": first.user_namespace, "labels": labels },
            "spec": {
                "replicas": 0,
                "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": pod },
            },
        }))
        .await;
    let said = first.would("upgrade", "first", &json!({})).await;
    let said = said.expect("there is no such release");
    assert!(!said.contains("exemptUsers"), "{said}");
}

/// Beside a first that serves all namespaces.
async fn what_does_not_know_of_the_first_is_refused(first: &Installed, second: &Installed) {
    let there = "the release first in namespace first-operator is there already, and one namespace is one installation";
    let none = json!({ "admissionPolicy": { "enabled": false } });
    for values in [&json!({}), &none] {
        first.is_refused("other", &beside(values), &[there]).await;
    }

    let set = |user: &str, whose: &str| {
        format!("add \"{user}\" to admissionPolicy.exemptUsers {whose}, or")
    };
    let would = "the admission policies of this release would refuse the controllers of the release first in namespace first-operator";
    let ours = |at: &str| format!("{would} in {at}: {}", set(FIRSTS, "here"));
    let theirs = |at: &str, user: &str| {
        format!(
            "the admission policies of the release first in namespace first-operator refuse the controllers of this release in {at}: {}",
            set(user, "there")
        )
    };
    let all = "all namespaces";
    let two = json!({ "watchNamespaces": ["shop", "bank"] });
    let one = json!({ "mode": "all-in-one" });
    let exempts = json!({ "admissionPolicy": { "exemptUsers": [FIRSTS] } });
    let one_account = SECONDS.replace("-controller", "-all-in-one");
    for (values, reasons) in [
        (&json!({}), vec![ours(all), theirs(all, SECONDS)]),
        (
            &two,
            vec![ours("shop, bank"), theirs("shop, bank", SECONDS)],
        ),
        (&one, vec![ours(all), theirs(all, &one_account)]),
        (&exempts, vec![theirs(all, SECONDS)]),
        (&none, vec![theirs(all, SECONDS)]),
    ] {
        let reasons: Vec<_> = reasons.iter().map(String::as_str).collect();
        second.is_refused("second", &beside(values), &reasons).await;
    }
}

/// Whoever may do nothing outside of a namespace looks for nobody there.
async fn a_release_within_its_namespace_is_for_those_who_may_do_no_more(second: &Installed) {
    let team = [
        "create",
        "rolebinding",
        "team",
        "--clusterrole=admin",
        "--user=team",
    ];
    second.kubectl(&team).await;
    let within = second.values(&beside(&json!({
        "rbac": { "create": false },
        "admissionPolicy": { "enabled": false },
        "defaultClass": { "region": "" },
    })));
    let install = [
        "install",
        "second",
        &chart(),
        &within,
        DRY_RUN,
        "--kube-as-user=team",
    ];
    second.helm(&install).await;
}

/// The first's uninstallation breaks off, and is done again.
async fn what_a_release_leaves_behind_is_named(first: &Installed, second: &Installed) {
    first.kubectl(&["delete", "deployments", "--all"]).await;
    let left = |what: &str| {
        format!(
            "the release first in namespace first-operator, which runs no more, has left a policy behind that refuses the controllers of this release: kubectl delete validatingadmissionpolicybinding first-operator.first-ssm-session-operator-{what}"
        )
    };
    let [slices, sessions, listeners] = ["slices", "sessions", "listeners"].map(left);
    // The class that it made is there, too.
    let values = beside(&json!({ "defaultClass": { "region": "" } }));
    second
        .is_refused("second", &values, &[&slices, &sessions])
        .await;
    first
        .is_refused("other", &values, &[&slices, &sessions, &listeners])
        .await;
    // The release itself may come back.
    let same = first.would("upgrade", "first", &json!({})).await;
    same.expect("it is its own");
    for left in [slices, sessions, listeners] {
        let (_, delete) = left.split_once("kubectl ").expect("a command");
        let delete: Vec<_> = delete.split(' ').collect();
        first.kubectl(&delete).await;
    }
    second.is_accepted("second", &values).await;
    first.is_accepted("other", &values).await;
    first.helm(&["uninstall", "first", "--no-hooks"]).await;
}

/// Beside a second with namespaces of its own.
async fn upgrades_are_refused_for_what_they_do_to_others(
    first: &Installed,
    second: &Installed,
    mut of_second: Value,
) {
    let seconds = SECONDS.replace("-controller", "-all-in-one");
    let same = json!({ "watchNamespaces": ["first-user"] });
    let said = first.would("upgrade", "first", &same).await;
    let said = said.expect("nothing is in its way");
    assert!(
        !said.contains("admission policies of the release"),
        "{said}"
    );
    let said = first.would("upgrade", "first", &json!({})).await;
    let said = said.expect_err("it would break the second");
    let ours = format!(
        "would refuse the controllers of the release second in namespace second-operator in second-user: add \"{seconds}\" to admissionPolicy.exemptUsers here"
    );
    assert!(said.contains(&ours), "{said}");
    let knows = json!({ "admissionPolicy": { "exemptUsers": [seconds] } });
    let said = first.would("upgrade", "first", &knows).await;
    let said = said.expect("it does nothing to the second");
    let theirs = format!(
        "the admission policies of the release second in namespace second-operator refuse the controllers of this release in second-user: add \"{FIRSTS}\" to admissionPolicy.exemptUsers there"
    );
    assert!(said.contains(&theirs), "{said}");

    of_second["admissionPolicy"] = json!({ "exemptUsers": [FIRSTS] });
    let file = second.values(&of_second);
    second.helm(&["upgrade", "second", &chart(), &file]).await;
    let said = first.would("upgrade", "first", &knows).await;
    let said = said.expect("each lets the other's pass");
    assert!(
        !said.contains("admission policies of the release"),
        "{said}"
    );
}
