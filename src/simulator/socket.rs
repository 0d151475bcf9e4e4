//! Websockets of the gateway: the upgrade, the first text frame, refusals.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::{body::Body, extract::Request};
use futures::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role};

/// A websocket of the gateway.
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// How long a peer may take for the frame with its token.
const FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a peer gets to take the last frames before the connection is dropped.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Answers an upgrade; the websocket is there once the answer is out.
///
/// # Errors
/// The answer to a request that asks for no websocket.
pub(super) fn upgrade(mut request: Request) -> Result<(Response<Body>, OnUpgrade), StatusCode> {
    let headers = request.headers();
    let asks = |name: header::HeaderName, word: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| {
                value
                    .split(',')
                    .any(|part| part.trim().eq_ignore_ascii_case(word))
            })
    };
    let asked = asks(header::UPGRADE, "websocket")
        && asks(header::CONNECTION, "upgrade")
        && asks(header::SEC_WEBSOCKET_VERSION, "13");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| asked);
    let accept = key
        .map(|key| derive_accept_key(key.as_bytes()))
        .ok_or(StatusCode::BAD_REQUEST)?;
    let on_upgrade = request
        .extensions_mut()
        .remove::<OnUpgrade>()
        .ok_or(StatusCode::BAD_REQUEST)?;
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept)
        .body(Body::empty())
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok((response, on_upgrade))
}

/// The websocket behind an answered upgrade, and the text of its first frame.
///
/// `None` when the peer is gone, says something else first, or takes too long.
pub(super) async fn open(on_upgrade: OnUpgrade) -> Option<(Socket, String)> {
    let upgraded = on_upgrade.await.ok()?;
    let mut socket =
        WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    let first = async {
        loop {
            match socket.next().await?.ok()? {
                Message::Text(text) => return Some(text.as_str().to_owned()),
                // The real client pings at once.
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Binary(_) | Message::Close(_) | Message::Frame(_) => return None,
            }
        }
    };
    let text = tokio::time::timeout(FIRST_FRAME_TIMEOUT, first)
        .await
        .ok()??;
    Some((socket, text))
}

/// Closes a websocket whose first frame was not good enough. The code is a choice.
pub(super) async fn refuse(mut socket: Socket, reason: &'static str) {
    let frame = CloseFrame {
        code: CloseCode::Policy,
        reason: reason.into(),
    };
    let farewell = async {
        let sent = socket.send(Message::Close(Some(frame))).await;
        while sent.is_ok() && matches!(socket.next().await, Some(Ok(_))) {}
    };
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, farewell).await;
}

/// The close frame that AWS sends about every 60 minutes, and here at every orderly end.
pub(super) fn bye() -> Message {
    Message::Close(Some(CloseFrame {
        code: CloseCode::Normal,
        reason: "Bye".into(),
    }))
}

/// The access key with which a request says that it is signed.
pub(super) fn access_key(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (_, scope) = value.split_once("Credential=")?;
    scope.split_once('/').map(|(key, _)| key)
}

/// Whether a request carries a `SigV4` header for a service. Its signature is not checked: nobody here
/// knows a secret key.
pub(super) fn is_signed(headers: &HeaderMap, service: &str) -> bool {
    let scope = format!("/{service}/aws4_request");
    headers
        .get(header::AUTHORIZATION)
        .map(HeaderValue::as_bytes)
        .and_then(|value| std::str::from_utf8(value).ok())
        .is_some_and(|value| value.starts_with("AWS4-HMAC-SHA256 ") && value.contains(&scope))
}
