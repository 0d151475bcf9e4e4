//! What a candidate does with the Lease that is stored: pure, without a client and a clock.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;

use crate::lease::{held, holder, promised};

/// What to do with the Lease that is stored.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// There is none: create this.
    Create(Box<Lease>),
    /// It is ours, or has run out: replace it by this.
    Replace(Box<Lease>),
    /// It is another's.
    Wait,
}

/// Decides about the Lease that is stored, which this process has seen unchanged for `unchanged_for`.
pub(super) fn decide(
    stored: Option<&Lease>,
    name: &str,
    identity: &str,
    duration: Duration,
    unchanged_for: Duration,
    now: Timestamp,
) -> Step {
    let Some(stored) = stored else {
        let mut lease = Lease::default();
        lease.metadata.name = Some(name.to_owned());
        return Step::Create(Box::new(held(lease, identity, duration, now)));
    };
    let free = holder(stored).is_none_or(|holder| holder == identity);
    // Options may differ while an installation is upgraded: it holds for what its holder was told, if that is longer.
    if free || unchanged_for >= duration.max(promised(stored).unwrap_or_default()) {
        return Step::Replace(Box::new(held(stored.clone(), identity, duration, now)));
    }
    Step::Wait
}
