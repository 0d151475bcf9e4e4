//! A tunnel: one running session. Its websockets come and go; its streams stay.
//!
//! The machine is behind a lock that is never held across an await. The driver alone touches the websocket; streams
//! talk to the machine and wake the driver, and the driver wakes the streams.

mod driver;
mod stream;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{SystemTime, UNIX_EPOCH};

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
use crate::relay::report::Destination;
use driver::Driver;

pub use stream::{TunnelStream, WriteError};

/// Bytes sent and not acknowledged: the product of 20 MB/s and 50 ms of round trip.
const OUTBOX_BYTES_MAX: usize = 1 << 20;

/// What a tunnel shows to its listener.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TunnelState {
    /// What the handshake has shown, once it is complete.
    pub established: Option<Established>,
    /// What the agent's last dial came to.
    pub destination: Option<Destination>,
    /// Why there is no websocket, after the first that was opened or failed; none while one is up.
    pub trouble: Option<String>,
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
