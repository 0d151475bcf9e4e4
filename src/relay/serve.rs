//! Serves one listener: drives its machine, calls the broker, keeps its reports, lets clients in.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{Instrument as _, error, info, warn};

use super::acceptor::accept;
use super::budget::Budget;
use super::client::{Admission, Client, Crowd};
use super::listener::{Action, Listener, Now};
use super::metrics::{Metrics, Served};
use super::options::RelayOptions;
use super::ports::{Bound, Ports};
use super::report::{Failure, ListenerId, RecordError, Recorder, Report};
use super::starting::Starting;
use super::tunnel::{self, Tunnel, TunnelState};
use super::wish::{Order, Wish};
use crate::backoff::Backoff;
use crate::broker::{Broker, BrokerError, SessionId, Ticket};

/// What every listener of a relay shares.
pub(super) struct Shared {
    pub(super) options: Arc<RelayOptions>,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) ports: Arc<Ports>,
    pub(super) metrics: Metrics,
    pub(super) budget: Arc<Budget>,
    /// Clients of all listeners.
    pub(super) everybody: Arc<AtomicUsize>,
}

enum Outcome {
    Started(Result<Ticket, BrokerError>),
    Terminated(SessionId, Result<(), BrokerError>),
    /// Of a report that was made at this claim.
    Recorded(u64, Box<Report>, Result<(), RecordError>),
    RecordDelayOver,
    BindDelayOver,
}

/// A client that dials in a loop fills a metric, not the log.
const FULL_SAID_EVERY: Duration = Duration::from_secs(10);

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// As wished.
    Stopped,
    /// The record belongs to another relay, and nobody has wished for the listener since that was found.
    Disowned,
}

/// One run of a listener, from its first wish to its last record.
pub(super) struct Server {
    id: ListenerId,
    shared: Arc<Shared>,
    recorder: Arc<dyn Recorder>,
    machine: Listener,
    preferred_port: Option<u16>,
    bound: Option<Bound>,
    starting: Starting,
    tunnel: Option<Tunnel>,
    tunnel_state: Option<watch::Receiver<TunnelState>>,
    admission: watch::Sender<Admission>,
    clients: JoinSet<()>,
    crowd: Crowd,
    served: Arc<Served>,
    /// When it was last said that clients are reset because there are too many.
    full_said_at: Option<Instant>,
    pending: FuturesUnordered<BoxFuture<'static, Outcome>>,
    record: RecordKeeping,
}

/// What is on record, and what stands in the way of recording more.
struct RecordKeeping {
    recorded: Option<(u64, Report)>,
    busy: bool,
    /// The listener belongs to another relay: nothing is written any more.
    disowned: bool,
    /// Its owner wished for it again after that.
    wished_again: bool,
    backoff: Backoff,
}

impl Server {
    pub(super) fn new(id: ListenerId, shared: Arc<Shared>, order: Order) -> Self {
        let Order {
            spec,
            inherited,
            recorder,
        } = order;
        let options = shared.options.clone();
        let preferred_port = inherited.port;
        let backoff = Backoff::new(options.backoff_min, options.record_timeout);
        let crowd = Crowd::new(&options, shared.everybody.clone());
        let served = shared.metrics.serve(crowd.present());
        let mut server = Self {
            id,
            shared,
            recorder,
            machine: Listener::new(options, spec, inherited, Now::read()),
            preferred_port,
            bound: None,
            starting: Starting::none(),
            tunnel: None,
            tunnel_state: None,
            admission: watch::Sender::new(Admission::Hold),
            clients: JoinSet::new(),
            crowd,
            served,
            full_said_at: None,
            pending: FuturesUnordered::new(),
            record: RecordKeeping {
                recorded: None,
                busy: false,
                disowned: false,
                wished_again: false,
                backoff,
            },
        };
        // At once, so that listeners take back their ports in the order in which they are wished for.
        server.bind();
        server
    }

    /// Runs until the listener is stopped, nothing is left to be ended here, and that is on record; or until it turns out
    /// to be another relay's.
    pub(super) async fn run(mut self, wish: &mut watch::Receiver<Wish>) -> Exit {
        loop {
            self.advance();
            if self.is_done() {
                return if self.record.disowned && !self.record.wished_again {
                    Exit::Disowned
                } else {
                    Exit::Stopped
                };
            }
            while !self.step(wish).await {}
        }
    }

