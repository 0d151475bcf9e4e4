//! A port session behind the handshake: the multiplexer, the dials, and bytes both ways.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::Arc;

use async_smux::{MuxAcceptor, MuxBuilder, MuxStream};
use bytes::Bytes;
use serde_json::Value;
use tokio::io::{
    AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf, copy, copy_buf,
    duplex, split,
};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::handshake::Agreed;
use super::outcome::Outcome;
use super::outgoing::Outgoing;
use super::{AgentOptions, Pace};
use crate::protocol::message::PayloadType;
use crate::protocol::payload::Flag;

/// Bytes between the data channel and the multiplexer, each way: about what a socket pair holds.
const PIPE_BYTES: usize = 64 * 1024;

/// Bytes of one message: what the real agent reads from its multiplexer at once.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Bytes read from a destination at once; also the largest frame that the real agent sends.
const DESTINATION_READ_BYTES: usize = 32 * 1024;

/// Keepalive of the multiplexer, in seconds, for clients that need it.
const KEEPALIVE_INTERVAL_SECONDS: NonZeroU64 = NonZeroU64::new(10).unwrap();
const KEEPALIVE_TIMEOUT_SECONDS: NonZeroU64 = NonZeroU64::new(30).unwrap();

/// Addresses that the real agent forwards nothing to: instance metadata, DNS and time of the VPC.
const DENIED: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 253)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 123)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x123)),
];

/// Where to, as the document's properties say.
pub(super) struct Forward {
    host: Option<String>,
    port: u16,
    /// Local port forwarding: many connections, when the client speaks the multiplexer.
    local: bool,
}

impl Forward {
    /// # Errors
    /// A sentence for the user.
    pub(super) fn parse(properties: &Value) -> Result<Self, String> {
        let text = |name: &str| properties.get(name).and_then(Value::as_str);
        let port = text("portNumber").and_then(|port| port.parse().ok());
        Ok(Self {
            host: text("host")
                .filter(|host| !host.is_empty())
                .map(str::to_owned),
            port: port.ok_or("portNumber is missing or not a port")?,
            local: text("type") == Some("LocalPortForwarding"),
        })
    }

    /// Addresses to dial, found once, when the session starts.
    async fn addresses(&self, options: &AgentOptions) -> Result<Vec<SocketAddr>, Outcome> {
        let name = self.host.as_deref().unwrap_or("localhost");
        if let Some(address) = options.destinations.get(&(name.to_owned(), self.port)) {
            return Ok(vec![*address]);
        }
        let addresses: Vec<_> = tokio::net::lookup_host((name, self.port))
            .await
            .map_err(|_| Outcome::failed(format!("lookup {name}: no such host")))?
            .collect();
        if addresses
            .iter()
            .any(|address| DENIED.contains(&address.ip()))
        {
            let text = format!("Forwarding to IP address {name} is forbidden.");
            return Err(Outcome::failed(text));
        }
        Ok(addresses)
    }
}

/// A running port session.
pub(super) struct Port {
    pipe: WriteHalf<DuplexStream>,
    ready_at: Instant,
    ended: mpsc::Receiver<Outcome>,
    /// Aborted with the session.
    _tasks: JoinSet<()>,
}

impl Port {
    /// Starts the multiplexer, or dials for the one connection of a session without it.
    ///
    /// # Errors
    /// How the session ends instead: the host is denied or unknown, or the client is too old.
    pub(super) async fn open(
        forward: Forward,
        agreed: Agreed,
        outgoing: &Arc<Outgoing>,
        options: &AgentOptions,
    ) -> Result<Self, Outcome> {
        let addresses = forward.addresses(options).await?;
        let (near, far) = duplex(PIPE_BYTES);
        let (reader, pipe) = split(near);
        let (end, ended) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        let pump = pump(reader, Arc::clone(outgoing), options.pace);
        if !forward.local {
            tasks.spawn(async move {
                // What the destination said is sent before the session ends.
                let (outcome, ()) = tokio::join!(forward_one(far, addresses), pump);
                let _ = end.send(outcome).await;
            });
        } else if agreed.multiplexer {
            let mut builder = MuxBuilder::server();
            if agreed.keepalive {
                builder.with_keep_alive_interval(KEEPALIVE_INTERVAL_SECONDS);
                builder.with_keep_alive_timeout(KEEPALIVE_TIMEOUT_SECONDS);
            }
            let (_, acceptor, worker) = builder.with_connection(far).build();
            tasks.spawn(accept(acceptor, addresses, Arc::clone(outgoing)));
            tasks.spawn(async move {
                let (result, ()) = tokio::join!(worker, pump);
                let reason = result
                    .err()
                    .map_or_else(String::new, |error| format!(": {error}"));
                let outcome = Outcome::failed(format!("the multiplexer has ended{reason}"));
                let _ = end.send(outcome).await;
            });
        } else {
            let text =
                "this agent forwards local ports only for clients of version 1.1.70 or later";
            return Err(Outcome::failed(text));
        }
        let ready_at = Instant::now() + options.pace.deaf();
        Ok(Self {
            pipe,
            ready_at,
            ended,
            _tasks: tasks,
        })
    }

