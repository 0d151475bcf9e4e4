//! One poll of one identity: what is asked of AWS, and for how long.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument as _, error_span};

use super::{Snapshot, is_over};
use crate::broker::{
    Broker, BrokerError, DescribedSession, ErrorKind, Filter, FilterKey, Identity, Marker,
    SessionId, SessionState,
};

/// Pages of one poll: 200,000 sessions of 200 a page. AWS gives a token after each, and one that never ends would
/// otherwise fill the memory for as long as the poll may take.
const PAGES_MAX: usize = 1000;

/// Look-ups in History of one poll: they share the identity's rate limiter with StartSession, and the rest waits for
/// the next poll.
const LOOKUPS_MAX: usize = 50;

/// Look-ups that may fail in one poll: the rest waits for the next, since each may take as long as a call may take, and
/// a throttled identity is not asked on and on.
const LOOKUP_FAILURES_MAX: u32 = 3;

/// What a poll may take at least, however short the interval: two calls with all their tries.
const POLL_MAX: Duration = Duration::from_mins(1);

/// How long one poll may take: three intervals, since what a slower one says is long past, but not less than
/// [`POLL_MAX`]. With the defaults it is a fifth of the time after which an alert says that polls fail.
#[must_use]
pub fn poll_max(interval: Duration) -> Duration {
    (interval * 3).max(POLL_MAX)
}

/// One whole poll: all Active pages, then the wanted sessions that are not in them, or over, by id in History. A look-up
/// in History that fails leaves its error in the snapshot, and what is Active counts all the same. After `within` it is
/// over, whatever AWS or what stands in its place does.
///
/// # Errors
/// That of the first page that failed, or did not come in time; then nothing of this poll counts.
pub async fn take(
    broker: &dyn Broker,
    identity: &Identity,
    previous: &Snapshot,
    wanted: &[Vec<SessionId>],
    within: Duration,
) -> Result<Snapshot, BrokerError> {
    let (taken_at, begun) = (Timestamp::now(), Instant::now());
    let deadline = begun + within;
    let late = |_| unfinished(within);
    let active = timeout_at(deadline, active(broker, identity)).await;
    let active = active.map_err(late)??;
    let mut ended = HashMap::new();
    let mut is_open = |id: &&SessionId| {
        let known = previous.ended.get(*id);
        if let Some(known) = known {
            ended.insert((*id).clone(), known.clone());
        }
        let shows_life = active.get(*id).is_some_and(|session| !is_over(session));
        !shows_life && known.is_none_or(|known| known.end_date.is_none())
    };
    let open = wanted
        .iter()
        .map(|of_one| of_one.iter().filter(&mut is_open).collect::<Vec<_>>());
    let open: Vec<_> = open.filter(|of_one| !of_one.is_empty()).collect();
    let round = previous.round + 1;
    let (mut error, mut failures) = (None, 0);
    for id in turns(&open, round) {
        let span = error_span!("look-up", session = %id);
        let found = look_up(broker, identity, id).instrument(span);
        let found = timeout_at(deadline, found).await;
        match found.unwrap_or_else(|elapsed| Err(late(elapsed))) {
            Ok(Some(found)) => {
                ended.insert(id.clone(), found);
            }
            Ok(None) => {}
            Err(failure) => {
                error.get_or_insert(failure);
                failures += 1;
                if failures == LOOKUP_FAILURES_MAX || Instant::now() >= deadline {
                    break;
                }
            }
        }
    }
    let mut shown = active.values().chain(ended.values());
    let shows_markers = previous.shows_markers
        || shown.any(|session| session.reason.as_deref().and_then(Marker::parse).is_some());
    Ok(Snapshot {
        round,
        taken_at: Some(taken_at),
        begun: Some(begun),
        active,
        ended,
        shows_markers,
        error,
    })
}

/// Which sessions this round looks up. Each object has its turn with one of its sessions, and then with the next one: an
/// object that names many keeps nobody else waiting for longer than one that names a single one does.
fn turns<'a>(open: &[Vec<&'a SessionId>], round: u64) -> Vec<&'a SessionId> {
    let first = usize::try_from(round)
        .unwrap_or(0)
        .wrapping_mul(LOOKUPS_MAX);
    let longest = open.iter().map(Vec::len).max().unwrap_or(0);
    let mut turns = Vec::new();
    for turn in (0..open.len() * longest).map(|turn| first.wrapping_add(turn)) {
        let of_one = &open[turn % open.len()];
        let id = of_one[turn / open.len() % of_one.len()];
        if !turns.contains(&id) {
            turns.push(id);
        }
        if turns.len() == LOOKUPS_MAX {
            break;
        }
    }
    turns
}

fn unfinished(within: Duration) -> BrokerError {
    let message = format!("no complete answer within {within:?}");
    BrokerError::new(ErrorKind::Unavailable, "DescribeSessions", message)
}

/// All Active sessions.
async fn active(
    broker: &dyn Broker,
    identity: &Identity,
) -> Result<HashMap<SessionId, DescribedSession>, BrokerError> {
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
    Ok(active)
}

async fn look_up(
    broker: &dyn Broker,
    identity: &Identity,
    id: &SessionId,
) -> Result<Option<DescribedSession>, BrokerError> {
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
