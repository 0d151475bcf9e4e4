//! What a process says of itself: whether it lives, whether it is ready, what it has counted.

use std::collections::BTreeSet;

use kube::Api;
use kube::api::DeleteParams;
use ssm_session_operator::crd::SsmSessionClass;

use crate::http::{self, Answer};
use crate::ownership::RELAY_RIGHTS;
use crate::process::Process;
use crate::transfer;
use crate::world::{TARGET, WAIT_MAX, World};

async fn get(process: &mut Process, path: &str) -> Answer {
    let address = process
        .admin_address(WAIT_MAX)
        .await
        .expect("it says where");
    http::get(&address, path).await.expect("it answers")
}

#[tokio::test]
async fn without_an_api_server_a_process_lives_and_is_not_ready_until_it_is_back() {
    let mut world = World::new("not-ready").await;
    let (forwarder, kubeconfig) = world.forwarder().await;
    forwarder.cut();
    world.kubeconfig = kubeconfig;
    let mut operator = world.all_in_one(&[]).await;
    operator
        .wait_for_log("the operator's namespace can't be read", WAIT_MAX)
        .await
        .expect("it says what it waits for");
    assert_eq!(get(&mut operator, "/livez").await.status, 200);
    let unready = get(&mut operator, "/readyz").await;
    assert_eq!(unready.status, 503);
    let lines = "[-] relay lease: the API server has not let it be written yet, or the relay ends\n\
                 [-] listeners listed: the API server has not listed them yet, or the relay ends\n\
                 [-] controller caches: the API server has not listed all that is watched yet\n";
    assert_eq!(unready.body, lines);

    forwarder.mend();
    let address = operator
        .admin_address(WAIT_MAX)
        .await
        .expect("it says where");
    world
        .until("ready", async || {
            Ok(http::get(&address, "/readyz").await?.status == 200)
        })
        .await;
    let ready = get(&mut operator, "/readyz").await;
    assert_eq!(ready.body.matches("[+]").count(), 3, "{}", ready.body);
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_relay_is_not_ready_before_it_may_read_and_hold_its_lease() {
    let mut world = World::new("no-lease").await;
    world.grant("a-relay", &RELAY_RIGHTS[..3]).await;
    world.kubeconfig = world.kubeconfig_of("a-relay");
    let mut relay = world.relay("relay-a", &[]).await;
    relay
        .wait_for_log("whose the namespace is can't be told", WAIT_MAX)
        .await
        .expect("it says what it waits for");
    let unready = get(&mut relay, "/readyz").await;
    assert_eq!(unready.status, 503);
    assert!(
        unready
            .body
            .starts_with("[-] relay lease: the API server has not let it be written yet"),
        "{}",
        unready.body
    );

    world.grant("a-relay", &RELAY_RIGHTS[3..]).await;
    let address = relay.admin_address(WAIT_MAX).await.expect("it says where");
    world
        .until("ready", async || {
            Ok(http::get(&address, "/readyz").await?.status == 200)
        })
        .await;
    relay.stop().await.expect("it ends well");
}

#[tokio::test]
async fn metrics_are_openmetrics_and_move_with_a_transfer() {
    let world = World::new("metrics").await;
    let mut operator = world.all_in_one(&[]).await;
    world.create(&world.session("orders")).await;
    world.wait_available("orders").await;
    let before = get(&mut operator, "/metrics").await;
    assert!(
        before
            .head
            .contains("content-type: application/openmetrics-text"),
        "{}",
        before.head
    );
    check(&before.body);

    let mut connection = world.dial("orders", "db").await;
    transfer::exchange(&mut connection, 300_000, 200_000)
        .await
        .expect("all bytes arrive");
    let during = get(&mut operator, "/metrics").await.body;
    check(&during);
    let moved = |name: &str| value(&during, name) - value(&before.body, name);
    assert!(moved("ssm_operator_relay_client_bytes_total{direction=\"Up\"}") >= 300_000);
    assert!(moved("ssm_operator_relay_client_bytes_total{direction=\"Down\"}") >= 200_000);
    assert_eq!(value(&during, "ssm_operator_relay_connections"), 1);
    assert_eq!(value(&during, "ssm_operator_relay_sessions"), 1);
    assert_eq!(
        value(&during, "ssm_operator_relay_sessions_started_total"),
        1
    );
    assert_eq!(value(&during, "ssm_operator_relay_listeners"), 1);
    assert!(value(&during, "ssm_operator_binding_status_writes_total") >= 1);
    assert!(value(&during, "ssm_operator_binding_lease_renewals_total") >= 1);
    assert_eq!(value(&during, "ssm_operator_controller_relays_alive"), 1);
    assert_eq!(
        value(&during, "ssm_operator_controller_listeners_unbound"),
        0
    );
    let reconciles =
        "ssm_operator_controller_reconciles_total{kind=\"SsmSession\",outcome=\"Success\"}";
    assert!(value(&during, reconciles) >= 1);
    assert!(during.contains("ssm_operator_build_info{version=\""));
    for count in [
        "controller_reconcile_duration_seconds_count{kind=\"SsmSession\"}",
        "relay_stream_wait_seconds_count",
        "relay_first_byte_seconds_count",
        "relay_round_trip_seconds_count",
        "aws_requests_total{operation=\"StartSession\",outcome=\"Success\"}",
        "aws_request_duration_seconds_count{operation=\"StartSession\"}",
    ] {
        assert!(
            value(&during, &format!("ssm_operator_{count}")) >= 1,
            "{count}"
        );
    }
    drop(connection);
    let id = &world.simulator.sessions()[0].id;

    world.delete("orders").await;
    world.wait_gone("orders").await;
    world.assert_nothing_is_left().await;
    let after = get(&mut operator, "/metrics").await.body;
    check(&after);
    // A series for each of what comes and goes would be kept for ever.
    for of_one in [id, "orders", TARGET] {
        let labelled = [&during, &after].iter().any(|shown| shown.contains(of_one));
        assert!(!labelled, "a label says {of_one}");
    }
    assert_eq!(
        value(
            &after,
            "ssm_operator_relay_sessions_ended_total{reason=\"Deleted\"}"
        ),
        1
    );
    assert_eq!(value(&after, "ssm_operator_relay_sessions"), 0);
    assert_eq!(value(&after, "ssm_operator_relay_listeners"), 0);
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn gauges_are_of_what_there_is_when_they_are_asked_for() {
    let world = World::new("gauges").await;
    let mut operator = world.all_in_one(&[]).await;
    let address = operator.admin_address(WAIT_MAX).await;
    let address = address.expect("it says where");
    let class = format!("class=\"{}\"", world.class);
    let sessions = format!("ssm_operator_controller_sessions{{{class}}}");
    let conditions = format!("ssm_operator_controller_session_conditions{{{class}");
    let serving = format!("{conditions},type=\"Available\",status=\"True\",reason=\"Serving\"}}");
    // As soon as the caches have it.
    let wait_shown = async |what: &str, is_shown: &dyn Fn(&str) -> bool| {
        let ask = async || Ok(is_shown(&http::get(&address, "/metrics").await?.body));
        world.until(what, ask).await;
    };
    let no_session =
        |shown: &str| shown.contains(&format!("{sessions} 0\n")) && !shown.contains(&conditions);
    wait_shown("a class without sessions", &no_session).await;

    world.create(&world.session("orders")).await;
    wait_shown("a session that is served", &|shown| {
        value(shown, &sessions) == 1 && value(shown, &serving) == 1
    })
    .await;

    world.delete("orders").await;
    world.wait_gone("orders").await;
    wait_shown("nothing of a session that is gone", &no_session).await;

    let classes: Api<SsmSessionClass> = Api::all(world.client.clone());
    let deleted = classes.delete(&world.class, &DeleteParams::default()).await;
    deleted.expect("the administrator may");
    let no_class = |shown: &str| !shown.contains(&class);
    wait_shown("nothing of a class that is gone", &no_class).await;
    operator.stop().await.expect("it ends well");
}

/// The value of a sample; one that is not there has counted nothing.
pub fn value(metrics: &str, sample: &str) -> u64 {
    let samples = metrics.lines().filter_map(|line| line.rsplit_once(' '));
    let mut found = samples.filter(|(name, _)| *name == sample);
    found
        .next()
        .map_or(0, |(_, value)| value.parse().expect("a whole number"))
}

/// Fails unless this is OpenMetrics: every sample belongs to a family that was announced before, and the end is said; and
/// unless the reference has every sample.
fn check(metrics: &str) {
    const REFERENCE: &str = include_str!("../../docs/reference/metrics.md");
    let lines = metrics
        .strip_suffix("# EOF\n")
        .expect("OpenMetrics ends with `# EOF`");
    let mut families = BTreeSet::new();
    for line in lines.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (what, name, text) = (words.next(), words.next(), words.next());
            match (what, name, text) {
                (Some("TYPE"), Some(name), Some("counter" | "gauge" | "histogram" | "info")) => {
                    assert!(
                        families.insert(name.to_owned()),
                        "{name} is announced twice"
                    );
                }
                (Some("HELP" | "UNIT"), Some(_), Some(_)) => {}
                _ => panic!("not a comment of OpenMetrics: {line}"),
            }
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').expect("a sample has a value");
        value.parse::<f64>().expect("the value is a number");
        let name = sample.split('{').next().unwrap_or_default();
        let endings = ["", "_total", "_info", "_bucket", "_sum", "_count"];
        let mut of = endings
            .iter()
            .filter_map(|ending| name.strip_suffix(ending));
        let family = of.find(|family| families.contains(*family));
        let family = family.unwrap_or_else(|| panic!("{line}"));
        let mut rows = [name, family]
            .into_iter()
            .map(|name| format!("| `{name}` |"));
        assert!(
            rows.any(|row| REFERENCE.contains(&row)),
            "docs/reference has no {name}"
        );
    }
    assert!(families.len() > 10, "{families:?}");
}
