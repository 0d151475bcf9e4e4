//! As much of an API server as the binding speaks with: listeners with a status subresource, Leases, list and watch by
//! `spec.relay`, and optimistic locking by UID and resourceVersion.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::NAMESPACE;
use crate::crd::SsmListener;
use crate::reading::Guarded;

#[derive(Default)]
struct Store {
    /// Objects by the path of their kind and name.
    objects: BTreeMap<String, Value>,
    version: u64,
    /// What watches show: version, and the listener before and after.
    changes: Vec<(u64, Option<Value>, Option<Value>)>,
    /// Method and path of every request, in order.
    requests: Vec<String>,
    away: bool,
    /// Requests that were refused because the server is away.
    refused: usize,
}

/// The server; clones are the same one.
#[derive(Clone)]
pub(super) struct FakeApi {
    store: Arc<Mutex<Store>>,
    changed: watch::Sender<u64>,
    pub(super) client: Client,
}

#[derive(Clone)]
struct Served {
    store: Arc<Mutex<Store>>,
    changed: watch::Sender<u64>,
}

pub(super) fn listener_path(name: &str) -> String {
    format!("/apis/ssm-operator.dev/v1alpha1/namespaces/{NAMESPACE}/ssmlisteners/{name}")
}

pub(super) fn lease_path(name: &str) -> String {
    format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{name}")
}

impl FakeApi {
    pub(super) async fn start() -> Self {
        let socket = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let url: Uri = format!("http://{}", socket.local_addr().unwrap())
            .parse()
            .unwrap();
        let served = Served {
            store: Arc::default(),
            changed: watch::Sender::new(0),
        };
        let routes = Router::new().fallback(answer).with_state(served.clone());
        tokio::spawn(async move { axum::serve(socket, routes).await });
        let client = Client::try_from(Config::new(url)).unwrap();
        Self {
            store: served.store,
            changed: served.changed,
            client,
        }
    }

    pub(super) fn listeners(&self) -> Api<Guarded<SsmListener>> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// Stores a listener as somebody else wrote it, and gives it back with its new resourceVersion.
    pub(super) fn put_listener(&self, object: &SsmListener) -> SsmListener {
        let path = listener_path(object.metadata.name.as_deref().unwrap());
        let stored = self.put(&path, serde_json::to_value(object).unwrap());
        serde_json::from_value(stored).unwrap()
    }

    /// Stores an object as somebody else wrote it.
    pub(super) fn put(&self, path: &str, object: Value) -> Value {
        let mut store = self.store.lock().unwrap();
        let stored = store.write(path, object);
        self.changed.send_replace(store.version);
        stored
    }

    pub(super) fn delete_listener(&self, name: &str) {
        let mut store = self.store.lock().unwrap();
        store.version += 1;
        let old = store.objects.remove(&listener_path(name));
        let version = store.version;
        store.changes.push((version, old, None));
        self.changed.send_replace(version);
    }

    pub(super) fn listener(&self, name: &str) -> SsmListener {
        serde_json::from_value(self.object(&listener_path(name)).unwrap()).unwrap()
    }

    pub(super) fn object(&self, path: &str) -> Option<Value> {
        self.store.lock().unwrap().objects.get(path).cloned()
    }

    /// The requests since the last call, such as `PUT …/status`.
    pub(super) fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.store.lock().unwrap().requests)
    }

    /// From now on watches break off and every answer is an internal error, or no longer.
    pub(super) fn set_away(&self, away: bool) {
        let mut store = self.store.lock().unwrap();
        (store.away, store.refused) = (away, 0);
        self.changed.send_replace(store.version);
    }

    /// Waits until the server, being away, has refused so many requests.
    pub(super) async fn wait_for_refused(&self, count: usize) {
        let mut changes = self.changed.subscribe();
        while self.store.lock().unwrap().refused < count {
            changes.changed().await.unwrap();
        }
    }

    /// Waits until `holds` holds of a stored object.
    pub(super) async fn wait_for(&self, path: &str, holds: impl Fn(&Value) -> bool) {
        let mut changes = self.changed.subscribe();
        while !self.object(path).is_some_and(|object| holds(&object)) {
            changes.changed().await.unwrap();
        }
    }
}

impl Store {
    fn write(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let old = self.objects.insert(path.to_owned(), object.clone());
        if path.contains("/ssmlisteners/") {
            self.changes.push((self.version, old, Some(object.clone())));
        }
        object
    }

