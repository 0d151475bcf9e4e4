//! Whom a change concerns: the sessions that are asked to look again when another object changes.

use k8s_openapi::api::core::v1::Service;
use kube::{Resource, ResourceExt as _};

use super::context::Context;
use super::session;
use crate::crd::{SsmSession, SsmSessionClass};

/// Asks the sessions that own an object to look again.
pub(super) fn ask_owners<K: Resource<DynamicType = ()>>(context: &Context, object: &K) {
    let namespace = object.namespace().unwrap_or_default();
    for owner in object.owner_references() {
        if owner.kind == SsmSession::kind(&()) {
            context.trigger_session(&namespace, &owner.name);
        }
    }
}

/// Asks the session that owns a Service, and those that wait for its name.
pub(super) fn ask_for_service(context: &Context, service: &Service) {
    ask_owners(context, service);
    let (namespace, name) = (service.namespace(), service.name_any());
    let waits = |session: &SsmSession| {
        session.namespace() == namespace && session::service_name(session) == name
    };
    for session in context.sessions.filter(waits) {
        context.trigger_session(
            &session.namespace().unwrap_or_default(),
            &session.name_any(),
        );
    }
}

/// Asks the sessions that name a class, and those that name none, since it may be the default.
pub(super) fn ask_for_class(context: &Context, class: &SsmSessionClass) {
    let name = class.name_any();
    let concerns = |session: &SsmSession| {
        session
            .spec
            .class_name
            .as_ref()
            .is_none_or(|of| *of == name)
    };
    for session in context.sessions.filter(concerns) {
        context.trigger_session(
            &session.namespace().unwrap_or_default(),
            &session.name_any(),
        );
    }
}
