//! The simulator as a process of its own: SSM API, message gateway and agents on one address, for
//! the demo and for tests of processes. It is never in the image.

#![allow(clippy::print_stdout, reason = "whoever started it waits for one line")]

use std::io::Read;
use std::net::SocketAddr;

use clap::{Parser, ValueEnum};
use ssm_session_operator::simulator::{Agent, AgentOptions, Pace, Simulator, SimulatorOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Plays the SSM API, the message gateway and agents, without AWS.
#[derive(Parser)]
struct Options {
    /// Where to listen; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Runs an agent for this target; repeat it for more.
    #[arg(long = "agent", value_name = "ID")]
    agents: Vec<String>,
    /// How fast the agents are.
    #[arg(long, value_enum, default_value_t = PaceName::Faithful)]
    pace: PaceName,
    /// A destination that only the agents reach, such as `orders-db.internal:5432=127.0.0.1:40000`.
    #[arg(long = "destination", value_name = "HOST:PORT=ADDRESS", value_parser = destination)]
    destinations: Vec<Destination>,
    /// Exits when standard input closes, so that it never outlives who started it.
    #[arg(long)]
    exit_with_stdin: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum PaceName {
    /// 1024 bytes and 1 ms for each message, as the real agent.
    Faithful,
    /// As fast as it goes.
    Unthrottled,
}

#[derive(Clone)]
struct Destination {
    host: String,
    port: u16,
    address: SocketAddr,
}

fn destination(text: &str) -> Result<Destination, String> {
    let (name, address) = text.split_once('=').ok_or("write HOST:PORT=ADDRESS")?;
    let (host, port) = name
        .rsplit_once(':')
        .ok_or("write HOST:PORT before the =")?;
    Ok(Destination {
        host: host.to_owned(),
        port: port.parse().map_err(|_| format!("{port} is not a port"))?,
        address: address
            .parse()
            .map_err(|_| format!("{address} is not an address with a port"))?,
    })
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let options = Options::parse();
    let mut terminate = signal(SignalKind::terminate())?;
    let simulator = Simulator::start(SimulatorOptions {
        listen: options.listen,
        ..Default::default()
    })
    .await?;
    let mut agents = Vec::new();
    for id in &options.agents {
        let mut agent = AgentOptions::new(id);
        agent.pace = match options.pace {
            PaceName::Faithful => Pace::Faithful,
            PaceName::Unthrottled => Pace::Unthrottled,
        };
        agent.destinations = options
            .destinations
            .iter()
            .map(|d| ((d.host.clone(), d.port), d.address))
            .collect();
        agents.push(Agent::start(&simulator.endpoint(), agent)?);
    }
    for id in &options.agents {
        simulator.wait_for_target(id).await?;
    }
    println!("READY {}", simulator.endpoint());
    let input_closed = CancellationToken::new();
    if options.exit_with_stdin {
        let input_closed = input_closed.clone();
        std::thread::spawn(move || {
            let mut ignored = [0; 256];
            while matches!(std::io::stdin().read(&mut ignored), Ok(1..)) {}
            input_closed.cancel();
        });
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
        () = input_closed.cancelled() => {}
    }
    for agent in agents {
        agent.shutdown().await;
    }
    simulator.shutdown().await;
    Ok(())
}
