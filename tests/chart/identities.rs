//! The roles of pods on EKS, as docs/iam.md has them: by IRSA through a proxy, and by Pod Identity. Both carry bytes, outlive
//! their credentials and their tokens, and let the controller end what a relay left. The page's policies name these pods,
//! and the sessions that they start.

use std::fs;

use serde_json::{Value, json};
use ssm_session_operator::simulator::{AssumedRole, Fault, Operation, SessionView, Status, Trust};

use crate::WAIT_MAX;
use crate::audit::refused;
use crate::aws::Aws;
use crate::eks::{Eks, REGION};
use crate::ground::ground;
use crate::http_proxy::Proxy;
use crate::iam::{Context, Policy, session, shown};
use crate::installed::Installed;
use crate::kubelet::Token;
use crate::programs::{NAMESPACE, chart, in_checkout, objects, run, tools};
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

/// Where the page names sessions by the chart's role session name: what stands there.
const OWN_SESSIONS: &str = "session/ssm-session-operator-*";

/// Fails unless both policies of the page let this session be ended and opened, with these names of sessions in place of
/// the page's own.
fn assert_own(id: &str, named: &str) {
    for (part, action) in [
        ("relay", "ssm:ResumeSession"),
        ("relay", "ssm:TerminateSession"),
        ("relay", "ssmmessages:OpenDataChannel"),
        ("controller", "ssm:TerminateSession"),
    ] {
        let policy = shown(&format!("The {part}'s policy"), "json").remove(0);
        let policy = Policy::read(&policy.replace(OWN_SESSIONS, named));
        let allowed = policy.allows(action, &session(id), &[]);
        assert!(!allowed.is_empty(), "{part}: {action} of {id}");
    }
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
        // For the relay that dies, and long enough that none is taken for dead on a machine that is busy.
        "extraArgs": ["--lease-duration=30s"],
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
    assert_own(&id, OWN_SESSIONS);
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
    let named = "session/eks-my-cluster-*";
    let page = fs::read_to_string(in_checkout("docs/install.md"));
    let page = page.expect("it is in the checkout");
    let said = format!("put `{named}` into both policies in the place of `{OWN_SESSIONS}`");
    assert!(page.contains(&said), "{said}");
    assert_own(&id, named);
    let aws = installed.aws.simulator();
    assert_eq!(aws.calls(Operation::AssumeRoleWithWebIdentity), 0);
    let assumed = installed.assumed();
    let of_pod = |role: &AssumedRole| role.session_name.starts_with("eks-my-cluster-associated");
    assert!(assumed.iter().all(of_pod), "{assumed:?}");
}

/// The pods of the page's release: their ServiceAccounts, which are rendered, and the role session names that they are given.
async fn pods(mode: &str) -> Vec<(String, String)> {
    let (chart, mode) = (chart(), format!("--set=mode={mode}"));
    let namespace = format!("--namespace={NAMESPACE}");
    let template = [
        "template",
        "ssm-session-operator",
        &chart,
        &namespace,
        &mode,
    ];
    let rendered = run(&tools().await.helm, &template, "").await;
    let rendered = objects(&rendered.expect("it is rendered").out);
    let of_kind = |kind: &'static str| rendered.iter().filter(move |object| object["kind"] == kind);
    let pods = of_kind("Deployment").map(|deployment| {
        let pod = &deployment["spec"]["template"]["spec"];
        let account = &pod["serviceAccountName"];
        assert!(
            of_kind("ServiceAccount").any(|of| of["metadata"]["name"] == *account),
            "{account} is not made"
        );
        let mut variables = pod["containers"][0]["env"].as_array().into_iter().flatten();
        let named = variables.find(|variable| variable["name"] == "AWS_ROLE_SESSION_NAME");
        let word = |value: &Value| value.as_str().expect("a word").to_owned();
        let named = word(&named.expect("it is set")["value"]);
        (
            format!("system:serviceaccount:{NAMESPACE}:{}", word(account)),
            named,
        )
    });
    pods.collect()
}

