//! kube-score says nothing but what tests/chart/README.md explains.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::programs::{finish, render, tools, ways};

/// The lowest grade of a check that has nothing to say.
const GRADE_OK: i64 = 10;

/// As a released chart takes its image.
const BY_DIGEST: &str =
    "--set=image.digest=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[tokio::test]
async fn kube_score_has_the_two_objections_that_are_explained_and_no_other() {
    let mut said = BTreeSet::new();
    for way in ways().into_iter().chain([vec![BY_DIGEST.to_owned()]]) {
        let openshift = way.iter().any(|option| option.ends_with("everything.yaml"));
        let by_digest = way.iter().any(|option| option == BY_DIGEST);
        for check in objections(&way).await {
            let explained = match check.as_str() {
                "container-image-pull-policy" => by_digest,
                "container-security-context-user-group-id" => openshift,
                _ => false,
            };
            assert!(explained, "{way:?}: {check}");
            said.insert(check);
        }
    }
    assert_eq!(said.len(), 2, "what is explained is still said: {said:?}");
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
