//! The Job of the examples, with a test in the place of the kubelet: it waits for its session, uses it, and finishes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, Secret, Service};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::sessions::{NAMESPACE, Shop};
use super::{Example, example};
use crate::wait::ask_until;
use crate::world::{WAIT_MAX, carry};

/// What psql dials unless it is told otherwise.
const POSTGRES: i32 = 5432;

impl Shop {
    /// What kubectl prints in the examples' namespace.
    async fn kubectl(&self, arguments: &[&str]) -> String {
        let within = format!("--namespace={NAMESPACE}");
        let all = [&[&*within], arguments].concat();
        let printed = self.world.ground.kubectl(&all).await;
        printed.unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// What has to be there before the Job, as its head says.
    async fn create_secret(&self, example: &Example) {
        assert!(example.text.contains("the Secret nightly-report"));
        let create = ["create", "secret", "generic", "nightly-report"];
        let keys = ["--from-literal=username=u", "--from-literal=password=p"];
        self.kubectl(&[&create[..], &keys].concat()).await;
    }

    /// The pod that the Job's controller has made.
    async fn pod(&self, job: &str) -> Pod {
        let pods: Api<Pod> = Api::namespaced(self.world.client.clone(), NAMESPACE);
        let of_job = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
        let pod = ask_until(WAIT_MAX, async || {
            pods.list(&of_job).await.ok()?.items.into_iter().next()
        });
        pod.await.expect("the Job makes a pod")
    }

    /// The option by which kubectl has the token that the kubelet would give to a pod.
    async fn token(&self, pod: &Pod) -> String {
        let (name, uid) = (pod.name_any(), pod.uid().expect("it has one"));
        let account = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.service_account_name.as_deref());
        let create = [
            "create",
            "token",
            account.expect("it has an account"),
            "--bound-object-kind=Pod",
            &format!("--bound-object-name={name}"),
            &format!("--bound-object-uid={uid}"),
        ];
        format!("--token={}", self.kubectl(&create).await.trim())
    }

    /// The variables of a container, from Secrets too.
    async fn environment(&self, container: &Container) -> BTreeMap<String, String> {
        let secrets: Api<Secret> = Api::namespaced(self.world.client.clone(), NAMESPACE);
        let mut environment = BTreeMap::new();
        for variable in container.env.iter().flatten() {
            let value = if let Some(source) = &variable.value_from {
                let source = source.secret_key_ref.as_ref().expect("it is of a Secret");
                let secret = secrets.get(&source.name).await.expect("it is there");
                let value = secret.data.unwrap_or_default().remove(&source.key);
                let value = value.expect("the Secret has the key").0;
                String::from_utf8(value).expect("a variable is text")
            } else {
                variable.value.clone().unwrap_or_default()
            };
            environment.insert(variable.name.clone(), value);
        }
        environment
    }

    /// Dials as psql does with this environment, and carries bytes.
    async fn run_psql(&self, environment: &BTreeMap<String, String>) {
        for of_login in ["PGUSER", "PGPASSWORD", "PGDATABASE"] {
            assert!(!environment[of_login].is_empty(), "{of_login}");
        }
        let service = environment["PGHOST"].strip_suffix(&format!(".{NAMESPACE}.svc"));
        let service = service.expect("it is a Service of the namespace");
        let port = environment.get("PGPORT");
        let port = port.map_or(POSTGRES, |port| port.parse().expect("a port"));
        let services: Api<Service> = Api::namespaced(self.world.client.clone(), NAMESPACE);
        let ports = services.get(service).await.expect("it is there").spec;
        let mut ports = ports.and_then(|spec| spec.ports).into_iter().flatten();
        let dialled = ports.find(|candidate| candidate.port == port);
        let name = dialled.and_then(|port| port.name).expect("it has the port");
        carry(&mut self.world.dial(service, &name).await).await;
    }

    /// Says of a pod what the kubelet would when all of its containers have ended well.
    async fn succeed(&self, pod: &Pod) {
        let spec = pod.spec.as_ref().expect("a pod has a spec");
        let ended = |container: &Container| {
            json!({
                "name": container.name,
                "image": container.image,
                "imageID": "",
                "ready": false,
                "restartCount": 0,
                "state": { "terminated": { "exitCode": 0 } },
            })
        };
        let first = spec.init_containers.iter().flatten();
        let status = json!({ "status": {
            "phase": "Succeeded",
            "initContainerStatuses": first.map(ended).collect::<Vec<_>>(),
            "containerStatuses": spec.containers.iter().map(ended).collect::<Vec<_>>(),
        } });
        let patch = [
            "patch",
            "pod",
            &pod.name_any(),
            "--subresource=status",
            "--type=merge",
            &format!("--patch={status}"),
        ];
        self.kubectl(&patch).await;
    }
}

#[tokio::test]
async fn the_job_waits_for_its_session_uses_it_and_finishes_with_no_more_rights_than_it_brings() {
    let shop = Shop::new().await;
    let example = example("job.yaml");
    shop.create_secret(&example).await;
    shop.apply(&example).await;
    let job = example.object("Job")["metadata"]["name"].as_str();
    let job = job.expect("it has a name");
    let pod = shop.pod(job).await;
    let spec = pod.spec.as_ref().expect("a pod has a spec");
    let token = shop.token(&pod).await;
    let within = format!("--namespace={NAMESPACE}");
    let kubectl = async |arguments: &[&str]| {
        let all = [&[&*token, &*within], arguments].concat();
        shop.world.ground.kubectl(&all).await
    };
    let all = kubectl(&["get", "ssmsessions"]).await;
    let denied = all.expect_err("other sessions are none of its business");
    assert!(denied.to_string().contains("forbidden"), "{denied:#}");

    let [wait] = spec.init_containers.as_deref().unwrap_or_default() else {
        panic!("one container waits: {spec:?}");
    };
    let arguments = wait.args.iter().flatten().map(String::as_str);
    // It need not be as patient as in production; of two, the last counts.
    let arguments: Vec<_> = arguments.chain(["--timeout=90s"]).collect();
    let (waited, operator) = tokio::join!(kubectl(&arguments), shop.serve());
    let waited = waited.expect("the session becomes available");
    assert!(waited.contains("condition met"), "{waited}");

    let [report] = &spec.containers[..] else {
        panic!("one container reports: {spec:?}");
    };
    shop.run_psql(&shop.environment(report).await).await;
    shop.succeed(&pod).await;
    let complete = format!("job/{job}");
    let complete = [
        "wait",
        &complete,
        "--for=condition=Complete",
        "--timeout=90s",
    ];
    shop.kubectl(&complete).await;

    let live = shop.world.live_sessions();
    assert_eq!(live.len(), 1, "it stays for the next Job");
    let delete = ["delete", "--timeout=90s", "-f", &example.path()];
    shop.kubectl(&delete).await;
    shop.world.assert_nothing_is_left().await;
    shop.kubectl(&["delete", "secret", "nightly-report"]).await;
    operator.stop().await.expect("it ends well");
}
