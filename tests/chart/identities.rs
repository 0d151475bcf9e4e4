//! The roles of pods on EKS, as docs/iam.md has them: by IRSA through a proxy, and by Pod Identity. Both carry bytes, outlive
//! their credentials and their tokens, and let the controller end what a relay left.

use serde_json::{Value, json};
use ssm_session_operator::simulator::{AssumedRole, Fault, Operation, SessionView, Status, Trust};

use crate::WAIT_MAX;
use crate::audit::refused;
use crate::aws::Aws;
use crate::eks::{Eks, REGION};
use crate::ground::ground;
use crate::http_proxy::Proxy;
use crate::installed::Installed;
use crate::kubelet::Token;
use crate::rights::{EVERYWHERE, is};
use crate::transfer::exchange;
use crate::wait::ask_until;

/// The public names of AWS: the class's, and of STS the pods' own.
const SSM: &str = "ssm.eu-central-1.amazonaws.com";
const GATEWAY: &str = "ssmmessages.eu-central-1.amazonaws.com";

/// As few bytes as say that a connection is alive.
const FEW_BYTES: u64 = 1000;

/// What the roles are called.
fn role(part: &str) -> String {
    format!("arn:aws:iam::123456789012:role/ssm-operator-{part}")
}

/// One controller and one relay, which is soon known to be dead.
fn values(release: &str) -> Value {
    let hasty = [
        "--poll-interval=300ms",
        "--terminate-after=3s",
        "--mass-death-pause=1s",
    ];
    json!({
        "crds": { "enabled": false },
        "controllerName": format!("example.com/{release}"),
        "watchNamespaces": [format!("{release}-user")],
        "admissionPolicy": { "exemptUsers": [EVERYWHERE] },
        "controller": { "replicas": 1, "extraArgs": hasty },
        "relay": { "replicas": 1 },
    })
}

impl Installed {
    /// The ServiceAccount of a part.
    fn account(&self, part: &str) -> String {
        let (namespace, release) = (self.namespace(), &self.release);
        format!("system:serviceaccount:{namespace}:{release}-ssm-session-operator-{part}")
    }

    /// Lets both parts have their roles, whose credentials are near to their end from the beginning.
    fn trust(&self) {
        let aws = self.aws.simulator();
        aws.inject(Fault::CredentialsLifetime { seconds: 60 })
            .expect("a fault");
        for part in ["controller", "relay"] {
            aws.trust(Trust {
                role_arn: role(part),
                subject: self.account(part),
            });
        }
    }

    fn assumed(&self) -> Vec<AssumedRole> {
        self.aws.simulator().overview().assumed
    }

    /// The only session.
    fn only_session(&self) -> SessionView {
        let sessions = self.aws.simulator().sessions();
        let [session] = &sessions[..] else {
            panic!("one session, not {sessions:?}");
        };
        session.clone()
    }

    /// Closes the session's websocket, and waits until it is back: for that the relay needs credentials.
    async fn come_back(&self) {
        let SessionView { id, resumed, .. } = self.only_session();
        let session = id.clone();
        let closed = self
            .aws
            .simulator()
            .inject(Fault::CloseWebsockets { session });
        closed.expect("it runs");
        let back = self.aws.simulator().wait_for("a resumed session", |aws| {
            let session = aws.session(&id);
            session.is_some_and(|session| session.resumed > resumed && session.client_attached)
        });
        back.await.unwrap_or_else(|error| {
            panic!("{error}\n{}", self.last_words());
        });
    }

