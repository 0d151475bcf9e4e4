//! Faults and inspection over HTTP, for tests that run the simulator as a process of its own.
//!
//! `GET /_simulator/overview` answers with an [`super::Overview`]; `POST /_simulator/faults` takes a
//! [`super::Fault`]. AWS has nothing of the kind.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};

use super::store::Store;
use super::{Fault, Overview, Shared};

/// The admin routes.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/_simulator/overview", get(overview))
        .route("/_simulator/faults", post(inject))
}

async fn overview(State(shared): State<Arc<Shared>>) -> Json<Overview> {
    Json(shared.read(Store::overview))
}

async fn inject(
    State(shared): State<Arc<Shared>>,
    Json(fault): Json<Fault>,
) -> Result<StatusCode, (StatusCode, String)> {
    shared
        .change(|store| store.inject(fault))
        .map(|()| StatusCode::NO_CONTENT)
        .map_err(|error| (StatusCode::NOT_FOUND, error))
}
