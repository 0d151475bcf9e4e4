//! Errors of the SSM API in the shape of JSON 1.1, and of STS in that of the Query protocol.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Content type of requests and answers.
pub(super) const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// An error of the SSM API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    code: String,
    message: String,
}

impl ApiError {
    /// An error with any code.
    pub(super) fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
        }
    }

    /// A request outside of the documented limits.
    pub(super) fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationException", message)
    }

    /// The error as the Query protocol of STS has it.
    pub(super) fn xml(&self, namespace: &str) -> String {
        let Self { code, message } = self;
        let kind = if self.status().is_server_error() {
            "Receiver"
        } else {
            "Sender"
        };
        format!(
            "<ErrorResponse xmlns=\"{namespace}\"><Error><Type>{kind}</Type><Code>{code}</Code>\
             <Message>{}</Message></Error></ErrorResponse>",
            message.replace('&', "&amp;").replace('<', "&lt;")
        )
    }

    /// With which HTTP status it is answered.
    pub(super) fn status(&self) -> StatusCode {
        match self.code.as_str() {
            "InternalServerError" | "InternalFailure" => StatusCode::INTERNAL_SERVER_ERROR,
            "ServiceUnavailable" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({
            "__type": format!("com.amazonaws.ssm#{}", self.code),
            "message": self.message,
        });
        let content_type = (header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        (self.status(), [content_type], Json(body)).into_response()
    }
}
