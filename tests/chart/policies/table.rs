//! A table of writes: who may make which, and with what words the others are refused. Each is tried as a dry run.

use std::path::Path;

use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};
use serde_json::{Value, json};

use crate::WAIT_MAX;
use crate::installed::Installed;
use crate::wait::ask_until;

/// Somebody, with the words in which a failure names them.
pub struct Who {
    name: &'static str,
    client: Client,
}

impl Who {
    /// Whoever has this kubeconfig.
    pub async fn of(name: &'static str, kubeconfig: &Path) -> Self {
        let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
        Self::with(name, kubeconfig).await
    }

    /// This user with every right, bound to no pod, as whom the administrator speaks.
    pub async fn named(name: &'static str, installed: &Installed, user: &str) -> Self {
        let mut kubeconfig = Kubeconfig::read_from(installed.ground.kubeconfig()).expect("one");
        let auth = kubeconfig.auth_infos[0].auth_info.as_mut();
        let auth = auth.expect("the administrator's");
        auth.impersonate = Some(user.to_owned());
        auth.impersonate_groups = Some(vec!["system:masters".to_owned()]);
        Self::with(name, kubeconfig).await
    }

    /// A row that is allowed.
    pub fn may<'a>(&'a self, verb: Verb, what: &'a What, change: &'a Value) -> Row<'a> {
        Row {
            who: self,
            verb,
            what,
            change,
            refusal: None,
        }
    }

    /// A row that is refused in these words.
    pub fn may_not<'a>(
        &'a self,
        verb: Verb,
        what: &'a What,
        change: &'a Value,
        words: &'static str,
    ) -> Row<'a> {
        Row {
            refusal: Some(words),
            ..self.may(verb, what, change)
        }
    }

    async fn with(name: &'static str, kubeconfig: Kubeconfig) -> Self {
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        let client = Client::try_from(config.expect("it names a cluster and a user"));
        let client = client.expect("it is good for a client");
        Self { name, client }
    }
}

/// One way of writing.
#[derive(Clone, Copy, Debug)]
pub enum Verb {
    /// Makes a new object.
    Create,
    /// Patches the object, by a merge patch.
    Merge,
    /// Writes the object as it is read now, with the change.
    Replace,
    /// The same of its status.
    Report,
    /// Deletes the object, whatever the change says.
    Delete,
}

/// What is written: an object that is there, or shall be.
pub struct What {
    resource: ApiResource,
    namespace: String,
    name: String,
}

impl What {
    /// An object of this kind.
    pub fn new<K: Resource<DynamicType = ()>>(namespace: &str, name: &str) -> Self {
        Self {
            resource: ApiResource::erase::<K>(&()),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    fn api(&self, client: &Client) -> Api<DynamicObject> {
        Api::namespaced_with(client.clone(), &self.namespace, &self.resource)
    }

    /// Deletes it for good.
    pub async fn delete(&self, who: &Who) {
        let params = DeleteParams::default();
        let deleted = self.api(&who.client).delete(&self.name, &params).await;
        deleted.expect("it is there, and may be deleted");
    }

    /// The object as it would be made, with this besides.
    fn made_of(&self, more: &Value) -> DynamicObject {
        let mut object = json!({
            "apiVersion": self.resource.api_version,
            "kind": self.resource.kind,
            "metadata": { "name": self.name, "namespace": self.namespace },
        });
        merge(&mut object, more);
        serde_json::from_value(object).expect("an object")
    }

    /// Writes it, or only asks whether that would be allowed.
    pub async fn write(
        &self,
        who: &Who,
        verb: Verb,
        change: &Value,
        dry_run: bool,
    ) -> kube::Result<DynamicObject> {
        let api = self.api(&who.client);
        let post = PostParams {
            dry_run,
            ..PostParams::default()
        };
        match verb {
            Verb::Create => api.create(&post, &self.made_of(change)).await,
            Verb::Merge => {
                let patch = PatchParams {
                    dry_run,
                    ..PatchParams::default()
                };
                api.patch(&self.name, &patch, &Patch::Merge(change)).await
            }
            Verb::Delete => {
                let params = DeleteParams {
                    dry_run,
                    ..DeleteParams::default()
                };
                let deleted = api.delete(&self.name, &params).await;
                deleted.map(|_| self.made_of(change))
            }
            Verb::Replace | Verb::Report => {
                let object = api.get(&self.name).await?;
                let mut object = serde_json::to_value(&object).expect("plain data");
                merge(&mut object, change);
                let object = serde_json::from_value(object).expect("an object");
                if matches!(verb, Verb::Replace) {
                    api.replace(&self.name, &post, &object).await
                } else {
                    api.replace_status(&self.name, &post, &object).await
                }
            }
        }
    }
}

/// Writes the change into the object as a merge patch does.
pub fn merge(object: &mut Value, change: &Value) {
    let Some(changes) = change.as_object() else {
        *object = change.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    let parts = object.as_object_mut().expect("it was made one");
    for (key, change) in changes {
        if change.is_null() {
            parts.remove(key);
        } else {
            merge(parts.entry(key).or_insert(Value::Null), change);
        }
    }
}

/// One row: who does what to which object, and with which words that is refused, if it is.
pub struct Row<'a> {
    who: &'a Who,
    verb: Verb,
    what: &'a What,
    change: &'a Value,
    refusal: Option<&'static str>,
}

/// Tries every row, and says of all of them which are not as they should be.
pub async fn hold(rows: &[Row<'_>]) {
    let mut wrong = Vec::new();
    for row in rows {
        let tried = ask_until(WAIT_MAX, async || {
            let Row {
                who,
                verb,
                what,
                change,
                ..
            } = row;
            match what.write(who, *verb, change, true).await {
                // Whoever owns the object has written it meanwhile.
                Err(kube::Error::Api(status)) if status.reason == "Conflict" => None,
                tried => Some(tried),
            }
        });
        let tried = tried.await.expect("nobody writes an object all the time");
        let said = tried.map(drop).map_err(|error| format!("{error:#}"));
        let right = match (&said, row.refusal) {
            (Ok(()), None) => true,
            (Err(said), Some(words)) => said.contains(words),
            (Ok(()), Some(_)) | (Err(_), None) => false,
        };
        if !right {
            let Row {
                who,
                verb,
                what,
                change,
                refusal,
            } = row;
            wrong.push(format!(
                "{}: {verb:?} {} {}, {change}: wanted {refusal:?}, got {said:?}",
                who.name, what.resource.kind, what.name
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
