//! The chart as the release workflow publishes it: of the image that it has built, by digest, with the pages of its version,
//! and by the helm that these tests judge it with. And the workflows, as actionlint reads them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::programs::{finish, in_checkout, objects, run, tools};

/// A digest that was never seen before.
const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Repository of the image, unless values name another.
const REPOSITORY: &str = "ghcr.io/ssm-operator/ssm-session-operator";

/// A copy of the chart, which goes with the test.
struct Copy(PathBuf);

impl Copy {
    async fn make(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("chart-{name}-{}", std::process::id()));
        let chart = in_checkout("charts/ssm-session-operator");
        let (from, to) = (chart.display().to_string(), folder.display().to_string());
        let copied = run(Path::new("cp"), &["-R", &from, &to], "").await;
        copied.expect("the temporary folder takes a chart");
        Self(folder)
    }

    fn path(&self) -> String {
        self.0.display().to_string()
    }

    /// The image of all its pods, with this option, and when it is pulled.
    async fn image(&self, option: &str) -> (String, String) {
        let template = ["template", "ssm", &self.path(), option];
        let rendered = run(&tools().await.helm, &template, "").await;
        let rendered = rendered.unwrap_or_else(|error| panic!("{error:#}")).out;
        let objects = objects(&rendered);
        let containers = objects
            .iter()
            .filter_map(|object| object.pointer("/spec/template/spec/containers/0"));
        let text = |part: &Value| part.as_str().expect("it is text").to_owned();
        let images = containers.map(|it| (text(&it["image"]), text(&it["imagePullPolicy"])));
        let mut images: Vec<_> = images.collect();
        assert_eq!(images.len(), 3, "controller, relay and drain");
        images.dedup();
        assert_eq!(images.len(), 1, "{images:?}");
        images.remove(0)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn a_released_chart_takes_its_own_image_by_digest_unless_values_say_otherwise() {
    let script = in_checkout(".ci/chart-image");
    let version = env!("CARGO_PKG_VERSION");
    let copy = Copy::make("released").await;
    assert_eq!(
        copy.image("--set=mode=split").await,
        (format!("{REPOSITORY}:{version}"), "Always".to_owned()),
        "it is not released yet"
    );
    let of_another = [&copy.path(), "ghcr.io/somebody/else", version, DIGEST];
    let (status, said) = finish(&script, &of_another, "").await.expect("it runs");
    assert!(
        !status.success(),
        "the digest is not of the image that the chart runs"
    );
    assert!(said.err.contains("image.repository"), "{said:?}");
    let no_digest = [&copy.path(), REPOSITORY, version, ""];
    let (status, said) = finish(&script, &no_digest, "").await.expect("it runs");
    assert!(!status.success(), "{said:?}");

    let written = run(&script, &[&copy.path(), REPOSITORY, version, DIGEST], "").await;
    written.unwrap_or_else(|error| panic!("{error:#}"));
    let lint = ["lint", "--strict", &copy.path()];
    let linted = run(&tools().await.helm, &lint, "").await;
    linted.unwrap_or_else(|error| panic!("{error:#}"));
    let values = "sha256:fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
    for (option, image, pulled) in [
        (
            "--set=mode=split",
            format!("{REPOSITORY}@{DIGEST}"),
            "IfNotPresent",
        ),
        ("--set=image.tag=v2", format!("{REPOSITORY}:v2"), "Always"),
        (
            "--set=image.repository=registry.example.com/mirror",
            format!("registry.example.com/mirror@{DIGEST}"),
            "IfNotPresent",
        ),
        (
            &format!("--set=image.tag=v2,image.digest={values}"),
            format!("{REPOSITORY}@{values}"),
            "IfNotPresent",
        ),
        (
            "--set=image.tag=v2,image.pullPolicy=Never",
            format!("{REPOSITORY}:v2"),
            "Never",
        ),
        (
            "--set=image.pullPolicy=Always",
            format!("{REPOSITORY}@{DIGEST}"),
            "Always",
        ),
    ] {
        let expected = (image, pulled.to_owned());
        assert_eq!(copy.image(option).await, expected, "{option}");
    }
    let alerts = [
        "template",
        "ssm",
        &copy.path(),
        "--set=prometheusRule.enabled=true",
    ];
    let alerts = run(&tools().await.helm, &alerts, "").await;
    let alerts = alerts.unwrap_or_else(|error| panic!("{error:#}")).out;
    let page = format!("/blob/v{version}/docs/troubleshooting.md#");
    let runbooks = alerts.matches("runbook_url: ").count();
    assert!(runbooks >= 10, "{runbooks}");
    assert_eq!(alerts.matches(&page).count(), runbooks, "{alerts}");
    let chart = fs::read_to_string(copy.0.join("Chart.yaml")).expect("it is there");
    let chart = objects(&chart).remove(0);
    let images = chart["annotations"]["artifacthub.io/images"].as_str();
    let images = objects(images.expect("Artifact Hub shows them")).remove(0);
    assert_eq!(
        images[0]["image"],
        format!("{REPOSITORY}:{version}@{DIGEST}")
    );
}

#[tokio::test]
async fn actionlint_has_nothing_to_say_of_the_workflows() {
    let actionlint = &tools().await.actionlint;
    // It would ask these of the machine, where they may be of any version.
    let alone = ["-no-color", "-shellcheck=", "-pyflakes="];
    let files = fs::read_dir(in_checkout(".github/workflows")).expect("it is in the checkout");
    let files = files.map(|file| file.expect("it can be listed").path());
    let files: Vec<_> = files.map(|file| file.display().to_string()).collect();
    assert_eq!(files.len(), 2, "one for tests, and one for releases");
    for file in &files {
        let read = run(actionlint, &[&alone[..], &[file]].concat(), "").await;
        read.unwrap_or_else(|error| panic!("{error:#}"));

        let workflow = fs::read_to_string(file).expect("it is in the checkout");
        let broken = workflow.replacen("runs-on:", "runs-of:", 1);
        let read = finish(actionlint, &[&alone[..], &["-"]].concat(), &broken).await;
        let (status, said) = read.expect("it runs");
        assert!(
            !status.success() && said.out.contains("runs-of"),
            "{file}: {said:?}"
        );
    }
}

#[test]
fn the_release_is_packaged_by_the_helm_that_these_tests_judge_it_with() {
    let text = |file| fs::read_to_string(in_checkout(file)).expect("it is in the checkout");
    let modules = text("tests/control-plane/helm/go.mod");
    let mut modules = modules.lines().map(str::trim);
    let tested = modules.find_map(|line| line.strip_prefix("helm.sh/helm/v4 "));
    let tested = tested.and_then(|rest| rest.split(' ').next());
    let tested = tested.expect("go.mod requires helm");
    let release = text(".github/workflows/release.yaml");
    let install = format!("go install helm.sh/helm/v4/cmd/helm@{tested} ");
    assert!(
        release.contains(&install),
        "tests/control-plane/helm/go.mod has helm {tested}: .github/workflows/release.yaml must install the same"
    );
}

#[test]
fn the_image_of_the_values_is_the_one_that_the_release_publishes() {
    let text = |file| fs::read_to_string(in_checkout(file)).expect("it is in the checkout");
    let chart = objects(&text("charts/ssm-session-operator/Chart.yaml")).remove(0);
    let home = chart["home"].as_str().expect("it has a home");
    let owner = home
        .strip_prefix("https://github.com/")
        .and_then(|path| path.split('/').next());
    let owner = owner.expect("its home is on GitHub");
    let release = text(".github/workflows/release.yaml");
    let mut lines = release.lines().map(str::trim);
    let image = lines.find_map(|line| line.strip_prefix("IMAGE: "));
    let image = image.expect("it names the image");
    let image = image.replace("${{ github.repository_owner }}", owner);
    let values = objects(&text("charts/ssm-session-operator/values.yaml")).remove(0);
    assert_eq!(values["image"]["repository"], image);
    assert_eq!(values["image"]["repository"], REPOSITORY);
}
