//! What every process of this program has, and how it comes to it: clients, the broker, and the namespace that is its
//! installation's.
//!
//! An API server that does not answer is waited for. What no waiting mends ends the process.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use prometheus_client::registry::Registry;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::api_server;
use super::installation::{Claim, wait_for_namespace};
use super::options::aws_options;
use crate::aws::{self, AwsBroker};
use crate::binding;
use crate::broker::Broker;
use crate::cli::{CommonArgs, InstallationArgs};
use crate::proxy::Proxies;

/// How long the API server may take to accept a connection, and to answer at the start before it is asked again.
pub(super) const START_CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two tries at the start; probes say meanwhile that the process is not ready.
pub(super) const START_RETRY: Duration = Duration::from_secs(1);

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

/// UID of the operator's namespace, asked for until it is known; `None` at `shutdown`.
pub(super) async fn namespace_uid(
    client: &Client,
    namespace: &str,
    shutdown: &CancellationToken,
) -> Option<String> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    loop {
        let error = match timeout(START_CALL_TIMEOUT, namespaces.get(namespace)).await {
            Ok(Ok(object)) => match object.metadata.uid {
                Some(uid) => return Some(uid),
                None => "it has no UID".to_owned(),
            },
            Ok(Err(error)) => binding::words(&error),
            Err(_) => format!("no answer within {START_CALL_TIMEOUT:?}"),
        };
        warn!(
            namespace,
            error, "the operator's namespace can't be read: trying again"
        );
        let delay = START_RETRY.mul_f64(0.5 + fastrand::f64());
        tokio::select! {
            () = shutdown.cancelled() => return None,
            () = tokio::time::sleep(delay) => {}
        }
    }
}
