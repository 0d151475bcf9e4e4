//! The broker against a scripted SSM API and a scripted STS on loopback.

mod credentials;
mod failures;
mod log;
mod metrics;
mod request_ids;
mod requests;
mod roles;
mod secrets;
mod server;

use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use serde_json::json;

use super::{AwsBroker, AwsOptions};
use crate::broker::{Identity, SessionId, StartRequest};
use server::{Answer, Server};

const TOKEN: &str = "AAEAAdFaKeToKeNsEcReT";
const STREAM_URL: &str =
    "wss://ssmmessages.eu-central-1.amazonaws.com/v1/data-channel/s?cell=CeLlSeCrEt";

/// Short where a test waits for a time to pass, long where it must not.
pub(super) fn options() -> AwsOptions {
    let credentials = Credentials::new(
        "AKIDEXAMPLE",
        "SeCrEtAcCeSsKeY",
        Some("SeSsIoNtOkEn".to_owned()),
        None,
        "test",
    );
    AwsOptions {
        retry_pause: Duration::from_millis(1),
        credentials: Some(SharedCredentialsProvider::new(credentials)),
        ..AwsOptions::default()
    }
}

/// A broker, and the identity whose API is `server`.
fn broker(server: &Server) -> (AwsBroker, Identity) {
    (AwsBroker::new(options()), identity(server))
}

fn identity(server: &Server) -> Identity {
    Identity {
        region: "eu-central-1".to_owned(),
        ssm_endpoint: Some(server.endpoint()),
        ssmmessages_endpoint: None,
        role: None,
    }
}

fn request() -> StartRequest {
    let parameters = [("host", "db.internal"), ("portNumber", "5432")];
    StartRequest {
        target: "i-0123456789abcdef0".to_owned(),
        document: "AWS-StartPortForwardingSessionToRemoteHost".to_owned(),
        parameters: parameters
            .map(|(k, v)| (k.to_owned(), vec![v.to_owned()]))
            .into(),
        reason: "orders report [ssm-operator abcdefgh/aaaqeayeaudaocajbifqydiob4]".to_owned(),
    }
}

fn session() -> SessionId {
    SessionId::parse("john-0a1b2c").unwrap()
}

fn ticket() -> Answer {
    Answer::ok(json!({ "SessionId": "john-0a1b2c", "TokenValue": TOKEN, "StreamUrl": STREAM_URL }))
}

/// Lets a time pass at once; sockets are waited for in real time.
async fn later(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// The access key of each request that a server got.
fn keys(server: &Server) -> Vec<String> {
    let requests = server.requests().into_iter();
    let key = |authorization: &str| {
        let (_, scope) = authorization.split_once("Credential=").unwrap();
        scope.split_once('/').unwrap().0.to_owned()
    };
    requests
        .map(|request| key(&request.headers["authorization"]))
        .collect()
}
