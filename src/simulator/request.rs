//! Requests of the SSM API: their shapes on the wire and the limits that AWS documents.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::ApiError;

/// The operations that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Operation {
    /// Starts a session.
    StartSession,
    /// Gives a fresh token for a session.
    ResumeSession,
    /// Ends a session.
    TerminateSession,
    /// Lists sessions.
    DescribeSessions,
    /// Hands out credentials of a role. STS has it, not SSM.
    AssumeRole,
    /// The same for the token of a ServiceAccount, as with IRSA. STS has it.
    AssumeRoleWithWebIdentity,
    /// The same, as the agent of EKS Pod Identity does it for a pod. EKS has it.
    AssumeRoleForPodIdentity,
}

impl Operation {
    /// The operation that `X-Amz-Target` names.
    pub(super) fn from_header(header: &str) -> Option<Self> {
        match header.strip_prefix("AmazonSSM.")? {
            "StartSession" => Some(Self::StartSession),
            "ResumeSession" => Some(Self::ResumeSession),
            "TerminateSession" => Some(Self::TerminateSession),
            "DescribeSessions" => Some(Self::DescribeSessions),
            _ => None,
        }
    }
}

/// `StartSession`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct StartSession {
    pub(super) target: String,
    pub(super) document_name: Option<String>,
    pub(super) reason: Option<String>,
    #[serde(default)]
    pub(super) parameters: BTreeMap<String, Vec<String>>,
}

/// `ResumeSession` and `TerminateSession`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct OneSession {
    pub(super) session_id: String,
}

/// `DescribeSessions`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DescribeSessions {
    pub(super) state: State,
    pub(super) max_results: Option<i64>,
    pub(super) next_token: Option<String>,
    pub(super) filters: Option<Vec<Filter>>,
}

/// Which sessions `DescribeSessions` looks at.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum State {
    /// Those that run.
    Active,
    /// Those that ended.
    History,
}

/// One key and one value; both are lower case on the wire.
#[derive(Deserialize)]
pub(super) struct Filter {
    pub(super) key: String,
    pub(super) value: String,
}

/// Reads a request.
///
/// # Errors
/// `SerializationException` when it is not JSON, `ValidationException` when it has another shape.
pub(super) fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let value: serde_json::Value = serde_json::from_slice(body)
        .map_err(|error| ApiError::new("SerializationException", error.to_string()))?;
    serde_json::from_value(value).map_err(|error| ApiError::validation(error.to_string()))
}

/// Whether `text` has between `min` and `max` characters.
fn length(name: &str, text: &str, min: usize, max: usize) -> Result<(), ApiError> {
    let characters = text.chars().count();
    if (min..=max).contains(&characters) {
        return Ok(());
    }
    let text = format!("{name} has {characters} characters, must have {min} to {max}");
    Err(ApiError::validation(text))
}

impl StartSession {
    /// Holds the request to the documented lengths and patterns.
    pub(super) fn validate(&self) -> Result<(), ApiError> {
        length("Target", &self.target, 1, 400)?;
        if let Some(name) = &self.document_name {
            length("DocumentName", name, 3, 128)?;
            let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.:/".contains(c);
            if !name.chars().all(allowed) {
                let text = "DocumentName does not match ^[a-zA-Z0-9_\\-.:/]{3,128}$";
                return Err(ApiError::validation(text));
            }
        }
        if let Some(reason) = &self.reason {
            length("Reason", reason, 1, 256)?;
            if reason.contains(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']) {
                return Err(ApiError::validation("Reason does not match ^.{1,256}$"));
            }
        }
        for (key, values) in &self.parameters {
            length("a key of Parameters", key, 1, 255)?;
            for value in values {
                length("a value of Parameters", value, 0, 65_535)?;
            }
        }
        Ok(())
    }
}

impl OneSession {
    /// Holds the request to the documented lengths. An empty id is denied, as IAM does.
    pub(super) fn validate(&self) -> Result<(), ApiError> {
        if self.session_id.is_empty() {
            return Err(ApiError::new(
                "AccessDeniedException",
                "not authorized on session/",
            ));
        }
        length("SessionId", &self.session_id, 1, 96)
    }
}

impl DescribeSessions {
    /// Holds the request to the documented lengths and numbers.
    pub(super) fn validate(&self) -> Result<(), ApiError> {
        if self
            .max_results
            .is_some_and(|results| !(1..=200).contains(&results))
        {
            return Err(ApiError::validation("MaxResults must be 1 to 200"));
        }
        let Some(filters) = &self.filters else {
            return Ok(());
        };
        if !(1..=6).contains(&filters.len()) {
            return Err(ApiError::validation("Filters must have 1 to 6 entries"));
        }
        filters
            .iter()
            .try_for_each(|filter| length("a filter's value", &filter.value, 1, 400))
    }
}