    /// Waits for what comes next, and says whether the machine has heard of it: of clients that come and go it does not, and
    /// nothing is made anew for them.
    async fn step(&mut self, wish: &mut watch::Receiver<Wish>) -> bool {
        let deadline = self.machine.poll_timeout();
        tokio::select! {
            changed = wish.changed() => {
                // Without an owner nobody wants the listener.
                let current = if changed.is_ok() { wish.borrow_and_update().clone() } else { Wish::Shutdown(None) };
                self.handle_wish(current);
            }
            Some(outcome) = self.pending.next(), if !self.pending.is_empty() => self.handle_outcome(outcome),
            state = tunnel::changed(&mut self.tunnel_state) => self.machine.handle_tunnel(&state, Now::read()),
            client = accept(self.bound.as_ref()) => {
                self.admit(client);
                return false;
            }
            Some(ended) = self.clients.join_next(), if !self.clients.is_empty() => {
                self.handle_client_ended(ended);
                return false;
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                self.machine.handle_timeout(Now::read());
            }
        }
        true
    }

    fn handle_wish(&mut self, wish: Wish) {
        match wish {
            Wish::Serve(order) => {
                self.record.wished_again |= self.record.disowned;
                self.machine.handle_spec(order.spec, Now::read());
            }
            Wish::Stop(reason) | Wish::Restart(reason, _) => {
                self.machine.handle_stop(reason, Now::read());
                self.cut_off();
            }
            Wish::Shutdown(stopped_for) => {
                self.machine.handle_shutdown(stopped_for, Now::read());
                self.cut_off();
            }
        }
    }

    /// Listens no more, and resets every client at once.
    fn cut_off(&mut self) {
        self.bound = None;
        self.clients.abort_all();
    }

    fn bind(&mut self) {
        match self.shared.ports.bind(&self.id, self.preferred_port) {
            Ok(bound) => {
                self.preferred_port = Some(bound.port());
                self.machine.handle_listening(bound.port());
                self.bound = Some(bound);
            }
            Err(error) => {
                warn!(listener = %self.id, %error, "no port to listen on, trying again");
                let failure = Failure::NoPort(error.to_string());
                let delay = self.machine.handle_no_port(failure, Now::read());
                self.later(async move {
                    sleep(delay).await;
                    Outcome::BindDelayOver
                });
            }
        }
    }

    /// Does what the machine asks for, and records what has changed.
    fn advance(&mut self) {
        while let Some(action) = self.machine.poll_action(Now::read()) {
            self.act(action);
        }
        self.served.has_sessions(self.machine.sessions_live());
        if !self.record.busy && !self.record.disowned {
            let (claim, report) = (self.machine.claim(), self.machine.report());
            let awaited = self.machine.awaited_claim();
            let known = self.record.recorded.as_ref();
            let claimed = known.is_some_and(|(recorded, _)| awaited.is_none_or(|a| *recorded >= a));
            if !claimed || known.is_none_or(|(_, recorded)| *recorded != report) {
                self.record(claim, report);
            }
        }
    }

    fn record(&mut self, claim: u64, report: Report) {
        self.record.busy = true;
        let recorder = self.recorder.clone();
        let limit = self.shared.options.record_timeout;
        self.later(async move {
            let late = || RecordError::Unavailable(format!("no answer within {limit:?}"));
            let result = timeout(limit, recorder.record(&report)).await;
            let result = result.unwrap_or_else(|_| Err(late()));
            Outcome::Recorded(claim, Box::new(report), result)
        });
    }

    fn act(&mut self, action: Action) {
        let broker = self.shared.broker.clone();
        match action {
            Action::Start(identity, request) => {
                self.starting = Starting::begin(&self.id, &identity, &request);
                let start =
                    async move { Outcome::Started(broker.start(&identity, &request).await) };
                self.later(start.instrument(self.starting.span()));
            }
            Action::Open(identity, ticket) => {
                info!(listener = %self.id, session = %ticket.session_id, "session started, opening its data channel");
                let (options, metrics) = (self.shared.options.clone(), self.shared.metrics.clone());
                self.starting.is_of(&ticket.session_id);
                let start = self.starting.span();
                let share = self.shared.budget.share();
                let tunnel = Tunnel::open(options, broker, identity, ticket, metrics, share, start);
                self.tunnel_state = Some(tunnel.state());
                self.tunnel = Some(tunnel);
            }
            Action::Admit => {
                info!(listener = %self.id, port = self.preferred_port, "serving");
                self.starting.served();
                let handle = self.tunnel.as_ref().map(Tunnel::handle);
                self.admission
                    .send_replace(handle.map_or(Admission::Hold, Admission::Open));
            }
            Action::Hold => {
                self.admission.send_replace(Admission::Hold);
            }
            Action::Close(reason) => {
                self.starting.failed(&self.machine.summary(reason));
                self.admission.send_replace(Admission::Hold);
                self.tunnel_state = None;
                self.tunnel = None;
            }
            Action::Terminate(id, identity) => self.later(async move {
                let result = broker.terminate(&identity, &id).await;
                Outcome::Terminated(id, result)
            }),
            Action::Ended { id, reason, own } => {
                info!(listener = %self.id, session = %id, ?reason, "session ended");
                if own {
                    self.shared.metrics.session_ended(reason);
                }
            }
        }
    }

