//! What the API server takes of our kinds and what it refuses, each refusal with a message that says what to do.
//!
//! Every rule is shown by a value that passes and one that does not, both dry runs on the real API server: its CEL
//! and its schemas are the ones that count.

mod class;
mod listener;
mod port;
mod service;
mod session;
mod status;

pub use service::PORT_NAMES;

use kube::api::{DynamicObject, PostParams};
use kube::core::ApiResource;
use kube::{Api, Client};
use serde_json::{Value, json};

/// One rule: two merge patches to an object that is good.
struct Rule {
    /// Where the API server must say that the fault is.
    field: &'static str,
    /// Makes the object another good one.
    takes: Value,
    /// Breaks the rule.
    refuses: Value,
    /// What the message must hold.
    says: &'static str,
}

impl Rule {
    /// A rule of which both patches are to the spec.
    fn spec(field: &'static str, takes: Value, refuses: Value, says: &'static str) -> Self {
        let takes = json!({ "spec": takes });
        let refuses = json!({ "spec": refuses });
        Self {
            field,
            takes,
            refuses,
            says,
        }
    }
}

/// Tries each rule on `good`, and fails with all that did not hold.
async fn assert_rules(api: &Api<DynamicObject>, good: &Value, rules: Vec<Rule>) {
    let mut broken = Vec::new();
    for Rule {
        field,
        takes,
        refuses,
        says,
    } in rules
    {
        if let Err(message) = dry_run(api, good, &takes).await {
            broken.push(format!("{field}: {takes} is refused: {message}"));
        }
        match dry_run(api, good, &refuses).await {
            Ok(_) => broken.push(format!("{field}: {refuses} is taken")),
            Err(message) if message.contains(field) && message.contains(says) => {}
            Err(message) => {
                broken.push(format!(
                    "{field}: {refuses} is refused without '{says}': {message}"
                ));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Asks the API server to create `good` with `patch` in it, as far as that goes without keeping it.
async fn dry_run(
    api: &Api<DynamicObject>,
    good: &Value,
    patch: &Value,
) -> Result<DynamicObject, String> {
    let mut object = good.clone();
    merge(&mut object, patch);
    let object = serde_json::from_value(object).expect("it has a kind and metadata");
    let parameters = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    api.create(&parameters, &object)
        .await
        .map_err(|error| error.to_string())
}

/// A JSON merge patch: RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Some(fields) = target.as_object_mut() else {
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            fields.remove(key);
        } else {
            merge(fields.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// Speaks of a kind without its Rust type, which could not even say what must be refused.
fn api<K>(client: Client, namespace: Option<&str>) -> Api<DynamicObject>
where
    K: kube::Resource<DynamicType = ()>,
{
    let kind = ApiResource::erase::<K>(&());
    match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &kind),
        None => Api::all_with(client, &kind),
    }
}
