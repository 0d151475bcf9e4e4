//! The Deployments: how many pods they have, how these are exchanged, and that evictions leave some.

use serde_json::{Value, json};

use crate::programs::{objects, render, ways};

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

#[tokio::test]
async fn pods_are_exchanged_one_by_one_and_the_new_one_comes_first() {
    let exchange = json!({
        "type": "RollingUpdate",
        "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 },
    });
    for way in ways() {
        let objects = objects(&render(&way).await.expect("it is rendered"));
        let values = way.first().map_or("", String::as_str);
        let (components, replicas) = match values {
            _ if values.ends_with("/all-in-one.yaml") => (&["all-in-one"][..], 1),
            _ if values.ends_with("/everything.yaml") => (&["controller", "relay"][..], 3),
            _ => (&["controller", "relay"][..], 2),
        };
        let mut found = Vec::new();
        for deployment in of_kind(&objects, "Deployment") {
            let spec = &deployment["spec"];
            assert_eq!(spec["strategy"], exchange, "{way:?}");
            assert_eq!(spec["replicas"], replicas, "{way:?}");
            let wanted = spec["selector"]["matchLabels"].as_object();
            let wanted = wanted.expect("it selects by labels");
            let labels = &spec["template"]["metadata"]["labels"];
            let own = wanted.iter().all(|(key, value)| labels[key] == *value);
            assert!(own, "{way:?}: {wanted:?} does not select {labels}");
            let component = wanted["app.kubernetes.io/component"].as_str();
            found.push(component.expect("a label is text").to_owned());
        }
        assert_eq!(found, components, "{way:?}");
    }
}

/// Windows nodes of EKS have no taint.
#[tokio::test]
async fn pods_are_for_nodes_that_the_image_is_for() {
    for way in ways() {
        let objects = objects(&render(&way).await.expect("it is rendered"));
        let pods = objects.iter().filter_map(|object| {
            let template = object.pointer("/spec/template/spec");
            template.filter(|spec| spec["containers"].is_array())
        });
        let systems = pods.map(|pod| &pod["nodeSelector"]["kubernetes.io/os"]);
        let systems: Vec<_> = systems.collect();
        // The drain's beside those of the Deployments.
        assert!(systems.len() >= 2, "{way:?}");
        assert!(systems.iter().all(|system| **system == "linux"), "{way:?}");
    }
}

#[tokio::test]
async fn evictions_leave_some_pods_of_each_deployment() {
    for way in ways() {
        let objects = objects(&render(&way).await.expect("it is rendered"));
        let everything = way
            .iter()
            .any(|option| option.ends_with("/everything.yaml"));
        let at_once = if everything { json!("50%") } else { json!(1) };
        let deployments: Vec<_> = of_kind(&objects, "Deployment").collect();
        let budgets: Vec<_> = of_kind(&objects, "PodDisruptionBudget").collect();
        assert_eq!(budgets.len(), deployments.len(), "{way:?}");
        for (deployment, budget) in deployments.iter().zip(budgets) {
            let expected = json!({
                "maxUnavailable": at_once,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": deployment["spec"]["selector"],
            });
            assert_eq!(budget["spec"], expected, "{way:?}");
        }
    }
    let without = [
        "--set=controller.podDisruptionBudget.enabled=false".to_owned(),
        "--set=relay.podDisruptionBudget.enabled=false".to_owned(),
    ];
    let objects = objects(&render(&without).await.expect("it is rendered"));
    assert_eq!(of_kind(&objects, "PodDisruptionBudget").count(), 0);
}
