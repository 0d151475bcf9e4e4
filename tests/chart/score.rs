//! kube-score says nothing but what tests/chart/README.md explains.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::programs::{finish, render, tools, ways};

/// The lowest grade of a check that has nothing to say.
const GRADE_OK: i64 = 10;

#[tokio::test]
async fn kube_score_has_the_two_objections_that_are_explained_and_no_other() {
    let mut said = BTreeSet::new();
    for way in ways() {
        let openshift = way.iter().any(|option| option.ends_with("everything.yaml"));
        for check in objections(&way).await {
            if check == "container-security-context-user-group-id" {
                assert!(openshift, "{way:?}: {check}");
            }
            said.insert(check);
        }
    }
    let explained = [
        "container-image-pull-policy",
        "container-security-context-user-group-id",
    ];
    assert_eq!(said, BTreeSet::from(explained.map(str::to_owned)));
}

/// The checks that have something to say about what is rendered.
async fn objections(way: &[String]) -> BTreeSet<String> {
    let manifest = render(way).await.expect("it is rendered");
    let arguments = [
        "score",
        "--kubernetes-version=v1.33",
        "--output-format=json",
        "-",
    ];
    // It fails as soon as it has something critical to say, which is read below.
    let scored = finish(&tools().await.kube_score, &arguments, &manifest).await;
    let (_, printed) = scored.expect("kube-score runs");
    let scored: Value =
        serde_json::from_str(&printed.out).unwrap_or_else(|_| panic!("{printed:?}"));
    let mut said = BTreeSet::new();
    let mut checks_made = 0;
    for object in scored.as_array().expect("a list of objects") {
        for check in object["checks"].as_array().into_iter().flatten() {
            checks_made += 1;
            let grade = check["grade"].as_i64().expect("a grade");
            if grade < GRADE_OK && check["skipped"] != true {
                let id = check["check"]["id"].as_str().expect("an id");
                said.insert(id.to_owned());
            }
        }
    }
    assert!(checks_made > 20, "kube-score made {checks_made} checks");
    said
}
