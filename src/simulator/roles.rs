//! Credentials of roles: handed out by STS and by the agent of EKS Pod Identity, and known again by their access key, so
//! that sessions belong to who started them.

use std::collections::HashMap;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use uuid::Uuid;

use super::error::ApiError;
use super::service_accounts::Trust;
use super::socket::access_key;
use super::store::Store;
use super::view::{AssumedRole, SessionView};

/// Who calls.
#[derive(Clone)]
pub(super) struct Caller {
    /// `arn:aws:sts::<account>:assumed-role/<role>/<role session name>`.
    pub(super) arn: String,
    /// How the ids of those sessions begin that its policies name.
    sessions: String,
}

impl Caller {
    /// One whose policies name the sessions of its own role session name, whatever the role.
    pub(super) fn new(arn: &str) -> Self {
        let name = arn.rsplit('/').next().unwrap_or_default();
        Self {
            arn: arn.to_owned(),
            sessions: format!("{name}-"),
        }
    }

    /// One whose policies name the sessions whose ids begin so.
    pub(super) fn with_sessions(self, sessions: String) -> Self {
        Self { sessions, ..self }
    }

    /// Whether it may resume, end and open a session.
    pub(super) fn may_reach(&self, session: &SessionView) -> bool {
        account(&self.arn) == account(&session.owner) && session.id.starts_with(&self.sessions)
    }
}

/// The account of an ARN.
pub(super) fn account(arn: &str) -> Option<&str> {
    arn.split(':').nth(4)
}

/// Credentials as they are handed out.
pub(super) struct Credentials {
    pub(super) caller: Caller,
    pub(super) access_key_id: String,
    pub(super) secret: String,
    pub(super) session_token: String,
    pub(super) expires: Timestamp,
}

impl Credentials {
    /// Fresh ones, good for so long.
    pub(super) fn new(caller: Caller, lifetime: Duration) -> Self {
        Self {
            caller,
            access_key_id: format!("ASIA{}", random()[..16].to_uppercase()),
            secret: random(),
            session_token: format!("{}{}", random(), random()),
            expires: Timestamp::now() + lifetime,
        }
    }
}

fn random() -> String {
    Uuid::new_v4().simple().to_string()
}

/// All that was handed out so far, and who may have what by a token.
#[derive(Default)]
pub(super) struct Roles {
    by_access_key: HashMap<String, Credentials>,
    pub(super) assumed: Vec<AssumedRole>,
    pub(super) trusts: Vec<Trust>,
}

impl Roles {
    /// Who signed a request: the role session whose access key it names. None for another's key.
    ///
    /// # Errors
    /// Credentials that have expired, or a session token that is not theirs.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Result<Option<Caller>, ApiError> {
        let known = access_key(headers).and_then(|key| self.by_access_key.get(key));
        let Some(credentials) = known else {
            return Ok(None);
        };
        let token = headers
            .get("x-amz-security-token")
            .map(HeaderValue::as_bytes);
        if token != Some(credentials.session_token.as_bytes()) {
            let text = "The security token included in the request is invalid.";
            return Err(ApiError::new("UnrecognizedClientException", text));
        }
        if credentials.expires <= Timestamp::now() {
            let text = "The security token included in the request is expired";
            return Err(ApiError::new("ExpiredTokenException", text));
        }
        Ok(Some(credentials.caller.clone()))
    }
}

impl Store {
    /// Credentials for a role session, whose answer is what `answer` makes of them.
    pub(super) fn hand_out<A>(
        &mut self,
        caller: Caller,
        assumed: AssumedRole,
        answer: impl FnOnce(&Credentials) -> A,
    ) -> A {
        let given = Credentials::new(caller, self.faults.credentials_lifetime);
        self.keep_secrets([given.secret.clone(), given.session_token.clone()]);
        self.roles.assumed.push(assumed);
        let answer = answer(&given);
        let key = given.access_key_id.clone();
        self.roles.by_access_key.insert(key, given);
        answer
    }
}

/// Account and name of a role.
pub(super) fn parse_role(arn: &str) -> Option<(&str, &str)> {
    let mut parts = arn.splitn(6, ':');
    let (_arn, _partition, service) = (parts.next()?, parts.next()?, parts.next()?);
    let (_region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
    let name = resource.strip_prefix("role/")?.rsplit('/').next()?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    let sound =
        service == "iam" && account.len() == 12 && !name.is_empty() && name.chars().all(allowed);
    sound.then_some((account, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_has_an_account_and_a_name_behind_its_path() {
        let role = parse_role("arn:aws:iam::111122223333:role/teams/warehouse");
        assert_eq!(role, Some(("111122223333", "warehouse")));
        for wrong in [
            "",
            "arn:aws:sts::111122223333:assumed-role/a/b",
            "arn:aws:iam::1:role/a",
            "arn:aws:iam::111122223333:role/",
            "arn:aws:iam::111122223333:role/<a>",
        ] {
            assert_eq!(parse_role(wrong), None, "{wrong}");
        }
    }
}
