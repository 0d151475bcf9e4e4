//! The objects that a session asks for: its listeners, its Service and its slices, and whether those that exist differ.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;
use kube::{Resource as _, ResourceExt as _};

use crate::controller::names::{
    FIELD_MANAGER, MANAGED_BY_LABEL, SERVICE_NAME_LABEL, SLICE_MANAGED_BY_LABEL, listener_name,
    slice_name,
};
use crate::controller::relays::RelaysView;
use crate::crd::class::Aws;
use crate::crd::listener::{Document, ListenerError, ListenerState, SessionReference};
use crate::crd::session::Port;
use crate::crd::{
    INSTALLATION_LABEL, LISTENER_FINALIZER, MANAGED_BY, SESSION_UID_LABEL, SsmListener,
    SsmListenerSpec, SsmSession,
};

/// The only replica, until replicas come.
pub const REPLICA: i32 = 0;

/// The name of the Service that a session asks for.
#[must_use]
pub fn service_name(session: &SsmSession) -> String {
    let template = session.spec.service.as_ref();
    template
        .and_then(|template| template.name.clone())
        .unwrap_or_else(|| session.name_any())
}

/// The document of a port, and its parameters.
#[must_use]
pub fn document(port: &Port) -> Document {
    // The port on which AWS's own client would listen; here the relay does, and 0 says that none is asked for.
    let mut parameters = BTreeMap::from([
        ("localPortNumber".to_owned(), vec!["0".to_owned()]),
        ("portNumber".to_owned(), vec![port.remote_port.to_string()]),
    ]);
    let name = match &port.remote_host {
        None => "AWS-StartPortForwardingSession",
        Some(host) => {
            parameters.insert("host".to_owned(), vec![host.clone()]);
            "AWS-StartPortForwardingSessionToRemoteHost"
        }
    };
    Document {
        name: name.to_owned(),
        parameters,
    }
}

/// The listener of a port, without a relay.
#[must_use]
pub fn listener(session: &SsmSession, port: &Port, target: &str, identity: &Aws) -> SsmListener {
    let uid = session.uid().unwrap_or_default();
    let spec = SsmListenerSpec {
        session_ref: SessionReference {
            namespace: session.namespace().unwrap_or_default(),
            name: session.name_any(),
            uid: uid.clone(),
        },
        relay: None,
        port: port.name.clone(),
        replica: REPLICA,
        target: target.to_owned(),
        document: document(port),
        reason: session.spec.reason.clone(),
        identity: identity.clone(),
        former_identities: Vec::new(),
        lost_sessions: Vec::new(),
    };
    let mut listener = SsmListener::new(&listener_name(&uid, &port.name, REPLICA), spec);
    listener.metadata.finalizers = Some(vec![LISTENER_FINALIZER.to_owned()]);
    listener.metadata.labels = Some(labels(&uid));
    listener
}

fn labels(session_uid: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
        (SESSION_UID_LABEL.to_owned(), session_uid.to_owned()),
    ])
}

