//! The options of the command line as each half of the program takes them.

use std::sync::Arc;

use tokio_rustls::rustls::ClientConfig;
use tracing::warn;

use super::{files, memory};
use crate::aws::{self, AwsOptions};
use crate::binding::BindingOptions;
use crate::broker::UrlPolicy;
use crate::cli::{CommonArgs, ControllerArgs, DrainArgs, InstallationArgs, RelayArgs, host_name};
use crate::controller::ControllerOptions;
use crate::crd;
use crate::drain::DrainOptions;
use crate::election::Timing;
use crate::proxy::Proxies;
use crate::relay::{RelayOptions, sessions_max};
use crate::telemetry::TraceOptions;

/// For the controller.
pub(super) fn controller_options(
    common: &CommonArgs,
    args: &ControllerArgs,
    namespace_uid: &str,
) -> ControllerOptions {
    ControllerOptions {
        controller_name: common.installation.controller_name.clone(),
        watch_namespaces: args.watch_namespaces.clone(),
        poll_interval: args.poll_interval,
        grace: args.grace,
        stalled_after: args.stalled_after,
        lease_duration: common.lease_duration,
        relay_interval: args.relay_interval,
        mass_death_pause: args.mass_death_pause,
        terminate_after: args.terminate_after,
        finalizer_timeout: args.finalizer_timeout,
        history_timeout: args.history_timeout,
        conflict_interval: args.conflict_interval,
        unbound_interval: args.unbound_interval,
        resync_interval: args.resync_interval,
        backoff_min: common.backoff_min,
        backoff_max: common.backoff_max,
        api_timeout: args.api_timeout,
        ..ControllerOptions::new(&common.installation.namespace, namespace_uid)
    }
}

/// For the election of the one controller that leads.
pub(super) fn election_timing(args: &ControllerArgs) -> Timing {
    Timing {
        duration: args.election_duration,
        renew_deadline: args.election_renew_deadline,
        retry: args.election_retry,
    }
}

/// Of a process in an election, or in a drain: another for each of its runs.
pub(super) fn process_identity() -> String {
    let host = host_name().unwrap_or_default();
    format!("{host}_{}", uuid::Uuid::new_v4())
}

/// For a drain.
pub(super) fn drain_options(
    installation: &InstallationArgs,
    args: &DrainArgs,
    namespace_uid: &str,
) -> DrainOptions {
    let InstallationArgs {
        namespace,
        controller_name,
        log_format: _,
        log_filter: _,
    } = installation;
    DrainOptions {
        namespace: namespace.clone(),
        installation: crd::installation(namespace_uid, controller_name),
        election_lease: crd::election_lease(controller_name),
        identity: process_identity(),
        timeout: args.timeout,
        duration: args.drain_duration,
        quiet: args.quiet,
    }
}

/// For the broker of either; `variable` reads the environment.
pub(super) fn aws_options(
    common: &CommonArgs,
    proxies: Proxies,
    metrics: aws::Metrics,
    variable: impl Fn(&str) -> Option<String>,
) -> AwsOptions {
    AwsOptions {
        call_timeout: common.aws_call_timeout,
        region: own_region(variable),
        proxies,
        metrics,
        ..AwsOptions::default()
    }
}

/// The Region that this process runs in, by the SDKs' own variables: EKS sets both, with IRSA and with Pod Identity.
fn own_region(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    ["AWS_REGION", "AWS_DEFAULT_REGION"]
        .into_iter()
        .find_map(set)
}

/// For traces, if a collector was named; `tls` is for one with `https://`.
pub(super) fn trace_options(
    common: &CommonArgs,
    tls: impl FnOnce() -> anyhow::Result<ClientConfig>,
) -> anyhow::Result<Option<TraceOptions>> {
    let Some(endpoint) = common.otlp_endpoint.clone() else {
        return Ok(None);
    };
    Ok(Some(TraceOptions {
        endpoint,
        sampling: common.otlp_sampling,
        namespace: common.installation.namespace.clone(),
        instance: host_name().unwrap_or_default(),
        tls: tls()?,
    }))
}

