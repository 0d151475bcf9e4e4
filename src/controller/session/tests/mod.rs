//! What is promised of sessions, claim by claim, without a cluster.

mod conditions;
mod draining;
mod history;
mod leaving;
mod objects;
mod services;
mod unread;
mod updates;
mod written;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use tokio::time::Instant;

use super::decide::decide;
use super::desired;
use super::memory;
use super::observe::{ClassFound, Observed, UnreadListeners, find_class};
use super::plan::{Now, Plan, Settings};
use super::service::{ServiceFound, judge_service};
use crate::controller::context::Memory;
use crate::controller::drain::Drain;
use crate::controller::fixtures::{self, ListenerBuilder, at};
use crate::controller::poll::Snapshot;
use crate::crd::condition::StalledReason;
use crate::crd::{DEFAULT_CONTROLLER_NAME, SsmSession, SsmSessionStatus, session_finalizer};
use crate::identity::identity_of;

/// The installation of these tests.
const OURS: &str = "0123456789abcdef";

/// Another one.
const THEIRS: &str = "fedcba9876543210";

const SETTINGS: Settings = Settings {
    stalled_after: Duration::from_secs(120),
    finalizer_timeout: Duration::from_secs(60),
    history_timeout: Duration::from_secs(600),
    conflict_interval: Duration::from_secs(15),
};

/// A session and everything around it, with a clock that tests move.
struct World {
    observed: Observed,
    start: Instant,
    seconds: u64,
}

impl World {
    /// A session with these ports, seen for the first time; relay `a` in its run `1` lives.
    fn new(ports: &[&str]) -> Self {
        let session = fixtures::session(ports);
        let class = ClassFound::Ours {
            name: "plain".into(),
            identity: fixtures::aws(),
        };
        let observed = Observed {
            installation: OURS.into(),
            session: Arc::new(session),
            previous: SsmSessionStatus::default(),
            class,
            listeners: Vec::new(),
            unread_listeners: UnreadListeners::default(),
            service: ServiceFound::Absent,
            old_services: Vec::new(),
            slices: Vec::new(),
            relays: fixtures::relays(&[("a", "1")]),
            relays_full: false,
            drain: Drain::No,
            snapshots: BTreeMap::new(),
            memory: Memory::default(),
        };
        Self {
            observed,
            start: Instant::now(),
            seconds: 0,
        }
    }

    /// Everything made, with these listeners; slices as a first decision applies them.
    fn made(ports: &[&str], listeners: Vec<ListenerBuilder>) -> Self {
        let mut world = Self::new(ports);
        let finalizer = session_finalizer(OURS);
        world.change(|session| session.metadata.finalizers = Some(vec![finalizer]));
        world.observed.service = ServiceFound::Ours(Arc::new(world.stored_service()));
        world.listeners(listeners);
        world.apply_slices();
        world
    }

    /// The finalizer of another installation that holds the session.
    fn held_by(&self) -> Option<String> {
        self.observed.held_by().map(str::to_owned)
    }

    fn change(&mut self, change: impl FnOnce(&mut SsmSession)) {
        change(Arc::make_mut(&mut self.observed.session));
    }

    fn listeners(&mut self, listeners: Vec<ListenerBuilder>) {
        self.observed.listeners = listeners.into_iter().map(ListenerBuilder::arc).collect();
        self.observed
            .listeners
            .sort_by_key(|listener| listener.name_any());
    }

    /// Our Service as the API server gives it back on a dual-stack cluster.
    fn stored_service(&self) -> Service {
        let mut service = desired::service(&self.observed.session);
        service.metadata.uid = Some("uid-of-service".into());
        let spec = service.spec.as_mut().expect("made with a spec");
        spec.ip_families = Some(vec!["IPv4".into(), "IPv6".into()]);
        spec.cluster_ip = Some("10.96.0.7".into());
        service
    }

    fn decide(&self) -> Plan {
        let now = Now {
            wall: at(i64::try_from(self.seconds).expect("a small number")),
            instant: self.start + Duration::from_secs(self.seconds),
        };
        decide(&self.observed, &SETTINGS, now)
    }

    /// Decides, and remembers and stores what the reconciler would.
    fn report(&mut self) -> SsmSessionStatus {
        let plan = self.decide();
        let now = self.start + Duration::from_secs(self.seconds);
        let memory = std::mem::take(&mut self.observed.memory);
        let memory = memory::decided(memory, &plan, now);
        self.observed.memory = memory::written(memory, &plan);
        self.observed.previous = plan.status.expect("a status for our own session");
        self.observed.previous.clone()
    }

    fn after(&mut self, seconds: u64) -> SsmSessionStatus {
        self.seconds += seconds;
        self.report()
    }

    /// As if the API server had taken every slice, and the cache shows them.
    fn apply_slices(&mut self) {
        let plan = self.decide();
        let slices = &mut self.observed.slices;
        slices.retain(|slice| !plan.delete_slices.contains(&slice.name_any()));
        for slice in plan.apply_slices {
            slices.retain(|old| old.name_any() != slice.name_any());
            slices.push(Arc::new(slice));
        }
        slices.sort_by_key(|slice| slice.name_any());
    }

    fn poll(&mut self, change: impl FnOnce(&mut Snapshot)) {
        let identity = identity_of(&fixtures::aws());
        let snapshot = self.observed.snapshots.entry(identity).or_default();
        let mut next = snapshot.as_ref().clone();
        next.round += 1;
        next.taken_at = Some(at(i64::try_from(self.seconds).expect("a small number") + 1));
        change(&mut next);
        *snapshot = Arc::new(next);
    }
}

/// `Type=Status/Reason` of each condition.
fn words(status: &SsmSessionStatus) -> Vec<String> {
    let words = |c: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
        format!("{}={}/{}", c.type_, c.status, c.reason)
    };
    status.conditions.iter().map(words).collect()
}

fn says(status: &SsmSessionStatus, word: &str) -> bool {
    words(status).iter().any(|of| of == word)
}

fn is_stalled(status: &SsmSessionStatus, reason: StalledReason) -> bool {
    says(status, &format!("Stalled=True/{}", reason.as_str()))
}
