//! The CustomResourceDefinitions as objects and as files.
//!
//! The derive's schemas are made ready for the API server: no `nullable` (absent and null are the same here, and
//! `has()` in CEL would tell them apart), no formats that only Rust knows, and a default for the status of a new
//! `SsmSession`, so that tools wait for it instead of taking an object without a status for a finished one.

use std::path::Path;
use std::{fs, io};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use serde_json::{Number, Value, json};

use super::{SsmListener, SsmSession, SsmSessionClass};

/// The first line of every file.
const HEADER: &str = "# Written by `ssm-session-operator crds`; edit src/crd instead.\n";

/// The CustomResourceDefinitions of all kinds.
#[must_use]
pub fn definitions() -> Vec<CustomResourceDefinition> {
    let mut session = SsmSession::crd();
    for schema in root_schemas(&mut session) {
        let status = schema
            .properties
            .as_mut()
            .and_then(|all| all.get_mut("status"));
        if let Some(status) = status {
            // On the field alone it would do nothing: a default is applied only inside an object that exists.
            status.default = Some(JSON(json!({ "observedGeneration": -1 })));
        }
    }
    let mut all = vec![session, SsmSessionClass::crd(), SsmListener::crd()];
    all.iter_mut().flat_map(root_schemas).for_each(tidy);
    all
}

/// The files of [`definitions`]: name and YAML of each.
#[must_use]
pub fn manifests() -> Vec<(String, String)> {
    let file = |definition: &CustomResourceDefinition| {
        (
            format!("{}.yaml", definition.spec.names.plural),
            to_yaml(definition),
        )
    };
    definitions().iter().map(file).collect()
}

/// Writes the files of [`manifests`] into `dir`, which is made if it is not there.
///
/// # Errors
///
/// When the folder or a file can't be written.
pub fn write_manifests(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for (name, yaml) in manifests() {
        fs::write(dir.join(name), yaml)?;
    }
    Ok(())
}

#[expect(
    clippy::expect_used,
    reason = "what is written has text keys only, and goes to memory"
)]
fn to_yaml(definition: &CustomResourceDefinition) -> String {
    let value = serde_json::to_value(definition).expect("a definition has text keys only");
    // Folded scalars would break rules and messages over lines, where nobody finds them by searching.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let yaml = serde_saphyr::to_string_with_options(&integers(value), options)
        .expect("a JSON value has a YAML form, and writing to memory does not fail");
    format!("{HEADER}{yaml}")
}

/// Writes whole numbers without a fraction: the API's type for limits is a float.
fn integers(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::Number(integer(number)),
        Value::Array(items) => Value::Array(items.into_iter().map(integers).collect()),
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(key, value)| (key, integers(value)))
                .collect(),
        ),
        other @ (Value::Null | Value::Bool(_) | Value::String(_)) => other,
    }
}

fn integer(number: Number) -> Number {
    let Some(float) = number
        .as_f64()
        .filter(|float| number.is_f64() && float.fract() == 0.0)
    else {
        return number;
    };
    format!("{float:.0}").parse().unwrap_or(number)
}

fn root_schemas(
    definition: &mut CustomResourceDefinition,
) -> impl Iterator<Item = &mut JSONSchemaProps> {
    let versions = definition.spec.versions.iter_mut();
    versions.filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut())
}

/// Drops what the API server does not want, here and in all that is inside.
fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if schema
        .format
        .as_deref()
        .is_some_and(|format| format.starts_with("uint"))
    {
        schema.format = None;
    }
    schema
        .properties
        .iter_mut()
        .flatten()
        .for_each(|(_, property)| tidy(property));
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => tidy(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(tidy),
        None => {}
    }
    match &mut schema.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(values)) => tidy(values),
        Some(JSONSchemaPropsOrBool::Bool(_)) | None => {}
    }
}
