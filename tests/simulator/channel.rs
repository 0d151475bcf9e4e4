//! Data channels: echo, ends, frames that are held, websockets that close.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use ssm_session_operator::protocol::message::{Message, MessageType, PayloadType};
use ssm_session_operator::protocol::payload::Flag;
use ssm_session_operator::simulator::{Fault, Pace, Simulator, SimulatorOptions, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::client::{Event, SIGNATURE, Service, message, within};
use crate::ground::{Ground, REMOTE, Tls, echo, id, nobody};

async fn echo_bytes(ground: &Ground, bytes: usize) {
    let ticket = ground.start().await;
    let mut channel = ground.service.open(&ticket).await;
    let request = within("the handshake", channel.shake_hands()).await;
    let action = &request.requested_client_actions[0].action_parameters;
    assert_eq!(action["SessionType"], "Port");
    assert_eq!(action["Properties"]["type"], "LocalPortForwarding");
    let (connector, _flags) = channel.multiplex();
    let stream = connector.connect().expect("a stream");
    let sent: Vec<u8> = (0..=250).cycle().take(bytes).collect();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut received = vec![0; bytes];
    let both = async { tokio::join!(writer.write_all(&sent), reader.read_exact(&mut received)) };
    let (written, read) = within("the echo", both).await;
    written.expect("everything is taken");
    read.expect("everything comes back");
    assert!(sent == received, "the echo differs from what was sent");
}

#[tokio::test]
async fn a_mebibyte_is_echoed_by_an_unthrottled_agent_over_tls() {
    let ground = Ground::with(Pace::Unthrottled, echo().await, Some(Tls::new())).await;
    echo_bytes(&ground, 1 << 20).await;
    ground.shutdown().await;
}

#[tokio::test]
async fn a_client_that_retransmits_gets_its_echo_from_a_faithful_agent() {
    let ground = Ground::new(Pace::Faithful, echo().await).await;
    echo_bytes(&ground, 128 << 10).await;
    ground.shutdown().await;
}

#[tokio::test]
async fn a_destination_that_refuses_is_a_flag_and_the_end_of_the_stream() {
    let ground = Ground::new(Pace::Unthrottled, nobody().await).await;
    let mut channel = ground.service.open(&ground.start().await).await;
    channel.shake_hands().await;
    let (connector, mut flags) = channel.multiplex();
    let mut stream = connector.connect().expect("a stream");
    let flag = within("the flag", flags.recv()).await;
    assert_eq!(flag, Some(Flag::ConnectToPortError));
    let read = within("the FIN", stream.read(&mut [0; 16])).await;
    assert_eq!(read.expect("an orderly end"), 0);
    ground.shutdown().await;
}

#[tokio::test]
async fn terminate_session_is_the_last_word_on_the_data_channel_and_in_the_history() {
    let ground = Ground::new(Pace::Unthrottled, echo().await).await;
    let ticket = ground.start().await;
    let mut channel = ground.service.open(&ticket).await;
    channel.shake_hands().await;
    ground.wait_for_status(&ticket, Status::Connected).await;
    let request = json!({ "SessionId": id(&ticket) });
    let answer = ground.service.call("TerminateSession", &request).await;
    assert_eq!(answer, Ok(request.clone()));
    let closed = channel.closed().await;
    assert_eq!(
        (closed.session_id.as_str(), closed.output.as_str()),
        (id(&ticket), "")
    );
    ground.wait_for_status(&ticket, Status::Terminated).await;
    let resumed = ground
        .service
        .call("ResumeSession", &request)
        .await
        .expect("an answer");
    assert_eq!(resumed.get("TokenValue"), None);
    let active = ground
        .service
        .call("DescribeSessions", &json!({ "State": "Active" }))
        .await;
    assert_eq!(active, Ok(json!({ "Sessions": [] })));
    let filters = json!([{ "key": "SessionId", "value": id(&ticket) }]);
    let history = json!({ "State": "History", "Filters": filters });
    let history = ground
        .service
        .call("DescribeSessions", &history)
        .await
        .expect("a page");
    let session = &history["Sessions"][0];
    assert_eq!(session["Status"], "Terminated");
    assert_eq!(session["Reason"], "a test");
    assert!(
        session["EndDate"].as_f64() >= session["StartDate"].as_f64(),
        "{session}"
    );
    let unknown = json!({ "SessionId": "nobody-00000000000000000" });
    assert_eq!(
        ground.service.error("ResumeSession", &unknown).await,
        "DoesNotExistException"
    );
    assert!(
        ground
            .service
            .call("TerminateSession", &unknown)
            .await
            .is_ok()
    );
    ground.shutdown().await;
}

#[tokio::test]
async fn a_session_that_fails_at_the_agent_ends_with_the_agents_words() {
    let ground = Ground::new(Pace::Faithful, nobody().await).await;
    let parameters = json!({ "host": ["169.254.169.254"], "portNumber": ["80"] });
    let ticket = ground.service.start(REMOTE, parameters).await;
    let mut channel = ground.service.open(&ticket).await;
    channel.shake_hands().await;
    let closed = channel.closed().await;
    assert_eq!(
        closed.output,
        "Forwarding to IP address 169.254.169.254 is forbidden."
    );
    ground.wait_for_status(&ticket, Status::Failed).await;
    ground.shutdown().await;
}

#[tokio::test]
async fn sessions_without_the_multiplexer_look_as_they_do_in_aws() {
    let ground = Ground::new(Pace::Faithful, nobody().await).await;
    let parameters = json!({ "portNumber": ["22"] });
    let mut ssh = ground
        .service
        .open(
            &ground
                .service
                .start("AWS-StartSSHSession", parameters)
                .await,
        )
        .await;
    let Event::Data(PayloadType::HandshakeRequest, payload) = within("a request", ssh.next()).await
    else {
        panic!("a port session begins with a handshake");
    };
    let request: Value = serde_json::from_slice(&payload).expect("JSON");
    let action = &request["RequestedClientActions"][0]["ActionParameters"];
    assert_eq!(action["Properties"], json!({ "portNumber": "22" }));
    let shell = ground
        .service
        .start("SSM-SessionManagerRunShell", json!({}))
        .await;
    let mut shell = ground.service.open(&shell).await;
    let event = within("the prompt", shell.next()).await;
    assert!(
        matches!(event, Event::Data(PayloadType::Output, _)),
        "{event:?}"
    );
    shell
        .send(PayloadType::Flag, Flag::TerminateSession.encode().to_vec())
        .await;
    assert_eq!(shell.closed().await.output, "");
    ground.shutdown().await;
}

/// The test takes the agent's side by hand, and the gateway does not know the difference.
#[tokio::test]
async fn frames_are_held_verbatim_and_in_order_until_both_sides_are_there() {
    let simulator = Simulator::start(SimulatorOptions::default())
        .await
        .expect("a simulator");
    let service = Service {
        endpoint: simulator.endpoint(),
        tls: None,
    };
    let base = simulator.stream_base();
    let signature = SIGNATURE.replace("SERVICE", "ssmmessages");
    let signature = format!("Authorization: {signature}\r\n");
    let create = async |path: String| {
        let (status, xml) = service
            .post(&path, &signature, "{}")
            .await
            .expect("an answer");
        assert_eq!(status, 201);
        let token = xml
            .split("TokenValue>")
            .nth(1)
            .expect("a token")
            .trim_end_matches("</");
        json!({ "TokenValue": token }).to_string()
    };
    let (unsigned, body) = service
        .post("/v1/data-channel/x", "", "{}")
        .await
        .expect("an answer");
    assert!(
        unsigned == 403 && body.contains("<AccessDeniedException>"),
        "{unsigned} {body}"
    );
    let opening = create("/v1/control-channel/mi-1".to_owned()).await;
    let url = format!("{base}/v1/control-channel/mi-1?role=subscribe&stream=input");
    let mut control = service.websocket(&url, opening).await;
    simulator.wait_for_target("mi-1").await.expect("online");

    let ticket = service.start(REMOTE, json!({})).await;
    let mut client = service.open(&ticket).await;
    for number in 0..3_u8 {
        client.send(PayloadType::Output, vec![number]).await;
    }
    let order = within("the order", control.next())
        .await
        .expect("a frame")
        .expect("a frame");
    let order = Message::decode(&order.into_data()).expect("a message");
    assert_eq!(order.message_type, MessageType::InteractiveShell);

    let path = format!("/v1/data-channel/{}", id(&ticket));
    let opening = create(path.clone()).await;
    let mut agent = service
        .websocket(&format!("{base}{path}?role=publish_subscribe"), opening)
        .await;
    for number in 0..3_u8 {
        let frame = within("a held frame", agent.next())
            .await
            .expect("a frame")
            .expect("a frame");
        let held = Message::decode(&frame.into_data()).expect("a message");
        assert_eq!(
            (held.sequence, held.payload.as_ref()),
            (i64::from(number), &[number][..])
        );
    }
    for kind in [
        MessageType::AgentSessionState,
        MessageType::OutputStreamData,
    ] {
        let frame = message(kind, 0, PayloadType::Output, Bytes::from_static(b"hello"));
        agent
            .send(Frame::Binary(frame))
            .await
            .expect("the gateway takes frames");
    }
    let event = within("the answer", client.next()).await;
    assert!(
        matches!(&event, Event::Data(_, bytes) if bytes == "hello"),
        "{event:?}"
    );
    within("the simulator's end", simulator.shutdown()).await;
}

#[tokio::test]
async fn a_token_opens_one_websocket_and_a_closed_one_is_resumed_with_another() {
    let ground = Ground::new(Pace::Unthrottled, echo().await).await;
    let ticket = ground.start().await;
    let mut first = ground.service.open(&ticket).await;
    first.shake_hands().await;
    let mut second = ground.service.open(&ticket).await;
    let event = within("the refusal", second.next()).await;
    assert!(matches!(event, Event::Bye(Some(1008))), "{event:?}");
    let close = Fault::CloseWebsockets {
        session: id(&ticket).to_owned(),
    };
    ground
        .simulator
        .inject(close)
        .expect("the session is there");
    let event = within("the close", first.next()).await;
    assert!(matches!(event, Event::Bye(Some(1000))), "{event:?}");
    drop(first);
    let request = json!({ "SessionId": id(&ticket) });
    let resumed = ground
        .service
        .call("ResumeSession", &request)
        .await
        .expect("a ticket");
    let _third = ground.service.open(&resumed).await;
    ground.wait_for_status(&ticket, Status::Connected).await;
    let session = &ground.simulator.sessions()[0];
    assert_eq!(
        (session.client_websockets, session.client_websockets_signed),
        (2, 2)
    );
    ground.shutdown().await;
}
