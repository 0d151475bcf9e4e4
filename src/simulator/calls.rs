//! What was called so far: how often, and the ids of the requests.

use std::collections::{BTreeMap, VecDeque};

use axum::http::HeaderValue;
use axum::response::Response;
use uuid::Uuid;

use super::request::Operation;
use super::view::Calls;

/// Request ids of one operation that are remembered: who looks for one, looks soon.
const REQUEST_IDS_MAX: usize = 100;

/// The calls of every operation.
#[derive(Default)]
pub(super) struct Called {
    calls: BTreeMap<Operation, Calls>,
    request_ids: BTreeMap<Operation, VecDeque<String>>,
}

impl Called {
    /// Counts a call, and gives the id of its request.
    pub(super) fn count(&mut self, operation: Operation, signed: bool) -> String {
        let calls = self.calls.entry(operation).or_default();
        calls.total += 1;
        calls.signed += u64::from(signed);
        let id = Uuid::new_v4().to_string();
        let ids = self.request_ids.entry(operation).or_default();
        if ids.len() == REQUEST_IDS_MAX {
            ids.pop_front();
        }
        ids.push_back(id.clone());
        id
    }

    pub(super) fn calls(&self) -> BTreeMap<Operation, Calls> {
        self.calls.clone()
    }

    /// The latest ids, oldest first.
    pub(super) fn request_ids(&self, operation: Operation) -> Vec<String> {
        let ids = self.request_ids.get(&operation);
        ids.into_iter().flatten().cloned().collect()
    }
}

/// Tells the caller the id of its request.
pub(super) fn name_request(response: &mut Response, request_id: &str) {
    if let Ok(id) = HeaderValue::try_from(request_id) {
        response.headers_mut().insert("x-amzn-requestid", id);
    }
}
