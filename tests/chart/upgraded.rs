//! The first release in a control plane in which nothing is, and its upgrades: what did not change is left alone, what
//! changed reaches the sessions, and a class that is another's or that somebody edited is never undone.

use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use ssm_session_operator::crd::{SsmSession, SsmSessionClass};

use crate::WAIT_MAX;
use crate::ground::empty_ground;
use crate::installed::Installed;
use crate::programs::chart;
use crate::rights::is;
use crate::transfer::{dead, exchange};

/// As few bytes as say that a connection is alive.
const FEW_BYTES: u64 = 1000;

impl Installed {
    /// Upgrades the release to these values and `defaultClass`, with which it may have to be refused.
    async fn upgrade(&self, values: &Value, class: &Value) -> Result<(), String> {
        let mut values = values.clone();
        values["defaultClass"] = class.clone();
        let file = self.values(&values);
        let upgraded = self
            .try_helm(&["upgrade", &self.release, &chart(), &file])
            .await;
        upgraded.map(drop).map_err(|error| format!("{error:#}"))
    }

    /// The values of a class in this Region, with the simulator's endpoints.
    fn class_in(&self, name: &str, region: &str) -> Value {
        let endpoint = self.aws.endpoint();
        json!({
            "region": region,
            "name": name,
            "endpoints": { "ssm": endpoint, "ssmmessages": endpoint },
        })
    }
}

#[tokio::test]
async fn a_first_release_is_upgraded_and_keeps_its_hands_off_what_it_did_not_make() {
    let ground = empty_ground().await;
    let mut installed = Installed::prepare(ground, "fresh").await;
    let classes: Api<SsmSessionClass> = Api::all(installed.client.clone());
    let values = json!({});
    let in_frankfurt = installed.class_in("default", "eu-central-1");
    let in_dublin = installed.class_in("default", "eu-west-1");

    // The kinds come with it, and a default class.
    let mut first = values.clone();
    first["defaultClass"] = in_frankfurt.clone();
    installed.install(&first, &[]).await;
    installed.start_pods(4).await;
    let mut session = installed.session("a test");
    let spec = session["spec"].as_object_mut().expect("it has one");
    spec.remove("className");
    installed.apply(&session).await;
    let mut connection = installed.connect().await;
    let before = classes.get("default").await.expect("the chart made it");

    installed
        .upgrade(&values, &in_frankfurt)
        .await
        .expect("the same");
    let after = classes.get("default").await.expect("it is there");
    assert_eq!(after.uid(), before.uid(), "nothing changed");
    let alive = exchange(&mut connection, FEW_BYTES, FEW_BYTES).await;
    alive.expect("nothing changed");

    installed
        .upgrade(&values, &in_dublin)
        .await
        .expect("a change");
    let after = classes.get("default").await.expect("it was made anew");
    assert_eq!(after.spec.aws.region, "eu-west-1");
    dead(&mut connection, WAIT_MAX).await.expect("it is told");
    let replaced = |session: &SsmSession| {
        let status = session.status.as_ref();
        let mut ended = status.into_iter().flat_map(|status| &status.history);
        is(session, "Available", "True") && ended.next().is_some()
    };
    installed
        .wait_session("a session in Dublin", replaced)
        .await;
    installed.carry().await;

    classes_of_others_stay(&installed, &classes, &values).await;

    // The kinds are kept, and with them the class and the grant.
    let grant = installed.wait_session("the grant", |_| true).await.uid();
    let without = json!({ "crds": { "enabled": false } });
    installed
        .upgrade(&without, &in_dublin)
        .await
        .expect("the kinds stay");
    installed
        .upgrade(&values, &in_dublin)
        .await
        .expect("they come back");
    let session = installed.wait_session("the grant", |_| true).await;
    assert_eq!(session.uid(), grant);

    // The class stays with the kinds, and is taken up again.
    let before = classes.get("default").await.expect("it is there");
    installed.delete_session().await;
    for pod in installed.pods.drain(..) {
        pod.process.stop().await.expect("it ends well");
    }
    installed
        .helm(&["uninstall", &installed.release, "--no-hooks"])
        .await;
    let mut again = values.clone();
    again["defaultClass"] = in_dublin;
    installed.install(&again, &[]).await;
    let after = classes.get("default").await.expect("it was kept");
    assert_eq!(after.uid(), before.uid());
}

