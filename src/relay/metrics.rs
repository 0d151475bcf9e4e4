//! What the relay counts. No label names a session: they would grow for ever.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::report::EndReason;

/// The relay's metrics; clones count into the same ones.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    connections: Gauge,
    connections_ended: Family<OutcomeLabel, Counter>,
    bytes: Family<DirectionLabel, Counter>,
    sessions: Gauge,
    sessions_started: Counter,
    start_failures: Counter,
    sessions_ended: Family<EndLabel, Counter>,
    websockets_lost: Counter,
    destinations_refused: Counter,
    streams_stalled: Counter,
    buffered: Gauge,
    buffers_max: Gauge,
    listeners: Gauge,
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

impl Metrics {
    /// Puts the metrics into `registry`, under the prefix `ssm_operator_relay`. What is counted by a label shows from the
    /// start, as 0: a series that begins with 1 has no increase.
    pub fn register(&self, registry: &mut Registry) {
        let relay = registry.sub_registry_with_prefix("ssm_operator_relay");
        let Self {
            connections,
            connections_ended,
            bytes,
            sessions,
            sessions_started,
            start_failures,
            sessions_ended,
            websockets_lost,
            destinations_refused,
            streams_stalled,
            buffered,
            buffers_max,
            listeners,
        } = self.clone();
        for outcome in OutcomeValue::ALL {
            drop(connections_ended.get_or_create(&OutcomeLabel { outcome }));
        }
        for direction in Direction::ALL {
            drop(bytes.get_or_create(&DirectionLabel { direction }));
        }
        for reason in EndValue::ALL {
            drop(sessions_ended.get_or_create(&EndLabel { reason }));
        }
        relay.register("connections", "Clients connected now", connections);
        let help = "Connections that ended, by how";
        relay.register("connections_ended", help, connections_ended);
        relay.register("bytes", "Bytes carried for clients, by direction", bytes);
        relay.register("sessions", "AWS sessions that are live now", sessions);
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
        relay.register(
            "websockets_lost",
            "Websockets that were lost",
            websockets_lost,
        );
        let help = "Dials of a destination that the agent reported as failed";
        relay.register("destinations_refused", help, destinations_refused);
        let help = "Streams reset since their client did not read and kept others waiting";
        relay.register("streams_stalled", help, streams_stalled);
        let help = "What sessions keep in memory on its way to destinations and clients";
        relay.register_with_unit("buffered", help, Unit::Bytes, buffered);
        let help = "What they may keep";
        relay.register_with_unit("buffers_max", help, Unit::Bytes, buffers_max);
        relay.register("listeners", "Listeners served now", listeners);
    }

    pub(super) fn connection_opened(&self) {
        self.connections.inc();
    }

    pub(super) fn connection_ended(&self, outcome: OutcomeValue) {
        self.connections.dec();
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
        self.sessions.inc();
    }

    pub(super) fn start_failed(&self) {
        self.start_failures.inc();
    }

    pub(super) fn session_ended(&self, reason: EndReason) {
        self.sessions.dec();
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

    pub(super) fn websocket_lost(&self) {
        self.websockets_lost.inc();
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

    pub(super) fn listener_added(&self) {
        self.listeners.inc();
    }

    pub(super) fn listener_removed(&self) {
        self.listeners.dec();
    }
}
