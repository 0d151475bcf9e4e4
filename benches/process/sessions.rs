//! The sessions of the benchmark: many at once, and one after the other with a clock beside them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Resource};
use kube_runtime::{WatchStreamExt as _, watcher};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use ssm_session_operator::crd::SsmSession;
use tokio::time::timeout;

use crate::dial;
use crate::stage::{REMOTE_PORT, Stage, TARGET, WAIT_MAX};

/// The namespace of the sessions.
pub const NAMESPACE: &str = "bench";

/// The class of the sessions.
pub const CLASS: &str = "bench";

/// Applies so many SsmSessions of one port each, and waits until all are available and AWS has been asked for them:
/// until then there is work left.
pub async fn wish_for(stage: &Stage, sessions: usize) -> Result<()> {
    let items: Vec<_> = (0..sessions).map(|n| session(&name(n))).collect();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    stage.apply(&list).await?;
    for condition in [
        "condition=Available",
        "jsonpath={.status.sessions[0].status}=Connected",
    ] {
        // Starts are paced at ten a second.
        let limit = WAIT_MAX.as_secs() + sessions as u64;
        let wait =
            format!("wait ssmsessions --all -n {NAMESPACE} --for={condition} --timeout={limit}s");
        stage.kubectl(&wait).await?;
    }
    Ok(())
}

/// Where the relay serves the first session.
pub async fn relay_address(stage: &Stage) -> Result<SocketAddr> {
    let service = name(0);
    let endpoints = dial::endpoints(stage.client(), NAMESPACE, &service, "db").await?;
    let first = endpoints.first().copied();
    first.with_context(|| format!("{service} has no ready endpoint"))
}

/// From the POST of an SsmSession until a watch shows it available.
pub async fn time_to_available(stage: &Stage, number: usize) -> Result<Duration> {
    let api = Api::namespaced(stage.client().clone(), NAMESPACE);
    let object: SsmSession = serde_json::from_value(session(&format!("timed-{number}")))?;
    let is_available = |session: &SsmSession| {
        let conditions = session.status.iter().flat_map(|status| &status.conditions);
        let mut available = conditions.filter(|condition| condition.type_ == "Available");
        available.any(|condition| condition.status == "True")
    };
    time_until(&api, &object, is_available).await
}

/// From the POST of an object that nobody does anything about until a watch shows it: what the API server takes.
pub async fn time_to_shown(stage: &Stage, number: usize) -> Result<Duration> {
    let api = Api::namespaced(stage.client().clone(), NAMESPACE);
    let manifest = json!({ "metadata": { "name": format!("timed-{number}") } });
    let object: ConfigMap = serde_json::from_value(manifest)?;
    time_until(&api, &object, |_| true).await
}

/// Deletes the object afterwards, and waits until it is gone.
async fn time_until<K>(api: &Api<K>, object: &K, wanted: impl Fn(&K) -> bool) -> Result<Duration>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + serde::Serialize,
    K: Send + 'static,
{
    let name = object.meta().name.clone().context("no name")?;
    let fields = format!("metadata.name={name}");
    let config = watcher::Config::default().fields(&fields);
    let mut shown = std::pin::pin!(watcher(api.clone(), config).default_backoff());
    let watching = async {
        while let Some(event) = shown.try_next().await? {
            if matches!(event, watcher::Event::InitDone) {
                break;
            }
        }
        anyhow::Ok(())
    };
    timeout(WAIT_MAX, watching).await.context("the watch")??;
    let begun = Instant::now();
    api.create(&PostParams::default(), object).await?;
    let wait = async {
        while let Some(event) = shown.next().await {
            if let watcher::Event::Apply(object) = event?
                && wanted(&object)
            {
                return Ok(());
            }
        }
        anyhow::bail!("the watch has ended")
    };
    timeout(WAIT_MAX, wait).await.context("not available")??;
    let elapsed = begun.elapsed();
    api.delete(&name, &DeleteParams::default()).await?;
    let gone = async {
        while let Some(event) = shown.next().await {
            if matches!(event?, watcher::Event::Delete(_)) {
                return Ok(());
            }
        }
        anyhow::bail!("the watch has ended")
    };
    timeout(WAIT_MAX, gone).await.context("not gone")??;
    Ok(elapsed)
}

fn name(number: usize) -> String {
    format!("session-{number}")
}

fn session(name: &str) -> Value {
    json!({
        "apiVersion": "ssm-operator.dev/v1alpha1",
        "kind": "SsmSession",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": {
            "className": CLASS,
            "target": { "id": TARGET },
            "ports": [{ "name": "db", "port": 5432, "remotePort": REMOTE_PORT }],
            "reason": "a benchmark",
        },
    })
}
