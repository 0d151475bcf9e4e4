//! What holds in every life of a listener, whatever happens in which order.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::relay::report::Failure;

#[derive(Clone, Debug)]
enum Step {
    /// The present state goes to the recorder.
    BeginRecord,
    /// The recorder answers.
    EndRecord {
        kept: bool,
    },
    Started(u8),
    Established,
    /// The websocket is lost, or there again.
    Websocket {
        up: bool,
    },
    Ended(u8),
    Spec(u8),
    Lost(u8),
    Terminated {
        answered: bool,
    },
    Pass {
        seconds: u64,
    },
    Stop,
    Shutdown,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::BeginRecord),
        4 => any::<bool>().prop_map(|kept| Step::EndRecord { kept }),
        4 => any::<u8>().prop_map(Step::Started),
        3 => Just(Step::Established),
        1 => any::<bool>().prop_map(|up| Step::Websocket { up }),
        1 => any::<u8>().prop_map(Step::Ended),
        1 => (0..4_u8).prop_map(Step::Spec),
        1 => any::<u8>().prop_map(Step::Lost),
        3 => any::<bool>().prop_map(|answered| Step::Terminated { answered }),
        3 => (0..40_u64).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

/// The world outside of the machine: AWS, the recorder and the driver.
#[allow(
    clippy::struct_excessive_bools,
    reason = "four facts that know nothing of each other"
)]
struct Outside {
    world: World,
    /// The report that the recorder has not yet answered for.
    recording: Option<(u64, Report)>,
    /// Claims that are on record, and not yet used up by a start.
    claim_on_record: bool,
    start_in_flight: bool,
    /// Whether the tunnel of a session is open, and what it shows.
    tunnel_open: bool,
    shown: TunnelState,
    admitted: bool,
    sessions: usize,
    /// Sessions that AWS holds, and those of which it has said that they are over.
    live: Vec<String>,
    terminating: Vec<String>,
}

impl Outside {
    fn new() -> Self {
        Self {
            world: World::listening(),
            recording: None,
            claim_on_record: false,
            start_in_flight: false,
            tunnel_open: false,
            shown: TunnelState::default(),
            admitted: false,
            sessions: 0,
            live: Vec::new(),
            terminating: Vec::new(),
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::BeginRecord => self.begin_record(),
            Step::EndRecord { kept } => self.end_record(*kept),
            Step::Started(seed) if self.start_in_flight => {
                self.start_in_flight = false;
                if seed % 4 == 0 {
                    self.world.start_failed(failure(ErrorKind::Unavailable));
                    self.act();
                    return;
                }
                self.sessions += 1;
                let name = format!("s-{}", self.sessions);
                let token = if *seed < 16 { "" } else { "token" };
                let url = "wss://gateway.test/".to_owned();
                let ticket = Ticket::new(id(&name), url, token.to_owned());
                self.live.push(name);
                self.world
                    .listener
                    .handle_started(Ok(ticket), self.world.now);
            }
            Step::Established if self.tunnel_open => {
                self.shown.established = established().established;
                self.world.tunnel(&self.shown);
            }
            Step::Websocket { up } if self.tunnel_open => {
                self.shown.trouble = (!up).then(|| Failure::DataChannel("lost".to_owned()));
                self.world.tunnel(&self.shown);
            }
            Step::Ended(seed) if self.tunnel_open => {
                let why = "why".to_owned();
                let end = match seed % 3 {
                    0 => End::Closed(why),
                    1 => End::Unsupported(why),
                    _ => End::Violation(why),
                };
                self.shown.end = Some(end);
                self.world.tunnel(&self.shown);
            }
            Step::Spec(target) => self.world.spec(spec(1, &format!("i-{target}"))),
            Step::Lost(seed) => {
                let Some(name) = self.live.get(usize::from(*seed)).cloned() else {
                    return;
                };
                self.live.retain(|live| *live != name);
                let mut spec = self.world.listener.spec.clone();
                spec.lost.push((id(&name), EndReason::TerminatedExternally));
                self.world.spec(spec);
            }
            Step::Terminated { answered } => self.answer_terminate(*answered),
            Step::Pass { seconds } => self.world.advance(Duration::from_secs(*seconds)),
            Step::Stop => self
                .world
                .listener
                .handle_stop(EndReason::Deleted, self.world.now),
            Step::Shutdown => self.world.listener.handle_shutdown(None, self.world.now),
            Step::Started(_) | Step::Established | Step::Websocket { .. } | Step::Ended(_) => {}
        }
        self.act();
    }

