//! The plain copy that the relay is compared with: this program once more, as a process of its own that accepts,
//! dials and copies.

use std::io;

use anyhow::Result;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};

/// The first argument that makes this program a forwarder; the destination is the second.
pub const COMMAND: &str = "forward";

/// What it says before the address where it listens.
pub const LISTENING: &str = "listening on ";

/// Bytes read at once, as many as the relay reads from a client.
const COPY_BYTES: usize = 32 << 10;

/// Where to forward, if this process is the forwarder.
pub fn destination() -> Option<String> {
    let mut arguments = std::env::args().skip(1);
    (arguments.next()? == COMMAND).then(|| arguments.next())?
}

/// Forwards until the process is ended.
pub async fn run(destination: String) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{LISTENING}{}", listener.local_addr()?);
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted?;
                tokio::spawn(forward(client, destination.clone()));
            }
            _ = terminated.recv() => return Ok(()),
        }
    }
}

async fn forward(mut client: TcpStream, destination: String) -> io::Result<()> {
    let mut server = TcpStream::connect(destination).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut client, &mut server, COPY_BYTES, COPY_BYTES).await?;
    Ok(())
}
