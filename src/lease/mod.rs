//! What Leases of Kubernetes have in common here, whoever holds them: a holder, for how long, and since when; what another
//! sees of that, and how the holder heeds it.

mod term;
mod watched;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

pub use term::{Over, Term};
pub use watched::Watched;

/// Who holds it.
#[must_use]
pub fn holder(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    (!holder.is_empty()).then_some(holder)
}

/// For how long it holds after each renewal, if it says so.
#[must_use]
pub fn promised(lease: &Lease) -> Option<Duration> {
    let seconds = lease.spec.as_ref()?.lease_duration_seconds?;
    seconds.try_into().ok().map(Duration::from_secs)
}

/// Which renewal it is: another text after each, and the same after any other write. It is its holder's time, and is
/// compared with no clock.
#[must_use]
pub fn renewal(lease: &Lease) -> String {
    let spec = lease.spec.as_ref();
    let renewed_at = spec.and_then(|spec| spec.renew_time.as_ref());
    renewed_at.map_or_else(String::new, |time| time.0.to_string())
}

/// `lease`, held by `identity` for `duration` from `now`.
#[must_use]
pub fn held(mut lease: Lease, identity: &str, duration: Duration, now: Timestamp) -> Lease {
    let holds_already = holder(&lease) == Some(identity);
    // Left as they are by the API server when a write does not name them.
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

/// `lease` given back: nobody holds it from now on.
#[must_use]
pub fn released(mut lease: Lease, now: Timestamp) -> Lease {
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
