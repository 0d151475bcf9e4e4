//! What an operator of the past has left, as it was left: its kinds, its objects, and in AWS the session that was live when
//! its processes were killed.
//!
//! The objects were read from an API server, and others come to be here: with other UIDs, and with names and marks that
//! follow from these. They are made here as they were then, and that they are is shown by those that were read.

use std::fs;

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use ssm_session_operator::broker::Marker;
use ssm_session_operator::crd::{
    DEFAULT_CONTROLLER_NAME, LISTENER_FINALIZER, SsmListener, installation as installation_of,
    session_finalizer,
};

use crate::WAIT_MAX;
use crate::dial;
use crate::installed::{Installed, SESSION};
use crate::pods::InPlace;
use crate::programs::{in_checkout, objects};
use crate::wait::ask_until;

/// Its kinds.
pub const KINDS: &str = "tests/chart/past/crds";

/// Its objects, which are of the release `home`.
const OBJECTS: &str = "tests/chart/past/objects.yaml";

/// Where its AWS was.
const ENDPOINT: &str = "http://127.0.0.1:40419";

/// What is left of an operator of which nothing runs.
pub struct Past {
    /// The id of the AWS session that is live.
    pub session_id: String,
    /// The finalizer of the SsmSession.
    finalizer: String,
    /// The listener's name.
    listener: String,
    /// What is kept for the SsmSession, with the UIDs of all that.
    kept: String,
}

impl Past {
    /// Leaves all of it in a cluster that has the kinds of then, and in AWS.
    pub async fn left_in(installed: &Installed) -> Self {
        let mut left = Left::read();
        left.rename(&[ENDPOINT.to_owned(), installed.aws.endpoint()]);

        // Of each pair the first is as it was then.
        let namespaces: Api<Namespace> = Api::all(installed.client.clone());
        let namespace = namespaces.get(&installed.namespace()).await;
        let namespace = namespace.expect("it is there").uid().expect("it has one");
        let namespace = [left.uid("Namespace"), namespace];
        let installation = namespace.each_ref();
        let installation = installation.map(|uid| installation_of(uid, DEFAULT_CONTROLLER_NAME));
        left.rename(&installation);

        left.put(installed, "SsmSessionClass", &[]).await;
        let uid = left.put(installed, "SsmSession", &[]).await;
        let session = [left.uid("SsmSession"), uid];
        left.rename(&session);
        let listener = session.each_ref().map(|uid| listener_name(uid));
        left.rename(&listener);
        for family in ["IPv4", "IPv6"] {
            let slice = [0, 1].map(|of| slice_name(&installation[of], &listener[of], family));
            left.rename(&slice);
        }

        let uid = left.put(installed, "SsmListener", &[]).await;
        let uids = [left.uid("SsmListener"), uid];
        let marker = [0, 1].map(|of| Marker::new(&namespace[of], &uids[of]).append_to(""));
        left.rename(&marker);
        let live = left.object("SsmSession")["status"]["sessions"][0].take();
        let spec = left.object("SsmListener")["spec"].take();
        let request = json!({
            "Target": spec["target"],
            "DocumentName": spec["document"]["name"],
            "Parameters": spec["document"]["parameters"],
            "Reason": live["reason"],
        });
        let id = installed.aws.start_session(&request).await;
        let then = live["sessionId"].as_str().expect("it has one").to_owned();
        left.rename(&[then, id.clone()]);

        for kind in ["Service", "EndpointSlice", "Lease"] {
            left.put(installed, kind, &[]).await;
        }
        for kind in ["SsmSession", "SsmListener"] {
            left.put(installed, kind, &["--subresource=status"]).await;
        }
        Self {
            session_id: id,
            finalizer: session_finalizer(&installation[1]),
            kept: kept(installed, &session[1]).await,
            listener: listener[1].clone(),
        }
    }

