//! Tokens of ServiceAccounts, and which role is whose by them: a role's trust policy for IRSA, an association for EKS Pod
//! Identity.
//!
//! Audience, end and subject are checked. The signature is not: nobody here knows the key of a cluster.

use aws_smithy_types::base64;
use jiff::Timestamp;
use serde::Deserialize;

use super::error::ApiError;

/// A role that whoever shows a token of a ServiceAccount may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// `arn:aws:iam::<account>:role/<name>`.
    pub role_arn: String,
    /// `sub` of its tokens: `system:serviceaccount:<namespace>:<name>`.
    pub subject: String,
}

/// What a token says, as far as anybody asks.
#[derive(Deserialize)]
pub(super) struct Claims {
    sub: String,
    aud: Vec<String>,
    exp: i64,
    jti: Option<String>,
    #[serde(rename = "kubernetes.io", default)]
    kubernetes: Kubernetes,
}

#[derive(Default, Deserialize)]
struct Kubernetes {
    pod: Option<Pod>,
}

#[derive(Deserialize)]
struct Pod {
    name: String,
}

impl Claims {
    /// Reads a token that is for `audience` and good at `now`.
    ///
    /// # Errors
    /// `InvalidIdentityToken` or `ExpiredTokenException`, in words that do not repeat the token.
    pub(super) fn read(token: &str, audience: &str, now: Timestamp) -> Result<Self, ApiError> {
        let invalid = |text: &str| ApiError::new("InvalidIdentityToken", text);
        let claims =
            decode(token).ok_or_else(|| invalid("The ID Token provided is not a valid JWT."))?;
        if !claims.aud.iter().any(|aud| aud == audience) {
            return Err(invalid("Incorrect token audience"));
        }
        if claims.exp <= now.as_second() {
            let text = "Token expired: current date/time must be before the expiration date/time";
            return Err(ApiError::new("ExpiredTokenException", text));
        }
        Ok(claims)
    }

    /// `system:serviceaccount:<namespace>:<name>`.
    pub(super) fn subject(&self) -> &str {
        &self.sub
    }

    /// The token's own id, which is no secret.
    pub(super) fn id(&self) -> Option<String> {
        self.jti.clone()
    }

    /// The pod whose token it is; empty for one that is bound to none.
    pub(super) fn pod(&self) -> &str {
        self.kubernetes.pod.as_ref().map_or("", |pod| &pod.name)
    }
}

/// The middle one of a JWT's three parts.
fn decode(token: &str) -> Option<Claims> {
    let mut parts = token.split('.');
    let (_header, claims, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    let mut claims = claims.replace('-', "+").replace('_', "/");
    while claims.len() % 4 != 0 {
        claims.push('=');
    }
    let claims = base64::decode(claims).ok()?;
    serde_json::from_slice(&claims)
        .ok()
        .filter(|_| parts.next().is_none())
}
