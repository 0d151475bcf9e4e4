//! An object that is read, or what can be said of one that can't be.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::Resource;
use kube::api::ObjectMeta;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::filter::TOO_LARGE;

/// How much is said of why an object can't be read: the decoder quotes what it finds.
const WORDS_MAX: usize = 300;

/// One object of a list or a watch: that it can't be read is its own matter alone.
#[derive(Clone, Debug)]
pub struct Guarded<K>(pub Result<K, Box<Unreadable>>);

/// An object that can't be read.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// What of its metadata can be read; whether it is being deleted always can.
    pub metadata: ObjectMeta,
    /// The object as it came.
    pub raw: Value,
    /// Why it can't be read, in few words.
    pub why: String,
}

impl Unreadable {
    /// Whether all of its finalizers are known. Where they are not, none may be written: the list would lose the others.
    #[must_use]
    pub fn has_known_finalizers(&self) -> bool {
        let finalizers = &self.raw["metadata"]["finalizers"];
        finalizers.is_null() || self.metadata.finalizers.is_some()
    }

    /// Whether whatever is written of it would lose finalizers of others, and it is not even being deleted.
    #[must_use]
    pub fn is_not_to_be_written(&self) -> bool {
        self.metadata.deletion_timestamp.is_none() && !self.has_known_finalizers()
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Value::deserialize(deserializer)?;
        Ok(Self(K::deserialize(&raw).map_err(|error| {
            Box::new(Unreadable {
                metadata: metadata(&raw),
                why: too_large(&raw)
                    .unwrap_or_else(|| error.to_string().chars().take(WORDS_MAX).collect()),
                raw,
            })
        })))
    }
}

/// Which part of it is larger than what is read, if one is.
fn too_large(raw: &Value) -> Option<String> {
    let of = |value: &Value| {
        let mut fields = value.as_object()?.iter();
        let (key, _) = fields.find(|(_, value)| **value == Value::Bool(TOO_LARGE))?;
        Some(key.clone())
    };
    let part = of(raw).or_else(|| Some(format!("metadata.{}", of(&raw["metadata"])?)))?;
    Some(format!("{part} is larger than any that is read"))
}

/// As it would be without the guard.
impl<K: Serialize> Serialize for Guarded<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Ok(object) => object.serialize(serializer),
            Err(unreadable) => unreadable.raw.serialize(serializer),
        }
    }
}

/// What of an object's metadata can be read, each field for itself.
fn metadata(raw: &Value) -> ObjectMeta {
    fn read<T: DeserializeOwned>(field: &Value) -> Option<T> {
        T::deserialize(field).ok()
    }
    let raw = &raw["metadata"];
    let references = raw["ownerReferences"].as_array();
    let references = references.map(|all| all.iter().filter_map(read::<OwnerReference>).collect());
    // When it was deleted does not matter; that it was must not be overlooked.
    let deleted = &raw["deletionTimestamp"];
    let deleted =
        (!deleted.is_null()).then(|| read(deleted).unwrap_or(Time(Timestamp::UNIX_EPOCH)));
    ObjectMeta {
        name: read(&raw["name"]),
        namespace: read(&raw["namespace"]),
        uid: read(&raw["uid"]),
        resource_version: read(&raw["resourceVersion"]),
        generation: read(&raw["generation"]),
        creation_timestamp: read(&raw["creationTimestamp"]),
        deletion_timestamp: deleted,
        finalizers: read(&raw["finalizers"]),
        labels: read(&raw["labels"]),
        annotations: read(&raw["annotations"]),
        owner_references: references,
        ..ObjectMeta::default()
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(of: &K::DynamicType) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &K::DynamicType) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &K::DynamicType) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &K::DynamicType) -> Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        match &self.0 {
            Ok(object) => object.meta(),
            Err(unreadable) => &unreadable.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(object) => object.meta_mut(),
            Err(unreadable) => &mut unreadable.metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use kube::ResourceExt as _;
    use kube::api::ObjectList;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_can_not_be_read_stops_no_list_and_its_deletion_is_seen() {
        let list = json!({
            "apiVersion": "v1",
            "kind": "ServiceList",
            "metadata": { "resourceVersion": "7" },
            "items": [
                { "metadata": { "name": "good", "uid": "1" }, "spec": {} },
                {
                    "metadata": {
                        "name": "bad",
                        "namespace": "shop",
                        "uid": "2",
                        "resourceVersion": "5",
                        "finalizers": ["a/b"],
                        "deletionTimestamp": "9999-12-31T23:59:59Z",
                        "labels": 3,
                        "ownerReferences": [1, { "apiVersion": "a/b", "kind": "C", "name": "d", "uid": "e" }],
                    },
                    "spec": "nonsense",
                },
                "x".repeat(4 * WORDS_MAX),
            ],
        });
        let list: ObjectList<Guarded<Service>> =
            serde_json::from_value(list).expect("the list is read");
        let [good, bad, nonsense] = list.items.as_slice() else {
            panic!("{list:?}")
        };
        assert!(good.0.is_ok());
        assert_eq!(bad.name_any(), "bad");
        assert_eq!(bad.resource_version().as_deref(), Some("5"));
        assert_eq!(bad.finalizers(), ["a/b"]);
        assert_eq!(bad.owner_references().len(), 1);
        assert!(bad.meta().deletion_timestamp.is_some());
        assert!(bad.0.is_err());
        let why = nonsense.0.as_ref().map_err(|of| of.why.chars().count());
        assert_eq!(why.err(), Some(WORDS_MAX));
        assert!(nonsense.meta().uid.is_none());
    }
}