    /// Carries bytes, renews both processes' tokens under a running connection, and lets the relay die. In all of it there
    /// is one session; nobody's token is logged, and nobody is refused anything.
    async fn outlives_its_credentials(&mut self) {
        self.apply(&self.session("a test")).await;
        let mut connection = self.connect().await;
        let available = |session: &_| is(session, "Available", "True");
        self.wait_session("Available", available).await;
        let mut secrets: Vec<_> = self.tokens();
        let first: Vec<_> = self.assumed();
        for token in self.pods.iter().flat_map(|pod| &pod.tokens) {
            token.renew(self.ground).await;
        }
        let renewed = ask_until(WAIT_MAX, async || {
            self.come_back().await;
            let old = |role: &&AssumedRole| first.iter().any(|first| first.token == role.token);
            let assumed = self.assumed();
            let mut parts = ["controller", "relay"].iter();
            let with_new = |part: &str| {
                let mut new = assumed.iter().filter(|role| !old(role));
                new.any(|new| new.by == self.account(part))
            };
            parts.all(|part| with_new(part)).then_some(())
        });
        assert!(renewed.await.is_some(), "{:?}", self.assumed());
        self.come_back().await;
        let alive = exchange(&mut connection, FEW_BYTES, FEW_BYTES).await;
        alive.expect("the connection is alive");
        assert_eq!(self.aws.simulator().calls(Operation::StartSession), 1);

        let mut pods = self.pods.iter();
        let relay = pods.position(|pod| pod.pod.contains("relay"));
        let relay = self.pods.remove(relay.expect("there is one"));
        secrets.extend(relay.tokens.iter().map(Token::value));
        relay.process.kill().await.expect("it can be killed");
        self.delete_session().await;
        assert_eq!(self.only_session().status, Status::Terminated);

        secrets.extend(self.tokens());
        secrets.extend(self.aws.simulator().issued_tokens());
        for (pod, log) in self.logs() {
            let told = secrets.iter().any(|secret| log.contains(secret));
            assert!(!told, "{pod} tells a secret");
        }
        let requests = self.requests();
        let refused = refused(&requests);
        assert!(
            refused.is_empty(),
            "the chart gives no right to {refused:#?}"
        );
        for pod in self.pods.drain(..) {
            pod.process.stop().await.expect("it ends well");
        }
    }

    /// The tokens that its pods have now.
    fn tokens(&self) -> Vec<String> {
        let tokens = self.pods.iter().flat_map(|pod| &pod.tokens);
        tokens.map(Token::value).collect()
    }
}

#[tokio::test]
async fn with_irsa_both_roles_have_the_session_name_of_the_chart_and_what_each_starts_the_other_ends()
 {
    let sts = format!("sts.{REGION}.amazonaws.com");
    let names = [SSM, GATEWAY, &sts];
    let aws = Aws::behind(&names, GATEWAY).await;
    let at = aws.address();
    let names = names.map(|host| format!("{host}:443"));
    let names: Vec<_> = names.iter().map(|name| (name.as_str(), at)).collect();
    let proxy = Proxy::start(&names, None).await.expect("a proxy");
    let mut installed = Installed::with(ground().await, "irsa", aws).await;
    installed.eks = Eks::Irsa;
    installed.trust();

    let mut values = values("irsa");
    values["proxy"] = json!({ "url": format!("http://{}", proxy.address()) });
    // Nothing but what an installation says that has no endpoints of its own.
    values["defaultClass"] = json!({
        "region": "eu-central-1",
        "name": "irsa",
        "isDefault": false,
    });
    for part in ["controller", "relay"] {
        values[part]["serviceAccount"] =
            json!({ "annotations": { "eks.amazonaws.com/role-arn": role(part) } });
    }
    installed.install(&values, &[]).await;
    installed.start_pods(2).await;
    installed.outlives_its_credentials().await;

    let id = installed.only_session().id;
    assert!(id.starts_with("ssm-session-operator-"), "{id}");
    for assumed in installed.assumed() {
        let part = ["controller", "relay"]
            .into_iter()
            .find(|part| assumed.by == installed.account(part));
        let said = AssumedRole {
            role_arn: role(part.expect("of one of both")),
            session_name: "ssm-session-operator".to_owned(),
            external_id: None,
            ..assumed.clone()
        };
        assert_eq!(assumed, said);
    }
    let asked = proxy.asked();
    let other = asked
        .iter()
        .find(|to| names.iter().all(|(name, _)| name != to));
    assert_eq!(other, None, "STS of the pods' own Region alone");
}

#[tokio::test]
async fn with_pod_identity_the_role_session_name_is_the_clusters_and_other_for_each_pod() {
    let mut installed = Installed::prepare(ground().await, "associated").await;
    let agent = format!("{}/v1/credentials", installed.aws.simulator().endpoint());
    installed.eks = Eks::PodIdentity(agent);
    installed.trust();
    installed.install(&values("associated"), &[]).await;
    installed.start_pods(2).await;
    installed.outlives_its_credentials().await;

    let id = installed.only_session().id;
    assert!(id.starts_with("eks-my-cluster-"), "{id}");
    let aws = installed.aws.simulator();
    assert_eq!(aws.calls(Operation::AssumeRoleWithWebIdentity), 0);
    let assumed = installed.assumed();
    let of_pod = |role: &AssumedRole| role.session_name.starts_with("eks-my-cluster-associated");
    assert!(assumed.iter().all(of_pod), "{assumed:?}");
}
