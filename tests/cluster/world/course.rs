//! The usual course of a world: session `orders` is served, carries bytes, and leaves nothing.

use ssm_session_operator::crd::{SsmListener, SsmSession};
use tokio::net::TcpStream;

use super::World;
use crate::process::Process;
use crate::transfer::exchange;

/// Some hundred messages each way: enough to see that bytes flow, and over at once.
const CARRIED_BYTES: u64 = 300_000;

impl World {
    /// A world in which `all-in-one` serves session `orders`, and that session when it is Ready.
    pub async fn serving(name: &str) -> (Self, Process, SsmSession) {
        let world = Self::new(name).await;
        let operator = world.all_in_one(&[]).await;
        world.create(&world.session("orders")).await;
        let session = world.wait_ready("orders").await;
        (world, operator, session)
    }

    /// A world in which a controller and `relay-a`, with these options, serve session `orders`, and its listener.
    pub async fn serving_apart(
        name: &str,
        relay_options: &[&str],
    ) -> (Self, Process, Process, SsmListener) {
        let world = Self::new(name).await;
        let controller = world.controller(&[]).await;
        let relay = world.relay("relay-a", relay_options).await;
        world.create(&world.session("orders")).await;
        world.wait_available("orders").await;
        let listener = world.wait_serving("orders").await;
        (world, controller, relay, listener)
    }

    /// A new connection to a Service's port, which carries bytes both ways.
    pub async fn connect(&self, service: &str, port: &str) -> TcpStream {
        let mut connection = self.dial(service, port).await;
        carry(&mut connection).await;
        connection
    }

    /// Deletes a session, and waits until nothing is left of it and of any other.
    pub async fn remove(&self, name: &str) {
        self.delete(name).await;
        self.wait_gone(name).await;
        self.assert_nothing_is_left().await;
    }
}

/// Carries some bytes both ways, where only that they arrive is of interest.
pub async fn carry(connection: &mut TcpStream) {
    let carried = exchange(connection, CARRIED_BYTES, CARRIED_BYTES).await;
    carried.expect("all bytes arrive");
}
