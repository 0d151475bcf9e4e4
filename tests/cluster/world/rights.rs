//! Who processes are for the API server: the chart's ServiceAccounts, with the rights that it renders for this world's
//! namespaces and nothing else, and with the admission policies that hold a controller.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures::future::join_all;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams,
};
use kube::config::AuthInfo;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::World;
use crate::audit::{Request, refused, requests};
use crate::programs::{objects, render};
use crate::rights::{Where, idle};

/// What stands in the rendered chart for the operator's namespace and for the user's.
const HOME: &str = "home-of-a-world";
const USER: &str = "user-of-a-world";

/// Endings of the names of the policies that a world has: what they say is about its own accounts, whatever else is in the
/// same API server. The others keep everybody else out, where tests write what the operator would, or ask for the pod that
/// a token is bound to, where processes have none: `tests/chart/policies` has them all.
const POLICIES: [&str; 2] = ["-controllers", "-services"];

const POLICY: &str = "ValidatingAdmissionPolicy";

/// The rights of a world's processes.
#[derive(Default)]
pub struct Rights {
    made: Mutex<BTreeMap<Installation, Arc<OnceCell<()>>>>,
    /// Those in the user's namespace are gone.
    went: AtomicBool,
    /// Namespaces in which somebody has taken them away.
    taken: Mutex<BTreeSet<String>>,
}

/// What the roles depend on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Installation {
    mode: &'static str,
    /// The operator's namespace.
    home: String,
    /// The namespaces whose sessions it serves.
    watched: Vec<String>,
}

impl Installation {
    /// The one that has a process with these arguments.
    fn of(arguments: &[String]) -> Self {
        let values = |option: &str| {
            let option = format!("--{option}=");
            let values = arguments.iter().filter_map(|it| it.strip_prefix(&option));
            values.map(str::to_owned).collect::<Vec<_>>()
        };
        let all_in_one = arguments[0] == "all-in-one";
        Self {
            mode: if all_in_one { "all-in-one" } else { "split" },
            home: values("namespace").pop().expect("every process has one"),
            watched: values("watch-namespace"),
        }
    }
}

/// The accounts, roles and policies of a mode, as the chart renders them for one watched namespace.
async fn rendered(mode: &'static str) -> Vec<Value> {
    static SPLIT: OnceCell<Vec<Value>> = OnceCell::const_new();
    static ALL_IN_ONE: OnceCell<Vec<Value>> = OnceCell::const_new();
    let kept = if mode == "split" { &SPLIT } else { &ALL_IN_ONE };
    kept.get_or_init(|| rendered_with(mode, false))
        .await
        .clone()
}

async fn rendered_with(mode: &str, openshift: bool) -> Vec<Value> {
    let options = [
        format!("--namespace={HOME}"),
        format!("--set=mode={mode},fullnameOverride={HOME},openshift={openshift}"),
        format!("--set-json=watchNamespaces=[\"{USER}\"]"),
    ];
    let mut all = objects(&render(&options).await.expect("it is rendered"));
    all.retain(|object| {
        let kind = object["kind"].as_str().unwrap_or_default();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        match kind {
            "ServiceAccount" | "Role" | "RoleBinding" | "ClusterRoleBinding" => true,
            // Those of users are none of the operator's.
            "ClusterRole" => !name.ends_with("-view") && !name.ends_with("-edit"),
            POLICY | "ValidatingAdmissionPolicyBinding" => {
                POLICIES.iter().any(|ending| name.ends_with(ending))
            }
            _ => false,
        }
    });
    let policies = all.iter().filter(|object| object["kind"] == POLICY);
    assert_eq!(policies.count(), POLICIES.len());
    all
}

/// Each right of a rendered rule: verb and resource.
fn rights_of(rule: &Value) -> Vec<String> {
    let words = |key: &str| {
        let words = rule[key].as_array().into_iter().flatten();
        words.filter_map(Value::as_str).collect::<Vec<_>>()
    };
    let mut rights = Vec::new();
    for group in words("apiGroups") {
        for resource in words("resources") {
            let of_verb = |verb: &&str| format!("{verb} {group}/{resource}");
            rights.extend(words("verbs").iter().map(of_verb));
        }
    }
    rights
}

/// What the chart gives in mode split: component, place, verb and resource.
pub async fn rendered_rights(openshift: bool) -> BTreeSet<(String, Where, String)> {
    let rendered = rendered_with("split", openshift).await;
    let mut rights = BTreeSet::new();
    for binding in rendered
        .iter()
        .filter(|object| object["roleRef"].is_object())
    {
        let (of, namespace) = (&binding["roleRef"], &binding["metadata"]["namespace"]);
        let place = match namespace.as_str() {
            Some(HOME) => Where::Home,
            Some(_) => Where::Watched,
            None => Where::Everywhere,
        };
        let role = rendered.iter().find(|role| {
            role["kind"] == of["kind"]
                && role["metadata"]["name"] == of["name"]
                && role["metadata"]["namespace"] == *namespace
        });
        let rules = role.and_then(|role| role["rules"].as_array());
        let account = binding["subjects"][0]["name"].as_str().unwrap_or_default();
        let component = account.rsplit('-').next().unwrap_or_default();
        for right in rules.expect("it has rules").iter().flat_map(rights_of) {
            rights.insert((component.to_owned(), place, right));
        }
    }
    rights
}

