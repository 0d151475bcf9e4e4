//! Whether this installation is asked to drain: a machine without I/O over the Lease that asks.
//!
//! The Lease asks for as long as somebody renews it, as this process sees it. One that was there before this process
//! looked for the first time may be what an uninstallation has left long ago, so nothing is begun and nothing is taken
//! away until it was seen renewed, or has run out.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt as _;
use tokio::time::Instant;

use crate::crd::{DRAIN_DURATION_MAX, DRAIN_LEASE, INSTALLATION_LABEL, RELAY_LEASE_LABEL};
use crate::lease::{Watched, holder, promised, renewal};

/// How long a Lease holds that does not say so: as long as the program's own.
const DURATION_DEFAULT: Duration = Duration::from_secs(30);

/// What the controller does about drains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drain {
    /// Nobody asks for one.
    #[default]
    No,
    /// A Lease that asks for one is there, and was not seen renewed: no session is begun with, and what is served goes on.
    Unconfirmed,
    /// Somebody renews that Lease: nothing is begun, every listener ends, and every session is let go.
    Asked,
}

/// The Lease that asks for a drain, as the API server shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainSeen {
    /// How long it holds after each renewal.
    pub duration: Duration,
    /// Changes with every renewal; never compared with a clock.
    pub renewed: String,
    /// Guards its deletion.
    pub resource_version: Option<String>,
}

impl DrainSeen {
    /// Of a Lease in the operator's namespace that asks this installation to drain. One that is labelled as a relay's
    /// does not: relays write Leases too, and none may end what the others serve.
    #[must_use]
    pub fn of(lease: &Lease, installation: &str) -> Option<Self> {
        let of_us = lease.labels().get(INSTALLATION_LABEL).map(String::as_str);
        let of_relay = lease.labels().contains_key(RELAY_LEASE_LABEL);
        if lease.name_any() != DRAIN_LEASE || of_us != Some(installation) || of_relay {
            return None;
        }
        holder(lease)?;
        Some(Self {
            duration: promised(lease)
                .unwrap_or(DURATION_DEFAULT)
                .min(DRAIN_DURATION_MAX),
            renewed: renewal(lease),
            resource_version: lease.resource_version(),
        })
    }
}

/// What this process knows of the Lease.
#[derive(Debug, Default)]
pub struct Drains {
    lease: Option<DrainSeen>,
    /// By its renewals.
    watched: Watched<String>,
    /// Whether it has run out, at a look that showed it unchanged. It stays so until it is renewed.
    over: bool,
}

impl Drains {
    /// The API server has answered, with the Lease if there is one.
    pub fn handle_lease(&mut self, lease: Option<DrainSeen>, now: Instant) {
        let renewed = lease.as_ref().map(|lease| lease.renewed.clone());
        let is_news = self.watched.handle_look(renewed, now);
        let unchanged_for = self.watched.unchanged_for(now);
        let has_run_out = |lease: &DrainSeen| unchanged_for >= lease.duration;
        self.over = !is_news && (self.over || lease.as_ref().is_some_and(has_run_out));
        self.lease = lease;
    }

    /// The API server did not answer.
    pub fn handle_unreachable(&mut self, now: Instant) {
        self.watched.handle_unreachable(now);
    }

    /// What is to be done about it.
    #[must_use]
    pub fn drain(&self) -> Drain {
        if self.lease.is_none() || self.over {
            Drain::No
        } else if self.watched.is_confirmed() {
            Drain::Asked
        } else {
            Drain::Unconfirmed
        }
    }

