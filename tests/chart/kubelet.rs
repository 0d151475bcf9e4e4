//! What a kubelet gives a container: the pod's token, the files of its volumes, and its environment.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, KeyToPath, Pod, Secret, Volume};
use kube::config::Kubeconfig;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use crate::dial;
use crate::ground::Ground;

/// What a pod is given, under a folder of the test's.
pub struct Given {
    /// Its token's kubeconfig.
    pub kubeconfig: PathBuf,
    /// Its tokens for others than the API server.
    pub tokens: Vec<Token>,
    /// Where the files are that the container sees at these paths.
    mounts: Vec<(String, PathBuf)>,
    client: Client,
}

impl Given {
    /// All that does not depend on the process.
    pub async fn to(ground: &Ground, folder: &Path, pod: &Pod) -> Self {
        let client = ground.client().await;
        let tokens = tokens(folder, pod);
        for token in &tokens {
            token.renew(ground).await;
        }
        Self {
            kubeconfig: kubeconfig(ground, folder, pod).await,
            tokens,
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
        let mut here = self.mounts.iter().filter_map(|(path, at)| {
            let within = Path::new(value).strip_prefix(path).ok()?;
            Some(at.join(within))
        });
        let here = here.next();
        here.map_or_else(|| value.to_owned(), |here| here.display().to_string())
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
    assert!(spec.service_account_name.is_some(), "it has an account");
    let token = token(ground, &asking(pod, None)).await;
    let config = Kubeconfig::read_from(ground.kubeconfig()).expect("a kubeconfig");
    let mut config = serde_json::to_value(&config).expect("plain data");
    config["users"][0]["user"] = json!({ "token": token });
    let path = folder.join(format!("{}.kubeconfig", pod.name_any()));
    // JSON is YAML.
    fs::write(&path, config.to_string()).expect("the folder takes a file");
    path
}

/// A token in a file.
pub struct Token {
    /// The arguments by which kubectl asks for it.
    asking: Vec<String>,
    file: PathBuf,
}

impl Token {
    /// Puts a new one into the file, in one step.
    pub async fn renew(&self, ground: &Ground) {
        let new = self.file.with_extension("new");
        let written = fs::write(&new, token(ground, &self.asking).await);
        written
            .and_then(|()| fs::rename(&new, &self.file))
            .expect("the folder takes a file");
    }

    /// What is in the file.
    pub fn value(&self) -> String {
        fs::read_to_string(&self.file).expect("it is there")
    }
}

/// How kubectl asks for a pod's token, for the API server or for somebody else.
fn asking(pod: &Pod, audience: Option<&str>) -> Vec<String> {
    let spec = pod.spec.as_ref().expect("a pod has a spec");
    let account = spec.service_account_name.as_deref();
    let (name, uid) = (pod.name_any(), pod.uid().expect("it has one"));
    let namespace = pod.namespace().expect("it has one");
    let audience = audience.map(|audience| format!("--audience={audience}"));
    [
        "create".to_owned(),
        "token".to_owned(),
        account.expect("it has an account").to_owned(),
        format!("--namespace={namespace}"),
        "--bound-object-kind=Pod".to_owned(),
        format!("--bound-object-name={name}"),
        format!("--bound-object-uid={uid}"),
    ]
    .into_iter()
    .chain(audience)
    .collect()
}

/// A token as the kubelet would ask for it.
async fn token(ground: &Ground, asking: &[String]) -> String {
    let asking: Vec<_> = asking.iter().map(String::as_str).collect();
    let token = ground.kubectl(&asking, "").await;
    token
        .expect("the API server makes one")
        .out
        .trim()
        .to_owned()
}

/// The folder of a volume's files.
fn files_of(folder: &Path, pod: &Pod, volume: &Volume) -> PathBuf {
    let at = folder.join(pod.name_any()).join(&volume.name);
    fs::create_dir_all(&at).expect("the folder takes folders");
    at
}

/// The tokens in a pod's volumes that are for others than the API server.
fn tokens(folder: &Path, pod: &Pod) -> Vec<Token> {
    let spec = pod.spec.as_ref().expect("a pod has a spec");
    let mut tokens = Vec::new();
    for volume in spec.volumes.iter().flatten() {
        let sources = volume.projected.iter().flat_map(|all| &all.sources);
        for source in sources.flatten() {
            let token = source.service_account_token.as_ref();
            if let Some(token) = token.filter(|token| token.audience.is_some()) {
                tokens.push(Token {
                    asking: asking(pod, token.audience.as_deref()),
                    file: files_of(folder, pod, volume).join(&token.path),
                });
            }
        }
    }
    tokens
}

/// Writes what the pod's ConfigMaps and Secrets hold, and gives where its container sees that and where it is.
async fn mounts(client: &Client, folder: &Path, pod: &Pod) -> Vec<(String, PathBuf)> {
    let spec = pod.spec.as_ref().expect("a pod has a spec");
    let mut mounts = Vec::new();
    for volume in spec.volumes.iter().flatten() {
        let (data, items) = if let Some(source) = &volume.config_map {
            (
                config_map_data(client, pod, &source.name).await,
                source.items.as_deref(),
            )
        } else if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().expect("it names one");
            (
                secret_data(client, pod, name).await,
                source.items.as_deref(),
            )
        } else {
            // A token: a kubeconfig stands for that of the API server, and others are there.
            assert!(volume.projected.is_some(), "{volume:?} is of no known kind");
            (BTreeMap::new(), None)
        };
        let at = files_of(folder, pod, volume);
        for (path, value) in files(data, items) {
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
