//! What the controller counts, where it happens, and what it shows of its state, when it is asked for.
//!
//! No label names a session, a target or a listener: their number has no bound. Classes and Regions are what
//! administrators have made.

mod state;

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use state::Shown;
pub use state::{Showing, State};

/// From a reconcile that reads caches alone to one that is cut off.
const BUCKETS: [f64; 8] = [0.005, 0.02, 0.05, 0.2, 0.5, 2.0, 5.0, 20.0];

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

/// Label of what is about one kind: its watch, its reconciles, its definition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    /// The kind.
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
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Reconciles by kind and outcome.
    pub reconciles: Family<ReconcileLabels, Counter>,
    /// How long they took, by kind.
    pub reconcile_durations: Family<KindLabel, Histogram, fn() -> Histogram>,
    /// Errors of watches by kind.
    pub watch_errors: Family<KindLabel, Counter>,
    /// Objects that can't be read, by kind.
    pub unreadable_objects: Family<KindLabel, Gauge>,
    /// Polls of DescribeSessions that failed.
    pub poll_errors: Family<PollLabels, Counter>,
    /// 1 while this process leads, 0 while it stands by.
    pub leading: Gauge,
    /// 1 once this process, which leads, knows all that its decisions need.
    pub synced: Gauge,
    /// 1 once the Services and slices of a watched namespace were read, 0 while they are not.
    pub scope_synced: Family<ScopeLabels, Gauge>,
    /// Sessions that nobody had recorded and that were terminated.
    pub swept: Counter,
    /// 1 while the served definition of a kind lacks something that this program knows; none while that is not known.
    pub crd_outdated: Family<KindLabel, Gauge>,
    /// What is computed when it is asked for.
    shown: Shown,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            reconciles: Family::default(),
            reconcile_durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            watch_errors: Family::default(),
            unreadable_objects: Family::default(),
            poll_errors: Family::default(),
            leading: Gauge::default(),
            synced: Gauge::default(),
            scope_synced: Family::default(),
            swept: Counter::default(),
            crd_outdated: Family::default(),
            shown: Shown::default(),
        }
    }
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
            reconcile_durations,
            watch_errors,
            unreadable_objects,
            poll_errors,
            leading,
            synced,
            scope_synced,
            swept,
            crd_outdated,
            shown,
        } = &metrics;
        registry.register_collector(Box::new(shown.clone()));
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
        registry.register_with_unit(
            "reconcile_duration",
            "How long a reconcile took, by kind, whatever it came to",
            Unit::Seconds,
            reconcile_durations.clone(),
        );
        registry.register(
            "watch_errors",
            "Errors of watches by kind",
            watch_errors.clone(),
        );
        registry.register(
            "unreadable_objects",
            "Objects that the controller can't read, by kind; its log names them",
            unreadable_objects.clone(),
        );
        registry.register(
            "poll_errors",
            "Failed polls of DescribeSessions, by Region, as long as it is polled",
            poll_errors.clone(),
        );
        registry.register(
            "swept_sessions",
            "Unrecorded sessions terminated",
            swept.clone(),
        );
        registry.register(
            "crd_outdated",
            "1 while the served CustomResourceDefinition of a kind is older than this program, 0 while it is not; of the \
             leader, where it may read it",
            crd_outdated.clone(),
        );
        for kind in Kind::ALL {
            drop(watch_errors.get_or_create(&KindLabel { kind }));
            drop(unreadable_objects.get_or_create(&KindLabel { kind }));
        }
        for kind in Kind::RECONCILED {
            drop(reconcile_durations.get_or_create(&KindLabel { kind }));
            for outcome in Outcome::ALL {
                drop(reconciles.get_or_create(&ReconcileLabels { kind, outcome }));
            }
        }
        metrics
    }

    /// Says whether this process leads. What one that stands by once saw is nobody's state any more. It is said again at each
    /// look at the Lease, and so also after what the tasks of a leader still wrote while they were dropped.
    pub fn lead(&self, leads: bool) {
        self.leading.set(i64::from(leads));
        self.synced.set(0);
        if !leads {
            self.poll_errors.clear();
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

    /// Shows what `state` gives, each time that it is asked for, until what this gives is dropped.
    pub fn show(&self, state: impl Fn() -> Option<State> + Send + Sync + 'static) -> Showing {
        self.shown.show(state)
    }

    /// Counts a reconcile.
    pub fn reconciled(&self, kind: Kind, outcome: Outcome, took: Duration) {
        self.reconciles
            .get_or_create(&ReconcileLabels { kind, outcome })
            .inc();
        self.reconcile_durations
            .get_or_create(&KindLabel { kind })
            .observe(took.as_secs_f64());
    }

    /// Counts an error of a watch.
    pub fn watch_failed(&self, kind: Kind) {
        self.watch_errors.get_or_create(&KindLabel { kind }).inc();
    }
}
