//! How a session ended at the agent.

/// `FinalTaskStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Success,
    Failed,
    Cancelled,
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
        }
    }
}

/// How a session ended, and what the user is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) status: Status,
    pub(super) output: String,
}

impl Outcome {
    pub(super) fn success() -> Self {
        Self {
            status: Status::Success,
            output: String::new(),
        }
    }

    pub(super) fn failed(output: impl Into<String>) -> Self {
        Self {
            status: Status::Failed,
            output: output.into(),
        }
    }

    /// The gateway ended the session.
    pub(super) fn cancelled() -> Self {
        Self {
            status: Status::Cancelled,
            output: String::new(),
        }
    }
}
