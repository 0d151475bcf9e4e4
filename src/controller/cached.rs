//! What goes into the caches: objects that can be read, what can be made of those that can't, and of each no more than is
//! read here.
//!
//! One that can't be read stops nobody else, and grants nothing new: what can't be salvaged is not in the cache, and so
//! nothing is decided for it. What runs for it runs on until it is deleted, which can always be seen. Of Services that no
//! session owns only names are kept: whoever may make them may make many.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt as _};
use kube_runtime::reflector::{ObjectRef, Store};

use super::names::FIELD_MANAGER;
use crate::crd::{GROUP, SsmListener, SsmSession, SsmSessionClass, SsmSessionSpec};
use crate::reading::{Guarded, Unreadable};

/// How objects of a kind are kept.
pub trait Cached: Sized {
    /// What of one that can't be read is known all the same, if that is enough to decide about it. `previous`: as it was
    /// when it could be read last.
    fn salvage(_unreadable: &Unreadable, _previous: Option<&Self>) -> Option<Self> {
        None
    }

    /// Drops what nobody reads of it.
    fn slim(&mut self) {}
}

impl Cached for SsmSession {
    /// One that is being deleted can always be let go, as what it was before if nothing says what it is. One whose
    /// finalizers are unknown never gets ours, which would be written over theirs.
    fn salvage(unreadable: &Unreadable, previous: Option<&Self>) -> Option<Self> {
        if unreadable.is_not_to_be_written() {
            return None;
        }
        let mut salvaged = Self::salvaged(unreadable.metadata.clone(), &unreadable.raw)?;
        let previous = previous.filter(|previous| previous.uid() == salvaged.uid());
        if let Some(previous) = previous
            && salvaged.spec == SsmSessionSpec::default()
        {
            salvaged.spec = previous.spec.clone();
        }
        Some(salvaged)
    }
}

impl Cached for SsmListener {
    /// One whose finalizers are unknown is there only to be ended: ours may not be among them, and then nobody would wait
    /// for its end.
    fn salvage(unreadable: &Unreadable, previous: Option<&Self>) -> Option<Self> {
        if unreadable.is_not_to_be_written() {
            return None;
        }
        Self::salvaged(unreadable.metadata.clone(), &unreadable.raw, previous)
    }
}

impl Cached for SsmSessionClass {
    /// That it is there: one that were not would end its sessions, or give them to another's default.
    fn salvage(unreadable: &Unreadable, _previous: Option<&Self>) -> Option<Self> {
        let metadata = unreadable.metadata.clone();
        Some(Self::unreadable(metadata, &unreadable.why))
    }
}

impl Cached for EndpointSlice {}

impl Cached for Lease {}

impl Cached for Service {
    /// Only of a session's that stays more matters than whose it is, and only of our own fields who has written them.
    fn slim(&mut self) {
        let owned = owner(self.owner_references()).is_some();
        if !owned || self.metadata.deletion_timestamp.is_some() {
            let metadata = std::mem::take(&mut self.metadata);
            *self = Self::default();
            self.metadata = ObjectMeta {
                name: metadata.name,
                namespace: metadata.namespace,
                uid: metadata.uid,
                resource_version: metadata.resource_version,
                deletion_timestamp: metadata.deletion_timestamp,
                owner_references: metadata.owner_references.filter(|_| owned),
                ..ObjectMeta::default()
            };
            return;
        }
        if let Some(entries) = &mut self.metadata.managed_fields {
            entries.retain(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER));
            entries.shrink_to_fit();
        }
    }
}

/// The `SsmSession` among an object's owners.
#[must_use]
pub fn owner(references: &[OwnerReference]) -> Option<&OwnerReference> {
    let is_session = |reference: &&OwnerReference| {
        let group = reference.api_version.split('/').next();
        reference.kind == SsmSession::kind(&()) && group == Some(GROUP)
    };
    references.iter().find(is_session)
}

/// What can be read of a list, and what can be made of the rest of it.
pub fn salvaged<K: Cached>(items: Vec<Guarded<K>>) -> impl Iterator<Item = K> {
    items.into_iter().filter_map(|item| match item.0 {
        Ok(object) => Some(object),
        Err(unreadable) => K::salvage(&unreadable, None),
    })
}

/// What a list has.
#[derive(Debug)]
pub struct Listed<K> {
    /// Objects that can be read, and what can be made of others.
    pub known: Vec<K>,
    /// What can be read of the metadata of all others.
    pub unread: Vec<ObjectMeta>,
    /// The same of those of `known` of which a part can't be read.
    pub partial: Vec<ObjectMeta>,
}

/// What a list has; `cache` knows how its objects were when they could be read last.
pub fn listed<K>(items: Vec<Guarded<K>>, cache: &Store<K>) -> Listed<K>
where
    K: Cached + Resource<DynamicType = ()> + Clone,
{
    let mut listed = Listed {
        known: Vec::new(),
        unread: Vec::new(),
        partial: Vec::new(),
    };
    for item in items {
        let key = key_of(&item);
        match item.0 {
            Ok(object) => listed.known.push(object),
            Err(unreadable) => match K::salvage(&unreadable, cache.get(&key).as_deref()) {
                Some(object) => {
                    listed.known.push(object);
                    listed.partial.push(unreadable.metadata);
                }
                None => listed.unread.push(unreadable.metadata),
            },
        }
    }
    listed
}

/// By what a cache finds an object.
pub fn key_of<K: Resource<DynamicType = ()>>(object: &Guarded<K>) -> ObjectRef<K> {
    let key = ObjectRef::new(&object.name_any());
    match object.namespace() {
        Some(namespace) => key.within(&namespace),
        None => key,
    }
}

