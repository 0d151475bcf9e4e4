//! What a decision about a session says: its plan, and the words that every part of the decision uses.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use tokio::time::Instant;

use super::mirror::Mirror;
use super::observe::{Doomed, Observed};
use crate::crd::condition::StalledReason;
use crate::crd::{SsmListener, SsmSessionStatus};

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Until a missing class or a denied call is called Stalled.
    pub stalled_after: Duration,
    /// Until a deleted session goes without its listeners, and one that is drained without what AWS says of the ends.
    pub finalizer_timeout: Duration,
    /// Until an end that AWS does not show is given up.
    pub history_timeout: Duration,
    /// Between two looks at a Service that is not ours.
    pub conflict_interval: Duration,
}

/// One moment on both clocks: conditions carry the wall's, delays are measured on the other.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For people and for comparison with the API server's.
    pub wall: Timestamp,
    /// Monotonic.
    pub instant: Instant,
}

/// Ids of AWS sessions that a message names: two of each former identity, and far from what a message may hold.
const HELD_IDS_MAX: usize = 8;

/// A listener that goes on as it is, since AWS sessions that were started with too many former identities have not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its port.
    pub port: String,
    /// The ids of those sessions.
    pub sessions: Vec<String>,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { port, sessions } = self;
        write!(
            f,
            "port {port} goes on as before the last change of its class, until "
        )?;
        if sessions.is_empty() {
            return f.write_str("its relay has read the changes before that");
        }
        let named = &sessions[..sessions.len().min(HELD_IDS_MAX)];
        let named = named.join(", ");
        write!(
            f,
            "AWS sessions have ended that only its former identities can end: {named}"
        )?;
        match sessions.len() - sessions.len().min(HELD_IDS_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// How the session's finalizer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Nothing of it is left.
    Clean,
    /// This many listeners still wait for AWS; they go on without the session.
    Pending(usize),
}

/// What to write, in the order of the fields; the status after them, and the release last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The finalizer goes on before anything is made.
    pub add_finalizer: bool,
    /// Slices that are no longer true.
    pub delete_slices: Vec<String>,
    /// Listeners that are no longer asked for.
    pub delete_listeners: Vec<Doomed>,
    /// The Service does not exist.
    pub create_service: Option<Service>,
    /// Our Service lacks something.
    pub update_service: Option<Service>,
    /// Ports without a listener.
    pub create_listeners: Vec<SsmListener>,
    /// Listeners whose target, document, reason or identity changed.
    pub update_listeners: Vec<SsmListener>,
    /// Listeners whose change waits until AWS sessions with their former identities have ended.
    pub held_listeners: Vec<Held>,
    /// Slices that are missing or say something else.
    pub apply_slices: Vec<EndpointSlice>,
    /// Our Services of an earlier name.
    pub delete_services: Vec<Doomed>,
    /// What the status shall say; nothing is written when absent.
    pub status: Option<SsmSessionStatus>,
    /// The finalizer goes.
    pub release: Option<Release>,
    /// Since when this process has seen that the session goes, or goes over to another installation.
    pub leaving: Option<Instant>,
    /// Since when this process lets it go because the installation is asked to drain.
    pub draining: Option<Instant>,
    /// The finalizer of the installation that holds the session, when that is not this one: nothing is done here.
    pub held_by: Option<String>,
    /// The status says, or has said, that another installation holds the session.
    pub last_word: bool,
    /// A deleted session has waited long enough: the release comes whatever failed in its namespace.
    pub overdue: bool,
    /// What the mirror remembers and looks for.
    pub mirror: Mirror,
    /// The trouble that there is.
    pub trouble: Option<Trouble>,
    /// When to look again though nothing happens; at the next resync if absent.
    pub requeue_after: Option<Duration>,
}

impl Plan {
    /// Whether nothing is left to be written for what the spec asks.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.delete_listeners.is_empty()
            && self.create_service.is_none()
            && self.update_service.is_none()
            && self.create_listeners.is_empty()
            && self.update_listeners.is_empty()
            && self.held_listeners.is_empty()
            && self.apply_slices.is_empty()
    }
}

/// Something that keeps the declared state out of reach until somebody changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What.
    pub reason: StalledReason,
    /// In words, with what to do.
    pub message: String,
    /// It may be mended from elsewhere at any time: Stalled only once it lasts.
    pub passing: bool,
}

impl Trouble {
    /// With what the reason says of how soon it may pass.
    #[must_use]
    pub fn new(reason: StalledReason, message: impl Into<String>) -> Self {
        let passing = match reason {
            StalledReason::AccessDenied | StalledReason::ClassNotFound => true,
            StalledReason::ServiceConflict
            | StalledReason::InvalidDocument
            | StalledReason::InvalidRequest
            | StalledReason::UnsupportedSessionType => false,
        };
        Self {
            reason,
            message: message.into(),
            passing,
        }
    }
}

/// All listeners that are not being deleted yet, whatever can be read of them.
#[must_use]
pub fn all_doomed(observed: &Observed) -> Vec<Doomed> {
    let mut all = doomed(observed, |_| true);
    all.extend(observed.unread_listeners.staying.iter().cloned());
    all
}

/// Listeners that are to be deleted and are not being deleted yet.
#[must_use]
pub fn doomed(observed: &Observed, is_doomed: impl Fn(&SsmListener) -> bool) -> Vec<Doomed> {
    let listeners = observed.listeners.iter();
    let listeners = listeners.filter(|l| l.metadata.deletion_timestamp.is_none() && is_doomed(l));
    listeners
        .map(|l| (l.name_any(), l.uid().unwrap_or_default()))
        .collect()
}
