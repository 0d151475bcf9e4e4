//! The trace of a session's start: from StartSession until clients are let in, or until it came to nothing.

use tracing::field::Empty;
use tracing::{Span, info_span};

use super::report::ListenerId;
use crate::broker::{Identity, SessionId, StartRequest};

/// The span of the start that is under way, if one is.
#[derive(Debug)]
pub(super) struct Starting(Span);

impl Starting {
    /// None is under way.
    pub(super) fn none() -> Self {
        Self(Span::none())
    }

    /// One begins, of this listener.
    pub(super) fn begin(
        listener: &ListenerId,
        identity: &Identity,
        request: &StartRequest,
    ) -> Self {
        Self(info_span!(
            "start session",
            %listener,
            cloud.region = identity.region,
            target = request.target,
            document = request.document,
            session = Empty,
            outcome = Empty,
            otel.status_code = Empty,
        ))
    }

    /// The span, for what is done within.
    pub(super) fn span(&self) -> Span {
        self.0.clone()
    }

    /// AWS has started the session.
    pub(super) fn is_of(&self, session: &SessionId) {
        self.0.record("session", session.as_str());
    }

    /// Clients are let in.
    pub(super) fn served(&mut self) {
        self.end("Served");
    }

    /// It came to nothing.
    pub(super) fn failed(&mut self) {
        self.0.record("otel.status_code", "ERROR");
        self.end("Failed");
    }

    fn end(&mut self, outcome: &str) {
        self.0.record("outcome", outcome);
        *self = Self::none();
    }
}
