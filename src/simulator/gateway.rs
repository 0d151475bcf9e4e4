//! The message gateway's HTTP: agents create their channels, agents and clients open websockets.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use serde::Deserialize;

use super::Shared;
use super::connection::Connection;
use super::control_channel;
use super::seat::Side;
use super::socket::{self, Socket, is_signed};
use super::store::{Attached, Purpose};

/// The part of every first text frame that the gateway needs.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Opening {
    token_value: String,
}

/// The gateway's routes.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route(
            "/v1/control-channel/{instance}",
            post(create_control).get(open_control),
        )
        .route(
            "/v1/data-channel/{session}",
            post(create_data).get(open_data),
        )
}

/// Refuses what carries no signature, in words that a real agent understands.
fn check_signature(shared: &Shared, headers: &HeaderMap) -> Result<bool, Box<Response<Body>>> {
    let signed = is_signed(headers, "ssmmessages");
    if signed || !shared.options.require_signature {
        return Ok(signed);
    }
    let body = "<AccessDeniedException><Message>Missing Authentication Token</Message>\
                </AccessDeniedException>";
    Err(Box::new(
        (StatusCode::FORBIDDEN, xml(body.to_owned())).into_response(),
    ))
}

fn xml(body: String) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/xml")], body)
}

fn created(channel: &str, token: &str) -> Response<Body> {
    let body = format!(
        "<Create{channel}Response><MessageSchemaVersion>1.0</MessageSchemaVersion>\
         <TokenValue>{token}</TokenValue></Create{channel}Response>"
    );
    (StatusCode::CREATED, xml(body)).into_response()
}

async fn create_control(
    State(shared): State<Arc<Shared>>,
    Path(instance): Path<String>,
    headers: HeaderMap,
) -> Response<Body> {
    if let Err(refusal) = check_signature(&shared, &headers) {
        return *refusal;
    }
    let token = shared.change(|store| store.issue(Purpose::Control(instance)));
    created("ControlChannel", &token)
}

async fn create_data(
    State(shared): State<Arc<Shared>>,
    Path(session): Path<String>,
    headers: HeaderMap,
) -> Response<Body> {
    if let Err(refusal) = check_signature(&shared, &headers) {
        return *refusal;
    }
    let token = shared.change(|store| {
        let known = store.session(&session)?;
        let running = !known.view.status.is_over();
        running.then(|| store.issue(Purpose::Data(session, Side::Agent)))
    });
    match token {
        Some(token) => created("DataChannel", &token),
        // The agent gives up at once when it reads these words.
        None => (StatusCode::BAD_REQUEST, "Session is already terminated").into_response(),
    }
}

/// Answers an upgrade, and carries the websocket in a task of its own.
fn open<F, R>(shared: &Arc<Shared>, request: Request, carry: F) -> Response<Body>
where
    F: FnOnce(Arc<Shared>, Socket, String) -> R + Send + 'static,
    R: Future<Output = ()> + Send,
{
    let (response, on_upgrade) = match socket::upgrade(request) {
        Ok(upgraded) => upgraded,
        Err(status) => return status.into_response(),
    };
    let task_shared = Arc::clone(shared);
    shared.tasks.spawn(async move {
        let cancel = task_shared.cancel.clone();
        let serving = async {
            let Some((socket, text)) = socket::open(on_upgrade).await else {
                return;
            };
            match serde_json::from_str::<Opening>(&text) {
                Ok(opening) => carry(task_shared, socket, opening.token_value).await,
                Err(_) => socket::refuse(socket, "the first frame is not understood").await,
            }
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = serving => {}
        }
    });
    response
}

async fn open_control(
    State(shared): State<Arc<Shared>>,
    Path(instance): Path<String>,
    request: Request,
) -> Response<Body> {
    if let Err(refusal) = check_signature(&shared, request.headers()) {
        return *refusal;
    }
    open(
        &shared,
        request,
        async move |shared, socket, token| match shared
            .change(|store| store.attach_control(&instance, &token))
        {
            Ok((seat, messages)) => {
                control_channel::carry(&shared, &seat, messages, socket).await;
                shared.change(|store| store.detach_control(&instance, seat.generation));
            }
            Err(reason) => socket::refuse(socket, reason).await,
        },
    )
}

async fn open_data(
    State(shared): State<Arc<Shared>>,
    Path(session): Path<String>,
    request: Request,
) -> Response<Body> {
    let signed = match check_signature(&shared, request.headers()) {
        Ok(signed) => signed,
        Err(refusal) => return *refusal,
    };
    let caller = match shared.read(|store| store.caller(request.headers())) {
        Ok(caller) => caller,
        Err(refusal) => return refusal.into_response(),
    };
    let connection = request.extensions().get::<Connection>().cloned();
    open(
        &shared,
        request,
        async move |shared, socket, token| match shared
            .change(|store| store.attach(&session, &token, signed, &caller))
        {
            Ok(Attached {
                channel,
                side,
                seat,
            }) => {
                channel
                    .carry(side, &seat, socket, connection.as_ref())
                    .await;
                shared.change(|store| store.detach(&session, side, seat.generation));
            }
            Err(reason) => socket::refuse(socket, reason).await,
        },
    )
}
