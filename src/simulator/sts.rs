//! The part of STS that hands out roles: `AssumeRole` and `AssumeRoleWithWebIdentity` of the Query protocol, a form in and
//! XML out.
//!
//! Whoever signs may assume any role, which is a choice; [`super::Fault::Fail`] refuses. With a token alone a role is
//! assumed by whom it trusts: [`super::Trust`].

use std::collections::HashMap;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;

use super::Shared;
use super::calls::name_request;
use super::error::ApiError;
use super::request::Operation;
use super::roles::{Caller, parse_role};
use super::service_accounts::Claims;
use super::socket::is_signed;
use super::store::Store;
use super::view::AssumedRole;

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// Whom web identities are for.
const AUDIENCE: &str = "sts.amazonaws.com";

/// The fields of a request.
type Form = HashMap<String, String>;

/// Whether a request is one of the Query protocol.
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes() == b"application/x-www-form-urlencoded")
}

/// Serves one call.
pub(super) fn call(shared: &Shared, headers: &HeaderMap, body: &[u8]) -> Response {
    let asked = parse_form(body).and_then(|form| Ok((operation(&form)?, form)));
    let (operation, form) = match asked {
        Ok(asked) => asked,
        Err(error) => return refusal(&error),
    };
    let signed = is_signed(headers, "sts");
    let (id, answer) = shared.change(|store| {
        let id = store.called.count(operation, signed);
        let answer = match store.faults.take_failure(operation) {
            Some(error) => Err(error),
            None => assume(store, headers, operation, &form),
        };
        (id, answer)
    });
    let mut response = match answer {
        Ok(result) => {
            let metadata = format!("<RequestId>{id}</RequestId>");
            let body = format!(
                "<{operation:?}Response xmlns=\"{NAMESPACE}\"><{operation:?}Result>{result}</{operation:?}Result>\
                 <ResponseMetadata>{metadata}</ResponseMetadata></{operation:?}Response>"
            );
            xml(StatusCode::OK, body)
        }
        Err(error) => refusal(&error),
    };
    name_request(&mut response, &id);
    response
}

fn refusal(error: &ApiError) -> Response {
    xml(error.status(), error.xml(NAMESPACE))
}

fn xml(status: StatusCode, body: String) -> Response {
    ([(header::CONTENT_TYPE, "text/xml")], (status, body)).into_response()
}

fn field<'a>(form: &'a Form, name: &str) -> Option<&'a str> {
    form.get(name).map(String::as_str)
}

fn operation(form: &Form) -> Result<Operation, ApiError> {
    match (field(form, "Action"), field(form, "Version")) {
        (Some("AssumeRole"), Some("2011-06-15")) => Ok(Operation::AssumeRole),
        (Some("AssumeRoleWithWebIdentity"), Some("2011-06-15")) => {
            Ok(Operation::AssumeRoleWithWebIdentity)
        }
        _ => Err(ApiError::new("InvalidAction", "no such action")),
    }
}

fn assume(
    store: &mut Store,
    headers: &HeaderMap,
    operation: Operation,
    form: &Form,
) -> Result<String, ApiError> {
    let role_arn = field(form, "RoleArn").unwrap_or_default();
    let (account, role) = parse_role(role_arn)
        .ok_or_else(|| ApiError::new("ValidationError", format!("{role_arn} is invalid")))?;
    let session_name = field(form, "RoleSessionName").unwrap_or_default();
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    if !(2..=64).contains(&session_name.len()) || !session_name.chars().all(allowed) {
        let text = "roleSessionName must have 2 to 64 characters of [\\w+=,.@-]";
        return Err(ApiError::new("ValidationError", text));
    }
    let (by, token) = if operation == Operation::AssumeRoleWithWebIdentity {
        let token = field(form, "WebIdentityToken").unwrap_or_default();
        let claims = Claims::read(token, AUDIENCE, Timestamp::now())?;
        let mut trusts = store.roles.trusts.iter();
        if !trusts.any(|trust| trust.role_arn == role_arn && trust.subject == claims.subject()) {
            let text = "Not authorized to perform sts:AssumeRoleWithWebIdentity";
            return Err(ApiError::new("AccessDenied", text));
        }
        (claims.subject().to_owned(), claims.id())
    } else {
        (store.caller(headers)?.arn, None)
    };
    let arn = format!("arn:aws:sts::{account}:assumed-role/{role}/{session_name}");
    let assumed = AssumedRole {
        role_arn: role_arn.to_owned(),
        session_name: session_name.to_owned(),
        external_id: field(form, "ExternalId").map(str::to_owned),
        by,
        token,
    };
    Ok(store.hand_out(Caller::new(&arn), assumed, |given| {
        format!(
            "<AssumedRoleUser><AssumedRoleId>AROAEXAMPLE:{session_name}</AssumedRoleId><Arn>{arn}</Arn></AssumedRoleUser>\
             <Credentials><AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey>\
             <SessionToken>{}</SessionToken><Expiration>{:.0}</Expiration></Credentials>",
            given.access_key_id, given.secret, given.session_token, given.expires
        )
    }))
}

/// Names and values of a form.
fn parse_form(body: &[u8]) -> Result<Form, ApiError> {
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
}
