//! The agent of EKS Pod Identity on the node: `GET /v1/credentials`, with a pod's token in `Authorization`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Shared;
use super::calls::name_request;
use super::error::ApiError;
use super::request::Operation;
use super::roles::{Caller, account, parse_role};
use super::service_accounts::Claims;
use super::store::Store;
use super::view::AssumedRole;

/// Whom such tokens are for.
const AUDIENCE: &str = "pods.eks.amazonaws.com";

/// How role session names begin: with the cluster's name. The policies of all roles name its sessions so.
const CLUSTER: &str = "eks-my-cluster-";

/// How much of a pod's name fits into a role session name, whose 64 characters end with a UUID. That it is cut so is a
/// choice.
const POD_CHARS_MAX: usize = 12;

/// The agent's route.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/v1/credentials", get(credentials))
}

/// How the agent words its refusals is a choice; clients read the status alone.
async fn credentials(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let (id, answer) = shared.change(|store| {
        let operation = Operation::AssumeRoleForPodIdentity;
        let id = store.called.count(operation, false);
        let answer = match store.faults.take_failure(operation) {
            Some(error) => Err(error),
            None => assume(store, &headers),
        };
        (id, answer)
    });
    let mut response = match answer {
        Ok(credentials) => Json(credentials).into_response(),
        Err(error) => error.into_response(),
    };
    name_request(&mut response, &id);
    response
}

fn assume(store: &mut Store, headers: &HeaderMap) -> Result<Value, ApiError> {
    let token = headers.get(header::AUTHORIZATION);
    let token = token.and_then(|token| token.to_str().ok());
    let claims = Claims::read(token.unwrap_or_default(), AUDIENCE, Timestamp::now())?;
    let mut trusts = store.roles.trusts.iter();
    let of_this = trusts.find(|trust| trust.subject == claims.subject());
    let role_arn = of_this.map(|trust| trust.role_arn.clone());
    let role = role_arn.as_deref().and_then(parse_role);
    let (Some(role_arn), Some((of, role))) = (&role_arn, role) else {
        let text = format!("No association was found for {}", claims.subject());
        return Err(ApiError::new("ResourceNotFoundException", text));
    };
    let pod: String = claims.pod().chars().take(POD_CHARS_MAX).collect();
    // Another for each call, since nobody says that it is the same.
    let session_name = format!("{CLUSTER}{pod}-{}", Uuid::new_v4());
    let arn = format!("arn:aws:sts::{of}:assumed-role/{role}/{session_name}");
    let caller = Caller::new(&arn).with_sessions(CLUSTER.to_owned());
    let assumed = AssumedRole {
        role_arn: role_arn.clone(),
        session_name,
        external_id: None,
        by: claims.subject().to_owned(),
        token: claims.id(),
    };
    Ok(store.hand_out(caller, assumed, |given| {
        json!({
            "AccessKeyId": given.access_key_id,
            "SecretAccessKey": given.secret,
            "Token": given.session_token,
            "AccountId": account(&arn),
            "Expiration": format!("{:.0}", given.expires),
        })
    }))
}
