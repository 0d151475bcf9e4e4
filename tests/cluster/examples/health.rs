//! The health check for Argo CD, run as Argo CD runs it, against everything that a status can say.

use std::iter;

use jiff::Timestamp;
use kube::Resource as _;
use mlua::serde::SerializeOptions;
use mlua::{Lua, LuaOptions, LuaSerdeExt as _, StdLib};
use serde::Deserialize;
use serde_json::{Value, json};
use ssm_session_operator::crd::condition::{
    AvailableReason, AwsReachableReason, Condition, Conditions, DestinationReachableReason,
    ReadyReason, ReconcilingReason, StalledReason, TargetConnectedReason,
};
use ssm_session_operator::crd::{GROUP, SsmSession};

use super::example;
use crate::looks::{is_ready, is_stalled};
use crate::world::World;

/// The generation of the specs here.
const GENERATION: i64 = 3;

/// What Argo CD shows.
#[derive(Debug, Deserialize, PartialEq, Eq)]
struct Health {
    status: String,
    message: String,
}

/// The script, by the key under which Argo CD looks for it.
fn script() -> String {
    let key = format!(
        "resource.customizations.health.{GROUP}_{}",
        SsmSession::kind(&())
    );
    let example = example("argocd-health.yaml");
    let script = example.object("ConfigMap")["data"][&key].as_str();
    script
        .unwrap_or_else(|| panic!("there is no {key}"))
        .to_owned()
}

/// Judges an object: it is the global `obj`, absent fields are nil, and of the libraries there are the basic one and
/// those of tables and packages. In particular there is none of strings.
fn judge(script: &str, object: &Value) -> Health {
    let libraries = StdLib::TABLE | StdLib::PACKAGE;
    let lua = Lua::new_with(libraries, LuaOptions::default()).expect("an interpreter");
    let options = SerializeOptions::new()
        .set_array_metatable(false)
        .serialize_none_to_null(false)
        .serialize_unit_to_null(false);
    let object = lua.to_value_with(object, options).expect("plain data");
    lua.globals().set("obj", object).expect("a global");
    let judged = lua.load(script).eval().expect("the script has no error");
    lua.from_value(judged).expect("a status and a message")
}

fn object(row: &[Condition], observed_generation: i64) -> Value {
    let mut conditions = Conditions::new(observed_generation);
    for condition in row {
        conditions.set(*condition, words(*condition));
    }
    json!({
        "apiVersion": "ssm-operator.dev/v1alpha1",
        "kind": "SsmSession",
        "metadata": { "name": "orders", "namespace": "shop", "generation": GENERATION },
        "status": {
            "observedGeneration": observed_generation,
            "conditions": conditions.merge(&[], Timestamp::UNIX_EPOCH),
        },
    })
}

/// A message by which each condition is known again.
fn words(condition: Condition) -> String {
    let type_ = condition.condition_type().as_str();
    format!("{type_} because of {}", condition.reason())
}

fn each<R: Copy>(reasons: &[R], condition: fn(R) -> Condition) -> Vec<Condition> {
    reasons.iter().copied().map(condition).collect()
}

/// Everything that can be said of a session: each reason of `Ready`, with none or one of what is abnormal, with none or
/// one of what else is known.
fn rows() -> Vec<Vec<Condition>> {
    let ready = each(ReadyReason::ALL, Condition::Ready);
    let abnormal = [
        each(ReconcilingReason::ALL, Condition::Reconciling),
        each(StalledReason::ALL, Condition::Stalled),
    ];
    let known = [
        each(AvailableReason::ALL, Condition::Available),
        each(TargetConnectedReason::ALL, Condition::TargetConnected),
        each(AwsReachableReason::ALL, Condition::AwsReachable),
        each(
            DestinationReachableReason::ALL,
            Condition::DestinationReachable,
        ),
    ];
    let none_or_one = |conditions: &[Vec<Condition>]| {
        let one = conditions.concat().into_iter().map(Some);
        iter::once(None).chain(one).collect::<Vec<_>>()
    };
    let (abnormal, known) = (none_or_one(&abnormal), none_or_one(&known));
    let mut rows = Vec::new();
    for ready in &ready {
        for abnormal in &abnormal {
            for known in &known {
                let others = [*abnormal, *known].into_iter().flatten();
                rows.push(iter::once(*ready).chain(others).collect());
            }
        }
    }
    rows
}

