//! What the relay counts, where it happens, and what it serves at the moment, when it is asked for.
//!
//! No label names a session, a listener or a client: they would grow for ever.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use prometheus_client::collector::Collector;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::loss::LossReason;
use super::report::EndReason;

/// From a session that serves already to the longest that a client is held by default.
const WAIT_BUCKETS: [f64; 8] = [0.001, 0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0];

/// From a destination next to the target that speaks first to a client that thinks before it asks.
const FIRST_BYTE_BUCKETS: [f64; 10] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// From an agent in the next room to one whose destination does not read.
const ROUND_TRIP_BUCKETS: [f64; 10] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

/// The relay's metrics; clones count into the same ones.
#[derive(Clone, Debug)]
pub struct Metrics {
    serving: Serving,
    connections_ended: Family<OutcomeLabel, Counter>,
    bytes: Family<DirectionLabel, Counter>,
    stream_wait: Histogram,
    first_byte: Histogram,
    sessions_started: Counter,
    start_failures: Counter,
    sessions_ended: Family<EndLabel, Counter>,
    websockets_lost: Family<LossLabel, Counter>,
    round_trip: Histogram,
    destinations_refused: Counter,
    streams_stalled: Counter,
    buffered: Gauge,
    buffers_max: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            serving: Serving::default(),
            connections_ended: Family::default(),
            bytes: Family::default(),
            stream_wait: Histogram::new(WAIT_BUCKETS),
            first_byte: Histogram::new(FIRST_BYTE_BUCKETS),
            sessions_started: Counter::default(),
            start_failures: Counter::default(),
            sessions_ended: Family::default(),
            websockets_lost: Family::default(),
            round_trip: Histogram::new(ROUND_TRIP_BUCKETS),
            destinations_refused: Counter::default(),
            streams_stalled: Counter::default(),
            buffered: Gauge::default(),
            buffers_max: Gauge::default(),
        }
    }
}

/// What one listener has at the moment. It counts for as long as its server is there, whatever ends that.
#[derive(Debug)]
pub(super) struct Served {
    clients: Arc<AtomicUsize>,
    sessions: AtomicUsize,
}

impl Served {
    /// So many AWS sessions are not known to be over.
    pub(super) fn has_sessions(&self, count: usize) {
        self.sessions.store(count, Ordering::Relaxed);
    }
}

/// All listeners that are served, for the gauges.
#[derive(Clone, Debug, Default)]
struct Serving(Arc<Mutex<Vec<Weak<Served>>>>);

impl Serving {
    fn add(&self, served: &Arc<Served>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|served| served.strong_count() > 0);
        all.push(Arc::downgrade(served));
    }

    fn all(&self) -> Vec<Arc<Served>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Collector for Serving {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let all = self.all();
        let clients = all.iter().map(|served| &*served.clients);
        let sessions = all.iter().map(|served| &served.sessions);
        let load = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        for (name, help, count) in [
            ("listeners", "Listeners served now.", all.len()),
            (
                "connections",
                "Clients connected now.",
                clients.map(load).sum(),
            ),
            (
                "sessions",
                "AWS sessions that are not known to be over, those of an earlier run among them.",
                sessions.map(load).sum(),
            ),
        ] {
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            let mut gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            gauge.encode_gauge(&count)?;
        }
        Ok(())
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: OutcomeValue,
}

/// How a client's connection ended, as a label.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
#[allow(missing_docs)]
pub enum OutcomeValue {
    Finished,
    ClientGone,
    Refused,
    Stalled,
    SessionEnded,
    HeldTooLong,
    TooMany,
    TooManyOfOneClient,
}

