//! The chart says the same in all places: its values and their schema, and whose version it has.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::programs::{in_checkout, objects};

/// The only value that is no value of ours: Helm hands it to every chart of an umbrella chart.
const OF_HELM: &str = "global";

fn text(file: &str) -> String {
    let path = in_checkout("charts/ssm-session-operator").join(file);
    fs::read_to_string(path).expect("it is in the checkout")
}

pub fn yaml(file: &str) -> Value {
    objects(&text(file)).remove(0)
}

fn schema() -> Value {
    serde_json::from_str(&text("values.schema.json")).expect("it is JSON")
}

/// A schema, or the one that it refers to.
fn resolved<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    let Some(reference) = schema["$ref"].as_str() else {
        return schema;
    };
    let pointer = reference.strip_prefix('#').expect("it is in the same file");
    root.pointer(pointer)
        .unwrap_or_else(|| panic!("{reference} leads nowhere"))
}

/// The paths of values, such as `image.tag`, as deep as the values go.
pub fn paths_of_values(values: &Value, at: &str, paths: &mut BTreeSet<String>) {
    match values.as_object().filter(|object| !object.is_empty()) {
        Some(object) => {
            for (key, value) in object {
                paths_of_values(value, &format!("{at}.{key}"), paths);
            }
        }
        None => {
            paths.insert(at.to_owned());
        }
    }
}

/// The same of the schema, as deep as the values go.
fn paths_of_schema(
    schema: &Value,
    values: Option<&Value>,
    at: &str,
    root: &Value,
    paths: &mut BTreeSet<String>,
) {
    let schema = resolved(schema, root);
    // What is empty by default has parts that are of no interest here: those of a toleration and such.
    let by_default = values.and_then(Value::as_object);
    let deep = by_default.is_some_and(|object| !object.is_empty());
    match schema["properties"].as_object() {
        Some(properties) if deep => {
            for (key, schema) in properties {
                let values = values.map(|values| &values[key]);
                paths_of_schema(schema, values, &format!("{at}.{key}"), root, paths);
            }
        }
        // A map, such as of labels: its keys are the user's.
        None if deep => paths_of_values(values.unwrap_or(&Value::Null), at, paths),
        Some(_) | None => {
            paths.insert(at.to_owned());
        }
    }
}

#[test]
fn each_value_is_in_the_schema_and_each_part_of_the_schema_is_a_value() {
    let (values, schema) = (yaml("values.yaml"), schema());
    let (mut of_values, mut of_schema) = (BTreeSet::new(), BTreeSet::new());
    paths_of_values(&values, "", &mut of_values);
    paths_of_schema(&schema, Some(&values), "", &schema, &mut of_schema);
    assert!(of_schema.remove(&format!(".{OF_HELM}")));
    assert_eq!(of_values, of_schema);
    assert!(
        of_values.len() > 100,
        "{} values were read",
        of_values.len()
    );
}

/// The paths that a template reads below `root`, such as `.Values`, with where each stands in the text.
fn paths_read<'a>(template: &'a str, root: &'a str) -> impl Iterator<Item = &'a str> {
    template.match_indices(root).filter_map(|(at, _)| {
        let rest = &template[at + root.len()..];
        let is_path = |letter: char| letter.is_ascii_alphanumeric() || letter == '.';
        let end = rest.find(|letter| !is_path(letter)).unwrap_or(rest.len());
        let path = rest[..end].trim_end_matches('.');
        path.starts_with('.').then_some(path)
    })
}

/// The paths that a template reads by way of variables, which are its own.
fn paths_of_variables(template: &str) -> BTreeSet<String> {
    let mut read = BTreeSet::new();
    for line in template.lines() {
        let Some((name, of)) = line.split_once(" := ") else {
            continue;
        };
        let name = name.trim_start_matches("{{-").trim();
        let of = of.trim_end_matches(" }}").trim_end_matches(" -}}");
        let of = of.trim_start_matches("$root").trim_start_matches('$');
        // Such as `$values := index $root.Values $component.key`.
        let of_each = of.starts_with("index ") && of.contains(".Values ");
        let of = match of.strip_prefix(".Values") {
            Some(of) => vec![of],
            None if of_each => vec![".controller", ".relay", ".allInOne"],
            None => continue,
        };
        let is_path = |letter: char| letter.is_ascii_alphanumeric() || letter == '.';
        for of in of {
            if name.starts_with('$') && of.chars().all(is_path) {
                let below = paths_read(template, name);
                read.extend(below.map(|path| format!("{of}{path}")));
            }
        }
    }
    read
}