    /// Whether data is taken already.
    pub(super) fn is_ready(&self) -> bool {
        Instant::now() >= self.ready_at
    }

    /// Hands data on; waits while nobody takes it.
    ///
    /// # Errors
    /// How the session ended.
    pub(super) async fn write(&mut self, data: &[u8]) -> Result<(), Outcome> {
        if self.pipe.write_all(data).await.is_ok() {
            return Ok(());
        }
        Err(self.ended().await)
    }

    /// Waits until the session has ended by itself.
    pub(super) async fn ended(&mut self) -> Outcome {
        match self.ended.recv().await {
            Some(outcome) => outcome,
            None => Outcome::success(),
        }
    }
}

/// Reads what goes to the client and sends it, at the agent's pace.
async fn pump(mut pipe: ReadHalf<DuplexStream>, outgoing: Arc<Outgoing>, pace: Pace) {
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    loop {
        outgoing.ready().await;
        let Ok(bytes @ 1..) = pipe.read(&mut buffer).await else {
            return;
        };
        let payload = Bytes::copy_from_slice(&buffer[..bytes]);
        outgoing.send(PayloadType::Output, payload).await;
        if let Some(pause) = pace.pause() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// Accepts streams and dials for each before it accepts the next, as the real agent: a destination
/// that does not answer holds up all streams behind it.
async fn accept(
    mut acceptor: MuxAcceptor<DuplexStream>,
    addresses: Vec<SocketAddr>,
    outgoing: Arc<Outgoing>,
) {
    let mut splices = JoinSet::new();
    while let Some(stream) = acceptor.accept().await {
        match dial(&addresses).await {
            Ok(destination) => {
                splices.spawn(splice(stream, destination));
            }
            Err(error) => {
                tracing::debug!(%error, ?addresses, "the agent could not dial the destination");
                let flag = Bytes::copy_from_slice(&Flag::ConnectToPortError.encode());
                outgoing.send(PayloadType::Flag, flag).await;
                // Its FIN goes out behind the flag.
                drop(stream);
            }
        }
        while splices.try_join_next().is_some() {}
    }
}

async fn dial(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut first_error = None;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or_else(|| io::Error::other("no address to dial")))
}

/// Carries bytes until either side ends: a FIN of the client closes the destination whole, once it
/// has what came before, and the destination's end becomes a FIN.
async fn splice(stream: MuxStream<DuplexStream>, destination: TcpStream) {
    let (mut from_client, mut to_client) = split(stream);
    let (from_destination, mut to_destination) = destination.into_split();
    let mut from_destination = BufReader::with_capacity(DESTINATION_READ_BYTES, from_destination);
    let upward = async {
        let copied = copy(&mut from_client, &mut to_destination).await;
        tracing::trace!(?copied, "the client has closed a stream");
    };
    let downward = async {
        let copied = copy_buf(&mut from_destination, &mut to_client).await;
        let _ = to_client.shutdown().await;
        tracing::trace!(?copied, "the destination has closed a connection");
    };
    tokio::select! {
        () = upward => {}
        () = downward => {}
    }
}

/// The one connection of a session without the multiplexer; its end is the session's.
async fn forward_one(pipe: DuplexStream, addresses: Vec<SocketAddr>) -> Outcome {
    let destination = match dial(&addresses).await {
        Ok(destination) => destination,
        Err(error) => {
            return Outcome::failed(format!("Unable to connect to specified port: {error}"));
        }
    };
    let (mut from_client, mut to_client) = split(pipe);
    let (mut from_destination, mut to_destination) = destination.into_split();
    // The client has no way to close its half: only the destination ends this well.
    let copied = tokio::select! {
        copied = copy(&mut from_client, &mut to_destination) => copied,
        copied = copy(&mut from_destination, &mut to_client) => copied,
    };
    match copied {
        Ok(_) => Outcome::success(),
        Err(error) => Outcome::failed(error.to_string()),
    }
}
