//! What the binding counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of one relay's Kubernetes half; clones count together.
#[derive(Clone, Debug, Default)]
pub struct BindingMetrics {
    /// Listeners bound to this relay.
    pub listeners: Gauge,
    /// Errors of the watch of listeners.
    pub watch_errors: Counter,
    /// Statuses written.
    pub status_writes: Counter,
    /// Status writes that met a newer object and were decided anew.
    pub status_conflicts: Counter,
    /// Status writes that the API server did not carry out.
    pub status_failures: Counter,
    /// Renewals of the relay's Lease.
    pub lease_renewals: Counter,
    /// Renewals that failed.
    pub lease_failures: Counter,
}

impl BindingMetrics {
    /// Makes them and registers them under `ssm_operator_binding_`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let Self {
            listeners,
            watch_errors,
            status_writes,
            status_conflicts,
            status_failures,
            lease_renewals,
            lease_failures,
        } = &metrics;
        let binding = registry.sub_registry_with_prefix("ssm_operator_binding");
        binding.register(
            "listeners",
            "Listeners bound to this relay",
            listeners.clone(),
        );
        for (name, help, counter) in [
            (
                "watch_errors",
                "Errors of the watch of listeners",
                watch_errors,
            ),
            ("status_writes", "Listener statuses written", status_writes),
            (
                "status_conflicts",
                "Status writes decided anew after a conflict",
                status_conflicts,
            ),
            (
                "status_failures",
                "Status writes that failed",
                status_failures,
            ),
            (
                "lease_renewals",
                "Renewals of the relay's Lease",
                lease_renewals,
            ),
            (
                "lease_failures",
                "Renewals of the Lease that failed",
                lease_failures,
            ),
        ] {
            binding.register(name, help, counter.clone());
        }
        metrics
    }
}
