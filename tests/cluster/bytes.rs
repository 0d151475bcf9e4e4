//! Bytes through Kubernetes: the session is a resource, and clients dial the address in its EndpointSlice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use serde_json::json;
use ssm_session_operator::simulator::{Agent, AgentOptions, Fault, Operation, Pace};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::looks::{live, port};
use crate::transfer::{Server, exchange, exchange_half_closed};
use crate::world::{WAIT_MAX, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_mebibytes_pass_each_way_over_twenty_connections() {
    const CLIENTS: u64 = 20;
    const EACH_BYTES: u64 = (64_u64 << 20).div_ceil(CLIENTS);
    let (world, operator, _) = World::serving("volume").await;
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let mut client = world.dial("orders", "db").await;
        clients.spawn(async move { exchange(&mut client, EACH_BYTES, EACH_BYTES).await });
    }
    // Each end comes within the usual limit after the one before it.
    while let Some(exchanged) = timeout(WAIT_MAX, clients.join_next())
        .await
        .expect("bytes flow")
    {
        exchanged.expect("a client").expect("all bytes arrive");
    }
    assert_eq!(world.simulator.calls(Operation::StartSession), 1);
    world.remove("orders").await;
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_lone_newline_arrives_as_it_was_sent() {
    let echo = Server::echo().await.expect("loopback takes a server");
    let world = World::new("newline").await;
    let operator = world.all_in_one(&[]).await;
    // An agent that cuts at 1024 bytes, as the real one does.
    let target = "i-00000000000000a0a";
    let mut options = AgentOptions::new(target);
    options.pace = Pace::Faithful;
    let _agent = Agent::start(&world.simulator.endpoint(), options).expect("a URL");
    let online = world.simulator.wait_for_target(target).await;
    online.expect("the agent connects");
    let spec = json!({
        "target": { "id": target },
        "ports": [port("db", 5432, echo.address().port())],
    });
    world.create(&world.session_with("orders", spec)).await;
    world.wait_ready("orders").await;
    // Alone; and behind so many bytes that, with the header of their frame, it is a message's whole payload.
    for sent in [b"\n".to_vec(), [&[b'x'; 1016][..], b"\n"].concat()] {
        let mut client = world.dial("orders", "db").await;
        client.write_all(&sent).await.expect("it is sent");
        let mut heard = vec![0; sent.len()];
        let echoed = timeout(WAIT_MAX, client.read_exact(&mut heard)).await;
        echoed.expect("no byte is lost").expect("an echo");
        assert!(heard == sent, "it ends in {:?}", heard.last());
    }
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_half_closed_client_gets_its_whole_answer() {
    let (world, operator, _) = World::serving("half-closed").await;
    let mut client = world.dial("orders", "db").await;
    let answered = exchange_half_closed(&mut client, 300_000, 4 << 20);
    let answered = timeout(WAIT_MAX, answered).await.expect("bytes flow");
    answered.expect("all bytes arrive");
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_transfer_survives_websockets_that_the_service_closes() {
    let (world, operator, before) = World::serving("closed").await;
    let session = live(&before, "db").expect("a session").session_id;
    let mut client = world.dial("orders", "db").await;
    let enough = Arc::new(AtomicBool::new(false));
    let told = enough.clone();
    // It ends only when it is told to, so that every close comes in mid-transfer.
    let transfer = tokio::spawn(async move {
        while !told.load(Ordering::Relaxed) {
            exchange(&mut client, 2 << 20, 2 << 20).await?;
        }
        Result::<()>::Ok(())
    });
    for closed in 1..=3 {
        world.inject(Fault::CloseWebsockets {
            session: session.clone(),
        });
        world
            .wait_aws("the session is resumed", |aws| {
                let session = aws.session(&session).expect("the session");
                session.client_attached && session.agent_attached && session.resumed == closed
            })
            .await;
    }
    enough.store(true, Ordering::Relaxed);
    let transferred = timeout(WAIT_MAX, transfer).await.expect("bytes flow");
    transferred.expect("a client").expect("all bytes arrive");
    assert_eq!(world.simulator.calls(Operation::StartSession), 1);
    let after = world.wait_ready("orders").await;
    assert_eq!(live(&after, "db").expect("a session").session_id, session);
    operator.stop().await.expect("it ends well");
}
