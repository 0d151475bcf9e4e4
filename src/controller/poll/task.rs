//! Polls every identity that a class, a listener or a look-up names, and gives each poll to the sweeper.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt as _;
use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{Instrument as _, error_span, info, warn};

use super::schedule::Schedule;
use super::{Snapshot, is_over};
use crate::broker::{
    Broker, BrokerError, ErrorKind, Filter, FilterKey, Identity, SessionId, SessionState,
};
use crate::controller::context::Context;
use crate::controller::metrics::PollLabels;
use crate::controller::names::identity_of;
use crate::controller::sweeper::Sweeper;
use crate::crd::SsmListener;

/// Pages of one poll: 200,000 sessions of 200 a page. AWS gives a token after each, and one that never ends would
/// otherwise hold the poll for ever.
const PAGES_MAX: usize = 1000;

/// Look-ups in History of one poll: they share the identity's rate limiter with StartSession, and the rest waits for
/// the next poll.
const LOOKUPS_MAX: usize = 50;

/// Look-ups that may fail in one poll: the rest waits for the next, since each may take as long as a call may take, and
/// a throttled identity is not asked on and on.
const LOOKUP_FAILURES_MAX: u32 = 3;

/// Identities that are polled at the same time.
const POLLS_AT_ONCE: usize = 4;

/// Polls for ever. It may be dropped at any point: a poll that is not whole was never published.
pub async fn run(context: Arc<Context>) {
    if !context.synced().await {
        return;
    }
    let options = &context.options;
    let mut schedules: HashMap<Identity, Schedule> = HashMap::new();
    let mut sweeper = Sweeper::new(&options.namespace_uid, options.grace);
    loop {
        let now = Instant::now();
        context.forget_strangers();
        for identity in named(&context) {
            let schedule = schedules.entry(identity);
            let schedule = schedule.or_insert_with(|| Schedule::new(now));
            schedule.handle_named(now);
        }
        schedules.retain(|identity, schedule| {
            let kept = schedule.is_kept(sweeper.suspects(identity), options.grace, now);
            if !kept {
                info!(region = %identity.region, "identity no longer named; not polled any more");
                forget(&context, identity);
                sweeper.forget(identity);
            }
            kept
        });
        let due: Vec<Identity> = schedules
            .iter()
            .filter(|(_, schedule)| schedule.due() <= now)
            .map(|(identity, _)| identity.clone())
            .collect();
        let polls = futures::stream::iter(due).map(|identity| {
            let context = Arc::clone(&context);
            async move {
                let wanted = context.polls.wanted(&identity);
                let previous = context.polls.snapshot(&identity);
                let taken = take(&*context.broker, &identity, &previous, &wanted).await;
                (identity, previous, taken)
            }
        });
        let mut polls = polls.buffer_unordered(POLLS_AT_ONCE);
        while let Some((identity, previous, taken)) = polls.next().await {
            let complete = taken.is_ok();
            if let Some(schedule) = schedules.get_mut(&identity) {
                schedule.handle_poll(complete, options.poll_interval, Instant::now());
            }
            publish(&context, &identity, &previous, taken);
            if complete {
                let snapshot = context.polls.snapshot(&identity);
                let listeners = context.listeners.state();
                let suspects =
                    sweeper.handle_poll(&identity, &snapshot.active, &listeners, Instant::now());
                sweeper.sweep(&context, &identity, suspects).await;
            }
        }
        let next = schedules.values().map(Schedule::due).min();
        let ceiling = Instant::now() + options.poll_interval;
        let wake = next.unwrap_or(ceiling).min(ceiling);
        tokio::time::sleep_until(wake).await;
    }
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
        let sessions = listener.status.iter().flat_map(|status| &status.sessions);
        let live = sessions.filter(|session| session.ended_at.is_none());
        named.extend(live.map(|session| identity_of(&session.identity)));
    }
    named
}

