//! Who processes are for the API server: the chart's ServiceAccounts, with the rights that it renders for this world's
//! namespaces and nothing else.

use futures::future::join_all;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, PostParams};
use kube::config::AuthInfo;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::World;
use crate::audit::{Request, refused, requests};
use crate::programs::{objects, render};

/// What stands in the rendered chart for the operator's namespace and for the user's.
const HOME: &str = "home-of-a-world";
const USER: &str = "user-of-a-world";

/// Where the roles of a mode are that this world's processes have.
#[derive(Default)]
pub struct Rights {
    split: OnceCell<()>,
    all_in_one: OnceCell<()>,
}

/// The accounts and roles of a mode, as the chart renders them for one watched namespace.
async fn rendered(mode: &str) -> Vec<Value> {
    static SPLIT: OnceCell<Vec<Value>> = OnceCell::const_new();
    static ALL_IN_ONE: OnceCell<Vec<Value>> = OnceCell::const_new();
    let kept = if mode == "split" { &SPLIT } else { &ALL_IN_ONE };
    let render = async || {
        let options = [
            format!("--namespace={HOME}"),
            format!("--set=mode={mode},fullnameOverride={HOME}"),
            format!("--set-json=watchNamespaces=[\"{USER}\"]"),
        ];
        let mut all = objects(&render(&options).await.expect("it is rendered"));
        let of_users = |object: &Value| {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            name.ends_with("-view") || name.ends_with("-edit")
        };
        let kinds = [
            "ServiceAccount",
            "Role",
            "RoleBinding",
            "ClusterRole",
            "ClusterRoleBinding",
        ];
        all.retain(|object| {
            let kind = object["kind"].as_str().unwrap_or_default();
            kinds.contains(&kind) && !of_users(object)
        });
        all
    };
    kept.get_or_init(render).await.clone()
}

impl World {
    /// A token of the ServiceAccount that the chart gives to processes of this command.
    pub(super) async fn credentials_of(&self, command: &str) -> AuthInfo {
        let (mode, made) = match command {
            "all-in-one" => ("all-in-one", &self.rights.all_in_one),
            _ => ("split", &self.rights.split),
        };
        made.get_or_init(|| self.install_rights(mode)).await;
        // The drain has the ServiceAccount of what controls.
        let component = if command == "drain" {
            "controller"
        } else {
            command
        };
        let account = format!("{}-{component}", self.operator_namespace);
        let accounts: Api<ServiceAccount> =
            Api::namespaced(self.client.clone(), &self.operator_namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec::default(),
            ..TokenRequest::default()
        };
        let create = PostParams::default();
        let token = accounts.create_token_request(&account, &create, &request);
        let token = token.await.expect("the API server makes tokens").status;
        AuthInfo {
            token: Some(token.expect("it made one").token.into()),
            ..AuthInfo::default()
        }
    }

    /// Makes the accounts, roles and bindings, and waits until they count.
    async fn install_rights(&self, mode: &str) {
        let all = rendered(mode).await;
        let all = self.placed(&all, &self.namespace);
        join_all(all.iter().map(|object| self.make(object))).await;
        self.count(&all, true).await;
    }

    /// Gives controllers the rights in one more namespace that the chart renders for each that is watched.
    pub async fn grant_in(&self, namespace: &str) {
        let all = self.rights_in(namespace).await;
        join_all(all.iter().map(|object| self.make(object))).await;
        self.count(&all, true).await;
    }

    /// Takes them away again, as the deletion of a namespace does, or an administrator. What is refused there from now on
    /// is expected.
    pub async fn revoke_in(&mut self, namespace: &str) {
        self.refusing.push(namespace.to_owned());
        let all = self.rights_in(namespace).await;
        for object in &all {
            let (api, name) = (self.api_of(object), object.name_any());
            let deleted = api.delete(&name, &DeleteParams::default()).await;
            deleted.expect("the administrator may delete them");
        }
        self.count(&all, false).await;
    }

    async fn rights_in(&self, namespace: &str) -> Vec<DynamicObject> {
        let mut all = rendered("split").await;
        all.retain(|object| object["metadata"]["namespace"] == USER);
        self.placed(&all, namespace)
    }

    /// Objects for this world, and for this namespace of a user.
    fn placed(&self, all: &[Value], namespace: &str) -> Vec<DynamicObject> {
        let text = serde_json::to_string(all).expect("plain data");
        let text = text.replace(HOME, &self.operator_namespace);
        let text = text.replace(USER, namespace);
        serde_json::from_str(&text).expect("objects")
    }

    fn api_of(&self, object: &DynamicObject) -> Api<DynamicObject> {
        let types = object.types.as_ref().expect("it is rendered with its type");
        let kind = GroupVersionKind::try_from(types).expect("a kind");
        let kind = ApiResource::from_gvk(&kind);
        match object.namespace() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), &namespace, &kind),
            None => Api::all_with(self.client.clone(), &kind),
        }
    }

    async fn make(&self, object: &DynamicObject) {
        let api = self.api_of(object);
        let made = api.create(&PostParams::default(), object).await;
        made.expect("the administrator may make them");
    }

    /// Waits until all bindings count, or none does.
    async fn count(&self, all: &[DynamicObject], allowed: bool) {
        let bindings = all
            .iter()
            .filter(|object| object.data.get("roleRef").is_some());
        join_all(bindings.map(|binding| self.counts(binding, all, allowed))).await;
    }

    /// The authorizer hears of a binding, and of its role, a moment later.
    async fn counts(&self, binding: &DynamicObject, all: &[DynamicObject], allowed: bool) {
        let role = &binding.data["roleRef"];
        let mut roles = all.iter();
        let role = roles.find(|object| {
            let types = object.types.as_ref();
            types.is_some_and(|types| role["kind"] == types.kind)
                && role["name"] == object.name_any()
                && object.namespace() == binding.namespace()
        });
        let rule = &role.expect("it is rendered too").data["rules"][0];
        let subject = &binding.data["subjects"][0];
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let review = json!({
            "metadata": {},
            "spec": {
                "user": format!(
                    "system:serviceaccount:{}:{}",
                    word(&subject["namespace"]),
                    word(&subject["name"]),
                ),
                "resourceAttributes": {
                    "namespace": binding.namespace(),
                    "group": rule["apiGroups"][0],
                    "resource": rule["resources"][0],
                    "verb": rule["verbs"][0],
                    "name": rule["resourceNames"][0],
                },
            },
        });
        let review: SubjectAccessReview = serde_json::from_value(review).expect("a review");
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        self.until("the rights count, or count no more", async || {
            let answer = reviews.create(&PostParams::default(), &review).await?;
            Ok(answer.status.is_some_and(|status| status.allowed) == allowed)
        })
        .await;
    }

    /// What its processes have asked for so far, as whom the chart makes them.
    fn requests(&self) -> Vec<Request> {
        requests(&self.ground.audit_log(), &self.operator_namespace)
    }

    /// Whatever a process has wanted and may not is a rule that the chart lacks.
    pub(super) fn nobody_was_refused(&self) {
        let requests = self.requests();
        let mut refused = refused(&requests);
        refused.retain(|request| {
            let namespace = request.namespace.as_ref();
            !namespace.is_some_and(|of| self.refusing.contains(of))
        });
        assert!(
            refused.is_empty(),
            "the chart gives no right to {refused:#?}"
        );
    }
}
