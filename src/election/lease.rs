//! The Lease of an election: whose it is, and what a candidate writes.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

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
    if free || unchanged_for >= duration.max(promised(stored)) {
        return Step::Replace(Box::new(held(stored.clone(), identity, duration, now)));
    }
    Step::Wait
}

/// Who holds it.
pub(super) fn holder(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    (!holder.is_empty()).then_some(holder)
}

/// For how long its holder was told that it holds: options may differ while an installation is upgraded.
fn promised(lease: &Lease) -> Duration {
    let seconds = lease.spec.as_ref().and_then(|s| s.lease_duration_seconds);
    Duration::from_secs(seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(0))
}

fn held(mut lease: Lease, identity: &str, duration: Duration, now: Timestamp) -> Lease {
    let holds_already = holder(&lease) == Some(identity);
    lease.metadata.managed_fields = None;
    let spec = lease.spec.get_or_insert_default();
    if !holds_already {
        spec.acquire_time = Some(MicroTime(now));
        spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |count| count + 1));
    }
    spec.holder_identity = Some(identity.to_owned());
    spec.lease_duration_seconds = Some(whole_seconds(duration));
    spec.renew_time = Some(MicroTime(now));
    lease
}

/// `lease` given back: nobody holds it, and the next takes it at once.
pub(super) fn released(mut lease: Lease, now: Timestamp) -> Lease {
    lease.metadata.managed_fields = None;
    let spec = lease.spec.get_or_insert_default();
    spec.holder_identity = None;
    spec.renew_time = Some(MicroTime(now));
    lease
}

/// A Lease counts in whole seconds, one at least; a broken second is given to the holder.
fn whole_seconds(duration: Duration) -> i32 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i32::try_from(seconds.max(1)).unwrap_or(i32::MAX)
}