/// One whole poll: all Active pages, then the wanted sessions that are not in them, or over, by id in History. A look-up
/// in History that fails leaves its error in the snapshot, and what is Active counts all the same.
///
/// # Errors
/// That of the first page that failed; then nothing of this poll counts.
pub async fn take(
    broker: &dyn Broker,
    identity: &Identity,
    previous: &Snapshot,
    wanted: &[SessionId],
) -> Result<Snapshot, BrokerError> {
    let taken_at = Timestamp::now();
    let mut active = HashMap::new();
    let mut token: Option<String> = None;
    for page in 0.. {
        if page == PAGES_MAX {
            let message = format!("more than {PAGES_MAX} pages of Active sessions");
            return Err(BrokerError::new(
                ErrorKind::Unavailable,
                "DescribeSessions",
                message,
            ));
        }
        let answer = broker
            .describe(identity, SessionState::Active, &[], token.as_deref())
            .await?;
        active.extend(
            answer
                .sessions
                .into_iter()
                .map(|s| (s.session_id.clone(), s)),
        );
        token = answer.next_token;
        if token.is_none() {
            break;
        }
    }
    let mut ended = HashMap::new();
    let mut open = Vec::new();
    for id in wanted {
        let known = previous.ended.get(id);
        if let Some(known) = known {
            ended.insert(id.clone(), known.clone());
        }
        let shows_life = active.get(id).is_some_and(|session| !is_over(session));
        if !shows_life && known.is_none_or(|known| known.end_date.is_none()) {
            open.push(id);
        }
    }
    // Rotated by the round, so that with more than fits into one poll each has its turn.
    let round = previous.round + 1;
    let turns = usize::try_from(round)
        .unwrap_or(0)
        .wrapping_mul(LOOKUPS_MAX);
    let first = turns.checked_rem(open.len()).unwrap_or(0);
    let (mut error, mut failures) = (None, 0);
    for id in open
        .iter()
        .cycle()
        .skip(first)
        .take(open.len().min(LOOKUPS_MAX))
    {
        let span = error_span!("look-up", session = %id);
        match look_up(broker, identity, id).instrument(span).await {
            Ok(Some(found)) => {
                ended.insert((*id).clone(), found);
            }
            Ok(None) => {}
            Err(failure) => {
                error.get_or_insert(failure);
                failures += 1;
                if failures == LOOKUP_FAILURES_MAX {
                    break;
                }
            }
        }
    }
    Ok(Snapshot {
        round,
        taken_at: Some(taken_at),
        active,
        ended,
        error,
    })
}

async fn look_up(
    broker: &dyn Broker,
    identity: &Identity,
    id: &SessionId,
) -> Result<Option<crate::broker::DescribedSession>, BrokerError> {
    let filter = [Filter {
        key: FilterKey::SessionId,
        value: id.as_str().to_owned(),
    }];
    let mut token: Option<String> = None;
    // A page may be empty and still have a token; one session can't need more than a few.
    for _ in 0..8 {
        let answer = broker
            .describe(identity, SessionState::History, &filter, token.as_deref())
            .await?;
        if let Some(found) = answer
            .sessions
            .into_iter()
            .find(|session| &session.session_id == id)
        {
            return Ok(Some(found));
        }
        token = answer.next_token;
        if token.is_none() {
            break;
        }
    }
    Ok(None)
}

/// Forgets what AWS said of an identity that is not polled any more.
pub(super) fn forget(context: &Context, identity: &Identity) {
    context.polls.forget(identity);
    let region = identity.region.clone();
    set_poll_timestamp(context, &PollLabels { region });
}

/// One Region may have several identities, and the one that was not answered for longest is what somebody must know of.
fn set_poll_timestamp(context: &Context, labels: &PollLabels) {
    let gauge = &context.metrics.poll_timestamp;
    match context.polls.known_since(&labels.region) {
        Some(seconds) => {
            gauge.get_or_create(labels).set(seconds);
        }
        None => {
            gauge.remove(labels);
        }
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
    set_poll_timestamp(context, &labels);
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
