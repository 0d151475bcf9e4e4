//! What the pages show is good: of YAML the API server takes objects as they stand, and the chart values, and the API
//! server what is rendered with them; JSON can be read, commands a shell can, and those of kubectl and helm are run as far as
//! that changes nothing. The values in an example for Argo CD are good, too, and what the chart says of its kinds.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;
use ssm_session_operator::crd::{DRAIN_LEASE, INSTALLATION_LEASE};

use crate::WAIT_MAX;
use crate::ground::ground;
use crate::programs::{NAMESPACE, chart, in_checkout, objects, run, tools};
use crate::values::yaml;
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

/// Files that the pages' commands name: where each is shown, and what only it says.
const FILES: [(&str, &str, &str); 4] = [
    ("orders-db.yaml", "README.md", "kind: SsmSession\n"),
    ("ssm-operator.yaml", "docs/install.md", "image:\n"),
    (
        "ssm-operator-a.yaml",
        "docs/install.md",
        "controllerName: example.com/a\n",
    ),
    (
        "ssm-operator-b.yaml",
        "docs/install.md",
        "controllerName: example.com/b\n",
    ),
];

/// How the programs below begin. Who is asked for help before the first option does nothing, and reads all the same what it
/// is asked: it fails if there is no such command or option.
const READ: &str = r#"#!/bin/sh
read_by() {
    program=$1 asked=; shift
    for word; do
        case $asked$word in -*) asked=yes; set -- "$@" --help ;; esac
        set -- "$@" "$word"; shift
    done
    "$program" "$@" --help 2>&1 >/dev/null
}
"#;

/// kubectl as the pages' commands find it: what changes something is only tried, and what needs a pod is only read. The
/// objects of the pages need not be there, nor need their names be free, nor be nobody else's.
const KUBECTL: &str = r#"
said=$(read_by "$KUBECTL" "$@") || { echo "kubectl $*: $said" >&2; exit 1; }
case $1 in
apply) set -- "$@" --dry-run=server; case $* in *--server-side*) set -- "$@" --force-conflicts ;; esac ;;
create | label | annotate | patch | delete) set -- "$@" --dry-run=server ;;
get | describe | events | wait) ;;
*) exit 0 ;;
esac
exec 3>&1
said=$("$KUBECTL" "$@" 2>&1 >&3) && exit
said=$(printf '%s' "$said" | sed -e '/(NotFound)/d' -e '/(AlreadyExists)/d')
[ -z "$said" ] || { echo "kubectl $*: $said" >&2; exit 1; }
"#;

