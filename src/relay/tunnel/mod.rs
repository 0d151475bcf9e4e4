//! A tunnel: one running session. Its websockets come and go; its streams stay.
//!
//! The machine is behind a lock that is never held across an await. The driver alone touches the websocket; streams
//! talk to the machine and wake the driver, and the driver wakes the streams.

mod driver;
mod stream;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::task::AtomicWaker;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::Span;

use crate::broker::{Broker, Identity, Ticket};
use crate::protocol::{Config, End, Established, Limits, PortSession, StreamId};
use crate::relay::budget::Share;
use crate::relay::metrics::Metrics;
use crate::relay::options::RelayOptions;
use crate::relay::report::{Destination, Failure};
use driver::Driver;

pub use stream::{TunnelStream, WriteError};

/// Bytes sent and not acknowledged: the product of 20 MB/s and 50 ms of round trip.
const OUTBOX_BYTES_MAX: usize = 1 << 20;

/// How soon a session that has to be frugal looks whether it still has to be: others do not wake it when they give memory
/// back.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// What a tunnel shows to its listener.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TunnelState {
    /// What the handshake has shown, once it is complete.
    pub established: Option<Established>,
    /// What the agent's last dial came to.
    pub destination: Option<Destination>,
    /// Why there is no websocket, after the first that was opened or failed; none while one is up.
    pub trouble: Option<Failure>,
    /// Why the tunnel is over, once it is.
    pub end: Option<End>,
}

/// A running session. Dropping it closes the websocket and resets every stream; the AWS session lives on until it is
/// terminated.
pub struct Tunnel {
    shared: Arc<Shared>,
    state: watch::Receiver<TunnelState>,
    driver: AbortHandle,
}

/// What driver and streams share.
struct Shared {
    inner: Mutex<Inner>,
    driver: AtomicWaker,
    /// Told whenever there may be a place for another stream.
    place: Notify,
}

struct Inner {
    session: PortSession,
    readers: HashMap<StreamId, Waker>,
    writers: HashMap<StreamId, Waker>,
    /// Some of the writers wait for memory, and not for room in their streams.
    held_back: bool,
    share: Share,
    /// Since when a websocket is up; none while there is none.
    connected_since: Option<Instant>,
    /// No driver serves the session any more.
    closed: bool,
}

/// How a turn leaves the session.
struct Rest {
    /// What has come is read.
    reading: bool,
    deadline: Option<std::time::Instant>,
    /// Whether the session has memory to spare is different since the turn began: what it did by that is to be done anew.
    changed: bool,
}

/// Where streams are opened.
#[derive(Clone)]
pub struct TunnelHandle(Arc<Shared>);

/// Waits for the next state of a tunnel; for ever, if there is none.
pub async fn changed(state: &mut Option<watch::Receiver<TunnelState>>) -> TunnelState {
    match state {
        Some(receiver) => {
            if receiver.changed().await.is_err() {
                // The driver is gone without a word, which only a panic explains.
                let end = End::Violation("the tunnel's task has ended".to_owned());
                let last = TunnelState {
                    end: Some(end),
                    ..receiver.borrow().clone()
                };
                *state = None;
                return last;
            }
            receiver.borrow_and_update().clone()
        }
        None => std::future::pending().await,
    }
}

impl Tunnel {
    /// Opens the data channel of a session that was just started, as a part of that start.
    #[must_use]
    pub fn open(
        options: Arc<RelayOptions>,
        broker: Arc<dyn Broker>,
        identity: Identity,
        ticket: Ticket,
        metrics: Metrics,
        share: Share,
        start: Span,
    ) -> Self {
        let epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let config = Config {
            origin: Instant::now().into_std(),
            epoch_ms: u64::try_from(epoch.as_millis()).unwrap_or(u64::MAX),
            seed: fastrand::u64(..),
            outbox_bytes_max: OUTBOX_BYTES_MAX,
        };
        let limits = Limits {
            streams_max: options.connections_max,
            stall_limit: options.stall_limit,
        };
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner {
                session: PortSession::new(config, limits),
                readers: HashMap::new(),
                writers: HashMap::new(),
                held_back: false,
                share,
                connected_since: None,
                closed: false,
            }),
            driver: AtomicWaker::new(),
            place: Notify::new(),
        });
        let (sender, state) = watch::channel(TunnelState::default());
        let driver = Driver {
            shared: shared.clone(),
            state: sender,
            options,
            broker,
            identity,
            metrics,
            span: Span::current(),
        };
        let driver = tokio::spawn(driver.run(ticket, start)).abort_handle();
        Self {
            shared,
            state,
            driver,
        }
    }

    /// What the tunnel shows; changes wake the receiver.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<TunnelState> {
        self.state.clone()
    }

    /// Where streams are opened.
    #[must_use]
    pub fn handle(&self) -> TunnelHandle {
        TunnelHandle(self.shared.clone())
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.driver.abort();
        self.shared.close();
    }
}

