//! Between the SDK's types and the broker's.
//!
//! It promises to keep what AWS says word for word, and to invent nothing where AWS says nothing.

use aws_sdk_ssm::operation::describe_sessions::DescribeSessionsOutput;
use aws_sdk_ssm::operation::resume_session::ResumeSessionOutput;
use aws_sdk_ssm::operation::start_session::StartSessionOutput;
use aws_sdk_ssm::primitives::DateTime;
use aws_sdk_ssm::types;
use jiff::Timestamp;

use crate::broker::{
    BrokerError, DescribedSession, ErrorKind, Filter, FilterKey, SessionId, SessionPage,
    SessionState, Ticket,
};

/// Without a stream URL a token opens nothing, so that the ticket has none: its session is for terminating.
pub(super) fn started(output: StartSessionOutput) -> Result<Ticket, BrokerError> {
    let id = output
        .session_id
        .as_deref()
        .and_then(SessionId::parse)
        .ok_or_else(|| {
            let message =
                "an answer without a usable session id; what it started is left to the sweeper";
            BrokerError::new(ErrorKind::Unavailable, "StartSession", message)
        })?;
    let url = output.stream_url.filter(|url| !url.is_empty());
    let token = if url.is_some() {
        output.token_value
    } else {
        None
    };
    Ok(Ticket::new(
        id,
        url.unwrap_or_default(),
        token.unwrap_or_default(),
    ))
}

/// AWS answers for a session that is over, but without a token.
pub(super) fn resumed(
    session: &SessionId,
    output: ResumeSessionOutput,
) -> Result<Ticket, BrokerError> {
    let failed = |kind, message: &str| BrokerError::new(kind, "ResumeSession", message);
    let token = output.token_value.filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| failed(ErrorKind::Gone, "no token: the session is over"))?;
    let url = output.stream_url.filter(|url| !url.is_empty());
    let url = url.ok_or_else(|| failed(ErrorKind::Unavailable, "an answer without stream URL"))?;
    Ok(Ticket::new(session.clone(), url, token))
}

pub(super) fn page(output: DescribeSessionsOutput) -> SessionPage {
    let sessions = output.sessions.unwrap_or_default();
    SessionPage {
        sessions: sessions.into_iter().filter_map(described).collect(),
        next_token: output.next_token.filter(|token| !token.is_empty()),
    }
}

/// None for a session whose id can't be used: nothing could be done with it.
fn described(session: types::Session) -> Option<DescribedSession> {
    let Some(session_id) = session.session_id.as_deref().and_then(SessionId::parse) else {
        tracing::warn!("DescribeSessions shows a session without a usable id; it is left out");
        return None;
    };
    let (s3_output_url, cloud_watch_output_url) = session
        .output_url
        .map(|url| (url.s3_output_url, url.cloud_watch_output_url))
        .unzip();
    Some(DescribedSession {
        session_id,
        status: session.status.map(|status| status.as_str().to_owned()),
        target: session.target,
        document_name: session.document_name,
        owner: session.owner,
        reason: session.reason,
        details: session.details,
        access_type: session.access_type.map(|kind| kind.as_str().to_owned()),
        start_date: session.start_date.and_then(timestamp),
        end_date: session.end_date.and_then(timestamp),
        max_session_duration: session.max_session_duration,
        s3_output_url: s3_output_url.flatten(),
        cloud_watch_output_url: cloud_watch_output_url.flatten(),
    })
}

/// AWS gives milliseconds, as a fraction of seconds: what is beyond them is noise of the floating point. None for a time
/// that no calendar has.
fn timestamp(date: DateTime) -> Option<Timestamp> {
    let milliseconds = (i64::from(date.subsec_nanos()) + 500_000) / 1_000_000;
    let milliseconds = date.secs().checked_mul(1000)?.checked_add(milliseconds)?;
    Timestamp::from_millisecond(milliseconds).ok()
}

pub(super) fn state(state: SessionState) -> types::SessionState {
    match state {
        SessionState::Active => types::SessionState::Active,
        SessionState::History => types::SessionState::History,
    }
}

/// None for no filters: an empty list is refused.
pub(super) fn filters(
    filters: &[Filter],
) -> Result<Option<Vec<types::SessionFilter>>, BrokerError> {
    let converted = filters.iter().map(|Filter { key, value }| {
        let built = types::SessionFilter::builder()
            .key(filter_key(*key))
            .value(value)
            .build();
        built.map_err(|_| {
            let message = "a filter without key or value";
            BrokerError::new(ErrorKind::InvalidRequest, "DescribeSessions", message)
        })
    });
    let converted: Vec<_> = converted.collect::<Result<_, _>>()?;
    Ok((!converted.is_empty()).then_some(converted))
}

fn filter_key(key: FilterKey) -> types::SessionFilterKey {
    match key {
        FilterKey::InvokedAfter => types::SessionFilterKey::InvokedAfter,
        FilterKey::InvokedBefore => types::SessionFilterKey::InvokedBefore,
        FilterKey::Target => types::SessionFilterKey::TargetId,
        FilterKey::Owner => types::SessionFilterKey::Owner,
        FilterKey::Status => types::SessionFilterKey::Status,
        FilterKey::SessionId => types::SessionFilterKey::SessionId,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_has_the_milliseconds_that_aws_gave_and_no_more() {
        for (seconds, text) in [
            (1_795_331_797.782, "2026-11-22T07:16:37.782Z"),
            (1_795_331_797.0, "2026-11-22T07:16:37Z"),
            (1_795_331_797.999_6, "2026-11-22T07:16:38Z"),
            (-0.25, "1969-12-31T23:59:59.75Z"),
        ] {
            let date = timestamp(DateTime::from_secs_f64(seconds));
            assert_eq!(date.map(|date| date.to_string()).as_deref(), Some(text));
        }
        assert_eq!(timestamp(DateTime::from_secs(i64::MAX)), None);
    }
}