    fn handle_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Started(result) => {
                match &result {
                    Ok(_) => self.shared.metrics.session_started(),
                    Err(error) => {
                        self.shared.metrics.start_failed();
                        self.starting.failed(&error.summary());
                        warn!(listener = %self.id, %error, request_id = error.request_id.as_str(), "session not started, trying again later");
                    }
                }
                self.machine.handle_started(result, Now::read());
            }
            Outcome::Terminated(id, result) => {
                if let Err(error) = &result {
                    warn!(listener = %self.id, session = %id, %error, request_id = error.request_id.as_str(), "TerminateSession failed, trying again unless the session is gone");
                    if self.machine.is_stopping() {
                        // Recorded anew, so that a record that is not ours any more is heard of: then others try on.
                        self.record.recorded = None;
                    }
                }
                self.machine.handle_terminated(&id, result, Now::read());
            }
            Outcome::Recorded(claim, report, result) => {
                self.record.busy = false;
                self.handle_recorded(claim, *report, result);
            }
            Outcome::RecordDelayOver => self.record.busy = false,
            Outcome::BindDelayOver => {
                if !self.machine.is_stopping() {
                    self.bind();
                }
            }
        }
    }

    fn handle_recorded(&mut self, claim: u64, report: Report, result: Result<(), RecordError>) {
        match result {
            Ok(()) => {
                self.record.backoff.reset();
                self.machine.handle_recorded(claim, &report, Now::read());
                self.record.recorded = Some((claim, report));
            }
            Err(RecordError::NotOurs) => {
                info!(listener = %self.id, "the listener belongs to another relay now, dropping it");
                self.record.disowned = true;
                self.machine.handle_disowned(Now::read());
                self.cut_off();
            }
            Err(RecordError::Unavailable(error)) => {
                let delay = self.record.backoff.next_delay();
                warn!(listener = %self.id, error, ?delay, "state not recorded, trying again");
                self.record.busy = true;
                self.later(async move {
                    sleep(delay).await;
                    Outcome::RecordDelayOver
                });
            }
        }
    }

    fn admit(&mut self, client: std::io::Result<(TcpStream, IpAddr)>) {
        let accepted = client.inspect_err(
            |error| warn!(listener = %self.id, %error, "a client could not be accepted"),
        );
        let Ok((client, from)) = accepted else {
            return;
        };
        let Some(client) = Client::new(client, from, &self.crowd, &self.shared.metrics) else {
            return;
        };
        if client.is_one_too_many() {
            let said = self.full_said_at;
            if said.is_none_or(|at| at.elapsed() >= FULL_SAID_EVERY) {
                self.full_said_at = Some(Instant::now());
                let limits = &self.shared.options;
                warn!(
                    listener = %self.id, %from, present = self.clients.len(), limit = limits.connections_max,
                    of_one_address = limits.connections_max_per_client, of_all = limits.clients_max, "clients are reset: there are too many connections, of this listener, of one address, or of all together"
                );
            }
            return client.refuse();
        }
        let (admission, options) = (self.admission.subscribe(), self.shared.options.clone());
        self.clients.spawn(client.serve(admission, options));
    }

    fn handle_client_ended(&self, ended: Result<(), JoinError>) {
        if ended.is_err_and(|error| error.is_panic()) {
            error!(listener = %self.id, "serving a client has panicked; it was reset, and the others are served on");
        }
    }

    fn is_done(&self) -> bool {
        let recorded = self.record.recorded.as_ref().map(|(_, report)| report);
        let on_record = || recorded == Some(&self.machine.report());
        self.machine.is_over() && (self.record.disowned || on_record())
    }

    fn later(&self, outcome: impl Future<Output = Outcome> + Send + 'static) {
        self.pending.push(Box::pin(outcome));
    }
}
