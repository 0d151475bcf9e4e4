//! The options themselves, and what must hold between them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use clap::Args;

use super::values::{
    MaybeUrl, advertise_address, collector, duration, object_name, port_range, ratio,
};
use crate::crd::{DEFAULT_CONTROLLER_NAME, DRAIN_DURATION_MAX};
use crate::telemetry::LogFormat;

/// Less than this leaves no room for a handful of sessions.
const BUFFERS_MIN: u64 = 16 << 20;

/// Options of whatever asks the API server.
#[derive(Args, Clone, Debug)]
pub struct InstallationArgs {
    /// The operator's own namespace: SsmListeners and the relays' Leases are in it. One installation's alone: where
    /// another --controller-name was first, a process is not ready and begins nothing
    #[arg(long, env = "POD_NAMESPACE", value_parser = object_name)]
    pub namespace: String,
    /// Which classes this installation serves: those with this controllerName. Sessions that two installations may serve
    /// are served by the first that puts its finalizer there
    #[arg(long, env = "CONTROLLER_NAME", default_value = DEFAULT_CONTROLLER_NAME)]
    pub controller_name: String,
    /// How logs are written
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
    /// Which logs are written, such as `info` or `info,ssm_session_operator=debug`
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub log_filter: String,
}

/// Options of a drain.
#[derive(Args, Clone, Debug)]
pub struct DrainArgs {
    /// How long to wait until everything was let go: less than the 5 minutes that Helm waits for a hook unless it is told
    /// otherwise, and more than the minute that a controller gives a relay to end its sessions, and that it then needs
    #[arg(long, default_value = "4m", value_parser = duration)]
    pub timeout: Duration,
    /// For how long controllers stay drained after the last renewal, about ten of which are made in that time: long enough
    /// that the Deployments are deleted meanwhile. For as long a controller that begins to lead afterwards begins nothing.
    /// From 5s to 1h
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub drain_duration: Duration,
    /// For how long nothing may be left before that is believed: several times the second in which controllers look
    /// whether they are to drain
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub quiet: Duration,
}

/// Options of every process.
#[derive(Args, Clone, Debug)]
pub struct CommonArgs {
    /// Whose process it is, and how it logs.
    #[command(flatten)]
    pub installation: InstallationArgs,
    /// For how long a relay's Lease holds: three renewals, so that two may fail before listeners are moved
    #[arg(long, default_value = "12s", value_parser = duration)]
    pub lease_duration: Duration,
    /// How long a call to AWS may take, all its tries together; StartSession is tried once
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub aws_call_timeout: Duration,
    /// How long a started session may stay unrecorded before the relay terminates it again
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub record_timeout: Duration,
    /// The first delay after a failure: long enough not to hammer, short enough not to be noticed
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub backoff_min: Duration,
    /// The longest delay after failures: what is mended is tried again within five minutes
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub backoff_max: Duration,
    /// Where probes and metrics are served: /livez, /readyz, /metrics. `[::]` is both families; port 0 takes
    /// a free one and logs it
    #[arg(long, default_value = "[::]:8080", value_name = "ADDRESS:PORT")]
    pub admin_address: SocketAddr,
    /// How long a shutdown may take before sessions are left to the next run: within a pod's 45 s of grace
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub shutdown_deadline: Duration,
    /// A collector that takes traces by OTLP over HTTP, such as `http://collector.monitoring:4318`. Without it there are
    /// none. Headers that it wants are taken from OTEL_EXPORTER_OTLP_HEADERS
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        default_value = "",
        hide_default_value = true,
        value_name = "URL",
        value_parser = collector
    )]
    pub otlp_endpoint: MaybeUrl,
    /// How many of the traces are sent, from 0 to 1: all by default, since there are few
    #[arg(long, default_value = "1", value_name = "RATIO", value_parser = ratio)]
    pub otlp_sampling: f64,
}

