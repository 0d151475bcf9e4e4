//! Rights, as rules grant them and as requests use them, in the same words: `get /namespaces`,
//! `update ssm-operator.dev/ssmlisteners/status`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::installed::Installed;

/// What the client of the API server logs before each request.
const REQUESTING: &str = "requesting";

/// The rights of components, by the rules that were installed for them.
pub async fn granted(installed: &Installed, components: &[&str]) -> BTreeSet<(String, String)> {
    let label = format!(
        "--selector=app.kubernetes.io/instance={}",
        installed.release
    );
    let get = [
        "get",
        "roles,clusterroles",
        &label,
        "--all-namespaces",
        "--output=json",
    ];
    let roles = installed.ground.kubectl(&get, "").await;
    let roles = roles.expect("the administrator reads roles").out;
    let roles: Value = serde_json::from_str(&roles).expect("JSON");
    let mut granted = BTreeSet::new();
    for role in roles["items"].as_array().expect("a list") {
        let name = role["metadata"]["name"].as_str().expect("it has a name");
        let name = name.trim_end_matches("-watched");
        let of = components
            .iter()
            .find(|component| name.ends_with(**component));
        // Those of people are not for processes.
        let Some(component) = of else { continue };
        for rule in role["rules"].as_array().expect("it has rules") {
            for right in rights(rule) {
                granted.insert(((*component).to_owned(), right));
            }
        }
    }
    assert!(granted.len() > 10, "few rights were found: {granted:?}");
    granted
}

fn rights(rule: &Value) -> Vec<String> {
    let words = |key: &str| {
        let words = rule[key].as_array().expect("a list of words");
        let word = |word: &Value| word.as_str().expect("a word").to_owned();
        words.iter().map(word).collect::<Vec<_>>()
    };
    let mut rights = Vec::new();
    for group in words("apiGroups") {
        for resource in words("resources") {
            for verb in words("verbs") {
                rights.push(format!("{verb} {group}/{resource}"));
            }
        }
    }
    rights
}

/// The rights that a process has used, by its log.
pub fn used(log: &str) -> BTreeSet<String> {
    let lines = log.lines().filter(|line| line.contains(REQUESTING));
    let lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| line["message"] == REQUESTING)
        .filter_map(|line| {
            let span = &line["span"];
            right(span["http.method"].as_str()?, span["http.url"].as_str()?)
        })
        .collect()
}

/// The right that a request needs; `None` where it asks for no resource.
fn right(method: &str, url: &str) -> Option<String> {
    let path = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = &path[path.find('/')?..];
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut segments = path.trim_matches('/').split('/');
    let group = match segments.next()? {
        "api" => "",
        "apis" => segments.next()?,
        _ => return None,
    };
    let _version = segments.next()?;
    let mut rest: Vec<_> = segments.collect();
    if rest.len() > 2 && rest[0] == "namespaces" {
        rest.drain(..2);
    }
    let (resource, name) = (*rest.first()?, rest.get(1));
    let subresource = rest.get(2).map_or(String::new(), |part| format!("/{part}"));
    let verb = match (method, name) {
        ("GET", _) if query.contains("watch=true") => "watch",
        ("GET", Some(_)) => "get",
        ("GET", None) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", Some(_)) => "delete",
        ("DELETE", None) => "deletecollection",
        _ => return None,
    };
    Some(format!("{verb} {group}/{resource}{subresource}"))
}

#[test]
fn requests_are_read_as_rules_say_them() {
    let server = "https://127.0.0.1:6443";
    for (method, path, expected) in [
        ("GET", "/api/v1/namespaces/ops", "get /namespaces"),
        ("GET", "/api/v1/services?&watch=true", "watch /services"),
        (
            "POST",
            "/api/v1/namespaces/shop/services?",
            "create /services",
        ),
        (
            "PUT",
            "/apis/ssm-operator.dev/v1alpha1/namespaces/ops/ssmlisteners/a/status?&x=y",
            "update ssm-operator.dev/ssmlisteners/status",
        ),
        (
            "GET",
            "/apis/coordination.k8s.io/v1/namespaces/ops/leases?&limit=500",
            "list coordination.k8s.io/leases",
        ),
    ] {
        let found = right(method, &format!("{server}{path}"));
        assert_eq!(found.as_deref(), Some(expected));
    }
    assert_eq!(right("GET", &format!("{server}/version")), None);
}
