//! The driver of a tunnel: the only one that touches the websocket.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::{Either, select};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep};
use tracing::{Instrument as _, Span, debug, info};
use uuid::Uuid;

use super::{Inner, Rest, Shared, TunnelState};
use crate::backoff::Backoff;
use crate::broker::{Broker, BrokerError, Identity, Next, SessionId, Ticket};
use crate::protocol::{End, Event, StreamId};
use crate::relay::budget::TURN_BYTES_MAX;
use crate::relay::loss::{Loss, LossReason, breaks_rules};
use crate::relay::metrics::Metrics;
use crate::relay::options::RelayOptions;
use crate::relay::report::{Destination, Failure};
use crate::relay::starting::Part;
use crate::relay::websocket::{self, OpenError, Websocket};

/// Messages that are read, and written, before other tasks get their turn.
const MESSAGES_PER_TURN: usize = 128;

/// The first and the longest delay between tries to resume: the agent is patient, the clients are not.
const RESUME_BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// A websocket that stayed up for so long was a success: the next try to resume comes with the shortest delay.
const LASTED_WELL: Duration = Duration::from_secs(30);

/// Drives the session of one tunnel.
pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) state: watch::Sender<TunnelState>,
    pub(super) options: Arc<RelayOptions>,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) identity: Identity,
    pub(super) metrics: Metrics,
    /// Says in logs for whom the session is.
    pub(super) span: Span,
}

impl Driver {
    /// Serves the session over one websocket after another, until it is over. The first of them, and the handshake over
    /// it, are parts of the start.
    pub(super) async fn run(self, mut ticket: Ticket, start: Span) {
        let mut start = Some(start);
        let session_id = ticket.session_id.clone();
        let client_id = Uuid::new_v4();
        let mut backoff = Backoff::new(RESUME_BACKOFF.0, RESUME_BACKOFF.1);
        let end = loop {
            let start = start.take();
            let opening = start.as_ref().map_or_else(Part::none, Part::websocket);
            let connecting = self.connect(&ticket, client_id);
            let opened = connecting.instrument(opening.span()).await;
            opening.ended(opened.as_ref().err().map(OpenError::summary).as_deref());
            let why = match opened {
                Ok(websocket) => {
                    let opened_at = Instant::now();
                    let pumped = match start {
                        Some(start) => self.pump_from_start(websocket, start).await,
                        None => self.pump(websocket).await,
                    };
                    // One that the service closes at once must not be resumed as fast as it is closed.
                    if opened_at.elapsed() >= LASTED_WELL {
                        backoff.reset();
                    }
                    match pumped {
                        Pumped::Ended(end) => break end,
                        Pumped::Lost(Loss { reason, why }) => {
                            let _in = self.span.enter();
                            debug!(session = %session_id, ?reason, why, "websocket lost, resuming the session");
                            self.metrics.websocket_lost(reason);
                            why
                        }
                    }
                }
                // Another ticket would have the same URL.
                Err(OpenError::Refused(why)) => break End::Violation(why),
                Err(OpenError::Failed(websocket::Failure {
                    at: _,
                    why,
                    request_id,
                })) => {
                    let (_in, request_id) = (self.span.enter(), request_id.as_str());
                    info!(session = %session_id, why, request_id, "no websocket, trying again");
                    why
                }
            };
            self.troubled(Failure::DataChannel(why.clone()));
            let resumed = self.resume(&session_id, &mut backoff);
            ticket = match resumed.instrument(self.span.clone()).await {
                Ok(ticket) => ticket,
                Err(gone) => break End::Closed(format!("{gone} (after: {why})")),
            };
        };
        self.finish(end);
    }

    /// Asks until there is a ticket, or the session is over.
    async fn resume(
        &self,
        session_id: &SessionId,
        backoff: &mut Backoff,
    ) -> Result<Ticket, BrokerError> {
        loop {
            sleep(backoff.next_delay()).await;
            let error = match self.broker.resume(&self.identity, session_id).await {
                Ok(ticket) => return Ok(ticket),
                Err(error) => error,
            };
            let request_id = error.request_id.as_str();
            if error.kind.next() == Next::Gone {
                info!(session = %session_id, %error, request_id, "the session is over, and can't be resumed");
                return Err(error);
            }
            info!(session = %session_id, %error, request_id, "the session can't be resumed yet, trying again");
            self.troubled(error.into());
        }
    }

