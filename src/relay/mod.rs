//! The data plane of one process: listeners, tunnels, websockets.
//!
//! It does not know why a listener exists, and runs without Kubernetes against any broker: its owner says what is
//! wished for, and keeps its reports through a [`Recorder`].

pub mod options;
pub mod report;

use std::sync::Arc;
use std::time::Duration;

pub use options::RelayOptions;
pub use report::{
    Destination, EndReason, Failure, Inherited, ListenerId, ListenerSpec, RecordError, Recorder,
    Report, SessionEnd, SessionRecord, State,
};

use crate::broker::Broker;

/// The listeners of one process.
#[derive(Clone)]
pub struct Relay {
    broker: Arc<dyn Broker>,
}

impl Relay {
    /// A relay without listeners.
    #[must_use]
    pub fn new(options: RelayOptions, broker: Arc<dyn Broker>) -> Self {
        let _ = options;
        Self { broker }
    }

    /// Serves a listener as `spec` says, from now on; returns at once and may be said again and again.
    ///
    /// `inherited` and `recorder` count when the listener is new to this relay.
    pub fn ensure(
        &self,
        id: &ListenerId,
        spec: ListenerSpec,
        inherited: Inherited,
        recorder: Arc<dyn Recorder>,
    ) {
        let _ = (id, spec, inherited, recorder, &self.broker);
    }

    /// Begins to stop a listener: it listens no more, its clients are reset, its sessions are terminated and recorded
    /// as ended for `reason`, and its last report has [`State::Ended`]. Returns at once.
    pub fn stop(&self, id: &ListenerId, reason: EndReason) {
        let _ = (id, reason);
    }

    /// The listeners that this relay serves or has not finished stopping.
    #[must_use]
    pub fn listeners(&self) -> Vec<ListenerId> {
        Vec::new()
    }

    /// Stops everything because the process ends: sessions are terminated as [`EndReason::RelayLost`], since no other
    /// run can go on with them, and reports say not ready. Gives up after `deadline`.
    pub async fn shutdown(&self, deadline: Duration) {
        let _ = deadline;
    }
}
