//! Every field of the three kinds, as the schemas of their CustomResourceDefinitions have it.

use serde_json::{Map, Value};
use ssm_session_operator::crd;

use crate::page;
use crate::page::{code, codes, prose, table};

const ABOUT: &str = "Group `ssm-operator.dev`. `[]` stands for each item of a list, `.*` for each value of a map. \
`kubectl explain` shows the same in a\ncluster.";

/// What a schema may say for this page to have all of it.
const KEYWORDS: [&str; 19] = [
    "additionalProperties",
    "default",
    "description",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "properties",
    "required",
    "title",
    "type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
];

pub fn page() -> String {
    let definitions = crd::definitions();
    let sections: Vec<_> = definitions
        .iter()
        .map(|definition| {
            let definition = serde_json::to_value(definition).expect("it has a JSON form");
            kind(&definition["spec"])
        })
        .collect();
    page::page("Fields", ABOUT, &sections)
}

fn kind(definition: &Value) -> String {
    let [version] = definition["versions"]
        .as_array()
        .expect("a list")
        .as_slice()
    else {
        panic!("a kind has one version, or this page needs a section for each");
    };
    let schema = &version["schema"]["openAPIV3Schema"];
    let mut fields = Fields::default();
    fields.rules("", schema);
    fields.children("", schema);
    let mut text = format!(
        "## {}\n\n{}\n\n`{}`, version `{}`, scope {}; short `{}`.\n\n",
        word(definition, "/names/kind"),
        prose(word(schema, "/description")),
        word(definition, "/names/plural"),
        word(version, "/name"),
        word(definition, "/scope"),
        word(definition, "/names/shortNames/0"),
    );
    text += &table(
        ["Field", "Type", "Limits", "Default", "Meaning"],
        &fields.rows,
    );
    if !fields.rules.is_empty() {
        let row = |rule: &Rule<'_>| {
            let whole = |path: &String| {
                if path.is_empty() {
                    "the object".to_owned()
                } else {
                    code(path)
                }
            };
            let paths: Vec<_> = rule.paths.iter().map(whole).collect();
            [paths.join(", "), prose(rule.message), code(rule.cel)]
        };
        let rows: Vec<_> = fields.rules.iter().map(row).collect();
        text += "\nWhat else must hold, and what the API server answers when it does not:\n\n";
        text += &table(["Field", "Message", "Rule (CEL)"], &rows);
    }
    text
}

fn word<'a>(value: &'a Value, pointer: &str) -> &'a str {
    let word = value.pointer(pointer).and_then(Value::as_str);
    word.unwrap_or_else(|| panic!("{pointer} is missing"))
}

/// A rule of CEL, and all fields that have it.
struct Rule<'a> {
    paths: Vec<String>,
    message: &'a str,
    cel: &'a str,
}

/// What was collected of a kind.
#[derive(Default)]
struct Fields<'a> {
    rows: Vec<[String; 5]>,
    rules: Vec<Rule<'a>>,
    /// Objects that have rows already, and where: the same fields elsewhere are not said again.
    said: Vec<(String, &'a Map<String, Value>)>,
}

impl<'a> Fields<'a> {
    /// The rows of an object's fields.
    fn children(&mut self, path: &str, schema: &'a Value) {
        let Some(properties) = schema["properties"].as_object() else {
            return;
        };
        self.said.push((path.to_owned(), properties));
        let required = schema["required"].as_array();
        for (name, field) in properties {
            let dot = if path.is_empty() { "" } else { "." };
            let required = required.is_some_and(|names| names.contains(&name.as_str().into()));
            self.field(&format!("{path}{dot}{name}"), field, required);
        }
    }

    /// The row of a field, and those of what is inside.
    fn field(&mut self, path: &str, schema: &'a Value, required: bool) {
        self.rules(path, schema);
        let mut limits = Vec::new();
        if required {
            limits.push("required".to_owned());
        }
        limits.extend(limits_of(schema));
        let mut meaning = prose(schema["description"].as_str().unwrap_or_default());
        let (mut inner_path, mut inner) = (path.to_owned(), schema);
        while let Some((suffix, each)) = contained(inner) {
            (inner_path, inner) = (inner_path + suffix, each);
            self.rules(&inner_path, inner);
            let each = limits_of(inner).join(", ");
            if !each.is_empty() {
                limits.push(format!("each {each}"));
            }
        }
        let properties = inner["properties"].as_object();
        let said = properties.and_then(|new| self.said.iter().find(|(_, said)| *said == new));
        if let Some((place, _)) = said {
            meaning = format!("{meaning} The same fields as `{place}`.");
        }
        let is_said = said.is_some();
        let default = schema.get("default").map(|value| match value {
            Value::String(text) => code(text),
            other => code(&other.to_string()),
        });
        self.rows.push([
            code(path),
            type_of(schema),
            limits.join("; "),
            default.unwrap_or_default(),
            meaning,
        ]);
        if !is_said {
            self.children(&inner_path, inner);
        }
    }

    fn rules(&mut self, path: &str, schema: &'a Value) {
        for keyword in schema.as_object().into_iter().flat_map(Map::keys) {
            let known = KEYWORDS.contains(&keyword.as_str()) || keyword == RULES;
            assert!(known, "{path}: this page does not show `{keyword}`");
        }
        for rule in schema[RULES].as_array().into_iter().flatten() {
            let (message, cel) = (word(rule, "/message"), word(rule, "/rule"));
            let same = |old: &&mut Rule<'_>| old.message == message && old.cel == cel;
            match self.rules.iter_mut().find(same) {
                Some(old) => old.paths.push(path.to_owned()),
                None => self.rules.push(Rule {
                    paths: vec![path.to_owned()],
                    message,
                    cel,
                }),
            }
        }
    }
}

const RULES: &str = "x-kubernetes-validations";

/// What a list or a map holds, and how its place is written.
fn contained(schema: &Value) -> Option<(&'static str, &Value)> {
    let inside = |key: &str, suffix| Some((suffix, schema.get(key)?));
    inside("items", "[]").or_else(|| inside("additionalProperties", ".*"))
}

fn type_of(schema: &Value) -> String {
    match (contained(schema), schema["format"].as_str()) {
        (Some(("[]", each)), _) => format!("list of {}", type_of(each)),
        (Some((_, each)), _) => format!("map of {}", type_of(each)),
        (None, Some(format)) => format!("{} ({format})", word(schema, "/type")),
        (None, None) => word(schema, "/type").to_owned(),
    }
}

fn limits_of(schema: &Value) -> Vec<String> {
    let mut limits = Vec::new();
    if let Some(values) = schema["enum"].as_array() {
        limits.push(format!(
            "one of {}",
            codes(values.iter().filter_map(Value::as_str))
        ));
    }
    for (low, high, unit) in [
        ("minLength", "maxLength", " characters"),
        ("minimum", "maximum", ""),
        ("minItems", "maxItems", " items"),
        ("minProperties", "maxProperties", " entries"),
    ] {
        match (schema[low].as_f64(), schema[high].as_f64()) {
            (Some(low), Some(high)) => limits.push(format!("{low} to {high}{unit}")),
            (Some(low), None) => limits.push(format!("at least {low}{unit}")),
            (None, Some(high)) => limits.push(format!("at most {high}{unit}")),
            (None, None) => {}
        }
    }
    if let Some(keys) = schema["x-kubernetes-list-map-keys"].as_array() {
        let keys = codes(keys.iter().filter_map(Value::as_str));
        limits.push(format!("each {keys} once"));
    }
    limits
}
