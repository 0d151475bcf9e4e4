//! The role of a pod on EKS, where it can't be had: what is told of it, and that it heals by itself.

use std::path::PathBuf;

use serde_json::{Value, json};
use ssm_session_operator::crd::SsmSession;
use ssm_session_operator::simulator::{Operation, Trust};

use crate::looks::{live, message};
use crate::token::{FAR, token};
use crate::world::{World, reason};

const ROLE: &str = "arn:aws:iam::123456789012:role/relay";

/// A world whose processes have a token in a file, which is not there yet, and no keys.
async fn with_token(name: &str, variable: &'static str) -> (World, PathBuf) {
    let mut world = World::new(name).await;
    let file = world.folder().join("token");
    world.credentials = vec![(variable, file.display().to_string())];
    (world, file)
}

/// A token of the world's ServiceAccount for somebody.
fn token_for(world: &World, audience: &str) -> String {
    token(&json!({ "sub": subject(world), "aud": [audience], "exp": FAR }))
}

fn subject(world: &World) -> String {
    format!(
        "system:serviceaccount:{}:all-in-one",
        world.operator_namespace
    )
}

/// Waits until `orders` has no credentials and says why, in the same words each time.
async fn told(world: &World, words: &str) {
    let told = |session: &SsmSession| {
        reason(session, "AwsReachable") == "CredentialsUnavailable"
            && message(session, "AwsReachable").contains(words)
    };
    world.wait("orders", words, told).await;
}

/// What each object says, and what is logged, tells nothing of these.
fn none_is_told(objects: &[Value], logs: &str, secrets: &[String]) {
    for secret in secrets {
        let told = objects
            .iter()
            .find(|object| object.to_string().contains(secret));
        assert_eq!(told, None);
        assert!(!logs.contains(secret), "{secret} is logged");
    }
}

#[tokio::test]
async fn a_web_identity_that_is_not_there_or_not_trusted_is_told_in_words_of_sts_and_heals() {
    let (mut world, file) = with_token("web-identity", "AWS_WEB_IDENTITY_TOKEN_FILE").await;
    world.credentials.push(("AWS_ROLE_ARN", ROLE.to_owned()));
    let operator = world.all_in_one(&[]).await;
    world.create(&world.session("orders")).await;
    let unread = format!(
        "AWS_WEB_IDENTITY_TOKEN_FILE, {}: No such file",
        file.display()
    );
    told(&world, &unread).await;

    let put = |token: &str| std::fs::write(&file, token).expect("the folder takes a file");
    let of_another = token_for(&world, "https://kubernetes.default.svc");
    put(&of_another);
    told(
        &world,
        "AssumeRoleWithWebIdentity: InvalidIdentityToken: Incorrect token audience",
    )
    .await;
    let good = token_for(&world, "sts.amazonaws.com");
    put(&good);
    let denied = "AssumeRoleWithWebIdentity: AccessDenied: Not authorized to perform";
    told(&world, denied).await;
    let objects = world.objects().await;
    let ids = world
        .simulator
        .request_ids(Operation::AssumeRoleWithWebIdentity);
    assert!(!ids.is_empty());
    for id in ids {
        let told = objects
            .iter()
            .find(|object| object.to_string().contains(&id));
        assert_eq!(told, None, "one refusal is like the other");
    }
    none_is_told(&objects, &world.logs(), &[of_another, good]);

    world.simulator.trust(Trust {
        role_arn: ROLE.to_owned(),
        subject: subject(&world),
    });
    world.wait_ready("orders").await;
    world.connect("orders", "db").await;
    world.remove("orders").await;
    operator.stop().await.expect("it ends well");
}

/// The class has a role of its own, so that the role session name is its own too.
#[tokio::test]
async fn a_pod_identity_that_is_not_there_or_not_associated_is_told_and_heals() {
    let variable = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
    let (mut world, file) = with_token("pod-identity", variable).await;
    let agent = format!("{}/v1/credentials", world.simulator.endpoint());
    let full_uri = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
    world.credentials.push((full_uri, agent));
    let class = format!("{}-warehouse", world.class);
    let role = "arn:aws:iam::444455556666:role/warehouse";
    let aws = json!({ "roleArn": role, "sessionName": "my-cluster-warehouse" });
    world.create_class_with(&class, &aws).await;
    let operator = world.all_in_one(&[]).await;
    let session = world.session_with("orders", json!({ "className": class }));
    world.create(&session).await;
    told(
        &world,
        &format!("{variable}, {}: No such file", file.display()),
    )
    .await;

    let good = token_for(&world, "pods.eks.amazonaws.com");
    std::fs::write(&file, &good).expect("the folder takes a file");
    told(&world, "HTTP credential provider: StatusCode(400)").await;
    none_is_told(&world.objects().await, &world.logs(), &[good]);

    world.simulator.trust(Trust {
        role_arn: ROLE.to_owned(),
        subject: subject(&world),
    });
    let session = world.wait_ready("orders").await;
    let id = live(&session, "db").expect("it is there").session_id;
    assert!(id.starts_with("my-cluster-warehouse-"), "{id}");
    let of_pods = "arn:aws:sts::123456789012:assumed-role/relay/eks-my-cluster-";
    let assumed = world.simulator.overview().assumed;
    let mut of_class = assumed.iter().filter(|assumed| assumed.role_arn == role);
    assert!(of_class.all(|assumed| assumed.by.starts_with(of_pods)));
    world.connect("orders", "db").await;
    world.remove("orders").await;
    operator.stop().await.expect("it ends well");
}
