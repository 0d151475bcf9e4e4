//! Rights, as bindings grant them and as requests use them, in the same words: `get /namespaces`,
//! `update ssm-operator.dev/ssmlisteners/status`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::audit::Request;
use crate::installed::Installed;

/// A right of an account: in one namespace, or everywhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// The ServiceAccount.
    pub account: String,
    /// The namespace; absent for all.
    pub namespace: Option<String>,
    /// Verb and resource.
    pub words: String,
}

/// The rights of the accounts, by the bindings that were installed and the roles that these name.
pub async fn granted(installed: &Installed) -> BTreeSet<Right> {
    let label = format!(
        "--selector=app.kubernetes.io/instance={}",
        installed.release
    );
    let read = async |kinds: &str| {
        let get = ["get", kinds, &label, "--all-namespaces", "--output=json"];
        let read = installed.ground.kubectl(&get, "").await;
        let read = read.expect("the administrator reads roles").out;
        let read: Value = serde_json::from_str(&read).expect("JSON");
        read["items"].as_array().expect("a list").clone()
    };
    let roles = read("roles,clusterroles").await;
    let mut granted = BTreeSet::new();
    for binding in read("rolebindings,clusterrolebindings").await {
        let (of, namespace) = (&binding["roleRef"], &binding["metadata"]["namespace"]);
        let role = roles.iter().find(|role| {
            let metadata = &role["metadata"];
            role["kind"] == of["kind"]
                && metadata["name"] == of["name"]
                && metadata["namespace"] == *namespace
        });
        let rules = &role.expect("a binding names a role")["rules"];
        for rule in rules.as_array().expect("it has rules") {
            for words in rights(rule) {
                granted.insert(Right {
                    account: word(&binding["subjects"][0]["name"]),
                    namespace: namespace.as_str().map(str::to_owned),
                    words,
                });
            }
        }
    }
    assert!(granted.len() > 10, "few rights were found: {granted:?}");
    granted
}

fn word(value: &Value) -> String {
    value.as_str().expect("a word").to_owned()
}

fn rights(rule: &Value) -> Vec<String> {
    let words = |key: &str| {
        let words = rule[key].as_array().expect("a list of words");
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

/// Those of the rights that the requests have used.
pub fn used(granted: &BTreeSet<Right>, requests: &[Request]) -> BTreeSet<Right> {
    let mut used = BTreeSet::new();
    for request in requests {
        let Request {
            account,
            verb,
            resource,
            namespace,
            ..
        } = request;
        let right = |namespace: Option<String>| Right {
            account: account.clone(),
            namespace,
            words: format!("{verb} {resource}"),
        };
        let mut ways = [right(namespace.clone()), right(None)].into_iter();
        used.extend(ways.find(|right| granted.contains(right)));
    }
    used
}

/// Rights in one namespace that the account has everywhere.
pub fn granted_twice(granted: &BTreeSet<Right>) -> Vec<&Right> {
    let everywhere = |right: &Right| Right {
        namespace: None,
        ..right.clone()
    };
    let mut twice: Vec<_> = granted
        .iter()
        .filter(|right| right.namespace.is_some())
        .collect();
    twice.retain(|right| granted.contains(&everywhere(right)));
    twice
}
