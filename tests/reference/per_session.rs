//! What `docs/troubleshooting.md` gives to kube-state-metrics is of a kind, of fields and of statuses that there are.

use std::collections::BTreeSet;
use std::fs;

use kube::{CustomResourceExt as _, Resource as _};
use serde_json::Value;
use ssm_session_operator::crd::SsmSession;
use ssm_session_operator::crd::condition::ConditionType;

/// The values of the chart of kube-state-metrics, as the page has them.
fn values() -> Value {
    let page = fs::read_to_string(crate::root().join("docs/troubleshooting.md"));
    let page = page.expect("it is in the checkout");
    let mut fenced = page.split("```yaml\n").skip(1);
    let values = fenced.find_map(|text| {
        let (yaml, _) = text.split_once("```")?;
        yaml.contains("customResourceState:").then_some(yaml)
    });
    serde_saphyr::from_str(values.expect("the page has them")).expect("YAML")
}

/// The schema of what a path leads to, through the items of lists; of metadata each object has these two.
fn at<'a>(schema: &'a Value, path: &Value) -> Option<&'a Value> {
    let mut at = schema;
    for part in path.as_array()? {
        let part = part.as_str()?;
        at = at.get("items").unwrap_or(at).get("properties")?.get(part)?;
    }
    Some(at)
}

fn is_there(schema: &Value, path: &Value) -> bool {
    let of_each = ["name", "namespace"].map(|field| Value::from(vec!["metadata", field]));
    of_each.contains(path) || at(schema, path).is_some_and(|field| field["type"] == "string")
}

fn strings(list: &Value) -> BTreeSet<&str> {
    let list = list.as_array().expect("a list").iter();
    list.filter_map(Value::as_str).collect()
}

#[test]
fn what_kube_state_metrics_is_told_of_is_there() {
    let values = values();
    let definition = SsmSession::crd();
    let version = serde_json::to_value(&definition.spec.versions[0]).expect("JSON");
    let schema = &version["schema"]["openAPIV3Schema"];

    let rule = &values["rbac"]["extraRules"][0];
    assert_eq!(
        strings(&rule["resources"]),
        [&*definition.spec.names.plural].into()
    );
    assert_eq!(
        strings(&rule["apiGroups"]),
        [&*definition.spec.group].into()
    );
    let of = &values["customResourceState"]["config"]["spec"]["resources"][0];
    let kind = &of["groupVersionKind"];
    assert_eq!(kind["group"], SsmSession::group(&()).as_ref());
    assert_eq!(kind["version"], SsmSession::version(&()).as_ref());
    assert_eq!(kind["kind"], SsmSession::kind(&()).as_ref());

    let set = &of["metrics"][0]["each"]["stateSet"];
    let conditions = at(schema, &set["path"]).expect("it is a field");
    assert_eq!(conditions["type"], "array");
    let of_object = of["labelsFromPath"].as_object().expect("labels").values();
    let of_condition = set["labelsFromPath"].as_object().expect("labels").values();
    let of_condition = of_condition.chain([&set["valueFrom"]]);
    let paths = of_object.map(|path| (schema, path));
    let paths = paths.chain(of_condition.map(|path| (conditions, path)));
    for (schema, path) in paths {
        assert!(is_there(schema, path), "there is no {path}");
    }
    let said = ConditionType::ALL.iter().flat_map(|of| of.conditions());
    let said: BTreeSet<_> = said.map(|condition| condition.status().as_str()).collect();
    assert_eq!(strings(&set["list"]), said);
}

#[test]
fn a_path_that_leads_nowhere_is_noticed() {
    let definition = SsmSession::crd();
    let version = serde_json::to_value(&definition.spec.versions[0]).expect("JSON");
    let schema = &version["schema"]["openAPIV3Schema"];
    let path = |parts: &[&str]| Value::from(parts.to_vec());
    assert!(is_there(schema, &path(&["status", "conditions", "reason"])));
    assert!(!is_there(schema, &path(&["status", "conditions", "cause"])));
    assert!(!is_there(schema, &path(&["status", "conditions"])));
    assert!(!is_there(schema, &path(&["metadata", "title"])));
}