/// For the relay.
pub(super) fn relay_options(
    common: &CommonArgs,
    args: &RelayArgs,
    incarnation: &str,
    tls: Arc<ClientConfig>,
    proxies: Proxies,
) -> RelayOptions {
    RelayOptions {
        name: args.relay_name.clone(),
        incarnation: incarnation.to_owned(),
        listen_addresses: args.listen_addresses.clone(),
        ports: args.port_range.clone(),
        port_quarantine: args.port_quarantine,
        hold: args.hold,
        handshake_timeout: args.handshake_timeout,
        record_timeout: common.record_timeout,
        backoff_min: common.backoff_min,
        backoff_max: common.backoff_max,
        external_end_delay: args.external_end_delay,
        ping_interval: args.ping_interval,
        half_close_hold: args.half_close_hold,
        stall_limit: args.stall_limit,
        connections_max: count(args.connections_max),
        connections_max_per_client: count(
            args.connections_max_per_client
                .unwrap_or(args.connections_max.div_ceil(2)),
        ),
        clients_max: files::clients_max(capacity(args)),
        buffers_max: buffers_max(args),
        url_policy: if args.insecure_stream_urls {
            UrlPolicy::Insecure
        } else {
            UrlPolicy::Strict
        },
        tls,
        proxies,
    }
}

/// What a relay's sessions may keep in memory.
fn buffers_max(args: &RelayArgs) -> usize {
    let bytes = args.buffers_max.unwrap_or_else(memory::buffers_max);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// How many listeners a relay takes: as many as it was told to, where each has the least of memory that it needs.
fn capacity(args: &RelayArgs) -> usize {
    count(args.capacity).min(sessions_max(buffers_max(args)))
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// For its Kubernetes half.
pub(super) fn binding_options(
    common: &CommonArgs,
    args: &RelayArgs,
    incarnation: &str,
    namespace_uid: &str,
) -> BindingOptions {
    let capacity = capacity(args);
    if capacity < count(args.capacity) {
        warn!(
            capacity = args.capacity,
            fitting = capacity,
            "fewer listeners are taken than --capacity says: there is no memory for the buffers of more; see --buffers-max"
        );
    }
    BindingOptions {
        namespace: common.installation.namespace.clone(),
        namespace_uid: namespace_uid.to_owned(),
        relay_name: args.relay_name.clone(),
        incarnation: incarnation.to_owned(),
        controller_name: common.installation.controller_name.clone(),
        advertise_addresses: args.advertise_addresses.clone(),
        lease_duration: common.lease_duration,
        lease_renew: args.lease_renew,
        capacity,
        // Half of what the relay waits for a session's record, so that it can try once more.
        record_deadline: common.record_timeout / 2,
        // The rest of the time is for the Lease and for the other tasks.
        shutdown_deadline: common.shutdown_deadline * 2 / 3,
    }
}

#[cfg(test)]
mod tests {
    use super::own_region;

    #[test]
    fn the_own_region_is_the_first_variable_that_says_something() {
        let region = |variables: &[(&str, &str)]| {
            own_region(|name| {
                let set = variables.iter().find(|(set, _)| *set == name);
                set.map(|(_, value)| (*value).to_owned())
            })
        };
        let (first, second) = ("AWS_REGION", "AWS_DEFAULT_REGION");
        let both = [(second, "eu-west-1"), (first, "eu-central-1")];
        assert_eq!(region(&both).as_deref(), Some("eu-central-1"));
        let empty = [(first, ""), (second, "eu-west-1")];
        assert_eq!(region(&empty).as_deref(), Some("eu-west-1"));
        assert_eq!(region(&both[..1]).as_deref(), Some("eu-west-1"));
        assert_eq!(region(&[]), None);
    }
}
