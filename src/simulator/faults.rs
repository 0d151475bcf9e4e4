//! Faults on demand: what goes wrong next, and for how long.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::line::{Loss, Mangling};
use super::options::{PAGE_SIZE_MAX, SimulatorOptions};
use super::request::Operation;

/// How long credentials live unless a fault says otherwise: what AWS gives when it is not asked for another time.
const CREDENTIALS_LIFETIME: Duration = Duration::from_hours(1);

/// Something that goes wrong. In JSON: `{"fault": "fail", "operation": "StartSession", …}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "fault",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Fault {
    /// The next calls of an operation fail; faults of one operation queue up.
    Fail {
        /// Which operation.
        operation: Operation,
        /// How many calls; `u32::MAX` for all until [`Fault::Clear`].
        calls: u32,
        /// The error's code, such as `AccessDeniedException`.
        code: String,
    },
    /// The next `StartSession` calls start a session, and the connection closes without an answer.
    SwallowStarts {
        /// How many calls.
        calls: u32,
    },
    /// The next calls of `StartSession` or `ResumeSession` answer with an empty `TokenValue`.
    EmptyTokens {
        /// Which operation.
        operation: Operation,
        /// How many calls.
        calls: u32,
    },
    /// The agents are not told of the next sessions: nobody shakes hands.
    SilentStarts {
        /// How many sessions.
        calls: u32,
    },
    /// Changes show in `DescribeSessions` only so much later.
    ConsistencyDelay {
        /// Milliseconds; 0 shows them at once.
        milliseconds: u64,
    },
    /// Pages of `DescribeSessions` get short, or each is preceded by an empty one.
    Pages {
        /// Sessions on a page at most; at least 1.
        size_max: usize,
        /// Whether an empty page with a token comes before each page.
        empty: bool,
    },
    /// Credentials of roles that are assumed from now on live so long.
    CredentialsLifetime {
        /// Seconds; AWS gives an hour.
        seconds: u64,
    },
    /// Closes every websocket of a session's data channel with 1000 `Bye`, as AWS does hourly.
    CloseWebsockets {
        /// The session's id.
        session: String,
    },
    /// Resets every websocket of a session's data channel: TCP RST, and no close frame.
    ResetWebsockets {
        /// The session's id.
        session: String,
    },
    /// The next frames that a session's agent sends reach the client as something else.
    Mangle {
        /// The session's id.
        session: String,
        /// How many frames.
        frames: u32,
        /// What they become.
        mangling: Mangling,
    },
    /// Frames of all sessions get lost on their way, in both directions.
    LoseFrames {
        /// Each how manyth; 0 for none.
        every: u32,
    },
    /// Takes back all of the above that has not happened yet; pages and credentials are as in AWS again.
    Clear,
}

impl Fault {
    /// The next calls of an operation are throttled.
    #[must_use]
    pub fn throttle(operation: Operation, calls: u32) -> Self {
        Self::Fail {
            operation,
            calls,
            code: "ThrottlingException".to_owned(),
        }
    }
}

/// What is still to go wrong.
pub(super) struct Faults {
    failures: BTreeMap<Operation, VecDeque<(u32, String)>>,
    swallow_starts: u32,
    empty_tokens: BTreeMap<Operation, u32>,
    silent_starts: u32,
    pub(super) consistency_delay: Duration,
    pub(super) credentials_lifetime: Duration,
    pub(super) page_size_max: usize,
    pub(super) empty_pages: bool,
    pub(super) loss: Arc<Loss>,
}

impl Faults {
    /// Nothing goes wrong but what the options ask for.
    pub(super) fn new(options: &SimulatorOptions) -> Self {
        Self {
            failures: BTreeMap::new(),
            swallow_starts: 0,
            empty_tokens: BTreeMap::new(),
            silent_starts: 0,
            consistency_delay: Duration::ZERO,
            credentials_lifetime: CREDENTIALS_LIFETIME,
            page_size_max: options.page_size_max.max(1),
            empty_pages: options.empty_pages,
            loss: Arc::default(),
        }
    }

    /// Everything works again.
    pub(super) fn clear(&mut self) {
        self.loss.set(0);
        *self = Self {
            failures: BTreeMap::new(),
            swallow_starts: 0,
            empty_tokens: BTreeMap::new(),
            silent_starts: 0,
            consistency_delay: Duration::ZERO,
            credentials_lifetime: CREDENTIALS_LIFETIME,
            page_size_max: PAGE_SIZE_MAX,
            empty_pages: false,
            loss: Arc::clone(&self.loss),
        };
    }

    pub(super) fn fail(&mut self, operation: Operation, calls: u32, code: String) {
        self.failures
            .entry(operation)
            .or_default()
            .push_back((calls, code));
    }

    pub(super) fn swallow_starts(&mut self, calls: u32) {
        self.swallow_starts = calls;
    }

    pub(super) fn empty_tokens(&mut self, operation: Operation, calls: u32) {
        self.empty_tokens.insert(operation, calls);
    }

    pub(super) fn silent_starts(&mut self, calls: u32) {
        self.silent_starts = calls;
    }

    /// The error with which this call fails, if it does.
    pub(super) fn take_failure(&mut self, operation: Operation) -> Option<ApiError> {
        let queue = self.failures.get_mut(&operation)?;
        while queue.front().is_some_and(|(calls, _)| *calls == 0) {
            queue.pop_front();
        }
        let (calls, code) = queue.front_mut()?;
        if *calls != u32::MAX {
            *calls -= 1;
        }
        Some(ApiError::new(
            code,
            format!("{operation:?} was told to fail"),
        ))
    }

    /// Whether this `StartSession` goes without an answer.
    pub(super) fn take_swallow(&mut self) -> bool {
        take_one(&mut self.swallow_starts)
    }

    /// Whether this answer has an empty token.
    pub(super) fn take_empty_token(&mut self, operation: Operation) -> bool {
        self.empty_tokens.get_mut(&operation).is_some_and(take_one)
    }

    /// Whether the agent does not hear of this session.
    pub(super) fn take_silence(&mut self) -> bool {
        take_one(&mut self.silent_starts)
    }
}

fn take_one(calls: &mut u32) -> bool {
    let some = *calls > 0;
    *calls = calls.saturating_sub(1);
    some
}
