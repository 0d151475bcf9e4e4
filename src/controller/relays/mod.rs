//! Which relays live: a machine without I/O over the relays' Leases.
//!
//! A relay is dead when this controller itself has seen its Lease unchanged for the whole of the Lease's duration, counted
//! afresh whenever the API server was out of reach. A relay that released its Lease is gone at once. When more than half
//! of the relays look dead at once, more likely they can't reach the API server than that they died: for a while nothing
//! is moved, and what they said of their listeners still holds. Only relays that this controller has seen alive count
//! there.

pub mod task;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::lease::Watched;

/// Relays that are remembered at most: far above any Deployment, and a bound for whatever else carries our label.
pub const RELAYS_MAX: usize = 4096;

/// A relay's Lease as the API server shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseSeen {
    /// Name of the Lease, which is the relay's.
    pub name: String,
    /// The incarnation that holds it; none when it was released.
    pub incarnation: Option<String>,
    /// How long it is good for after each renewal.
    pub duration: Duration,
    /// Changes with every renewal; never compared with a clock.
    pub renewed: String,
    /// How many listeners the relay takes.
    pub capacity: usize,
    /// Guards the deletion of a dead Lease.
    pub resource_version: Option<String>,
}

/// What this controller knows of a relay's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// Its Lease is there, and was not seen renewed yet: what it serves goes on, and nothing new is bound to it.
    Unconfirmed,
    /// Its Lease is renewed.
    Alive,
    /// It gave its Lease back.
    Released,
    /// Its Lease was not renewed for the whole of its duration.
    Dead,
}

/// One relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// The run of its process that holds the Lease; empty when it was released.
    pub incarnation: String,
    /// How many listeners it takes.
    pub capacity: usize,
    /// Whether it lives.
    pub liveness: Liveness,
}

/// All relays at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelaysView {
    /// False only before the Leases were listed for the first time.
    pub known: bool,
    /// By name.
    pub relays: BTreeMap<String, Relay>,
    /// More than half look dead, and for now nothing is moved away from a dead relay, which counts as serving.
    pub moves_paused: bool,
    /// The Leases are known long enough that a relay without one is gone.
    pub absent_is_gone: bool,
}

impl RelaysView {
    /// Whether what this run of this relay says is true now. While moves are paused also that of one that looks dead:
    /// there is nowhere else to send a client.
    #[must_use]
    pub fn serves(&self, relay: &str, incarnation: &str) -> bool {
        self.relays.get(relay).is_some_and(|relay| {
            relay.incarnation == incarnation
                && match relay.liveness {
                    Liveness::Alive | Liveness::Unconfirmed => true,
                    Liveness::Dead => self.moves_paused,
                    Liveness::Released => false,
                }
        })
    }

    /// Whether new listeners may be bound to it.
    #[must_use]
    pub fn is_alive(&self, relay: &str) -> bool {
        self.relays
            .get(relay)
            .is_some_and(|relay| relay.liveness == Liveness::Alive)
    }

    /// Whether its listeners are without a relay: it is released, without a Lease, or dead and moves are not paused.
    #[must_use]
    pub fn is_gone(&self, relay: &str) -> bool {
        let is_held = self.moves_paused
            && self
                .relays
                .get(relay)
                .is_some_and(|relay| relay.liveness == Liveness::Dead);
        !self.acts(relay) && !is_held
    }

    /// Whether it can be expected to act on its listeners, such as to end the sessions of a deleted one.
    #[must_use]
    pub fn acts(&self, relay: &str) -> bool {
        match self.relays.get(relay).map(|relay| relay.liveness) {
            Some(Liveness::Alive | Liveness::Unconfirmed) => true,
            Some(Liveness::Released | Liveness::Dead) => false,
            None => !self.absent_is_gone,
        }
    }

    /// Whether relays are alive and each has as many listeners as it takes. `bound`: the relay of each listener.
    #[must_use]
    pub fn are_full<'a>(&self, bound: impl IntoIterator<Item = &'a str>) -> bool {
        let mut load: BTreeMap<&str, usize> = BTreeMap::new();
        for relay in bound {
            *load.entry(relay).or_default() += 1;
        }
        let alive = |(_, relay): &(&String, &Relay)| relay.liveness == Liveness::Alive;
        let mut alive = self.relays.iter().filter(alive).peekable();
        let is_full = |(name, relay): (&String, &Relay)| {
            load.get(name.as_str()).copied().unwrap_or(0) >= relay.capacity
        };
        alive.peek().is_some() && alive.all(is_full)
    }

    /// Whether its listeners may be bound to another relay now.
    #[must_use]
    pub fn may_move_from(&self, relay: &str) -> bool {
        let released = |relay: &Relay| relay.liveness == Liveness::Released;
        self.is_gone(relay) && (!self.moves_paused || self.relays.get(relay).is_some_and(released))
    }
}

