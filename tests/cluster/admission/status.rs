//! Statuses: whatever AWS says is taken as it comes, and kubectl shows it.

use anyhow::Result;
use jiff::Timestamp;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use ssm_session_operator::crd::condition::{AvailableReason, Condition, Conditions, ReadyReason};
use ssm_session_operator::crd::{SsmListener, SsmSession};

use super::{api, listener, merge, session};
use crate::ground::{Ground, ground};
use crate::programs::objects;

async fn create(api: &Api<DynamicObject>, object: Value) -> Result<String> {
    let object: DynamicObject = serde_json::from_value(object)?;
    let created = api.create(&PostParams::default(), &object).await?;
    Ok(created.metadata.name.unwrap_or_default())
}

async fn patch_status(
    api: &Api<DynamicObject>,
    name: &str,
    status: Value,
) -> Result<DynamicObject> {
    let patch = Patch::Merge(json!({ "status": status }));
    Ok(api
        .patch_status(name, &PatchParams::default(), &patch)
        .await?)
}

async fn session(ground: &Ground) -> Result<(Api<DynamicObject>, String, String)> {
    let client = ground.client().await;
    let namespace = ground.namespace(&client, "status").await;
    let api = api::<SsmSession>(client, Some(&namespace));
    let name = create(&api, session::good()).await?;
    Ok((api, namespace, name))
}

#[tokio::test]
async fn no_value_of_aws_makes_a_status_unwritable() -> Result<()> {
    let (api, _, name) = session(ground().await).await?;
    let strange = format!("{}\n\u{1f980}\u{0}", "?".repeat(1_000));
    let fields = [
        "sessionId",
        "status",
        "target",
        "documentName",
        "owner",
        "reason",
        "details",
        "accessType",
        "startDate",
        "endDate",
        "maxSessionDuration",
        "endMessage",
    ];
    let mut mirrored: Value = fields
        .iter()
        .map(|field| (*field, strange.clone()))
        .collect();
    mirrored["outputUrl"] = json!({ "s3": strange, "cloudWatch": strange });
    let status = json!({ "sessions": vec![mirrored.clone(); 64], "history": vec![mirrored; 5] });
    let written = patch_status(&api, &name, status.clone()).await?;
    assert_eq!(written.data["status"]["sessions"], status["sessions"]);
    assert_eq!(written.data["status"]["history"], status["history"]);
    Ok(())
}

