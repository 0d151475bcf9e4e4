//! Why a reconcile failed, and what that means for the next.

use crate::broker::BrokerError;

/// A step of a reconcile that failed; the object is reconciled again after back-off.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused a call, or did not answer.
    #[error("cannot {action}: {}; tried again after back-off", words(source))]
    Api {
        /// What was being done, with the name of the object.
        action: String,
        /// What the client says.
        source: Box<kube::Error>,
    },
    /// AWS refused a call, or did not answer.
    #[error("cannot {action}: {source}; tried again after back-off")]
    Aws {
        /// What was being done, with the name of the object.
        action: String,
        /// What AWS says.
        source: BrokerError,
    },
    /// The reconcile took longer than its deadline.
    #[error("the API server did not answer within the deadline; tried again after back-off")]
    Deadline,
}

impl Error {
    /// An error of the API server while we tried to `action`.
    pub fn api(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let action = action.into();
        move |source| Self::Api {
            action,
            source: Box::new(source),
        }
    }

    /// Whether somebody else wrote first: nothing is wrong, and the newer object is on its way to us.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.status()
            .is_some_and(|status| status.is_conflict() || status.is_already_exists())
    }

    /// Whether the object is gone.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_not_found)
    }

    /// The API server's words, when it refuses the request as it stands.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        self.status()
            .filter(|status| status.is_invalid())
            .map(|status| status.message.as_str())
    }

    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status.as_ref()),
                _ => None,
            },
            Self::Aws { .. } | Self::Deadline => None,
        }
    }
}

/// The API server's own words where it answered: the client's would repeat its whole answer.
fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
