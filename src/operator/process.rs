//! What every process of this program has, and how it comes to it: clients, the broker, and the namespace that is its
//! installation's.
//!
//! An API server that does not answer is waited for. What no waiting mends ends the process.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use kube::Client;
use prometheus_client::registry::Registry;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::api_server;
use super::installation::{Claim, START_CALL_TIMEOUT, namespace_uid, wait_for_namespace};
use super::options::aws_options;
use crate::aws::{self, AwsBroker};
use crate::broker::Broker;
use crate::cli::{CommonArgs, InstallationArgs};
use crate::proxy::Proxies;

/// What every process of this program has.
pub(super) struct Process {
    pub(super) client: Client,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) proxies: Proxies,
    pub(super) namespace_uid: String,
    pub(super) registry: Arc<Mutex<Registry>>,
}

/// Clients and what is read once; `None` when the process is to end before that.
pub(super) async fn start(
    common: &CommonArgs,
    controls: bool,
    registry: Arc<Mutex<Registry>>,
    shutdown: &CancellationToken,
) -> anyhow::Result<Option<Process>> {
    let client = connect().await?;
    let tls = Arc::new(tls()?);
    let variable = |name: &str| std::env::var(name).ok();
    let proxies = Proxies::read(variable, tls.clone())?;
    if !proxies.is_empty() {
        info!(%proxies, "AWS is called through a proxy");
    }
    let InstallationArgs {
        namespace,
        controller_name,
        ..
    } = &common.installation;
    let Some(namespace_uid) = namespace_uid(&client, namespace, shutdown).await else {
        return Ok(None);
    };
    let claim = Claim {
        namespace,
        namespace_uid: &namespace_uid,
        controller_name,
        writes: controls,
    };
    if !wait_for_namespace(&client, &claim, shutdown).await {
        return Ok(None);
    }
    let metrics = {
        let mut registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
        aws::Metrics::register(&mut registry)
    };
    let options = aws_options(common, proxies.clone(), metrics, variable);
    let aws = AwsBroker::new(options);
    let broker: Arc<dyn Broker> = Arc::new(aws);
    Ok(Some(Process {
        client,
        broker,
        tls,
        proxies,
        namespace_uid,
        registry,
    }))
}

/// A client of the API server, as the kubeconfig or the pod says.
pub(super) async fn connect() -> anyhow::Result<Client> {
    // kube's client takes the process's provider; that one is set already is only possible in tests.
    let _ = ring::default_provider().install_default();
    api_server::client(START_CALL_TIMEOUT).await
}

/// TLS to whomever the system's root certificates vouch for.
pub(super) fn tls() -> anyhow::Result<ClientConfig> {
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()
        .context("reading the system's root certificates")?;
    Ok(tls.with_no_client_auth())
}
