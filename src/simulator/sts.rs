//! The part of STS that hands out roles: `AssumeRole` of the Query protocol, a form in and XML out.
//!
//! Every role trusts everybody, which is a choice; [`super::Fault::Fail`] refuses. What is handed out is known again by
//! its access key, so that sessions belong to who started them.

use std::collections::HashMap;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use uuid::Uuid;

use super::Shared;
use super::calls::name_request;
use super::error::ApiError;
use super::request::Operation;
use super::socket::{access_key, is_signed};
use super::view::AssumedRole;

/// How long credentials live unless a fault says otherwise: what AWS gives when it is not asked for another time.
pub(super) const LIFETIME: Duration = Duration::from_hours(1);

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// Credentials that were handed out.
struct Credentials {
    /// `arn:aws:sts::<account>:assumed-role/<role>/<session name>`.
    caller: String,
    session_token: String,
    expires: Timestamp,
}

/// All that was handed out so far.
#[derive(Default)]
pub(super) struct Roles {
    by_access_key: HashMap<String, Credentials>,
    pub(super) assumed: Vec<AssumedRole>,
}

impl Roles {
    /// Who signed a request: the role session whose access key it names. None for another's key.
    ///
    /// # Errors
    /// Credentials that have expired, or a session token that is not theirs.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Result<Option<String>, ApiError> {
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

/// Whether a request is one of the Query protocol.
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes() == b"application/x-www-form-urlencoded")
}

/// Serves one call.
pub(super) fn call(shared: &Shared, headers: &HeaderMap, body: &[u8]) -> Response {
    let signed = is_signed(headers, "sts");
    let (id, failure) = shared.change(|store| {
        let id = store.called.count(Operation::AssumeRole, signed);
        (id, store.faults.take_failure(Operation::AssumeRole))
    });
    let answer = match failure {
        Some(error) => Err(error),
        None => assume(shared, headers, body),
    };
    let (status, body) = match answer {
        Ok(result) => {
            let metadata = format!("<RequestId>{id}</RequestId>");
            let body = format!(
                "<AssumeRoleResponse xmlns=\"{NAMESPACE}\"><AssumeRoleResult>{result}</AssumeRoleResult>\
                 <ResponseMetadata>{metadata}</ResponseMetadata></AssumeRoleResponse>"
            );
            (StatusCode::OK, body)
        }
        Err(error) => (error.status(), error.xml(NAMESPACE)),
    };
    let content_type = [(header::CONTENT_TYPE, "text/xml")];
    let mut response = (content_type, (status, body)).into_response();
    name_request(&mut response, &id);
    response
}

fn assume(shared: &Shared, headers: &HeaderMap, body: &[u8]) -> Result<String, ApiError> {
    let form = parse_form(body)?;
    let field = |name: &str| form.get(name).map(String::as_str);
    if field("Action") != Some("AssumeRole") || field("Version") != Some("2011-06-15") {
        return Err(ApiError::new("InvalidAction", "no such action"));
    }
    let role_arn = field("RoleArn").unwrap_or_default();
    let (account, role) = parse_role(role_arn)
        .ok_or_else(|| ApiError::new("ValidationError", format!("{role_arn} is invalid")))?;
    let session_name = field("RoleSessionName").unwrap_or_default();
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    if !(2..=64).contains(&session_name.len()) || !session_name.chars().all(allowed) {
        let text = "roleSessionName must have 2 to 64 characters of [\\w+=,.@-]";
        return Err(ApiError::new("ValidationError", text));
    }
    let caller = format!("arn:aws:sts::{account}:assumed-role/{role}/{session_name}");
    let (access_key_id, secret, token) = (
        format!("ASIA{}", random()[..16].to_uppercase()),
        random(),
        format!("{}{}", random(), random()),
    );
    let expires = shared.change(|store| {
        let by = store.caller(headers)?;
        let expires = Timestamp::now() + store.faults.credentials_lifetime;
        store.roles.by_access_key.insert(
            access_key_id.clone(),
            Credentials {
                caller: caller.clone(),
                session_token: token.clone(),
                expires,
            },
        );
        store.roles.assumed.push(AssumedRole {
            role_arn: role_arn.to_owned(),
            session_name: session_name.to_owned(),
            external_id: field("ExternalId").map(str::to_owned),
            by,
        });
        store.keep_secrets([secret.clone(), token.clone()]);
        Ok(expires)
    })?;
    Ok(format!(
        "<AssumedRoleUser><AssumedRoleId>AROAEXAMPLE:{session_name}</AssumedRoleId><Arn>{caller}</Arn></AssumedRoleUser>\
         <Credentials><AccessKeyId>{access_key_id}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
         <SessionToken>{token}</SessionToken><Expiration>{expires:.0}</Expiration></Credentials>"
    ))
}

fn random() -> String {
    Uuid::new_v4().simple().to_string()
}

/// Account and name of a role.
fn parse_role(arn: &str) -> Option<(&str, &str)> {
    let mut parts = arn.splitn(6, ':');
    let (_arn, _partition, service) = (parts.next()?, parts.next()?, parts.next()?);
    let (_region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
    let name = resource.strip_prefix("role/")?.rsplit('/').next()?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    let sound =
        service == "iam" && account.len() == 12 && !name.is_empty() && name.chars().all(allowed);
    sound.then_some((account, name))
}

/// Names and values of a form.
fn parse_form(body: &[u8]) -> Result<HashMap<String, String>, ApiError> {
    let malformed = || ApiError::new("MalformedQueryString", "the body is no form");
    let body = std::str::from_utf8(body).map_err(|_| malformed())?;
    let pairs = body.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((decode(name)?, decode(value)?))
        })
        .collect::<Option<_>>()
        .ok_or_else(malformed)
}

/// Without `+` and percent signs.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_as_it_was_written() {
        let form = parse_form(b"Action=AssumeRole&RoleArn=arn%3Aaws%3Aiam&Note=a+b%2B").unwrap();
        assert_eq!(form["RoleArn"], "arn:aws:iam");
        assert_eq!(form["Note"], "a b+");
        for malformed in [&b"Action"[..], b"a=%4", b"a=%zz", b"a=%ff", b"\xff"] {
            assert!(parse_form(malformed).is_err(), "{malformed:?}");
        }
    }

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