/// Options of the controller.
#[derive(Args, Clone, Debug)]
pub struct ControllerArgs {
    /// A namespace whose SsmSessions are served; may be given several times. Without it: all. Delete the SsmSessions of a
    /// namespace before you take it out: afterwards their AWS sessions are ended, but their finalizers stay
    #[arg(long = "watch-namespace", value_name = "NAMESPACE", value_parser = object_name)]
    pub watch_namespaces: Vec<String>,
    /// How often DescribeSessions is asked, once for all sessions of an identity: AWS throttles at a few calls a second
    #[arg(long, default_value = "20s", value_parser = duration)]
    pub poll_interval: Duration,
    /// For how long an unrecorded session must be seen before it is swept, and how long AWS may take to show an end:
    /// longer than --aws-call-timeout and --record-timeout together, so that none is swept while it is being recorded.
    /// Where controller and relays are processes of their own, give both the same two options
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub grace: Duration,
    /// For how long a class must be missing or access denied before a session is Stalled: a class or a role applied in
    /// the same sync arrives late, and Flux gives up at once on Stalled
    #[arg(long, default_value = "2m", value_parser = duration)]
    pub stalled_after: Duration,
    /// How long a relay may take to end the sessions of a deleted listener before the controller does it
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub terminate_after: Duration,
    /// How often the relays' Leases are looked at: a small part of a Lease's duration
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub relay_interval: Duration,
    /// How long nothing is moved when more than half of the relays look dead at once: more likely they can't reach the
    /// API server than that all of them died
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub mass_death_pause: Duration,
    /// How long a deleted SsmSession waits for its listeners: no namespace of a user hangs on AWS
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub finalizer_timeout: Duration,
    /// How long the end of a session is looked for in AWS's history: nobody promises how late it shows
    #[arg(long, default_value = "10m", value_parser = duration)]
    pub history_timeout: Duration,
    /// How often a Service that is not ours is looked at: it is not watched
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub conflict_interval: Duration,
    /// How often a relay is looked for for a listener that has none: nobody is told when another listener leaves room
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub unbound_interval: Duration,
    /// How often an object to which nothing happens is looked at: a net for what a watch may have missed. As often it is
    /// looked whether the kinds are served as this program knows them
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub resync_interval: Duration,
    /// How long a call to the API server may take
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub api_timeout: Duration,
    /// For how long other controllers see the leader's Lease unchanged before one of them leads
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub election_duration: Duration,
    /// For how long a leader acts without a renewal of its Lease: shorter than --election-duration by more than what
    /// clocks drift in that time, so that it has stopped before another starts
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub election_renew_deadline: Duration,
    /// How often a leader renews its Lease, and others look at it
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub election_retry: Duration,
}

/// Options of the relay.
#[derive(Args, Clone, Debug)]
pub struct RelayArgs {
    /// Name of this relay; the pod's, or else the host's
    #[arg(long, env = "POD_NAME", default_value = "", hide_default_value = true)]
    pub relay_name: String,
    /// An address that listeners listen on; may be given several times, each advertised family at least once. Without
    /// it: all addresses of the advertised families
    #[arg(long = "listen-address", value_name = "IP")]
    pub listen_addresses: Vec<IpAddr>,
    /// An address by which pods reach this relay, written into EndpointSlices: one for each family at most
    #[arg(
        long = "advertise-address",
        env = "POD_IPS",
        value_name = "IP",
        value_delimiter = ',',
        required = true,
        value_parser = advertise_address
    )]
    pub advertise_addresses: Vec<IpAddr>,
    /// Ports for listeners: below the kernel's ephemeral ports, so that no outgoing connection takes one
    #[arg(long, default_value = "10240-32767", value_name = "FIRST-LAST", value_parser = port_range)]
    pub port_range: RangeInclusive<u16>,
    /// How many listeners this relay takes, and no more than have 808 KiB each in two thirds of --buffers-max. One
    /// holds about 100 KiB, and up to 9 MiB and 128 KiB for each of its clients where these or the target do not keep up and
    /// there is room. When all relays are full, further sessions wait as NoCapacity
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    pub capacity: u32,
    /// Clients at once on one listener: each holds buffers of up to 128 KiB
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections_max: u32,
    /// Those of them that may come from one address, so that no pod keeps the others out: half by default. As many as
    /// --connections-max switches it off, for clients behind one address, such as a proxy or another network's NAT
    #[arg(long, value_name = "CONNECTIONS", value_parser = clap::value_parser!(u32).range(1..))]
    pub connections_max_per_client: Option<u32>,
    /// Bytes that all sessions together keep in memory on their way; beyond it clients wait in their sockets. By default
    /// 60 % of the memory that the container may have, and 614 MiB where there is no limit
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(BUFFERS_MIN..))]
    pub buffers_max: Option<u64>,
    /// How often the Lease is renewed
    #[arg(long, default_value = "4s", value_parser = duration)]
    pub lease_renew: Duration,
    /// How long a client that dials while no session is up is held before it is reset: never silence
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub hold: Duration,
    /// How long the agent may take to ask for a handshake before the start counts as failed
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub handshake_timeout: Duration,
    /// The delay before another start when DescribeSessions is what tells that AWS has ended a session: who did so meant
    /// it. A close that comes over the data channel is followed with the usual back-off
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub external_end_delay: Duration,
    /// How long a freed port goes to nobody else: a stale slice must not lead into another team's target
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub port_quarantine: Duration,
    /// How often a websocket is pinged; without a pong by the next ping it counts as lost
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub ping_interval: Duration,
    /// How long a half-closed client may hear nothing before the agent is told to close: it closes both ways. At most
    /// 2 s where more than half of a listener's places are taken, since a client that has gone looks the same
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub half_close_hold: Duration,
    /// How long one stream may keep the session's whole receive budget full before it is reset for the others' sake
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub stall_limit: Duration,
    /// INSECURE: trusts any stream URL with the session's token, also without TLS. For a simulator on loopback only
    #[arg(long)]
    pub insecure_stream_urls: bool,
}

