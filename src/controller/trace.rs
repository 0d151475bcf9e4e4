//! One span for each reconcile, and its metrics: of which object, how long it took, and what came of it.

use kube::{Resource, ResourceExt as _};
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument as _, info_span};

use super::error::Error;
use super::metrics::{Kind, Metrics, Outcome};

/// Runs the steps of a reconcile in a span of their own, and counts it.
pub(super) async fn reconcile<K: Resource<DynamicType = ()>, T>(
    kind: Kind,
    object: &K,
    metrics: &Metrics,
    steps: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let span = info_span!(
        "reconcile",
        ?kind,
        k8s.namespace.name = object.namespace(),
        name = object.name_any(),
        outcome = Empty,
        otel.status_description = Empty,
    );
    let begun = Instant::now();
    let result = steps.instrument(span.clone()).await;
    let outcome = match &result {
        Ok(_) => Outcome::Success,
        Err(error) if error.is_conflict() => Outcome::Conflict,
        Err(_) => Outcome::Failure,
    };
    metrics.reconciled(kind, outcome, begun.elapsed());
    span.record("outcome", tracing::field::debug(outcome));
    if let Err(error) = &result
        && outcome == Outcome::Failure
    {
        span.record("otel.status_description", error.summary());
    }
    result
}
