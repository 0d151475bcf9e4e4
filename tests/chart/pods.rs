//! Processes in the place of pods: where no kubelet runs, each pod of the API server is started as its spec says.
//!
//! Arguments, environment and ServiceAccount are the pod's own, and the token is bound to it as the kubelet's is. What
//! differs: probes, metrics and listeners are on loopback, and stream URLs without TLS are trusted.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};
use kube::ResourceExt as _;
use kube::config::Kubeconfig;
use serde_json::json;

use crate::ground::Ground;
use crate::process::Process;
use crate::wait::ask_until;
use crate::{WAIT_MAX, dial, http};

/// The argument that is replaced.
const ADMIN: &str = "--admin-address=[::]:8080";

/// What EKS puts into a pod, as far as the simulator asks for it, and a variable that somebody left empty.
const BESIDES: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
    (
        "AWS_SECRET_ACCESS_KEY",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    ),
    ("AWS_EC2_METADATA_DISABLED", "true"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
];

/// A process in the place of a pod.
pub struct InPlace {
    /// The pod's name.
    pub pod: String,
    /// Its token's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The process.
    pub process: Process,
}

impl InPlace {
    /// Starts a pod's process, and waits until it is ready.
    pub async fn start(ground: &Ground, folder: &Path, pod: &Pod) -> Self {
        let name = pod.name_any();
        let container = container(pod);
        let kubeconfig = kubeconfig(ground, folder, pod).await;
        let environment = environment(container, &name, &kubeconfig);
        let process = Self::ready(folder, &name, &arguments(container), environment).await;
        Self {
            pod: name,
            kubeconfig,
            process,
        }
    }

    /// Starts a process with these arguments and this environment, and waits until it is ready.
    pub async fn ready(
        folder: &Path,
        name: &str,
        arguments: &[String],
        environment: Vec<(&str, String)>,
    ) -> Process {
        let mut process = launch(folder, name, arguments, environment).await;
        let admin = process.admin_address(WAIT_MAX).await;
        let admin = admin.expect("it serves probes");
        let ready = ask_until(WAIT_MAX, async || {
            let answer = http::get(&admin, "/readyz").await.ok()?;
            (answer.status == 200).then_some(())
        });
        let ready = ready.await.is_some();
        assert!(ready, "{name} does not get ready:\n{}", process.logged());
        process
    }

    /// Runs the process of a Job's pod to its end, and says of the pod what the kubelet would. Gives what it has logged.
    pub async fn finish(ground: &Ground, folder: &Path, pod: &Pod) -> String {
        let name = pod.name_any();
        let container = container(pod);
        let kubeconfig = kubeconfig(ground, folder, pod).await;
        let environment = environment(container, &name, &kubeconfig);
        let arguments = container.args.clone().expect("it has arguments");
        let process = launch(folder, &name, &arguments, environment).await;
        let ended = process.finish(WAIT_MAX).await;
        let (well, logged) = ended.expect("a Job ends by itself");
        let (phase, code) = if well {
            ("Succeeded", 0)
        } else {
            ("Failed", 1)
        };
        let status = json!({ "phase": phase, "containerStatuses": [{
            "name": container.name,
            "image": container.image,
            "imageID": "",
            "ready": false,
            "restartCount": 0,
            "state": { "terminated": { "exitCode": code } },
        }] });
        let namespace = format!("--namespace={}", pod.namespace().expect("it has one"));
        let patch = [
            "patch",
            "pod",
            &name,
            &namespace,
            "--subresource=status",
            "--type=merge",
            &format!("--patch={}", json!({ "status": status })),
        ];
        let said = ground.kubectl(&patch, "").await;
        said.expect("the administrator may do what a kubelet does");
        logged
    }
}

/// The only container of a pod.
fn container(pod: &Pod) -> &Container {
    let spec = pod.spec.as_ref().expect("a pod has a spec");
    let [container] = &spec.containers[..] else {
        panic!("{} has not one container", pod.name_any());
    };
    container
}

/// A kubeconfig with the token of a pod.
async fn kubeconfig(ground: &Ground, folder: &Path, pod: &Pod) -> PathBuf {
    let spec = pod.spec.as_ref().expect("a pod has a spec");
    let account = spec.service_account_name.as_deref();
    let token = token(ground, pod, account.expect("it has an account")).await;
    let config = Kubeconfig::read_from(ground.kubeconfig()).expect("a kubeconfig");
    let mut config = serde_json::to_value(&config).expect("plain data");
    config["users"][0]["user"] = json!({ "token": token });
    let path = folder.join(format!("{}.kubeconfig", pod.name_any()));
    // JSON is YAML.
    std::fs::write(&path, config.to_string()).expect("the folder takes a file");
    path
}

/// Starts the program, with credentials that the simulator takes.
async fn launch(
    folder: &Path,
    name: &str,
    arguments: &[String],
    mut environment: Vec<(&str, String)>,
) -> Process {
    environment.extend(BESIDES.map(|(name, value)| (name, value.to_owned())));
    let log = folder.join(format!("{name}.log"));
    let program = PathBuf::from(env!("CARGO_BIN_EXE_ssm-session-operator"));
    let process = Process::start(&log, &program, arguments, &environment).await;
    process.expect("it starts")
}

/// A token as the kubelet would ask for it.
async fn token(ground: &Ground, pod: &Pod, account: &str) -> String {
    let (name, uid) = (pod.name_any(), pod.uid().expect("it has one"));
    let namespace = pod.namespace().expect("it has one");
    let create = [
        "create",
        "token",
        account,
        &format!("--namespace={namespace}"),
        "--bound-object-kind=Pod",
        &format!("--bound-object-name={name}"),
        &format!("--bound-object-uid={uid}"),
    ];
    let token = ground.kubectl(&create, "").await;
    token
        .expect("the API server makes one")
        .out
        .trim()
        .to_owned()
}

fn arguments(container: &Container) -> Vec<String> {
    let mut arguments = container.args.clone().expect("it has arguments");
    let relays = arguments[0] != "controller";
    let admin = arguments.iter_mut().find(|argument| *argument == ADMIN);
    *admin.expect("the port of the probes is the chart's") = "--admin-address=127.0.0.1:0".into();
    if relays {
        let loopback = [
            "--listen-address=127.0.0.1",
            "--listen-address=::1",
            "--insecure-stream-urls",
        ];
        arguments.extend(loopback.map(str::to_owned));
    }
    arguments
}

/// The container's variables, with what the kubelet would put into them, and where the API server is.
fn environment<'a>(
    container: &'a Container,
    pod: &str,
    kubeconfig: &Path,
) -> Vec<(&'a str, String)> {
    let value = |variable: &EnvVar| {
        let Some(source) = &variable.value_from else {
            return variable.value.clone().unwrap_or_default();
        };
        let field = source
            .field_ref
            .as_ref()
            .map(|field| field.field_path.as_str());
        match field {
            Some("metadata.name") => pod.to_owned(),
            Some("status.podIPs") => {
                format!("{},{}", dial::ADVERTISED_V4, dial::ADVERTISED_V6)
            }
            _ => panic!("{variable:?} is of a kind that these tests do not know"),
        }
    };
    let variables = container.env.iter().flatten();
    let variables = variables.map(|variable| (variable.name.as_str(), value(variable)));
    let kubeconfig = ("KUBECONFIG", kubeconfig.display().to_string());
    variables.chain([kubeconfig]).collect()
}
