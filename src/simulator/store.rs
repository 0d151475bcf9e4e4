//! Everything that the service remembers: sessions, tokens, agents, counted calls, faults.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::calls::Called;
use super::data_channel::{DataChannel, closed_message};
use super::documents::{DEFAULT_DOCUMENT, Document, Order};
use super::error::ApiError;
use super::faults::{Fault, Faults};
use super::options::SimulatorOptions;
use super::request::{Operation, StartSession};
use super::roles::{Caller, Roles};
use super::seat::{Seat, Side};
use super::sessions::Session;
use super::view::{Overview, Status};

/// Characters of a session id behind the owner's name.
const SESSION_ID_DIGITS: usize = 17;

/// What one token opens, once.
#[derive(PartialEq, Eq)]
pub(super) enum Purpose {
    /// The control channel of this instance.
    Control(String),
    /// One side of this session's data channel.
    Data(String, Side),
}

struct Token {
    purpose: Purpose,
    expires: Instant,
}

/// An agent's control channel: its websocket, and what is still to be sent on it.
struct Control {
    seat: Seat,
    messages: mpsc::UnboundedSender<Bytes>,
}

/// A websocket that was let in.
pub(super) struct Attached {
    pub(super) channel: Arc<DataChannel>,
    pub(super) side: Side,
    pub(super) seat: Seat,
}

/// Everything that the service remembers.
pub(super) struct Store {
    owner_arn: String,
    token_lifetime: Duration,
    sessions: Vec<Session>,
    index: HashMap<String, usize>,
    tokens: HashMap<String, Token>,
    issued: Vec<String>,
    controls: BTreeMap<String, Control>,
    pub(super) called: Called,
    pub(super) faults: Faults,
    pub(super) roles: Roles,
    generations: u64,
}

impl Store {
    pub(super) fn new(options: &SimulatorOptions) -> Self {
        Self {
            owner_arn: options.owner_arn.clone(),
            token_lifetime: options.token_lifetime,
            sessions: Vec::new(),
            index: HashMap::new(),
            tokens: HashMap::new(),
            issued: Vec::new(),
            controls: BTreeMap::new(),
            called: Called::default(),
            faults: Faults::new(options),
            roles: Roles::default(),
            generations: 0,
        }
    }

    /// Sessions, oldest first: the place of one never changes.
    pub(super) fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    pub(super) fn session(&self, id: &str) -> Option<&Session> {
        self.sessions.get(*self.index.get(id)?)
    }

    fn session_mut(&mut self, id: &str) -> Option<&mut Session> {
        self.sessions.get_mut(*self.index.get(id)?)
    }

    fn known(&self, id: &str) -> Result<&Session, String> {
        self.session(id).ok_or(format!("no session {id}"))
    }

    pub(super) fn overview(&self) -> Overview {
        Overview {
            sessions: self
                .sessions
                .iter()
                .map(|session| session.view.clone())
                .collect(),
            targets: self.controls.keys().cloned().collect(),
            calls: self.called.calls(),
            assumed: self.roles.assumed.clone(),
            frames_lost: self.faults.loss.lost(),
        }
    }

