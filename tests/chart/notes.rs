//! What helm says once the chart is installed: what to do next, with the names of this release.

use std::collections::BTreeSet;

use serde_json::json;
use ssm_session_operator::crd::SsmSession;

use crate::iam::actions;
use crate::programs::{NAMESPACE, chart, in_checkout, objects, run, tools};

/// The notes of an installation with these options.
async fn notes(options: &[String]) -> String {
    let (chart, namespace) = (chart(), format!("--namespace={NAMESPACE}"));
    let mut arguments = vec!["install", "ssm", &chart, &namespace, "--dry-run=client"];
    arguments.extend(options.iter().map(String::as_str));
    let printed = run(&tools().await.helm, &arguments, "").await;
    let printed = printed.unwrap_or_else(|error| panic!("{error:#}")).out;
    let (_, notes) = printed.split_once("\nNOTES:\n").expect("it has notes");
    for broken in ["<no value>", "<nil>", "%!", "{{"] {
        assert!(!notes.contains(broken), "{notes}");
    }
    let mut lines = notes.lines().peekable();
    while let Some(line) = lines.next() {
        assert_eq!(line.trim_end(), line, "nothing is after it: {notes}");
        let indent = |line: &str| line.len() - line.trim_start().len();
        if line.ends_with(':') {
            let next = lines.peek().copied().unwrap_or_default();
            let filled = next.is_empty()
                || indent(next) > indent(line)
                || next.trim_start().starts_with("- ");
            assert!(filled, "{line} says nothing: {notes}");
        }
        let blank = line.is_empty() && lines.peek() == Some(&"");
        assert!(!blank, "two empty lines: {notes}");
    }
    notes.to_owned()
}

/// The session that is to be applied, and the command that waits for it.
fn session(notes: &str) -> (SsmSession, String) {
    let from = notes.find("    apiVersion:").expect("a session");
    let to = notes.find("    kubectl wait").expect("how to wait for it");
    let session = objects(&notes[from..to]).remove(0);
    let session = serde_json::from_value(session);
    let wait = notes[to..].lines().next().unwrap_or_default().trim();
    (session.expect("it is one"), wait.to_owned())
}

fn with(values: &str) -> String {
    let file = in_checkout("tests/chart/values").join(values);
    format!("--values={}", file.display())
}

#[tokio::test]
async fn split_without_a_class_says_that_one_is_missing() {
    let notes = notes(&[]).await;
    for said in [
        "is installed in namespace ssm-operator.\n",
        "There is no class yet",
        "controllerName: ssm-operator.dev/controller\n",
        "ServiceAccount ssm-operator/ssm-ssm-session-operator-controller:\n",
        "ServiceAccount ssm-operator/ssm-ssm-session-operator-relay:\n",
        "ssm:StartSession",
        "ssm:DescribeSessions",
        "unless rbac.aggregateToEdit is false.\n",
        "    kubectl label namespace shop ssm-operator.dev/clients=true\n",
        "helm uninstall ends all sessions first. SsmSessions stay",
    ] {
        assert!(notes.contains(said), "{said} is missing: {notes}");
    }
    let (session, wait) = session(&notes);
    assert!(session.spec.class_name.is_some(), "it has to be named");
    let begin = "kubectl wait ssms/orders-db -n shop --for=condition=Available";
    assert!(wait.starts_with(begin), "{wait}");
}

#[tokio::test]
async fn all_in_one_with_a_default_class_asks_for_no_class_and_for_one_identity() {
    let notes = notes(&[
        with("all-in-one.yaml"),
        "--set=drain.enabled=false".to_owned(),
    ])
    .await;
    assert!(
        notes.contains("The class default starts sessions in eu-central-1"),
        "{notes}"
    );
    assert!(!notes.contains("There is no class yet"), "{notes}");
    let accounts: Vec<_> = notes.matches("ServiceAccount ").collect();
    assert_eq!(accounts.len(), 1, "{notes}");
    assert!(notes.contains("ServiceAccount ssm-operator/ssm-ssm-session-operator-all-in-one:\n"));
    let drain =
        "kubectl exec -n ssm-operator deployment/ssm-ssm-session-operator-all-in-one -- \\\n";
    assert!(notes.contains(drain), "{notes}");
    let (session, _) = session(&notes);
    assert_eq!(session.spec.class_name, None);
}

#[tokio::test]
async fn namespaces_roles_and_names_of_the_values_are_in_the_notes() {
    let namespaced = notes(&[with("namespaced.yaml")]).await;
    assert!(
        namespaced.contains("it serves SsmSessions in shop, bank.\n"),
        "{namespaced}"
    );
    assert!(
        namespaced.contains("those of these namespaces alone reach"),
        "{namespaced}"
    );
    let (session, _) = session(&namespaced);
    assert_eq!(json!(session.metadata.namespace), "shop");

    let everything = notes(&[
        with("everything.yaml"),
        "--set=crds.enabled=false".to_owned(),
    ])
    .await;
    for said in [
        "are not part of this release",
        "arn:aws:iam::444455556666:role/platform/sessions\n",
        "sts:AssumeRole on the class's role, and with EKS Pod Identity sts:TagSession\n",
        "className: standard\n",
        "ServiceAccount ssm-operator/controls:\n",
        "ServiceAccount ssm-operator/relays:\n",
    ] {
        assert!(everything.contains(said), "{said} is missing: {everything}");
    }
    for unsaid in ["kubectl label", "reach the ports", "aggregateToEdit"] {
        assert!(!everything.contains(unsaid), "{everything}");
    }
}

/// The actions that the notes ask for one account.
fn asked_for<'a>(notes: &'a str, account: &str) -> BTreeSet<&'a str> {
    let heading = format!("ServiceAccount ssm-operator/ssm-ssm-session-operator-{account}:\n");
    let (_, below) = notes.split_once(&heading).expect("the account");
    let lines = below.lines().take_while(|line| line.starts_with("      "));
    lines
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|action| !action.is_empty())
        .collect()
}

/// Which of these rights are used `tests/cluster/actions.rs` says.
#[tokio::test]
async fn the_notes_ask_for_what_the_policies_of_the_page_allow() {
    let relay = actions("The relay's policy");
    let controller = actions("The controller's policy");
    let words = |actions: &BTreeSet<String>| actions.iter().cloned().collect::<Vec<_>>();
    let split = notes(&[]).await;
    for (account, actions) in [("relay", &relay), ("controller", &controller)] {
        let asked: Vec<_> = asked_for(&split, account).into_iter().collect();
        assert_eq!(asked, words(actions), "{account}");
    }
    let one = notes(&[with("all-in-one.yaml")]).await;
    let asked: Vec<_> = asked_for(&one, "all-in-one").into_iter().collect();
    assert_eq!(asked, words(&(&relay | &controller)));
}
