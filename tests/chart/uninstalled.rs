//! A release comes to the kinds and objects of an operator of the past, is uninstalled while a client is connected, and is
//! installed again: nothing is stuck, AWS has ended what ran, and what was granted stays and is served again. When AWS lets
//! nothing end, nothing is deleted.

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::json;
use ssm_session_operator::crd::{SsmListener, SsmSession};
use ssm_session_operator::simulator::{Operation, Overview, Status};

use crate::WAIT_MAX;
use crate::documented::commands;
use crate::ground::ground_of_the_past;
use crate::installed::Installed;
use crate::past::Past;
use crate::pods::InPlace;
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

    async fn available(&self) -> SsmSession {
        self.wait_session("Available", |session| is(session, "Available", "True"))
            .await
    }

    /// The grant, once the AWS session of this id is over and another one serves it.
    async fn served_after(&self, id: &str) -> SsmSession {
        let served = |session: &SsmSession| {
            let mut ended = session.status.iter().flat_map(|status| &status.history);
            is(session, "Ready", "True") && ended.any(|ended| ended.session_id == id)
        };
        self.wait_session("served anew", served).await
    }

    /// Waits until AWS has ended all sessions but so many: it is at that for a moment after it has answered.
    async fn wait_live_sessions(&self, number: usize) {
        let ended = |status| matches!(status, Status::Terminated | Status::Failed);
        let live = |aws: &Overview| aws.sessions.iter().filter(|s| !ended(s.status)).count();
        let simulator = self.aws.simulator();
        let left = simulator.wait_for("sessions that run on", |aws| live(aws) == number);
        left.await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Nobody runs any more: does what the page says for that, with its own commands.
    async fn by_force(&self) {
        self.helm(&["uninstall", &self.release, "--no-hooks"]).await;
        let commands = commands("docs/upgrade.md", "By force");
        assert_eq!(commands.len(), 3, "listeners, sessions, and AWS");
        for command in &commands[..2] {
            let command = command.replace(
                "--namespace ssm-operator",
                &format!("--namespace {}", self.namespace()),
            );
            let ran = self.ground.shell(&command).await;
            ran.unwrap_or_else(|error| panic!("{command}\n{error:#}"));
        }
        let gone = ask_until(WAIT_MAX, async || {
            let all = "ssms,ssml,services,endpointslices";
            let left = ["get", all, "--all-namespaces", "--output=name"];
            let left = self.ground.kubectl(&left, "").await.ok()?;
            let of_the_cluster = |line: &&str| !line.ends_with("/kubernetes");
            left.out
                .lines()
                .find(of_the_cluster)
                .is_none()
                .then_some(())
        });
        assert!(gone.await.is_some(), "something is left");
        // AWS was not asked.
        self.wait_live_sessions(1).await;
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
        self.wait_live_sessions(0).await;

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
    let mut installed = Installed::prepare(ground_of_the_past().await, "home").await;
    let values = json!({
        "defaultClass": { "region": "" },
        "controller": { "extraArgs": ["--poll-interval=2s"] },
        // One drain fails, and takes that long, in the time that a hook's pod has.
        "drain": { "timeoutSeconds": 45 },
    });
    // What was there before the chart. Nothing of it runs, and in AWS a session does.
    let past = Past::left_in(&installed).await;
    let before = installed.available().await;
    installed.wait_live_sessions(1).await;

    installed.install(&values, &TAKE_OVER).await;
    installed.start_pods(4).await;
    let served = installed.served_after(&past.session_id).await;
    assert_eq!(served.uid(), before.uid(), "it is the same grant");
    past.is_taken_over(&installed).await;
    let mut connection = installed.connect().await;
    // Nothing is left of the old ones.
    installed.wait_live_sessions(1).await;
    let live = &served.status.expect("it has one").sessions[0].session_id;

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
    installed.served_after(live).await;
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

    installed.install(&values, &[]).await;
    installed.start_pods(4).await;
    installed.apply(&installed.session("a test")).await;
    installed.available().await;
    for pod in installed.pods.drain(..) {
        pod.process.kill().await.expect("none will run again");
    }
    installed.by_force().await;
}
