//! What the operator's service accounts have asked the API server for, by that server's own log.

#![allow(
    dead_code,
    reason = "each test program that includes this file uses a part of it"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

/// Whom the operator's own requests come from, as opposed to what tests do with its tokens.
const AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/");

/// Where the API server says of a ServiceAccount which of its tokens was shown.
const TOKEN_ID: &str = "authentication.kubernetes.io/credential-id";

/// A request of a process of the operator, and how it was answered.
#[derive(Clone, Debug)]
pub struct Request {
    /// Name of the ServiceAccount.
    pub account: String,
    /// Id of its token: each process has its own.
    pub token: String,
    /// As RBAC calls it.
    pub verb: String,
    /// `group/resource` or `group/resource/subresource`, with nothing for the core group.
    pub resource: String,
    /// Where, and of a Namespace itself its name; absent for all namespaces, and for what else belongs to none.
    pub namespace: Option<String>,
    /// The HTTP status.
    pub code: u16,
    /// The path and what the API server says of it.
    pub words: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    verb: String,
    #[serde(rename = "requestURI")]
    uri: String,
    user: User,
    #[serde(default)]
    user_agent: String,
    object_ref: Option<Object>,
    response_status: Option<Answer>,
}

#[derive(Deserialize)]
struct User {
    username: String,
    #[serde(default)]
    extra: BTreeMap<String, Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Object {
    resource: String,
    namespace: Option<String>,
    api_group: String,
    subresource: String,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

/// The requests of an operator whose ServiceAccounts are in this namespace.
pub fn requests(log: &Path, home: &str) -> Vec<Request> {
    let accounts = format!("system:serviceaccount:{home}:");
    let log = fs::read_to_string(log).expect("the API server has written it");
    // Reading all as JSON takes long, and most are others'; the last may be half a line.
    let lines = log.lines().filter(|line| line.contains(&accounts));
    lines
        .filter_map(|line| serde_json::from_str::<Line>(line).ok())
        .filter(|line| line.user_agent.starts_with(AGENT))
        .filter_map(|line| {
            let account = line.user.username.strip_prefix(&accounts)?.to_owned();
            let token = line.user.extra.get(TOKEN_ID).cloned().unwrap_or_default();
            let object = line.object_ref?;
            let (group, resource) = (&object.api_group, &object.resource);
            let subresource = match object.subresource.as_str() {
                "" => String::new(),
                subresource => format!("/{subresource}"),
            };
            let Answer { code, message } = line.response_status?;
            Some(Request {
                account,
                token: token.concat(),
                resource: format!("{group}/{resource}{subresource}"),
                namespace: object.namespace,
                code,
                words: format!("{} {}: {message}", line.verb, line.uri),
                verb: line.verb,
            })
        })
        .collect()
}

/// Those that the operator may not make.
pub fn refused(requests: &[Request]) -> Vec<&Request> {
    requests
        .iter()
        .filter(|request| request.code == 403)
        .collect()
}
