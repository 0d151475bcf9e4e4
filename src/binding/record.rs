//! Keeps a listener's reports in `SsmListener.status`.
//!
//! Every write carries the UID and the resourceVersion of an object in which `spec.relay` names this relay, so a write
//! that succeeds proves that the listener was still ours. On a conflict the object is read again, and nothing is
//! written once it belongs to another relay or another run of this one, or once its record is not the one that was
//! taken over. A listener that is being deleted is never claimed: its grant was withdrawn.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::metrics::BindingMetrics;
use super::status::{Writer, status_of};
use super::words;
use crate::crd::listener::ListenerState;
use crate::crd::{SsmListener, SsmListenerStatus};
use crate::reading::Guarded;
use crate::relay::{RecordError, Recorder, Report, State};

/// The field manager of our status writes.
pub const FIELD_MANAGER: &str = "ssm-session-operator-relay";

/// Writes of one report before it counts as not recorded. Every lost round means that somebody else wrote meanwhile,
/// and a listener has two writers, neither of which writes twice a second.
const TRIES_MAX: usize = 4;

/// What all recorders of a process share.
#[derive(Clone, Debug)]
pub struct Desk {
    /// Who writes.
    pub writer: Writer,
    /// Cancelled once another run of this relay has taken over: from then on this one writes nothing.
    pub fenced: CancellationToken,
    /// How long one report may take, all tries together; shorter than the relay waits for a session's record.
    pub deadline: Duration,
    /// What is counted.
    pub metrics: BindingMetrics,
}

/// Records one listener.
#[derive(Debug)]
pub struct KubeRecorder {
    api: Api<Guarded<SsmListener>>,
    desk: Desk,
    name: String,
    uid: String,
    known: Mutex<Known>,
    /// One write at a time, so that a report never overtakes an earlier one.
    turn: tokio::sync::Mutex<()>,
    given_up: AtomicBool,
}

/// The newest that is known of the object.
#[derive(Clone, Debug)]
struct Known {
    object: SsmListener,
    /// Whether this run has written a status: from then on another writer's status means that it was moved meanwhile.
    claimed: bool,
}

/// What to do with a report.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The listener is another relay's, or another object: write nothing.
    NotOurs,
    /// The listener is being deleted: nothing may be started for it any more.
    Refused,
    /// It is recorded already.
    Done,
    /// Write this status over the object that was looked at.
    Write(Box<SsmListenerStatus>),
}

/// Decides what to do with `report`, given the newest object that is known.
///
/// A claim (a report in [`State::Starting`]) is written even if nothing in it is new: only a write that succeeds proves
/// that the listener is still ours, and AWS is called after it. Once the listener is being deleted it is refused, unless
/// it records a session: that must be on record before it is ended.
#[must_use]
pub fn decide(
    object: &SsmListener,
    uid: &str,
    claimed: bool,
    report: &Report,
    writer: &Writer,
) -> Step {
    let same_object = object.metadata.uid.as_deref() == Some(uid);
    let bound_here = object.spec.relay.as_deref() == Some(writer.relay.as_str());
    if !same_object || !bound_here || (claimed && written_by_another(object, writer)) {
        return Step::NotOurs;
    }
    let status = status_of(report, writer);
    if is_refused(object, report) && !records_more(&status, object) {
        return Step::Refused;
    }
    if report.state != State::Starting && object.status.as_ref() == Some(&status) {
        return Step::Done;
    }
    Step::Write(Box::new(status))
}

/// Whether `report` would be a claim on a listener that is being deleted.
fn is_refused(object: &SsmListener, report: &Report) -> bool {
    report.state == State::Starting && object.metadata.deletion_timestamp.is_some()
}

/// Whether `status` has a session that is not on record yet.
fn records_more(status: &SsmListenerStatus, object: &SsmListener) -> bool {
    let recorded = object.status.iter().flat_map(|status| &status.sessions);
    let recorded: HashSet<&str> = recorded
        .map(|session| session.session_id.as_str())
        .collect();
    let mut sessions = status.sessions.iter();
    sessions.any(|session| !recorded.contains(session.session_id.as_str()))
}

/// Whether the last status is of another relay, or of another run of this one.
fn written_by_another(object: &SsmListener, writer: &Writer) -> bool {
    object.status.as_ref().is_some_and(|status| {
        status.relay != writer.relay || status.incarnation != writer.incarnation
    })
}

/// Whether `other` is newer than `known`. A version that is no number can't be compared and counts as newer: at worst
/// the next write meets a conflict and reads again.
fn is_newer(other: &SsmListener, known: &SsmListener) -> bool {
    let version = |object: &SsmListener| {
        object
            .metadata
            .resource_version
            .as_deref()
            .and_then(|text| text.parse::<u64>().ok())
    };
    match (version(other), version(known)) {
        (Some(other), Some(known)) => other > known,
        (None, _) | (_, None) => true,
    }
}

impl Known {
    /// Whether somebody else wrote the status since this object was read. Before the claim that is the last word of
    /// the run before, which may name sessions that were not taken over: a claim would strike them off the record.
    fn is_overtaken_by(&self, newer: &SsmListener, writer: &Writer) -> bool {
        let is_news = self.claimed || newer.status != self.object.status;
        is_news && written_by_another(newer, writer)
    }
}

impl KubeRecorder {
    /// A recorder of `object`, as it was read with this relay in `spec.relay`. `None` for an object without name or
    /// UID, which no API server serves.
    #[must_use]
    pub fn new(api: Api<Guarded<SsmListener>>, desk: Desk, object: SsmListener) -> Option<Self> {
        Some(Self {
            api,
            desk,
            name: object.metadata.name.clone()?,
            uid: object.metadata.uid.clone()?,
            known: Mutex::new(Known {
                object,
                claimed: false,
            }),
            turn: tokio::sync::Mutex::new(()),
            given_up: AtomicBool::new(false),
        })
    }

