//! The rules of a session's ports.

use serde_json::{Value, json};

use super::Rule;
use super::session::assert_session_rules;

/// One field of the only port.
fn port(field: &'static str, key: &str, takes: Value, refuses: Value, says: &'static str) -> Rule {
    let ports = |value: Value| {
        let mut port = json!({ "name": "postgres", "port": 5432, "remotePort": 5432 });
        port[key] = value;
        json!({ "ports": [port] })
    };
    Rule::spec(field, ports(takes), ports(refuses), says)
}

fn ports(count: u16) -> Value {
    let port = |i| json!({ "name": format!("p{i}"), "port": 1000 + i, "remotePort": 22 });
    json!({ "ports": (0..count).map(port).collect::<Vec<_>>() })
}

#[tokio::test]
async fn a_session_forwards_one_to_eight_distinct_ports() {
    let two = |first: Value, second: Value| json!({ "ports": [first, second] });
    let a = || json!({ "name": "a", "port": 1, "remotePort": 22 });
    let b = || json!({ "name": "b", "port": 2, "remotePort": 22 });
    assert_session_rules(vec![
        Rule::spec(
            "spec.ports",
            ports(1),
            json!({ "ports": null }),
            "Required value",
        ),
        Rule::spec("spec.ports", ports(1), ports(0), "at least 1 items"),
        Rule::spec(
            "spec.ports",
            ports(8),
            ports(9),
            "must have at most 8 items",
        ),
        Rule::spec(
            "spec.ports[1]",
            two(a(), b()),
            two(a(), a()),
            "Duplicate value",
        ),
        Rule::spec(
            "spec.ports",
            two(a(), b()),
            two(a(), json!({ "name": "b", "port": 1, "remotePort": 22 })),
            "give each port a number of its own in 'port'",
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_port_is_one_that_a_service_can_have_and_an_agent_can_dial() {
    let h2c = json!("kubernetes.io/h2c");
    assert_session_rules(vec![
        port(
            "spec.ports[0].name",
            "name",
            json!("5-a"),
            json!("Postgres"),
            "use lower-case letters",
        ),
        port(
            "spec.ports[0].name",
            "name",
            json!("a"),
            json!("a.b"),
            "use lower-case letters",
        ),
        port(
            "spec.ports[0].name",
            "name",
            json!("p".repeat(63)),
            json!("p".repeat(64)),
            "more than 63",
        ),
        port(
            "spec.ports[0].port",
            "port",
            json!(1),
            json!(0),
            "greater than or equal to 1",
        ),
        port(
            "spec.ports[0].port",
            "port",
            json!(65_535),
            json!(65_536),
            "less than or equal to 65535",
        ),
        port(
            "spec.ports[0].remotePort",
            "remotePort",
            json!(1),
            json!(0),
            "equal to 1",
        ),
        port(
            "spec.ports[0].remotePort",
            "remotePort",
            json!(65_535),
            json!(65_536),
            "equal to 65535",
        ),
        port(
            "spec.ports[0].remotePort",
            "remotePort",
            json!(22),
            json!("ssh"),
            "must be of type integer",
        ),
        port(
            "spec.ports[0].remotePort",
            "remotePort",
            json!(22),
            Value::Null,
            "Required value",
        ),
        port(
            "spec.ports[0].appProtocol",
            "appProtocol",
            h2c.clone(),
            json!("a/b/c"),
            "use a protocol's name",
        ),
        port(
            "spec.ports[0].appProtocol",
            "appProtocol",
            h2c,
            json!("-http"),
            "use a protocol's name",
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_remote_host_is_a_name_or_an_address_and_nothing_else() {
    assert_session_rules(vec![
        port(
            "spec.ports[0].remoteHost",
            "remoteHost",
            json!("db_1.shop.internal."),
            json!("a b"),
            "use a host name",
        ),
        port(
            "spec.ports[0].remoteHost",
            "remoteHost",
            json!("10.0.0.1"),
            json!("10.0.0.256"),
            "or an IP address",
        ),
        port(
            "spec.ports[0].remoteHost",
            "remoteHost",
            json!("fd00::1"),
            json!("[fd00::1]"),
            "without scheme, port, brackets",
        ),
        port(
            "spec.ports[0].remoteHost",
            "remoteHost",
            json!("db"),
            json!("https://db"),
            "without scheme",
        ),
        port(
            "spec.ports[0].remoteHost",
            "remoteHost",
            json!("d.b"),
            json!("db:5432"),
            "without scheme, port",
        ),
        port(
            "spec.ports[0].remoteHost",
            "remoteHost",
            json!("d".repeat(253)),
            json!("d".repeat(254)),
            "more than 253",
        ),
    ])
    .await;
}
