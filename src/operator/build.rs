//! Of which version a process is, as a metric.

use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Registers `ssm_operator_build_info`, which every process shows.
pub fn register(registry: &mut Registry) {
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    registry.sub_registry_with_prefix("ssm_operator").register(
        "build",
        "The version of this program",
        Info::new(version),
    );
}
