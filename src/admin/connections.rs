//! The connections of the admin port: few, short, and never full for whoever comes next.
//!
//! Each carries one request, and has its deadlines. So none is kept idle: the kubelet takes a new one for each probe
//! anyway, and for a scraper that comes twice a minute it makes no difference. Beyond the limit the connection that has
//! been there longest is closed, of the address that has most: whoever holds many keeps nobody out, and in a flood from one
//! place the connections of all others stay.

use std::net::IpAddr;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

/// Connections at a time: the kubelet has two, scrapers and people a few, and each is over in milliseconds. The rest is
/// room for those that nobody uses, and costs no more than a relay can spare of its file descriptors.
pub(super) const CONNECTIONS_MAX: usize = 64;

/// How long a client may take for the head of its request: as long as the kubelet waits for an answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may take until its answer is sent: as long as Prometheus waits for one.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest head of a request: what is longer is no probe.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// The pause after an accept that failed: most likely the process is out of file descriptors, and would spin.
const ERROR_PAUSE: Duration = Duration::from_millis(500);

/// Serves `routes` on `listener`, for ever.
pub(super) async fn serve(listener: TcpListener, routes: Router) {
    let mut serving = JoinSet::new();
    let mut places = Places::default();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let connection = serve_one(stream, routes.clone());
                    places.take(peer.ip(), serving.spawn(connection));
                }
                Err(error) => {
                    warn!(%error, "a probe or a scrape could not be accepted");
                    sleep(ERROR_PAUSE).await;
                }
            },
            // The set keeps what has ended until it is asked.
            Some(_) = serving.join_next() => {}
        }
    }
}

/// One connection with its one request, and its deadlines.
async fn serve_one(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, routes: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    match timeout(CONNECTION_TIMEOUT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a connection of the admin port ended early"),
        Err(_) => debug!("a connection of the admin port took longer than {CONNECTION_TIMEOUT:?}"),
    }
}

/// The connections that are there, the oldest first.
#[derive(Default)]
struct Places(Vec<(IpAddr, AbortHandle)>);

impl Places {
    /// Gives the connection from `address` a place, if need be that of another, which is closed.
    fn take(&mut self, address: IpAddr, connection: AbortHandle) {
        self.0.retain(|(_, connection)| !connection.is_finished());
        if self.0.len() >= CONNECTIONS_MAX
            && let Some(place) = self.to_give_up()
        {
            let (address, connection) = self.0.remove(place);
            connection.abort();
            debug!(%address, limit = CONNECTIONS_MAX, "the admin port closes a connection: there are too many");
        }
        self.0.push((address, connection));
    }

    /// The oldest connection of the address that has most of them.
    fn to_give_up(&self) -> Option<usize> {
        let of = |address| self.0.iter().filter(|(other, _)| *other == address).count();
        let most = self.0.iter().map(|(address, _)| of(*address)).max()?;
        self.0.iter().position(|(address, _)| of(*address) == most)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    use super::*;

    /// Larger than what a connection holds on its way.
    const ANSWER_BYTES: usize = 1 << 20;

    fn routes() -> Router {
        Router::new()
            .route("/large", get(async || "x".repeat(ANSWER_BYTES)))
            .route("/stuck", get(async || pending::<String>().await))
            .route("/", get(async || "ok\n"))
    }

    /// A connection that is being served, and its far end.
    fn connection() -> (DuplexStream, JoinHandle<()>) {
        let (near, far) = duplex(1 << 10);
        (far, tokio::spawn(serve_one(near, routes())))
    }

    async fn answer(mut client: DuplexStream) -> String {
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_a_head_byte_by_byte_is_cut_off() {
        let (mut client, serving) = connection();
        let began = Instant::now();
        let mut sent = 0;
        for byte in b"GET / HTTP/1.1\r\nHost: x\r\nA-Header: that has no end"
            .iter()
            .cycle()
        {
            if client.write_all(&[*byte]).await.is_err() {
                break;
            }
            sent += 1;
            sleep(Duration::from_millis(200)).await;
        }
        serving.await.unwrap();
        assert!(sent > 1, "it had time to send something");
        assert!(began.elapsed() <= HEAD_TIMEOUT + Duration::from_secs(1));
        assert_eq!(
            answer(client).await,
            "",
            "and it is closed without an answer"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_nothing_is_cut_off() {
        let (client, serving) = connection();
        let began = Instant::now();
        assert_eq!(answer(client).await, "");
        serving.await.unwrap();
        assert_eq!(began.elapsed().as_secs(), HEAD_TIMEOUT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn neither_who_does_not_read_nor_an_answer_that_does_not_come_keeps_a_connection() {
        for path in ["/large", "/stuck"] {
            let (mut client, serving) = connection();
            let began = Instant::now();
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            serving.await.unwrap();
            assert_eq!(
                began.elapsed().as_secs(),
                CONNECTION_TIMEOUT.as_secs(),
                "{path}"
            );
            assert!(answer(client).await.len() < ANSWER_BYTES, "{path}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_for_one_request_and_not_kept() {
        let (mut client, serving) = connection();
        let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n";
        let began = Instant::now();
        client
            .write_all(request.repeat(2).as_bytes())
            .await
            .unwrap();
        let answer = answer(client).await.to_lowercase();
        assert_eq!(answer.matches("http/1.1 200").count(), 1, "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
        serving.await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_without_end_is_refused() {
        let (mut client, serving) = connection();
        let head = format!("GET / HTTP/1.1\r\nHost: {}", "x".repeat(HEAD_BYTES_MAX));
        // It may be refused before it is all sent.
        let _ = client.write_all(head.as_bytes()).await;
        serving.await.unwrap();
        let answer = answer(client).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }

    /// Places, all taken: as many as are said of each address.
    fn full(tasks: &mut JoinSet<()>, of: &[(u8, usize)]) -> Places {
        let mut places = Places::default();
        for (address, count) in of {
            for _ in 0..*count {
                places.take([10, 0, 0, *address].into(), tasks.spawn(pending()));
            }
        }
        assert_eq!(tasks.len(), CONNECTIONS_MAX);
        places
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_most_connections_gives_up_its_oldest() {
        let mut tasks = JoinSet::new();
        let crowd = CONNECTIONS_MAX - 3;
        let mut places = full(&mut tasks, &[(1, 1), (2, crowd), (3, 2)]);
        let oldest = places.0[1].1.clone();
        places.take([10, 0, 0, 4].into(), tasks.spawn(pending()));
        let closed = timeout(CONNECTION_TIMEOUT, tasks.join_next()).await;
        let closed = closed.expect("one is closed").unwrap();
        assert!(closed.unwrap_err().is_cancelled());
        assert!(oldest.is_finished());
        let of = |address: [u8; 4]| {
            let address = IpAddr::from(address);
            places
                .0
                .iter()
                .filter(|(other, _)| *other == address)
                .count()
        };
        let left = [1, 2, 3, 4].map(|last| of([10, 0, 0, last]));
        assert_eq!(left, [1, crowd - 1, 2, 1]);
    }

    #[tokio::test]
    async fn a_connection_that_has_ended_has_no_place() {
        let mut tasks = JoinSet::new();
        let mut places = full(&mut tasks, &[(1, CONNECTIONS_MAX)]);
        places.0[5].1.abort();
        tasks.join_next().await.unwrap().unwrap_err();
        places.take([10, 0, 0, 1].into(), tasks.spawn(pending()));
        assert_eq!(tasks.len(), CONNECTIONS_MAX, "nobody had to go");
        assert!(
            places
                .0
                .iter()
                .all(|(_, connection)| !connection.is_finished())
        );
    }
}
