//! The ground that all tests of this program stand on: one control plane with our kinds installed.
//!
//! It is started by the first test that asks. Nobody drops it: when the process ends, its supervisor sees the end of
//! its stdin, stops the components and removes their folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, ResourceExt};
use kube_runtime::wait::{await_condition, conditions};
use ssm_session_operator::crd;
use tokio::sync::OnceCell;

use crate::control_plane::ControlPlane;

/// Long against the second or two that it takes, so that only a broken definition runs into it.
const ESTABLISHED_WITHIN: Duration = Duration::from_mins(1);

/// A failure is kept as well: the other tests need not wait for the same one.
static GROUND: OnceCell<Result<Ground>> = OnceCell::const_new();

/// A running control plane that knows our kinds.
pub struct Ground {
    control_plane: ControlPlane,
}

/// The ground of this process; its first caller waits until it is laid.
pub async fn ground() -> &'static Ground {
    match GROUND.get_or_init(Ground::lay).await {
        Ok(ground) => ground,
        Err(error) => panic!("there is no ground to test on: {error:#}"),
    }
}

impl Ground {
    async fn lay() -> Result<Self> {
        let ground = Self {
            control_plane: ControlPlane::start().await?,
        };
        let kinds: Api<CustomResourceDefinition> = Api::all(ground.client().await);
        for definition in crd::definitions() {
            let name = definition.name_any();
            kinds.create(&PostParams::default(), &definition).await?;
            let established =
                await_condition(kinds.clone(), &name, conditions::is_crd_established());
            tokio::time::timeout(ESTABLISHED_WITHIN, established)
                .await
                .with_context(|| format!("{name} was not established in time"))??;
        }
        Ok(ground)
    }

    /// A client of the caller's own: it belongs to the runtime of the test that asks, and dies with it.
    pub async fn client(&self) -> Client {
        let client = self.control_plane.client().await;
        client.expect("the control plane's kubeconfig is good for a client")
    }

    /// A new namespace, named `<prefix>-<random>`.
    pub async fn namespace(&self, client: &Client, prefix: &str) -> String {
        let metadata = ObjectMeta {
            generate_name: Some(format!("{prefix}-")),
            ..ObjectMeta::default()
        };
        let namespace = Namespace {
            metadata,
            ..Namespace::default()
        };
        let created = Api::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await;
        created
            .expect("the administrator may create namespaces")
            .name_any()
    }

    /// Where processes find the control plane.
    pub fn kubeconfig(&self) -> &Path {
        self.control_plane.kubeconfig()
    }

    /// What service accounts ask the API server for.
    pub fn audit_log(&self) -> PathBuf {
        self.control_plane.audit_log()
    }

    /// What kubectl prints for these arguments.
    ///
    /// # Errors
    ///
    /// What it prints on stderr, when it fails.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(self.control_plane.kubectl());
        command
            .arg("--kubeconfig")
            .arg(self.control_plane.kubeconfig())
            .args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "kubectl {} failed: {stderr}",
            arguments.join(" ")
        );
        Ok(String::from_utf8(output.stdout)?)
    }
}
