//! One client's connection: held until a session serves, then spliced; reset when none does in time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::metrics::{Metrics, OutcomeValue};
use super::options::RelayOptions;
use super::splice::{Outcome, splice};
use super::tunnel::{TunnelHandle, TunnelStream};
use crate::protocol::ResetCause;

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
    /// Those of all listeners together.
    everybody: Arc<AtomicUsize>,
    places_of_all: usize,
    /// How many of them come from each address.
    origins: Arc<Mutex<HashMap<IpAddr, usize>>>,
    places_per_origin: usize,
}

/// Where places are short, what a half-closed client may keep its place for: it looks the same as one that has gone.
const CROWDED_HOLD: Duration = Duration::from_secs(2);

impl Crowd {
    /// Nobody yet. `everybody` counts the clients of all listeners.
    pub(super) fn new(options: &RelayOptions, everybody: Arc<AtomicUsize>) -> Self {
        Self {
            present: Arc::default(),
            places: options.connections_max,
            everybody,
            places_of_all: options.clients_max,
            origins: Arc::default(),
            places_per_origin: options.connections_max_per_client,
        }
    }

    fn enter(&self, from: IpAddr) {
        self.present.fetch_add(1, Ordering::Relaxed);
        self.everybody.fetch_add(1, Ordering::Relaxed);
        *self.origins().entry(from).or_default() += 1;
    }