/// A session as it was written: as it was before, with what can be read now, where it can't be read as a whole.
pub fn reread(before: &SsmSession, written: Guarded<SsmSession>) -> SsmSession {
    written.0.unwrap_or_else(|unreadable| {
        let metadata = unreadable.metadata.clone();
        SsmSession::salvage(&unreadable, Some(before)).unwrap_or_else(|| SsmSession {
            metadata,
            ..before.clone()
        })
    })
}

#[cfg(test)]
pub(super) mod tests {
    use kube_runtime::reflector;
    use serde_json::{Value, json};

    use super::*;

    pub const LATE: &str = "9999-12-31T23:59:59Z";

    pub fn session(name: &str) -> Value {
        let mut spec = SsmSessionSpec::default();
        "why".clone_into(&mut spec.reason);
        let mut session = SsmSession::new(name, spec);
        session.metadata.namespace = Some("shop".to_owned());
        session.metadata.uid = Some(name.to_owned());
        serde_json::to_value(session).expect("it is data")
    }

    pub fn unspecified(name: &str) -> Value {
        let mut session = session(name);
        session["spec"] = json!("nonsense");
        session
    }

    pub fn guarded<K: serde::de::DeserializeOwned>(object: Value) -> Guarded<K> {
        serde_json::from_value(object).expect("whatever it is")
    }

    #[test]
    fn one_that_is_deleted_is_let_go_as_what_it_was() {
        let before: SsmSession = serde_json::from_value(session("orders")).expect("it is read");
        let mut deleted = unspecified("orders");
        deleted["metadata"]["deletionTimestamp"] = json!(LATE);
        let reread = reread(&before, guarded(deleted));
        assert_eq!(reread.spec, before.spec);
        assert!(reread.metadata.deletion_timestamp.is_some());
    }

    #[test]
    fn of_a_service_only_our_own_fields_are_kept() {
        let entry = |manager: &str| json!({ "manager": manager, "fieldsV1": { "f:spec": {} } });
        let service = json!({ "metadata": {
            "managedFields": [entry("kubectl"), entry(FIELD_MANAGER)],
            "ownerReferences": [owner_reference()],
        } });
        let mut service: Service = serde_json::from_value(service).expect("it is read");
        service.slim();
        let managers = service
            .managed_fields()
            .iter()
            .map(|entry| entry.manager.clone());
        assert_eq!(
            managers.collect::<Vec<_>>(),
            [Some(FIELD_MANAGER.to_owned())]
        );
    }

    fn owner_reference() -> Value {
        json!({ "apiVersion": "ssm-operator.dev/v1alpha1", "kind": "SsmSession", "name": "orders", "uid": "1" })
    }

    #[test]
    fn a_service_that_no_session_owns_or_that_goes_costs_its_name_alone() {
        let name = json!({ "name": "x", "namespace": "shop", "uid": "2" });
        let mut full = name.clone();
        full["labels"] = json!({ "app.kubernetes.io/managed-by": "ssm-session-operator" });
        full["annotations"] = json!({ "a": "x".repeat(200_000) });
        full["ownerReferences"] =
            json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "3" }]);
        let slim = |metadata: &Value| {
            let service = json!({ "metadata": metadata, "spec": { "ports": [{ "port": 80 }] } });
            let mut service: Service = serde_json::from_value(service).expect("it is read");
            service.slim();
            serde_json::to_value(service).expect("it is data")
        };
        assert_eq!(slim(&full)["metadata"], name);
        assert!(slim(&full).get("spec").is_none());
        full["ownerReferences"] = json!([owner_reference()]);
        assert_eq!(slim(&full)["metadata"]["annotations"], full["annotations"]);
        full["deletionTimestamp"] = json!("2026-11-22T10:00:00Z");
        let mut left = name;
        left["deletionTimestamp"] = full["deletionTimestamp"].clone();
        left["ownerReferences"] = full["ownerReferences"].clone();
        assert_eq!(slim(&full)["metadata"], left);
    }

    #[test]
    fn one_whose_finalizers_are_unknown_is_there_only_to_be_ended() {
        let mut huge = session("orders");
        huge["metadata"]["finalizers"] = json!(false);
        let salvage = |raw: &Value| {
            let Err(unreadable) = guarded::<SsmSession>(raw.clone()).0 else {
                panic!("it can't be read")
            };
            assert_eq!(
                unreadable.why,
                "metadata.finalizers is larger than any that is read"
            );
            SsmSession::salvage(&unreadable, None)
        };
        assert!(
            salvage(&huge).is_none(),
            "ours would be written over theirs"
        );
        huge["metadata"]["deletionTimestamp"] = json!(LATE);
        let salvaged = salvage(&huge).expect("it is to be ended");
        assert_eq!(salvaged.finalizers(), &[] as &[String]);
    }

    #[test]
    fn of_a_list_nothing_is_overlooked() {
        let (cache, _writer) = reflector::store::<SsmSession>();
        let listed = listed(
            vec![guarded(session("a")), guarded(unspecified("b"))],
            &cache,
        );
        assert_eq!(listed.known.len(), 1);
        assert_eq!(listed.unread[0].uid.as_deref(), Some("b"));
    }

    #[test]
    fn a_class_that_can_not_be_read_is_there() {
        let class = json!({ "metadata": { "name": "plain", "uid": "1" }, "spec": 7 });
        let Err(unreadable) = guarded::<SsmSessionClass>(class).0 else {
            panic!("it can't be read")
        };
        let class = SsmSessionClass::salvage(&unreadable, None).expect("it is there");
        assert_eq!(
            (class.name_any(), class.unread()),
            ("plain".into(), Some(unreadable.why.as_str()))
        );
    }
}
