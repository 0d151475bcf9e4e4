//! The controller's half of an `SsmListener`: to which relay it is bound, which of its AWS sessions are lost, and when
//! its finalizer goes. The relay writes the status, the session's reconciler the rest of the spec.

mod act;
mod decide;
mod observe;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use kube::ResourceExt as _;
use kube_runtime::controller::Action;
use tokio::time::Instant;

use super::context::Context;
use super::error::Error;
use super::metrics::Kind;
use super::names::key;
use super::poll::Want;
use super::trace;
use super::trust;
use crate::backoff::{halved, jittered};
use crate::crd::SsmListener;

use act::Again;
use decide::{Settings, decide, wanted};

/// Until a listener that had no turn to wait for AWS looks for one again, at first: a small part of what a turn lasts
/// that AWS does not answer, and far longer than one that it does.
const TURN_PAUSE: Duration = Duration::from_secs(4);

/// And at last, since thousands may wait for a Region that does not answer for hours.
const TURN_PAUSE_MAX: Duration = Duration::from_mins(1);

/// Observes, decides and acts, once.
///
/// # Errors
/// Of the first step that failed; the steps after it are not taken.
pub async fn reconcile(listener: Arc<SsmListener>, context: Arc<Context>) -> Result<Action, Error> {
    if !context.synced().await {
        return Ok(Action::await_change());
    }
    let deadline = context.options.api_timeout * 2;
    let steps = Box::pin(async {
        let outcome = tokio::time::timeout(deadline, steps(&listener, &context)).await;
        outcome.unwrap_or(Err(Error::Deadline))
    });
    trace::reconcile(
        Kind::SsmListener,
        listener.as_ref(),
        &context.metrics,
        steps,
    )
    .await
}

async fn steps(listener: &Arc<SsmListener>, context: &Context) -> Result<Action, Error> {
    let mut observed = observe::observe(listener, context).await?;
    let settings = Settings {
        terminate_after: context.options.terminate_after,
        // Seen in two polls and for longer than a grace, which is never less than the time between two polls.
        sweep_after: context.options.grace * 2,
        unbound_interval: context.options.unbound_interval,
    };
    let plan = {
        // Held from the counting of the relays' load to the reservation, so that a burst of listeners spreads.
        let mut reserved = context
            .reserved
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        observed.load = observe::load(&observed.listener, &context.listeners.state(), &reserved);
        let plan = decide(&observed, &settings, Instant::now());
        let uid = listener.uid().unwrap_or_default();
        match plan.binds_to() {
            Some(relay) => reserved.insert(uid, relay.to_owned()),
            None => reserved.remove(&uid),
        };
        plan
    };
    trust::tell_strangers(listener, context);
    want_ends(listener, context);
    let after = match act::act(&observed, &plan, context).await? {
        // What failed before may fail again: it still counts.
        Again::AtItsTurn => {
            let waited = observed.deleting_since.map(|since| since.elapsed());
            return Ok(Action::requeue(halved(turn_pause(waited))));
        }
        Again::AtOnce => Duration::ZERO,
        Again::AsPlanned => plan
            .requeue_after
            .unwrap_or_else(|| jittered(context.options.resync_interval)),
    };
    context.listener_backoff.succeeded(&key(listener.as_ref()));
    Ok(Action::requeue(after))
}

/// How long a listener that was deleted so long ago waits until it looks for a turn again: an eighth of what it has waited.
fn turn_pause(waited: Option<Duration>) -> Duration {
    (waited.unwrap_or_default() / 8).clamp(TURN_PAUSE, TURN_PAUSE_MAX)
}

/// Has the ends of a deleted listener's sessions looked for, until it is gone.
fn want_ends(listener: &SsmListener, context: &Context) {
    let reference = &listener.spec.session_ref;
    let want = Want {
        namespace: reference.namespace.clone(),
        name: reference.name.clone(),
        sessions: wanted(listener),
    };
    let uid = listener.uid().unwrap_or_default();
    context.polls.want(&uid, Some(want));
}

#[cfg(test)]
mod act_tests;
#[cfg(test)]
mod identity_tests;
#[cfg(test)]
mod tests;
