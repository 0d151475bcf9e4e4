//! The relay's TCP ports: one for each listener, on every address, kept as long as the listener is.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::time::Instant;

/// Connections that wait to be accepted on one socket; the kernel's own default for a busy server.
const BACKLOG: i32 = 1024;

/// Candidates tried for one listener before it is told that there is no port.
const TRIES_MAX: usize = 512;

/// Hands out ports.
#[derive(Debug)]
pub struct Ports {
    addresses: Vec<IpAddr>,
    range: RangeInclusive<u16>,
    quarantine: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    taken: HashSet<u16>,
    freed: HashMap<u16, Instant>,
}

/// A port with its listening sockets, one for each address. Dropping it frees the port, into quarantine.
#[derive(Debug)]
pub struct Bound {
    port: u16,
    sockets: Vec<TcpListener>,
    ports: Arc<Ports>,
}

impl Ports {
    /// Ports of `range` on all of `addresses`. A freed one goes to nobody else for `quarantine`.
    #[must_use]
    pub fn new(addresses: Vec<IpAddr>, range: RangeInclusive<u16>, quarantine: Duration) -> Self {
        Self {
            addresses,
            range,
            quarantine,
            inner: Mutex::default(),
        }
    }

    /// Binds `preferred` if it can be had, else any free port.
    ///
    /// # Errors
    /// The last port's error, when none of many could be bound.
    pub fn bind(self: &Arc<Self>, preferred: Option<u16>) -> io::Result<Bound> {
        if let Some(port) = preferred.filter(|port| self.range.contains(port))
            && self.take(port, true)
        {
            match self.bind_all(port) {
                Ok(sockets) => return Ok(self.bound(port, sockets)),
                Err(_) => self.give_back(port),
            }
        }
        let (first, count) = (*self.range.start(), self.range.len());
        // A random start keeps two relays on one machine from trying the same ports one by one.
        let offset = fastrand::usize(..count.max(1));
        let mut last = io::Error::new(io::ErrorKind::AddrInUse, "every port of the range is taken");
        for index in 0..count.min(TRIES_MAX) {
            let step = u16::try_from((offset + index) % count).unwrap_or_default();
            let port = first.saturating_add(step);
            if !self.take(port, false) {
                continue;
            }
            match self.bind_all(port) {
                Ok(sockets) => return Ok(self.bound(port, sockets)),
                Err(error) => {
                    self.give_back(port);
                    last = error;
                }
            }
        }
        Err(last)
    }

    fn bound(self: &Arc<Self>, port: u16, sockets: Vec<TcpListener>) -> Bound {
        Bound {
            port,
            sockets,
            ports: self.clone(),
        }
    }

    /// Marks a port as taken. Who had it before may have it back from quarantine.
    fn take(&self, port: u16, had_it: bool) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        inner
            .freed
            .retain(|_, freed_at| now < *freed_at + self.quarantine);
        (had_it || !inner.freed.contains_key(&port)) && inner.taken.insert(port)
    }

    /// The port was never in use.
    fn give_back(&self, port: u16) {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .taken
            .remove(&port);
    }

    fn bind_all(&self, port: u16) -> io::Result<Vec<TcpListener>> {
        self.addresses
            .iter()
            .map(|address| listen(SocketAddr::new(*address, port)))
            .collect()
    }
}

impl Bound {
    /// The port's number.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its sockets, one for each address.
    #[must_use]
    pub fn sockets(&self) -> &[TcpListener] {
        &self.sockets
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let mut inner = self
            .ports
            .inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        inner.taken.remove(&self.port);
        inner.freed.insert(self.port, Instant::now());
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // The IPv4 wildcard has a socket of its own on the same port.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
