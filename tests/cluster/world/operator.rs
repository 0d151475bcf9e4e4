//! Processes of the operator, with intervals as short as a test wants them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use kube::config::Kubeconfig;

use super::{WAIT_MAX, World};
use crate::dial;
use crate::process::Process;

impl World {
    /// Starts `all-in-one`.
    pub async fn all_in_one(&self, more: &[&str]) -> Process {
        let mut arguments = relay_arguments("relay-a");
        arguments.extend(controller_arguments(&self.namespace));
        self.start("all-in-one", "all-in-one", arguments, more)
            .await
    }

    /// Starts a controller.
    pub async fn controller(&self, more: &[&str]) -> Process {
        let arguments = controller_arguments(&self.namespace);
        self.start("controller", "controller", arguments, more)
            .await
    }

    /// Starts a relay.
    pub async fn relay(&self, name: &str, more: &[&str]) -> Process {
        self.start("relay", name, relay_arguments(name), more).await
    }

    /// Starts a drain, which keeps controllers drained for some seconds after its last renewal.
    pub async fn drain(&self, more: &[&str]) -> Process {
        let arguments = vec![
            "drain".to_owned(),
            format!("--namespace={}", self.operator_namespace),
            format!("--controller-name={}", self.controller_name()),
            "--log-filter=info,ssm_session_operator=trace".to_owned(),
            "--timeout=90s".to_owned(),
            // A drain that is late with its renewals, on a loaded machine, would be over.
            "--drain-duration=10s".to_owned(),
            "--quiet=2s".to_owned(),
        ];
        self.launch("drain", arguments, more).await
    }

    /// Runs a drain to its good end.
    pub async fn drained(&self) {
        let ended = self.drain(&[]).await.finish(WAIT_MAX).await;
        let (well, logged) = ended.expect("it ends");
        assert!(well, "{logged}");
    }

    async fn start(
        &self,
        command: &str,
        name: &str,
        arguments: Vec<String>,
        more: &[&str],
    ) -> Process {
        let mut all = vec![
            command.to_owned(),
            format!("--namespace={}", self.operator_namespace),
            format!("--controller-name={}", self.controller_name()),
            "--admin-address=127.0.0.1:0".to_owned(),
            "--lease-duration=1h".to_owned(),
            // Long enough for a loaded machine; the grace below must be longer than both together.
            "--aws-call-timeout=20s".to_owned(),
            "--record-timeout=10s".to_owned(),
            "--backoff-min=200ms".to_owned(),
            "--backoff-max=2s".to_owned(),
            "--log-filter=info,ssm_session_operator=trace".to_owned(),
        ];
        all.extend(arguments);
        self.launch(name, all, more).await
    }

    /// The kubeconfig of a process: the present one, with the token of the ServiceAccount that it has in a cluster.
    async fn kubeconfig_for(&self, arguments: &[String], log: &Path) -> PathBuf {
        let mut config = Kubeconfig::read_from(&self.kubeconfig).expect("a kubeconfig");
        let access = config.auth_infos[0].auth_info.as_mut();
        let access = access.filter(|access| access.token.is_some() && access.impersonate.is_none());
        let Some(access) = access else {
            // Somebody of the test's own.
            return self.kubeconfig.clone();
        };
        *access = self.credentials_of(arguments).await;
        let path = log.with_extension("kubeconfig");
        // JSON is YAML.
        let text = serde_json::to_string(&config).expect("plain data");
        fs::write(&path, text).expect("the world's folder takes a file");
        path
    }

    async fn launch(&self, name: &str, mut all: Vec<String>, more: &[&str]) -> Process {
        let number = fs::read_dir(&self.folder).map_or(0, Iterator::count);
        let log = self.folder.join(format!("{number}-{name}.log"));
        // The shell makes it in a fork, maybe after the next start has counted the files.
        File::create(&log).expect("the world's folder takes a file");
        // What a test says itself takes the place of what every test says.
        let name = |argument: &str| argument.split('=').next().unwrap_or_default().to_owned();
        all.retain(|argument| !more.iter().any(|own| name(own) == name(argument)));
        all.extend(more.iter().map(|argument| (*argument).to_owned()));
        let kubeconfig = self.kubeconfig_for(&all, &log).await;
        let mut environment = HashMap::from([
            ("KUBECONFIG", kubeconfig.display().to_string()),
            // Nobody asks for credentials beyond loopback.
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("AWS_ENDPOINT_URL_STS", self.simulator.endpoint()),
        ]);
        // Here too; and what is empty is not set at all.
        environment.extend(self.credentials.iter().cloned());
        environment.retain(|_, value| !value.is_empty());
        let environment: Vec<_> = environment.into_iter().collect();
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_ssm-session-operator"));
        Process::start(&log, &binary, &all, &environment)
            .await
            .expect("the operator starts")
    }
}

fn relay_arguments(name: &str) -> Vec<String> {
    [
        format!("--relay-name={name}"),
        "--listen-address=127.0.0.1".to_owned(),
        "--listen-address=::1".to_owned(),
        format!(
            "--advertise-address={},{}",
            dial::ADVERTISED_V4,
            dial::ADVERTISED_V6
        ),
        "--insecure-stream-urls".to_owned(),
        "--lease-renew=1s".to_owned(),
        "--hold=3s".to_owned(),
        "--external-end-delay=3s".to_owned(),
    ]
    .to_vec()
}

fn controller_arguments(namespace: &str) -> Vec<String> {
    [
        format!("--watch-namespace={namespace}"),
        "--poll-interval=300ms".to_owned(),
        "--grace=31s".to_owned(),
        "--stalled-after=2s".to_owned(),
        "--terminate-after=3s".to_owned(),
        "--relay-interval=200ms".to_owned(),
        "--mass-death-pause=1s".to_owned(),
        "--finalizer-timeout=10s".to_owned(),
        "--conflict-interval=500ms".to_owned(),
        "--election-duration=30s".to_owned(),
        "--election-renew-deadline=25s".to_owned(),
        "--election-retry=1s".to_owned(),
    ]
    .to_vec()
}
