//! What people may do: whoever may edit a namespace may write SsmSessions there, whoever may view it may read them, and
//! nobody gets more by the chart.

use std::collections::BTreeSet;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::WAIT_MAX;
use crate::ground::ground;
use crate::programs::{objects, render};
use crate::wait::ask_until;

/// Roles that Kubernetes has for people; all but `view` may write.
const ROLES: [&str; 3] = ["view", "edit", "admin"];

const VERBS: [&str; 8] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
];

const READS: [&str; 3] = ["get", "list", "watch"];

/// All of ours, with what is said by whom.
const RESOURCES: [(&str, &str); 7] = [
    ("ssmsessions", ""),
    ("ssmsessions", "status"),
    ("ssmsessions", "finalizers"),
    ("ssmsessionclasses", ""),
    ("ssmsessionclasses", "status"),
    ("ssmlisteners", ""),
    ("ssmlisteners", "status"),
];

/// The ClusterRoles for people, as they are rendered with these options.
async fn roles(options: &[&str]) -> Vec<Value> {
    let options: Vec<_> = options.iter().map(ToString::to_string).collect();
    let mut objects = objects(&render(&options).await.expect("it is rendered"));
    objects.retain(|object| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        object["kind"] == "ClusterRole" && (name.ends_with("-view") || name.ends_with("-edit"))
    });
    assert_eq!(objects.len(), 2);
    objects
}

/// Who may do what to which resource, in the namespace `bank` and, where there is none, everywhere.
async fn allowed(client: &Client) -> BTreeSet<[String; 3]> {
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let mut allowed = BTreeSet::new();
    for role in ROLES {
        for (resource, subresource) in RESOURCES {
            for verb in VERBS {
                let review = SubjectAccessReview {
                    spec: SubjectAccessReviewSpec {
                        user: Some(user(role)),
                        resource_attributes: Some(ResourceAttributes {
                            group: Some("ssm-operator.dev".to_owned()),
                            namespace: Some("bank".to_owned()),
                            resource: Some(resource.to_owned()),
                            subresource: Some(subresource.to_owned()),
                            verb: Some(verb.to_owned()),
                            ..ResourceAttributes::default()
                        }),
                        ..SubjectAccessReviewSpec::default()
                    },
                    ..SubjectAccessReview::default()
                };
                let judged = reviews.create(&PostParams::default(), &review).await;
                let status = judged.expect("the administrator may ask").status;
                if status.is_some_and(|status| status.allowed) {
                    let what = format!("{resource}/{subresource}");
                    allowed.insert([role, verb, &what].map(str::to_owned));
                }
            }
        }
    }
    allowed
}

fn user(role: &str) -> String {
    format!("somebody with {role} in bank")
}

#[tokio::test]
async fn who_may_edit_a_namespace_writes_its_sessions_and_who_may_view_it_reads_them() {
    let ground = ground().await;
    let client = ground.client().await;
    let mut wanted = roles(&[]).await;
    for role in ROLES {
        wanted.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": { "name": format!("people-{role}"), "namespace": "bank" },
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role,
            },
            "subjects": [{
                "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user(role),
            }],
        }));
    }
    for object in wanted {
        let apply = ["apply", "--server-side", "--filename=-"];
        let applied = ground.kubectl(&apply, &object.to_string()).await;
        applied.unwrap_or_else(|error| panic!("{error:#}"));
    }
    let mut expected = BTreeSet::new();
    for role in ROLES {
        for verb in VERBS {
            if role != "view" || READS.contains(&verb) {
                expected.insert([role, verb, "ssmsessions/"].map(str::to_owned));
            }
        }
    }
    // The API server gathers what is aggregated in its own time.
    let mut last = BTreeSet::new();
    let gathered = ask_until(WAIT_MAX, async || {
        last = allowed(&client).await;
        (last == expected).then_some(())
    });
    let gathered = gathered.await.is_some();
    assert!(gathered, "allowed: {last:#?}, wanted: {expected:#?}");
}

#[tokio::test]
async fn roles_for_people_are_part_of_kubernetes_own_only_where_values_let_them() {
    let prefix = "rbac.authorization.k8s.io/aggregate-to-";
    let off = ["--set=rbac.aggregateToView=false,rbac.aggregateToEdit=false"];
    for (options, expected) in [(&[][..], vec!["view", "edit"]), (&off, vec![])] {
        let mut found = Vec::new();
        for role in roles(options).await {
            let labels = role["metadata"]["labels"].as_object().expect("it has some");
            let to = labels.keys().filter_map(|key| key.strip_prefix(prefix));
            found.extend(to.map(str::to_owned));
        }
        assert_eq!(found, expected);
    }
}
