//! An AWS for tests that terminates sessions, and answers nothing else.

use std::future::{pending, ready};
use std::sync::Mutex;

use futures::future::BoxFuture;

use crate::broker::{
    Broker, BrokerError, ErrorKind, Filter, Identity, SessionId, SessionPage, SessionState,
    SignedHeaders, StartRequest, StreamUrl, Ticket,
};

/// Terminates what it is asked to, but denies ids with `denied` in them and never answers for ids with `hangs`.
#[derive(Default)]
pub struct FakeAws {
    /// The sessions that it was asked to terminate, in order.
    pub terminated: Mutex<Vec<String>>,
}

impl Broker for FakeAws {
    fn start<'a>(
        &'a self,
        _: &'a Identity,
        _: &'a StartRequest,
    ) -> BoxFuture<'a, Result<Ticket, BrokerError>> {
        Box::pin(pending())
    }

    fn resume<'a>(
        &'a self,
        _: &'a Identity,
        _: &'a SessionId,
    ) -> BoxFuture<'a, Result<Ticket, BrokerError>> {
        Box::pin(pending())
    }

    fn terminate<'a>(
        &'a self,
        _: &'a Identity,
        session: &'a SessionId,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.terminated
            .lock()
            .expect("not poisoned")
            .push(session.to_string());
        if session.as_str().contains("hangs") {
            return Box::pin(pending());
        }
        let denied = BrokerError::new(ErrorKind::AccessDenied, "TerminateSession", "no");
        let is_denied = session.as_str().contains("denied");
        Box::pin(ready(if is_denied { Err(denied) } else { Ok(()) }))
    }

    fn describe<'a>(
        &'a self,
        _: &'a Identity,
        _: SessionState,
        _: &'a [Filter],
        _: Option<&'a str>,
    ) -> BoxFuture<'a, Result<SessionPage, BrokerError>> {
        Box::pin(pending())
    }

    fn sign_upgrade<'a>(
        &'a self,
        _: &'a Identity,
        _: &'a StreamUrl,
    ) -> BoxFuture<'a, Result<SignedHeaders, BrokerError>> {
        Box::pin(pending())
    }
}
