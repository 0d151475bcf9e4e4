//! What a kubelet gives a container: the pod's token, the files of its volumes, and its environment.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, KeyToPath, Pod, Secret};
use kube::config::Kubeconfig;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use crate::dial;
use crate::ground::Ground;

/// What a pod is given, under a folder of the test's.
pub struct Given {
    /// Its token's kubeconfig.
    pub kubeconfig: PathBuf,
    /// Where the files are that the container sees at these paths.
    mounts: Vec<(String, PathBuf)>,
    client: Client,
}

impl Given {
    /// All that does not depend on the process.
    pub async fn to(ground: &Ground, folder: &Path, pod: &Pod) -> Self {
        let client = ground.client().await;
        Self {
            kubeconfig: kubeconfig(ground, folder, pod).await,
            mounts: mounts(&client, folder, pod).await,
            client,
        }
    }

    /// The container's variables, and where the API server is.
    pub async fn environment(&self, container: &Container, pod: &Pod) -> Vec<(String, String)> {
        let mut environment = Vec::new();
        for variable in container.env.iter().flatten() {
            let value = self.value(variable, pod).await;
            environment.push((variable.name.clone(), self.here(&value)));
        }
        let kubeconfig = self.kubeconfig.display().to_string();
        environment.push(("KUBECONFIG".to_owned(), kubeconfig));
        environment
    }

    /// A value, with the path under which its file or folder is to be found here if it is mounted.
    fn here(&self, value: &str) -> String {
        let mounted = self.mounts.iter().find(|(path, _)| path == value);
        mounted.map_or_else(|| value.to_owned(), |(_, at)| at.display().to_string())
    }

    async fn value(&self, variable: &EnvVar, pod: &Pod) -> String {
        let Some(source) = &variable.value_from else {
            return variable.value.clone().unwrap_or_default();
        };
        if let Some(secret) = &source.secret_key_ref {
            let data = secret_data(&self.client, pod, &secret.name).await;
            let value = data.get(&secret.key).expect("the Secret has the key");
            return String::from_utf8(value.clone()).expect("a variable is text");
        }
        let field = source.field_ref.as_ref();
        match field.map(|field| field.field_path.as_str()) {
            Some("metadata.name") => pod.name_any(),
            Some("status.podIPs") => {
                format!("{},{}", dial::ADVERTISED_V4, dial::ADVERTISED_V6)
            }
            _ => panic!("{variable:?} is of a kind that these tests do not know"),
        }
    }
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
    fs::write(&path, config.to_string()).expect("the folder takes a file");
    path
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

/// Writes what the pod's ConfigMaps and Secrets hold, and gives where its container sees that and where it is.
async fn mounts(client: &Client, folder: &Path, pod: &Pod) -> Vec<(String, PathBuf)> {
    let spec = pod.spec.as_ref().expect("a pod has a spec");
    let mut mounts = Vec::new();
    for volume in spec.volumes.iter().flatten() {
        let (data, items) = if let Some(source) = &volume.config_map {
            (
                config_map_data(client, pod, &source.name).await,
                &source.items,
            )
        } else if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().expect("it names one");
            (secret_data(client, pod, name).await, &source.items)
        } else {
            // The token, which a kubeconfig stands for.
            assert!(volume.projected.is_some(), "{volume:?} is of no known kind");
            continue;
        };
        let at = folder.join(pod.name_any()).join(&volume.name);
        fs::create_dir_all(&at).expect("the folder takes folders");
        for (path, value) in files(data, items.as_deref()) {
            fs::write(at.join(path), value).expect("the folder takes a file");
        }
        let containers = spec.containers.iter();
        let all = containers.flat_map(|container| container.volume_mounts.iter().flatten());
        let of_this = all.filter(|mount| mount.name == volume.name);
        mounts.extend(of_this.map(|mount| (mount.mount_path.clone(), at.clone())));
    }
    mounts
}

/// The files of a volume: each key, or those that are asked for.
fn files(
    mut data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
) -> Vec<(String, Vec<u8>)> {
    let Some(items) = items else {
        return data.into_iter().collect();
    };
    let file = |item: &KeyToPath| {
        let value = data.remove(&item.key).expect("it has the key");
        (item.path.clone(), value)
    };
    items.iter().map(file).collect()
}

async fn config_map_data(client: &Client, pod: &Pod, name: &str) -> BTreeMap<String, Vec<u8>> {
    let namespace = pod.namespace().expect("it has one");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let map = maps.get(name).await.expect("the ConfigMap is there");
    let data = map.data.into_iter().flatten();
    data.map(|(key, value)| (key, value.into_bytes())).collect()
}

async fn secret_data(client: &Client, pod: &Pod, name: &str) -> BTreeMap<String, Vec<u8>> {
    let namespace = pod.namespace().expect("it has one");
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let secret = secrets.get(name).await.expect("the Secret is there");
    let data = secret.data.into_iter().flatten();
    data.map(|(key, ByteString(value))| (key, value)).collect()
}
