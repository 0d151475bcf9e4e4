//! What the owner of a listener wishes of it: the word between the relay and the listener's task.

use std::sync::Arc;

use super::report::{EndReason, Inherited, ListenerSpec, Recorder};

/// What it takes to serve a listener.
#[derive(Clone)]
pub(super) struct Order {
    pub(super) spec: ListenerSpec,
    pub(super) inherited: Inherited,
    pub(super) recorder: Arc<dyn Recorder>,
}

/// What the owner wishes of a listener.
#[derive(Clone)]
pub(super) enum Wish {
    Serve(Box<Order>),
    Stop(EndReason),
    /// To be stopped for good, and then served anew.
    Restart(EndReason, Box<Order>),
    /// The process ends. With why it was to be stopped for good before, if it was.
    Shutdown(Option<EndReason>),
}
