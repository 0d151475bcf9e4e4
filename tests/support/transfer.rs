//! A TCP server in a private network, and a client that sends and receives through a forward and checks every byte.
//!
//! The client says how many bytes it will send and how many it wants; the server answers with the digest of what it
//! got and with that many bytes of its own.

#![allow(dead_code, reason = "the tests and the demo each use a part of it")]

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Bytes made and hashed at once.
const CHUNK_BYTES: usize = 64 << 10;

/// A server on loopback; dropping it ends it.
pub struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens on a free port, for clients that say how many bytes they send and how many they want.
    pub async fn start() -> Result<Self> {
        Self::serving(serve).await
    }

    /// Listens on a free port, and sends back what it gets.
    pub async fn echo() -> Result<Self> {
        Self::serving(|mut connection| async move {
            let (mut reader, mut writer) = connection.split();
            tokio::io::copy(&mut reader, &mut writer).await?;
            Ok(())
        })
        .await
    }

    async fn serving<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Result<Self>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("loopback")?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                connections.spawn(serve(connection));
            }
        });
        Ok(Self { address, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves transfers, one after the other, on a connection.
pub async fn serve(mut connection: TcpStream) -> Result<()> {
    // Several exchanges may follow each other on one connection.
    while let Ok(up_bytes) = connection.read_u64().await {
        let down_bytes = connection.read_u64().await?;
        let digest = receive(&mut connection, up_bytes).await?;
        connection.write_all(&digest).await?;
        let digest = send(&mut connection, down_bytes, 2).await?;
        connection.write_all(&digest).await?;
    }
    Ok(())
}

/// Sends `up_bytes` and receives `down_bytes` on a connection, and compares the digests of both.
pub async fn exchange(connection: &mut TcpStream, up_bytes: u64, down_bytes: u64) -> Result<()> {
    let sent = ask(connection, up_bytes, down_bytes).await?;
    hear(connection, sent, down_bytes).await
}

/// The same as [`exchange`] by a client that has nothing more to say once it has asked.
pub async fn exchange_half_closed(
    connection: &mut TcpStream,
    up_bytes: u64,
    down_bytes: u64,
) -> Result<()> {
    let sent = ask(connection, up_bytes, down_bytes).await?;
    connection.shutdown().await.context("half-close")?;
    hear(connection, sent, down_bytes).await
}

/// The first half of [`exchange`]; the digest of what was sent.
pub async fn ask(connection: &mut TcpStream, up_bytes: u64, down_bytes: u64) -> Result<[u8; 32]> {
    connection.write_u64(up_bytes).await.context("send")?;
    connection.write_u64(down_bytes).await.context("send")?;
    send(connection, up_bytes, 1).await.context("send")
}

/// The second half.
pub async fn hear(connection: &mut TcpStream, sent: [u8; 32], down_bytes: u64) -> Result<()> {
    let mut theirs = [0; 32];
    connection
        .read_exact(&mut theirs)
        .await
        .context("receive")?;
    ensure!(
        sent == theirs,
        "the destination received other bytes than were sent"
    );
    let received = receive(connection, down_bytes).await.context("receive")?;
    connection
        .read_exact(&mut theirs)
        .await
        .context("receive")?;
    ensure!(
        received == theirs,
        "other bytes were received than the destination sent"
    );
    Ok(())
}

/// Waits until a connection is dead: reset, or closed by the other side.
pub async fn dead(connection: &mut TcpStream, limit: Duration) -> Result<()> {
    let mut rest = Vec::new();
    // An error of the read is the reset that is waited for.
    let ended = timeout(limit, connection.read_to_end(&mut rest)).await;
    ended
        .map(drop)
        .with_context(|| format!("the connection was silent for {limit:?}"))
}

async fn send(connection: &mut TcpStream, bytes: u64, seed: u64) -> Result<[u8; 32]> {
    let mut random = fastrand::Rng::with_seed(seed ^ bytes);
    let (mut digest, mut left) = (Sha256::new(), bytes);
    let mut chunk = vec![0; CHUNK_BYTES];
    while left > 0 {
        random.fill(&mut chunk);
        let part = &chunk[..CHUNK_BYTES.min(usize::try_from(left)?)];
        digest.update(part);
        connection.write_all(part).await?;
        left -= part.len() as u64;
    }
    Ok(digest.finalize().into())
}

async fn receive(connection: &mut TcpStream, bytes: u64) -> Result<[u8; 32]> {
    let (mut digest, mut left) = (Sha256::new(), bytes);
    let mut chunk = vec![0; CHUNK_BYTES];
    while left > 0 {
        let wanted = CHUNK_BYTES.min(usize::try_from(left)?);
        let count = connection.read(&mut chunk[..wanted]).await?;
        ensure!(count > 0, "closed with {left} of {bytes} bytes missing");
        digest.update(&chunk[..count]);
        left -= count as u64;
    }
    Ok(digest.finalize().into())
}
