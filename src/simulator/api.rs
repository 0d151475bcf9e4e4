//! The SSM API: `POST /` with JSON 1.1. What comes there as a form is for STS.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::Shared;
use super::calls::name_request;
use super::connection::Connection;
use super::describe;
use super::error::{ApiError, CONTENT_TYPE};
use super::request::{self, DescribeSessions, OneSession, Operation, StartSession};
use super::roles::Caller;
use super::seat::Side;
use super::socket::is_signed;
use super::store::Purpose;
use super::sts;
use super::view::Status;

/// How long a terminated session waits in `Terminating` for both sides to leave.
const TERMINATING_MAX: Duration = Duration::from_millis(100);

/// What an operation comes to.
enum Answer {
    Value(Value),
    /// The work was done, and nobody hears of it.
    Swallowed,
}

/// Serves one call.
pub(super) async fn call(
    State(shared): State<Arc<Shared>>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if sts::is_form(&headers) {
        return sts::call(&shared, &headers, &body);
    }
    let target = headers
        .get("x-amz-target")
        .and_then(|value| value.to_str().ok());
    let Some(operation) = target.and_then(Operation::from_header) else {
        return unknown_operation().into_response();
    };
    let signed = is_signed(&headers, "ssm");
    let (request_id, caller) = shared.change(|store| {
        let request_id = store.called.count(operation, signed);
        let caller = match store.faults.take_failure(operation) {
            Some(error) => Err(error),
            None => store.caller(&headers),
        };
        (request_id, caller)
    });
    let answer = caller.and_then(|caller| match operation {
        Operation::StartSession => start(&shared, &caller.arn, &body),
        Operation::ResumeSession => resume(&shared, &caller, &body).map(Answer::Value),
        Operation::TerminateSession => terminate(&shared, &caller, &body).map(Answer::Value),
        Operation::DescribeSessions => describe(&shared, &caller.arn, &body).map(Answer::Value),
        Operation::AssumeRole
        | Operation::AssumeRoleWithWebIdentity
        | Operation::AssumeRoleForPodIdentity => Err(unknown_operation()),
    });
    let mut response = match answer {
        Ok(Answer::Value(value)) => {
            let content_type = (header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
            ([content_type], Json(value)).into_response()
        }
        Ok(Answer::Swallowed) => match connection.abort().await {},
        Err(error) => error.into_response(),
    };
    name_request(&mut response, &request_id);
    response
}

fn unknown_operation() -> ApiError {
    ApiError::new("UnknownOperationException", "no such operation")
}

fn stream_url(shared: &Shared, session: &str) -> String {
    let base = shared.stream_base();
    format!("{base}/v1/data-channel/{session}?role=publish_subscribe&cell-number=AAEAAbx1")
}

fn start(shared: &Arc<Shared>, caller: &str, body: &[u8]) -> Result<Answer, ApiError> {
    let request: StartSession = request::parse(body)?;
    request.validate()?;
    let (id, token, swallowed) = shared.change(|store| {
        let id = store.start(&request, caller)?;
        let token = if store.faults.take_empty_token(Operation::StartSession) {
            String::new()
        } else {
            store.issue(Purpose::Data(id.clone(), Side::Client))
        };
        Ok((id, token, store.faults.take_swallow()))
    })?;
    if let Some(minutes) = shared.options.max_session_duration_minutes {
        let (shared, id) = (Arc::clone(shared), id.clone());
        shared.tasks.clone().spawn(async move {
            tokio::select! {
                () = shared.cancel.cancelled() => {}
                () = tokio::time::sleep(Duration::from_secs(u64::from(minutes) * 60)) => {
                    // What the real service says here is not known.
                    let text = "Session has reached its maximum duration.";
                    shared.change(|store| store.end(&id, Status::Terminated, text));
                }
            }
        });
    }
    if swallowed {
        return Ok(Answer::Swallowed);
    }
    let url = stream_url(shared, &id);
    Ok(Answer::Value(
        json!({ "SessionId": id, "TokenValue": token, "StreamUrl": url }),
    ))
}

fn resume(shared: &Shared, caller: &Caller, body: &[u8]) -> Result<Value, ApiError> {
    let request: OneSession = request::parse(body)?;
    request.validate()?;
    let id = &request.session_id;
    let (token, empty) = shared.change(|store| {
        store.authorize(caller, Operation::ResumeSession, id)?;
        let token = store.resume(id)?;
        Ok((
            token,
            store.faults.take_empty_token(Operation::ResumeSession),
        ))
    })?;
    let url = stream_url(shared, id);
    Ok(match token {
        Some(_) if empty => json!({ "SessionId": id, "TokenValue": "", "StreamUrl": url }),
        Some(token) => json!({ "SessionId": id, "TokenValue": token, "StreamUrl": url }),
        None => json!({ "SessionId": id }),
    })
}

fn terminate(shared: &Arc<Shared>, caller: &Caller, body: &[u8]) -> Result<Value, ApiError> {
    let request: OneSession = request::parse(body)?;
    request.validate()?;
    let id = request.session_id;
    shared.change(|store| {
        store.authorize(caller, Operation::TerminateSession, &id)?;
        store.end(&id, Status::Terminating, "");
        Ok(())
    })?;
    shared.tasks.spawn(finish(Arc::clone(shared), id.clone()));
    Ok(json!({ "SessionId": id }))
}

/// Makes a terminating session a terminated one, once both sides have left or a moment later.
async fn finish(shared: Arc<Shared>, id: String) {
    let mut revision = shared.revision.subscribe();
    let vacant = revision.wait_for(|_| {
        shared.read(|store| {
            store
                .session(&id)
                .is_none_or(super::sessions::Session::is_vacant)
        })
    });
    // Too late or not at all: then the websockets are cut off later, by their own deadline.
    let _ = tokio::time::timeout(TERMINATING_MAX, vacant).await;
    shared.change(|store| store.end(&id, Status::Terminated, ""));
}

fn describe(shared: &Shared, caller: &str, body: &[u8]) -> Result<Value, ApiError> {
    let request: DescribeSessions = request::parse(body)?;
    request.validate()?;
    let options = &shared.options;
    shared.read(|store| {
        describe::page(
            store,
            &request,
            caller,
            options.max_session_duration_minutes,
        )
    })
}
