//! The relay's TCP ports: one for each listener, on every address, kept as long as the listener is.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::report::ListenerId;

/// Connections that wait to be accepted on one socket; the kernel's own default for a busy server.
const BACKLOG: i32 = 1024;

/// Ports that are tried to be bound for one listener before it is told that there is no port.
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
    /// Every port that this process had and has no more: as many as the range has at most.
    freed: HashMap<u16, Freed>,
}

/// A port that somebody had, at first in quarantine.
#[derive(Debug)]
struct Freed {
    owner: ListenerId,
    at: Instant,
}

/// A port with its listening sockets, one for each address. Dropping it frees the port, into quarantine.
#[derive(Debug)]
pub struct Bound {
    owner: ListenerId,
    port: u16,
    sockets: Vec<TcpListener>,
    /// The socket that is asked for a client first.
    turn: AtomicUsize,
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

    /// Binds `preferred` for `owner` if it can be had, else one that nobody had yet, else the one that was freed longest
    /// ago: what still leads to a port is the less likely to find somebody else there.
    ///
    /// # Errors
    /// The last port's error, when none of many could be bound.
    pub fn bind(self: &Arc<Self>, owner: &ListenerId, preferred: Option<u16>) -> io::Result<Bound> {
        if let Some(port) = preferred.filter(|port| self.range.contains(port))
            && self.take(port, owner)
        {
            match self.bind_all(port) {
                Ok(sockets) => return Ok(self.bound(owner, port, sockets)),
                Err(_) => self.give_back(port),
            }
        }
        let mut last = io::Error::new(io::ErrorKind::AddrInUse, "every port of the range is taken");
        for port in self.candidates() {
            if !self.take(port, owner) {
                continue;
            }
            match self.bind_all(port) {
                Ok(sockets) => return Ok(self.bound(owner, port, sockets)),
                Err(error) => {
                    self.give_back(port);
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// The free ports, the best first, as many as are tried.
    fn candidates(&self) -> Vec<u16> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut freed: Vec<_> = inner.freed.iter().collect();
        freed.retain(|(port, _)| !inner.taken.contains(port));
        freed.sort_by_key(|(_, freed)| freed.at);
        let (first, count) = (*self.range.start(), self.range.len());
        // A random start keeps two relays on one machine from trying the same ports one by one.
        let offset = fastrand::usize(..count.max(1));
        let all = (0..count).map(|index| {
            let step = u16::try_from((offset + index) % count).unwrap_or_default();
            first.saturating_add(step)
        });
        let unused =
            all.filter(|port| !inner.taken.contains(port) && !inner.freed.contains_key(port));
        let freed = freed.into_iter().map(|(port, _)| *port);
        unused.chain(freed).take(TRIES_MAX).collect()
    }

    fn bound(self: &Arc<Self>, owner: &ListenerId, port: u16, sockets: Vec<TcpListener>) -> Bound {
        Bound {
            owner: owner.clone(),
            port,
            sockets,
            turn: AtomicUsize::new(0),
            ports: self.clone(),
        }
    }

    /// Marks a port as taken. Who had it before may have it back from quarantine.
    fn take(&self, port: u16, owner: &ListenerId) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let anothers = inner
            .freed
            .get(&port)
            .is_some_and(|freed| freed.owner != *owner && now < freed.at + self.quarantine);
        !anothers && inner.taken.insert(port)
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

    /// The next client on any of its sockets, one for each address. Who gave one is asked last for the next, so that a
    /// crowd on one keeps nobody from being let in on another.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let turn = self.turn.load(Ordering::Relaxed);
        let in_turn = (turn..turn + self.sockets.len()).map(|index| index % self.sockets.len());
        for index in in_turn {
            if let Poll::Ready(accepted) = self.sockets[index].poll_accept(cx) {
                self.turn.store(index + 1, Ordering::Relaxed);
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
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
        let freed = Freed {
            owner: self.owner.clone(),
            at: Instant::now(),
        };
        inner.freed.insert(self.port, freed);
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use tokio::time::advance;

    use super::*;

    const QUARANTINE: Duration = Duration::from_mins(5);

    fn owner(name: &str) -> ListenerId {
        ListenerId(name.to_owned())
    }

    /// A loopback address that no other test uses, so that all its ports are free.
    fn own_address() -> IpAddr {
        let [a, b] = fastrand::u16(..).to_be_bytes();
        Ipv4Addr::new(127, fastrand::u8(1..), a, b.clamp(1, 254)).into()
    }

    fn ports(range: RangeInclusive<u16>) -> Arc<Ports> {
        Arc::new(Ports::new(vec![own_address()], range, QUARANTINE))
    }

    #[tokio::test(start_paused = true)]
    async fn each_listener_has_a_port_of_its_own_until_there_is_none() {
        let ports = ports(11_000..=11_004);
        let mut bound: Vec<_> = (0..5)
            .map(|n| ports.bind(&owner(&n.to_string()), None).expect("a port"))
            .collect();
        assert!(ports.bind(&owner("one too many"), None).is_err());
        bound.sort_by_key(Bound::port);
        let numbers: Vec<_> = bound.iter().map(Bound::port).collect();
        assert_eq!(numbers, [11_000, 11_001, 11_002, 11_003, 11_004]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_freed_port_goes_to_nobody_else_while_it_is_in_quarantine() {
        let ports = ports(11_000..=11_000);
        drop(ports.bind(&owner("a"), None).expect("a port"));
        assert!(ports.bind(&owner("b"), None).is_err());
        assert!(
            ports.bind(&owner("b"), Some(11_000)).is_err(),
            "not by its number either"
        );
        let last = Duration::from_millis(1);
        advance(QUARANTINE.saturating_sub(last)).await;
        assert!(ports.bind(&owner("b"), None).is_err());
        advance(last).await;
        assert_eq!(
            ports.bind(&owner("b"), None).expect("a port").port(),
            11_000
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_had_a_port_has_it_back_from_quarantine() {
        let ports = ports(11_000..=11_999);
        let port = ports.bind(&owner("a"), None).expect("a port").port();
        let again = ports.bind(&owner("a"), Some(port)).expect("a port");
        assert_eq!(again.port(), port);
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_nobody_had_comes_before_the_one_that_was_freed_longest_ago() {
        let ports = ports(11_000..=11_004);
        let mut had = Vec::new();
        for n in 0..5 {
            let bound = ports.bind(&owner(&n.to_string()), None).expect("a port");
            assert!(!had.contains(&bound.port()), "somebody had it: {had:?}");
            had.push(bound.port());
            drop(bound);
            advance(QUARANTINE).await;
        }
        for n in 5..15 {
            let bound = ports.bind(&owner(&n.to_string()), None).expect("a port");
            assert_eq!(bound.port(), had[n % 5], "{had:?}");
            drop(bound);
            advance(QUARANTINE).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_preferred_port_is_given_if_it_is_free() {
        let ports = ports(11_000..=11_999);
        let first = ports.bind(&owner("a"), Some(11_500)).expect("a port");
        assert_eq!(first.port(), 11_500);
        let second = ports.bind(&owner("b"), Some(11_500)).expect("a port");
        assert_ne!(second.port(), 11_500);
        let third = ports.bind(&owner("c"), Some(9_000)).expect("a port");
        assert!(
            (11_000..=11_999).contains(&third.port()),
            "outside of the range"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_another_process_has_is_passed_over() {
        let address = own_address();
        let others = std::net::TcpListener::bind((address, 11_000)).expect("a port");
        let ports = Arc::new(Ports::new(vec![address], 11_000..=11_001, QUARANTINE));
        let bound = ports.bind(&owner("a"), Some(11_000)).expect("a port");
        assert_eq!(bound.port(), 11_001);
        drop((bound, others));
        assert_eq!(
            ports.bind(&owner("b"), None).expect("a port").port(),
            11_000
        );
    }

    #[tokio::test(start_paused = true)]
    async fn both_families_listen_on_the_same_port() {
        let addresses = [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ];
        let ports = Arc::new(Ports::new(addresses.to_vec(), 10_240..=32_767, QUARANTINE));
        let bound = ports.bind(&owner("a"), None).expect("a port");
        for (socket, address) in bound.sockets.iter().zip(addresses) {
            let expected = SocketAddr::new(address, bound.port());
            assert_eq!(socket.local_addr().expect("an address"), expected);
            std::net::TcpStream::connect(expected).expect("it listens");
        }
        assert_eq!(bound.sockets.len(), 2);
    }

    #[tokio::test]
    async fn who_fills_the_queue_of_one_address_keeps_nobody_out_at_another() {
        let addresses = vec![own_address(), own_address()];
        let ports = Arc::new(Ports::new(addresses.clone(), 11_000..=11_999, QUARANTINE));
        let bound = ports.bind(&owner("a"), None).expect("a port");
        let mut clients = Vec::new();
        for address in [1, 0, 0, 0].map(|index: usize| addresses[index]) {
            let client = TcpStream::connect((address, bound.port())).await;
            clients.push(client.expect("it listens"));
        }
        let mut let_in = Vec::new();
        while let_in.len() < 2 {
            let (client, _) = poll_fn(|cx| bound.poll_accept(cx)).await.expect("a client");
            let_in.push(client.local_addr().expect("an address").ip());
        }
        assert_eq!(let_in, addresses);
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_only_one_family_has_is_passed_over() {
        let addresses = [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ];
        let ports = Arc::new(Ports::new(addresses.to_vec(), 10_240..=32_767, QUARANTINE));
        let others = std::net::TcpListener::bind("[::1]:0").expect("a port");
        let taken = others.local_addr().expect("an address").port();
        let range = taken..=taken;
        let narrow = Arc::new(Ports::new(addresses.to_vec(), range, QUARANTINE));
        assert!(narrow.bind(&owner("a"), None).is_err());
        assert_ne!(
            ports.bind(&owner("a"), Some(taken)).expect("a port").port(),
            taken
        );
        let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, taken));
        assert!(free.is_ok(), "the other family's socket was kept");
    }
}
