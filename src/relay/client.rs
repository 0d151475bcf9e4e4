//! One client's connection: held until a session serves, then spliced; reset when none does in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::metrics::{Metrics, OutcomeValue};
use super::options::RelayOptions;
use super::splice::splice;
use super::stream::TunnelStream;
use super::tunnel::TunnelHandle;

/// When a silent client is probed, and how often: one that vanished gives its place back in three minutes.
const KEEPALIVE: (Duration, Duration) = (Duration::from_mins(1), Duration::from_secs(30));

/// Whether clients get a stream.
#[derive(Clone)]
pub(super) enum Admission {
    /// Not now: they are held.
    Hold,
    /// Here.
    Open(TunnelHandle),
}

/// The clients of one listener, and how many there may be.
#[derive(Clone)]
pub(super) struct Crowd {
    present: Arc<AtomicUsize>,
    places: usize,
}

/// Where places are short, what a half-closed client may keep its place for: it looks the same as one that has gone.
const CROWDED_HOLD: Duration = Duration::from_secs(2);

impl Crowd {
    /// Nobody, of at most `places`.
    pub(super) fn new(places: usize) -> Self {
        Self {
            present: Arc::default(),
            places,
        }
    }

    /// How long a half-closed client is held: less when more than half of the places are taken.
    fn hold(&self, usual: Duration) -> Duration {
        let crowded = self.present.load(Ordering::Relaxed) * 2 > self.places;
        if crowded {
            usual.min(CROWDED_HOLD)
        } else {
            usual
        }
    }
}

/// Counts a connection while it is there, also when its task is cut off.
struct Counted {
    metrics: Metrics,
    crowd: Crowd,
    outcome: OutcomeValue,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.crowd.present.fetch_sub(1, Ordering::Relaxed);
        self.metrics.connection_ended(self.outcome);
    }
}

/// Serves a client until it or its stream ends.
pub(super) async fn serve_client(
    client: TcpStream,
    mut admission: watch::Receiver<Admission>,
    options: Arc<RelayOptions>,
    crowd: Crowd,
    metrics: Metrics,
) {
    crowd.present.fetch_add(1, Ordering::Relaxed);
    let mut counted = Counted {
        metrics: metrics.clone(),
        crowd: crowd.clone(),
        outcome: OutcomeValue::SessionEnded,
    };
    // Whatever ends this connection early, a crash of the process too, is to reach the client as RST.
    let (probe_after, probe_every) = KEEPALIVE;
    let keepalive = TcpKeepalive::new()
        .with_time(probe_after)
        .with_interval(probe_every);
    let prepared = client
        .set_zero_linger()
        .and_then(|()| client.set_nodelay(true))
        .and_then(|()| SockRef::from(&client).set_tcp_keepalive(&keepalive));
    if prepared.is_err() {
        counted.outcome = OutcomeValue::ClientGone;
        return;
    }
    match timeout_at(Instant::now() + options.hold, open_stream(&mut admission)).await {
        Ok(Some(stream)) => {
            let outcome = splice(
                client,
                stream,
                || crowd.hold(options.half_close_hold),
                &metrics,
            )
            .await;
            counted.outcome = outcome.into();
        }
        Ok(None) => {}
        Err(_) => counted.outcome = OutcomeValue::HeldTooLong,
    }
}

/// A stream of the session that serves, now or later; `None` when the listener is gone.
async fn open_stream(admission: &mut watch::Receiver<Admission>) -> Option<TunnelStream> {
    loop {
        let opened = match &*admission.borrow_and_update() {
            Admission::Open(tunnel) => tunnel.open_stream(),
            Admission::Hold => None,
        };
        if opened.is_some() {
            return opened;
        }
        admission.changed().await.ok()?;
    }
}