    /// Takes note of what the watch shows. An object in which somebody else wrote the status after we read it was moved
    /// away and back, or belonged to a run that had not ended: this recorder gives it up, and it is begun anew.
    pub fn observe(&self, object: &SsmListener) {
        let mut known = self.known();
        if !is_newer(object, &known.object) {
            return;
        }
        if known.is_overtaken_by(object, &self.desk.writer) {
            self.give_up();
        }
        known.object = object.clone();
    }

    /// Writes nothing from now on: the listener is not ours any more.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    /// Whether this recorder found that the listener is not ours any more, or was told so.
    #[must_use]
    pub fn has_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    /// Whether this run's word that all of the listener has ended is on record.
    #[must_use]
    pub fn has_recorded_end(&self) -> bool {
        let known = self.known();
        let status = known.object.status.as_ref();
        let ended = |status: &SsmListenerStatus| status.state == ListenerState::Ended;
        status.is_some_and(ended) && !written_by_another(&known.object, &self.desk.writer)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        // Every change under the lock is one assignment, so a panic elsewhere leaves nothing half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(&self, report: &Report) -> Result<(), RecordError> {
        let _turn = self.turn.lock().await;
        for _ in 0..TRIES_MAX {
            if self.has_given_up() || self.desk.fenced.is_cancelled() {
                return Err(RecordError::NotOurs);
            }
            let Known { object, claimed } = self.known().clone();
            let status = match decide(&object, &self.uid, claimed, report, &self.desk.writer) {
                Step::NotOurs => return Err(self.not_ours("it belongs to another")),
                Step::Refused => return Err(being_deleted()),
                Step::Done => return Ok(()),
                Step::Write(status) => status,
            };
            let body = status_body(&object, *status);
            let params = PostParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PostParams::default()
            };
            // Guarded what comes, not what goes.
            let sent = Guarded(Ok(body.clone()));
            match self.api.replace_status(&self.name, &params, &sent).await {
                Ok(answer) => {
                    self.desk.metrics.status_writes.inc();
                    let stored = stored(answer, body);
                    let refused = is_refused(&stored, report);
                    *self.known() = Known {
                        object: stored,
                        claimed: true,
                    };
                    return if refused {
                        Err(being_deleted())
                    } else {
                        Ok(())
                    };
                }
                Err(kube::Error::Api(status)) if status.is_not_found() => {
                    return Err(self.not_ours("it is gone"));
                }
                Err(kube::Error::Api(status)) if status.is_conflict() => {
                    self.desk.metrics.status_conflicts.inc();
                    debug!(
                        listener = self.name,
                        "status write met a newer object: reading it"
                    );
                    self.read_again().await?;
                }
                Err(error) => return Err(self.unavailable(&words(&error))),
            }
        }
        let message = format!("{TRIES_MAX} writes of the status met newer objects");
        Err(RecordError::Unavailable(message))
    }

    async fn read_again(&self) -> Result<(), RecordError> {
        match self.api.get(&self.name).await {
            Ok(Guarded(Ok(object))) => {
                let mut known = self.known();
                if known.is_overtaken_by(&object, &self.desk.writer) {
                    drop(known);
                    return Err(self.not_ours("another has written its status meanwhile"));
                }
                known.object = object;
                Ok(())
            }
            // Whose it is may be in what can't be read. The watch shows what can be made of it, and then it is tried again.
            Ok(Guarded(Err(unreadable))) => Err(self.unavailable(&unreadable.why)),
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                Err(self.not_ours("it is gone"))
            }
            Err(error) => Err(self.unavailable(&words(&error))),
        }
    }

    fn not_ours(&self, why: &str) -> RecordError {
        info!(
            listener = self.name,
            why, "the listener is no longer this relay's: dropping it"
        );
        self.give_up();
        RecordError::NotOurs
    }

    fn unavailable(&self, why: &str) -> RecordError {
        self.desk.metrics.status_failures.inc();
        RecordError::Unavailable(format!("the API server refused the status: {why}"))
    }
}

/// No sign that the listener is another's: its end must still be recorded, once the watch has shown the deletion.
fn being_deleted() -> RecordError {
    RecordError::Unavailable("the listener is being deleted: nothing is started for it".to_owned())
}

impl Recorder for KubeRecorder {
    fn record<'a>(&'a self, report: &'a Report) -> BoxFuture<'a, Result<(), RecordError>> {
        async move {
            let deadline = self.desk.deadline;
            tokio::time::timeout(deadline, self.write(report))
                .await
                .unwrap_or_else(|_| {
                    self.desk.metrics.status_failures.inc();
                    let message = format!("the API server did not answer within {deadline:?}");
                    Err(RecordError::Unavailable(message))
                })
        }
        .boxed()
    }
}

/// The object once its status was written. What can't be read of the answer is as it was sent: the write was done.
fn stored(answer: Guarded<SsmListener>, sent: SsmListener) -> SsmListener {
    answer.0.unwrap_or_else(|unreadable| SsmListener {
        metadata: unreadable.metadata,
        ..sent
    })
}

/// The object of a status write. Of the metadata it carries what guards the write and nothing else; the API server
/// keeps the rest, and the spec, as they are.
fn status_body(object: &SsmListener, status: SsmListenerStatus) -> SsmListener {
    let ObjectMeta {
        name,
        namespace,
        uid,
        resource_version,
        ..
    } = object.metadata.clone();
    SsmListener {
        metadata: ObjectMeta {
            name,
            namespace,
            uid,
            resource_version,
            ..ObjectMeta::default()
        },
        spec: object.spec.clone(),
        status: Some(status),
    }
}