    fn replace(&mut self, path: &str, body: &Value) -> Response {
        let status_only = path.strip_suffix("/status");
        let path = status_only.unwrap_or(path);
        let Some(stored) = self.objects.get(path).cloned() else {
            return refusal(404, "NotFound");
        };
        let differs = |field: &str| {
            let wanted = &body["metadata"][field];
            !wanted.is_null() && *wanted != stored["metadata"][field]
        };
        if differs("uid") || differs("resourceVersion") {
            return refusal(409, "Conflict");
        }
        let mut object = body.clone();
        if status_only.is_some() {
            object = stored;
            object["status"] = body["status"].clone();
        }
        axum::Json(self.write(path, object)).into_response()
    }
}

fn refusal(code: u16, reason: &str) -> Response {
    let body = json!({ "kind": "Status", "status": "Failure", "reason": reason, "code": code,
        "message": format!("the fake says {reason}") });
    (StatusCode::from_u16(code).unwrap(), axum::Json(body)).into_response()
}

/// A parameter of a query, as it was sent.
fn parameter<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let mut pairs = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

async fn answer(State(served): State<Served>, method: Method, uri: Uri, body: Bytes) -> Response {
    let path = uri.path().to_owned();
    let mut store = served.store.lock().unwrap();
    let verb = if parameter(&uri, "watch").is_some() {
        "WATCH"
    } else {
        method.as_str()
    };
    store.requests.push(format!(
        "{verb} {}",
        path.rsplit("/namespaces/").next().unwrap()
    ));
    if store.away {
        store.refused += 1;
        served.changed.send_replace(store.version);
        return refusal(500, "InternalError");
    }
    if path.ends_with("/ssmlisteners") {
        let selector = parameter(&uri, "fieldSelector").unwrap();
        let relay = selector.strip_prefix("spec.relay%3D").unwrap().to_owned();
        if verb == "WATCH" {
            let since = parameter(&uri, "resourceVersion").unwrap().parse().unwrap();
            drop(store);
            return watching(served, relay, since);
        }
        let of_relay = |object: &&Value| object["spec"]["relay"] == json!(relay);
        let items: Vec<&Value> = store.objects.values().filter(of_relay).collect();
        let version = store.version.to_string();
        let list = json!({ "kind": "SsmListenerList", "apiVersion": "ssm-operator.dev/v1alpha1",
            "metadata": { "resourceVersion": version }, "items": items });
        return axum::Json(list).into_response();
    }
    let sent = || serde_json::from_slice::<Value>(&body).unwrap();
    let response = match method {
        Method::GET => match store.objects.get(&path) {
            Some(object) => axum::Json(object).into_response(),
            None => refusal(404, "NotFound"),
        },
        Method::PUT => store.replace(&path, &sent()),
        Method::POST => {
            let object = sent();
            let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
            axum::Json(store.write(&path, object)).into_response()
        }
        other => panic!("the binding never says {other}"),
    };
    served.changed.send_replace(store.version);
    response
}

/// A watch of one relay's listeners: an object that leaves the selector is shown as deleted.
fn watching(served: Served, relay: String, since: u64) -> Response {
    let changes = served.changed.subscribe();
    let events = futures::stream::unfold((served, changes, since), move |state| {
        let relay = json!(relay);
        async move {
            let (served, mut changes, mut since) = state;
            loop {
                let next = {
                    let store = served.store.lock().unwrap();
                    if store.away {
                        return None;
                    }
                    store
                        .changes
                        .iter()
                        .find(|(version, ..)| *version > since)
                        .cloned()
                };
                let Some((version, old, new)) = next else {
                    changes.changed().await.ok()?;
                    continue;
                };
                since = version;
                let ours = |object: &Option<Value>| {
                    object
                        .clone()
                        .filter(|object| object["spec"]["relay"] == relay)
                };
                let event = match (ours(&old), ours(&new)) {
                    (_, Some(new)) => json!({ "type": "MODIFIED", "object": new }),
                    (Some(old), None) => json!({ "type": "DELETED", "object": old }),
                    (None, None) => continue,
                };
                let line = Ok::<_, std::convert::Infallible>(format!("{event}\n"));
                return Some((line, (served, changes, since)));
            }
        }
    });
    Body::from_stream(events).into_response()
}
