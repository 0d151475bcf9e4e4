//! The rules of what a session says of its Service, and that the API server takes a Service of what passes them.

use anyhow::Result;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::Rule;
use super::session::assert_session_rules;
use crate::ground::ground;

fn service(field: &'static str, takes: Value, refuses: Value, says: &'static str) -> Rule {
    Rule::spec(
        field,
        json!({ "service": takes }),
        json!({ "service": refuses }),
        says,
    )
}

/// Names of ports that pass, which the API server would not take as a Service's target.
pub const PORT_NAMES: [&str; 5] = [
    "5",
    "5-a",
    "a--b",
    "postgres-replica-1",
    "ppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppp",
];

fn pairs(count: usize, value: &str) -> Value {
    let pair = |i| (format!("example.com/key-{i}"), Value::from(value));
    Value::Object((0..count).map(pair).collect())
}

#[tokio::test]
async fn a_session_names_a_service_and_a_class_that_can_exist() {
    let name = |text: &str| json!({ "metadata": { "name": text } });
    let hidden = "metadata.name can't name a Service: set spec.service.name";
    let long = |count: usize| {
        let metadata = json!({ "name": "d".repeat(count) });
        json!({ "metadata": metadata, "spec": { "service": { "name": "db" } } })
    };
    let named = json!({ "metadata": { "name": "1.db" }, "spec": { "service": { "name": "db" } } });
    assert_session_rules(vec![
        Rule {
            field: "metadata.name",
            takes: named,
            refuses: name("1.db"),
            says: hidden,
        },
        Rule {
            field: "metadata.name",
            takes: name(&"d".repeat(63)),
            refuses: name(&"d".repeat(64)),
            says: hidden,
        },
        Rule {
            field: "metadata.name",
            takes: long(236),
            refuses: long(237),
            says: "use a metadata.name of at most 236 characters",
        },
        service(
            "spec.service.name",
            json!({ "name": "db-1" }),
            json!({ "name": "1-db" }),
            "beginning with a letter",
        ),
        service(
            "spec.service.name",
            json!({ "name": "d".repeat(63) }),
            json!({ "name": "d".repeat(64) }),
            "more than 63",
        ),
        Rule::spec(
            "spec.className",
            json!({ "className": "a.b" }),
            json!({ "className": "A b" }),
            "use the name of an object",
        ),
        Rule::spec(
            "spec.className",
            json!({ "className": null }),
            json!({ "className": "" }),
            "at least 1 chars",
        ),
    ])
    .await;
}

#[tokio::test]
async fn the_labels_and_annotations_are_ones_that_a_service_can_carry() {
    let labels = |labels: Value| json!({ "labels": labels });
    let annotations = |annotations: Value| json!({ "annotations": annotations });
    let (of_labels, of_annotations) = ("spec.service.labels", "spec.service.annotations");
    let team = || labels(json!({ "example.com/team": "Shop_1.a" }));
    let ours = "the operator sets them";
    let reserved = "remove the keys of kubernetes.io";
    assert_session_rules(vec![
        service(
            of_labels,
            labels(pairs(16, "")),
            labels(pairs(17, "")),
            "must have at most 16 items",
        ),
        service(
            of_labels,
            team(),
            labels(json!({ "a b": "c" })),
            "use keys such as",
        ),
        service(
            of_labels,
            team(),
            labels(json!({ "a": "b c" })),
            "use label values of",
        ),
        service(
            of_labels,
            team(),
            labels(json!({ "a": "b".repeat(64) })),
            "more than 63",
        ),
        service(
            of_labels,
            team(),
            labels(json!({ "ssm-operator.dev/a": "b" })),
            ours,
        ),
        service(
            of_labels,
            team(),
            labels(json!({ "app.kubernetes.io/managed-by": "b" })),
            ours,
        ),
        service(
            of_annotations,
            annotations(pairs(16, &"v".repeat(4096))),
            annotations(pairs(17, "")),
            "must have at most 16 items",
        ),
        service(
            of_annotations,
            annotations(json!({ "a": "b\nc" })),
            annotations(json!({ "a": "v".repeat(4097) })),
            "more than 4096",
        ),
        service(
            of_annotations,
            annotations(json!({})),
            annotations(json!({ "/a": "" })),
            "use keys such as",
        ),
        service(
            of_annotations,
            annotations(json!({})),
            annotations(json!({ "ssm-operator.dev/a": "" })),
            ours,
        ),
        service(
            of_labels,
            labels(json!({ "app.kubernetes.io/name": "b" })),
            labels(json!({ "service.kubernetes.io/service-proxy-name": "b" })),
            reserved,
        ),
        service(
            of_labels,
            labels(json!({ "notkubernetes.io/a": "b" })),
            labels(json!({ "kubernetes.io/a": "b" })),
            reserved,
        ),
        service(
            of_annotations,
            annotations(json!({ "service.kubernetes.io/topology-mode": "Auto" })),
            annotations(json!({ "endpoints.kubernetes.io/a": "b" })),
            reserved,
        ),
    ])
    .await;
}

#[tokio::test]
async fn the_longest_names_that_pass_make_a_service_and_a_slice() -> Result<()> {
    let ground = ground().await;
    let client = ground.client().await;
    let namespace = ground.namespace(&client, "admission").await;
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let protocol = format!("{}/{}", "p".repeat(253), "P".repeat(63));
    let numbered = || (1..).zip(PORT_NAMES);
    // As the operator makes them, the target included.
    let ports: Vec<_> = numbered()
        .map(|(number, name)| {
            json!({ "name": name, "port": number, "targetPort": number, "appProtocol": protocol })
        })
        .collect();
    let slice_ports: Vec<_> = numbered()
        .map(|(number, name)| json!({ "name": name, "port": number, "appProtocol": protocol }))
        .collect();
    let service: Service = serde_json::from_value(json!({
        "metadata": {
            "name": "s".repeat(63),
            "labels": pairs(16, &"v".repeat(63)),
            "annotations": pairs(16, &"v\n".repeat(2048)),
        },
        "spec": { "ports": ports },
    }))?;
    Api::namespaced(client.clone(), &namespace)
        .create(&dry_run, &service)
        .await?;
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": { "name": "admission" },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": ["192.0.2.1"] }],
        "ports": slice_ports,
    }))?;
    Api::namespaced(client, &namespace)
        .create(&dry_run, &slice)
        .await?;
    Ok(())
}