/// helm as they find it: a release is only rendered.
const HELM: &str = r#"
said=$(read_by "$HELM" "$@") || { echo "helm $*: $said" >&2; exit 1; }
case "$*" in
template*charts/*) exec "$HELM" "$@" ;;
install*charts/* | upgrade*charts/*) shift; exec "$HELM" template "$@" >/dev/null ;;
esac
"#;

/// Programs that reach beyond this machine, or that read what a pod has logged.
const ABSENT: [&str; 4] = ["aws", "cosign", "docker", "grep"];

/// A plugin of helm's.
const PLUGIN: &str = "helm diff";

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

/// All pages, but for those that are written from the code.
fn pages() -> BTreeSet<String> {
    let docs = fs::read_dir(in_checkout("docs")).expect("it is in the checkout");
    let docs = docs.map(|page| page.expect("it can be listed").path());
    let docs = docs.filter(|page| page.extension().is_some_and(|of| of == "md"));
    let docs = docs.map(|page| {
        let page = page.strip_prefix(in_checkout("")).expect("it is in there");
        page.display().to_string()
    });
    let mut pages: BTreeSet<_> = docs.collect();
    pages.extend(PAGES.map(str::to_owned));
    pages.extend(["CONTRIBUTING.md", "SECURITY.md"].map(str::to_owned));
    pages
}

#[tokio::test]
async fn a_shell_can_read_every_command_of_the_pages() {
    let blocks: Vec<_> = pages().iter().flat_map(|page| blocks(page, "sh")).collect();
    assert!(blocks.len() >= 30, "{} were found", blocks.len());
    for block in blocks {
        // What the reader has to put in is in angle brackets.
        let read = run(Path::new("bash"), &["-n"], &block).await;
        let read = read.unwrap_or_else(|error| panic!("{block}\n{error:#}"));
        assert_eq!(read.err, "", "{block}");
    }
}

/// Commands of kubectl and helm in the middle of a text: those that say nothing about what is only named there.
fn inline(page: &str) -> Vec<String> {
    let (text, mut fenced) = (text(page), false);
    let prose = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        !fenced && !is_fence
    });
    let prose: Vec<_> = prose.collect();
    let prose = prose.join(" ");
    let spans = prose.split('`').skip(1).step_by(2);
    let commands = spans.filter(|span| span.starts_with("kubectl ") || span.starts_with("helm "));
    let whole = commands.filter(|command| !command.contains('…') && *command != PLUGIN);
    let asked = whole.map(|command| {
        let is_whole = command.contains(" -") || command.contains('=');
        format!("{command}{}\n", if is_whole { "" } else { " --help" })
    });
    asked.collect()
}

/// A folder in which the pages' commands can be run, with the programs that they find first.
struct Stage(PathBuf);

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn stage() -> Stage {
    let stage = Stage(std::env::temp_dir().join(format!("documented-{}", std::process::id())));
    let folder = &stage.0;
    // Of a process that had the same id, and was killed.
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).expect("the temporary folder takes a folder");
    for of_ours in ["charts", "examples"] {
        symlink(in_checkout(of_ours), folder.join(of_ours)).expect("the folder takes a link");
    }
    for (file, page, says) in FILES {
        let mut shown = blocks(page, "yaml").into_iter();
        let shown = shown.find(|block| block.contains(says));
        let shown = shown.unwrap_or_else(|| panic!("{page} does not show {file}"));
        fs::write(folder.join(file), shown).expect("the folder takes a file");
    }
    let absent = ABSENT.map(|program| (program, ""));
    for (program, script) in [("kubectl", KUBECTL), ("helm", HELM)]
        .into_iter()
        .chain(absent)
    {
        let program = folder.join(program);
        fs::write(&program, format!("{READ}{script}")).expect("the folder takes a file");
        let runs = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&program, runs).expect("it is ours");
    }
    stage
}

/// Names of ours in a command: what has our domain in it, and objects of the chart's.
fn names(command: &str) -> Vec<&str> {
    let words = command.split(|letter: char| letter.is_whitespace() || letter == '\'');
    let named = words.filter_map(|word| {
        let of_the_chart = ["deployment/", "job/", "--clusterrole=", "crd/"];
        let of_the_chart = of_the_chart.iter().find_map(|kind| word.strip_prefix(kind));
        let name = of_the_chart.or_else(|| word.contains("ssm-operator.dev").then_some(word))?;
        // A label or an annotation that is set, or taken away.
        Some(name.split('=').next()?.trim_end_matches('-'))
    });
    named.collect()
}

#[tokio::test]
async fn kubectl_and_helm_take_every_command_of_the_pages() {
    let (ground, helm, stage) = (ground().await, &tools().await.helm, stage());
    let release = ["template", "ssm-session-operator", &chart()];
    let more = [
        "--namespace=ssm-operator",
        "--set=defaultClass.region=eu-central-1",
    ];
    let rendered = run(helm, &[&release[..], &more].concat(), "").await;
    let mut known = rendered.expect("it is rendered").out;
    known.push_str(INSTALLATION_LEASE);
    known.push_str(DRAIN_LEASE);
    let (mut ran, mut read) = (0, 0);
    for page in pages() {
        let mut blocks = blocks(&page, "sh");
        blocks.retain(|block| {
            let mut lines = block.lines();
            lines.any(|line| line.starts_with("kubectl ") || line.starts_with("helm "))
        });
        let inline = inline(&page);
        ran += blocks.len();
        read += inline.len();
        for commands in blocks.iter().chain(&inline) {
            let script = format!(
                "export KUBECTL=$(command -v kubectl) HELM={}\ncd {folder}; PATH={folder}:$PATH\n{commands}",
                helm.display(),
                folder = stage.0.display(),
            );
            let taken = ground.shell(&script).await;
            let taken = taken.unwrap_or_else(|error| panic!("{page}: {error:#}"));
            assert_eq!(taken.err, "", "{page}: {commands}");
            for name in names(commands) {
                assert!(known.contains(name), "{page}: nothing is called {name}");
            }
        }
    }
    assert!(ran >= 25 && read >= 20, "{ran} and {read} were found");
}

#[tokio::test]
async fn what_the_chart_says_of_its_kinds_is_so() {
    let chart = yaml("Chart.yaml");
    let said = |what: &str| {
        let said = &chart["annotations"][format!("artifacthub.io/{what}")];
        let said = objects(said.as_str().expect("it says so")).remove(0);
        said.as_array().expect("a list").clone()
    };
    let examples = said("crdsExamples");
    let all: String = examples
        .iter()
        .map(|example| format!("---\n{example}\n"))
        .collect();
    ground().await.assert_taken("Chart.yaml", &all).await;

    let mut kinds = BTreeSet::new();
    for file in fs::read_dir(in_checkout("crds")).expect("it is in the checkout") {
        let file = file.expect("it can be listed").path();
        for kind in objects(&fs::read_to_string(file).expect("it is text")) {
            let (spec, name) = (&kind["spec"], &kind["metadata"]["name"]);
            let version = &spec["versions"][0]["name"];
            kinds.insert([&spec["names"]["kind"], version, name].map(Value::to_string));
        }
    }
    let said: Vec<_> = said("crds");
    let said = said
        .iter()
        .map(|kind| ["kind", "version", "name"].map(|key| kind[key].to_string()));
    assert_eq!(said.collect::<BTreeSet<_>>(), kinds);
}
