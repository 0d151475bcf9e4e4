//! The examples: described, good to apply as they stand, and served where they hold sessions.

mod health;
mod job;
mod sessions;
mod teams;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use crate::ground::{Ground, ground};
use crate::wait::ask_until;
use crate::world::WAIT_MAX;

/// Held by who uses the namespaces and classes that the examples name: all tests of this program share them.
static NAMES: Mutex<()> = Mutex::const_new(());

/// Kinds of others that examples are made of.
const FOREIGN_KINDS: [&str; 3] = [
    "applications.argoproj.io",
    "gitrepositories.source.toolkit.fluxcd.io",
    "kustomizations.kustomize.toolkit.fluxcd.io",
];

/// One file of `examples/`.
struct Example {
    name: String,
    text: String,
    documents: Vec<Value>,
}

impl Example {
    fn path(&self) -> String {
        folder().join(&self.name).display().to_string()
    }

    /// The object of a kind, of which the file has one.
    fn object(&self, kind: &str) -> &Value {
        let mut objects = self.of_kind(kind);
        let object = objects.next();
        object.unwrap_or_else(|| panic!("{} holds no {kind}", self.name))
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        let documents = self.documents.iter();
        documents.filter(move |document| document["kind"] == kind)
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// All of them, by name.
fn examples() -> Vec<Example> {
    let entries = fs::read_dir(folder()).expect("examples/ is in the checkout");
    let paths = entries.map(|entry| entry.expect("examples/ can be listed").path());
    let yaml = paths.filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    let names: BTreeSet<_> = yaml
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect();
    let examples: Vec<_> = names.iter().map(|name| example(name)).collect();
    assert!(!examples.is_empty(), "no example was found");
    examples
}

fn example(name: &str) -> Example {
    let text = fs::read_to_string(folder().join(name)).expect("an example is a file");
    let documents = serde_saphyr::from_multiple(&text);
    let documents = documents.unwrap_or_else(|error| panic!("{name} is no YAML: {error}"));
    Example {
        name: name.to_owned(),
        text,
        documents,
    }
}

/// Takes hold of the examples' names, once there are their namespaces. Whoever applies a pod there that the Pod Security
/// Standard `restricted` would refuse is warned.
async fn hold_names(client: &Client) -> MutexGuard<'static, ()> {
    let held = NAMES.lock().await;
    let examples = examples();
    let documents = examples.iter().flat_map(|example| &example.documents);
    let names = documents.filter_map(|document| document["metadata"]["namespace"].as_str());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for name in names.collect::<BTreeSet<_>>() {
        let labels = json!({ "pod-security.kubernetes.io/warn": "restricted" });
        let namespace = json!({ "metadata": { "name": name, "labels": labels } });
        let namespace = serde_json::from_value(namespace).expect("a namespace");
        match namespaces.create(&PostParams::default(), &namespace).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            Err(error) => panic!("namespace {name} can't be made: {error}"),
        }
    }
    held
}

async fn install_foreign_kinds(ground: &Ground) -> Result<()> {
    let kinds = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/cluster/examples/kinds.yaml"
    );
    ground.kubectl(&["apply", "-f", kinds]).await?;
    let served = ask_until(WAIT_MAX, async || {
        let list = ["api-resources", "--output=name"];
        let served = ground.kubectl(&list).await.ok()?;
        let is_served = |kind: &&str| served.lines().any(|line| line == *kind);
        FOREIGN_KINDS.iter().all(is_served).then_some(())
    });
    served.await.context("the kinds of others are not served")
}

#[test]
fn every_example_says_what_to_change_and_what_to_apply_first() {
    for Example { name, text, .. } in examples() {
        let head: Vec<_> = text.lines().take_while(|l| l.starts_with('#')).collect();
        for part in ["# Change: ", "# Apply first: "] {
            let said = head.iter().any(|line| line.starts_with(part));
            assert!(said, "the comment at the head of {name} has no {part:?}");
        }
    }
}

#[test]
fn the_readme_lists_every_example_and_no_other() {
    let readme = fs::read_to_string(folder().join("README.md")).expect("examples/README.md");
    let rows = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| [")?.split_once(']'));
    let listed: BTreeSet<_> = rows.map(|(name, _)| name.to_owned()).collect();
    let there: BTreeSet<_> = examples().into_iter().map(|example| example.name).collect();
    assert_eq!(listed, there);
}

#[tokio::test]
async fn the_api_server_takes_every_example_without_a_warning() -> Result<()> {
    let ground = ground().await;
    let _held = hold_names(&ground.client().await).await;
    install_foreign_kinds(ground).await?;
    for example in examples() {
        let apply = [
            "apply",
            "--dry-run=server",
            "--validate=strict",
            "--warnings-as-errors",
            "-f",
            &example.path(),
        ];
        ground.kubectl(&apply).await?;
    }
    Ok(())
}
