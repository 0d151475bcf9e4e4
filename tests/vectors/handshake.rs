//! The texts that open a data channel and shake hands on it, and what versions mean.

use ssm_session_operator::protocol::handshake::{
    HandshakeComplete, HandshakeRequest, HandshakeResponse, OpenDataChannel, ProcessedAction,
    RequestedAction, SessionTypeParameters, Version,
};
use uuid::uuid;

use crate::ID;

#[test]
fn the_frame_that_opens_a_data_channel_has_its_keys_in_this_order() {
    let text = r#"{"MessageSchemaVersion":"1.0","RequestId":"00112233-4455-6677-8899-aabbccddeeff","TokenValue":"AAEAAd/t==","ClientId":"feedface-cafe-4bad-7f88-99aabbccddee","ClientVersion":"1.2.764.0"}"#;
    let client = uuid!("feedface-cafe-4bad-7f88-99aabbccddee");
    let open = OpenDataChannel::new(ID, client, "AAEAAd/t==");
    assert_eq!(
        serde_json::to_string(&open).expect("it is plain data"),
        text
    );
    let read: OpenDataChannel = serde_json::from_str(text).expect("the same");
    assert_eq!(
        (read.token_value.as_str(), read.client_id),
        ("AAEAAd/t==", client)
    );
}

#[test]
fn a_handshake_request_is_this_json() {
    let text = r#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Port","Properties":{"host":"db.internal","portNumber":"5432","type":"LocalPortForwarding"}}},{"ActionType":"KMSEncryption","ActionParameters":{"Challenge":"AAECAwQFBgcICQoLDA0ODw==","KMSKeyId":"alias/k"}}]}"#;
    let session_type = SessionTypeParameters {
        session_type: "Port".to_owned(),
        properties: Some(serde_json::json!({
            "host": "db.internal", "portNumber": "5432", "type": "LocalPortForwarding",
        })),
    };
    let request: HandshakeRequest = serde_json::from_str(text).expect("it is what agents send");
    let [session, kms] = request.requested_client_actions.as_slice() else {
        panic!("two actions: {request:?}");
    };
    assert_eq!(request.agent_version, "3.3.0.0");
    assert_eq!(
        serde_json::from_value::<SessionTypeParameters>(session.action_parameters.clone()).ok(),
        Some(session_type)
    );
    assert_eq!(kms.action_type, "KMSEncryption");
    let RequestedAction { action_type, .. } = session;
    assert_eq!(action_type, "SessionType");
    // The keys of parameters are the agent's own; ours are sorted, as in this text.
    let parsed: serde_json::Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(serde_json::to_value(&request).expect("plain data"), parsed);
    let null = r#"{"SessionType":"Standard_Stream","Properties":null}"#;
    let null: SessionTypeParameters = serde_json::from_str(null).expect("only Port has them");
    assert_eq!(null.properties, None);
}

#[test]
fn a_handshake_response_is_this_json() {
    let text = r#"{"ClientVersion":"1.2.764.0","ProcessedClientActions":[{"ActionType":"SessionType","ActionStatus":1,"ActionResult":null,"Error":""}],"Errors":null}"#;
    let response = HandshakeResponse {
        client_version: "1.2.764.0".to_owned(),
        processed_client_actions: vec![ProcessedAction::success("SessionType")],
        errors: None,
    };
    assert_eq!(serde_json::to_string(&response).expect("plain data"), text);
    assert_eq!(
        serde_json::from_str::<HandshakeResponse>(text).expect("the same"),
        response
    );
    let refused = ProcessedAction::unsupported("KMSEncryption", "no key".to_owned());
    let text =
        r#"{"ActionType":"KMSEncryption","ActionStatus":3,"ActionResult":null,"Error":"no key"}"#;
    assert_eq!(serde_json::to_string(&refused).expect("plain data"), text);
}

#[test]
fn handshake_complete_is_this_json() {
    let text = r#"{"HandshakeTimeToComplete":93847261,"CustomerMessage":"Hello."}"#;
    let complete = HandshakeComplete {
        handshake_time_to_complete: 93_847_261,
        customer_message: "Hello.".to_owned(),
    };
    assert_eq!(serde_json::to_string(&complete).expect("plain data"), text);
    assert_eq!(
        serde_json::from_str::<HandshakeComplete>(text).expect("the same"),
        complete
    );
}

#[test]
fn versions_have_four_numeric_parts_and_are_compared_as_numbers() {
    let version = |text: &str| Version::parse(text).unwrap_or_else(|| panic!("{text}"));
    assert!(version("3.1.1511.0") < version("3.1.1512.0"));
    assert!(version("3.1.1511.0") < version("3.1.1511.1"));
    assert!(version("3.1.999.0") < version("3.1.1511.0"));
    assert!(version("3.3.0.0") > version("3.1.1511.0"));
    assert!(version("10.0.0.0") > version("9.9.9.9"));
    assert_eq!(version("3.0.196.0"), Version::LAST_WITHOUT_MUX);
    assert_eq!(version("3.1.1511.0"), Version::LAST_WITH_KEEPALIVE);
    for text in [
        "",
        "3",
        "3.1.0",
        "3.1.0.0.0",
        "3.1.0.",
        "3.1..0",
        "3.1.0.x",
        "+3.1.0.0",
        "3.1.0.-1",
        " 3.1.0.0",
        "3.1.0.4294967296",
    ] {
        assert_eq!(Version::parse(text), None, "{text:?}");
    }
}
