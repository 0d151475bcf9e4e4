//! Polls every identity that a class, a listener or a look-up names, and gives each poll to the sweeper.
//!
//! Each identity has a turn of its own, and none waits for another's: an endpoint that does not answer, or answers for
//! ever, is one administrator's, and the sessions of the others are mirrored and swept all the same.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tokio::time::Instant;
use tracing::{info, warn};

use super::Snapshot;
use super::schedule::Schedule;
use super::take::{poll_max, take};
use crate::broker::{BrokerError, Identity, SessionId};
use crate::controller::context::Context;
use crate::controller::metrics::PollLabels;
use crate::controller::sweeper::{Suspect, Sweeper, Swept, sweep};
use crate::controller::trust;
use crate::crd::SsmListener;
use crate::crd::listener::ListenerState;
use crate::identity::identity_of;

/// Identities that are asked at the same time: far more than an installation has, and a bound for memory and sockets.
/// The others wait for the first that ends, the one that is due for longest first.
const TURNS_MAX: usize = 64;

/// What a part of an identity's turn came to: it is polled, and then swept if somebody is suspected.
enum Turn {
    Polled {
        identity: Identity,
        previous: Arc<Snapshot>,
        taken: Box<Result<Snapshot, BrokerError>>,
    },
    Swept {
        identity: Identity,
        swept: Swept,
    },
}

/// Polls for ever. It may be dropped at any point: a poll that is not whole was never published.
pub async fn run(context: Arc<Context>) {
    if !context.synced().await {
        return;
    }
    poll_all(&context, named).await;
}

/// Polls what `named` names at each look, for ever.
pub(super) async fn poll_all(context: &Context, named: impl Fn(&Context) -> HashSet<Identity>) {
    let options = &context.options;
    let mut schedules: HashMap<Identity, Schedule> = HashMap::new();
    let mut sweeper = Sweeper::new(&options.namespace_uid, options.grace);
    let mut busy: HashSet<Identity> = HashSet::new();
    let mut turns: FuturesUnordered<BoxFuture<'_, Turn>> = FuturesUnordered::new();
    loop {
        let now = Instant::now();
        context.forget_absent();
        for identity in named(context) {
            let labels = PollLabels {
                region: identity.region.clone(),
            };
            let schedule = schedules.entry(identity).or_insert_with(|| {
                // From the first: a series that begins with a failure shows no increase.
                let _ = context.metrics.poll_errors.get_or_create(&labels);
                Schedule::new(now)
            });
            schedule.handle_named(now);
        }
        schedules.retain(|identity, schedule| {
            let suspected = sweeper.suspects(identity);
            let kept = busy.contains(identity) || schedule.is_kept(suspected, options.grace, now);
            if !kept {
                info!(region = %identity.region, "identity no longer named; not polled any more");
                forget(context, identity);
                sweeper.forget(identity);
            }
            kept
        });
        let mut due: Vec<(Instant, &Identity)> = schedules
            .iter()
            .filter(|(identity, _)| !busy.contains(*identity))
            .map(|(identity, schedule)| (schedule.due(), identity))
            .collect();
        due.sort();
        let mut wake = now + options.poll_interval;
        for (due, identity) in due {
            if due > now {
                wake = wake.min(due);
            } else if turns.len() < TURNS_MAX {
                busy.insert(identity.clone());
                turns.push(poll(context, identity.clone()).boxed());
            }
        }
        let turn = tokio::select! {
            Some(turn) = turns.next() => turn,
            () = tokio::time::sleep_until(wake) => continue,
        };
        match turn {
            Turn::Polled {
                identity,
                previous,
                taken,
            } => {
                let complete = taken.is_ok();
                if let Some(schedule) = schedules.get_mut(&identity) {
                    schedule.handle_poll(complete, options.poll_interval, Instant::now());
                }
                publish(context, &identity, &previous, *taken);
                let suspects = if complete {
                    let snapshot = context.polls.snapshot(&identity);
                    let listeners = context.listeners.state();
                    sweeper.handle_poll(&identity, &snapshot.active, &listeners, Instant::now())
                } else {
                    Vec::new()
                };
                if suspects.is_empty() {
                    busy.remove(&identity);
                } else {
                    turns.push(end(context, identity, suspects).boxed());
                }
            }
            Turn::Swept { identity, swept } => {
                sweeper.handle_swept(&identity, &swept, Instant::now());
                busy.remove(&identity);
            }
        }
    }
}

