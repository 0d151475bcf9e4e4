//! The reconciler of `SsmSession`: observe, decide, act, report.

mod act;
mod conditions;
mod decide;
mod desired;
mod holder;
mod leave;
mod memory;
mod mirror;
mod observe;
mod plan;
mod report;
mod service;
mod update;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt as _;
use kube_runtime::controller::Action;
use tokio::time::Instant;
use tracing::{info, warn};

use super::context::{Context, Refusal};
use super::error::Error;
use super::events::{self, SessionEvent};
use super::metrics::Kind;
use super::names::key;
use super::poll::Want;
use super::scopes::scope::Contents;
use super::trace;
use crate::backoff::jittered;
use crate::crd::SsmSession;

use decide::decide;
pub use desired::service_name;
use observe::Observed;
use plan::{Now, Plan, Settings};

/// Observes, decides, acts and reports, once.
///
/// # Errors
/// Of the first step that failed. The status is reported even when a write before it failed.
pub async fn reconcile(session: Arc<SsmSession>, context: Arc<Context>) -> Result<Action, Error> {
    if !context.synced().await {
        return Ok(Action::await_change());
    }
    let namespace = session.namespace().unwrap_or_default();
    if context.contents(&namespace) == Contents::Pending {
        // Asked for again as soon as that is known, or known to be out of reach.
        return Ok(Action::await_change());
    }
    let deadline = context.options.api_timeout * 2;
    let steps = Box::pin(async {
        let outcome = tokio::time::timeout(deadline, steps(&session, &context)).await;
        outcome.unwrap_or(Err(Error::Deadline))
    });
    let requeue_after =
        trace::reconcile(Kind::SsmSession, session.as_ref(), &context.metrics, steps).await?;
    context.session_backoff.succeeded(&key(session.as_ref()));
    let resync = || jittered(context.options.resync_interval);
    Ok(Action::requeue(requeue_after.unwrap_or_else(resync)))
}

async fn steps(session: &Arc<SsmSession>, context: &Context) -> Result<Option<Duration>, Error> {
    let options = &context.options;
    let settings = Settings {
        stalled_after: options.stalled_after,
        finalizer_timeout: options.finalizer_timeout,
        history_timeout: options.history_timeout,
        conflict_interval: options.conflict_interval,
    };
    let now = Now {
        wall: Timestamp::now(),
        instant: Instant::now(),
    };
    let mut observed = observe::observe(session, context).await?;
    let mut plan = decide(&observed, &settings, now);
    // Before anything that may take too long: since when something lasts is what the next attempt needs.
    remember(&observed, &plan, now, context);
    tell_holder(&observed, &plan, context).await;
    let acted = act::act(&observed, &plan, context).await;

    // A refusal is for people to mend, so it is said in the status. What fails otherwise neither adds one nor mends it.
    let refusal = match &acted {
        Ok(_) => None,
        Err(error) => refusal(session, error).or_else(|| observed.memory.refusal.clone()),
    };
    if observed.memory.refusal != refusal {
        observed.memory.refusal = refusal;
        plan = decide(&observed, &settings, now);
        remember(&observed, &plan, now, context);
    }

    let (mut session, mut failure) = match acted {
        Ok(session) => (session, None),
        Err(error) => (session.as_ref().clone(), Some(error)),
    };
    if let Some(status) = &plan.status {
        match report::report(session.clone(), status, &plan.mirror.ended, context).await {
            Ok(written) => {
                session = written;
                let uid = session.uid().unwrap_or_default();
                context.remember(&uid, memory::written(context.memory(&uid), &plan));
            }
            Err(error) if plan.overdue => failure = Some(error),
            // A write that came before may have overtaken this one: what failed first says why.
            Err(error) => return Err(failure.unwrap_or(error)),
        }
    }
    let untold = plan.mirror.untold();
    match (plan.release, failure) {
        (Some(release), Some(failure)) if plan.overdue => {
            let name = session.name_any();
            warn!(session = %name, error = %failure, "let go though its namespace refused something");
            act::release(&session, release, &untold, context).await?;
        }
        (_, Some(failure)) => return Err(failure),
        (Some(release), None) => act::release(&session, release, &untold, context).await?,
        (None, None) => {}
    }
    Ok(plan.requeue_after)
}

fn refusal(session: &SsmSession, error: &Error) -> Option<Refusal> {
    Some(Refusal {
        generation: session.metadata.generation.unwrap_or_default(),
        message: error.refusal()?.to_owned(),
        forbidden: error.is_forbidden(),
    })
}

/// Keeps what the next reconcile needs, and tells the poller whose ends are looked for.
fn remember(observed: &Observed, plan: &Plan, now: Now, context: &Context) {
    let session = &observed.session;
    let uid = session.uid().unwrap_or_default();
    let memory = memory::decided(observed.memory.clone(), plan, now.instant);
    context.remember(&uid, memory);
    let want = Want {
        namespace: session.namespace().unwrap_or_default(),
        name: session.name_any(),
        sessions: plan.mirror.wanted.clone(),
    };
    context.polls.want(&uid, Some(want));
}

/// Says, once, that another installation holds the session.
async fn tell_holder(observed: &Observed, plan: &Plan, context: &Context) {
    let Some(holder) = plan.held_by.clone() else {
        return;
    };
    if observed.memory.held_by.as_ref() == Some(&holder) {
        return;
    }
    let session = &observed.session;
    let (namespace, name) = (session.namespace().unwrap_or_default(), session.name_any());
    info!(%namespace, session = %name, %holder,
        "the finalizer of another installation is on the session: nothing is done for it here until that is gone");
    events::publish(context, session, SessionEvent::HeldByAnother { holder }).await;
}

#[cfg(test)]
mod tests;
