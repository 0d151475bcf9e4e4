//! Ways of a process to the API server: over a forwarder that can be cut, over a proxy that counts, or as somebody who
//! may do little.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::Api;
use kube::api::PostParams;
use kube::config::{AuthInfo, Kubeconfig};
use serde_json::{Value, json};

use crate::forwarder::Forwarder;
use crate::tally::Tally;
use crate::world::World;

impl World {
    /// A forwarder to the API server, and a kubeconfig that goes over it.
    pub async fn forwarder(&self) -> (Forwarder, PathBuf) {
        let config = self.administrator();
        let server = config.clusters[0]
            .cluster
            .as_ref()
            .and_then(|cluster| cluster.server.clone());
        let server = server.expect("the kubeconfig names a server");
        let address: SocketAddr = server
            .strip_prefix("https://")
            .and_then(|address| address.parse().ok())
            .expect("the API server is on loopback");
        let forwarder = Forwarder::start(address)
            .await
            .expect("loopback takes a forwarder");
        let over = forwarder.address();
        let path = self.write(&format!("over-{}", over.port()), config, |config| {
            let cluster = config.clusters[0].cluster.as_mut();
            cluster.expect("it has one").server = Some(format!("https://{over}"));
        });
        (forwarder, path)
    }

    /// A proxy to the API server that counts requests, and a kubeconfig that goes over it.
    pub async fn tally(&self) -> (Tally, PathBuf) {
        let tally = Tally::start(self.client.clone()).await;
        let tally = tally.expect("loopback takes a proxy");
        let over = tally.address();
        let path = self.write("tally", self.administrator(), |config| {
            let cluster = config.clusters[0].cluster.as_mut().expect("it has one");
            cluster.server = Some(format!("http://{over}"));
            cluster.certificate_authority = None;
            cluster.certificate_authority_data = None;
            // The proxy has rights of its own.
            config.auth_infos[0].auth_info = Some(AuthInfo::default());
        });
        (tally, path)
    }

    /// A kubeconfig of somebody who may do nothing yet.
    pub fn kubeconfig_of(&self, user: &str) -> PathBuf {
        self.write(user, self.administrator(), |config| {
            let user = user.to_owned();
            let access = config.auth_infos[0].auth_info.as_mut();
            access.expect("it has one").impersonate = Some(user);
        })
    }

    /// Gives somebody rights in the operator's namespace: API group, resource and verbs of each.
    pub async fn grant(&self, user: &str, rights: &[(&str, &str, &[&str])]) {
        let rules = rights.iter().map(|(group, resource, verbs)| {
            json!({ "apiGroups": [group], "resources": [resource], "verbs": verbs })
        });
        let rules: Vec<Value> = rules.collect();
        let metadata = json!({ "name": format!("{user}-{}", rules.len()) });
        let role: Role = serde_json::from_value(json!({ "metadata": metadata, "rules": rules }))
            .expect("a role");
        let group = "rbac.authorization.k8s.io";
        let binding: RoleBinding = serde_json::from_value(json!({
            "metadata": metadata,
            "subjects": [{ "kind": "User", "apiGroup": group, "name": user }],
            "roleRef": { "kind": "Role", "apiGroup": group, "name": metadata["name"] },
        }))
        .expect("a binding");
        let (client, namespace) = (&self.client, &self.operator_namespace);
        let of_roles: Api<Role> = Api::namespaced(client.clone(), namespace);
        let of_bindings: Api<RoleBinding> = Api::namespaced(client.clone(), namespace);
        let create = PostParams::default();
        of_roles
            .create(&create, &role)
            .await
            .expect("a role can be created");
        of_bindings
            .create(&create, &binding)
            .await
            .expect("a binding can be created");

        // The authorizer hears of it a moment later.
        let (group, resource, verbs) = rights[0];
        let review: SubjectAccessReview = serde_json::from_value(json!({
            "metadata": {},
            "spec": {
                "user": user,
                "resourceAttributes": {
                    "namespace": namespace, "group": group, "resource": resource, "verb": verbs[0],
                },
            },
        }))
        .expect("a review");
        let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
        self.until("the rights count", async || {
            let answer = reviews.create(&create, &review).await?;
            Ok(answer.status.is_some_and(|status| status.allowed))
        })
        .await;
    }

    fn administrator(&self) -> Kubeconfig {
        Kubeconfig::read_from(self.ground.kubeconfig()).expect("a kubeconfig")
    }

    fn write(
        &self,
        name: &str,
        mut config: Kubeconfig,
        change: impl FnOnce(&mut Kubeconfig),
    ) -> PathBuf {
        change(&mut config);
        let path = self.folder().join(format!("{name}.kubeconfig"));
        // JSON is YAML.
        let text = serde_json::to_string(&config).expect("plain data");
        fs::write(&path, text).expect("the world's folder takes a file");
        path
    }
}
