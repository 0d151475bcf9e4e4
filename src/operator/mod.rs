//! Wires the processes: clients, broker, relay, controller, probes, and how they end.
//!
//! A process ends with 0 when it was asked to end and did so in time. Whatever else ends it leaves a log line and a
//! code other than 0, so that it is started again.

mod api_server;
pub mod build;
mod files;
mod installation;
mod memory;
mod options;
mod process;
mod supervise;

use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use kube::Api;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::admin::{self, Checks};
use crate::binding::{self, BindingMetrics, Readiness};
use crate::cli::{
    Cli, Command, CommonArgs, ControllerArgs, DrainArgs, InstallationArgs, RelayArgs,
};
use crate::election::Candidate;
use crate::relay::{self, Relay};
use crate::telemetry::{self, TraceOptions, Traces};
use crate::{controller, crd, drain};
use installation::namespace_uid;
use options::{
    binding_options, controller_options, drain_options, election_timing, process_identity,
    relay_options, trace_options,
};
use process::{Process, connect, start, tls};
use supervise::{Task, on_signal, supervise};

/// The whole program.
#[must_use]
pub fn main(cli: Cli) -> ExitCode {
    let (common, controller, relay) = match cli.command {
        Command::Controller { common, controller } => (common, Some(controller), None),
        Command::Relay { common, relay } => (common, None, Some(*relay)),
        Command::AllInOne {
            common,
            controller,
            relay,
        } => (common, Some(controller), Some(*relay)),
        Command::Drain {
            installation,
            drain,
        } => {
            let draining = run_drain(&installation, &drain);
            return ended(run_to_end(&installation, None, draining));
        }
        Command::Crds { dir } => return ended(write_crds(dir.as_deref())),
    };
    let running = async {
        files::raise_limit();
        run(&common, controller, relay).await
    };
    let traces = trace_options(&common, tls);
    ended(traces.and_then(|traces| run_to_end(&common.installation, traces, running)))
}

fn run_to_end(
    logs: &InstallationArgs,
    traces: Option<TraceOptions>,
    task: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let traces = traces.map(|options| Traces::new(options, runtime.handle().clone()));
    let traces = traces.transpose()?;
    telemetry::init(logs.log_format, &logs.log_filter, traces.as_ref())?;
    let ran = runtime.block_on(task);
    if let Some(traces) = traces {
        traces.finish();
    }
    // A name look-up that hangs must not keep the process.
    runtime.shutdown_background();
    ran
}

