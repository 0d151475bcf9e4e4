//! A network that loses what it carries: frames one by one, or whole connections.

use ssm_session_operator::simulator::{Fault, Operation, Overview};

use crate::ground::{Ground, within};
use crate::transfer::{Server, exchange};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_lost_cost_no_byte() {
    let server = Server::start().await.expect("a server");
    let ground = Ground::serving(server.address()).await;
    ground.wait_serving().await;
    ground.inject(Fault::LoseFrames { every: 50 });
    let mut client = ground.dial().await;
    let exchanged = within("an exchange", exchange(&mut client, 2 << 20, 2 << 20)).await;
    exchanged.expect("all bytes");
    let lost = ground.simulator.overview().frames_lost;
    // 2 MiB go up in more than 2,000 messages, and each of them is acknowledged.
    assert!(lost >= 80, "{lost} frames were lost");
    assert_eq!(ground.simulator.sessions().len(), 1);
    assert_eq!(ground.simulator.calls(Operation::ResumeSession), 0);
}

#[tokio::test]
async fn a_handshake_survives_lost_frames() {
    let server = Server::start().await.expect("a server");
    let ground = Ground::new(server.address(), crate::ground::Setting::default()).await;
    ground.inject(Fault::LoseFrames { every: 2 });
    ground.ensure();
    ground.wait_serving().await;
    let mut client = ground.dial().await;
    let exchanged = within("an exchange", exchange(&mut client, 4096, 4096)).await;
    exchanged.expect("all bytes");
    assert!(ground.simulator.overview().frames_lost > 2);
    assert_eq!(ground.simulator.sessions().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_that_is_reset_in_mid_transfer_is_resumed_and_streams_go_on() {
    let server = Server::start().await.expect("a server");
    let ground = Ground::serving(server.address()).await;
    let serving = ground.wait_serving().await;
    let session = serving.sessions[0].session_id.to_string();
    let mut client = ground.dial().await;
    let transfer = tokio::spawn(async move {
        for _ in 0..4 {
            exchange(&mut client, 2 << 20, 2 << 20).await?;
        }
        anyhow::Ok(())
    });
    for reset in 1..=3 {
        let attached = |overview: &Overview| {
            let session = overview.session(&session).expect("the session");
            session.client_attached && session.agent_attached && session.resumed == reset - 1
        };
        ground.wait_aws("both websockets", attached).await;
        ground.inject(Fault::ResetWebsockets {
            session: session.clone(),
        });
        let resumed =
            |overview: &Overview| overview.session(&session).expect("the session").resumed == reset;
        ground.wait_aws("a resumed session", resumed).await;
    }
    let transferred = within("the transfer", transfer).await.expect("a client");
    transferred.expect("all bytes");
    assert_eq!(ground.simulator.calls(Operation::StartSession), 1);
    assert!(ground.metrics().contains("relay_websockets_lost_total 3"));
}
