//! How a session begins, what makes it unfit from the start, and how it ends.

use std::time::Duration;

use serde_json::{Value, json};
use ssm_session_operator::protocol::{End, Event, Read, ResetCause};

use crate::agent::{Agent, Destination, session_type};
use crate::wire;
use crate::world::{PERFECT, World};

fn ended(world: &World) -> Vec<&End> {
    let ends = world.events.iter().filter_map(|(_, event)| match event {
        Event::Ended(end) => Some(end),
        _ => None,
    });
    ends.collect()
}

fn port(properties: &Value) -> Value {
    session_type("Port", properties)
}

#[test]
fn the_handshake_tells_the_agents_version() {
    let mut world = World::new(PERFECT, 50, |agent| agent.version = "3.3.1142.0".to_owned());
    world.run_for(Duration::from_secs(1));
    let established = world.events.iter().find_map(|(_, event)| match event {
        Event::Established(established) => Some(established),
        _ => None,
    });
    let established = established.unwrap_or_else(|| panic!("{:?}", world.events));
    assert_eq!(established.agent_version, "3.3.1142.0");
    assert!(!established.keepalive);
    let [(_, response)] = world.agent.arrivals.as_slice() else {
        panic!("one response and nothing else: {:?}", world.agent.arrivals);
    };
    assert_eq!(response.payload_type, wire::HANDSHAKE_RESPONSE);
    assert_eq!(
        String::from_utf8_lossy(&response.payload),
        r#"{"ClientVersion":"1.2.764.0","ProcessedClientActions":[{"ActionType":"SessionType","ActionStatus":1,"ActionResult":null,"Error":""}],"Errors":null}"#
    );
}

#[test]
fn anything_but_a_port_session_with_the_multiplexer_is_unsupported() {
    let local = json!({"portNumber": "1", "type": "LocalPortForwarding"});
    let kms = json!({"ActionType": "KMSEncryption", "ActionParameters": {"KMSKeyId": "k"}});
    let good = json!([port(&local)]);
    for (version, actions, word) in [
        (
            "3.3.0.0",
            json!([session_type("Standard_Stream", &Value::Null)]),
            "Standard_Stream",
        ),
        (
            "3.3.0.0",
            json!([session_type("NonInteractiveCommands", &Value::Null)]),
            "NonInter",
        ),
        (
            "3.3.0.0",
            json!([port(&json!({"portNumber": "22"}))]),
            "multiplexer",
        ),
        (
            "3.3.0.0",
            json!([port(&json!({"type": ""}))]),
            "multiplexer",
        ),
        ("3.3.0.0", json!([port(&Value::Null)]), "multiplexer"),
        ("3.3.0.0", json!([port(&local), kms]), "KMSEncryption"),
        ("3.3.0.0", json!([]), "session type"),
        ("3.0.196.0", good.clone(), "3.0.196.0"),
        ("2.3.9999.0", good.clone(), "2.3.9999.0"),
        ("3.3.0", good.clone(), "3.3.0"),
        ("", good.clone(), "version"),
    ] {
        let mut world = World::new(PERFECT, 51, |agent| {
            agent.version = version.to_owned();
            agent.actions = actions.clone();
        });
        world.connect(b"too early");
        world.run_for(Duration::from_secs(20));
        let [End::Unsupported(why)] = ended(&world)[..] else {
            panic!("{version} {actions}: {:?}", world.events);
        };
        assert!(why.contains(word), "{why}");
        assert!(
            world.agent.arrivals.is_empty(),
            "nothing is answered to {actions}"
        );
        assert_eq!(world.session.open(), None);
        assert_eq!(
            world.session.read(3, 1),
            Read::Reset(ResetCause::SessionEnded)
        );
    }
    let first = |agent: &mut Agent| agent.version = "3.0.196.1".to_owned();
    let mut world = World::new(PERFECT, 51, first);
    world.run_for(Duration::from_secs(1));
    assert!(world.happened(|event| matches!(event, Event::Established(_))));
}

#[test]
fn output_before_a_handshake_is_unsupported() {
    let mut world = World::new(PERFECT, 52, |agent| {
        agent.send(wire::OUTPUT, b"sh-4.2$ ");
    });
    world.run_for(Duration::from_secs(1));
    assert!(
        matches!(ended(&world)[..], [End::Unsupported(_)]),
        "{:?}",
        world.events
    );
}

#[test]
fn words_of_the_agent_are_kept_at_a_length_for_people() {
    // A parser that quotes this makes six bytes of each.
    let long = "\u{7f}".repeat(100 << 10);
    let requests = [
        json!({"AgentVersion": "3.3.0.0", "RequestedClientActions": long}),
        json!({"AgentVersion": "3.3.0.0", "RequestedClientActions": [session_type(&long, &Value::Null)]}),
        json!({"AgentVersion": "3.3.0.0", "RequestedClientActions":
            [{"ActionType": "SessionType", "ActionParameters": long}]}),
        json!({"AgentVersion": long, "RequestedClientActions": []}),
    ];
    for request in requests {
        let request = serde_json::to_vec(&request).expect("plain data");
        let mut world = World::new(PERFECT, 54, |agent| {
            agent.send(wire::HANDSHAKE_REQUEST, &request);
        });
        world.run_for(Duration::from_secs(1));
        let [End::Violation(why) | End::Unsupported(why)] = ended(&world)[..] else {
            panic!("{:?}", world.events);
        };
        assert!(why.len() <= 1024, "{} bytes", why.len());
    }
    let zeros = format!("{}3.3.0.0", "0".repeat(100 << 10));
    let mut world = World::new(PERFECT, 54, |agent| agent.version = zeros);
    world.run_for(Duration::from_secs(1));
    let short = |event: &Event| matches!(event, Event::Established(established) if established.agent_version.len() <= 64);
    assert!(world.happened(short));
}

