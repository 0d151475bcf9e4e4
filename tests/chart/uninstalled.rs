//! A release comes to the objects of an operator that kubectl applied, is uninstalled while a client is connected, and is
//! installed again: nothing is stuck, AWS has ended what ran, and what was granted stays and is served again. When AWS lets
//! nothing end, nothing is deleted.

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use ssm_session_operator::crd::{SsmListener, SsmSession};
use ssm_session_operator::simulator::{Operation, Status};

use crate::WAIT_MAX;
use crate::ground::ground_of_its_own;
use crate::installed::Installed;
use crate::pods::InPlace;
use crate::process::Process;
use crate::programs::Printed;
use crate::rights::is;
use crate::transfer::dead;
use crate::wait::ask_until;

/// What the README of the chart says of a first installation over what kubectl applied.
const TAKE_OVER: [&str; 2] = ["--take-ownership", "--force-conflicts"];

impl Installed {
    /// Uninstalls the release, and runs the pod of its hook meanwhile. Gives what the hook has logged.
    pub async fn uninstall(&self) -> String {
        let (uninstalled, logged) = self.try_uninstall().await;
        uninstalled.unwrap_or_else(|error| panic!("{error:#}\n{logged}"));
        logged
    }

    /// The same where it may fail, with what helm says.
    async fn try_uninstall(&self) -> (Result<Printed>, String) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace());
        let hook = async {
            let label = ListParams::default().labels("app.kubernetes.io/component=drain");
            // One of an earlier try may still be there.
            let is_new = |pod: &Pod| {
                let phase = pod
                    .status
                    .as_ref()
                    .and_then(|status| status.phase.as_deref());
                phase == Some("Pending") && pod.metadata.deletion_timestamp.is_none()
            };
            let pod = ask_until(WAIT_MAX, async || {
                pods.list(&label).await.ok()?.items.into_iter().find(is_new)
            });
            let pod = pod.await.expect("the hook's Job makes a pod");
            InPlace::finish(self.ground, self.folder(), &pod).await
        };
        let uninstall = ["uninstall", &self.release];
        let (logged, uninstalled) = tokio::join!(hook, self.try_helm(&uninstall));
        (uninstalled, logged)
    }

    /// Starts a process as somebody did who never had a chart: as the administrator, with the objects of this namespace.
    async fn by_hand(&self, command: &str, more: &[&str]) -> Process {
        let namespace = format!("--namespace={}", self.namespace());
        let common = [command, &namespace, "--admin-address=127.0.0.1:0"];
        let arguments: Vec<_> = common.iter().chain(more).map(ToString::to_string).collect();
        let kubeconfig = self.ground.kubeconfig().display().to_string();
        InPlace::ready(
            self.folder(),
            command,
            &arguments,
            vec![("KUBECONFIG".to_owned(), kubeconfig)],
        )
        .await
    }

    async fn available(&self) -> SsmSession {
        self.wait_session("Available", |session| is(session, "Available", "True"))
            .await
    }

    /// How many sessions AWS has not ended.
    fn live_sessions(&self) -> usize {
        let sessions = self.aws.simulator().sessions();
        let live = |status| !matches!(status, Status::Terminated | Status::Failed);
        sessions.iter().filter(|s| live(s.status)).count()
    }

    /// What was granted is there, nobody holds it, and nothing else of the operator is.
    async fn only_grants_are_left(&self) {
        let session = self
            .wait_session("the grant", |session| session.finalizers().is_empty())
            .await;
        assert!(session.metadata.deletion_timestamp.is_none());
        assert!(is(&session, "Ready", "False") && is(&session, "Available", "False"));
        let status = session.status.expect("it has one");
        assert!(status.sessions.is_empty() && !status.history.is_empty());
        let ready = &status.conditions[0];
        assert_eq!(ready.reason, "Draining", "{}", ready.message);
        let listeners: Api<SsmListener> = Api::namespaced(self.client.clone(), &self.namespace());
        let listeners = listeners.list(&ListParams::default()).await;
        assert!(listeners.expect("the kinds are there").items.is_empty());
        assert_eq!(self.live_sessions(), 0);

        let kept = ["get", "crds,ssmsessionclasses", "--output=name"];
        let kept = self.kubectl(&kept).await;
        let class = format!("ssmsessionclass.ssm-operator.dev/{}", self.release);
        for kind in ["ssmsessions", "ssmsessionclasses", "ssmlisteners"] {
            assert!(kept.contains(&format!("{kind}.ssm-operator.dev")), "{kept}");
        }
        assert!(kept.contains(&class), "{kept}");
        let gone = ask_until(WAIT_MAX, async || {
            let all = "deployments,jobs,pods,roles,rolebindings,networkpolicies";
            let left = self.kubectl(&["get", all, "--output=name"]).await;
            left.is_empty().then_some(())
        });
        assert!(gone.await.is_some(), "something of the release is left");
    }
}

