//! What a served definition lacks of ours. What it has besides is a later version's, and nothing to complain of.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion, JSONSchemaProps,
    JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

/// The versions, fields and values of `ours` that `served` does not have, in the order of their names: `version v1alpha1`,
/// `spec.aws.roleArn`, `status.sessions[].endReason=Broken`. Of a field that is missing nothing inside is named.
#[must_use]
pub(super) fn lacking(
    ours: &CustomResourceDefinition,
    served: &CustomResourceDefinition,
) -> Vec<String> {
    let mut lacking = Vec::new();
    for version in &ours.spec.versions {
        let mut versions = served.spec.versions.iter();
        let found = versions.find(|found| found.served && found.name == version.name);
        match found {
            Some(found) => {
                if let (Some(ours), Some(served)) = (schema(version), schema(found)) {
                    compare("", ours, served, &mut lacking);
                }
            }
            None => lacking.push(format!("version {}", version.name)),
        }
    }
    lacking
}

fn schema(version: &CustomResourceDefinitionVersion) -> Option<&JSONSchemaProps> {
    version.schema.as_ref()?.open_api_v3_schema.as_ref()
}

fn compare(
    path: &str,
    ours: &JSONSchemaProps,
    served: &JSONSchemaProps,
    lacking: &mut Vec<String>,
) {
    if served.x_kubernetes_preserve_unknown_fields == Some(true) {
        return;
    }
    let none = BTreeMap::new();
    let known = served.properties.as_ref().unwrap_or(&none);
    for (name, property) in ours.properties.iter().flatten() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        match known.get(name) {
            Some(served) => compare(&path, property, served, lacking),
            None => lacking.push(path),
        }
    }
    if let Some(known) = &served.enum_ {
        let values = ours.enum_.iter().flatten();
        let missing = values.filter(|value| !known.contains(value));
        lacking.extend(missing.map(|value| match value.0.as_str() {
            Some(word) => format!("{path}={word}"),
            None => format!("{path}={}", value.0),
        }));
    }
    if let (Some(ours), Some(served)) = (items(ours), items(served)) {
        compare(&format!("{path}[]"), ours, served, lacking);
    }
    if let (Some(ours), Some(served)) = (values(ours), values(served)) {
        compare(&format!("{path}[]"), ours, served, lacking);
    }
}

/// What the elements of a list are; our lists have elements of one kind.
fn items(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match schema.items.as_ref()? {
        JSONSchemaPropsOrArray::Schema(items) => Some(items),
        JSONSchemaPropsOrArray::Schemas(_) => None,
    }
}

/// What the values of a map are.
fn values(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match schema.additional_properties.as_ref()? {
        JSONSchemaPropsOrBool::Schema(values) => Some(values),
        JSONSchemaPropsOrBool::Bool(_) => None,
    }
}