    fn begin_record(&mut self) {
        let listener = &self.world.listener;
        let now = || (listener.claim(), listener.report());
        self.recording.get_or_insert_with(now);
    }

    fn end_record(&mut self, kept: bool) {
        let Some((claim, report)) = self.recording.take() else {
            return;
        };
        if kept {
            self.claim_on_record |=
                report.state == State::Starting && claim == self.world.listener.claim();
            self.world
                .listener
                .handle_recorded(claim, &report, self.world.now);
        }
    }

    fn answer_terminate(&mut self, answered: bool) {
        let Some(name) = self.terminating.pop() else {
            return;
        };
        if answered {
            self.live.retain(|live| *live != name);
        }
        self.world.listener.handle_terminated(
            &id(&name),
            if answered { Ok(()) } else { unanswered() },
            self.world.now,
        );
    }

    fn act(&mut self) {
        for action in self.world.actions() {
            match action {
                Action::Start(..) => {
                    assert!(self.claim_on_record, "started without a recorded claim");
                    assert!(
                        !self.start_in_flight && !self.tunnel_open,
                        "two current sessions"
                    );
                    assert!(!self.world.listener.is_stopping(), "started after the stop");
                    self.claim_on_record = false;
                    self.start_in_flight = true;
                }
                Action::Open(..) => {
                    assert!(!self.tunnel_open, "two current sessions");
                    self.tunnel_open = true;
                    self.shown = TunnelState::default();
                }
                Action::Admit => {
                    assert!(self.tunnel_open && !self.admitted);
                    self.admitted = true;
                }
                Action::Hold => {
                    assert!(self.tunnel_open && self.admitted);
                    self.admitted = false;
                }
                Action::Close(_) => (self.tunnel_open, self.admitted) = (false, false),
                Action::Terminate(id, _) => {
                    let name = id.as_str().to_owned();
                    assert!(!self.terminating.contains(&name), "two calls at once");
                    self.terminating.push(name);
                }
                Action::Ended { .. } => {}
            }
        }
        let report = self.world.report();
        let on_record = |name: &String| {
            let is_live = |s: &SessionRecord| s.session_id.as_str() == name && s.end.is_none();
            report.sessions.iter().any(is_live)
        };
        assert!(
            self.live.iter().all(on_record),
            "a live session was forgotten"
        );
        let up = self.tunnel_open && self.shown.trouble.is_none();
        let serves = report.state == State::Serving && up;
        assert_eq!(serves, self.admitted);
        assert!(report.sessions.iter().filter(|s| s.end.is_some()).count() <= 5);
    }

    /// Whatever is on its way arrives, until nothing is left to do.
    fn finish(&mut self) {
        for _ in 0..1000 {
            if self.world.listener.is_over() {
                return;
            }
            let seconds = options().backoff_max.as_secs();
            for step in [
                Step::BeginRecord,
                Step::EndRecord { kept: true },
                Step::Started(255),
                Step::Terminated { answered: true },
                Step::Pass { seconds },
            ] {
                self.take(&step);
            }
        }
        panic!("it never ends: {:?}", self.world.listener);
    }
}

proptest! {
    #[test]
    fn no_session_is_lost_and_none_is_left_behind(
        steps in vec(step(), 0..200),
        shutdown in any::<bool>(),
    ) {
        let mut outside = Outside::new();
        for step in &steps {
            outside.take(step);
        }
        outside.take(if shutdown { &Step::Shutdown } else { &Step::Stop });
        outside.finish();
        prop_assert!(outside.live.is_empty(), "left behind: {:?}", outside.live);
        let ended = outside.world.state() == State::Ended;
        prop_assert_eq!(ended, !shutdown);
    }

    #[test]
    fn left_alone_a_listener_serves_in_the_end(steps in vec(step(), 0..100)) {
        let mut outside = Outside::new();
        for step in &steps {
            outside.take(step);
        }
        for _ in 0..100 {
            for step in [
                Step::BeginRecord,
                Step::EndRecord { kept: true },
                Step::Started(255),
                Step::BeginRecord,
                Step::EndRecord { kept: true },
                Step::Established,
                Step::Websocket { up: true },
                Step::Terminated { answered: true },
            ] {
                outside.take(&step);
            }
            if outside.world.state() == State::Serving {
                break;
            }
            let deadline = outside.world.listener.poll_timeout();
            if deadline.is_some() {
                outside.world.advance_to_deadline();
                outside.act();
            }
        }
        prop_assert_eq!(outside.world.state(), State::Serving);
        prop_assert!(outside.world.report().ready);
    }
}
