//! The relay and its owner: wishes that follow each other faster than they can be granted.

use std::sync::Arc;
use std::time::Duration;

use ssm_session_operator::relay::{EndReason, Inherited, Report, State};
use ssm_session_operator::simulator::{Operation, Overview};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::brokers::Around;
use crate::ground::{Ground, REMOTE, Setting, aws, echo, listener, wait_reset, within};
use crate::recorder::{Mode, Shelf};

/// A ground whose broker can hold calls up.
async fn gated() -> (Ground, Arc<Around>) {
    let around = Arc::new(Around::new(aws()));
    let broker = around.clone();
    let ground = Ground::with_broker(echo().await, Setting::default(), |_, _| broker).await;
    ground.ensure();
    (ground, around)
}

/// Listener `a` is wished for by a new owner, who keeps its reports elsewhere.
fn ensure_anew(ground: &Ground) -> Arc<Shelf> {
    let shelf = Arc::new(Shelf::default());
    let spec = ground.spec(2, REMOTE);
    ground
        .relay
        .ensure(&listener("a"), spec, Inherited::default(), shelf.clone());
    shelf
}

async fn wait_serving(shelf: &Shelf) -> Report {
    let serving = |report: &Report| report.state == State::Serving;
    shelf.wait_last("a session that serves", serving).await
}

#[tokio::test]
async fn a_listener_that_is_wished_for_right_after_its_stop_is_stopped_and_served_anew() {
    let (ground, _) = gated().await;
    ground.wait_serving().await;
    ground.stop();
    let anew = ensure_anew(&ground);
    let last = ground.shelf.wait_ended().await;
    assert!(last.sessions.iter().all(|session| session.end.is_some()));
    let report = wait_serving(&anew).await;
    assert_eq!((report.generation, report.sessions.len()), (2, 1));
    // The wish is granted once, and said again it changes nothing.
    let again = Arc::new(Shelf::default());
    ground.relay.ensure(
        &listener("a"),
        ground.spec(3, REMOTE),
        Inherited::default(),
        again.clone(),
    );
    let third = |report: &Report| report.generation == 3;
    let report = anew.wait_for("the third generation", third).await;
    assert_eq!(report.state, State::Serving);
    assert_eq!(ground.simulator.calls(Operation::StartSession), 2);
    assert_eq!(again.reports(), []);
}

#[tokio::test]
async fn a_listener_that_is_wished_for_while_it_stops_is_served_anew_afterwards() {
    let (ground, around) = gated().await;
    ground.wait_serving().await;
    around.terminations_open.send_replace(false);
    ground.stop();
    let stopping = |report: &Report| report.port.is_none();
    ground.shelf.wait_last("that it stops", stopping).await;
    let anew = ensure_anew(&ground);
    around.terminations_open.send_replace(true);
    ground.shelf.wait_ended().await;
    wait_serving(&anew).await;
    ground.relay.stop(&listener("a"), EndReason::Deleted);
    anew.wait_ended().await;
    ground.wait_all_over().await;
}

#[tokio::test]
async fn the_last_word_counts() {
    let (ground, _) = gated().await;
    ground.wait_serving().await;
    ground.stop();
    let anew = ensure_anew(&ground);
    ground.stop();
    ground.shelf.wait_ended().await;
    ground.wait_listeners(0).await;
    assert_eq!(anew.reports(), []);
    assert_eq!(ground.simulator.calls(Operation::StartSession), 1);
}

#[tokio::test]
async fn a_listener_that_comes_back_while_it_is_dropped_is_served_anew() {
    let (ground, around) = gated().await;
    let mut client = ground.dial().await;
    client.write_u8(1).await.expect("sent");
    within("the echo", client.read_u8()).await.expect("an echo");
    ground.wait_serving().await;
    around.terminations_open.send_replace(false);
    ground.shelf.set(Mode::NotOurs);
    ground.ensure_spec(ground.spec(2, REMOTE));
    wait_reset(&mut client).await;
    let anew = ensure_anew(&ground);
    // The server hears of it while the old session waits for its end.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    around.terminations_open.send_replace(true);
    wait_serving(&anew).await;
    assert_eq!(ground.relay.listeners(), [listener("a")]);
}

#[tokio::test]
async fn stop_waits_for_a_start_that_is_on_its_way_and_terminates_its_session() {
    let (ground, around) = gated().await;
    around.starts_open.send_replace(false);
    let started = |overview: &Overview| !overview.sessions.is_empty();
    ground.wait_aws("a session", started).await;
    ground.stop();
    let stopping = |report: &Report| report.port.is_none();
    let report = ground.shelf.wait_last("that it stops", stopping).await;
    assert_ne!(report.state, State::Ended);
    around.starts_open.send_replace(true);
    let last = ground.shelf.wait_ended().await;
    let reason = last.sessions[0].end.as_ref().map(|end| end.reason);
    assert_eq!(reason, Some(EndReason::Deleted));
    ground.wait_all_over().await;
    let sessions = ground.simulator.sessions();
    assert_eq!(
        sessions[0].client_websockets, 0,
        "it was opened nevertheless"
    );
}

#[tokio::test]
async fn shutdown_waits_no_longer_than_it_may() {
    let (ground, around) = gated().await;
    ground.wait_serving().await;
    around.terminations_open.send_replace(false);
    let deadline = Duration::from_millis(200);
    within("the shutdown", ground.relay.shutdown(deadline)).await;
    assert_eq!(ground.relay.listeners(), [listener("a")]);
    let last = ground.shelf.last().expect("a report");
    assert!(
        last.sessions[0].end.is_none(),
        "it is left to others, on record"
    );
}
