//! The trace of a session's start: from StartSession until clients are let in, or until it came to nothing.
//!
//! What failed says why in words of our own: a trace repeats nobody's.

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
            otel.status_description = Empty,
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
    pub(super) fn failed(&mut self, why: &str) {
        fail(&self.0, why);
        self.end("Failed");
    }

    fn end(&mut self, outcome: &str) {
        self.0.record("outcome", outcome);
        *self = Self::none();
    }
}

/// The span of a part of a start. One that is dropped before it has ended has failed: the start was given up meanwhile.
#[derive(Debug)]
pub(super) struct Part(Span);

impl Part {
    /// No part of a start.
    pub(super) fn none() -> Self {
        Self(Span::none())
    }

    /// The way to the gateway, and the admission there.
    pub(super) fn websocket(start: &Span) -> Self {
        Self(info_span!(
            parent: start,
            "open websocket",
            otel.kind = "client",
            otel.status_description = Empty,
        ))
    }

    /// The handshake with the agent.
    pub(super) fn handshake(start: &Span) -> Self {
        Self(info_span!(
            parent: start,
            "handshake",
            otel.status_description = Empty,
        ))
    }

    /// The span, for what is done within.
    pub(super) fn span(&self) -> Span {
        self.0.clone()
    }

    /// It has ended, well unless it is said why not.
    pub(super) fn ended(mut self, failure: Option<&str>) {
        if let Some(why) = failure {
            fail(&self.0, why);
        }
        self.0 = Span::none();
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        fail(&self.0, "given up: too late, or no longer wanted");
    }
}

/// The description is what makes the status of a span that of an error.
fn fail(span: &Span, why: &str) {
    span.record("otel.status_description", why);
}
