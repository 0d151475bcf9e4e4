//! The data plane of one process: listeners, tunnels, websockets.
//!
//! It does not know why a listener exists, and runs without Kubernetes against any broker: its owner says what is
//! wished for, and keeps its reports through a [`Recorder`].

mod acceptor;
mod budget;
mod client;
mod listener;
mod loss;
mod metrics;
pub mod options;
mod ports;
pub mod report;
mod serve;
mod sessions;
mod splice;
mod starting;
mod tunnel;
mod websocket;
mod wish;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, error, warn};

pub use budget::sessions_max;
pub use metrics::Metrics;
pub use options::RelayOptions;
pub use report::{
    Destination, EndReason, Failure, Inherited, ListenerId, ListenerSpec, RecordError, Recorder,
    Report, SessionEnd, SessionRecord, State,
};

use crate::backoff::Backoff;
use crate::broker::Broker;
use budget::Budget;
use ports::Ports;
use serve::{Exit, Server, Shared};
use wish::{Order, Wish};

/// The listeners of one process. Clones are the same relay.
#[derive(Clone)]
pub struct Relay {
    shared: Arc<Shared>,
    wishes: Arc<Mutex<HashMap<ListenerId, watch::Sender<Wish>>>>,
    servers: TaskTracker,
}

impl Relay {
    /// A relay without listeners. It has to be used within a tokio runtime.
    #[must_use]
    pub fn new(options: RelayOptions, broker: Arc<dyn Broker>, metrics: Metrics) -> Self {
        let addresses = options.listen_addresses.clone();
        let ports = Ports::new(addresses, options.ports.clone(), options.port_quarantine);
        let budget = Budget::new(options.buffers_max, &metrics);
        let (options, ports) = (Arc::new(options), Arc::new(ports));
        Self {
            shared: Arc::new(Shared {
                options,
                broker,
                ports,
                metrics,
                budget: Arc::new(budget),
                everybody: Arc::default(),
            }),
            wishes: Arc::default(),
            servers: TaskTracker::new(),
        }
    }

    /// Serves a listener as `spec` says, from now on; returns at once and may be said again and again.
    ///
    /// `inherited` and `recorder` count when the listener is new to this relay, or was stopped before; one that is
    /// still being stopped is served anew afterwards. New listeners take their ports in the order of these calls. After
    /// [`Self::shutdown`] nothing is served any more. What is logged of a listener is in the span in which it became
    /// new.
    pub fn ensure(
        &self,
        id: &ListenerId,
        spec: ListenerSpec,
        inherited: Inherited,
        recorder: Arc<dyn Recorder>,
    ) {
        let order = Order {
            spec,
            inherited,
            recorder,
        };
        let mut wishes = self.wishes();
        if let Some(sender) = wishes.get(id) {
            sender.send_modify(|wish| {
                *wish = match wish {
                    Wish::Serve(_) => Wish::Serve(Box::new(order)),
                    // Its server may not even have heard yet that it is to stop.
                    Wish::Stop(reason) | Wish::Restart(reason, _) => {
                        Wish::Restart(*reason, Box::new(order))
                    }
                    Wish::Shutdown(of) => Wish::Shutdown(*of),
                };
            });
            return;
        }
        if self.servers.is_closed() {
            return;
        }
        let server = Server::new(id.clone(), self.shared.clone(), order.clone());
        let (sender, wish) = watch::channel(Wish::Serve(Box::new(order)));
        wishes.insert(id.clone(), sender);
        // Whoever wishes says in the logs' span what the listener is for.
        let serving = self.clone().serve(id.clone(), server, wish);
        self.servers.spawn(serving.in_current_span());
    }

    /// Begins to stop a listener: it listens no more, its clients are reset, its sessions are terminated and recorded
    /// as ended for `reason`, and its last report has [`State::Ended`]. Returns at once.
    pub fn stop(&self, id: &ListenerId, reason: EndReason) {
        if let Some(sender) = self.wishes().get(id) {
            sender.send_if_modified(|wish| match wish {
                Wish::Serve(_) | Wish::Restart(..) => {
                    *wish = Wish::Stop(reason);
                    true
                }
                Wish::Stop(_) | Wish::Shutdown(_) => false,
            });
        }
    }

    /// The listeners that this relay serves or has not finished stopping.
    #[must_use]
    pub fn listeners(&self) -> Vec<ListenerId> {
        self.wishes().keys().cloned().collect()
    }

    /// Stops everything because the process ends: sessions are terminated as [`EndReason::RelayLost`], since no other
    /// run can go on with them, and reports say not ready. Gives up after `deadline`.
    pub async fn shutdown(&self, deadline: Duration) {
        self.servers.close();
        for sender in self.wishes().values() {
            sender.send_if_modified(|wish| match wish {
                Wish::Serve(_) => {
                    *wish = Wish::Shutdown(None);
                    true
                }
                Wish::Stop(reason) | Wish::Restart(reason, _) => {
                    *wish = Wish::Shutdown(Some(*reason));
                    true
                }
                Wish::Shutdown(_) => false,
            });
        }
        if timeout(deadline, self.servers.wait()).await.is_err() {
            let left = self.listeners().len();
            warn!(
                left,
                "sessions of some listeners were not terminated in time; the next run or the sweeper does"
            );
        }
    }

    /// Serves a listener until it is stopped for good; a wish that came while it stopped starts it again.
    async fn serve(self, id: ListenerId, first: Server, mut wish: watch::Receiver<Wish>) {
        let mut server = first;
        loop {
            let Ok(exit) = AssertUnwindSafe(server.run(&mut wish)).catch_unwind().await else {
                let options = &self.shared.options;
                // What panics at once would otherwise start sessions as fast as its owner begins it anew.
                let pause = Backoff::new(options.backoff_max, options.backoff_max).next_delay();
                error!(listener = %id, ?pause, "serving the listener has panicked: it is let go of after a pause, for its owner to begin it anew");
                let unwanted = wish.wait_for(|wish| !matches!(wish, Wish::Serve(_)));
                let _ = timeout(pause, unwanted).await;
                self.wishes().remove(&id);
                break;
            };
            server = {
                let mut wishes = self.wishes();
                // The wish under which it was disowned is void; a later one may come from who owns it now.
                let void = exit == Exit::Disowned && !wish.has_changed().unwrap_or(false);
                let current = wish.borrow_and_update().clone();
                match current {
                    Wish::Serve(order) | Wish::Restart(_, order) if !void => {
                        if let Some(sender) = wishes.get(&id) {
                            sender.send_if_modified(|wish| {
                                *wish = Wish::Serve(order.clone());
                                false
                            });
                        }
                        Server::new(id.clone(), self.shared.clone(), *order)
                    }
                    Wish::Serve(_) | Wish::Restart(..) | Wish::Stop(_) | Wish::Shutdown(_) => {
                        wishes.remove(&id);
                        break;
                    }
                }
            };
        }
    }

    fn wishes(&self) -> MutexGuard<'_, HashMap<ListenerId, watch::Sender<Wish>>> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