/// The exit code; before there are logs the error is printed.
fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if tracing::dispatcher::has_been_set() {
                error!(error = format!("{error:#}"), "the process ends");
            } else {
                let _ = writeln!(std::io::stderr(), "ssm-session-operator: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn write_crds(dir: Option<&Path>) -> anyhow::Result<()> {
    if let Some(dir) = dir {
        return crd::write_manifests(dir).with_context(|| format!("writing to {}", dir.display()));
    }
    let mut out = std::io::stdout().lock();
    for (_, yaml) in crd::manifests() {
        writeln!(out, "---\n{}", yaml.trim_end())?;
    }
    Ok(())
}

async fn run(
    common: &CommonArgs,
    controller: Option<ControllerArgs>,
    relay: Option<RelayArgs>,
) -> anyhow::Result<()> {
    let shutdown = on_signal()?;
    let mut checks = Checks::default();
    let relay_readiness = relay.is_some().then(|| Readiness {
        lease: checks.add(
            "relay lease",
            "the API server has not let it be written yet, or the relay ends",
        ),
        listed: checks.add(
            "listeners listed",
            "the API server has not listed them yet, or the relay ends",
        ),
    });
    let controller_readiness = controller.is_some().then(|| controller::Readiness {
        synced: checks.add(
            "controller caches",
            "the API server has not listed all that is watched yet",
        ),
        unreadable: checks.remark("watched namespaces"),
    });

    let listener = bind_admin(common.admin_address)
        .await
        .with_context(|| format!("--admin-address {}", common.admin_address))?;
    let address = listener.local_addr()?.to_string();
    info!(
        address,
        version = env!("CARGO_PKG_VERSION"),
        "serving probes and metrics"
    );
    let mut registry = Registry::default();
    build::register(&mut registry);
    let registry = Arc::new(Mutex::new(registry));
    let shown = registry.clone();
    let admin = Task::spawn("admin", |stop| async move {
        admin::run(listener, checks, shown, stop).await;
        Ok(())
    });

    let Some(process) = start(common, controller.is_some(), registry, &shutdown).await? else {
        return Ok(());
    };
    // In the order in which they end: while sessions are being ended the controller still withdraws endpoints.
    let mut tasks = Vec::new();
    if let (Some(args), Some(readiness)) = (relay, relay_readiness) {
        tasks.push(spawn_relay(&process, common, &args, readiness));
    }
    if let (Some(args), Some(readiness)) = (controller, controller_readiness) {
        tasks.push(spawn_controller(&process, common, &args, readiness));
    }
    tasks.push(admin);
    supervise(tasks, shutdown, common.shutdown_deadline).await
}

/// Has the controllers drain. Where the namespace is another installation's, this one has begun nothing there.
async fn run_drain(installation: &InstallationArgs, args: &DrainArgs) -> anyhow::Result<()> {
    let shutdown = on_signal()?;
    let asked = async {
        let client = connect().await?;
        let Some(uid) = namespace_uid(&client, &installation.namespace, &shutdown).await else {
            return Ok(None);
        };
        Ok::<_, anyhow::Error>(Some((client, uid)))
    };
    let asked = timeout(args.timeout, asked).await;
    let asked = asked.with_context(|| format!("the API server, within {:?}", args.timeout))??;
    let Some((client, uid)) = asked else {
        bail!("asked to end before anything was let go");
    };
    let options = drain_options(installation, args, &uid);
    Ok(drain::run(&client, options, &shutdown).await?)
}

/// All addresses of both families are asked for as `[::]`; a host without IPv6 gives those of IPv4.
async fn bind_admin(address: SocketAddr) -> std::io::Result<TcpListener> {
    let everywhere = address.ip() == Ipv6Addr::UNSPECIFIED;
    match TcpListener::bind(address).await {
        Err(error) if everywhere && error.kind() != ErrorKind::AddrInUse => {
            info!(%error, "no IPv6 on this host: probes and metrics over IPv4 only");
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

fn spawn_relay(
    process: &Process,
    common: &CommonArgs,
    args: &RelayArgs,
    readiness: Readiness,
) -> Task {
    let incarnation = uuid::Uuid::new_v4().to_string();
    let (relay_metrics, metrics) = {
        let mut registry = process
            .registry
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let relay_metrics = relay::Metrics::default();
        relay_metrics.register(&mut registry);
        (relay_metrics, BindingMetrics::register(&mut registry))
    };
    let relay = Relay::new(
        relay_options(
            common,
            args,
            &incarnation,
            process.tls.clone(),
            process.proxies.clone(),
        ),
        process.broker.clone(),
        relay_metrics,
    );
    let options = binding_options(common, args, &incarnation, &process.namespace_uid);
    if args.insecure_stream_urls {
        warn!("--insecure-stream-urls: session tokens may go to any host, also without TLS");
    }
    let client = process.client.clone();
    Task::spawn("relay", |stop| async move {
        Ok(binding::run(client, relay, options, stop, readiness, metrics).await?)
    })
}

fn spawn_controller(
    process: &Process,
    common: &CommonArgs,
    args: &ControllerArgs,
    readiness: controller::Readiness,
) -> Task {
    let options = controller_options(common, args, &process.namespace_uid);
    let metrics = {
        let mut registry = process
            .registry
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        controller::metrics::Metrics::register(&mut registry)
    };
    let (client, broker) = (process.client.clone(), process.broker.clone());
    let candidate = Candidate::new(
        Api::namespaced(client.clone(), &common.installation.namespace),
        crd::election_lease(&common.installation.controller_name),
        process_identity(),
        election_timing(args),
    );
    Task::spawn("controller", |stop| async move {
        let standing_by = |standing_by: bool| {
            metrics.lead(!standing_by);
            // One that stands by is as ready as it will ever be, and may be waited for by a rollout.
            readiness.synced.send_replace(standing_by);
            readiness.unreadable.send_replace(String::new());
        };
        let lead = |term, stop| {
            let (client, broker) = (client.clone(), broker.clone());
            let (options, metrics) = (options.clone(), metrics.clone());
            controller::run(
                client,
                broker,
                options,
                metrics,
                readiness.clone(),
                term,
                stop,
            )
        };
        Ok(candidate.lead(stop, standing_by, lead).await?)
    })
}