impl InstallationArgs {
    /// What must hold between the options.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.controller_name.is_empty() {
            return Err("--controller-name is empty: classes could not name it".to_owned());
        }
        crate::telemetry::check_filter(&self.log_filter)
            .map_err(|error| format!("--log-filter {:?}: {error}", self.log_filter))
    }
}

impl DrainArgs {
    /// Renewals must fit in, ten of them, on a busy API server.
    const DURATION_MIN: Duration = Duration::from_secs(5);

    /// What must hold between the options.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.quiet >= self.timeout {
            return Err(format!(
                "--quiet {:?} is not below --timeout {:?}: no drain would end well",
                self.quiet, self.timeout
            ));
        }
        let (least, most) = (Self::DURATION_MIN, DRAIN_DURATION_MAX);
        if self.drain_duration < least || self.drain_duration > most {
            return Err(format!(
                "--drain-duration {:?} is not between {least:?} and {most:?}",
                self.drain_duration
            ));
        }
        Ok(())
    }
}

impl CommonArgs {
    /// What must hold between the options.
    pub(super) fn check(&self) -> Result<(), String> {
        self.installation.check()?;
        if self.backoff_min > self.backoff_max {
            return Err(above(
                "--backoff-min",
                self.backoff_min,
                "--backoff-max",
                self.backoff_max,
            ));
        }
        Ok(())
    }
}

impl ControllerArgs {
    /// What must hold between the options.
    pub(super) fn check(&self, common: &CommonArgs) -> Result<(), String> {
        if self.poll_interval > self.grace {
            let words = above("--poll-interval", self.poll_interval, "--grace", self.grace);
            return Err(format!(
                "{words}: a session must be seen in two polls before it is swept"
            ));
        }
        if self.election_renew_deadline >= self.election_duration {
            return Err(format!(
                "--election-renew-deadline {:?} is not below --election-duration {:?}: two controllers would lead",
                self.election_renew_deadline, self.election_duration
            ));
        }
        if self.election_retry * 2 > self.election_renew_deadline {
            return Err(format!(
                "--election-retry {:?} is more than half of --election-renew-deadline {:?}: one lost renewal would \
                 change the leader",
                self.election_retry, self.election_renew_deadline
            ));
        }
        let CommonArgs {
            aws_call_timeout,
            record_timeout,
            ..
        } = common;
        if self.grace <= *aws_call_timeout + *record_timeout {
            return Err(format!(
                "--grace {:?} is not above --aws-call-timeout {aws_call_timeout:?} and --record-timeout \
                 {record_timeout:?} together: a session that a relay is just starting would be swept",
                self.grace
            ));
        }
        Ok(())
    }
}

impl RelayArgs {
    /// Fills in what follows from the host and from other options, and checks what must hold between them.
    pub(super) fn complete(&mut self, common: &CommonArgs) -> Result<(), String> {
        if self.relay_name.is_empty() {
            self.relay_name =
                host_name().ok_or("--relay-name is missing, and the host has no name")?;
        }
        object_name(&self.relay_name).map_err(|error| format!("--relay-name: {error}"))?;
        if self.lease_renew * 2 > common.lease_duration {
            return Err(format!(
                "--lease-renew {:?} is more than half of --lease-duration {:?}: one lost renewal would move all \
                 listeners",
                self.lease_renew, common.lease_duration
            ));
        }
        let v6 = self
            .advertise_addresses
            .iter()
            .filter(|address| address.is_ipv6())
            .count();
        let v4 = self.advertise_addresses.len() - v6;
        if v4 > 1 || v6 > 1 {
            return Err("--advertise-address: one address of each family at most".to_owned());
        }
        if self.listen_addresses.is_empty() {
            let everywhere = |advertised: &IpAddr| match advertised {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            self.listen_addresses = self.advertise_addresses.iter().map(everywhere).collect();
        }
        let listens = |advertised: &&IpAddr| {
            let mut addresses = self.listen_addresses.iter();
            addresses.any(|address| address.is_ipv6() == advertised.is_ipv6())
        };
        if let Some(closed) = self.advertise_addresses.iter().find(|a| !listens(a)) {
            return Err(format!(
                "--advertise-address {closed}: no --listen-address is of its family, so EndpointSlices would lead to a \
                 closed port"
            ));
        }
        Ok(())
    }
}

fn above(name: &str, value: Duration, other_name: &str, other: Duration) -> String {
    format!("{name} {value:?} is above {other_name} {other:?}")
}

/// The host's name; in a pod that of the pod.
pub fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim().to_ascii_lowercase();
    (!name.is_empty()).then_some(name)
}
