//! The client of the API server.
//!
//! It promises that the API server is connected to directly, whatever proxy the environment names for AWS: kube's own
//! reading would send everything there that a kubeconfig leads to, whatever `NO_PROXY` says. And that what comes is lean:
//! without what nobody here reads, and anybody may write.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use http::HeaderValue;
use http::header::USER_AGENT;
use kube::client::ClientBuilder;
use kube::config::Kubeconfig;
use kube::{Client, Config};

use crate::reading::LeanLayer;

/// Under which name the API server's audit log shows the requests.
const AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// A client as the kubeconfig says, or else the pod's ServiceAccount, whose connections take at most `connect_timeout`
/// to come about.
///
/// # Errors
/// There is neither, or the kubeconfig asks for a proxy.
pub(super) async fn client(connect_timeout: Duration) -> anyhow::Result<Client> {
    // In the cluster there is no kubeconfig, and nobody to ask for a proxy.
    let asked = Kubeconfig::read().is_ok_and(|kubeconfig| asks_for_proxy(&kubeconfig));
    ensure!(
        !asked,
        "the kubeconfig's cluster has a proxy-url: the API server can only be reached directly"
    );
    let mut config = Config::infer()
        .await
        .context("neither a kubeconfig nor a service account")?;
    config.connect_timeout = Some(connect_timeout);
    config.proxy_url = None;
    let agent = HeaderValue::from_static(AGENT);
    config.headers.push((USER_AGENT, agent));
    let client = ClientBuilder::try_from(config).context("making the client of the API server")?;
    Ok(client.with_layer(&LeanLayer).build())
}

/// Whether the cluster of the current context has a proxy of its own.
fn asks_for_proxy(kubeconfig: &Kubeconfig) -> bool {
    let context = kubeconfig
        .contexts
        .iter()
        .find(|context| Some(&context.name) == kubeconfig.current_context.as_ref());
    let cluster = context.and_then(|context| {
        let name = &context.context.as_ref()?.cluster;
        kubeconfig.clusters.iter().find(|named| &named.name == name)
    });
    let url = cluster.and_then(|named| named.cluster.as_ref()?.proxy_url.as_ref());
    url.is_some_and(|url| !url.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(current: &str) -> Kubeconfig {
        Kubeconfig::from_yaml(&format!(
            "current-context: {current}\n\
             contexts:\n\
             - {{name: direct, context: {{cluster: near, user: a}}}}\n\
             - {{name: proxied, context: {{cluster: far, user: a}}}}\n\
             clusters:\n\
             - {{name: near, cluster: {{server: 'https://near.test'}}}}\n\
             - {{name: far, cluster: {{server: 'https://far.test', proxy-url: 'http://proxy.test:3128'}}}}\n"
        ))
        .unwrap()
    }

    #[test]
    fn a_proxy_is_asked_for_by_the_cluster_of_the_current_context_alone() {
        assert!(asks_for_proxy(&kubeconfig("proxied")));
        assert!(!asks_for_proxy(&kubeconfig("direct")));
        assert!(!asks_for_proxy(&kubeconfig("unknown")));
    }
}