impl TunnelHandle {
    /// Waits until there may be a place for another stream, from when it is polled first.
    pub fn place(&self) -> Notified<'_> {
        self.0.place.notified()
    }

    /// Opens a stream: the agent dials the destination. `None` when the tunnel is over, and while it has no place.
    #[must_use]
    pub fn open_stream(&self) -> Option<TunnelStream> {
        let id = {
            let mut inner = self.0.lock();
            if inner.closed {
                None
            } else {
                inner.session.open()
            }
        };
        // Also without a stream: that there can be none any more is the driver's to tell.
        self.0.wake_driver();
        Some(TunnelStream::new(self.0.clone(), id?))
    }
}

impl Inner {
    /// Says what the session keeps, and hears whether it may keep more; whether that is different now.
    fn settle(&mut self) -> bool {
        let frugal = self.share.settle(self.session.memory().bytes());
        let changed = frugal != self.session.is_frugal();
        if changed {
            self.session.set_frugal(frugal, Instant::now().into_std());
        }
        changed
    }

    /// What whoever has driven the session does before it sleeps.
    fn end_turn(&mut self) -> Rest {
        let changed = self.settle();
        if self.held_back && self.session.takes_well() {
            self.held_back = false;
            for (_, waker) in self.writers.drain() {
                waker.wake();
            }
        }
        let mut deadline = self.session.poll_timeout();
        if self.session.is_frugal() {
            let look_again = (Instant::now() + LOOK_AGAIN).into_std();
            deadline = Some(deadline.map_or(look_again, |deadline| deadline.min(look_again)));
        }
        Rest {
            reading: self.session.wants_to_read(),
            deadline,
            changed,
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_driver(&self) {
        self.driver.wake();
    }

    /// What whoever changes the session's buffers does afterwards, and whoever is about to take more before.
    fn settle(&self, inner: &mut Inner) {
        if inner.settle() {
            self.wake_driver();
        }
    }

    fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        for (_, waker) in inner.readers.drain() {
            waker.wake();
        }
        for (_, waker) in inner.writers.drain() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::budget::{Budget, sessions_max};

    const LIMIT: usize = 64 << 20;

    #[tokio::test(start_paused = true)]
    async fn a_session_that_hears_of_memory_to_spare_at_the_end_of_a_turn_has_another_at_once() {
        assert!(sessions_max(LIMIT) > 1);
        let budget = Arc::new(Budget::new(LIMIT, &Metrics::default()));
        let mut other = budget.share();
        other.settle(LIMIT);
        let config = Config {
            origin: Instant::now().into_std(),
            epoch_ms: 1,
            seed: 1,
            outbox_bytes_max: 1 << 20,
        };
        let limits = Limits {
            streams_max: 1,
            stall_limit: Duration::from_secs(30),
        };
        let mut inner = Inner {
            session: PortSession::new(config, limits),
            readers: HashMap::new(),
            writers: HashMap::new(),
            held_back: false,
            share: budget.share(),
            connected_since: None,
            closed: false,
        };
        inner.settle();
        let looks_again = |rest: &Rest| rest.deadline.is_some();
        let rest = inner.end_turn();
        assert!(
            looks_again(&rest) && !rest.changed,
            "it is frugal and knows it"
        );
        drop(other);
        let rest = inner.end_turn();
        assert!(!looks_again(&rest), "nothing else would wake it");
        assert!(rest.changed);
    }
}