/// Makes an object the session's own, so that it goes with it.
#[must_use]
pub fn owner_reference(session: &SsmSession) -> OwnerReference {
    OwnerReference {
        api_version: SsmSession::api_version(&()).into_owned(),
        kind: SsmSession::kind(&()).into_owned(),
        name: session.name_any(),
        uid: session.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The Service: a ClusterIP without selector, whose endpoints are our slices.
#[must_use]
pub fn service(session: &SsmSession) -> Service {
    let template = session.spec.service.clone().unwrap_or_default();
    let mut all_labels = template.labels;
    all_labels.extend(labels(&session.uid().unwrap_or_default()));
    let ports = session.spec.ports.iter().map(|port| ServicePort {
        name: Some(port.name.clone()),
        port: port.port,
        protocol: Some("TCP".to_owned()),
        // Slices are matched by the port's name. As a target it would have to be one of IANA's, 15 characters long.
        target_port: Some(IntOrString::Int(port.port)),
        app_protocol: port.app_protocol.clone(),
        node_port: None,
    });
    Service {
        metadata: ObjectMeta {
            name: Some(service_name(session)),
            namespace: session.namespace(),
            labels: Some(all_labels),
            annotations: (!template.annotations.is_empty()).then_some(template.annotations),
            owner_references: Some(vec![owner_reference(session)]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            ip_family_policy: Some("PreferDualStack".to_owned()),
            ports: Some(ports.collect()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// Whether somebody made our Service lead elsewhere than to our slices alone: by a selector, to which the endpoints
/// controller adds slices of its own, by addresses or a name, or to relays that are not ready; or gave it a port that
/// leads nowhere.
#[must_use]
pub fn service_is_bent(existing: &Service, desired: &Service) -> bool {
    let mut known: HashSet<PortKey> = port_keys(desired).collect();
    known.extend(applied_ports(existing));
    let has_stranger = port_keys(existing).any(|key| !known.contains(&key));
    let leads_elsewhere = existing.spec.as_ref().is_some_and(|spec| {
        spec.selector.as_ref().is_some_and(|all| !all.is_empty())
            || spec
                .external_ips
                .as_ref()
                .is_some_and(|all| !all.is_empty())
            || spec.external_name.is_some()
            || spec.publish_not_ready_addresses == Some(true)
    });
    has_stranger || leads_elsewhere
}

/// What the API server tells the ports of a Service apart by: number and protocol.
type PortKey = (i64, String);

fn port_keys(service: &Service) -> impl Iterator<Item = PortKey> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter());
    ports.flatten().map(|port| {
        let protocol = port.protocol.clone();
        (
            port.port.into(),
            protocol.unwrap_or_else(|| "TCP".to_owned()),
        )
    })
}

/// The ports that go when we no longer apply them: those that our apply owns, or our POST before the first one.
fn applied_ports(service: &Service) -> HashSet<PortKey> {
    let entries = || {
        let entries = service.managed_fields().iter();
        entries.filter(|entry| {
            entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.subresource.is_none()
        })
    };
    let applied = entries().find(|entry| entry.operation.as_deref() == Some("Apply"));
    let fields = applied.or_else(|| entries().next());
    let fields = fields.and_then(|entry| entry.fields_v1.as_ref());
    let ports = fields.and_then(|fields| fields.0.get("f:spec")?.get("f:ports")?.as_object());
    let keys = ports.into_iter().flat_map(serde_json::Map::keys);
    let key = |key: &String| {
        let key: serde_json::Value = serde_json::from_str(key.strip_prefix("k:")?).ok()?;
        let protocol = key.get("protocol")?.as_str()?.to_owned();
        Some((key.get("port")?.as_i64()?, protocol))
    };
    keys.filter_map(key).collect()
}

/// Whether our Service lacks what is asked for, or still carries what no longer is.
#[must_use]
pub fn service_differs(existing: &Service, desired: &Service) -> bool {
    let ports = |service: &Service| {
        let ports = service
            .spec
            .iter()
            .flat_map(|spec| spec.ports.iter().flatten())
            .cloned();
        let mut ports: Vec<ServicePort> = ports
            .map(|port| ServicePort {
                node_port: None,
                ..port
            })
            .collect();
        ports.sort_by_key(|port| port.port);
        ports
    };
    let lacks = |existing: &BTreeMap<String, String>, desired: &BTreeMap<String, String>| {
        desired
            .iter()
            .any(|(key, value)| existing.get(key) != Some(value))
    };
    let stale = |field: &str, desired: &BTreeMap<String, String>| {
        applied_keys(existing, field)
            .into_iter()
            .any(|key| !desired.contains_key(&key))
    };
    let type_ = |service: &Service| service.spec.as_ref().and_then(|spec| spec.type_.clone());
    service_is_bent(existing, desired)
        || type_(existing) != type_(desired)
        || ports(existing) != ports(desired)
        || lacks(existing.labels(), desired.labels())
        || lacks(existing.annotations(), desired.annotations())
        || stale("f:labels", desired.labels())
        || stale("f:annotations", desired.annotations())
}

/// The keys of labels or annotations that our field manager has written.
fn applied_keys(service: &Service, field: &str) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for entry in service.managed_fields() {
        let mine = entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.subresource.is_none();
        let fields = entry.fields_v1.as_ref().filter(|_| mine);
        let fields = fields.and_then(|fields| fields.0.get("f:metadata")?.get(field)?.as_object());
        let owned = fields.into_iter().flat_map(serde_json::Map::keys);
        keys.extend(
            owned
                .filter_map(|key| key.strip_prefix("f:"))
                .map(str::to_owned),
        );
    }
    keys
}

/// The address type of a slice for an address.
fn family(address: &str) -> Option<&'static str> {
    match address.parse::<IpAddr>().ok()? {
        IpAddr::V4(_) => Some("IPv4"),
        IpAddr::V6(_) => Some("IPv6"),
    }
}

/// Whether what the relay says of the listener is true now: it is bound to that relay, and that run of it lives.
#[must_use]
pub fn is_fresh(listener: &SsmListener, relays: &RelaysView) -> bool {
    listener.status.as_ref().is_some_and(|status| {
        listener.spec.relay.as_deref() == Some(&status.relay)
            && relays.serves(&status.relay, &status.incarnation)
    })
}

/// The error of a listener, unless it speaks of a spec, or comes from a relay, that is no longer its own.
#[must_use]
pub fn error_of<'a>(listener: &'a SsmListener, relays: &RelaysView) -> Option<&'a ListenerError> {
    let status = listener
        .status
        .as_ref()
        .filter(|_| is_fresh(listener, relays))?;
    let current = status.observed_generation == listener.metadata.generation;
    let serves = status.state == ListenerState::Serving && status.ready;
    status.last_error.as_ref().filter(|_| current && !serves)
}

/// The slices of one listener: one for each family that both the Service and the relay have, once the port is known.
#[must_use]
pub fn slices(
    installation: &str,
    session: &SsmSession,
    service: &Service,
    port: &Port,
    listener: &SsmListener,
    relays: &RelaysView,
) -> Vec<EndpointSlice> {
    let Some(status) = &listener.status else {
        return Vec::new();
    };
    let Some(number) = status.port else {
        return Vec::new();
    };
    let deleting = listener.metadata.deletion_timestamp.is_some();
    let listens = status.ready && is_fresh(listener, relays);
    let families = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ip_families.clone());
    let families = families.unwrap_or_default();
    let mut slices: Vec<EndpointSlice> = Vec::new();
    for address in &status.addresses {
        let Some(family) = family(address) else {
            continue;
        };
        let has_family = families.iter().any(|of| of == family);
        if !has_family || slices.iter().any(|slice| slice.address_type == family) {
            continue;
        }
        let mut all_labels = labels(&session.uid().unwrap_or_default());
        all_labels.insert(SERVICE_NAME_LABEL.to_owned(), service.name_any());
        all_labels.insert(SLICE_MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
        all_labels.insert(INSTALLATION_LABEL.to_owned(), installation.to_owned());
        slices.push(EndpointSlice {
            metadata: ObjectMeta {
                name: Some(slice_name(
                    &session.name_any(),
                    installation,
                    &listener.name_any(),
                    family,
                )),
                namespace: session.namespace(),
                labels: Some(all_labels),
                owner_references: Some(vec![owner_reference(session)]),
                ..ObjectMeta::default()
            },
            address_type: family.to_owned(),
            endpoints: vec![Endpoint {
                addresses: vec![address.clone()],
                conditions: Some(EndpointConditions {
                    ready: Some(listens && !deleting),
                    serving: Some(listens),
                    terminating: Some(deleting),
                }),
                ..Endpoint::default()
            }],
            ports: Some(vec![EndpointPort {
                name: Some(port.name.clone()),
                port: Some(number),
                protocol: Some("TCP".to_owned()),
                app_protocol: port.app_protocol.clone(),
            }]),
        });
    }
    slices
}

/// Whether a slice says something else than is asked for.
#[must_use]
pub fn slice_differs(existing: &EndpointSlice, desired: &EndpointSlice) -> bool {
    let EndpointSlice {
        metadata: _,
        address_type,
        endpoints,
        ports,
    } = desired;
    let has_label = |(key, value): (&String, &String)| existing.labels().get(key) == Some(value);
    existing.address_type != *address_type
        || existing.endpoints != *endpoints
        || existing.ports != *ports
        || !desired.labels().iter().all(has_label)
}

/// Whether a client that dials this port of the Service is sent to a relay that listens.
#[must_use]
pub fn slice_is_ready(slice: &EndpointSlice, service: &str, port: &str) -> bool {
    let of_port = slice
        .ports
        .iter()
        .flatten()
        .any(|of| of.name.as_deref() == Some(port));
    let ready = slice.endpoints.iter().any(|endpoint| {
        endpoint
            .conditions
            .as_ref()
            .and_then(|conditions| conditions.ready)
            == Some(true)
    });
    let of_service = slice.labels().get(SERVICE_NAME_LABEL).map(String::as_str) == Some(service);
    of_port && ready && of_service
}
