//! A role is assumed before anything is called, and again before its credentials expire.

use std::time::{Duration, SystemTime};

use aws_credential_types::provider::SharedCredentialsProvider;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use secrecy::ExposeSecret;
use serde_json::json;

use super::server::{Answer, Server};
use super::{identity, keys, later, options, request, session, ticket};
use crate::aws::credentials::ASK_PAUSE;
use crate::aws::{AwsBroker, AwsOptions};
use crate::broker::{
    Broker, ErrorKind, Identity, Role, SessionState, SignedHeaders, StreamUrl, UrlPolicy,
};

const ROLE: &str = "arn:aws:iam::111122223333:role/sessions";

/// The answer of STS: credentials with this access key that live so long.
fn assumed(access_key: &str, lifetime: Duration) -> Answer {
    let expires: jiff::Timestamp = (SystemTime::now() + lifetime).try_into().unwrap();
    let body = format!(
        "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>\
         <AssumedRoleUser><AssumedRoleId>AROAEXAMPLE:s</AssumedRoleId>\
         <Arn>arn:aws:sts::111122223333:assumed-role/sessions/s</Arn></AssumedRoleUser>\
         <Credentials><AccessKeyId>{access_key}</AccessKeyId><SecretAccessKey>SeCrEt</SecretAccessKey>\
         <SessionToken>token-of-{access_key}</SessionToken><Expiration>{expires}</Expiration></Credentials>\
         </AssumeRoleResult></AssumeRoleResponse>"
    );
    Answer::Http(200, String::new(), body)
}

/// As STS refuses.
fn refused(status: u16, code: &str, message: &str) -> Answer {
    let body = format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    );
    Answer::Http(status, String::new(), body)
}

fn role(external_id: Option<&str>) -> Role {
    Role {
        arn: ROLE.to_owned(),
        external_id: external_id.map(str::to_owned),
        session_name: "orders-cluster".to_owned(),
    }
}

/// A broker whose STS is `sts`, and the identity of a role whose SSM API is `ssm`.
fn broker(sts: &Server, ssm: &Server) -> (AwsBroker, Identity) {
    let broker = AwsBroker::new(AwsOptions {
        sts_endpoint: Some(sts.endpoint()),
        ..options()
    });
    let identity = Identity {
        role: Some(role(None)),
        ..identity(ssm)
    };
    (broker, identity)
}

const HOUR: Duration = Duration::from_hours(1);
/// Nearer to its end than credentials may be when a call begins.
const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_role_is_assumed_with_its_session_name_and_with_an_external_id_if_it_has_one() {
    for (external_id, expected) in [
        (Some("of/orders=1"), "&ExternalId=of%2Forders%3D1"),
        (None, ""),
    ] {
        let sts = Server::start([assumed("ASIAONE", HOUR)]).await;
        let ssm = Server::start([ticket()]).await;
        let (broker, identity) = broker(&sts, &ssm);
        let identity = Identity {
            role: Some(role(external_id)),
            ..identity
        };
        broker.start(&identity, &request()).await.unwrap();
        let asked = sts.requests();
        assert_eq!(asked.len(), 1);
        let body = format!(
            "Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A111122223333%3Arole%2Fsessions\
             &RoleSessionName=orders-cluster{expected}"
        );
        assert_eq!(asked[0].body, json!(body));
        assert_eq!(scopes(&sts), ["eu-central-1 sts"]);
        assert_eq!(keys(&sts), ["AKIDEXAMPLE"], "with the process's own");
    }
}

/// For which Region and service each request that a server got was signed.
fn scopes(server: &Server) -> Vec<String> {
    let requests = server.requests().into_iter();
    let scope = |authorization: &str| {
        let (_, credential) = authorization.split_once("Credential=").unwrap();
        let parts: Vec<_> = credential.split('/').collect();
        format!("{} {}", parts[2], parts[3])
    };
    requests
        .map(|request| scope(&request.headers["authorization"]))
        .collect()
}

#[tokio::test]
async fn sts_is_asked_in_the_process_own_region_and_ssm_in_that_of_the_class() {
    let sts = Server::start([assumed("ASIAONE", HOUR)]).await;
    let ssm = Server::start([ticket()]).await;
    let (_, near) = broker(&sts, &ssm);
    let in_region = |region: &str| Identity {
        region: region.to_owned(),
        ..near.clone()
    };
    let broker = AwsBroker::new(AwsOptions {
        sts_endpoint: Some(sts.endpoint()),
        region: Some("eu-central-1".to_owned()),
        ..options()
    });
    for region in ["eu-central-1", "us-east-1", "us-gov-west-1"] {
        broker.start(&in_region(region), &request()).await.unwrap();
    }
    // The third is of another partition, whose STS is the only one that knows its accounts.
    assert_eq!(
        scopes(&sts),
        ["eu-central-1 sts", "eu-central-1 sts", "us-gov-west-1 sts"]
    );
    assert_eq!(
        scopes(&ssm),
        ["eu-central-1 ssm", "us-east-1 ssm", "us-gov-west-1 ssm"]
    );
}

