//! What AWS says of sessions, in the status: what ended is written once, and nothing is written while nothing happens.

use std::collections::BTreeSet;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt as _;
use serde_json::json;
use ssm_session_operator::aws::{AwsBroker, AwsOptions};
use ssm_session_operator::broker::{Broker as _, Identity, Role, SessionId};
use ssm_session_operator::crd::SsmSession;
use ssm_session_operator::crd::listener::EndReason;
use ssm_session_operator::simulator::{Fault, Operation};

use crate::http;
use crate::looks::{ended, is_ready, live, message, port, status};
use crate::probes::value as sample;
use crate::transfer::exchange;
use crate::world::{REMOTE_PORT, WAIT_MAX, World, reason};

/// Somebody with access to AWS, and none to Kubernetes.
async fn terminate_in_aws(world: &World, session: &str) {
    terminate_in_aws_as(world, None, session).await;
}

/// Somebody who may assume the role with which a session was started.
pub async fn terminate_in_aws_as(world: &World, role: Option<Role>, session: &str) {
    let credentials = Credentials::new("AKIAOTHER", "SECRET", None, None, "test");
    let broker = AwsBroker::new(AwsOptions {
        credentials: Some(SharedCredentialsProvider::new(credentials)),
        sts_endpoint: Some(world.simulator.endpoint()),
        ..AwsOptions::default()
    });
    let identity = Identity {
        region: "eu-central-1".to_owned(),
        ssm_endpoint: Some(world.simulator.endpoint()),
        ssmmessages_endpoint: Some(world.simulator.endpoint()),
        role,
    };
    let session = SessionId::parse(session).expect("an id");
    let terminated = broker.terminate(&identity, &session).await;
    terminated.expect("AWS terminates it");
}

/// Whether a date is RFC 3339 in UTC with milliseconds at most.
fn is_aws_date(text: Option<&str>) -> bool {
    let Some(text) = text else { return false };
    let fraction = text
        .split_once('.')
        .map_or("", |(_, rest)| rest.trim_end_matches('Z'));
    text.parse::<Timestamp>().is_ok() && text.ends_with('Z') && fraction.len() <= 3
}

