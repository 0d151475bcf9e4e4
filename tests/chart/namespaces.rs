//! A user's namespace is deleted with a session in it, where the operator has rights in named namespaces only: these rights
//! go with the namespace, and before the session does.

use serde_json::json;
use ssm_session_operator::simulator::Status;

use crate::WAIT_MAX;
use crate::audit::refused;
use crate::ground::ground;
use crate::installed::Installed;
use crate::policies;
use crate::rights::{EVERYWHERE, is};
use crate::transfer::dead;
use crate::wait::ask_until;

/// What the operator has rights to in served namespaces only.
const OF_THE_NAMESPACE: [&str; 3] = [
    "/services",
    "discovery.k8s.io/endpointslices",
    "events.k8s.io/events",
];

#[tokio::test]
async fn a_served_namespace_that_is_deleted_takes_its_session_along() {
    let values = json!({
        "mode": "all-in-one",
        "crds": { "enabled": false },
        "controllerName": "example.com/going",
        "watchNamespaces": ["going-user"],
        "admissionPolicy": { "exemptUsers": [EVERYWHERE] },
    });
    let mut installed = Installed::new(ground().await, "going", &values, 1).await;
    installed.apply(&installed.session("a test")).await;
    let mut connection = installed.connect().await;
    installed
        .wait_session("Available", |session| is(session, "Available", "True"))
        .await;
    policies::sessions_are_written_where_they_are_served(&installed).await;

    let delete = [
        "delete",
        "namespace",
        &installed.user_namespace,
        "--timeout=90s",
    ];
    let deleted = installed.ground.kubectl(&delete, "").await;
    if let Err(error) = deleted {
        panic!("{error:#}\n{}", installed.last_words());
    }
    dead(&mut connection, WAIT_MAX).await.expect("it is told");
    let ended = installed
        .aws
        .simulator()
        .wait_for("the session's end", |aws| {
            let mut sessions = aws.sessions.iter();
            aws.sessions.len() == 1 && sessions.all(|session| session.status == Status::Terminated)
        });
    ended.await.expect("AWS has ended it");
    let left = ["get", "ssml", "--output=name"];
    let gone = ask_until(WAIT_MAX, async || {
        installed.kubectl(&left).await.is_empty().then_some(())
    });
    assert!(gone.await.is_some(), "listeners are left");

    for pod in installed.pods.drain(..) {
        pod.process.stop().await.expect("it ends well");
    }
    // The rights to what is in the namespace went with it; those to end a session did not.
    let requests = installed.requests();
    let user = installed.user_namespace.as_str();
    let mut missed = refused(&requests);
    missed.retain(|request| {
        let gone = OF_THE_NAMESPACE.contains(&request.resource.as_str());
        !gone || request.namespace.as_deref() != Some(user)
    });
    assert!(missed.is_empty(), "the chart gives no right to {missed:#?}");
    assert!(!requests.is_empty(), "the API server logs what it is asked");
    installed
        .helm(&["uninstall", &installed.release, "--no-hooks"])
        .await;
}
