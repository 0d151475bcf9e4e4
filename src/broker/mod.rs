//! Who hands out sessions: the trait that the relay and the controller call, and that `aws` implements.
//!
//! The floor knows no SDK and no Kubernetes. It promises that a secret (a token, a signed header) prints as
//! `[redacted]`, and that every error says what to do next.

pub mod error;
pub mod identity;
pub mod marker;
pub mod session;
pub mod ticket;
pub mod url;
#[cfg(test)]
mod url_tests;

use futures::future::BoxFuture;

pub use error::{BrokerError, ErrorKind, Next, RequestId};
pub use identity::{Identity, Role};
pub use marker::Marker;
pub use session::{DescribedSession, Filter, FilterKey, SessionId, SessionPage, SessionState};
pub use ticket::{SignedHeaders, Ticket};
pub use url::{HostPort, StreamUrl, UrlPolicy};

/// What StartSession is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartRequest {
    /// The managed node, 1..400 characters.
    pub target: String,
    /// The document.
    pub document: String,
    /// The document's parameters.
    pub parameters: std::collections::BTreeMap<String, Vec<String>>,
    /// The reason with the marker at its end, 256 characters at most.
    pub reason: String,
}

/// The calls of the AWS API that sessions need.
///
/// Every call has a deadline of its own and passes the identity's rate limiter. Credentials are resolved for each
/// call. Dropping a future abandons the call; AWS may still carry it out.
pub trait Broker: Send + Sync + 'static {
    /// StartSession, once: it is never retried here, since a retried start may leave a second session.
    ///
    /// # Errors
    /// A ticket without a token counts as success; the caller terminates it.
    fn start<'a>(
        &'a self,
        identity: &'a Identity,
        request: &'a StartRequest,
    ) -> BoxFuture<'a, Result<Ticket, BrokerError>>;

    /// ResumeSession: a new token for a session whose websocket is gone.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`] when the session is over: AWS does not know it, or gives no token.
    fn resume<'a>(
        &'a self,
        identity: &'a Identity,
        session: &'a SessionId,
    ) -> BoxFuture<'a, Result<Ticket, BrokerError>>;

    /// TerminateSession; succeeds for a session that is over already.
    ///
    /// # Errors
    /// Anything but an answer without error: then the session may still be live.
    fn terminate<'a>(
        &'a self,
        identity: &'a Identity,
        session: &'a SessionId,
    ) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// One page of DescribeSessions, 200 sessions at most. A page may be empty and still have a next token.
    ///
    /// # Errors
    /// As classified.
    fn describe<'a>(
        &'a self,
        identity: &'a Identity,
        state: SessionState,
        filters: &'a [Filter],
        next_token: Option<&'a str>,
    ) -> BoxFuture<'a, Result<SessionPage, BrokerError>>;

    /// The headers that sign a websocket upgrade to `url` with SigV4, service `ssmmessages`, empty body.
    ///
    /// # Errors
    /// [`ErrorKind::CredentialsUnavailable`] when there is nothing to sign with.
    fn sign_upgrade<'a>(
        &'a self,
        identity: &'a Identity,
        url: &'a StreamUrl,
    ) -> BoxFuture<'a, Result<SignedHeaders, BrokerError>>;
}
