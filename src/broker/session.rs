//! AWS sessions as DescribeSessions shows them.

use std::fmt;

use jiff::Timestamp;

/// Id of an AWS session: 1..96 characters, never empty, since TerminateSession of an empty id says AccessDenied.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(String);

impl SessionId {
    /// Accepts 1..96 printable ASCII characters without space or slash.
    #[must_use]
    pub fn parse(id: &str) -> Option<Self> {
        let printable = id.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
        ((1..=96).contains(&id.len()) && printable).then(|| Self(id.to_owned()))
    }

    /// The id as AWS writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The two halves of DescribeSessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionState {
    /// Connected and disconnected sessions.
    Active,
    /// Those that ended in the past 30 days.
    History,
}

/// What DescribeSessions can be filtered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FilterKey {
    /// Sessions that started at or after a time.
    InvokedAfter,
    /// Sessions that started before a time.
    InvokedBefore,
    /// The managed node.
    Target,
    /// Who started it.
    Owner,
    /// Its status.
    Status,
    /// Its id.
    SessionId,
}

/// One filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// What is compared.
    pub key: FilterKey,
    /// With what, 1..400 characters.
    pub value: String,
}

/// A page of sessions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionPage {
    /// The sessions; may be empty while there is a next token.
    pub sessions: Vec<DescribedSession>,
    /// Asks for the next page; none after the last.
    pub next_token: Option<String>,
}

/// One session, word for word; everything but its id is optional.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedSession {
    /// Its id.
    pub session_id: SessionId,
    /// `Connected`, `Connecting`, `Disconnected`, `Terminated`, `Terminating`, `Failed`, or what AWS adds.
    pub status: Option<String>,
    /// The managed node.
    pub target: Option<String>,
    /// The document.
    pub document_name: Option<String>,
    /// ARN of who started it.
    pub owner: Option<String>,
    /// The reason given.
    pub reason: Option<String>,
    /// Reserved by AWS.
    pub details: Option<String>,
    /// `Standard` or `JustInTime`.
    pub access_type: Option<String>,
    /// When it started.
    pub start_date: Option<Timestamp>,
    /// When it ended.
    pub end_date: Option<Timestamp>,
    /// Minutes, as AWS writes them.
    pub max_session_duration: Option<String>,
    /// Where AWS logs it in S3.
    pub s3_output_url: Option<String>,
    /// Where AWS logs it in CloudWatch.
    pub cloud_watch_output_url: Option<String>,
}
