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

    /// The API server's words, when it refuses the request as it stands. A namespace that is being deleted refuses
    /// everything that is new, which is nothing to mend.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        let terminating = |status: &kube::core::Status| {
            let causes = status.details.iter().flat_map(|details| &details.causes);
            causes
                .into_iter()
                .any(|cause| cause.reason == "NamespaceTerminating")
        };
        self.status()
            .filter(|status| matches!(status.code, 400 | 403 | 422))
            .filter(|status| !terminating(status))
            .map(|status| status.message.as_str())
    }

    /// Whether a right, a quota or a policy forbids the request.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.status().is_some_and(|status| status.code == 403)
    }

    /// What kind of failure it is, in words of our own: for traces.
    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::Api { .. } => match self.status() {
                Some(status) => {
                    format!("the API server refuses a call: HTTP status {}", status.code)
                }
                None => "the API server can't be called".to_owned(),
            },
            Self::Aws { source, .. } => source.summary(),
            Self::Deadline => "the API server did not answer within the deadline".to_owned(),
        }
    }

    /// AWS's id of the request that failed, for logs.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Aws { source, .. } => source.request_id.as_str(),
            Self::Api { .. } | Self::Deadline => None,
        }
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

/// The API server's own words where it answered: the client's would repeat its whole answer. The binding has words of
/// its own, with the code and the causes: no floor below both may know kube's client, so that there is no place for one.
pub fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::ErrorKind;

    fn refused(code: u16, cause: Option<&str>) -> Error {
        let details = cause.map(|reason| serde_json::json!({ "causes": [{ "reason": reason }] }));
        let status = serde_json::json!({ "code": code, "message": "words", "details": details });
        let status: kube::core::Status = serde_json::from_value(status).expect("a status");
        Error::api("create Service db")(kube::Error::Api(status.boxed()))
    }

    #[test]
    fn what_is_invalid_or_forbidden_is_a_refusal_and_what_may_pass_is_not() {
        for code in [400, 403, 422] {
            assert_eq!(refused(code, None).refusal(), Some("words"), "{code}");
        }
        for code in [404, 409, 429, 500, 503] {
            assert_eq!(refused(code, None).refusal(), None, "{code}");
        }
        assert!(refused(403, None).is_forbidden() && !refused(422, None).is_forbidden());
    }

    #[test]
    fn a_trace_is_told_the_kind_of_a_failure_and_nobodys_words() {
        let told = refused(403, None).summary();
        assert_eq!(told, "the API server refuses a call: HTTP status 403");
        let source = BrokerError::new(ErrorKind::AccessDenied, "TerminateSession", "words");
        let action = "end session s-1".to_owned();
        let told = Error::Aws { action, source }.summary();
        assert_eq!(told, "TerminateSession: AccessDenied");
    }

    #[test]
    fn a_namespace_that_is_being_deleted_refuses_nothing_that_somebody_could_mend() {
        assert_eq!(refused(403, Some("NamespaceTerminating")).refusal(), None);
    }
}