/// A relay's Lease changes with each renewal, and with its holder.
type Version = (String, Option<String>);

#[derive(Debug)]
struct Tracked {
    seen: LeaseSeen,
    watched: Watched<Version>,
    present: bool,
}

impl Tracked {
    fn liveness(&self, now: Instant) -> Liveness {
        if self.seen.incarnation.is_none() {
            Liveness::Released
        } else if self.watched.unchanged_for(now) > self.seen.duration {
            Liveness::Dead
        } else if self.watched.is_confirmed() {
            Liveness::Alive
        } else {
            Liveness::Unconfirmed
        }
    }
}

/// The machine: Leases in, a view out.
#[derive(Debug)]
pub struct Relays {
    pause: Duration,
    absent_after: Duration,
    tracked: BTreeMap<String, Tracked>,
    reachable_since: Option<Instant>,
    /// What is known of a Lease that no answer has listed: one that appears in a later one was just written by a living
    /// relay.
    absent: Watched<Version>,
    mass_death: bool,
    paused_until: Option<Instant>,
}

impl Relays {
    /// `pause`: how long nothing is moved after more than half died at once. `absent_after`: how long the Leases must be
    /// known before a relay without any counts as gone; the duration of a relay's Lease.
    #[must_use]
    pub fn new(pause: Duration, absent_after: Duration) -> Self {
        Self {
            pause,
            absent_after,
            tracked: BTreeMap::new(),
            reachable_since: None,
            absent: Watched::default(),
            mass_death: false,
            paused_until: None,
        }
    }

    /// All Leases of relays, as one answer of the API server listed them.
    pub fn handle_leases(&mut self, leases: Vec<LeaseSeen>, now: Instant) {
        if self.reachable_since.is_none() {
            self.reachable_since = Some(now);
            for tracked in self.tracked.values_mut() {
                tracked.watched.handle_unreachable(now);
            }
        }
        for tracked in self.tracked.values_mut() {
            tracked.present = false;
        }
        for seen in leases.into_iter().take(RELAYS_MAX) {
            let fresh = || Tracked {
                seen: seen.clone(),
                watched: self.absent.clone(),
                present: true,
            };
            let tracked = self.tracked.entry(seen.name.clone()).or_insert_with(fresh);
            let version = (seen.renewed.clone(), seen.incarnation.clone());
            tracked.watched.handle_look(Some(version), now);
            tracked.present = true;
            tracked.seen = seen;
        }
        self.absent.handle_look(None, now);
        self.tracked.retain(|_, tracked| {
            let gone = matches!(tracked.liveness(now), Liveness::Dead | Liveness::Released);
            tracked.present || !gone
        });
    }

    /// The API server did not answer: what was not seen can't be held against a relay.
    pub fn handle_unreachable(&mut self) {
        self.reachable_since = None;
    }

    /// What is known at `now`. While the API server is out of reach nobody dies: ask for no view then.
    #[must_use]
    pub fn poll_view(&mut self, now: Instant) -> Option<RelaysView> {
        let reachable_since = self.reachable_since?;
        let alive = |tracked: &&Tracked| {
            tracked.watched.is_confirmed() && tracked.seen.incarnation.is_some()
        };
        let counted: Vec<&Tracked> = self.tracked.values().filter(alive).collect();
        let dead = counted
            .iter()
            .filter(|t| t.liveness(now) == Liveness::Dead)
            .count();
        if dead * 2 > counted.len() {
            if !self.mass_death {
                self.mass_death = true;
                self.paused_until = Some(now + self.pause);
            }
        } else {
            self.mass_death = false;
            self.paused_until = None;
        }
        let relays = self.tracked.iter().map(|(name, tracked)| {
            let incarnation = tracked.seen.incarnation.clone().unwrap_or_default();
            let capacity = tracked.seen.capacity;
            (
                name.clone(),
                Relay {
                    incarnation,
                    capacity,
                    liveness: tracked.liveness(now),
                },
            )
        });
        Some(RelaysView {
            known: true,
            relays: relays.collect(),
            moves_paused: self.paused_until.is_some_and(|until| now < until),
            absent_is_gone: now.duration_since(reachable_since) >= self.absent_after,
        })
    }

    /// Leases that were released or dead for longer than `after`, with the resourceVersion that was seen.
    #[must_use]
    pub fn poll_leftovers(&self, after: Duration, now: Instant) -> Vec<(String, Option<String>)> {
        if self.reachable_since.is_none() {
            return Vec::new();
        }
        let old = |tracked: &&Tracked| {
            tracked.present
                && matches!(tracked.liveness(now), Liveness::Dead | Liveness::Released)
                && tracked.watched.unchanged_for(now) > tracked.seen.duration + after
        };
        let leftovers = self.tracked.values().filter(old);
        leftovers
            .map(|t| (t.seen.name.clone(), t.seen.resource_version.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests;