/// Whether a trust policy of IRSA gives its role to a ServiceAccount by this role session name.
fn trusts(policy: &str, account: &str, named: &str) -> bool {
    let issuer = "oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLE";
    let provider = format!("arn:aws:iam::123456789012:oidc-provider/{issuer}");
    let (audience, subject) = (format!("{issuer}:aud"), format!("{issuer}:sub"));
    let context = [
        (audience.as_str(), "sts.amazonaws.com"),
        (subject.as_str(), account),
        ("sts:RoleSessionName", named),
    ];
    let principal = ("Federated", provider.as_str());
    Policy::read(policy).trusts(principal, "sts:AssumeRoleWithWebIdentity", &context)
}

#[tokio::test]
async fn the_trust_policies_of_irsa_name_the_service_accounts_of_the_chart_and_its_session_name() {
    let relays = shown("IRSA", "json").remove(0);
    // As the page says.
    let controllers = relays.replace("operator-relay\"", "operator-controller\"");
    let mut of_both: Value = serde_json::from_str(&relays).expect("JSON");
    let list = shown("One role for both", "json").remove(0);
    let list: Value = serde_json::from_str(&format!("{{{list}}}")).expect("a part of an object");
    let (key, accounts) = list
        .as_object()
        .and_then(|list| list.iter().next())
        .expect("a list");
    let equal = &mut of_both["Statement"][0]["Condition"]["StringEquals"];
    assert!(equal[key].is_string(), "{key}");
    equal[key] = accounts.clone();
    let of_both = of_both.to_string();

    let split = pods("split").await;
    assert_eq!(split.len(), 2);
    for (account, named) in &split {
        let is_relay = account.ends_with("-relay");
        assert_eq!(trusts(&relays, account, named), is_relay, "{account}");
        assert_eq!(trusts(&controllers, account, named), !is_relay, "{account}");
        assert!(trusts(&of_both, account, named), "{account}");
        assert!(!trusts(&of_both, account, "a-name-of-its-own"), "{account}");
    }
    let page = fs::read_to_string(in_checkout("docs/iam.md")).expect("it is in the checkout");
    assert!(page.contains("has one ServiceAccount, `…-all-in-one`"));
    let both = pods("all-in-one").await;
    let account = format!("system:serviceaccount:{NAMESPACE}:ssm-session-operator-all-in-one");
    assert_eq!(
        both.iter().map(|(of, _)| of).collect::<Vec<_>>(),
        [&account]
    );
}

#[test]
fn the_trust_policy_of_pod_identity_lets_pods_of_the_operators_namespace_in() {
    let policy = Policy::read(&shown("EKS Pod Identity", "json")[0]);
    let eks = ("Service", "pods.eks.amazonaws.com");
    for action in ["sts:AssumeRole", "sts:TagSession"] {
        let trusts = |namespace| {
            let context = [("aws:RequestTag/kubernetes-namespace", namespace)];
            policy.trusts(eks, action, &context)
        };
        assert!(trusts(NAMESPACE) && !trusts("shop"), "{action}");
    }
}

#[test]
fn the_policies_of_a_classes_role_are_for_that_class_and_for_both_parts() {
    let heading = "A role for each class, in this account or in another";
    let class = objects(&shown(heading, "yaml")[0]).remove(0);
    let aws = &class["spec"]["aws"];
    let word = |field: &str| aws[field].as_str().expect("the class says so");
    let [pods, trust, tags] = &shown(heading, "json")[..] else {
        panic!("one policy for the pods, one for the role, and a statement for Pod Identity");
    };
    let (assume, tag) = ("sts:AssumeRole", "sts:TagSession");
    for action in [assume, tag] {
        let allowed = Policy::read(pods).allows(action, word("roleArn"), &[]);
        assert!(!allowed.is_empty(), "{action}: {pods}");
    }
    let trust = Policy::read(trust);
    let tags = Policy::read(&format!(
        r#"{{"Version": "2012-10-17", "Statement": [{tags}]}}"#
    ));
    let (external, named) = (
        ("sts:ExternalId", word("externalId")),
        ("sts:RoleSessionName", word("sessionName")),
    );
    for part in ["controller", "relay"] {
        let pod = role(part);
        let trusts = |context: Context<'_>| trust.trusts(("AWS", pod.as_str()), assume, context);
        assert!(trusts(&[external, named]), "{part}");
        assert!(!trusts(&[named]) && !trusts(&[external]), "{part}");
        assert!(tags.trusts(("AWS", pod.as_str()), tag, &[]), "{part}");
    }
}