impl World {
    /// A token of the ServiceAccount that the chart gives to a process with these arguments.
    pub(super) async fn credentials_of(&self, arguments: &[String]) -> AuthInfo {
        let installation = Installation::of(arguments);
        let made = {
            let mut all = self.rights.made.lock().expect("no test panics in here");
            Arc::clone(all.entry(installation.clone()).or_default())
        };
        made.get_or_init(|| self.install(&installation)).await;
        let component = match arguments[0].as_str() {
            // The drain has the ServiceAccount of what controls.
            "drain" => "controller",
            component => component,
        };
        let home = &installation.home;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), home);
        let request = TokenRequest::default();
        let create = PostParams::default();
        let account = format!("{home}-{component}");
        let token = accounts.create_token_request(&account, &create, &request);
        let token = token.await.expect("the API server makes tokens").status;
        AuthInfo {
            token: Some(token.expect("it made one").token.into()),
            ..AuthInfo::default()
        }
    }

    /// Makes the accounts, roles, bindings and policies, and waits until the rights count.
    async fn install(&self, installation: &Installation) {
        let Installation {
            mode,
            home,
            watched,
        } = installation;
        let (mut all, rendered) = (Vec::new(), rendered(mode).await);
        // In the expressions of policies.
        let quoted = |namespace: &str| format!("\\\"{namespace}\\\"");
        let served: Vec<_> = watched.iter().map(|of| quoted(of)).collect();
        for object in &rendered {
            // A relay and a drain serve no namespace; what holds a controller comes with one.
            let kind = object["kind"].as_str().unwrap_or_default();
            if watched.is_empty() && kind.starts_with(POLICY) {
                continue;
            }
            let text = object.to_string().replace(HOME, home);
            let text = text.replace(&quoted(USER), &served.join(","));
            if object["metadata"]["namespace"] == USER {
                let of_each = watched
                    .iter()
                    .map(|namespace| text.replace(USER, namespace));
                all.extend(of_each);
            } else {
                all.push(text);
            }
        }
        let object = |text: &String| serde_json::from_str::<DynamicObject>(text);
        let all: Result<Vec<_>, _> = all.iter().map(object).collect();
        let all = all.expect("objects");
        self.give(&all).await;
    }

    async fn give(&self, all: &[DynamicObject]) {
        join_all(all.iter().map(|object| self.make(object))).await;
        self.count(all, true).await;
    }

    /// Takes the rights of mode split in a watched namespace away. What is refused there is expected from now on.
    pub async fn take_rights_in(&self, namespace: &str) {
        {
            let mut taken = self.rights.taken.lock().expect("no test panics in here");
            taken.insert(namespace.to_owned());
        }
        let all = self.rights_in(namespace).await;
        for object in &all {
            let (api, name) = (self.api_of(object), object.name_any());
            let deleted = api.delete(&name, &DeleteParams::default()).await;
            deleted.expect("the administrator may delete them");
        }
        self.count(&all, false).await;
    }

    /// Gives them back.
    pub async fn give_rights_in(&self, namespace: &str) {
        let all = self.rights_in(namespace).await;
        self.give(&all).await;
    }

    async fn rights_in(&self, namespace: &str) -> Vec<DynamicObject> {
        let mut all = rendered("split").await;
        all.retain(|object| object["metadata"]["namespace"] == USER);
        let text = serde_json::to_string(&all).expect("plain data");
        let text = text.replace(HOME, &self.operator_namespace);
        serde_json::from_str(&text.replace(USER, namespace)).expect("objects")
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
        let name = object.name_any();
        match api.create(&PostParams::default(), object).await {
            Ok(_) => {}
            // An earlier process of the same namespace had it too; a policy says for which namespaces.
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                if object.types.as_ref().is_some_and(|of| of.kind == POLICY) {
                    let newer = Patch::Merge(object);
                    let patched = api.patch(&name, &PatchParams::default(), &newer).await;
                    patched.expect("the administrator may patch it");
                }
            }
            Err(error) => panic!("{name}: {error}"),
        }
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

    /// A namespace is deleted with the roles in it, while the operator still cleans up there: what it is refused then is
    /// going anyway.
    pub fn rights_go_with_the_namespace(&self) {
        self.rights.went.store(true, Ordering::Relaxed);
    }

    /// How often each controller, by the id of its token, has written something else than Leases, as the API server saw it.
    pub fn written_by_controllers(&self) -> BTreeMap<String, usize> {
        let all = requests(&self.ground.audit_log(), &self.operator_namespace);
        let is_write = |request: &&Request| {
            let reads = ["get", "list", "watch"].contains(&request.verb.as_str());
            let of_lease = request.resource == "coordination.k8s.io/leases";
            request.account.ends_with("-controller") && !reads && !of_lease
        };
        let mut written = BTreeMap::new();
        for request in all.iter().filter(is_write) {
            *written.entry(request.token.clone()).or_default() += 1;
        }
        written
    }

    /// Whatever a process has wanted and may not is a rule that the chart lacks, and what this world is there to need must
    /// have been used.
    pub(super) fn rights_fit(&self) {
        let made = self.rights.made.lock().expect("no test panics in here");
        let homes: BTreeSet<_> = made.keys().map(|installation| &installation.home).collect();
        let log = self.ground.audit_log();
        let requests: Vec<_> = homes.iter().flat_map(|home| requests(&log, home)).collect();
        let went = self.rights.went.load(Ordering::Relaxed);
        let taken = self.rights.taken.lock().expect("no test panics in here");
        let is_going = |request: &Request| {
            let namespace = request.namespace.as_ref();
            namespace.is_some_and(|of| (went && *of == self.namespace) || taken.contains(of))
        };
        let mut refused = refused(&requests);
        refused.retain(|request| !is_going(request));
        assert!(
            refused.is_empty(),
            "the chart gives no right to {refused:#?}"
        );
        let idle = idle(&self.name, &requests);
        assert!(
            idle.is_empty(),
            "tests/cluster/rights.rs says that this test needs {idle:?}"
        );
    }
}