/// Classes that are not the release's, or not as it wrote them, are never written, and what to do is said.
async fn classes_of_others_stay(
    installed: &Installed,
    classes: &Api<SsmSessionClass>,
    values: &Value,
) {
    let endpoint = installed.aws.endpoint();
    let others = json!({
        "apiVersion": "ssm-operator.dev/v1alpha1",
        "kind": "SsmSessionClass",
        "metadata": { "name": "others" },
        "spec": {
            "controllerName": "example.com/others",
            "aws": { "region": "us-east-1", "endpoints": { "ssm": endpoint } },
        },
    });
    installed.apply(&others).await;
    let before = classes.get("others").await.expect("it was applied");
    let taken = installed.class_in("others", "eu-west-1");
    let said = installed.upgrade(values, &taken).await;
    let said = said.expect_err("it is nobody's of this release");
    assert!(
        said.contains("SsmSessionClass others is not of this release") && said.contains("nobody's"),
        "{said}"
    );
    let of_another = json!({ "metadata": { "annotations": {
        "ssm-operator.dev/release": "elsewhere/fresh"
    } } });
    patch(classes, "others", &of_another).await;
    let said = installed.upgrade(values, &taken).await;
    let said = said.expect_err("it is another release's");
    assert!(said.contains("of the release elsewhere/fresh"), "{said}");
    let after = classes.get("others").await.expect("it was left alone");
    assert_eq!((after.uid(), after.spec), (before.uid(), before.spec));

    // Somebody gives the release's own class a role, which the values do not know.
    let role = "arn:aws:iam::123456789012:role/sessions";
    let edited = json!({ "spec": { "aws": { "roleArn": role } } });
    patch(classes, "default", &edited).await;
    let in_dublin = installed.class_in("default", "eu-west-1");
    let said = installed.upgrade(values, &in_dublin).await;
    let said = said.expect_err("it would undo the edit");
    assert!(
        said.contains("SsmSessionClass default was changed since this release wrote it"),
        "{said}"
    );
    let edited = classes.get("default").await.expect("it was left alone");
    assert_eq!(edited.spec.aws.role_arn.as_deref(), Some(role));
    // Once the values know it, it is the release's again, and can be changed back.
    let mut with_role = in_dublin.clone();
    with_role["aws"] = json!({ "roleArn": role });
    installed
        .upgrade(values, &with_role)
        .await
        .expect("as it is");
    installed
        .upgrade(values, &in_dublin)
        .await
        .expect("a change");
    let mut renamed = values.clone();
    renamed["controllerName"] = json!("example.com/others");
    let said = installed.upgrade(&renamed, &in_dublin).await;
    let said = said.expect_err("its sessions would all be ended at once");
    assert!(said.contains("for good"), "{said}");
    // Nobody's, and just as the release would write it.
    let nobodys = json!({ "metadata": { "annotations": { "ssm-operator.dev/release": null } } });
    patch(classes, "default", &nobodys).await;
    let before = classes.get("default").await.expect("it is there");
    installed
        .upgrade(values, &in_dublin)
        .await
        .expect("nothing is to be written");
    let after = classes.get("default").await.expect("it is there");
    assert_eq!(after.uid(), before.uid());
    assert_eq!(after.spec.aws.role_arn, None);
    let release = json!({ "metadata": { "annotations": {
        "ssm-operator.dev/release": "fresh-operator/fresh"
    } } });
    patch(classes, "default", &release).await;
}

async fn patch(classes: &Api<SsmSessionClass>, name: &str, change: &Value) {
    let params = PatchParams::default();
    let patched = classes.patch(name, &params, &Patch::Merge(change)).await;
    patched.expect("the administrator may edit classes");
}
