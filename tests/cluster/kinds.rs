//! Kinds that are older than the operator, on a control plane of their own: definitions are the whole cluster's.

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use ssm_session_operator::crd;

use crate::control_plane::ControlPlane;
use crate::http;
use crate::probes::value;
use crate::process::Process;
use crate::wait::ask_until;
use crate::world::WAIT_MAX;

/// Our definitions; without the field `nextRetryTime` of an SsmSession's status, as an older version had them.
async fn define(client: &Client, older: bool) {
    let kinds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in crd::definitions() {
        let name = definition.name_any();
        let mut definition = serde_json::to_value(definition).expect("plain data");
        if older && name.starts_with("ssmsessions.") {
            let status = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties";
            let status = definition
                .pointer_mut(status)
                .and_then(Value::as_object_mut);
            let removed = status.expect("it has a status").remove("nextRetryTime");
            removed.expect("the status has it");
        }
        let applied = PatchParams::apply("kinds").force();
        let applied = kinds
            .patch(&name, &applied, &Patch::Apply(&definition))
            .await;
        applied.expect("the API server takes it");
    }
}

async fn outdated(admin: &str, kind: &str) -> Option<u64> {
    let metrics = http::get(admin, "/metrics").await.ok()?.body;
    let sample = format!("ssm_operator_controller_crd_outdated{{kind=\"{kind}\"}}");
    metrics.contains(&sample).then(|| value(&metrics, &sample))
}

#[tokio::test]
async fn kinds_that_are_older_than_the_operator_are_told_until_they_are_as_new() {
    let control_plane = ControlPlane::start().await.expect("it starts");
    let client = control_plane
        .client()
        .await
        .expect("its kubeconfig is good");
    define(&client, true).await;
    let name = "operator".to_owned();
    let metadata = ObjectMeta {
        name: Some(name),
        ..ObjectMeta::default()
    };
    let namespace = Namespace {
        metadata,
        ..Namespace::default()
    };
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let created = namespaces.create(&PostParams::default(), &namespace).await;
    created.expect("the administrator may create namespaces");

    let arguments = [
        "controller",
        "--namespace=operator",
        "--admin-address=127.0.0.1:0",
        "--resync-interval=300ms",
    ];
    let arguments = arguments.map(str::to_owned);
    let kubeconfig = control_plane.kubeconfig().display().to_string();
    let program = env!("CARGO_BIN_EXE_ssm-session-operator").as_ref();
    let log = control_plane.dir().join("operator.log");
    let environment = [("KUBECONFIG", kubeconfig)];
    let controller = Process::start(&log, program, &arguments, &environment).await;
    let mut controller = controller.expect("it starts");
    let admin = controller
        .admin_address(WAIT_MAX)
        .await
        .expect("it says where");
    let said = async |of_sessions: u64| {
        let said = ask_until(WAIT_MAX, async || {
            let others = ["SsmListener", "SsmSessionClass"];
            for kind in others {
                (outdated(&admin, kind).await? == 0).then_some(())?;
            }
            (outdated(&admin, "SsmSession").await? == of_sessions).then_some(())
        });
        said.await.is_some()
    };
    assert!(said(1).await, "{}", controller.logged());

    let events: Api<Event> = Api::namespaced(client.clone(), "operator");
    let told = ask_until(WAIT_MAX, async || {
        let events = events.list(&ListParams::default()).await.ok()?.items;
        (!events.is_empty()).then_some(events)
    });
    let told = told.await.expect("an Event");
    let told: Vec<_> = told
        .iter()
        .map(|event| {
            let on = event.regarding.clone().unwrap_or_default();
            json!([event.reason, on.kind, on.name])
        })
        .collect();
    let name = "ssmsessions.ssm-operator.dev";
    let expected = json!([
        "CustomResourceDefinitionOutdated",
        "CustomResourceDefinition",
        name
    ]);
    assert_eq!(told, [expected]);
    let logged = controller
        .wait_for_log("older than this program", WAIT_MAX)
        .await;
    let logged = logged.expect("it says so");
    assert!(logged.contains("status.nextRetryTime"), "{logged}");

    define(&client, false).await;
    assert!(said(0).await, "{}", controller.logged());
    let again = events
        .list(&ListParams::default())
        .await
        .expect("it lists")
        .items;
    assert_eq!(
        again.len(),
        1,
        "it is told once, however often it is looked"
    );
    controller.stop().await.expect("it ends well");
}
