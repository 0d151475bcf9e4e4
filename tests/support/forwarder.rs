//! A TCP forwarder that can be cut or stopped: the way from one process to a server that everybody else still reaches.

#![allow(
    dead_code,
    reason = "each test program that includes this file uses a part of it"
)]

use std::net::SocketAddr;
use std::pin::pin;

use anyhow::{Context as _, Result};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// They are forwarded.
    Whole,
    /// Connections are reset, new ones too.
    Cut,
    /// They wait, and nobody is told.
    Silent,
}

/// A forwarder on loopback; dropping it ends it.
pub struct Forwarder {
    address: SocketAddr,
    way: watch::Sender<Way>,
    task: JoinHandle<()>,
}

impl Forwarder {
    /// Listens on a free port and forwards every connection to `server`.
    pub async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("loopback")?;
        let address = listener.local_addr()?;
        let (way, present) = watch::channel(Way::Whole);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                connections.spawn(forward(client, server, present.clone()));
            }
        });
        Ok(Self { address, way, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets every connection, and every new one at once, until it is mended.
    pub fn cut(&self) {
        self.way.send_replace(Way::Cut);
    }

    /// Forwards nothing and says nothing, until it is cut or mended.
    pub fn silence(&self) {
        self.way.send_replace(Way::Silent);
    }

    /// Forwards again: new connections, and those that were silent.
    pub fn mend(&self) {
        self.way.send_replace(Way::Whole);
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(mut client: TcpStream, server: SocketAddr, mut way: watch::Receiver<Way>) {
    // A linger time of zero: what is cut off hears so.
    let _ = client.set_zero_linger();
    let Ok(mut server) = TcpStream::connect(server).await else {
        return;
    };
    let mut copied = pin!(copy_bidirectional(&mut client, &mut server));
    loop {
        let present = *way.borrow_and_update();
        let changed = match present {
            Way::Cut => return,
            Way::Silent => way.changed().await,
            Way::Whole => tokio::select! {
                _ = &mut copied => return,
                changed = way.changed() => changed,
            },
        };
        if changed.is_err() {
            return;
        }
    }
}