    fn leave(&self, from: IpAddr) {
        self.present.fetch_sub(1, Ordering::Relaxed);
        self.everybody.fetch_sub(1, Ordering::Relaxed);
        let mut origins = self.origins();
        if let Some(count) = origins.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                origins.remove(&from);
            }
        }
    }

    fn origins(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are, at any time.
    pub(super) fn present(&self) -> Arc<AtomicUsize> {
        self.present.clone()
    }

    /// Whether there are more than there may be: on this listener, or of its clients more than are left for those of others.
    fn is_too_large(&self) -> bool {
        let present = self.present.load(Ordering::Relaxed);
        let everybody = self.everybody.load(Ordering::Relaxed);
        // Whoever came last is counted, and took one of those that were left.
        let others = everybody.saturating_sub(1);
        let were_left = self.places_of_all.saturating_sub(others);
        present > self.places || present > were_left
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

/// A client's place. It counts while this is there, also when the client's task is cut off before it has begun.
struct Place {
    metrics: Metrics,
    crowd: Crowd,
    from: IpAddr,
    outcome: OutcomeValue,
}

impl From<Outcome> for OutcomeValue {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Finished => Self::Finished,
            Outcome::ClientGone => Self::ClientGone,
            Outcome::Reset(ResetCause::Refused) => Self::Refused,
            Outcome::Reset(ResetCause::Stalled) => Self::Stalled,
            Outcome::Reset(ResetCause::SessionEnded) => Self::SessionEnded,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.leave(self.from);
        self.metrics.connection_ended(self.outcome);
    }
}

/// A client that was accepted. Dropping it resets it.
pub(super) struct Client {
    stream: TcpStream,
    place: Place,
    since: Instant,
}

impl Client {
    /// Gives a client its place; `None` when it has gone already.
    pub(super) fn new(
        stream: TcpStream,
        from: IpAddr,
        crowd: &Crowd,
        metrics: &Metrics,
    ) -> Option<Self> {
        crowd.enter(from);
        let mut place = Place {
            metrics: metrics.clone(),
            crowd: crowd.clone(),
            from,
            outcome: OutcomeValue::SessionEnded,
        };
        // Whatever ends this connection early, a crash of the process too, is to reach the client as RST.
        let (probe_after, probe_every) = KEEPALIVE;
        let keepalive = TcpKeepalive::new()
            .with_time(probe_after)
            .with_interval(probe_every);
        let prepared = stream
            .set_zero_linger()
            .and_then(|()| stream.set_nodelay(true))
            .and_then(|()| SockRef::from(&stream).set_tcp_keepalive(&keepalive));
        if prepared.is_err() {
            place.outcome = OutcomeValue::ClientGone;
            return None;
        }
        Some(Self {
            stream,
            place,
            since: Instant::now(),
        })
    }

    /// Whether there are too many now, of its own address or altogether.
    pub(super) fn is_one_too_many(&self) -> bool {
        self.place.crowd.is_too_large() || self.is_one_too_many_of_its_own()
    }

    /// Whether its address has more places than one may have.
    fn is_one_too_many_of_its_own(&self) -> bool {
        let Place { crowd, from, .. } = &self.place;
        let present = crowd.origins().get(from).copied();
        present.is_some_and(|present| present > crowd.places_per_origin)
    }

    /// Resets it, since there are too many, of its own address or altogether.
    pub(super) fn refuse(mut self) {
        self.place.outcome = if self.is_one_too_many_of_its_own() {
            OutcomeValue::TooManyOfOneClient
        } else {
            OutcomeValue::TooMany
        };
    }

    /// Serves it until it or its stream ends.
    pub(super) async fn serve(
        self,
        mut admission: watch::Receiver<Admission>,
        options: Arc<RelayOptions>,
    ) {
        // The place is given back after the connection is closed: what comes first here is dropped last.
        let Self {
            mut place,
            stream,
            since,
        } = self;
        match timeout_at(Instant::now() + options.hold, open_stream(&mut admission)).await {
            Ok(Some(tunnelled)) => {
                let hold = || place.crowd.hold(options.half_close_hold);
                place.metrics.stream_opened(since.elapsed());
                let outcome = splice(stream, tunnelled, hold, since, &place.metrics).await;
                place.outcome = outcome.into();
            }
            Ok(None) => {}
            Err(_) => place.outcome = OutcomeValue::HeldTooLong,
        }
    }
}

/// A stream of the session that serves, now or later; `None` when the listener is gone.
async fn open_stream(admission: &mut watch::Receiver<Admission>) -> Option<TunnelStream> {
    loop {
        let admitted = match &*admission.borrow_and_update() {
            Admission::Open(tunnel) => Some(tunnel.clone()),
            Admission::Hold => None,
        };
        let Some(tunnel) = admitted else {
            admission.changed().await.ok()?;
            continue;
        };
        let mut place = pin!(tunnel.place());
        // Before the try, so that a place that is given meanwhile is heard of.
        place.as_mut().enable();
        if let Some(stream) = tunnel.open_stream() {
            return Some(stream);
        }
        tokio::select! {
            changed = admission.changed() => changed.ok()?,
            () = place => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::Ipv4Addr;

    use prometheus_client::registry::Registry;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    use super::*;

    const USUAL: Duration = Duration::from_mins(1);

    /// A client, and what it sees of itself.
    async fn client(crowd: &Crowd, metrics: &Metrics) -> (Client, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let far = TcpStream::connect(address).await.expect("it listens");
        let (near, _) = listener.accept().await.expect("a connection");
        let near = Client::new(near, Ipv4Addr::LOCALHOST.into(), crowd, metrics);
        (near.expect("a client"), far)
    }

    fn options() -> RelayOptions {
        let config = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
        let tls = Arc::new(config.with_no_client_auth());
        RelayOptions::new("relay-1", "run-1", tls)
    }

    fn crowd(places: usize, places_per_origin: usize) -> Crowd {
        let options = RelayOptions {
            connections_max: places,
            connections_max_per_client: places_per_origin,
            ..options()
        };
        Crowd::new(&options, Arc::default())
    }

    fn text(metrics: &Metrics) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        metrics.register(&mut registry);
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("metrics");
        text
    }

    async fn wait_reset(mut far: TcpStream) {
        let read = far.read(&mut [0; 1]).await.map_err(|error| error.kind());
        assert_eq!(read, Err(ErrorKind::ConnectionReset));
    }

    #[tokio::test]
    async fn a_client_whose_task_is_cut_off_before_it_began_leaves_its_place_and_is_reset() {
        let (crowd, metrics) = (crowd(4, 4), Metrics::default());
        let _served = metrics.serve(crowd.present());
        let (client, far) = client(&crowd, &metrics).await;
        assert!(text(&metrics).contains("relay_connections 1"));
        let admission = watch::Sender::new(Admission::Hold);
        drop(client.serve(admission.subscribe(), Arc::new(options())));
        wait_reset(far).await;
        assert!(text(&metrics).contains("relay_connections 0"));
        assert_eq!(crowd.present.load(Ordering::Relaxed), 0);
        assert!(crowd.origins().is_empty());
    }

    #[tokio::test]
    async fn a_listener_leaves_as_many_places_to_others_as_it_has() {
        let options = RelayOptions {
            clients_max: 12,
            ..options()
        };
        let (everybody, metrics) = (Arc::default(), Metrics::default());
        let crowds = [0; 3].map(|_| Crowd::new(&options, Arc::clone(&everybody)));
        let mut served = Vec::new();
        let mut admitted = [0; 3];
        for (crowd, admitted) in crowds.iter().zip(&mut admitted) {
            loop {
                let (client, far) = client(crowd, &metrics).await;
                if client.is_one_too_many() {
                    break;
                }
                served.push((client, far));
                *admitted += 1;
            }
        }
        assert_eq!(admitted, [6, 3, 2], "half of what was left, each time");
        served.truncate(6);
        let (client, _far) = client(&crowds[2], &metrics).await;
        assert!(!client.is_one_too_many(), "places are given back");
    }

    #[tokio::test]
    async fn a_client_that_is_refused_is_reset_and_counted_as_one_too_many() {
        let (crowd, metrics) = (crowd(4, 4), Metrics::default());
        let (client, far) = client(&crowd, &metrics).await;
        client.refuse();
        wait_reset(far).await;
        assert!(text(&metrics).contains("outcome=\"TooMany\"} 1"));
    }

    #[tokio::test]
    async fn half_closed_clients_are_held_for_less_when_more_than_half_of_the_places_are_taken() {
        let (crowd, metrics) = (crowd(4, 4), Metrics::default());
        let mut clients = Vec::new();
        for hold in [USUAL, USUAL, CROWDED_HOLD, CROWDED_HOLD] {
            clients.push(client(&crowd, &metrics).await);
            assert_eq!(crowd.hold(USUAL), hold, "{} clients", clients.len());
        }
        let short = Duration::from_millis(10);
        assert_eq!(crowd.hold(short), short, "never for longer than usual");
        clients.truncate(2);
        assert_eq!(crowd.hold(USUAL), USUAL, "as soon as there is room");
    }
}