#[tokio::test]
async fn every_call_and_the_upgrade_are_signed_by_the_role_that_is_assumed_once() {
    let sts = Server::start([assumed("ASIAONE", HOUR)]).await;
    let page = Answer::ok(json!({ "Sessions": [] }));
    let ssm = Server::start([ticket(), ticket(), page, ticket()]).await;
    let (broker, identity) = broker(&sts, &ssm);
    broker.start(&identity, &request()).await.unwrap();
    broker.resume(&identity, &session()).await.unwrap();
    let described = broker.describe(&identity, SessionState::Active, &[], None);
    described.await.unwrap();
    broker.terminate(&identity, &session()).await.unwrap();
    assert_eq!(keys(&ssm), ["ASIAONE"; 4]);
    let url = StreamUrl::check(super::STREAM_URL, &identity, UrlPolicy::Strict).unwrap();
    let SignedHeaders(headers) = broker.sign_upgrade(&identity, &url).await.unwrap();
    let header = |name: &str| {
        let found = headers.iter().find(|(n, _)| n == name).unwrap();
        found.1.expose_secret().to_owned()
    };
    assert!(header("authorization").contains("Credential=ASIAONE/"));
    assert_eq!(header("x-amz-security-token"), "token-of-ASIAONE");
    assert_eq!(sts.requests().len(), 1);
}

#[tokio::test]
async fn two_roles_share_no_credentials() {
    let sts = Server::start([assumed("ASIAONE", HOUR), assumed("ASIATWO", HOUR)]).await;
    let ssm = Server::start([ticket()]).await;
    let (broker, one) = broker(&sts, &ssm);
    let two = Identity {
        role: Some(role(Some("other"))),
        ..one.clone()
    };
    let own = identity(&ssm);
    for identity in [&one, &two, &one, &own] {
        broker.start(identity, &request()).await.unwrap();
    }
    assert_eq!(keys(&ssm), ["ASIAONE", "ASIATWO", "ASIAONE", "AKIDEXAMPLE"]);
}

#[tokio::test]
async fn a_role_is_assumed_anew_before_its_credentials_expire() {
    let sts = Server::start([
        assumed("ASIAONE", MINUTE),
        assumed("ASIATWO", MINUTE),
        assumed("ASIATHREE", HOUR),
    ])
    .await;
    let ssm = Server::start([ticket()]).await;
    let (broker, identity) = broker(&sts, &ssm);
    for _ in 0..4 {
        broker.resume(&identity, &session()).await.unwrap();
        later(ASK_PAUSE).await;
    }
    assert_eq!(keys(&ssm), ["ASIAONE", "ASIATWO", "ASIATHREE", "ASIATHREE"]);
}

#[tokio::test]
async fn while_sts_refuses_what_it_gave_before_serves_until_it_expires() {
    let denied = refused(403, "AccessDenied", "no");
    let sts = Server::start([assumed("ASIAONE", MINUTE), denied.clone()]).await;
    let ssm = Server::start([ticket()]).await;
    let (broker, identity) = broker(&sts, &ssm);
    broker.start(&identity, &request()).await.unwrap();
    later(ASK_PAUSE).await;
    broker.resume(&identity, &session()).await.unwrap();
    assert_eq!(keys(&ssm), ["ASIAONE", "ASIAONE"]);
    assert_eq!(sts.requests().len(), 2);
}

#[tokio::test]
async fn a_role_that_may_not_be_assumed_denies_access_in_words_of_sts_and_heals() {
    let words =
        "User: arn:aws:sts::1:assumed-role/relay/s is not authorized to perform: sts:AssumeRole";
    let sts = Server::start([
        refused(403, "AccessDenied", words),
        assumed("ASIAONE", HOUR),
    ])
    .await;
    let ssm = Server::start([ticket()]).await;
    let (broker, identity) = broker(&sts, &ssm);
    for _ in 0..3 {
        let error = broker.start(&identity, &request()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::AccessDenied);
        assert_eq!(
            error.to_string(),
            format!("StartSession: AssumeRole: AccessDenied: {words}")
        );
    }
    assert_eq!(sts.requests().len(), 1, "not once for each call");
    assert_eq!(ssm.requests().len(), 0, "nothing is sent without the role");
    later(ASK_PAUSE).await;
    broker.start(&identity, &request()).await.unwrap();
    assert_eq!(keys(&ssm), ["ASIAONE"]);
}

#[tokio::test]
async fn a_refusal_of_sts_says_nothing_against_the_request() {
    for (status, code, kind) in [
        (400, "Throttling", ErrorKind::Throttled),
        (500, "InternalFailure", ErrorKind::Unavailable),
        (403, "ExpiredToken", ErrorKind::CredentialsUnavailable),
        (403, "RegionDisabledException", ErrorKind::AccessDenied),
        (400, "ValidationError", ErrorKind::CredentialsUnavailable),
    ] {
        let sts = Server::start([refused(status, code, "no")]).await;
        let ssm = Server::start([ticket()]).await;
        let (broker, identity) = broker(&sts, &ssm);
        let error = broker.start(&identity, &request()).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.starts_with("AssumeRole: "), "{error}");
        assert_eq!(ssm.requests().len(), 0, "{error}");
    }
}

/// A provider that has no credentials.
#[derive(Debug)]
struct Without;

impl ProvideCredentials for Without {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("no token is mounted")))
    }
}

#[tokio::test]
async fn who_has_no_credentials_of_its_own_can_assume_no_role_and_is_told_so() {
    let sts = Server::start([assumed("ASIAONE", HOUR)]).await;
    let ssm = Server::start([ticket()]).await;
    let (_, identity) = broker(&sts, &ssm);
    let broker = AwsBroker::new(AwsOptions {
        sts_endpoint: Some(sts.endpoint()),
        credentials: Some(SharedCredentialsProvider::new(Without)),
        ..options()
    });
    let error = broker.start(&identity, &request()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::CredentialsUnavailable);
    assert!(error.message.starts_with("AssumeRole: "), "{error}");
    assert!(error.message.contains("no token is mounted"), "{error}");
    assert_eq!(sts.requests().len(), 0);
}