/// Helm renders nothing, without a word, where a template reads a value that there is not.
#[test]
fn templates_read_no_value_that_there_is_not() {
    let mut values = BTreeSet::new();
    paths_of_values(&yaml("values.yaml"), "", &mut values);
    let mut read = BTreeSet::new();
    let templates = in_checkout("charts/ssm-session-operator/templates");
    for file in fs::read_dir(templates).expect("it is in the checkout") {
        let file = file.expect("it can be listed").path();
        let template = fs::read_to_string(file).expect("it is text");
        read.extend(paths_read(&template, ".Values").map(str::to_owned));
        // Such as `$policy := .Values.networkPolicy }}`, and `$policy.clients`.
        for define in template.split("{{- define ") {
            read.extend(paths_of_variables(define));
        }
    }
    assert!(read.len() > 60, "{} are read: {read:?}", read.len());
    assert!(read.contains(".networkPolicy.apiServer.ports"), "{read:?}");
    assert!(read.contains(".allInOne.volumeMounts"), "{read:?}");
    let is_there = |path: &&String| {
        let deeper = format!("{path}.");
        let mut values = values.iter();
        values.any(|value| value == *path || value.starts_with(&deeper))
    };
    let missing: Vec<_> = read.iter().filter(|path| !is_there(path)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Both judge the same words: what the chart lets through the API server takes, and the other way round.
#[test]
fn the_class_of_the_chart_takes_what_its_kind_takes() {
    let (schema, kind) = (schema(), in_checkout("crds/ssmsessionclasses.yaml"));
    let kind = fs::read_to_string(kind).expect("it is in the checkout");
    let kind = objects(&kind).remove(0);
    let aws = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/aws/properties";
    let fields = kind.pointer(aws).expect("the class has them");
    let class = &schema["properties"]["defaultClass"]["properties"];
    for (field, of_chart) in [
        ("region", &class["region"]),
        ("roleArn", &class["aws"]["properties"]["roleArn"]),
        ("externalId", &class["aws"]["properties"]["externalId"]),
        ("sessionName", &class["aws"]["properties"]["sessionName"]),
    ] {
        let of_kind = &fields[field];
        let rule = of_kind["x-kubernetes-validations"][0]["rule"].as_str();
        let pattern = rule.and_then(|rule| rule.strip_prefix("self.matches('")?.strip_suffix("')"));
        let mut pattern = pattern.expect("it is a pattern").to_owned();
        // Where a pattern takes any number of letters, the kind's schema says how many at least; what is empty is not set.
        if let Some(any) = pattern.strip_suffix("*$") {
            let least = of_kind["minLength"].as_u64().expect("a number");
            pattern = format!("{any}{{{least},}}$");
        }
        assert_eq!(
            of_chart["if"]["pattern"],
            format!("^$|{pattern}"),
            "{field}"
        );
        assert_eq!(of_chart["maxLength"], of_kind["maxLength"], "{field}");
    }
}

/// Fields that the API server fills in, with what they are under `at`.
fn defaults(schema: &Value, at: &str, found: &mut Vec<String>) {
    let Some(parts) = schema.as_object() else {
        return;
    };
    if parts.contains_key("default") {
        found.push(at.to_owned());
    }
    for (field, schema) in parts
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        defaults(schema, &format!("{at}.{field}"), found);
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(schema) = parts.get(inner) {
            defaults(schema, &format!("{at}[]"), found);
        }
    }
}

/// The chart compares a class with what it has written before, by a digest of all of `spec`.
#[test]
fn the_kind_of_the_class_fills_in_no_field_that_the_chart_does_not_write() {
    let kind = fs::read_to_string(in_checkout("crds/ssmsessionclasses.yaml"));
    let kind = objects(&kind.expect("it is in the checkout")).remove(0);
    let mut found = Vec::new();
    for version in kind["spec"]["versions"].as_array().expect("a list") {
        let spec = version.pointer("/schema/openAPIV3Schema/properties/spec");
        defaults(spec.expect("it has a spec"), "spec", &mut found);
    }
    assert_eq!(
        found,
        ["spec.controllerName"],
        "a field with a default is in every class that is read, and not in the digest that templates/class.yaml made of \
         what it wrote: write the field there, always, or give it no default in src/crd/class.rs"
    );
}

/// Where a schema of an object lets through what it does not name, without saying why.
fn open_objects(schema: &Value, at: &str, open: &mut Vec<String>) {
    match schema {
        Value::Object(parts) => {
            let is_object = parts.get("type").is_some_and(|kind| kind == "object");
            // Maps say what their values are.
            let closed = parts.get("additionalProperties");
            let closed = closed.is_some_and(|more| *more == false || more.is_object());
            // Parts of pods: the API server knows them, and changes them with its releases.
            let explained = parts.contains_key("$comment");
            if (is_object || parts.contains_key("properties")) && !closed && !explained {
                open.push(at.to_owned());
            }
            for (key, part) in parts {
                open_objects(part, &format!("{at}/{key}"), open);
            }
        }
        Value::Array(parts) => {
            for part in parts {
                open_objects(part, at, open);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn nothing_is_let_through_that_the_schema_does_not_name() {
    let mut open = Vec::new();
    open_objects(&schema(), "", &mut open);
    assert_eq!(open, Vec::<String>::new());
}

/// Where a schema refuses without words: by a pattern that nobody reads, or by nothing that it says.
fn wordless(schema: &Value, at: &str, found: &mut Vec<String>) {
    match schema {
        Value::Object(parts) => {
            let explained = parts.get("else").is_some_and(|or| or["const"].is_string());
            for (key, part) in parts {
                let at = format!("{at}/{key}");
                let mut keys = part.as_object().into_iter().flatten();
                let refuses = key == "patternProperties" && keys.any(|(_, it)| *it == false);
                let is_condition = key == "if" && explained;
                if key == "pattern" || refuses {
                    found.push(at);
                } else if !is_condition {
                    wordless(part, &at, found);
                }
            }
        }
        Value::Array(parts) => {
            for part in parts {
                wordless(part, at, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Helm quotes `const`; the `not` beside it refuses those words themselves.
#[test]
fn the_schema_says_in_words_what_it_wants() {
    let mut found = Vec::new();
    wordless(&schema(), "", &mut found);
    assert_eq!(found, Vec::<String>::new());
}

/// Where a value may be missing, as deep as the values go.
fn optional_values(
    schema: &Value,
    values: &Value,
    at: &str,
    root: &Value,
    optional: &mut Vec<String>,
) {
    let (schema, Some(values)) = (resolved(schema, root), values.as_object()) else {
        return;
    };
    if schema["properties"].is_null() {
        return;
    }
    let required = schema["required"].as_array();
    for (key, value) in values {
        let path = format!("{at}.{key}");
        if !required.is_some_and(|required| required.contains(&json!(key))) {
            optional.push(path.clone());
        }
        let schema = &schema["properties"][key];
        optional_values(schema, value, &path, root, optional);
    }
}

/// Helm drops a value that a file leaves empty, and its default with it: templates would find nothing there.
#[test]
fn a_value_that_is_left_empty_is_refused_by_the_schema() {
    let (values, schema) = (yaml("values.yaml"), schema());
    let mut optional = Vec::new();
    optional_values(&schema, &values, "", &schema, &mut optional);
    // Helm merges maps, so that null is the one way to have no limits; templates hand resources on as they are.
    optional.retain(|path| !path.ends_with(".resources.requests"));
    optional.retain(|path| !path.ends_with(".resources.limits"));
    assert_eq!(optional, Vec::<String>::new());
}

#[test]
fn the_chart_has_the_versions_of_the_program() {
    let chart = yaml("Chart.yaml");
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}
