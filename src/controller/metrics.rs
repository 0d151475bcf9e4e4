//! What the controller counts. No label names a session or a listener: their number has no bound.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// The kinds that are watched or reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Kind {
    /// `SsmSession`.
    SsmSession,
    /// `SsmListener`.
    SsmListener,
    /// `SsmSessionClass`.
    SsmSessionClass,
    /// The Services that we own.
    Service,
    /// The slices that we own.
    EndpointSlice,
}

impl Kind {
    /// All of them; each is watched.
    const ALL: [Self; 5] = [
        Self::SsmSession,
        Self::SsmListener,
        Self::SsmSessionClass,
        Self::Service,
        Self::EndpointSlice,
    ];

    /// Those that we define.
    pub const DEFINED: [Self; 3] = [Self::SsmSession, Self::SsmSessionClass, Self::SsmListener];

    /// Those of which each object is reconciled.
    const RECONCILED: [Self; 2] = [Self::SsmSession, Self::SsmListener];
}

/// How a reconcile went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// As planned.
    Success,
    /// Somebody else wrote first; it is done again.
    Conflict,
    /// It failed, and is done again after back-off.
    Failure,
}

impl Outcome {
    /// All of them.
    const ALL: [Self; 3] = [Self::Success, Self::Conflict, Self::Failure];
}

/// Labels of a reconcile.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReconcileLabels {
    /// What was reconciled.
    pub kind: Kind,
    /// How it went.
    pub outcome: Outcome,
}

/// Label of a watch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WatchLabels {
    /// What is watched.
    pub kind: Kind,
}

/// Label of a definition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DefinitionLabels {
    /// What is defined.
    pub kind: Kind,
}

/// Label of what is watched.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ScopeLabels {
    /// The namespace, `*` for all of them.
    pub scope: String,
}

/// Label of a poll.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PollLabels {
    /// The Region that is polled.
    pub region: String,
}

/// The controller's metrics; clones share their values.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Reconciles by kind and outcome.
    pub reconciles: Family<ReconcileLabels, Counter>,
    /// Errors of watches by kind.
    pub watch_errors: Family<WatchLabels, Counter>,
    /// Polls of DescribeSessions that failed.
    pub poll_errors: Family<PollLabels, Counter>,
    /// When the last complete poll was taken, in seconds since 1970: the oldest of the Region's identities.
    pub poll_timestamp: Family<PollLabels, Gauge>,
    /// 1 while this process leads, 0 while it stands by.
    pub leading: Gauge,
    /// 1 once this process, which leads, knows all that its decisions need.
    pub synced: Gauge,
    /// 1 once the Services and slices of a watched namespace were read, 0 while they are not.
    pub scope_synced: Family<ScopeLabels, Gauge>,
    /// Sessions that nobody had recorded and that were terminated.
    pub swept: Counter,
    /// Relays whose Lease is alive.
    pub relays_alive: Gauge,
    /// Listeners without a living relay.
    pub listeners_unbound: Gauge,
    /// 1 while the served definition of a kind lacks something that this program knows; none while that is not known.
    pub crd_outdated: Family<DefinitionLabels, Gauge>,
}

impl Metrics {
    /// Makes them and registers them under `ssm_operator_controller_`. What is counted by kind or outcome shows from the
    /// start, as 0: a series that begins with 1 has no increase.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("ssm_operator_controller");
        let Self {
            reconciles,
            watch_errors,
            poll_errors,
            poll_timestamp,
            leading,
            synced,
            scope_synced,
            swept,
            relays_alive,
            listeners_unbound,
            crd_outdated,
        } = &metrics;
        registry.register(
            "leading",
            "1 while this process leads, 0 while it stands by",
            leading.clone(),
        );
        registry.register(
            "synced",
            "1 once the leader has read sessions, classes, listeners and relays, and decides; 0 before",
            synced.clone(),
        );
        registry.register(
            "scope_synced",
            "1 once the leader has read the Services and EndpointSlices of a watched namespace (* for all), 0 while it can't",
            scope_synced.clone(),
        );
        registry.register(
            "reconciles",
            "Reconciles by kind and outcome",
            reconciles.clone(),
        );
        registry.register(
            "watch_errors",
            "Errors of watches by kind",
            watch_errors.clone(),
        );
        registry.register(
            "poll_errors",
            "Failed polls of DescribeSessions",
            poll_errors.clone(),
        );
        registry.register_with_unit(
            "last_poll_timestamp",
            "When DescribeSessions was last polled completely, since 1970; of several identities the oldest, 0 before the first",
            Unit::Seconds,
            poll_timestamp.clone(),
        );
        registry.register(
            "swept_sessions",
            "Unrecorded sessions terminated",
            swept.clone(),
        );
        registry.register(
            "relays_alive",
            "Relays whose Lease is alive",
            relays_alive.clone(),
        );
        registry.register(
            "listeners_unbound",
            "Listeners without a living relay",
            listeners_unbound.clone(),
        );
        registry.register(
            "crd_outdated",
            "1 while the served CustomResourceDefinition of a kind is older than this program, 0 while it is not; of the \
             leader, where it may read it",
            crd_outdated.clone(),
        );
        for kind in Kind::ALL {
            drop(watch_errors.get_or_create(&WatchLabels { kind }));
        }
        for kind in Kind::RECONCILED {
            for outcome in Outcome::ALL {
                drop(reconciles.get_or_create(&ReconcileLabels { kind, outcome }));
            }
        }
        metrics
    }

    /// Says whether this process leads. What one that stands by once saw is nobody's state any more.
    pub fn lead(&self, leads: bool) {
        self.leading.set(i64::from(leads));
        self.synced.set(0);
        if !leads {
            self.relays_alive.set(0);
            self.listeners_unbound.set(0);
            self.poll_timestamp.clear();
            self.crd_outdated.clear();
            self.scope_synced.clear();
        }
    }

    /// Says whether a watched namespace could be read.
    pub fn scope_synced(&self, scope: &str, synced: bool) {
        let labels = ScopeLabels {
            scope: scope.to_owned(),
        };
        let gauge = self.scope_synced.get_or_create(&labels);
        gauge.set(i64::from(synced));
    }

    /// Counts a reconcile.
    pub fn reconciled(&self, kind: Kind, outcome: Outcome) {
        self.reconciles
            .get_or_create(&ReconcileLabels { kind, outcome })
            .inc();
    }

    /// Counts an error of a watch.
    pub fn watch_failed(&self, kind: Kind) {
        self.watch_errors.get_or_create(&WatchLabels { kind }).inc();
    }
}
