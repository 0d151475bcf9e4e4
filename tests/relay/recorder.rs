//! A recorder in memory that can fail on demand.

use std::sync::Mutex;

use futures::FutureExt;
use futures::future::BoxFuture;
use ssm_session_operator::relay::{RecordError, Recorder, Report, State};
use tokio::sync::watch;

use crate::ground::within;

/// How a shelf takes reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Keep,
    /// Nothing can be recorded.
    Fail,
    /// Nothing with a live session can be recorded.
    FailSessions,
    /// A report is never answered for.
    Hang,
    /// The listener belongs to another relay.
    NotOurs,
    /// The recorder has a bug.
    Panic,
}

/// Every report that was recorded, oldest first.
pub struct Shelf {
    reports: watch::Sender<Vec<Report>>,
    /// Calls, failed ones included.
    calls: watch::Sender<u64>,
    mode: Mutex<Mode>,
}

impl Default for Shelf {
    fn default() -> Self {
        Self {
            reports: watch::Sender::default(),
            calls: watch::Sender::default(),
            mode: Mutex::new(Mode::Keep),
        }
    }
}

impl Shelf {
    pub fn set(&self, mode: Mode) {
        *self.mode.lock().expect("a mode") = mode;
    }

    pub fn reports(&self) -> Vec<Report> {
        self.reports.borrow().clone()
    }

    pub fn last(&self) -> Option<Report> {
        self.reports.borrow().last().cloned()
    }

    /// Waits for a report that meets a condition, the last one or an earlier one.
    pub async fn wait_for(&self, what: &str, condition: impl Fn(&Report) -> bool) -> Report {
        let mut reports = self.reports.subscribe();
        let waited = reports.wait_for(|reports| reports.iter().any(&condition));
        let reports = within(what, waited).await.expect("the shelf");
        let found = reports.iter().rfind(|report| condition(report));
        found.expect("it was there").clone()
    }

    /// Waits until the last report meets a condition.
    pub async fn wait_last(&self, what: &str, condition: impl Fn(&Report) -> bool) -> Report {
        let mut reports = self.reports.subscribe();
        let waited = reports.wait_for(|reports| reports.last().is_some_and(&condition));
        let reports = within(what, waited).await.expect("the shelf");
        reports.last().expect("it was there").clone()
    }

    /// Waits for the report that a stopped listener leaves.
    pub async fn wait_ended(&self) -> Report {
        let ended = |report: &Report| report.state == State::Ended;
        self.wait_last("the end of the listener", ended).await
    }

    /// Waits until the relay has tried to record so many times.
    pub async fn wait_calls(&self, calls: u64) {
        let mut seen = self.calls.subscribe();
        let waited = within(
            "calls of the recorder",
            seen.wait_for(|seen| *seen >= calls),
        )
        .await;
        waited.expect("the shelf");
    }
}

impl Recorder for Shelf {
    fn record<'a>(&'a self, report: &'a Report) -> BoxFuture<'a, Result<(), RecordError>> {
        async move {
            self.calls.send_modify(|calls| *calls += 1);
            let mode = *self.mode.lock().expect("a mode");
            let has_session = report.sessions.iter().any(|session| session.end.is_none());
            match mode {
                Mode::Fail => return Err(RecordError::Unavailable("told to fail".to_owned())),
                Mode::FailSessions if has_session => {
                    return Err(RecordError::Unavailable("told to fail".to_owned()));
                }
                Mode::NotOurs => return Err(RecordError::NotOurs),
                Mode::Hang => std::future::pending().await,
                Mode::Panic => panic!("told to panic"),
                Mode::Keep | Mode::FailSessions => {}
            }
            self.reports
                .send_modify(|reports| reports.push(report.clone()));
            Ok(())
        }
        .boxed()
    }
}
