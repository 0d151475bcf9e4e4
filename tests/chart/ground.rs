//! Control planes with our kinds applied by kubectl, and with stand-ins for the kinds of the Prometheus operator: one for
//! all tests of this program but five, which have their own, since kinds belong to one release. In one of these our
//! kinds are those of the past, and in three they are not there.
//!
//! Each is started by the first test that asks. Nobody drops it: when the process ends, its supervisor sees the end of
//! its stdin, stops the components and removes their folder.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use kube::Client;
use tokio::sync::OnceCell;

use crate::control_plane::ControlPlane;
use crate::past;
use crate::programs::{NAMESPACE, Printed, in_checkout, objects, run};

/// Namespaces that the ways to render the chart name.
const NAMED: [&str; 3] = [NAMESPACE, "shop", "bank"];

static GROUND: OnceCell<Result<Ground>> = OnceCell::const_new();
static GROUND_OF_THE_PAST: OnceCell<Result<Ground>> = OnceCell::const_new();
static EMPTY_GROUND: OnceCell<Result<Ground>> = OnceCell::const_new();
static GROUND_OF_ONE: OnceCell<Result<Ground>> = OnceCell::const_new();
static GROUND_OF_TWO: OnceCell<Result<Ground>> = OnceCell::const_new();
static GROUND_OF_EVERYTHING: OnceCell<Result<Ground>> = OnceCell::const_new();

/// Our kinds.
const OURS: &str = "crds";

/// Those of the Prometheus operator.
const THEIRS: &str = "tests/chart/crds";

/// A running control plane.
pub struct Ground {
    control_plane: ControlPlane,
}

/// The ground of this process; its first caller waits until it is laid.
pub async fn ground() -> &'static Ground {
    laid(&GROUND, Ground::lay).await
}

/// For the test that upgrades the kinds, and uninstalls what they belong to.
pub async fn ground_of_the_past() -> &'static Ground {
    laid(&GROUND_OF_THE_PAST, Ground::lay_past).await
}

/// For the test of one process that serves all namespaces, as no other may beside it. Nobody has applied any kind.
pub async fn ground_of_one() -> &'static Ground {
    laid(&GROUND_OF_ONE, Ground::bare).await
}

/// For the test of two releases that are in each other's way.
pub async fn ground_of_two() -> &'static Ground {
    laid(&GROUND_OF_TWO, Ground::lay).await
}

/// For the test of a first release: nobody has applied any kind.
pub async fn empty_ground() -> &'static Ground {
    laid(&EMPTY_GROUND, Ground::bare).await
}

/// For the test that brings its own kinds, and takes them with it: those of others are there.
pub async fn ground_of_everything() -> &'static Ground {
    laid(&GROUND_OF_EVERYTHING, Ground::of_others).await
}

async fn laid<L: Future<Output = Result<Ground>>>(
    ground: &'static OnceCell<Result<Ground>>,
    lay: impl FnOnce() -> L,
) -> &'static Ground {
    match ground.get_or_init(lay).await {
        Ok(ground) => ground,
        Err(error) => panic!("there is no ground to test on: {error:#}"),
    }
}

impl Ground {
    async fn bare() -> Result<Self> {
        let control_plane = ControlPlane::start().await?;
        Ok(Self { control_plane })
    }

    async fn of_others() -> Result<Self> {
        let ground = Self::bare().await?;
        ground.define(THEIRS).await?;
        Ok(ground)
    }

    async fn lay_past() -> Result<Self> {
        let ground = Self::of_others().await?;
        ground.define(past::KINDS).await?;
        Ok(ground)
    }

    async fn lay() -> Result<Self> {
        let ground = Self::of_others().await?;
        ground.define(OURS).await?;
        for name in NAMED {
            ground.create_namespace(name).await?;
        }
        Ok(ground)
    }

    /// Applies the kinds in a folder of the checkout.
    async fn define(&self, kinds: &str) -> Result<()> {
        let file = format!("--filename={}", in_checkout(kinds).display());
        self.kubectl(&["apply", "--server-side", &file], "").await?;
        let wait = ["wait", "--for=condition=Established", "--timeout=60s"];
        self.kubectl(&[&wait[..], &[&file]].concat(), "").await?;
        Ok(())
    }

    /// A namespace that takes only pods that keep to the Pod Security Standard `restricted`.
    pub async fn create_namespace(&self, name: &str) -> Result<()> {
        self.kubectl(&["create", "namespace", name], "").await?;
        let label = [
            "label",
            "namespace",
            name,
            "pod-security.kubernetes.io/enforce=restricted",
            "pod-security.kubernetes.io/warn=restricted",
        ];
        self.kubectl(&label, "").await?;
        Ok(())
    }

    /// Fails unless the API server would take each of these objects and knows all of its fields, and warns of none: of
    /// pods that Pod Security would refuse, and of fields that are about to go.
    pub async fn assert_taken(&self, of: &str, manifest: &str) {
        let dry_run = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "--validate=strict",
            "--filename=-",
        ];
        let applied = self.kubectl(&dry_run, manifest).await;
        let applied = applied.unwrap_or_else(|error| panic!("{of}: {error:#}"));
        assert_eq!(applied.err, "", "{of}: the API server warns");
        let taken = applied.out.lines().count();
        assert_eq!(taken, objects(manifest).len(), "{of}: {}", applied.out);
    }

    /// A client of the caller's own, with the administrator's rights.
    pub async fn client(&self) -> Client {
        let client = self.control_plane.client().await;
        client.expect("the control plane's kubeconfig is good for a client")
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        self.control_plane.kubeconfig()
    }

    /// What service accounts ask the API server for.
    pub fn audit_log(&self) -> PathBuf {
        self.control_plane.audit_log()
    }

    /// What a shell prints whose kubectl is this control plane's.
    ///
    /// # Errors
    ///
    /// What it prints on standard error, when it fails.
    pub async fn shell(&self, script: &str) -> Result<Printed> {
        let kubeconfig = format!("KUBECONFIG={}", self.kubeconfig().display());
        let kubectl = self.control_plane.kubectl().parent();
        let kubectl = kubectl.context("kubectl is in a folder")?.display();
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("PATH={kubectl}:{path}");
        let shell = ["bash", "-euo", "pipefail", "-c", script];
        let arguments = [&[kubeconfig.as_str(), path.as_str()], &shell[..]].concat();
        run(Path::new("env"), &arguments, "").await
    }

    /// What kubectl prints for these arguments and this input.
    ///
    /// # Errors
    ///
    /// What it prints on standard error, when it fails.
    pub async fn kubectl(&self, arguments: &[&str], input: &str) -> Result<Printed> {
        let kubeconfig = format!("--kubeconfig={}", self.kubeconfig().display());
        let arguments = [&[kubeconfig.as_str()], arguments].concat();
        run(self.control_plane.kubectl(), &arguments, input).await
    }
}
