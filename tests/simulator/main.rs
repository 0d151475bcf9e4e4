//! The simulator keeps what it promises, seen by a client that shares none of the relay's machines.

mod client;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use client::{Event, SIGNATURE, Service, message, within};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use ssm_session_operator::protocol::message::{Message, MessageType};
use ssm_session_operator::protocol::payload::{Flag, PayloadType};
use ssm_session_operator::simulator::{
    Agent, AgentOptions, Fault, Operation, Pace, Simulator, SimulatorOptions, Status,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::rustls;
use tokio_tungstenite::tungstenite::Message as Frame;

const REMOTE: &str = "AWS-StartPortForwardingSessionToRemoteHost";

/// A simulator with one agent, `mi-1`, which alone knows where `db.internal:5432` is.
struct Ground {
    simulator: Simulator,
    agent: Agent,
    service: Service,
}

impl Ground {
    async fn new(pace: Pace, destination: SocketAddr) -> Self {
        Self::with(pace, destination, None).await
    }

    async fn with(pace: Pace, destination: SocketAddr, tls: Option<Tls>) -> Self {
        let (server, trusting) = tls.map(|t| (t.server, t.client)).unzip();
        let options = SimulatorOptions {
            tls: server,
            ..Default::default()
        };
        let simulator = Simulator::start(options).await.expect("a simulator");
        let mut options = AgentOptions::new("mi-1");
        options.pace = pace;
        options.tls = trusting.clone();
        options
            .destinations
            .insert(("db.internal".to_owned(), 5432), destination);
        let endpoint = simulator.endpoint();
        let agent = Agent::start(&endpoint, options).expect("an agent");
        simulator
            .wait_for_target("mi-1")
            .await
            .expect("the agent comes online");
        Self {
            simulator,
            agent,
            service: Service {
                endpoint,
                tls: trusting,
            },
        }
    }

    async fn start(&self) -> Value {
        self.service
            .start(
                REMOTE,
                json!({ "host": ["db.internal"], "portNumber": ["5432"] }),
            )
            .await
    }

    async fn wait_for_status(&self, ticket: &Value, status: Status) {
        let what = format!("{status:?}");
        let waiting = self.simulator.wait_for(&what, |overview| {
            overview
                .session(id(ticket))
                .is_some_and(|session| session.status == status)
        });
        waiting.await.expect("the status comes");
    }

    async fn shutdown(self) {
        within("the agent's end", self.agent.shutdown()).await;
        within("the simulator's end", self.simulator.shutdown()).await;
    }
}

struct Tls {
    server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
}

impl Tls {
    fn new() -> Self {
        let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("keys");
        let certificate = certified.cert.der().clone();
        let key = certified
            .signing_key
            .serialize_der()
            .try_into()
            .expect("a key");
        let server = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .expect("a configuration");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).expect("a root");
        let client = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            server: Arc::new(server),
            client: Arc::new(client),
        }
    }
}

fn id(ticket: &Value) -> &str {
    ticket["SessionId"].as_str().expect("an id")
}

/// A TCP server on loopback that sends back what it gets.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.into_split();
                tokio::io::copy(&mut reader, &mut writer).await
            });
        }
    });
    address
}

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("an address")
}

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

#[tokio::test]
async fn pages_may_be_short_or_empty_and_lose_no_session() {
    let ground = Ground::new(Pace::Unthrottled, echo().await).await;
    let mut expected = BTreeSet::new();
    for _ in 0..5 {
        expected.insert(id(&ground.start().await).to_owned());
    }
    ground
        .simulator
        .inject(Fault::Pages {
            size_max: 2,
            empty: true,
        })
        .expect("a fault");
    let (mut seen, mut sizes) = (BTreeSet::new(), Vec::new());
    let mut request = json!({ "State": "Active", "MaxResults": 200 });
    loop {
        let page = ground
            .service
            .call("DescribeSessions", &request)
            .await
            .expect("a page");
        let sessions = page["Sessions"].as_array().expect("sessions");
        sizes.push(sessions.len());
        seen.extend(sessions.iter().map(|session| id(session).to_owned()));
        let Some(token) = page.get("NextToken") else {
            break;
        };
        request["NextToken"] = token.clone();
    }
    assert_eq!((sizes, seen), (vec![0, 2, 0, 2, 0, 1], expected));
    ground.shutdown().await;
}

