//! `DescribeSessions`: states, filters and pages, of what the consistency delay lets show.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::error::ApiError;
use super::request::{DescribeSessions, Filter, State};
use super::roles::account;
use super::sessions::{Published, Session};
use super::store::Store;

/// Sessions on a page when `MaxResults` is left out; AWS documents no number.
const PAGE_SIZE_DEFAULT: i64 = 50;

/// A filter that was understood. Several are and-ed, which is a choice: AWS does not say.
enum Condition<'a> {
    InvokedAfter(Timestamp),
    InvokedBefore(Timestamp),
    Target(&'a str),
    Owner(&'a str),
    Status(&'a str),
    SessionId(&'a str),
    AccessType(&'a str),
}

/// Where the next page begins. Sessions are listed youngest first, by their place in the store.
#[derive(Clone, Copy)]
struct Cursor {
    /// Only sessions at a lower place.
    below: usize,
    /// The next page is an empty one.
    empty: bool,
}

impl Cursor {
    fn encode(self) -> String {
        format!("{}{:016x}", if self.empty { 'e' } else { 'p' }, self.below)
    }

    fn decode(token: &str) -> Result<Self, ApiError> {
        let invalid = || ApiError::new("InvalidNextToken", "The specified token is not valid.");
        let (kind, digits) = token.split_at_checked(1).ok_or_else(invalid)?;
        let empty = match kind {
            "e" => true,
            "p" => false,
            _ => return Err(invalid()),
        };
        let below = usize::from_str_radix(digits, 16).map_err(|_| invalid())?;
        Ok(Self { below, empty })
    }
}

/// One page: sessions of the caller's account, whoever started them.
///
/// # Errors
/// `InvalidFilterKey`, `InvalidNextToken`, or a value that is no timestamp.
pub(super) fn page(
    store: &Store,
    request: &DescribeSessions,
    caller: &str,
    max_duration_minutes: Option<u32>,
) -> Result<Value, ApiError> {
    let filters = request.filters.as_deref().unwrap_or_default();
    let conditions = filters
        .iter()
        .map(condition)
        .collect::<Result<Vec<_>, _>>()?;
    let cursor = match &request.next_token {
        Some(token) => Cursor::decode(token)?,
        None => Cursor {
            below: store.sessions().len(),
            empty: store.faults.empty_pages,
        },
    };
    if cursor.empty {
        let next = Cursor {
            empty: false,
            ..cursor
        };
        return Ok(json!({ "Sessions": [], "NextToken": next.encode() }));
    }
    let delay: Duration = store.faults.consistency_delay;
    let mut matching = store
        .sessions()
        .iter()
        .enumerate()
        .take(cursor.below)
        .rev()
        .filter(|(_, session)| account(&session.view.owner) == account(caller))
        .filter_map(|(place, session)| Some((place, session, session.visible(delay)?)))
        .filter(|(_, _, shown)| (request.state == State::History) == shown.status.is_history())
        .filter(|(_, session, shown)| {
            conditions
                .iter()
                .all(|condition| condition.holds(session, *shown))
        });
    let asked = request.max_results.unwrap_or(PAGE_SIZE_DEFAULT);
    let size = usize::try_from(asked)
        .unwrap_or(usize::MAX)
        .min(store.faults.page_size_max);
    let mut sessions = Vec::new();
    let mut last = cursor.below;
    for (place, session, shown) in matching.by_ref().take(size) {
        last = place;
        sessions.push(describe(session, shown, max_duration_minutes));
    }
    let mut answer = json!({ "Sessions": sessions });
    if let (Some(_), Some(fields)) = (matching.next(), answer.as_object_mut()) {
        let next = Cursor {
            below: last,
            empty: store.faults.empty_pages,
        };
        fields.insert("NextToken".to_owned(), Value::from(next.encode()));
    }
    Ok(answer)
}

fn condition(filter: &Filter) -> Result<Condition<'_>, ApiError> {
    let value = filter.value.as_str();
    let timestamp = || {
        let text = format!("{value} is not a timestamp such as 2018-08-29T00:00:00Z");
        value
            .parse::<Timestamp>()
            .map_err(|_| ApiError::validation(text))
    };
    match filter.key.as_str() {
        "InvokedAfter" => timestamp().map(Condition::InvokedAfter),
        "InvokedBefore" => timestamp().map(Condition::InvokedBefore),
        "Target" => Ok(Condition::Target(value)),
        "Owner" => Ok(Condition::Owner(value)),
        "Status" => Ok(Condition::Status(value)),
        "SessionId" => Ok(Condition::SessionId(value)),
        "AccessType" => Ok(Condition::AccessType(value)),
        key => Err(ApiError::new(
            "InvalidFilterKey",
            format!("{key} is not a filter key."),
        )),
    }
}

impl Condition<'_> {
    fn holds(&self, session: &Session, shown: Published) -> bool {
        match self {
            Self::InvokedAfter(time) => session.view.started >= *time,
            Self::InvokedBefore(time) => session.view.started < *time,
            Self::Target(target) => session.view.target == *target,
            Self::Owner(owner) => session.view.owner == *owner,
            Self::Status(status) => shown.status.as_str() == *status,
            Self::SessionId(id) => session.view.id == *id,
            Self::AccessType(access) => *access == ACCESS_TYPE,
        }
    }
}

/// How sessions are started here: nobody approves them just in time.
const ACCESS_TYPE: &str = "Standard";

fn describe(session: &Session, shown: Published, max_duration_minutes: Option<u32>) -> Value {
    let mut described = json!({
        "SessionId": session.view.id,
        "Target": session.view.target,
        "Status": shown.status.as_str(),
        "StartDate": epoch_seconds(session.view.started),
        "DocumentName": session.view.document,
        "Owner": session.view.owner,
        "AccessType": ACCESS_TYPE,
    });
    let optional = [
        ("EndDate", shown.ended.map(epoch_seconds)),
        ("Reason", session.view.reason.clone().map(Value::from)),
        (
            "MaxSessionDuration",
            max_duration_minutes.map(|m| Value::from(m.to_string())),
        ),
    ];
    if let Some(fields) = described.as_object_mut() {
        for (name, value) in optional {
            fields.extend(value.map(|value| (name.to_owned(), value)));
        }
    }
    described
}

/// Seconds since the Unix epoch, with fractions, as JSON 1.1 has it.
fn epoch_seconds(time: Timestamp) -> Value {
    Value::from(time.as_duration().as_secs_f64())
}
