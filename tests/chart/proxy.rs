//! What the chart says of a proxy is what the program makes of it.

use std::sync::Arc;

use serde_json::{Value, json};
use ssm_session_operator::proxy::Proxies;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::programs::{objects, render};

async fn rendered(values: &[&str]) -> Vec<Value> {
    let options = values.iter().flat_map(|value| ["--set-json", value]);
    let options: Vec<_> = options.map(str::to_owned).collect();
    objects(&render(&options).await.expect("it is rendered"))
}

/// The environment of each pod.
fn environments(objects: &[Value]) -> Vec<Vec<Value>> {
    let deployments = objects
        .iter()
        .filter(|object| object["kind"] == "Deployment");
    let environments = deployments.map(|deployment| {
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        container["env"].as_array().expect("an environment").clone()
    });
    let environments: Vec<_> = environments.collect();
    assert_eq!(environments.len(), 2, "controller and relay");
    environments
}

fn variable<'a>(environment: &'a [Value], name: &str) -> Option<&'a Value> {
    environment.iter().find(|variable| variable["name"] == name)
}

/// The rules for what goes out to these ports, one for each pod's policy.
fn rules_to(objects: &[Value], ports: &Value) -> Vec<Value> {
    let policies = objects
        .iter()
        .filter(|object| object["kind"] == "NetworkPolicy");
    let rules =
        policies.flat_map(|policy| policy["spec"]["egress"].as_array().into_iter().flatten());
    rules
        .filter(|rule| rule["ports"] == *ports)
        .cloned()
        .collect()
}

#[tokio::test]
async fn with_a_proxy_every_pod_reaches_aws_through_it_and_the_cluster_and_the_node_directly() {
    let values = [
        "proxy.url=\"http://proxy.example.com:3128\"",
        "proxy.noProxy=[\"vpce.amazonaws.com\"]",
    ];
    let objects = rendered(&values).await;
    let environments = environments(&objects);
    for environment in &environments {
        let tls = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
        let tls = Arc::new(tls.with_no_client_auth());
        let value = |name: &str| Some(variable(environment, name)?["value"].as_str()?.to_owned());
        let proxies = Proxies::read(value, tls).expect("a URL of a proxy");
        for (host, expected) in [
            (
                "ssm.eu-central-1.amazonaws.com",
                Some("proxy.example.com:3128"),
            ),
            ("vpce-0a.ssm.eu-central-1.vpce.amazonaws.com", None),
            ("kubernetes.default.svc", None),
            ("kubernetes.default.svc.cluster.local", None),
            ("169.254.170.23", None),
            ("[fd00:ec2::23]", None),
            ("127.0.0.1", None),
        ] {
            let proxy = proxies.to(host, true).map(|proxy| proxy.to_string());
            assert_eq!(proxy.as_deref(), expected, "{host}");
        }
    }
    let port = json!([{ "protocol": "TCP", "port": 3128 }]);
    assert_eq!(rules_to(&objects, &port).len(), 2);
}

#[tokio::test]
async fn the_port_that_is_let_through_is_that_of_the_proxys_url_or_the_one_that_is_named() {
    let url = |url: &str| format!("proxy.url={}", json!(url));
    let named = "networkPolicy.proxy.ports=[8080]";
    for (url, more, port) in [
        (url("http://proxy.example.com"), None, 80),
        (url("https://proxy.example.com"), None, 443),
        (url("http://[fd00::1]:8888"), None, 8888),
        (url("http://proxy.example.com:3128"), Some(named), 8080),
    ] {
        let values: Vec<_> = [url.as_str()].into_iter().chain(more).collect();
        let objects = rendered(&values).await;
        let port = json!([{ "protocol": "TCP", "port": port }]);
        // AWS and the API server share 443.
        let of_proxy = json!([
            { "ipBlock": { "cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"] } },
            { "ipBlock": { "cidr": "::/0", "except": ["fe80::/10", "fd00:ec2::/32"] } },
        ]);
        let rules = rules_to(&objects, &port);
        let to_proxy = rules.iter().filter(|rule| rule["to"] == of_proxy);
        assert!(to_proxy.count() >= 2, "{url}: {rules:?}");
    }
}

#[tokio::test]
async fn a_proxys_password_stays_in_its_secret() {
    let values = [
        "proxy.secret=\"corporate\"",
        "proxy.key=\"https\"",
        "networkPolicy.proxy.ports=[3128]",
    ];
    let objects = rendered(&values).await;
    let mut jobs = objects.iter().filter(|object| object["kind"] == "Job");
    let drain = jobs.next().expect("the drain").to_string();
    assert!(
        !drain.contains("corporate"),
        "it calls nobody there: {drain}"
    );
    for environment in environments(&objects) {
        let proxy = variable(&environment, "HTTPS_PROXY").expect("a proxy");
        let source = json!({ "secretKeyRef": { "name": "corporate", "key": "https" } });
        assert_eq!(proxy["valueFrom"], source);
        assert_eq!(proxy["value"], Value::Null);
    }
}

#[tokio::test]
async fn without_a_proxy_nothing_is_said_of_one() {
    let objects = rendered(&[]).await;
    for environment in environments(&objects) {
        for name in ["HTTPS_PROXY", "NO_PROXY"] {
            assert_eq!(variable(&environment, name), None);
        }
    }
    let port = json!([{ "protocol": "TCP", "port": 3128 }]);
    assert_eq!(rules_to(&objects, &port), Vec::<Value>::new());
}