/// What must be shown of a row whose generation is the newest: the verdict of kstatus in Argo CD's words. A condition
/// type or a reason of `Ready` that is new is decided here first, else this does not compile.
fn expected(row: &[Condition]) -> Health {
    let (mut of_ready, mut of_abnormal) = (None, None);
    for condition in row {
        match condition {
            Condition::Ready(ReadyReason::Available) => of_ready = Some(("Healthy", condition)),
            Condition::Ready(
                ReadyReason::Progressing
                | ReadyReason::Degraded
                | ReadyReason::Failed
                | ReadyReason::Deleting
                | ReadyReason::Draining
                | ReadyReason::HeldByAnother,
            ) => of_ready = Some(("Progressing", condition)),
            Condition::Reconciling(_) => of_abnormal = Some(("Progressing", condition)),
            Condition::Stalled(_) => of_abnormal = Some(("Degraded", condition)),
            // They say why, not whether.
            Condition::Available(_)
            | Condition::TargetConnected(_)
            | Condition::AwsReachable(_)
            | Condition::DestinationReachable(_) => {}
        }
    }
    let (status, condition) = of_abnormal.or(of_ready).expect("Ready is always said");
    Health {
        status: status.to_owned(),
        message: words(*condition),
    }
}

#[test]
fn argo_cd_judges_every_row_of_the_condition_table_as_kstatus_does() {
    let script = script();
    for row in rows() {
        let health = judge(&script, &object(&row, GENERATION));
        assert_eq!(health, expected(&row), "{row:?}");
    }
}

#[test]
fn argo_cd_takes_no_word_about_an_older_spec() {
    let script = script();
    for row in rows() {
        let health = judge(&script, &object(&row, GENERATION - 1));
        assert_eq!(health.status, "Progressing", "{row:?}");
        assert!(health.message.contains("newest spec"), "{}", health.message);
    }
}

#[test]
fn argo_cd_waits_for_a_session_that_nobody_has_looked_at() {
    let script = script();
    let mut session = object(&[], -1);
    assert_eq!(judge(&script, &session).status, "Progressing");
    session["status"] = json!({ "observedGeneration": GENERATION });
    assert_eq!(judge(&script, &session).status, "Progressing");
    session["status"] = Value::Null;
    assert_eq!(judge(&script, &session).status, "Progressing");
}

#[tokio::test]
async fn argo_cd_sees_a_session_stall_and_heal() {
    let world = World::new("argocd").await;
    let operator = world.all_in_one(&[]).await;
    let late = format!("{}-late", world.class);
    let mut following = world.follow("orders").await;
    let session = world.session_with("orders", json!({ "className": late }));
    world.create(&session).await;
    let stalled = |session: &SsmSession| is_stalled(session, "ClassNotFound");
    following.until("Stalled", stalled).await;
    world.create_class(&late, &json!({})).await;
    following.until("ready", is_ready).await;

    let script = script();
    let judged = following.versions.iter().map(|version| {
        let object = serde_json::to_value(version).expect("plain data");
        let health = judge(&script, &object);
        assert_eq!(health.status == "Healthy", is_ready(version), "{object}");
        health
    });
    let judged: Vec<_> = judged.collect();
    assert_eq!(judged.first().expect("a version").status, "Progressing");
    let degraded = judged.iter().find(|health| health.status == "Degraded");
    let degraded = degraded.expect("a version that is Stalled");
    assert!(degraded.message.contains(&late), "{}", degraded.message);
    let healthy = judged.last().expect("a version");
    assert_eq!(healthy.message, "1 of 1 ports can be dialled");
    operator.stop().await.expect("it ends well");
}