#[test]
fn a_handshake_that_can_not_be_read_is_a_violation() {
    let mut world = World::new(PERFECT, 53, |agent| {
        agent.send(wire::HANDSHAKE_REQUEST, b"{\"AgentVersion\":");
    });
    world.run_for(Duration::from_secs(1));
    assert!(
        matches!(ended(&world)[..], [End::Violation(_)]),
        "{:?}",
        world.events
    );
}

#[test]
fn no_data_is_sent_in_the_first_100_ms_after_the_handshake() {
    let mut world = World::new(PERFECT, 54, |_| {});
    world.connect(b"eager");
    world.run_for(Duration::from_secs(1));
    let established = world
        .events
        .iter()
        .find(|(_, event)| matches!(event, Event::Established(_)))
        .map(|(at, _)| *at)
        .expect("the handshake is complete");
    let first = world
        .sent
        .iter()
        .find(|(_, message)| wire::read(message).payload_type == wire::OUTPUT)
        .map(|(at, _)| *at)
        .expect("data was sent");
    assert_eq!(first - established, Duration::from_millis(100));
}

#[test]
fn an_old_agent_hears_a_keepalive_each_10_s_and_a_new_one_none() {
    for (version, nops) in [
        ("3.1.1511.0", 61),
        ("3.0.655.0", 61),
        ("3.1.1512.0", 0),
        ("3.3.0.0", 0),
    ] {
        let mut world = World::new(PERFECT, 55, |agent| agent.version = version.to_owned());
        world.run_for(Duration::from_secs(605));
        assert_eq!(world.agent.nops.len(), nops, "{version}");
        let longest = world
            .agent
            .nops
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .max();
        assert!(
            longest <= Some(Duration::from_millis(10_100)),
            "{version}: {longest:?}"
        );
    }
}

#[test]
fn a_channel_that_the_service_closes_says_why_and_leaves_unread_bytes_readable() {
    let mut world = World::new(PERFECT, 56, |agent| {
        agent.destination = Box::new(|_| Destination::Answers {
            answer: b"half an ans".to_vec(),
            closes_after: 9,
        });
    });
    let id = world.connect(b"?");
    world.clients.get_mut(&id).expect("it is there").pauses = true;
    world.run_for(Duration::from_secs(1));
    let closed = br#"{"MessageType":"channel_closed","MessageId":"00112233-4455-6677-8899-aabbccddeeff","DestinationId":"i-1","SessionId":"me-1","SchemaVersion":1,"CreatedDate":"","Output":"\n----------ERROR-------\nno such host"}"#;
    world.deliver(wire::write("channel_closed", 0, 0, 9, closed));
    let text = "----------ERROR------- no such host".to_owned();
    assert_eq!(ended(&world), [&End::Closed(text)]);
    world.clients.get_mut(&id).expect("it is there").pauses = false;
    world.run_for(Duration::from_mins(1));
    assert_eq!(world.clients[&id].heard, b"half an ans");
    assert_eq!(
        world.clients[&id].end,
        Some(Read::Reset(ResetCause::SessionEnded))
    );
    assert_eq!(world.session.poll_timeout(), None);
    world.deliver(wire::write("channel_closed", 0, 0, 10, b"not JSON"));
    assert_eq!(ended(&world).len(), 1, "it ends once");
}

#[test]
fn a_channel_may_be_closed_before_the_handshake_and_without_a_reason() {
    let mut world = World::new(PERFECT, 57, |_| {});
    world.deliver(wire::write("channel_closed", 0, 0, 9, b"{}"));
    world.run_for(Duration::from_secs(1));
    assert_eq!(ended(&world), [&End::Closed(String::new())]);
}

#[test]
fn frames_for_unknown_streams_and_empty_ones_are_passed_over() {
    let mut world = World::new(PERFECT, 59, |_| {});
    let id = world.connect(b"?");
    world.run_for(Duration::from_secs(1));
    for (command, stream, data) in [
        (wire::PSH, 99, &b"nobody"[..]),
        (wire::FIN, 99, b""),
        (wire::SYN, id, b""),
        (wire::SYN, 2, b""),
        (wire::NOP, 0, b""),
        (wire::PSH, id, b""),
        (wire::PSH, id, b"you"),
        (wire::FIN, id, b""),
        (wire::PSH, id, b"too late"),
    ] {
        world.agent.say(command, stream, data);
    }
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.clients[&id].heard, b"you");
    assert_eq!(world.clients[&id].end, Some(Read::Finished));
    assert!(ended(&world).is_empty());
}