#[tokio::test]
async fn a_session_that_somebody_terminates_in_aws_is_recorded_once_and_followed_after_a_delay() {
    let world = World::new("terminated").await;
    // Long enough to be seen in the status while it lasts.
    let operator = world
        .all_in_one(&["--backoff-min=5s", "--backoff-max=5s"])
        .await;
    let mut following = world.follow("orders").await;
    world.create(&world.session("orders")).await;
    let mirrored = |session: &SsmSession| {
        is_ready(session) && live(session, "db").is_some_and(|session| session.start_date.is_some())
    };
    let before = following.until("a mirrored session", mirrored).await;
    let old = live(&before, "db").expect("a session").session_id;

    terminate_in_aws(&world, &old).await;
    let session = following
        .until("another session", |session| {
            is_ready(session)
                && ended(session, &old).is_some()
                && live(session, "db").is_some_and(|now| now.status.as_deref() == Some("Connected"))
        })
        .await;
    let waited = following.versions.iter().find(|session| {
        status(session).next_retry_time.is_some() && reason(session, "Reconciling") == "Retrying"
    });
    let words = message(
        waited.expect("it is not started again at once"),
        "Reconciling",
    );
    assert!(words.contains("closed"), "{words}");
    assert_eq!(world.simulator.sessions().len(), 2, "one follows");
    let end = ended(&session, &old).expect("an end");
    assert_eq!(end.end_reason, Some(EndReason::ClosedByService));
    assert_eq!(end.status.as_deref(), Some("Terminated"));
    assert!(
        end.duration
            .as_ref()
            .is_some_and(|duration| duration.ends_with('s')),
        "{end:?}"
    );
    assert!(is_aws_date(end.start_date.as_deref()), "{end:?}");
    assert!(is_aws_date(end.end_date.as_deref()), "{end:?}");

    let new = live(&session, "db").expect("a session").session_id;
    let told = [
        format!("SessionEnded: {old} ended: ClosedByService"),
        format!("SessionStarted: {old} was started for port db"),
        format!("SessionStarted: {new} was started for port db"),
    ];
    let events = async || {
        let mut events = world.events("orders").await;
        // Kubernetes may have something to say of the Service, which has the same name.
        events.retain(|event| event.starts_with("Session"));
        events.sort();
        events
    };
    world
        .until(
            "its Events",
            async || Ok(events().await.len() >= told.len()),
        )
        .await;

    let written = following
        .versions
        .iter()
        .filter_map(|session| ended(session, &old));
    let written: Vec<_> = written.collect();
    assert!(
        written.iter().all(|written| *written == end),
        "written once: {written:?}"
    );
    world.wait_polls(10).await;
    let mut told = told.to_vec();
    told.sort();
    assert_eq!(events().await, told, "each is told once");
    let now = world.sessions().get("orders").await.expect("the session");
    assert_eq!(
        now.resource_version(),
        session.resource_version(),
        "and then nothing is"
    );
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn nothing_is_written_and_nothing_is_called_but_polls_and_leases_while_nothing_happens() {
    let mut world = World::new("steady").await;
    let (tally, kubeconfig) = world.tally().await;
    world.kubeconfig = kubeconfig;
    // Each poll and each resync is a chance to write.
    let mut operator = world.all_in_one(&["--resync-interval=300ms"]).await;
    world.create(&world.session("orders")).await;
    let mirrored = |session: &SsmSession| {
        let status = live(session, "db").and_then(|session| session.status);
        is_ready(session) && status.as_deref() == Some("Connected")
    };
    let before = world.wait("orders", "a mirrored session", mirrored).await;
    let mut connection = world.dial("orders", "db").await;
    exchange(&mut connection, 1000, 1000)
        .await
        .expect("bytes arrive");
    let dialled = |session: &SsmSession| reason(session, "DestinationReachable") == "Dialled";
    let session = world.wait("orders", "the dial", dialled).await;
    let listener = world.listener(&before, "db").await;
    let address = operator.admin_address(WAIT_MAX).await.expect("it is told");
    let resyncs = async || {
        let metrics = http::get(&address, "/metrics").await?.body;
        let of = |kind| {
            format!(
                "ssm_operator_controller_reconciles_total{{kind=\"{kind}\",outcome=\"Success\"}}"
            )
        };
        let count = |kind| Ok::<_, anyhow::Error>(sample(&metrics, &of(kind)));
        anyhow::Ok((count("SsmSession")?, count("SsmListener")?))
    };
    // What the dial left to be done is done with the next resync.
    let wait_resyncs = async |more: u64| {
        let (sessions, listeners) = resyncs().await.expect("metrics");
        world
            .until("more resyncs", async || {
                let now = resyncs().await?;
                Ok(now.0 >= sessions + more && now.1 >= listeners + more)
            })
            .await;
    };
    wait_resyncs(2).await;
    let (asked, called) = (tally.counts(), world.simulator.overview().calls);

    world.wait_polls(20).await;
    wait_resyncs(20).await;
    let (asked_now, called_now) = (tally.counts(), world.simulator.overview().calls);
    let more = |what: &String| asked_now[what] > asked.get(what).copied().unwrap_or(0);
    let asked_for: Vec<&String> = asked_now.keys().filter(|what| more(what)).collect();
    let written: Vec<_> = asked_for
        .iter()
        .filter(|what| !what.starts_with("GET "))
        .collect();
    assert_eq!(written, [&"PUT leases"], "of {asked_for:?}");
    let called_for: Vec<&Operation> = called_now
        .keys()
        .filter(|operation| {
            called_now[operation] != called.get(operation).copied().unwrap_or_default()
        })
        .collect();
    assert_eq!(called_for, [&Operation::DescribeSessions]);

    exchange(&mut connection, 1000, 1000)
        .await
        .expect("bytes arrive");
    let now = world.sessions().get("orders").await.expect("the session");
    assert_eq!(now, session);
    assert_eq!(world.listener(&before, "db").await, listener);
    for what in ["POST services", "PUT ssmsessions/status", "POST events"] {
        assert!(asked.contains_key(what), "{what} is counted: {asked:?}");
    }
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn the_end_of_each_aws_session_of_a_deleted_session_is_told_once() {
    let world = World::new("told").await;
    let operator = world.all_in_one(&["--finalizer-timeout=1h"]).await;
    let ports: Vec<_> = (1..=8)
        .map(|number| port(&format!("p{number}"), number, REMOTE_PORT))
        .collect();
    let session = world.session_with("orders", json!({ "ports": ports }));
    world.create(&session).await;
    world.wait_ready("orders").await;
    // All of them are replaced: more ends than the history has room for.
    world.edit("orders", &json!({ "reason": "another" })).await;
    let mut told = BTreeSet::new();
    let wait_told = async |count: usize, told: &mut BTreeSet<String>| {
        world
            .until("all ends are told", async || {
                Ok(world.events_of("orders", "SessionEnded").await.len() >= count)
            })
            .await;
        told.extend(notes(&world.events_of("orders", "SessionEnded").await));
    };
    wait_told(8, &mut told).await;
    assert!(
        told.iter().all(|note| note.ends_with(" ended: Replaced")),
        "{told:?}"
    );
    world.wait_ready("orders").await;

    world.delete("orders").await;
    world.wait_gone("orders").await;
    wait_told(16, &mut told).await;
    operator.stop().await.expect("it ends well");
    let all = notes(&world.events_of("orders", "SessionEnded").await);
    assert_eq!(all.len(), 16, "each is told once: {all:?}");
    let ids: BTreeSet<String> = world
        .simulator
        .sessions()
        .into_iter()
        .map(|s| s.id)
        .collect();
    let told_ids = all.iter().filter_map(|note| note.split(' ').next());
    assert_eq!(told_ids.map(str::to_owned).collect::<BTreeSet<_>>(), ids);
    let deleted = all.iter().filter(|note| note.ends_with(" ended: Deleted"));
    assert_eq!(deleted.count(), 8, "{all:?}");
}

/// The words of Events, with each name and number in them.
fn notes(events: &[Event]) -> Vec<String> {
    let notes = events.iter().filter_map(|event| event.message.clone());
    notes.collect()
}

#[tokio::test]
async fn short_and_empty_pages_and_late_answers_confuse_nothing() {
    let world = World::new("pages").await;
    let pages = Fault::Pages {
        size_max: 1,
        empty: true,
    };
    world.simulator.inject(pages).expect("a fault");
    let late = Fault::ConsistencyDelay { milliseconds: 1000 };
    world.simulator.inject(late).expect("a fault");
    // Eight pages a poll: faster, and our own rate limiter would hold them back.
    let operator = world.all_in_one(&["--poll-interval=1s"]).await;
    let ports = [
        port("a", 1, REMOTE_PORT),
        port("b", 2, REMOTE_PORT),
        port("c", 3, REMOTE_PORT),
    ];
    world
        .create(&world.session_with("orders", json!({ "ports": ports })))
        .await;
    let all_shown = |session: &SsmSession| {
        let sessions = status(session).sessions;
        let connected = sessions
            .iter()
            .filter(|s| s.status.as_deref() == Some("Connected"));
        is_ready(session) && connected.count() == 3
    };
    let before = world
        .wait("orders", "three mirrored sessions", all_shown)
        .await;
    let doomed = live(&before, "b").expect("a session").session_id;
    world.wait_polls(5).await;
    let same = world.sessions().get("orders").await.expect("the session");
    assert_eq!(same.status, before.status);
    assert_eq!(same.resource_version(), before.resource_version());
    assert_eq!(world.simulator.sessions().len(), 3, "each was started once");
    assert_eq!(
        world.live_sessions().len(),
        3,
        "and none was taken for an orphan"
    );

    let ports = [port("a", 1, REMOTE_PORT), port("c", 3, REMOTE_PORT)];
    world.edit("orders", &json!({ "ports": ports })).await;
    let after = world
        .wait("orders", "the end of one", |session| {
            is_ready(session) && ended(session, &doomed).is_some()
        })
        .await;
    let end = ended(&after, &doomed).expect("an end");
    assert!(end.end_date.is_some() && end.duration.is_some(), "{end:?}");
    assert_eq!(status(&after).sessions.len(), 2);
    assert_eq!(
        world.simulator.sessions().len(),
        3,
        "nothing was started for it"
    );
    operator.stop().await.expect("it ends well");
}