#[tokio::test]
async fn grants_outlive_the_way_from_kubectl_to_the_chart_and_an_uninstallation() {
    let ground = ground_of_its_own().await;
    let mut installed = Installed::prepare(ground, "home").await;
    let values = json!({
        "defaultClass": { "region": "" },
        "controller": { "extraArgs": ["--poll-interval=2s"] },
        "drain": { "timeoutSeconds": 30 },
    });

    // What was there before the chart: kinds, a class and a session that kubectl applied, and processes.
    let controller = installed.by_hand("controller", &[]).await;
    let relay = by_hand_relay(&installed).await;
    installed.apply(&class(&installed)).await;
    installed.apply(&installed.session("a test")).await;
    let before = installed.available().await;
    installed.carry().await;
    relay.stop().await.expect("it ends well");
    controller.stop().await.expect("it ends well");

    installed.install(&values, &TAKE_OVER).await;
    installed.start_pods(4).await;
    let served = installed.available().await;
    assert_eq!(served.uid(), before.uid(), "it is the same grant");
    let mut connection = installed.connect().await;
    assert_eq!(
        installed.live_sessions(),
        1,
        "nothing is left of the old ones"
    );

    installed
        .aws
        .fail(Operation::TerminateSession, "InternalServerError", true);
    let (failed, logged) = installed.try_uninstall().await;
    installed.aws.fail(Operation::TerminateSession, "", false);
    let said = failed.map(|said| said.out).expect_err("AWS ends nothing");
    assert!(logged.contains("1 SsmListeners"), "{said:#}: {logged}");
    let deployments = installed
        .kubectl(&["get", "deployments,roles", "--output=name"])
        .await;
    assert_eq!(
        deployments.lines().count(),
        4,
        "nothing was deleted: {deployments}"
    );
    dead(&mut connection, WAIT_MAX).await.expect("it is told");
    installed
        .wait_session("served anew", |session| {
            let history = session.status.iter().flat_map(|status| &status.history);
            is(session, "Ready", "True") && history.count() > 1
        })
        .await;
    let mut connection = installed.connect().await;

    let logged = installed.uninstall().await;
    assert!(logged.contains("everything was let go"), "{logged}");
    for pod in installed.pods.drain(..) {
        pod.process.kill().await.expect("its pod is deleted");
    }
    dead(&mut connection, WAIT_MAX).await.expect("it is told");
    installed.only_grants_are_left().await;

    installed.install(&values, &[]).await;
    installed.start_pods(4).await;
    installed.available().await;
    installed.carry().await;
    installed.delete_session().await;
    let logged = installed.uninstall().await;
    assert!(logged.contains("everything was let go"), "{logged}");
    for pod in installed.pods.drain(..) {
        pod.process.kill().await.expect("its pod is deleted");
    }
}

async fn by_hand_relay(installed: &Installed) -> Process {
    let advertised = format!(
        "--advertise-address={},{}",
        crate::dial::ADVERTISED_V4,
        crate::dial::ADVERTISED_V6
    );
    let options = [
        "--relay-name=by-hand",
        advertised.as_str(),
        "--listen-address=127.0.0.1",
        "--listen-address=::1",
    ];
    installed.by_hand("relay", &options).await
}

/// A class of the user's own, of the name that sessions of these tests ask for.
fn class(installed: &Installed) -> Value {
    let endpoint = installed.aws.endpoint();
    json!({
        "apiVersion": "ssm-operator.dev/v1alpha1",
        "kind": "SsmSessionClass",
        "metadata": { "name": installed.release },
        "spec": {
            "controllerName": "ssm-operator.dev/controller",
            "aws": {
                "region": "eu-central-1",
                "endpoints": { "ssm": endpoint, "ssmmessages": endpoint },
            },
        },
    })
}