    pub(super) fn inject(&mut self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::Fail {
                operation,
                calls,
                code,
            } => self.faults.fail(operation, calls, code),
            Fault::SwallowStarts { calls } => self.faults.swallow_starts(calls),
            Fault::EmptyTokens { operation, calls } => self.faults.empty_tokens(operation, calls),
            Fault::SilentStarts { calls } => self.faults.silent_starts(calls),
            Fault::ConsistencyDelay { milliseconds } => {
                self.faults.consistency_delay = Duration::from_millis(milliseconds);
            }
            Fault::CredentialsLifetime { seconds } => {
                self.faults.credentials_lifetime = Duration::from_secs(seconds);
            }
            Fault::Pages { size_max, empty } => {
                self.faults.page_size_max = size_max.max(1);
                self.faults.empty_pages = empty;
            }
            Fault::CloseWebsockets { session } => {
                self.known(&session)?.kick();
            }
            Fault::ResetWebsockets { session } => self.known(&session)?.reset(),
            Fault::Mangle {
                session,
                frames,
                mangling,
            } => {
                let channel = self.known(&session)?.channel.as_ref();
                let channel = channel.ok_or(format!("session {session} is over"))?;
                channel.line().mangle(frames, mangling);
            }
            Fault::LoseFrames { every } => self.faults.loss.set(every),
            Fault::Clear => {
                self.faults.clear();
                for channel in self.sessions.iter().filter_map(|s| s.channel.as_ref()) {
                    channel.line().mend();
                }
            }
        }
        Ok(())
    }

    /// Who signed a request.
    ///
    /// # Errors
    /// Credentials of a role that have expired, or a session token that is not theirs.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let role = self.roles.caller(headers)?;
        Ok(role.unwrap_or_else(|| Caller::new(&self.owner_arn)))
    }

    /// Whether `caller` may do `operation` with a session: nobody else's, but also one that is not known.
    ///
    /// # Errors
    /// `AccessDeniedException`.
    pub(super) fn authorize(
        &self,
        caller: &Caller,
        operation: Operation,
        id: &str,
    ) -> Result<(), ApiError> {
        if self.session(id).is_none_or(|s| caller.may_reach(&s.view)) {
            return Ok(());
        }
        let text = format!(
            "User: {} is not authorized to perform: ssm:{operation:?} on session/{id}",
            caller.arn
        );
        Err(ApiError::new("AccessDeniedException", text))
    }

    /// Secrets that were given out besides the tokens.
    pub(super) fn keep_secrets(&mut self, secrets: impl IntoIterator<Item = String>) {
        self.issued.extend(secrets);
    }

    /// Every token so far, oldest first: some hundred bytes for each websocket of a test's whole life.
    pub(super) fn issued(&self) -> &[String] {
        &self.issued
    }

    /// A fresh token.
    pub(super) fn issue(&mut self, purpose: Purpose) -> String {
        let now = Instant::now();
        self.tokens.retain(|_, token| token.expires > now);
        let value = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        self.issued.push(value.clone());
        let expires = now + self.token_lifetime;
        self.tokens
            .insert(value.clone(), Token { purpose, expires });
        value
    }

    /// What a token opens. It opens nothing a second time.
    fn redeem(&mut self, value: &str) -> Option<Purpose> {
        self.tokens
            .remove(value)
            .filter(|t| t.expires > Instant::now())
            .map(|t| t.purpose)
    }

    fn seat(&mut self) -> Seat {
        self.generations += 1;
        Seat {
            generation: self.generations,
            kick: CancellationToken::new(),
            reset: CancellationToken::new(),
        }
    }

    /// Starts a session and tells the agent. Gives its id.
    ///
    /// # Errors
    /// `InvalidDocument`, `TargetNotConnected`, or parameters that the document does not take.
    pub(super) fn start(
        &mut self,
        request: &StartSession,
        owner_arn: &str,
    ) -> Result<String, ApiError> {
        let document_name = request.document_name.as_deref().unwrap_or(DEFAULT_DOCUMENT);
        let document = Document::named(document_name)?;
        let properties = document.properties(&request.parameters)?;
        let control = self.controls.get(&request.target).ok_or_else(|| {
            ApiError::new(
                "TargetNotConnected",
                format!("{} is not connected.", request.target),
            )
        })?;
        let owner = owner_arn.rsplit('/').next().unwrap_or_default();
        let mut id = format!("{owner}-{}", Uuid::new_v4().simple());
        id.truncate(owner.len() + 1 + SESSION_ID_DIGITS);
        let order = Order {
            session: &id,
            document_name,
            document,
            properties: &properties,
            owner_arn,
        };
        if !self.faults.take_silence() {
            // A control channel that closes right now makes the agent miss the session, as it would
            // in AWS: the client then sees no handshake.
            let _ = control.messages.send(order.message());
        }
        let session = Session::new(
            id.clone(),
            owner_arn.to_owned(),
            request.target.clone(),
            document_name.to_owned(),
            request.reason.clone(),
            Arc::clone(&self.faults.loss),
        );
        self.index.insert(id.clone(), self.sessions.len());
        self.sessions.push(session);
        Ok(id)
    }

    /// A fresh token for the client of a session; none when the session is over.
    ///
    /// # Errors
    /// `DoesNotExistException` for an unknown session.
    pub(super) fn resume(&mut self, id: &str) -> Result<Option<String>, ApiError> {
        let session = self.session_mut(id).ok_or_else(|| {
            ApiError::new(
                "DoesNotExistException",
                format!("Session {id} does not exist."),
            )
        })?;
        if session.view.status.is_over() {
            return Ok(None);
        }
        session.view.resumed += 1;
        Ok(Some(self.issue(Purpose::Data(id.to_owned(), Side::Client))))
    }

    /// Moves a session towards its end and tells both sides. The agent is told on both its channels:
    /// its data channel may be full of frames that it does not take.
    pub(super) fn end(&mut self, id: &str, status: Status, output: &str) {
        let Some(session) = self.session_mut(id) else {
            return;
        };
        let was_running = session.end(status, output);
        let target = session.view.target.clone();
        if was_running {
            self.tokens.retain(
                |_, token| !matches!(&token.purpose, Purpose::Data(session, _) if session == id),
            );
            if let Some(control) = self.controls.get(&target) {
                let _ = control.messages.send(closed_message(id, &target, output));
            }
        }
    }

    /// Lets a websocket onto a session's data channel. The client's must be signed by somebody who may reach the session.
    ///
    /// # Errors
    /// A reason for the close frame.
    pub(super) fn attach(
        &mut self,
        id: &str,
        token: &str,
        signed: bool,
        caller: &Caller,
    ) -> Result<Attached, &'static str> {
        let Some(Purpose::Data(session_id, side)) = self.redeem(token) else {
            return Err("token is not valid");
        };
        if session_id != id {
            return Err("token is for another session");
        }
        let seat = self.seat();
        let session = self.session_mut(id).ok_or("no such session")?;
        if side == Side::Client && !caller.may_reach(&session.view) {
            return Err("not authorized to perform: ssmmessages:OpenDataChannel");
        }
        let channel = session.channel.clone().ok_or("session is over")?;
        session.attach(side, seat.clone(), signed);
        Ok(Attached {
            channel,
            side,
            seat,
        })
    }

    pub(super) fn detach(&mut self, id: &str, side: Side, generation: u64) {
        if let Some(session) = self.session_mut(id) {
            session.detach(side, generation);
        }
    }

    /// Lets an agent's control channel in; the messages are for it.
    ///
    /// # Errors
    /// A reason for the close frame.
    pub(super) fn attach_control(
        &mut self,
        instance: &str,
        token: &str,
    ) -> Result<(Seat, mpsc::UnboundedReceiver<Bytes>), &'static str> {
        match self.redeem(token) {
            Some(Purpose::Control(known)) if known == instance => {}
            Some(_) | None => return Err("token is not valid"),
        }
        let seat = self.seat();
        // Bounded by the sessions that are started, one short message or two for each.
        let (messages, receiver) = mpsc::unbounded_channel();
        let control = Control {
            seat: seat.clone(),
            messages,
        };
        if let Some(replaced) = self.controls.insert(instance.to_owned(), control) {
            replaced.seat.kick.cancel();
        }
        Ok((seat, receiver))
    }

    pub(super) fn detach_control(&mut self, instance: &str, generation: u64) {
        if self
            .controls
            .get(instance)
            .is_some_and(|c| c.seat.generation == generation)
        {
            self.controls.remove(instance);
        }
    }
}