    /// Everything is in the hands of whoever came after, and nothing of it says what was true then.
    pub async fn is_taken_over(&self, installed: &Installed) {
        let namespace = installed.namespace();
        let listeners: Api<SsmListener> = Api::namespaced(installed.client.clone(), &namespace);
        let listener = listeners.get(&self.listener).await.expect("it is there");
        assert_eq!(listener.finalizers(), [LISTENER_FINALIZER]);
        let status = listener.status.as_ref().expect("it has one");
        let is_there = |pod: &InPlace| pod.pod == status.relay;
        assert!(installed.pods.iter().any(is_there), "{status:?}");
        let mut sessions = status.sessions.iter();
        let old = sessions.find(|session| session.session_id == self.session_id);
        assert!(
            old.is_none_or(|old| old.ended_at.is_some()),
            "it is over: {old:?}"
        );

        let session = installed.wait_session("the grant", |_| true).await;
        assert_eq!(session.finalizers(), [self.finalizer.as_str()]);
        let uid = session.uid().expect("it has one");
        assert_eq!(kept(installed, &uid).await, self.kept, "it is all the same");
        let port = status.port.map(|port| u16::try_from(port).expect("a port"));
        let led = ask_until(WAIT_MAX, async || {
            let user = &installed.user_namespace;
            let led = dial::endpoints(&installed.client, user, SESSION, "db").await;
            let led = led.expect("the slices can be read");
            let is_now = led.iter().all(|endpoint| Some(endpoint.port()) == port);
            (led.len() == 2 && is_now).then_some(())
        });
        assert!(led.await.is_some(), "clients are led to a relay of then");
    }
}

/// The objects as they were read, and more and more as they are to be here.
struct Left {
    /// JSON: what is named anew is so in all of them.
    text: String,
}

impl Left {
    fn read() -> Self {
        let file = fs::read_to_string(in_checkout(OBJECTS)).expect("it is in the checkout");
        let text = json!(objects(&file)).to_string();
        Self { text }
    }

    /// Names something anew everywhere, where it has to be named.
    fn rename(&mut self, [then, now]: &[String; 2]) {
        assert!(self.text.contains(then), "nothing of then says {then}");
        self.text = self.text.replace(then, now);
    }

    fn all(&self, kind: &str) -> Vec<Value> {
        let mut all: Vec<Value> = serde_json::from_str(&self.text).expect("a list");
        all.retain(|object| object["kind"] == kind);
        all
    }

    fn object(&self, kind: &str) -> Value {
        self.all(kind).swap_remove(0)
    }

    fn uid(&self, kind: &str) -> String {
        let uid = &self.object(kind)["metadata"]["uid"];
        uid.as_str().expect("its UID was kept").to_owned()
    }

    /// Writes all of a kind, with these options of kubectl. Gives the UID that the last one has here.
    async fn put(&self, installed: &Installed, kind: &str, options: &[&str]) -> String {
        let mut uid = String::new();
        for mut object in self.all(kind) {
            let metadata = object["metadata"].as_object_mut().expect("it has some");
            metadata.remove("uid");
            let apply = [
                "apply",
                "--server-side",
                "--field-manager=ssm-session-operator-controller",
                "--output=jsonpath={.metadata.uid}",
                "--filename=-",
            ];
            let apply = [&apply[..], options].concat();
            let applied = installed.ground.kubectl(&apply, &object.to_string()).await;
            uid = applied.unwrap_or_else(|error| panic!("{error:#}")).out;
        }
        uid
    }
}

/// What is kept for an SsmSession: the kinds, names and UIDs.
async fn kept(installed: &Installed, session_uid: &str) -> String {
    let get = [
        "get",
        "ssmlisteners,services,endpointslices",
        "--all-namespaces",
        &format!("--selector=ssm-operator.dev/session-uid={session_uid}"),
        "--output=jsonpath={range .items[*]}{.kind} {.metadata.name} {.metadata.uid}{'\\n'}{end}",
    ];
    let kept = installed.ground.kubectl(&get, "").await;
    let kept = kept.unwrap_or_else(|error| panic!("{error:#}")).out;
    assert_eq!(kept.lines().count(), 4, "{kept}");
    kept
}

/// As the listener of the session's one port and replica was named.
fn listener_name(session_uid: &str) -> String {
    format!("l-{}", digest(&[session_uid, "db", "0"], 32))
}

/// As the slice of a listener and address family was named.
fn slice_name(installation: &str, listener: &str, family: &str) -> String {
    format!(
        "{SESSION}-{}",
        digest(&[installation, listener, family], 16)
    )
}

fn digest(parts: &[&str], digits: usize) -> String {
    let hash = Sha256::digest(parts.join("\0").as_bytes());
    let hex = hash.iter().map(|byte| format!("{byte:02x}"));
    hex.collect::<String>()[..digits].to_owned()
}
