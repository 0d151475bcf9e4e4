//! What EKS puts into a pod when it is created, so that it gets a role: by an annotation of its ServiceAccount (IRSA), or by
//! an association (Pod Identity).

use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

/// The variables that name a token's file. A pod that has one has no other source of credentials.
pub const TOKEN_FILES: [&str; 2] = [
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
];

/// Whom the pods of an installation are to AWS.
pub enum Eks {
    /// It knows no role for them.
    Nobody,
    /// Whom the annotations say.
    Irsa,
    /// Whom associations say, which the agent at this URL knows.
    PodIdentity(String),
}

/// The Region of the cluster.
pub const REGION: &str = "eu-west-1";

impl Eks {
    /// The pod with what EKS adds to it.
    pub async fn admit(&self, client: &Client, pod: &Pod) -> Pod {
        match self {
            Self::Nobody => pod.clone(),
            Self::Irsa => match annotated_role(client, pod).await {
                Some(role) => with_token(
                    pod,
                    "sts.amazonaws.com",
                    ("aws-iam-token", "eks.amazonaws.com", "token"),
                    ("AWS_ROLE_ARN", &role),
                    TOKEN_FILES[0],
                ),
                None => pod.clone(),
            },
            Self::PodIdentity(agent) => with_token(
                pod,
                "pods.eks.amazonaws.com",
                (
                    "eks-pod-identity-token",
                    "pods.eks.amazonaws.com",
                    "eks-pod-identity-token",
                ),
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", agent),
                TOKEN_FILES[1],
            ),
        }
    }
}

async fn annotated_role(client: &Client, pod: &Pod) -> Option<String> {
    let namespace = pod.namespace().expect("it has one");
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace);
    let account = pod.spec.as_ref()?.service_account_name.as_deref()?;
    let account = accounts.get(account).await.expect("it is there");
    account
        .annotations()
        .get("eks.amazonaws.com/role-arn")
        .cloned()
}

/// A pod with a token for somebody, in a volume with this name, folder and file, and with a variable beside the one that
/// names the file.
fn with_token(
    pod: &Pod,
    audience: &str,
    (volume, folder, file): (&str, &str, &str),
    variable: (&str, &str),
    token_file: &str,
) -> Pod {
    let mut pod = serde_json::to_value(pod).expect("plain data");
    let folder = format!("/var/run/secrets/{folder}/serviceaccount");
    let spec = &mut pod["spec"];
    let token = json!({ "audience": audience, "expirationSeconds": 86400, "path": file });
    let sources = json!([{ "serviceAccountToken": token }]);
    push(
        &mut spec["volumes"],
        json!({ "name": volume, "projected": { "sources": sources } }),
    );
    let container = &mut spec["containers"][0];
    let mount = json!({ "name": volume, "mountPath": folder, "readOnly": true });
    push(&mut container["volumeMounts"], mount);
    let file = format!("{folder}/{file}");
    let all = [
        ("AWS_STS_REGIONAL_ENDPOINTS", "regional"),
        ("AWS_DEFAULT_REGION", REGION),
        ("AWS_REGION", REGION),
        (token_file, &file),
    ];
    for (name, value) in all.into_iter().chain([variable]) {
        push(
            &mut container["env"],
            json!({ "name": name, "value": value }),
        );
    }
    serde_json::from_value(pod).expect("it is a pod")
}

fn push(list: &mut Value, item: Value) {
    list.as_array_mut()
        .expect("the chart's pods have one")
        .push(item);
}
