//! The listener's machine as claims, on virtual time: the tests are its driver and its clock.
#![allow(
    clippy::unchecked_time_subtraction,
    reason = "an underflow is a failed test"
)]

mod ending;
mod property;
mod refused;
mod reports;
mod starting;
mod wishes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::{Action, Listener, Now};
use crate::broker::{BrokerError, ErrorKind, Identity, SessionId, StartRequest, Ticket};
use crate::protocol::{End, Established};
use crate::relay::RelayOptions;
use crate::relay::report::{
    Destination, EndReason, Inherited, ListenerSpec, Report, SessionRecord, State,
};
use crate::relay::tunnel::TunnelState;

const PORT: u16 = 11_000;
const SECOND: Duration = Duration::from_secs(1);

/// A machine, its clock, and what it has asked for so far.
struct World {
    listener: Listener,
    now: Now,
}

fn options() -> RelayOptions {
    let tls = ClientConfig::builder()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    RelayOptions::new("relay-1", "run-2", Arc::new(tls))
}

fn identity(region: &str) -> Identity {
    Identity {
        region: region.to_owned(),
        ssm_endpoint: None,
        ssmmessages_endpoint: None,
        role: None,
    }
}

/// A wish for a target; the generation says which wish it is.
fn spec(generation: i64, target: &str) -> ListenerSpec {
    ListenerSpec {
        generation,
        identity: identity("eu-central-1"),
        request: StartRequest {
            target: target.to_owned(),
            document: "AWS-StartPortForwardingSession".to_owned(),
            parameters: BTreeMap::new(),
            reason: "a test".to_owned(),
        },
        lost: Vec::new(),
    }
}

fn id(name: &str) -> SessionId {
    SessionId::parse(name).expect("an id")
}

fn ticket(name: &str) -> Ticket {
    Ticket::new(
        id(name),
        "wss://gateway.test/".to_owned(),
        "token".to_owned(),
    )
}

fn failure(kind: ErrorKind) -> BrokerError {
    BrokerError::new(kind, "StartSession", "no")
}

/// A live session that an earlier run has recorded.
fn earlier(name: &str) -> SessionRecord {
    SessionRecord {
        session_id: id(name),
        identity: identity("eu-west-1"),
        relay: "relay-1".to_owned(),
        incarnation: "run-1".to_owned(),
        started_at: Timestamp::UNIX_EPOCH,
        end: None,
    }
}

impl World {
    fn with(options: RelayOptions, inherited: Inherited) -> Self {
        let now = Now {
            monotonic: Instant::now(),
            wall: Timestamp::from_second(1_700_000_000).expect("a time"),
        };
        let listener = Listener::new(Arc::new(options), spec(1, "i-1"), inherited, now);
        Self { listener, now }
    }

    /// It listens, and has claimed nothing yet.
    fn listening() -> Self {
        let mut world = Self::with(options(), Inherited::default());
        world.listener.handle_listening(PORT);
        world
    }

    /// StartSession is on its way.
    fn starting() -> Self {
        let mut world = Self::listening();
        world.record();
        world.expect_start();
        world
    }

    /// The session `s-1` was started, and its tunnel is being opened.
    fn opening() -> Self {
        let mut world = Self::starting();
        world.started("s-1");
        assert!(matches!(world.action(), Some(Action::Open(..))));
        world
    }

    /// The session `s-1` serves.
    fn serving() -> Self {
        let mut world = Self::opening();
        world.record();
        world.established();
        assert!(matches!(world.action(), Some(Action::Admit)));
        assert!(world.action().is_none());
        world
    }

    fn advance(&mut self, by: Duration) {
        self.now = Now {
            monotonic: self.now.monotonic + by,
            wall: self.now.wall.checked_add(by).expect("a time"),
        };
        self.listener.handle_timeout(self.now);
    }

    /// Lets the time pass until the machine wants it, and says how long that was.
    fn advance_to_deadline(&mut self) -> Duration {
        let deadline = self.listener.poll_timeout().expect("a deadline");
        let by = deadline.saturating_duration_since(self.now.monotonic);
        self.advance(by);
        by
    }

    fn action(&mut self) -> Option<Action> {
        self.listener.poll_action(self.now)
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.action()).collect()
    }

    /// The present state is put on record.
    fn record(&mut self) {
        let (claim, report) = (self.listener.claim(), self.listener.report());
        self.listener.handle_recorded(claim, &report, self.now);
    }

    fn expect_start(&mut self) -> StartRequest {
        let actions = self.actions();
        match actions.as_slice() {
            [Action::Start(_, request)] => request.clone(),
            other => panic!("not one start, but {other:?}"),
        }
    }

    fn started(&mut self, name: &str) {
        self.listener.handle_started(Ok(ticket(name)), self.now);
    }

    fn start_failed(&mut self, error: BrokerError) {
        self.listener.handle_started(Err(error), self.now);
    }

    fn tunnel(&mut self, state: &TunnelState) {
        self.listener.handle_tunnel(state, self.now);
    }

    fn established(&mut self) {
        self.tunnel(&established());
    }

    fn ended(&mut self, end: End) {
        self.tunnel(&TunnelState {
            end: Some(end),
            ..established()
        });
    }

    fn report(&self) -> Report {
        self.listener.report()
    }

    fn spec(&mut self, spec: ListenerSpec) {
        self.listener.handle_spec(spec, self.now);
    }

    /// AWS says of a session that it has ended.
    fn lost(&mut self, name: &str, reason: EndReason) {
        let mut spec = spec(2, "i-1");
        spec.lost.push((id(name), reason));
        self.spec(spec);
    }

    /// TerminateSession has answered.
    fn terminated(&mut self, name: &str) {
        self.listener.handle_terminated(&id(name), Ok(()), self.now);
    }

    /// The end of a session as it is on record, if it has ended.
    fn end_of(&self, name: &str) -> Option<(EndReason, String)> {
        let sessions = self.report().sessions;
        let record = sessions.iter().find(|record| record.session_id == id(name));
        let end = record.expect("a record").end.clone()?;
        Some((end.reason, end.message))
    }

    fn state(&self) -> State {
        self.report().state
    }
}

fn established() -> TunnelState {
    TunnelState {
        established: Some(Established {
            agent_version: "3.3.1142.0".to_owned(),
            keepalive: false,
            customer_message: String::new(),
        }),
        ..TunnelState::default()
    }
}

/// The sessions for which TerminateSession is to be called.
fn terminations(actions: &[Action]) -> Vec<&str> {
    let ids = actions.iter().filter_map(|action| match action {
        Action::Terminate(id, _) => Some(id.as_str()),
        _ => None,
    });
    ids.collect()
}

fn destination(destination: Destination) -> TunnelState {
    TunnelState {
        destination: Some(destination),
        ..established()
    }
}

/// What TerminateSession says when nobody knows whether it was carried out.
fn unanswered() -> Result<(), BrokerError> {
    Err(BrokerError::new(
        ErrorKind::Unavailable,
        "TerminateSession",
        "no answer",
    ))
}