async fn poll(context: &Context, identity: Identity) -> Turn {
    let wanted = context.polls.wanted(&identity);
    let previous = context.polls.snapshot(&identity);
    let within = poll_max(context.options.poll_interval);
    let taken = take(&*context.broker, &identity, &previous, &wanted, within).await;
    Turn::Polled {
        identity,
        previous,
        taken: Box::new(taken),
    }
}

async fn end(context: &Context, identity: Identity, suspects: Vec<Suspect>) -> Turn {
    let swept = sweep(context, &identity, suspects).await;
    Turn::Swept { identity, swept }
}

/// The identities of our classes, of listeners and their sessions, and of sessions whose end is looked for.
fn named(context: &Context) -> HashSet<Identity> {
    let mut named = context.polls.wanted_identities();
    for class in context.classes.state() {
        if class.spec.controller_name == context.options.controller_name {
            named.insert(identity_of(&class.spec.aws));
        }
    }
    for listener in context.listeners.state() {
        named.insert(identity_of(&listener.spec.identity));
        let status = listener.status.as_ref();
        let may_be_starting = status.is_some_and(|status| {
            matches!(
                status.state,
                ListenerState::Starting | ListenerState::Unknown
            ) || status.observed_generation != listener.metadata.generation
        });
        if may_be_starting {
            // What it comes to is nowhere on record yet, also for a controller that was started just now.
            named.extend(trust::identities(&listener.spec));
        }
        let sessions = status.iter().flat_map(|status| &status.sessions);
        let live = sessions.filter(|session| session.ended_at.is_none());
        named.extend(live.filter_map(|session| trust::identity_of_record(&listener.spec, session)));
    }
    named
}

/// Forgets what AWS said of an identity that is not polled any more.
pub(super) fn forget(context: &Context, identity: &Identity) {
    context.polls.forget(identity);
    if !context.polls.known_since().contains_key(&identity.region) {
        let region = identity.region.clone();
        context.metrics.poll_errors.remove(&PollLabels { region });
    }
}

/// Publishes what a poll came to, and triggers only those for whom it says something new.
pub(super) fn publish(
    context: &Context,
    identity: &Identity,
    previous: &Snapshot,
    taken: Result<Snapshot, BrokerError>,
) {
    let labels = PollLabels {
        region: identity.region.clone(),
    };
    let next = match taken {
        Ok(next) => {
            if let Some(error) = &next.error {
                context.metrics.poll_errors.get_or_create(&labels).inc();
                warn!(region = %identity.region, %error, request_id = error.request_id.as_str(), "an end could not be looked up; tried again at the next poll");
            }
            next
        }
        Err(error) => {
            context.metrics.poll_errors.get_or_create(&labels).inc();
            warn!(region = %identity.region, %error, request_id = error.request_id.as_str(), "poll failed; what was known stays, tried again");
            Snapshot {
                error: Some(error),
                ..previous.clone()
            }
        }
    };
    let changed = next.changed_since(previous);
    let kind = |snapshot: &Snapshot| snapshot.error.as_ref().map(|error| error.kind);
    let health_changed = kind(&next) != kind(previous) || (previous.round == 0 && next.round > 0);
    context.polls.publish(identity.clone(), next);
    for (namespace, name) in context.polls.interested(&changed) {
        context.trigger_session(&namespace, &name);
    }
    for listener in context.listeners.state() {
        let mine = health_changed && &identity_of(&listener.spec.identity) == identity;
        // A session that vanished from Active is in `changed` too: its absence is news.
        if mine || records(&listener, &changed) {
            context.trigger_listener(&listener);
        }
    }
}

fn records(listener: &SsmListener, changed: &HashSet<SessionId>) -> bool {
    let sessions = listener.status.iter().flat_map(|status| &status.sessions);
    let mut ids = sessions.filter_map(|session| SessionId::parse(&session.session_id));
    ids.any(|id| changed.contains(&id))
}
