//! The release of `values/everything.yaml` as it stands, in a control plane in which nothing is: behind a proxy and with an
//! authority of its own, with a role in another account and names of its own for everything. It carries bytes, and once it
//! is uninstalled, with its kinds, while a session lives, nothing of it is left.

use k8s_openapi::api::core::v1::Service;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use ssm_session_operator::simulator::{
    AssumedRole, Operation, SessionView, SimulatorOptions, Status,
};

use crate::WAIT_MAX;
use crate::audit::refused;
use crate::aws::Aws;
use crate::ground::ground_of_everything;
use crate::http_proxy::Proxy;
use crate::installed::Installed;
use crate::programs::{chart, in_checkout};
use crate::rights::is;
use crate::transfer::dead;
use crate::wait::ask_until;

/// Hosts that the values name, or that follow from their Region.
const SSM: &str = "vpce-0123456789abcdef0-abcdefgh.ssm.eu-central-1.vpce.amazonaws.com";
const GATEWAY: &str = "vpce-0fedcba9876543210-abcdefgh.ssmmessages.eu-central-1.vpce.amazonaws.com";
const STS: &str = "sts.eu-central-1.amazonaws.com";

/// What AWS calls the gateway, also for those who reach it by an endpoint of their own.
const PUBLIC: &str = "ssmmessages.eu-central-1.amazonaws.com";

/// The proxy's password, and the header that shows it.
const PASSWORD: &str = "PrOxYpAsSwOrD";
const AUTHORIZATION: &str = "Basic b3BlcmF0b3I6UHJPeFlwQXNTd09yRA==";

#[tokio::test]
async fn everything_at_once_carries_bytes_and_leaves_nothing() {
    let ground = ground_of_everything().await;
    let aws = Aws::behind(&[SSM, GATEWAY, STS], PUBLIC).await;
    let at = aws.address();
    let names = [SSM, GATEWAY, STS].map(|host| format!("{host}:443"));
    let names: Vec<_> = names.iter().map(|name| (name.as_str(), at)).collect();
    let proxy = Proxy::start(&names, Some(AUTHORIZATION)).await;
    let proxy = proxy.expect("a proxy");
    let mut installed = Installed::with(ground, "everything", aws).await;
    installed.class = "standard".to_owned();
    what_the_values_name_is_there(&installed, &proxy).await;

    let values = in_checkout("tests/chart/values/everything.yaml");
    let values = format!("--values={}", values.display());
    let install = ["install", &installed.release, &chart(), &values];
    installed.helm(&install).await;
    installed.start_pods(6).await;
    installed.apply(&installed.session("a test")).await;
    let mut connection = installed.connect().await;
    let available = |session: &_| is(session, "Available", "True");
    let session = installed.wait_session("Available", available).await;
    assert!(is(&session, "Ready", "True"));

    let asked = proxy.asked();
    for (name, _) in &names {
        assert!(asked.iter().any(|to| to == name), "{name}: {asked:?}");
    }
    let other = asked
        .iter()
        .find(|to| names.iter().all(|(name, _)| name != to));
    assert_eq!(other, None, "only AWS is behind the proxy");
    let role = AssumedRole {
        role_arn: "arn:aws:iam::444455556666:role/platform/sessions".to_owned(),
        external_id: Some("my-cluster/standard".to_owned()),
        session_name: "my-cluster-standard".to_owned(),
        by: SimulatorOptions::default().owner_arn,
        token: None,
    };
    let roles = installed.aws.simulator().overview().assumed;
    assert!(
        !roles.is_empty() && roles.iter().all(|assumed| *assumed == role),
        "{roles:?}"
    );

    // With its kinds go the grants, and before them what they granted. The rights go while the processes still run.
    let requests = installed.requests();
    let refused = refused(&requests);
    assert!(
        !requests.is_empty() && refused.is_empty(),
        "the chart gives no right to {refused:#?}"
    );
    let logged = installed.uninstall().await;
    assert!(logged.contains("everything was let go"), "{logged}");
    dead(&mut connection, WAIT_MAX).await.expect("it is told");
    for pod in installed.pods.drain(..) {
        pod.process.kill().await.expect("its pod is deleted");
    }
    let ended = installed
        .aws
        .simulator()
        .wait_for("that all have ended", |aws| {
            let ended = |session: &SessionView| session.status == Status::Terminated;
            !aws.sessions.is_empty() && aws.sessions.iter().all(ended)
        });
    ended.await.expect("AWS has ended them");
    assert!(installed.aws.simulator().calls(Operation::TerminateSession) > 0);
    nothing_is_left(&installed).await;
    for (pod, log) in installed.logs() {
        assert!(!log.contains(PASSWORD), "{pod} tells the proxy's password");
    }
}

/// The Secret of the proxy, the ConfigMap of the authority, and one that is mounted besides.
async fn what_the_values_name_is_there(installed: &Installed, proxy: &Proxy) {
    let url = format!("http://operator:{PASSWORD}@{}", proxy.address());
    let object = |kind: &str, name: &str, field: &str, data: Value| {
        json!({
            "apiVersion": "v1",
            "kind": kind,
            "metadata": { "name": name, "namespace": installed.namespace() },
            field: data,
        })
    };
    let (secret, bundle) = (
        json!({ "https": url }),
        json!({ "bundle.pem": installed.aws.pem() }),
    );
    for object in [
        object("Secret", "corporate-proxy", "stringData", secret),
        object("ConfigMap", "corporate-ca", "data", bundle),
        object("ConfigMap", "more", "data", json!({ "key": "value" })),
    ] {
        installed.apply(&object).await;
    }
}

/// Neither in the operator's namespace, nor in the user's, nor of what belongs to no namespace.
async fn nothing_is_left(installed: &Installed) {
    let everything = "crds,clusterroles,clusterrolebindings,validatingadmissionpolicies,\
                      validatingadmissionpolicybindings";
    let ours = ["get", everything, "--output=name"];
    let home = "deployments,jobs,roles,rolebindings,networkpolicies,poddisruptionbudgets,\
                servicemonitors,prometheusrules";
    let home = ["get", home, "--output=name"];
    let left = async || {
        let cluster = installed.kubectl(&ours).await;
        let of_ours =
            |name: &&str| name.contains("ssm-operator.dev") || name.contains("/everything");
        let cluster: Vec<_> = cluster.lines().filter(of_ours).map(str::to_owned).collect();
        let home = installed.kubectl(&home).await;
        cluster.join("\n") + &home
    };
    let gone = ask_until(WAIT_MAX, async || left().await.is_empty().then_some(()));
    assert!(
        gone.await.is_some(),
        "of the release is left: {}",
        left().await
    );
    let user = &installed.user_namespace;
    let services: Api<Service> = Api::namespaced(installed.client.clone(), user);
    let services = services
        .list(&ListParams::default())
        .await
        .expect("services");
    let left: Vec<_> = services.items.iter().map(ResourceExt::name_any).collect();
    assert_eq!(left, Vec::<String>::new(), "Services of {user}");
}