    /// The version of a Lease that has run out. It is to be deleted: each controller that begins to lead would wait for
    /// it again.
    #[must_use]
    pub fn poll_leftover(&self) -> Option<String> {
        let lease = self.lease.as_ref().filter(|_| self.over)?;
        lease.resource_version.clone()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn seen(renewal: u32) -> DrainSeen {
        DrainSeen {
            duration: LONG,
            renewed: renewal.to_string(),
            resource_version: Some(renewal.to_string()),
        }
    }

    #[test]
    fn a_lease_that_appears_asks_at_once_and_for_as_long_as_it_is_renewed() {
        let (mut drains, start) = (Drains::default(), Instant::now());
        drains.handle_lease(None, start);
        assert_eq!(drains.drain(), Drain::No);
        for renewal in 0..4 {
            let now = start + LONG * renewal;
            drains.handle_lease(Some(seen(renewal)), now);
            let later = now + LONG - Duration::from_secs(1);
            drains.handle_lease(Some(seen(renewal)), later);
            assert_eq!(drains.drain(), Drain::Asked, "renewal {renewal}");
            assert_eq!(drains.poll_leftover(), None);
        }
        let end = start + LONG * 4;
        drains.handle_lease(Some(seen(3)), end);
        assert_eq!(drains.drain(), Drain::No);
        assert_eq!(drains.poll_leftover(), Some("3".to_owned()));
    }

    #[test]
    fn a_drain_that_is_over_does_not_come_back_when_the_api_server_was_away() {
        let (mut drains, start) = (Drains::default(), Instant::now());
        drains.handle_lease(None, start);
        drains.handle_lease(Some(seen(1)), start);
        drains.handle_lease(Some(seen(1)), start + LONG);
        assert_eq!(drains.drain(), Drain::No);
        drains.handle_unreachable(start + LONG);
        assert_eq!(drains.drain(), Drain::No);
        drains.handle_lease(Some(seen(1)), start + LONG);
        assert_eq!(drains.drain(), Drain::No);
        drains.handle_lease(Some(seen(2)), start + LONG);
        assert_eq!(drains.drain(), Drain::Asked, "but by another renewal");
    }

    #[test]
    fn a_lease_that_was_there_before_is_waited_for_and_takes_nothing_away() {
        let (mut drains, start) = (Drains::default(), Instant::now());
        drains.handle_lease(Some(seen(1)), start);
        assert_eq!(drains.drain(), Drain::Unconfirmed);
        drains.handle_lease(Some(seen(1)), start + LONG);
        assert_eq!(drains.drain(), Drain::No, "nobody renews it");

        drains.handle_lease(Some(seen(2)), start + LONG);
        assert_eq!(drains.drain(), Drain::Asked, "somebody does");
    }

    #[test]
    fn the_time_in_which_the_api_server_was_away_does_not_count() {
        let (mut drains, start) = (Drains::default(), Instant::now());
        drains.handle_lease(None, start);
        drains.handle_lease(Some(seen(1)), start);
        drains.handle_unreachable(start + LONG * 3);
        drains.handle_lease(Some(seen(1)), start + LONG * 3);
        assert_eq!(drains.drain(), Drain::Asked);
        drains.handle_lease(Some(seen(1)), start + LONG * 4);
        assert_eq!(drains.drain(), Drain::No);
    }

    #[test]
    fn a_lease_that_is_deleted_asks_no_more() {
        let (mut drains, start) = (Drains::default(), Instant::now());
        drains.handle_lease(None, start);
        drains.handle_lease(Some(seen(1)), start);
        drains.handle_lease(None, start);
        assert_eq!(drains.drain(), Drain::No);
        assert_eq!(drains.poll_leftover(), None);
    }

    #[test]
    fn no_lease_stops_an_installation_for_good() {
        let mut endless = lease(DRAIN_LEASE, &json!({ INSTALLATION_LABEL: "ours" }), "me");
        let spec = endless.spec.as_mut().expect("it has one");
        spec.lease_duration_seconds = Some(i32::MAX);
        let seen = DrainSeen::of(&endless, "ours").expect("it asks");
        assert_eq!(seen.duration, DRAIN_DURATION_MAX);
    }

    fn lease(name: &str, labels: &Value, holder: &str) -> Lease {
        serde_json::from_value(json!({
            "metadata": { "name": name, "labels": labels, "resourceVersion": "7" },
            "spec": { "holderIdentity": holder, "leaseDurationSeconds": 30 },
        }))
        .expect("a Lease")
    }

    #[test]
    fn only_a_lease_of_this_installation_and_of_no_relay_asks() {
        let of = |name: &str, labels: &Value, holder: &str| {
            DrainSeen::of(&lease(name, labels, holder), "ours").is_some()
        };
        let ours = json!({ INSTALLATION_LABEL: "ours" });
        assert!(of(DRAIN_LEASE, &ours, "somebody"));
        assert!(!of("another", &ours, "somebody"));
        assert!(!of(DRAIN_LEASE, &ours, ""), "it was given back");
        assert!(!of(DRAIN_LEASE, &json!({}), "somebody"));
        let theirs = json!({ INSTALLATION_LABEL: "theirs" });
        assert!(!of(DRAIN_LEASE, &theirs, "somebody"));
        let relay = json!({ INSTALLATION_LABEL: "ours", RELAY_LEASE_LABEL: "x" });
        assert!(!of(DRAIN_LEASE, &relay, "relay-0"));
    }
}