impl OutcomeValue {
    const ALL: [Self; 8] = [
        Self::Finished,
        Self::ClientGone,
        Self::Refused,
        Self::Stalled,
        Self::SessionEnded,
        Self::HeldTooLong,
        Self::TooMany,
        Self::TooManyOfOneClient,
    ];
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DirectionLabel {
    direction: Direction,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
enum Direction {
    Up,
    Down,
}

impl Direction {
    const ALL: [Self; 2] = [Self::Up, Self::Down];
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EndLabel {
    reason: EndValue,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
enum EndValue {
    Deleted,
    Replaced,
    RelayLost,
    StartFailed,
    Broken,
    Unanswered,
    TerminatedExternally,
    ClosedByService,
}

impl EndValue {
    const ALL: [Self; 8] = [
        Self::Deleted,
        Self::Replaced,
        Self::RelayLost,
        Self::StartFailed,
        Self::Broken,
        Self::Unanswered,
        Self::TerminatedExternally,
        Self::ClosedByService,
    ];
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LossLabel {
    reason: LossReason,
}

impl Metrics {
    /// Puts the metrics into `registry`, under the prefix `ssm_operator_relay`. What is counted by a label shows from the
    /// start, as 0: a series that begins with 1 has no increase.
    pub fn register(&self, registry: &mut Registry) {
        let relay = registry.sub_registry_with_prefix("ssm_operator_relay");
        let Self {
            serving,
            connections_ended,
            bytes,
            stream_wait,
            first_byte,
            sessions_started,
            start_failures,
            sessions_ended,
            websockets_lost,
            round_trip,
            destinations_refused,
            streams_stalled,
            buffered,
            buffers_max,
        } = self.clone();
        relay.register_collector(Box::new(serving));
        for outcome in OutcomeValue::ALL {
            drop(connections_ended.get_or_create(&OutcomeLabel { outcome }));
        }
        for direction in Direction::ALL {
            drop(bytes.get_or_create(&DirectionLabel { direction }));
        }
        for reason in EndValue::ALL {
            drop(sessions_ended.get_or_create(&EndLabel { reason }));
        }
        for reason in LossReason::ALL {
            drop(websockets_lost.get_or_create(&LossLabel { reason }));
        }
        let help = "Connections that ended, by how";
        relay.register("connections_ended", help, connections_ended);
        let help = "Bytes carried for clients, by direction";
        relay.register_with_unit("client", help, Unit::Bytes, bytes);
        let help = "From a client's connection to when a stream of a session is opened for it; of those that got one";
        relay.register_with_unit("stream_wait", help, Unit::Seconds, stream_wait);
        let help = "From a client's connection to the destination's first byte; where clients speak first, with the time \
                    that they take for it";
        relay.register_with_unit("first_byte", help, Unit::Seconds, first_byte);
        relay.register("sessions_started", "AWS sessions started", sessions_started);
        relay.register(
            "start_failures",
            "Starts of AWS sessions that failed",
            start_failures,
        );
        relay.register(
            "sessions_ended",
            "AWS sessions that ended, by reason",
            sessions_ended,
        );
        let help = "Websockets that were lost, by reason; their sessions are resumed";
        relay.register("websockets_lost", help, websockets_lost);
        let help = "How long the agent took to acknowledge a message that was sent to it once, from when it was handed to \
                    the websocket and with what it waits for the destination to read; of each session one message a \
                    second at most";
        relay.register_with_unit("round_trip", help, Unit::Seconds, round_trip);
        let help = "Dials of a destination that the agent reported as failed";
        relay.register("destinations_refused", help, destinations_refused);
        let help = "Streams reset since their client did not read and kept others waiting";
        relay.register("streams_stalled", help, streams_stalled);
        let help = "What sessions keep in memory on its way to destinations and clients";
        relay.register_with_unit("buffered", help, Unit::Bytes, buffered);
        let help = "What they may keep";
        relay.register_with_unit("buffers_max", help, Unit::Bytes, buffers_max);
    }

    /// A listener is served, which has these clients.
    pub(super) fn serve(&self, clients: Arc<AtomicUsize>) -> Arc<Served> {
        let served = Arc::new(Served {
            clients,
            sessions: AtomicUsize::default(),
        });
        self.serving.add(&served);
        served
    }

    pub(super) fn connection_ended(&self, outcome: OutcomeValue) {
        self.connections_ended
            .get_or_create(&OutcomeLabel { outcome })
            .inc();
    }

    pub(super) fn bytes_up(&self, bytes: usize) {
        let label = DirectionLabel {
            direction: Direction::Up,
        };
        self.bytes.get_or_create(&label).inc_by(bytes as u64);
    }

    pub(super) fn bytes_down(&self, bytes: usize) {
        let label = DirectionLabel {
            direction: Direction::Down,
        };
        self.bytes.get_or_create(&label).inc_by(bytes as u64);
    }

    pub(super) fn session_started(&self) {
        self.sessions_started.inc();
    }

    pub(super) fn start_failed(&self) {
        self.start_failures.inc();
    }

    pub(super) fn session_ended(&self, reason: EndReason) {
        let reason = match reason {
            EndReason::Deleted => EndValue::Deleted,
            EndReason::Replaced => EndValue::Replaced,
            EndReason::RelayLost => EndValue::RelayLost,
            EndReason::StartFailed => EndValue::StartFailed,
            EndReason::Broken => EndValue::Broken,
            EndReason::Unanswered => EndValue::Unanswered,
            EndReason::TerminatedExternally => EndValue::TerminatedExternally,
            EndReason::ClosedByService => EndValue::ClosedByService,
        };
        self.sessions_ended
            .get_or_create(&EndLabel { reason })
            .inc();
    }

    pub(super) fn websocket_lost(&self, reason: LossReason) {
        self.websockets_lost
            .get_or_create(&LossLabel { reason })
            .inc();
    }

    pub(super) fn round_trip(&self, took: Duration) {
        self.round_trip.observe(took.as_secs_f64());
    }

    pub(super) fn destination_refused(&self) {
        self.destinations_refused.inc();
    }

    /// The count of what is kept, of which there may be so many bytes.
    pub(super) fn buffered(&self, bytes_max: i64) -> Gauge {
        self.buffers_max.set(bytes_max);
        self.buffered.clone()
    }

    pub(super) fn stream_stalled(&self) {
        self.streams_stalled.inc();
    }

    pub(super) fn stream_opened(&self, after: Duration) {
        self.stream_wait.observe(after.as_secs_f64());
    }

    pub(super) fn first_byte(&self, after: Duration) {
        self.first_byte.observe(after.as_secs_f64());
    }
}