    async fn connect(&self, ticket: &Ticket, client_id: Uuid) -> Result<Websocket, OpenError> {
        let broker = self.broker.as_ref();
        Websocket::open(&self.options, broker, &self.identity, ticket, client_id)
            .instrument(self.span.clone())
            .await
    }

    /// What stands in the way of a websocket now; what did so before no longer counts.
    fn troubled(&self, trouble: Failure) {
        self.state.send_if_modified(|state| {
            let trouble = Some(trouble);
            let changed = state.trouble != trouble;
            state.trouble = trouble;
            changed
        });
    }

    fn finish(&self, end: End) {
        self.shared.close();
        self.state.send_modify(|state| state.end = Some(end));
    }

    /// [`Self::pump`], and a span that ends with the handshake.
    async fn pump_from_start(&self, websocket: Websocket, start: Span) -> Pumped {
        let mut state = self.state.subscribe();
        let handshake = Part::handshake(&start);
        drop(start);
        let is_shaken = |state: &TunnelState| state.established.is_some();
        // The sender lives as long as the driver does.
        let shaken = async { drop(state.wait_for(is_shaken).await) };
        match select(pin!(self.pump(websocket)), pin!(shaken)).await {
            Either::Left((pumped, _)) => {
                let unshaken = !is_shaken(&self.state.borrow());
                handshake.ended(unshaken.then(|| pumped.summary()));
                pumped
            }
            Either::Right(((), pump)) => {
                handshake.ended(None);
                pump.await
            }
        }
    }

    async fn pump(&self, mut websocket: Websocket) -> Pumped {
        {
            let mut inner = self.shared.lock();
            inner.connected_since = Some(Instant::now());
            inner.session.handle_transport_opened();
        }
        self.state
            .send_if_modified(|state| state.trouble.take().is_some());
        let mut timer = Box::pin(sleep(Duration::ZERO));
        let pumped = poll_fn(|cx| self.poll_pump(cx, &mut websocket, &mut timer)).await;
        let mut inner = self.shared.lock();
        inner.connected_since = None;
        inner.session.handle_transport_lost();
        pumped
    }

    /// One turn: what is due is handled, what can be written is written in one batch, what has come is read.
    fn poll_pump(
        &self,
        cx: &mut Context<'_>,
        websocket: &mut Websocket,
        timer: &mut Pin<Box<Sleep>>,
    ) -> Poll<Pumped> {
        self.shared.driver.register(cx.waker());
        let mut inner = self.shared.lock();
        inner.session.handle_timeout(Instant::now().into_std());
        inner.settle();
        let (received, pumped) = Self::receive(cx, &mut inner, websocket);
        if let Some(end) = self.handle_events(&mut inner) {
            return Poll::Ready(Pumped::Ended(end));
        }
        if let Some(pumped) = pumped {
            return Poll::Ready(pumped);
        }
        // Acknowledgements of what was received take no turn of what waits.
        let messages_max = MESSAGES_PER_TURN + received.messages;
        let sent = match Self::send(cx, &mut inner, websocket, messages_max) {
            Ok(sent) => sent,
            Err(loss) => return Poll::Ready(Pumped::Lost(loss)),
        };
        // Sending makes room, which wakes the writers.
        if let Some(end) = self.handle_events(&mut inner) {
            return Poll::Ready(Pumped::Ended(end));
        }
        if inner.session.has_place() {
            self.shared.place.notify_waiters();
        }
        let Rest {
            reading,
            deadline,
            changed,
        } = inner.end_turn();
        drop(inner);
        if let Poll::Ready(loss) = websocket.poll_ping(cx, reading) {
            return Poll::Ready(Pumped::Lost(loss));
        }
        if let Poll::Ready(Err(error)) = websocket.poll_flush(cx) {
            return Poll::Ready(Pumped::Lost(error.into()));
        }
        let turn_is_over = received.is_turn() || sent == messages_max;
        if let Some(deadline) = deadline {
            timer.as_mut().reset(Instant::from_std(deadline));
        }
        let due = deadline.is_some() && timer.as_mut().poll(cx).is_ready();
        if turn_is_over || due || changed {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn receive(
        cx: &mut Context<'_>,
        inner: &mut Inner,
        websocket: &mut Websocket,
    ) -> (Received, Option<Pumped>) {
        let mut received = Received::default();
        while !received.is_turn() && inner.session.wants_to_read() {
            match websocket.poll_receive(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(message))) => {
                    received.messages += 1;
                    received.bytes += message.len();
                    inner
                        .session
                        .handle_message(&message, Instant::now().into_std());
                }
                Poll::Ready(Some(Err(error))) => {
                    let pumped = if breaks_rules(&error) {
                        Pumped::Ended(End::Violation(error.to_string()))
                    } else {
                        Pumped::Lost(error.into())
                    };
                    return (received, Some(pumped));
                }
                Poll::Ready(None) => {
                    let why = "the service closed the websocket".to_owned();
                    let loss = Loss::new(LossReason::ClosedByService, why);
                    return (received, Some(Pumped::Lost(loss)));
                }
            }
        }
        (received, None)
    }

