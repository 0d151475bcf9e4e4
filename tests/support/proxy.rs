//! An HTTP proxy on loopback that connects by CONNECT and by nothing else, and remembers what it was asked.

#![allow(
    dead_code,
    reason = "each test program that includes this file uses a part of it"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What the proxy does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Connects, for those who show the right password if it has one.
    Connect,
    /// Answers with this status, and with a body that nobody should repeat.
    Refuse(u16),
    /// Says nothing.
    Silence,
}

/// A name that only the proxy knows: this machine, at any port. Loopback itself is never reached through a proxy.
pub const HERE: &str = "here.test";

/// In the body of every refusal.
pub const PAGE: &str = "a-page-of-the-proxy";

struct Shared {
    /// Names that only the proxy knows, as `host:port`.
    names: Vec<(String, SocketAddr)>,
    /// `Basic …`, if it wants one.
    authorization: Option<String>,
    asked: Mutex<Vec<String>>,
}

impl Shared {
    /// Where `host:port` is, for the names that the proxy knows. It connects to nothing else.
    fn address_of(&self, to: &str) -> Option<SocketAddr> {
        let known = self.names.iter().find(|(name, _)| name == to);
        known.map(|(_, address)| *address).or_else(|| {
            let port = to.strip_prefix(HERE)?.strip_prefix(':')?;
            Some((Ipv4Addr::LOCALHOST, port.parse().ok()?).into())
        })
    }
}

/// A running proxy; dropping it ends it and every connection through it.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    answer: watch::Sender<Answer>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port. `names` are reached through it alone; `authorization` is the header that it wants.
    pub async fn start(names: &[(&str, SocketAddr)], authorization: Option<&str>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("loopback")?;
        let address = listener.local_addr()?;
        let names = names.iter().map(|(name, at)| ((*name).to_owned(), *at));
        let shared = Arc::new(Shared {
            names: names.collect(),
            authorization: authorization.map(str::to_owned),
            asked: Mutex::default(),
        });
        let (answer, present) = watch::channel(Answer::Connect);
        let serving = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let (serving, present) = (Arc::clone(&serving), present.clone());
                connections.spawn(async move {
                    // A connection that ends early is a test's own doing.
                    let _ = serve(client, &serving, present).await;
                });
            }
        });
        Ok(Self {
            address,
            shared,
            answer,
            task,
        })
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// What it does with the requests that come from now on.
    pub fn answer(&self, answer: Answer) {
        self.answer.send_replace(answer);
    }

    /// The `host:port` of each request so far, refused ones included.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().expect("what was asked").clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(client: TcpStream, shared: &Shared, answer: watch::Receiver<Answer>) -> Result<()> {
    let (mut client, mut head) = (BufReader::new(client), String::new());
    while !head.ends_with("\r\n\r\n") {
        let read = client.read_line(&mut head).await?;
        anyhow::ensure!(read > 0, "half a request");
    }
    let mut client = client.into_inner();
    let to = head
        .strip_prefix("CONNECT ")
        .and_then(|rest| rest.split(' ').next());
    let Some(to) = to.map(str::to_owned) else {
        return refuse(&mut client, 405).await;
    };
    let asked = |asked: &mut Vec<String>| asked.push(to.clone());
    asked(&mut shared.asked.lock().expect("what was asked"));
    let header = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        let is = name.eq_ignore_ascii_case("proxy-authorization");
        is.then(|| value.to_owned())
    };
    let shown = head.lines().find_map(header);
    let present = *answer.borrow();
    match present {
        Answer::Silence => std::future::pending().await,
        Answer::Refuse(status) => refuse(&mut client, status).await,
        Answer::Connect if shared.authorization.is_some() && shared.authorization != shown => {
            refuse(&mut client, 407).await
        }
        Answer::Connect => {
            let Some(address) = shared.address_of(&to) else {
                return refuse(&mut client, 502).await;
            };
            let Ok(mut server) = TcpStream::connect(address).await else {
                return refuse(&mut client, 502).await;
            };
            client
                .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                .await?;
            copy_bidirectional(&mut client, &mut server).await?;
            Ok(())
        }
    }
}

async fn refuse(client: &mut TcpStream, status: u16) -> Result<()> {
    let length = PAGE.len();
    let answer = format!(
        "HTTP/1.1 {status} No\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{PAGE}"
    );
    client.write_all(answer.as_bytes()).await?;
    Ok(())
}
