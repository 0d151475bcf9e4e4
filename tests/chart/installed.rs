//! The chart, installed by helm into the real API server, with a simulated AWS and with a process in the place of each pod.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::{Value, json};
use ssm_session_operator::crd::{SsmListener, SsmSession};
use ssm_session_operator::simulator::Status;
use tokio::net::TcpStream;

use crate::audit::{Request, requests};
use crate::aws::{Aws, REMOTE_PORT, TARGET};
use crate::eks::Eks;
use crate::ground::Ground;
use crate::pods::InPlace;
use crate::programs::{Printed, chart, run, tools};
use crate::transfer::exchange;
use crate::wait::ask_until;
use crate::{WAIT_MAX, dial};

/// Some hundred messages each way: enough to see that bytes flow, and over at once.
const CARRIED_BYTES: u64 = 300_000;

/// For whoever reads why a test has failed.
const LOG_FILTER: &str = "info,ssm_session_operator=trace";

/// Whom the processes trust that have no bundle of their own: as the image's bundle, a file.
pub const TRUSTED: &str = "trusted.pem";

/// The session of all tests.
pub const SESSION: &str = "orders";

/// An installation in a namespace of its own.
pub struct Installed {
    /// Where it is installed.
    pub ground: &'static Ground,
    /// A client of this test's runtime, with the administrator's rights.
    pub client: Client,
    /// Name of the release; with `-operator` that of its namespace.
    pub release: String,
    /// Namespace of the user.
    pub user_namespace: String,
    /// Class of the sessions.
    pub class: String,
    /// What runs, while it runs.
    pub pods: Vec<InPlace>,
    /// What the class leads to.
    pub aws: Aws,
    /// Whom its pods are there.
    pub eks: Eks,
    folder: PathBuf,
}

impl Installed {
    /// Installs a release, and starts its pods: so many.
    pub async fn new(ground: &'static Ground, release: &str, values: &Value, pods: usize) -> Self {
        let mut installed = Self::prepare(ground, release).await;
        // The kinds were applied by kubectl before: docs/upgrade.md says so.
        let take_over = ["--take-ownership", "--force-conflicts"];
        installed.install(values, &take_over).await;
        installed.start_pods(pods).await;
        installed
    }

    /// All that a release needs around it; nothing is installed yet.
    pub async fn prepare(ground: &'static Ground, release: &str) -> Self {
        Self::with(ground, release, Aws::on_loopback().await).await
    }

    /// The same with an AWS of the caller's.
    pub async fn with(ground: &'static Ground, release: &str, aws: Aws) -> Self {
        let client = ground.client().await;
        let folder = std::env::temp_dir().join(format!("chart-{release}-{}", std::process::id()));
        let mut private = std::fs::DirBuilder::new();
        let made = private.recursive(true).mode(0o700).create(&folder);
        made.expect("the temporary folder takes a folder");
        let written = std::fs::write(folder.join(TRUSTED), aws.pem());
        written.expect("the folder takes a file");
        let installed = Self {
            ground,
            client,
            release: release.to_owned(),
            user_namespace: format!("{release}-user"),
            class: release.to_owned(),
            pods: Vec::new(),
            aws,
            eks: Eks::Nobody,
            folder,
        };
        for namespace in [installed.namespace(), installed.user_namespace.clone()] {
            let created = ground.create_namespace(&namespace).await;
            created.expect("the administrator may create namespaces");
        }
        installed
    }

    /// The operator's namespace.
    pub fn namespace(&self) -> String {
        format!("{}-operator", self.release)
    }

    /// Installs the release, with these options of helm.
    pub async fn install(&self, values: &Value, options: &[&str]) {
        let file = self.values(values);
        self.helm(&[&["install", &self.release, &chart(), &file], options].concat())
            .await;
    }

    /// The option that hands helm these values, and what all releases here have besides.
    pub fn values(&self, values: &Value) -> String {
        let endpoint = self.aws.endpoint();
        let file = self.folder.join("values.json");
        let mut all = json!({
            "log": { "filter": LOG_FILTER },
            "defaultClass": {
                "region": "eu-central-1",
                "name": self.release,
                // There is one in a cluster, and these are two.
                "isDefault": false,
                "endpoints": { "ssm": endpoint, "ssmmessages": endpoint },
            },
        });
        let values = values.as_object().expect("values are a map").clone();
        all.as_object_mut().expect("it is one").extend(values);
        std::fs::write(&file, all.to_string()).expect("the folder takes a file");
        format!("--values={}", file.display())
    }

