//! What users and administrators do: classes and sessions are made, changed and deleted.

use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use ssm_session_operator::crd::{SsmSession, SsmSessionClass};

use super::{REMOTE_PORT, TARGET, World};

impl World {
    /// Creates a class that this world's installation serves.
    pub async fn create_class(&self, name: &str, annotations: &Value) {
        self.post_class(name, annotations, &self.controller_name(), &json!({}))
            .await;
    }

    /// Creates a class that another installation serves.
    pub async fn create_class_of(&self, name: &str, controller_name: &str) {
        self.post_class(name, &json!({}), controller_name, &json!({}))
            .await;
    }

    /// Creates a class that this world's installation serves, with more fields of `aws`, such as a role.
    pub async fn create_class_with(&self, name: &str, aws: &Value) {
        self.post_class(name, &json!({}), &self.controller_name(), aws)
            .await;
    }

    async fn post_class(
        &self,
        name: &str,
        annotations: &Value,
        controller_name: &str,
        more: &Value,
    ) {
        let endpoint = self.simulator.endpoint();
        let mut aws = json!({
            "region": "eu-central-1",
            "endpoints": { "ssm": endpoint, "ssmmessages": endpoint },
        });
        let fields = aws.as_object_mut().expect("fields");
        fields.extend(more.as_object().expect("fields").clone());
        let class = json!({
            "apiVersion": "ssm-operator.dev/v1alpha1",
            "kind": "SsmSessionClass",
            "metadata": { "name": name, "annotations": annotations },
            "spec": {
                "controllerName": controller_name,
                "aws": aws,
            },
        });
        let class: SsmSessionClass = serde_json::from_value(class).expect("a class");
        let classes: Api<SsmSessionClass> = Api::all(self.client.clone());
        classes
            .create(&PostParams::default(), &class)
            .await
            .expect("the class is admitted");
    }

    /// The usual session: one port that leads to this world's destination.
    pub fn session(&self, name: &str) -> Value {
        json!({
            "apiVersion": "ssm-operator.dev/v1alpha1",
            "kind": "SsmSession",
            "metadata": { "name": name, "namespace": self.namespace },
            "spec": {
                "className": self.class,
                "target": { "id": TARGET },
                "ports": [{ "name": "db", "port": 5432, "remotePort": REMOTE_PORT }],
                "reason": "a test",
            },
        })
    }

    /// Creates a session.
    pub async fn create(&self, session: &Value) -> SsmSession {
        let session: SsmSession = serde_json::from_value(session.clone()).expect("a session");
        let sessions = self.sessions();
        sessions
            .create(&PostParams::default(), &session)
            .await
            .expect("the session is admitted")
    }

    /// Changes a session's spec by a merge patch.
    pub async fn edit(&self, name: &str, spec: &Value) {
        let patch = Patch::Merge(json!({ "spec": spec }));
        let sessions = self.sessions();
        sessions
            .patch(name, &PatchParams::default(), &patch)
            .await
            .expect("the edit is admitted");
    }

    /// Begins to delete a session.
    pub async fn delete(&self, name: &str) {
        let sessions = self.sessions();
        sessions
            .delete(name, &DeleteParams::default())
            .await
            .expect("the session can be deleted");
    }
}
