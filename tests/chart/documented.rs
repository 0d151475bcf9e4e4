//! What the pages show is good: of YAML the API server takes objects as they stand, and the chart values, and the API
//! server what is rendered with them; JSON can be read. The values in an example for Argo CD are good, too.

use std::fs;

use serde_json::Value;

use crate::ground::ground;
use crate::programs::{NAMESPACE, chart, in_checkout, objects, run, tools};

const PAGES: [&str; 6] = [
    "README.md",
    "charts/ssm-session-operator/README.md",
    "docs/iam.md",
    "docs/install.md",
    "docs/network-policies.md",
    "docs/proxy.md",
];

/// A part of any pod, and so neither an object nor values.
const PART_OF_A_POD: &str = "hostAliases:";

/// What stands in the fences of a language on a page.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let text = fs::read_to_string(in_checkout(page)).expect("a page of the checkout");
    let opening = format!("\n```{language}\n");
    let parts = text.split(&opening).skip(1);
    let block = |part: &str| {
        let (block, _) = part.split_once("\n```\n").expect("a fence has an end");
        format!("{block}\n")
    };
    parts.map(block).collect()
}

#[tokio::test]
async fn every_object_and_every_value_of_the_pages_is_accepted() {
    let ground = ground().await;
    let (mut manifests, mut values) = (0, 0);
    for page in PAGES {
        let mut all = String::new();
        for block in blocks(page, "yaml") {
            if block.starts_with(PART_OF_A_POD) {
                continue;
            }
            all.push_str("---\n");
            if block.starts_with("apiVersion:") {
                all.push_str(&block);
                manifests += 1;
            } else {
                all.push_str(&rendered(page, &block).await);
                values += 1;
            }
        }
        ground.assert_taken(page, &all).await;
    }
    assert!(
        manifests >= 5 && values >= 10,
        "{manifests} and {values} were found"
    );
}

/// Argo CD hands them to Helm, and nobody reads them before.
#[tokio::test]
async fn the_values_of_the_application_for_argo_cd_are_accepted() {
    let page = "examples/argocd-operator.yaml";
    let text = fs::read_to_string(in_checkout(page)).expect("an example of the checkout");
    let application = objects(&text).remove(0);
    let values = &application["spec"]["source"]["helm"]["valuesObject"];
    assert!(values.is_object(), "{values}");
    let rendered = rendered(page, &values.to_string()).await;
    let hooks = rendered.matches("helm.sh/hook").count();
    assert_eq!(hooks, 0, "Argo CD would run it when it syncs");
    ground().await.assert_taken(page, &rendered).await;
}

/// What helm renders with these values, and nothing else.
async fn rendered(page: &str, values: &str) -> String {
    let (chart, namespace) = (chart(), format!("--namespace={NAMESPACE}"));
    let arguments = ["template", "ssm", &chart, &namespace, "--values=-"];
    let rendered = run(&tools().await.helm, &arguments, values).await;
    let rendered = rendered.unwrap_or_else(|error| panic!("{page}: {values}\n{error:#}"));
    rendered.out
}

#[test]
fn every_policy_of_the_pages_is_json() {
    let blocks: Vec<_> = PAGES.iter().flat_map(|page| blocks(page, "json")).collect();
    assert!(blocks.len() >= 5, "{} were found", blocks.len());
    for block in blocks {
        // A part of an object is one when it is put into braces.
        let read = [block.clone(), format!("{{{block}}}")];
        let is_json = read
            .iter()
            .any(|text| serde_json::from_str::<Value>(text).is_ok());
        assert!(is_json, "{block}");
    }
}
