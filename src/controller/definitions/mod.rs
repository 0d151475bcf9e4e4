//! Looks whether the API server serves the kinds as this program knows them: an older definition drops, without a word,
//! the fields that it does not have, and refuses the values.
//!
//! What is lacking is said once, in the log, by an Event and by a metric, until something else is lacking or nothing is.
//! Nothing waits for it: sessions that need none of what is lacking are served as ever.

mod decide;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, ResourceExt as _};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use self::decide::lacking;
use super::context::Context;
use super::error::Error;
use super::events;
use super::metrics::{Kind, KindLabel};
use crate::backoff::jittered;
use crate::crd;

/// One of our kinds, and what is known of its definition.
struct Definition {
    kind: Kind,
    ours: CustomResourceDefinition,
    /// What the served one lacked when it was last read.
    lacks: Option<Vec<String>>,
}

fn definitions() -> Vec<Definition> {
    let definitions = crd::definitions().into_iter().filter_map(|ours| {
        let mut kinds = Kind::DEFINED.into_iter();
        let kind = kinds.find(|kind| format!("{kind:?}") == ours.spec.names.kind)?;
        Some(Definition {
            kind,
            ours,
            lacks: None,
        })
    });
    definitions.collect()
}

/// Compares at once and then now and then, for ever; it may be dropped at any point.
pub async fn run(context: Arc<Context>) {
    let api = Api::all(context.client.clone());
    let mut definitions = definitions();
    let mut was_refused = false;
    loop {
        let mut refused = None;
        for definition in &mut definitions {
            if let Err(refusal) = look(&context, &api, definition).await {
                refused = refused.or(Some(refusal));
            }
        }
        // Once for all three, and not at each look.
        if let Some(error) = refused.as_ref().filter(|_| !was_refused) {
            warn!(%error, "whether the served kinds are as new as this program is not known: grant `get` on the three \
                CustomResourceDefinitions. All else goes on");
        }
        was_refused = refused.is_some();
        tokio::time::sleep(jittered(context.options.resync_interval)).await;
    }
}

/// Reads a served definition and compares. One that can't be read now is as it was.
///
/// # Errors
/// When it may not be read; then it is unknown.
async fn look(
    context: &Context,
    api: &Api<CustomResourceDefinition>,
    definition: &mut Definition,
) -> Result<(), Error> {
    let name = definition.ours.name_any();
    let read = match timeout(context.options.api_timeout, api.get(&name)).await {
        Ok(read) => read.map_err(Error::api(format!("read {name}"))),
        Err(_) => Err(Error::Deadline),
    };
    let kind = definition.kind;
    let gauge = &context.metrics.crd_outdated;
    match read {
        Ok(served) => {
            let lacks = lacking(&definition.ours, &served);
            let outdated = i64::from(!lacks.is_empty());
            gauge.get_or_create(&KindLabel { kind }).set(outdated);
            let before = definition.lacks.take();
            definition.lacks = Some(lacks);
            say(context, definition, before, &served).await;
        }
        Err(error) if error.is_forbidden() => {
            definition.lacks = None;
            gauge.remove(&KindLabel { kind });
            return Err(error);
        }
        Err(error) => debug!(%error, "a served definition can't be compared now"),
    }
    Ok(())
}

/// Says what has changed since the last look.
async fn say(
    context: &Context,
    definition: &Definition,
    before: Option<Vec<String>>,
    served: &CustomResourceDefinition,
) {
    if before == definition.lacks {
        return;
    }
    let lacks = definition.lacks.as_deref().unwrap_or_default();
    let name = served.name_any();
    if lacks.is_empty() {
        if before.is_some() {
            info!(definition = name, "served as this program knows it");
        }
        return;
    }
    warn!(
        definition = name,
        lacks = lacks.join(", "),
        "the served definition is older than this program: what it lacks is dropped or refused. Upgrade the chart with \
         `crds.enabled`, or `kubectl apply --server-side -f crds/` of this version"
    );
    events::publish_outdated(context, served, lacks).await;
}