#[tokio::test]
async fn requests_outside_of_the_limits_are_refused_with_the_documented_errors() {
    let ground = Ground::new(Pace::Unthrottled, echo().await).await;
    let filters = |count| vec![json!({ "key": "Owner", "value": "x" }); count];
    let cases = [
        (
            "StartSession",
            json!({ "Target": "mi-2" }),
            "TargetNotConnected",
        ),
        (
            "StartSession",
            json!({ "Target": "mi-1", "DocumentName": "Other" }),
            "InvalidDocument",
        ),
        (
            "StartSession",
            json!({ "Target": "" }),
            "ValidationException",
        ),
        (
            "StartSession",
            json!({ "Target": "mi-1", "Reason": "a\nb" }),
            "ValidationException",
        ),
        (
            "StartSession",
            json!({ "Target": "mi-1", "DocumentName": "a b" }),
            "ValidationException",
        ),
        ("DescribeSessions", json!({}), "ValidationException"),
        (
            "DescribeSessions",
            json!({ "State": "Active", "MaxResults": 201 }),
            "ValidationException",
        ),
        (
            "DescribeSessions",
            json!({ "State": "Active", "Filters": filters(7) }),
            "ValidationException",
        ),
        (
            "DescribeSessions",
            json!({ "State": "Active", "Filters": [{ "key": "Reason", "value": "x" }] }),
            "InvalidFilterKey",
        ),
        (
            "DescribeSessions",
            json!({ "State": "Active", "NextToken": "x" }),
            "InvalidNextToken",
        ),
        (
            "TerminateSession",
            json!({ "SessionId": "" }),
            "AccessDeniedException",
        ),
    ];
    for (operation, request, expected) in cases {
        assert_eq!(
            ground.service.error(operation, &request).await,
            expected,
            "{request}"
        );
    }
    assert_eq!(ground.simulator.sessions(), []);
    ground.shutdown().await;
}

#[tokio::test]
async fn faults_happen_as_often_as_they_were_asked_for() {
    let ground = Ground::new(Pace::Unthrottled, echo().await).await;
    let inject = |fault| ground.simulator.inject(fault).expect("a fault");
    let start = json!({ "Target": "mi-1", "DocumentName": REMOTE });
    inject(Fault::throttle(Operation::StartSession, 1));
    assert_eq!(
        ground.service.error("StartSession", &start).await,
        "ThrottlingException"
    );
    inject(Fault::EmptyTokens {
        operation: Operation::StartSession,
        calls: 1,
    });
    let ticket = ground
        .service
        .call("StartSession", &start)
        .await
        .expect("a session");
    assert_eq!(ticket["TokenValue"], "");
    let fault = json!({ "fault": "swallowStarts", "calls": 1 }).to_string();
    let json_header = "Content-Type: application/json\r\n";
    let answer = ground
        .service
        .post("/_simulator/faults", json_header, &fault)
        .await;
    assert_eq!(answer, Some((204, String::new())));
    let headers = "X-Amz-Target: AmazonSSM.StartSession\r\n";
    assert_eq!(
        ground.service.post("/", headers, &start.to_string()).await,
        None
    );
    assert_eq!(ground.simulator.sessions().len(), 2);
    assert_eq!(ground.simulator.calls(Operation::StartSession), 3);
    inject(Fault::ConsistencyDelay {
        milliseconds: 3_600_000,
    });
    let request = json!({ "State": "Active" });
    let page = ground.service.call("DescribeSessions", &request).await;
    assert_eq!(page, Ok(json!({ "Sessions": [] })));
    inject(Fault::Clear);
    let page = ground
        .service
        .call("DescribeSessions", &request)
        .await
        .expect("a page");
    assert_eq!(page["Sessions"].as_array().map(Vec::len), Some(2));
    ground.shutdown().await;
}

#[tokio::test]
async fn the_process_says_when_it_is_ready_and_ends_with_its_standard_input() {
    let echo = echo().await;
    let mut process = std::process::Command::new(env!("CARGO_BIN_EXE_ssm-simulator"))
        .args([
            "--agent",
            "mi-1",
            "--pace",
            "unthrottled",
            "--exit-with-stdin",
        ])
        .args(["--destination", &format!("db.internal:5432={echo}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the simulator's binary");
    let output = process.stdout.take().expect("piped");
    let (first_line, process) = tokio::task::spawn_blocking(move || {
        let line = std::io::BufRead::lines(std::io::BufReader::new(output)).next();
        (line.expect("a line").expect("text"), process)
    })
    .await
    .expect("a first line");
    let endpoint = first_line.strip_prefix("READY ").expect("READY").to_owned();
    let service = Service {
        endpoint,
        tls: None,
    };
    let ticket = service
        .start(REMOTE, json!({ "host": ["db.internal"] }))
        .await;
    within("the handshake", service.open(&ticket).await.shake_hands()).await;
    let ended = tokio::task::spawn_blocking(move || {
        let mut process = process;
        drop(process.stdin.take());
        process.wait()
    });
    let status = within("the process's end", ended)
        .await
        .expect("no panic")
        .expect("a status");
    assert!(status.success(), "{status}");
}