#[tokio::test]
async fn a_status_has_a_size_and_one_condition_of_a_type() -> Result<()> {
    let (api, _, name) = session(ground().await).await?;
    let ready = json!({
        "type": "Ready", "status": "True", "reason": "Available", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let a_session = json!({ "sessionId": "s" });
    for (status, says) in [
        (json!({ "conditions": [ready, ready] }), "Duplicate value"),
        (
            json!({ "sessions": vec![a_session.clone(); 65] }),
            "must have at most 64 items",
        ),
        (
            json!({ "history": vec![a_session; 6] }),
            "must have at most 5 items",
        ),
    ] {
        let refused = patch_status(&api, &name, status)
            .await
            .expect_err("it breaks a rule");
        assert!(refused.to_string().contains(says), "{refused}");
    }
    Ok(())
}

#[tokio::test]
async fn what_we_say_of_a_session_is_read_back_as_it_was_said() -> Result<()> {
    let (api, _, name) = session(ground().await).await?;
    let mut conditions = Conditions::new(1);
    conditions.set(
        Condition::Ready(ReadyReason::Progressing),
        "the session is being started",
    );
    conditions.set(
        Condition::Available(AvailableReason::NoSession),
        "no AWS session yet",
    );
    let said = conditions.merge(&[], Timestamp::now());
    let written = patch_status(&api, &name, json!({ "conditions": said })).await?;
    let read: SsmSession = serde_json::from_value(serde_json::to_value(written)?)?;
    assert_eq!(read.status.unwrap_or_default().conditions, said);
    Ok(())
}

#[tokio::test]
async fn kubectl_shows_readiness_session_and_endpoint() -> Result<()> {
    let ground = ground().await;
    let (api, namespace, name) = session(ground).await?;
    let mut conditions = Conditions::new(1);
    conditions.set(
        Condition::Ready(ReadyReason::Available),
        "all ports can be dialled",
    );
    let status = json!({
        "conditions": conditions.merge(&[], Timestamp::now()),
        "target": { "id": "i-0123456789abcdef0" },
        "endpoint": { "service": "orders-db", "host": "orders-db.shop.svc", "ports": [] },
        "sessions": [{ "sessionId": "shop-0dc5b7af96EXAMPLE" }],
    });
    patch_status(&api, &name, status).await?;
    let shown = ground
        .kubectl(&["get", "ssms", "--namespace", &namespace])
        .await?;
    let words: Vec<Vec<_>> = shown
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        words[0],
        [
            "NAME", "READY", "REASON", "TARGET", "SESSION", "ENDPOINT", "AGE"
        ]
    );
    let expected = [
        "orders-db",
        "True",
        "Available",
        "i-0123456789abcdef0",
        "shop-0dc5b7af96EXAMPLE",
        "orders-db.shop.svc",
    ];
    assert_eq!(words[1][..6], expected);
    Ok(())
}

#[tokio::test]
async fn a_listeners_status_takes_what_aws_says_and_kubectl_shows_its_state() -> Result<()> {
    let ground = ground().await;
    let client = ground.client().await;
    let namespace = ground.namespace(&client, "status").await;
    let api = api::<SsmListener>(client, Some(&namespace));
    let name = create(&api, listener::good()).await?;
    let mut status = json!({
        "relay": "relay-0", "incarnation": "a", "addresses": ["192.0.2.1", "2001:db8::1"],
        "port": 10_240, "state": "Serving", "ready": true,
        "lastError": { "class": "Throttled", "message": "?\n".repeat(500) },
    });
    let sessions = vec![
        json!({
            "sessionId": "?".repeat(400), "relay": "relay-0", "incarnation": "a",
            "identity": { "region": "eu-central-1" }, "startedAt": "2026-01-01T00:00:00Z",
            "endMessage": "?\n".repeat(500),
        });
        64
    ];
    merge(&mut status, &json!({ "sessions": sessions }));
    patch_status(&api, &name, status).await?;
    let shown = ground
        .kubectl(&["get", "ssml", "--namespace", &namespace])
        .await?;
    let words: Vec<_> = shown
        .lines()
        .skip(1)
        .flat_map(str::split_whitespace)
        .collect();
    let expected = [
        "admission",
        "shop",
        "orders-db",
        "postgres",
        "relay-0",
        "Serving",
        "true",
    ];
    assert_eq!(words[..7], expected);
    Ok(())
}

/// What an operator of the past has left in a cluster. Its statuses are written on fresh objects, since the API server
/// does not look again at what stays as it is.
#[tokio::test]
async fn what_an_operator_of_the_past_has_said_is_still_valid() -> Result<()> {
    let ground = ground().await;
    let (sessions, namespace, session) = session(ground).await?;
    let listeners = api::<SsmListener>(ground.client().await, Some(&namespace));
    let listener = create(&listeners, listener::good()).await?;
    let left = objects(include_str!("../../chart/past/objects.yaml"));
    let said = |kind: &str| {
        let said = left.iter().find(|object| object["kind"] == kind);
        said.expect("it was left")["status"].clone()
    };
    for (api, name, kind) in [
        (sessions, session, "SsmSession"),
        (listeners, listener, "SsmListener"),
    ] {
        let written = patch_status(&api, &name, said(kind)).await?;
        assert_eq!(
            written.data["status"],
            said(kind),
            "nothing of it is dropped"
        );
    }
    Ok(())
}
