//! Processes in the place of pods: where no kubelet runs, each pod of the API server is started as its spec says.
//!
//! Arguments, environment, files and ServiceAccount are the pod's own, and the token is bound to it as the kubelet's is.
//! What differs: probes, metrics and listeners are on loopback.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt as _;
use serde_json::json;

use crate::eks::TOKEN_FILES;
use crate::ground::Ground;
use crate::installed::TRUSTED;
use crate::kubelet::{Given, Token};
use crate::process::Process;
use crate::wait::ask_until;
use crate::{WAIT_MAX, http};

/// The argument that is replaced.
const ADMIN: &str = "--admin-address=[::]:8080";

/// The variable that names whom a process trusts; without it, the image's bundle does.
const BUNDLE: &str = "SSL_CERT_FILE";

/// Keys that the simulator takes, for a pod without a role of its own.
const KEYS: [(&str, &str); 2] = [
    ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
    (
        "AWS_SECRET_ACCESS_KEY",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    ),
];

/// Nobody asks for credentials beyond loopback; and a variable that somebody left empty.
const BESIDES: [(&str, &str); 2] = [
    ("AWS_EC2_METADATA_DISABLED", "true"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
];

/// A process in the place of a pod.
pub struct InPlace {
    /// The pod's name.
    pub pod: String,
    /// Its token's kubeconfig.
    pub kubeconfig: PathBuf,
    /// Its tokens for others than the API server.
    pub tokens: Vec<Token>,
    /// The process.
    pub process: Process,
}

impl InPlace {
    /// Starts a pod's process, and waits until it is ready.
    pub async fn start(ground: &Ground, folder: &Path, pod: &Pod) -> Self {
        let name = pod.name_any();
        let container = container(pod);
        let given = Given::to(ground, folder, pod).await;
        let environment = given.environment(container, pod).await;
        let process = Self::ready(folder, &name, &arguments(container), environment).await;
        Self {
            pod: name,
            kubeconfig: given.kubeconfig,
            tokens: given.tokens,
            process,
        }
    }

    /// Starts a process with these arguments and this environment, and waits until it is ready.
    async fn ready(
        folder: &Path,
        name: &str,
        arguments: &[String],
        environment: Vec<(String, String)>,
    ) -> Process {
        let mut process = launch(folder, name, arguments, environment).await;
        let admin = process.admin_address(WAIT_MAX).await;
        let admin = admin.expect("it serves probes");
        let ready = ask_until(WAIT_MAX, async || {
            let answer = http::get(&admin, "/readyz").await.ok()?;
            (answer.status == 200).then_some(())
        });
        if ready.await.is_none() {
            let why = http::get(&admin, "/readyz").await.map(|answer| answer.body);
            panic!("{name} is not ready: {why:?}\n{}", process.logged());
        }
        process
    }

    /// Runs the process of a Job's pod to its end, and says of the pod what the kubelet would. Gives what it has logged.
    pub async fn finish(ground: &Ground, folder: &Path, pod: &Pod) -> String {
        let name = pod.name_any();
        let container = container(pod);
        let given = Given::to(ground, folder, pod).await;
        let environment = given.environment(container, pod).await;
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

/// Starts the program, with credentials that the simulator takes, and with the bundle of an image whose authorities
/// include the simulator's.
async fn launch(
    folder: &Path,
    name: &str,
    arguments: &[String],
    environment: Vec<(String, String)>,
) -> Process {
    let has_role = environment
        .iter()
        .any(|(name, _)| TOKEN_FILES.contains(&name.as_str()));
    let keys = if has_role { &KEYS[..0] } else { &KEYS[..] };
    let besides = keys.iter().chain(&BESIDES);
    let besides = besides.map(|(name, value)| (*name, (*value).to_owned()));
    let bundle = (BUNDLE, folder.join(TRUSTED).display().to_string());
    let own = environment.iter();
    let own = own.map(|(name, value)| (name.as_str(), value.clone()));
    // What is said twice is the pod's own.
    let all: Vec<_> = besides.chain([bundle]).chain(own).collect();
    let log = folder.join(format!("{name}.log"));
    let program = PathBuf::from(env!("CARGO_BIN_EXE_ssm-session-operator"));
    let process = Process::start(&log, &program, arguments, &all).await;
    process.expect("it starts")
}

fn arguments(container: &Container) -> Vec<String> {
    let mut arguments = container.args.clone().expect("it has arguments");
    let relays = arguments[0] != "controller";
    let admin = arguments.iter_mut().find(|argument| *argument == ADMIN);
    *admin.expect("the port of the probes is the chart's") = "--admin-address=127.0.0.1:0".into();
    if relays {
        let loopback = ["--listen-address=127.0.0.1", "--listen-address=::1"];
        arguments.extend(loopback.map(str::to_owned));
    }
    arguments
}
