//! Gauges that are computed when somebody asks for them: what the controller that leads knows at that moment.
//!
//! They promise that no series outlives what it is about: what is gone is not counted, and a process that does not lead
//! shows none.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::crd::condition::Condition;

/// What there is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Relays whose Lease is alive.
    pub relays_alive: usize,
    /// Listeners without a living relay.
    pub listeners_unbound: usize,
    /// SsmSessions by class. Each class of ours has a number; what is of no class that there is, is under an empty name.
    pub sessions: BTreeMap<String, usize>,
    /// SsmSessions by class and by a condition that they have.
    pub conditions: BTreeMap<String, Vec<(Condition, usize)>>,
    /// When each Region that is polled was last known completely, in seconds since 1970.
    pub polled: BTreeMap<String, i64>,
}

type Source = Box<dyn Fn() -> Option<State> + Send + Sync>;

/// Where the state is read, while there is one to be read.
#[derive(Clone, Default)]
pub(super) struct Shown(Arc<Mutex<Option<Source>>>);

impl Shown {
    /// Shows what `source` says, until what is given is dropped.
    pub(super) fn show(
        &self,
        source: impl Fn() -> Option<State> + Send + Sync + 'static,
    ) -> Showing {
        self.set(Some(Box::new(source)));
        Showing(self.clone())
    }

    fn set(&self, source: Option<Source>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = source;
    }

    fn read(&self) -> Option<State> {
        let source = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        source.as_ref()?()
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown")
    }
}

/// The state is shown for as long as this is there.
#[must_use]
pub struct Showing(Shown);

impl Drop for Showing {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let Some(state) = self.read() else {
            return Ok(());
        };
        let State {
            relays_alive,
            listeners_unbound,
            sessions,
            conditions,
            polled,
        } = &state;
        let none = || None::<[(&str, &str); 1]>;
        gauge(
            &mut encoder,
            ("relays_alive", None),
            "Relays whose Lease is alive.",
            [(none(), number(*relays_alive))],
        )?;
        gauge(
            &mut encoder,
            ("listeners_unbound", None),
            "Listeners without a living relay.",
            [(none(), number(*listeners_unbound))],
        )?;
        gauge(
            &mut encoder,
            ("sessions", None),
            "SsmSessions by class: each class of this controller, and none for those whose class does not exist.",
            sessions
                .iter()
                .map(|(class, count)| (Some([("class", class)]), number(*count))),
        )?;
        let conditions = conditions.iter().flat_map(|(class, conditions)| {
            conditions.iter().map(move |(condition, count)| {
                let labels = [
                    ("class", class.as_str()),
                    ("type", condition.condition_type().as_str()),
                    ("status", condition.status().as_str()),
                    ("reason", condition.reason()),
                ];
                (Some(labels), number(*count))
            })
        });
        gauge(
            &mut encoder,
            ("session_conditions", None),
            "SsmSessions that have a condition, by class, type, status and reason; a class has no more series than there \
             are reasons. What no SsmSession has is absent.",
            conditions,
        )?;
        gauge(
            &mut encoder,
            ("last_poll_timestamp", Some(Unit::Seconds)),
            "When DescribeSessions was last polled completely, since 1970; of several identities the oldest, 0 before the \
             first.",
            polled
                .iter()
                .map(|(region, seconds)| (Some([("region", region)]), *seconds)),
        )
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Writes a gauge with its series, or nothing if it has none.
fn gauge<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder,
    (name, unit): (&str, Option<Unit>),
    help: &str,
    series: impl IntoIterator<Item = (Option<L>, i64)>,
) -> fmt::Result {
    let mut series = series.into_iter().peekable();
    if series.peek().is_none() {
        return Ok(());
    }
    let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
    for (labels, value) in series {
        match &labels {
            Some(labels) => family.encode_family(labels)?.encode_gauge(&value)?,
            None => family.encode_gauge(&value)?,
        }
    }
    Ok(())
}
