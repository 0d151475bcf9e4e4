//! What becomes of a wish: objects of the API, the way in for clients, what is left in the end.

use anyhow::Result;
use k8s_openapi::api::core::v1::{Event, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use kube::api::ListParams;
use kube_runtime::wait::await_condition;
use ssm_session_operator::crd::{SsmListener, SsmSession};
use ssm_session_operator::simulator::Status;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{WAIT_MAX, World};
use crate::dial;
use crate::wait::ask_until;

impl World {
    /// Sessions of the user's namespace.
    pub fn sessions(&self) -> Api<SsmSession> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Listeners of the operator's namespace.
    pub fn listeners(&self) -> Api<SsmListener> {
        Api::namespaced(self.client.clone(), &self.operator_namespace)
    }

    /// Services of the user's namespace.
    pub fn services(&self) -> Api<Service> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// EndpointSlices of the user's namespace.
    pub fn slices(&self) -> Api<EndpointSlice> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Waits until a session is as it should be, and gives it.
    pub async fn wait(
        &self,
        name: &str,
        what: &str,
        condition: impl Fn(&SsmSession) -> bool,
    ) -> SsmSession {
        let met = |session: Option<&SsmSession>| session.is_some_and(&condition);
        let waiting = await_condition(self.sessions(), name, met);
        if let Ok(session) = timeout(WAIT_MAX, waiting).await {
            let session = session.expect("the watch holds");
            return session.expect("the session is there");
        }
        let session = self.sessions().get_opt(name).await;
        let session = session.expect("the API answers");
        let listeners = self.listeners().list(&ListParams::default()).await;
        let listeners = listeners.expect("the API answers").items;
        panic!(
            "{name}: {what} did not come about\nsession: {}\nlisteners: {}\nAWS: {:#?}\nlogs: {}",
            serde_json::to_string_pretty(&session).unwrap_or_default(),
            serde_json::to_string_pretty(&listeners).unwrap_or_default(),
            self.simulator.overview(),
            self.log_ends(),
        );
    }

    /// Waits until clients can dial a session.
    pub async fn wait_available(&self, name: &str) -> SsmSession {
        self.wait(name, "Available", |session| {
            condition(session, "Available") == "True"
        })
        .await
    }

    /// Waits until a session is gone.
    pub async fn wait_gone(&self, name: &str) {
        self.until(&format!("{name} is gone"), async || {
            Ok(self.sessions().get_opt(name).await?.is_none())
        })
        .await;
    }

    /// Asks until the answer is yes.
    pub async fn until(&self, what: &str, ask: impl AsyncFn() -> Result<bool>) {
        let met = ask_until(WAIT_MAX, async || {
            ask().await.is_ok_and(|yes| yes).then_some(())
        })
        .await;
        if met.is_none() {
            let answer = ask().await;
            panic!(
                "{what} did not come about ({answer:?})\nlogs: {}",
                self.log_ends()
            );
        }
    }

    /// Dials a Service's port, as soon as it has an endpoint.
    pub async fn dial(&self, service: &str, port: &str) -> TcpStream {
        let connection = ask_until(WAIT_MAX, async || {
            let endpoints = dial::endpoints(&self.client, &self.namespace, service, port).await;
            TcpStream::connect(endpoints.ok()?.first()?).await.ok()
        });
        match connection.await {
            Some(connection) => connection,
            None => panic!(
                "{service} has no endpoint that listens\n{}",
                self.log_ends()
            ),
        }
    }

    /// Events about objects of a name, as `Reason: note`.
    pub async fn events(&self, name: &str) -> Vec<String> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let events = events
            .list(&ListParams::default())
            .await
            .expect("events can be read");
        let about = |event: &Event| event.involved_object.name.as_deref() == Some(name);
        let say = |event: Event| {
            let (reason, message) = (event.reason, event.message);
            format!(
                "{}: {}",
                reason.unwrap_or_default(),
                message.unwrap_or_default()
            )
        };
        events.items.into_iter().filter(about).map(say).collect()
    }

    /// Nothing of the operator is left: no object in Kubernetes, and in AWS no session that is not Terminated.
    pub async fn assert_nothing_is_left(&self) {
        self.until("nothing is left in the cluster", async || {
            let all = ListParams::default();
            let listeners = self.listeners().list(&all).await?.items;
            let services = self.services().list(&all).await?.items;
            let slices = self.slices().list(&all).await?.items;
            Ok(listeners.is_empty() && services.is_empty() && slices.is_empty())
        })
        .await;
        // AWS calls a session Terminating for a moment after it has answered.
        self.wait_aws("every session that ever was is Terminated", |aws| {
            let mut sessions = aws.sessions.iter();
            sessions.all(|session| session.status == Status::Terminated)
        })
        .await;
    }
}

/// Status of a session's condition: `True`, `False`, `Unknown`, or empty when it is absent.
pub fn condition<'a>(session: &'a SsmSession, kind: &str) -> &'a str {
    find(session, kind).map_or("", |condition| &condition.status)
}

/// Reason of a session's condition, or empty when it is absent.
pub fn reason<'a>(session: &'a SsmSession, kind: &str) -> &'a str {
    find(session, kind).map_or("", |condition| &condition.reason)
}

fn find<'a>(session: &'a SsmSession, kind: &str) -> Option<&'a Condition> {
    session
        .status
        .as_ref()?
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind)
}
