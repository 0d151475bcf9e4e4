//! Tokens of ServiceAccounts, made by hand.

use aws_smithy_types::base64;
use serde_json::{Value, json};

/// An end that no test lives to see.
pub const FAR: i64 = 4_102_444_800;

/// A token that says this of itself. Its signature is none.
pub fn token(claims: &Value) -> String {
    let header = json!({ "alg": "RS256" });
    let part = |text: &str| {
        let encoded = base64::encode(text).replace('+', "-").replace('/', "_");
        encoded.trim_end_matches('=').to_owned()
    };
    let parts = [header.to_string(), claims.to_string(), "none".to_owned()];
    parts.map(|text| part(&text)).join(".")
}
