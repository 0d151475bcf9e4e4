//! What is counted of the calls of AWS.
//!
//! It promises that every try is counted, also one that nobody waits for any more, and that labels are closed sets: no
//! text of AWS, no Region and no identity is among them.

use std::fmt::{self, Write as _};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;

use crate::broker::ErrorKind;

/// From an answer of the same Region to the longest that a try may take.
const BUCKETS: [f64; 9] = [0.03, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0];

/// What is called, as AWS names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(missing_docs)]
pub(super) enum Call {
    AssumeRole,
    DescribeSessions,
    ResumeSession,
    StartSession,
    TerminateSession,
}

impl Call {
    const ALL: [Self; 5] = [
        Self::AssumeRole,
        Self::DescribeSessions,
        Self::ResumeSession,
        Self::StartSession,
        Self::TerminateSession,
    ];
}

/// What a try came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    /// AWS did it.
    Success,
    /// Nobody waited for the answer any more.
    Abandoned,
    /// It failed so.
    Failed(ErrorKind),
}

impl Outcome {
    fn all() -> impl Iterator<Item = Self> {
        let failed = ErrorKind::ALL.map(Self::Failed);
        [Self::Success, Self::Abandoned].into_iter().chain(failed)
    }
}

impl From<ErrorKind> for Outcome {
    fn from(kind: ErrorKind) -> Self {
        Self::Failed(kind)
    }
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Success | Self::Abandoned => write!(encoder, "{self:?}"),
            Self::Failed(kind) => write!(encoder, "{kind:?}"),
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallLabel {
    operation: Call,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TryLabels {
    operation: Call,
    outcome: Outcome,
}

/// The metrics of one process's calls; clones count into the same ones.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<TryLabels, Counter>,
    durations: Family<CallLabel, Histogram, fn() -> Histogram>,
    unsent: Family<CallLabel, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            unsent: Family::default(),
        }
    }
}

impl Metrics {
    /// Makes them and registers them under `ssm_operator_aws`. All series show from the start, as 0: one that begins
    /// with 1 has no increase.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let Self {
            requests,
            durations,
            unsent,
        } = &metrics;
        for operation in Call::ALL {
            for outcome in Outcome::all() {
                drop(requests.get_or_create(&TryLabels { operation, outcome }));
            }
            drop(durations.get_or_create(&CallLabel { operation }));
            drop(unsent.get_or_create(&CallLabel { operation }));
        }
        let aws = registry.sub_registry_with_prefix("ssm_operator_aws");
        aws.register(
            "requests",
            "Tries of calls of AWS, by operation and outcome; AssumeRole as a whole, with what the SDK tries again",
            requests.clone(),
        );
        aws.register_with_unit(
            "request_duration",
            "How long a try took, with connecting and credentials, whatever it came to",
            Unit::Seconds,
            durations.clone(),
        );
        aws.register(
            "requests_unsent",
            "Calls that were given up in our own rate limiter, by operation",
            unsent.clone(),
        );
        metrics
    }

    /// A try begins now.
    pub(super) fn begin(&self, operation: Call) -> Try {
        Try {
            metrics: self.clone(),
            operation,
            begun: Instant::now(),
            outcome: Outcome::Abandoned,
        }
    }

    /// A call came to no try in time.
    pub(super) fn unsent(&self, operation: Call) {
        self.unsent.get_or_create(&CallLabel { operation }).inc();
    }

    fn tried(&self, operation: Call, outcome: Outcome, took: Duration) {
        let labels = TryLabels { operation, outcome };
        self.requests.get_or_create(&labels).inc();
        let durations = self.durations.get_or_create(&CallLabel { operation });
        durations.observe(took.as_secs_f64());
    }
}

/// A try that is under way. It is counted when this goes, be it that nobody waits for its end.
pub(super) struct Try {
    metrics: Metrics,
    operation: Call,
    begun: Instant,
    outcome: Outcome,
}

impl Try {
    /// It has ended so.
    pub(super) fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Try {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        self.metrics.tried(self.operation, self.outcome, took);
    }
}
