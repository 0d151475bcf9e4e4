//! The other end, for tests and the demo: the SSM API, STS, the agent of EKS Pod Identity, the message gateway and an
//! SSM agent, on loopback and without AWS.
//!
//! It shares our codecs and none of our machines, so that one misreading of the protocol does not
//! cancel the other. The gateway forwards frames without understanding them: a real agent or a real
//! client can take either side. Where AWS documents nothing, what it does is a choice, and says so.
//!
//! Dropping a [`Simulator`] or an [`Agent`] ends its tasks; `shutdown` also waits for them.

mod admin;
pub mod agent;
mod api;
mod calls;
mod connection;
mod control_channel;
mod data_channel;
mod describe;
mod documents;
mod error;
mod faults;
mod gateway;
mod line;
mod options;
mod pod_identity;
mod request;
mod roles;
mod seat;
mod server;
mod service_accounts;
mod sessions;
mod socket;
mod store;
mod sts;
mod view;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use agent::{Agent, AgentOptions, Pace};
pub use faults::Fault;
pub use line::Mangling;
pub use options::SimulatorOptions;
pub use request::Operation;
pub use service_accounts::Trust;
pub use view::{AssumedRole, Calls, Overview, SessionView, Status};

use store::Store;

/// How long [`Simulator::wait_for`] waits: far above what anything here takes on a loaded machine.
const WAIT_MAX: Duration = Duration::from_secs(90);

/// What all connections share.
struct Shared {
    options: SimulatorOptions,
    /// `127.0.0.1:port`.
    address: String,
    store: Mutex<Store>,
    /// Counts changes of the store, for those who wait for one.
    revision: watch::Sender<u64>,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl Shared {
    /// Changes the store and wakes all who wait.
    fn change<R>(&self, change: impl FnOnce(&mut Store) -> R) -> R {
        let result = change(&mut self.store.lock().unwrap_or_else(PoisonError::into_inner));
        self.revision.send_modify(|revision| *revision += 1);
        result
    }

    /// Reads the store.
    fn read<R>(&self, read: impl FnOnce(&Store) -> R) -> R {
        read(&self.store.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn stream_base(&self) -> String {
        if let Some(base) = &self.options.stream_base {
            return base.clone();
        }
        let scheme = if self.options.tls.is_some() {
            "wss"
        } else {
            "ws"
        };
        format!("{scheme}://{}", self.address)
    }

    fn endpoint(&self) -> String {
        let scheme = if self.options.tls.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.address)
    }
}

/// A running SSM API and message gateway.
pub struct Simulator {
    shared: Arc<Shared>,
}

impl Simulator {
    /// Listens and serves until it is shut down or dropped.
    ///
    /// # Errors
    /// The address can't be listened on.
    pub async fn start(options: SimulatorOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?.to_string();
        let acceptor = options.tls.clone().map(TlsAcceptor::from);
        let shared = Arc::new(Shared {
            store: Mutex::new(Store::new(&options)),
            options,
            address,
            revision: watch::Sender::new(0),
            cancel: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        shared
            .tasks
            .spawn(server::accept(listener, acceptor, Arc::clone(&shared)));
        Ok(Self { shared })
    }

    /// Where the SSM API and STS are, and at `/v1/credentials` the agent of EKS Pod Identity: `http://127.0.0.1:port`,
    /// `https` with TLS.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.shared.endpoint()
    }

    /// How stream URLs begin: `ws://127.0.0.1:port`, `wss` with TLS, unless the options say so.
    #[must_use]
    pub fn stream_base(&self) -> String {
        self.shared.stream_base()
    }

    /// Makes something go wrong, from now on or for the next calls.
    ///
    /// # Errors
    /// A fault of one session, and there is no such session or it is over.
    pub fn inject(&self, fault: Fault) -> Result<(), String> {
        self.shared.change(|store| store.inject(fault))
    }

    /// Lets a ServiceAccount have a role from now on, by its tokens.
    pub fn trust(&self, trust: Trust) {
        self.shared.change(|store| store.roles.trusts.push(trust));
    }

    /// All sessions so far, oldest first, with no consistency delay.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionView> {
        self.overview().sessions
    }

    /// Every token and secret key that was ever given out, to clients and to agents: a test that looks for secrets looks
    /// for these.
    #[must_use]
    pub fn issued_tokens(&self) -> Vec<String> {
        self.shared.read(|store| store.issued().to_vec())
    }

    /// How often an operation was called so far, failed calls included.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> u64 {
        self.overview()
            .calls
            .get(&operation)
            .map_or(0, |calls| calls.total)
    }

    /// The ids that the latest calls of an operation were answered with, oldest first, failed calls included.
    #[must_use]
    pub fn request_ids(&self, operation: Operation) -> Vec<String> {
        self.shared
            .read(|store| store.called.request_ids(operation))
    }

    /// Everything that can be seen, with no consistency delay.
    #[must_use]
    pub fn overview(&self) -> Overview {
        self.shared.read(Store::overview)
    }

    /// Waits until what can be seen meets a condition.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] after 90 seconds, with `what` was waited for and what there was instead.
    pub async fn wait_for(
        &self,
        what: &str,
        mut condition: impl FnMut(&Overview) -> bool,
    ) -> io::Result<Overview> {
        let mut revision = self.shared.revision.subscribe();
        let deadline = tokio::time::sleep(WAIT_MAX);
        tokio::pin!(deadline);
        loop {
            revision.mark_unchanged();
            let overview = self.overview();
            if condition(&overview) {
                return Ok(overview);
            }
            tokio::select! {
                // The sender lives in `self`, so this only ever reports a change.
                _ = revision.changed() => {}
                () = &mut deadline => {
                    let text = format!("waited {WAIT_MAX:?} for {what}, but there is {overview:?}");
                    return Err(io::Error::new(io::ErrorKind::TimedOut, text));
                }
            }
        }
    }

    /// Waits until an agent's control channel is up, so that sessions can be started.
    ///
    /// # Errors
    /// As [`Self::wait_for`].
    pub async fn wait_for_target(&self, target: &str) -> io::Result<()> {
        let what = format!("target {target} to be online");
        self.wait_for(&what, |overview| {
            overview.targets.iter().any(|online| online == target)
        })
        .await?;
        Ok(())
    }

    /// Ends everything and waits until no task is left.
    pub async fn shutdown(self) {
        self.shared.cancel.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.shared.cancel.cancel();
    }
}