    fn send(
        cx: &mut Context<'_>,
        inner: &mut Inner,
        websocket: &mut Websocket,
        messages_max: usize,
    ) -> Result<usize, Loss> {
        let now = Instant::now().into_std();
        for sent in 0..messages_max {
            match websocket.poll_send(cx, || inner.session.poll_transmit(now)) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) | Poll::Pending => return Ok(sent),
                Poll::Ready(Err(error)) => return Err(error.into()),
            }
        }
        Ok(messages_max)
    }

    fn handle_events(&self, inner: &mut Inner) -> Option<End> {
        while let Some(event) = inner.session.poll_event() {
            match event {
                Event::Established(established) => {
                    self.state
                        .send_modify(|state| state.established = Some(established));
                }
                Event::Readable(id) => wake(&mut inner.readers, id),
                Event::Writable(id) => wake(&mut inner.writers, id),
                Event::DestinationReached => self.destination(Destination::Dialled),
                Event::DestinationRefused => {
                    self.metrics.destination_refused();
                    self.destination(Destination::Refused);
                }
                Event::StreamStalled(id) => {
                    self.metrics.stream_stalled();
                    info!(
                        stream = id,
                        "a client did not read for too long and was reset: it kept others waiting"
                    );
                }
                Event::RoundTrip(round_trip) => self.metrics.round_trip(round_trip),
                Event::Ended(end) => return Some(end),
            }
        }
        None
    }

    fn destination(&self, destination: Destination) {
        self.state.send_if_modified(|state| {
            let changed = state.destination != Some(destination);
            state.destination = Some(destination);
            changed
        });
    }
}

/// What has come in one turn.
#[derive(Default)]
struct Received {
    messages: usize,
    bytes: usize,
}

impl Received {
    /// Others get their turn.
    fn is_turn(&self) -> bool {
        self.messages >= MESSAGES_PER_TURN || self.bytes >= TURN_BYTES_MAX
    }
}

enum Pumped {
    Ended(End),
    Lost(Loss),
}

impl Pumped {
    /// Why there was no handshake, in words of our own.
    fn summary(&self) -> &'static str {
        match self {
            Self::Lost(_) => "the websocket was lost",
            Self::Ended(End::Closed(_)) => "the service closed the session",
            Self::Ended(End::Unsupported(_)) => "no port session with the multiplexer",
            Self::Ended(End::Violation(_)) => "the far end broke the protocol",
            Self::Ended(End::Unanswered(_)) => "the agent does not answer",
        }
    }
}

fn wake(wakers: &mut HashMap<StreamId, Waker>, id: StreamId) {
    if let Some(waker) = wakers.remove(&id) {
        waker.wake();
    }
}
