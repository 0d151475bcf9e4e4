//! What the pages show is good: of YAML the API server takes objects as they stand, and the chart values, and the API
//! server what is rendered with them; JSON can be read, and commands a shell can. The values in an example for Argo CD are
//! good, too.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::WAIT_MAX;
use crate::ground::ground;
use crate::programs::{NAMESPACE, chart, in_checkout, objects, run, tools};
use crate::wait::ask_until;

const PAGES: [&str; 7] = [
    "README.md",
    "charts/ssm-session-operator/README.md",
    "docs/iam.md",
    "docs/install.md",
    "docs/network-policies.md",
    "docs/proxy.md",
    "docs/security.md",
];

/// A part of any pod, and so neither an object nor values.
const PART_OF_A_POD: &str = "hostAliases:";

/// What stands in the fences of a language on a page.
fn blocks(page: &str, language: &str) -> Vec<String> {
    fenced(&text(page), language)
}

fn text(page: &str) -> String {
    fs::read_to_string(in_checkout(page)).expect("a page of the checkout")
}

/// What stands in the fences of a language in a text, also in those that are a part of a list.
fn fenced(text: &str, language: &str) -> Vec<String> {
    let (mut blocks, mut lines) = (Vec::new(), text.lines());
    while let Some(opening) = lines.find(|line| line.trim_start() == format!("```{language}")) {
        let indent = opening.len() - opening.trim_start().len();
        let inside = lines.by_ref().take_while(|line| line.trim() != "```");
        let inside = inside.map(|line| line.get(indent..).unwrap_or_default());
        blocks.push(inside.map(|line| format!("{line}\n")).collect());
    }
    blocks
}

/// The commands in a chapter of a page, as they stand there.
pub fn commands(page: &str, chapter: &str) -> Vec<String> {
    let text = text(page);
    let (_, rest) = text
        .split_once(&format!("\n## {chapter}\n"))
        .expect("the page has this chapter");
    fenced(rest.split("\n## ").next().unwrap_or_default(), "sh")
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

/// The API server takes a quota on a kind that there is not, which bounds nothing.
#[tokio::test]
async fn the_quota_of_the_pages_bounds_the_sessions_of_its_namespace() {
    let ground = ground().await;
    let namespace = "counted";
    let created = ground.create_namespace(namespace).await;
    created.unwrap_or_else(|error| panic!("{error:#}"));
    let mut quotas = blocks("docs/security.md", "yaml");
    quotas.retain(|block| block.contains("kind: ResourceQuota"));
    let mut quota = objects(&quotas.concat()).remove(0);
    quota["metadata"]["namespace"] = namespace.into();
    let hard = quota["spec"]["hard"].as_object_mut();
    for most in hard.expect("it counts something").values_mut() {
        *most = "0".into();
    }
    let create = ["create", "--filename=-"];
    let created = ground.kubectl(&create, &quota.to_string()).await;
    created.unwrap_or_else(|error| panic!("{error:#}"));

    let mut session = objects(&text("examples/quickstart.yaml"));
    session.retain(|object| object["kind"] == "SsmSession");
    session[0]["metadata"]["namespace"] = namespace.into();
    let session = session[0].to_string();
    let create = ["create", "--dry-run=server", "--filename=-"];
    let mut last = String::new();
    let refused = ask_until(WAIT_MAX, async || {
        let created = ground.kubectl(&create, &session).await;
        last = created.map_or_else(|error| error.to_string(), |printed| printed.out);
        // With these words whether the controller of quotas has counted what is there, or is yet to do so.
        last.contains("quota: ssm-sessions").then_some(())
    });
    assert!(refused.await.is_some(), "{last}");
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

#[tokio::test]
async fn a_shell_can_read_every_command_of_the_pages() {
    let pages = fs::read_dir(in_checkout("docs")).expect("it is in the checkout");
    let pages = pages.map(|page| page.expect("it can be listed").path());
    let pages = pages.filter(|page| page.extension().is_some_and(|of| of == "md"));
    let mut pages: Vec<_> = pages.map(|page| page.display().to_string()).collect();
    pages.extend(PAGES.map(str::to_owned));
    let blocks: Vec<_> = pages.iter().flat_map(|page| blocks(page, "sh")).collect();
    assert!(blocks.len() >= 30, "{} were found", blocks.len());
    for block in blocks {
        // What the reader has to put in is in angle brackets.
        let read = run(Path::new("bash"), &["-n"], &block).await;
        let read = read.unwrap_or_else(|error| panic!("{block}\n{error:#}"));
        assert_eq!(read.err, "", "{block}");
    }
}