    /// Runs helm in the operator's namespace.
    pub async fn helm(&self, arguments: &[&str]) {
        let ran = self.try_helm(arguments).await;
        ran.unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Runs helm, which may fail.
    ///
    /// # Errors
    ///
    /// What it has printed, when it fails.
    pub async fn try_helm(&self, arguments: &[&str]) -> Result<Printed> {
        let namespace = format!("--namespace={}", self.namespace());
        let kubeconfig = format!("--kubeconfig={}", self.ground.kubeconfig().display());
        let arguments = [arguments, &[namespace.as_str(), kubeconfig.as_str()]].concat();
        run(&tools().await.helm, &arguments, "").await
    }

    /// Waits until the API server has so many pods, and starts a process in the place of each.
    pub async fn start_pods(&mut self, number: usize) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace());
        let all = ask_until(WAIT_MAX, async || {
            let pods = pods.list(&ListParams::default()).await.ok()?.items;
            (pods.len() == number).then_some(pods)
        });
        let Some(all) = all.await else {
            let events = self.kubectl(&["get", "events"]).await;
            panic!("there are no {number} pods:\n{events}");
        };
        let starting = all.iter().map(async |pod| {
            let pod = self.eks.admit(&self.client, pod).await;
            InPlace::start(self.ground, &self.folder, &pod).await
        });
        self.pods = futures::future::join_all(starting).await;
    }

    /// Where logs and kubeconfigs are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What kubectl prints in the operator's namespace.
    pub async fn kubectl(&self, arguments: &[&str]) -> String {
        let namespace = format!("--namespace={}", self.namespace());
        let arguments = [arguments, &[namespace.as_str()]].concat();
        let printed = self.ground.kubectl(&arguments, "").await;
        printed.unwrap_or_else(|error| panic!("{error:#}")).out
    }

    /// What kubectl says when it fails, as it must.
    pub async fn refused(&self, arguments: &[&str], input: &Value) -> String {
        let answer = self.ground.kubectl(arguments, &input.to_string()).await;
        match answer {
            Ok(printed) => panic!("{arguments:?} is not refused: {printed:?}"),
            Err(error) => format!("{error:#}"),
        }
    }

    /// The usual session, with this reason, as of the class that came with the chart.
    pub fn session(&self, reason: &str) -> Value {
        json!({
            "apiVersion": "ssm-operator.dev/v1alpha1",
            "kind": "SsmSession",
            "metadata": { "name": SESSION, "namespace": self.user_namespace },
            "spec": {
                "className": self.class,
                "target": { "id": TARGET },
                "ports": [{ "name": "db", "port": 5432, "remotePort": REMOTE_PORT }],
                "reason": reason,
            },
        })
    }

    /// Applies an object as the administrator.
    pub async fn apply(&self, object: &Value) {
        let apply = ["apply", "--server-side", "--filename=-"];
        let applied = self.ground.kubectl(&apply, &object.to_string()).await;
        applied.unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Waits until the session is as it should be, and gives it.
    pub async fn wait_session(&self, what: &str, met: impl Fn(&SsmSession) -> bool) -> SsmSession {
        let sessions: Api<SsmSession> = Api::namespaced(self.client.clone(), &self.user_namespace);
        let session = ask_until(WAIT_MAX, async || {
            let session = sessions.get(SESSION).await.ok()?;
            met(&session).then_some(session)
        });
        match session.await {
            Some(session) => session,
            None => panic!("{what} did not come about:\n{}", self.last_words()),
        }
    }

    /// Carries bytes both ways through the session, over a new connection.
    pub async fn carry(&self) {
        self.connect().await;
    }

    /// A new connection, which carries bytes both ways.
    pub async fn connect(&self) -> TcpStream {
        let connection = ask_until(WAIT_MAX, async || {
            let endpoints = dial::endpoints(&self.client, &self.user_namespace, SESSION, "db");
            TcpStream::connect(endpoints.await.ok()?.first()?)
                .await
                .ok()
        });
        let Some(mut connection) = connection.await else {
            panic!("the Service leads nowhere:\n{}", self.last_words());
        };
        let carried = exchange(&mut connection, CARRIED_BYTES, CARRIED_BYTES).await;
        carried.expect("all bytes arrive");
        connection
    }

    /// Deletes the session, and waits until nothing is left of it.
    pub async fn delete_session(&self) {
        let namespace = format!("--namespace={}", self.user_namespace);
        let delete = ["delete", "ssms", SESSION, "--timeout=90s", &namespace];
        let deleted = self.ground.kubectl(&delete, "").await;
        if let Err(error) = deleted {
            panic!("{error:#}\n{}", self.last_words());
        }
        let listeners: Api<SsmListener> = Api::namespaced(self.client.clone(), &self.namespace());
        let gone = ask_until(WAIT_MAX, async || {
            let listeners = listeners.list(&ListParams::default()).await.ok()?;
            listeners.items.is_empty().then_some(())
        });
        assert!(
            gone.await.is_some(),
            "listeners are left:\n{}",
            self.last_words()
        );
        let ended = self.aws.simulator().wait_for("that all have ended", |aws| {
            let mut sessions = aws.sessions.iter();
            sessions.all(|session| session.status == Status::Terminated)
        });
        ended.await.expect("AWS has ended them");
    }

    /// What its processes have asked the API server for.
    pub fn requests(&self) -> Vec<Request> {
        requests(&self.ground.audit_log(), &self.namespace())
    }

    /// All that its processes have logged.
    pub fn logs(&self) -> Vec<(String, String)> {
        let files = std::fs::read_dir(&self.folder).expect("the folder is there");
        let paths = files.flatten().map(|file| file.path());
        paths
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .map(|path| {
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                let log = std::fs::read_to_string(&path).unwrap_or_default();
                (name.into_owned(), log)
            })
            .collect()
    }

    /// What its processes have logged last, but for their requests.
    pub fn last_words(&self) -> String {
        let mut words = Vec::new();
        for (name, log) in self.logs() {
            let own = log.lines().map(|line| format!("{name}: {line}"));
            let own: Vec<_> = own.collect();
            words.extend_from_slice(&own[own.len().saturating_sub(20)..]);
        }
        words.join("\n")
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: logs are in {}", self.release, self.folder.display());
            return;
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
