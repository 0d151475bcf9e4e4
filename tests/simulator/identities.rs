//! Roles for tokens of ServiceAccounts: by STS, and by the agent of EKS Pod Identity.

use serde_json::{Value, json};
use ssm_session_operator::simulator::{Operation, Pace, Trust};

use crate::api::element;
use crate::client::SIGNATURE;
use crate::ground::{Ground, REMOTE, echo, id};
use crate::token::{FAR, token};

const ACCOUNT: &str = "system:serviceaccount:operator:relay";

fn trust(role: &str) -> Trust {
    Trust {
        role_arn: format!("arn:aws:iam::111122223333:role/{role}"),
        subject: ACCOUNT.to_owned(),
    }
}

/// A token of the account for somebody.
fn claims(audience: &str) -> Value {
    json!({
        "sub": ACCOUNT,
        "aud": [audience],
        "exp": FAR,
        "jti": "the-first",
        "kubernetes.io": { "pod": { "name": "relay-7d9c4bdbd9-x2x4z" } },
    })
}

/// What is changed in a token, and how it is refused then.
fn refusals() -> [(Value, &'static str); 3] {
    [
        (
            json!({ "aud": ["https://kubernetes"] }),
            "InvalidIdentityToken",
        ),
        (json!({ "exp": 1 }), "ExpiredTokenException"),
        (json!({ "aud": 7 }), "InvalidIdentityToken"),
    ]
}

fn changed(claims: &Value, change: &Value) -> Value {
    let mut claims = claims.clone();
    let change = change.as_object().expect("a map").clone();
    claims.as_object_mut().expect("a map").extend(change);
    claims
}

/// STS's answer to who shows a token and signs nothing.
async fn assume(ground: &Ground, role: &str, token: &str) -> (u16, String) {
    let form = format!(
        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleSessionName=orders&\
         RoleArn=arn%3Aaws%3Aiam%3A%3A111122223333%3Arole%2F{role}&WebIdentityToken={token}"
    );
    let headers = "Content-Type: application/x-www-form-urlencoded\r\n";
    let answer = ground.service.post("/", headers, &form).await;
    answer.expect("an answer")
}

/// The answer of the agent on the node.
async fn ask(ground: &Ground, token: &str) -> (u16, Value) {
    let headers = format!("Authorization: {token}\r\n");
    let answer = ground
        .service
        .send("GET", "/v1/credentials", &headers, "")
        .await;
    let (status, body) = answer.expect("an answer");
    (status, serde_json::from_str(&body).expect("JSON"))
}

/// Calls the SSM API with credentials that were handed out.
async fn call(
    ground: &Ground,
    (key, token): (&str, &str),
    operation: &str,
    request: &Value,
) -> Value {
    let signature = SIGNATURE.replace("SERVICE", "ssm").replace("AKIDTEST", key);
    let headers = format!(
        "X-Amz-Target: AmazonSSM.{operation}\r\nAuthorization: {signature}\r\n\
         X-Amz-Security-Token: {token}\r\n"
    );
    let answer = ground
        .service
        .post("/", &headers, &request.to_string())
        .await;
    serde_json::from_str(&answer.expect("an answer").1).expect("JSON")
}

#[tokio::test]
async fn a_web_identity_has_the_roles_that_trust_it_and_reaches_the_sessions_of_its_session_name() {
    let ground = Ground::new(Pace::Unthrottled, echo().await).await;
    let good = claims("sts.amazonaws.com");
    let (status, refused) = assume(&ground, "relay", &token(&good)).await;
    assert_eq!((status, element(&refused, "Code")), (400, "AccessDenied"));
    for role in ["relay", "controller"] {
        ground.simulator.trust(trust(role));
    }
    for (change, code) in refusals() {
        let bad = token(&changed(&good, &change));
        let (status, refused) = assume(&ground, "relay", &bad).await;
        assert_eq!((status, element(&refused, "Code")), (400, code), "{change}");
        assert!(!refused.contains(&bad), "{refused}");
    }
    let (_, refused) = assume(&ground, "relay", "no-token").await;
    assert_eq!(element(&refused, "Code"), "InvalidIdentityToken");

    let (_, relay) = assume(&ground, "relay", &token(&good)).await;
    let keys = |answer| {
        (
            element(answer, "AccessKeyId"),
            element(answer, "SessionToken"),
        )
    };
    let start = json!({ "Target": "mi-1", "DocumentName": REMOTE });
    let ticket = call(&ground, keys(&relay), "StartSession", &start).await;
    assert!(id(&ticket).starts_with("orders-"), "{ticket}");
    let (_, controller) = assume(&ground, "controller", &token(&good)).await;
    let one = json!({ "SessionId": id(&ticket) });
    let ended = call(&ground, keys(&controller), "TerminateSession", &one).await;
    assert_eq!(ended, one);

    let overview = ground.simulator.overview();
    let [first, _] = &overview.assumed[..] else {
        panic!("two were handed out: {:?}", overview.assumed);
    };
    assert_eq!(
        (&*first.by, first.token.as_deref()),
        (ACCOUNT, Some("the-first"))
    );
    let calls = overview.calls[&Operation::AssumeRoleWithWebIdentity];
    assert_eq!((calls.total, calls.signed), (7, 0));
    ground.shutdown().await;
}

#[tokio::test]
async fn the_agent_on_the_node_names_each_role_session_anew_and_the_cluster_in_all_of_them() {
    let ground = Ground::new(Pace::Unthrottled, echo().await).await;
    let good = claims("pods.eks.amazonaws.com");
    let (status, _) = ask(&ground, &token(&good)).await;
    assert_eq!(status, 400, "without an association");
    ground.simulator.trust(trust("relay"));
    for (change, _) in refusals() {
        let (status, _) = ask(&ground, &token(&changed(&good, &change))).await;
        assert_eq!(status, 400, "{change}");
    }
    let (_, first) = ask(&ground, &token(&good)).await;
    let (_, second) = ask(&ground, &token(&good)).await;
    let keys = |answer: &Value| {
        let text = |field: &str| answer[field].as_str().expect(field).to_owned();
        (text("AccessKeyId"), text("Token"))
    };
    let ((first, first_token), (second, second_token)) = (keys(&first), keys(&second));
    let start = json!({ "Target": "mi-1", "DocumentName": REMOTE });
    let ticket = call(&ground, (&first, &first_token), "StartSession", &start).await;
    let own = "eks-my-cluster-relay-7d9c4b-";
    assert!(id(&ticket).starts_with(own), "{ticket}");
    let one = json!({ "SessionId": id(&ticket) });
    let ended = call(&ground, (&second, &second_token), "TerminateSession", &one).await;
    assert_eq!(ended, one);
    let assumed = ground.simulator.overview().assumed;
    assert_ne!(assumed[0].session_name, assumed[1].session_name);
    assert!(assumed.iter().all(|role| role.session_name.len() <= 64));
    ground.shutdown().await;
}
