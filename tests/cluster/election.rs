//! Two controllers of one installation: one leads, and whatever becomes of it, the other goes on where it stopped.

use ssm_session_operator::simulator::Operation;

use crate::process::Process;
use crate::world::{WAIT_MAX, World, carry};

/// What a controller says when it has won, and when it has lost.
const ELECTED: &str = "elected: leading";
const LOST: &str = "stands for election again";

/// A world with a leader behind a forwarder of its own, a second controller, and a relay that serves two sessions.
struct Setting {
    world: World,
    leader: Process,
    second: Process,
    relay: Process,
    forwarder: crate::forwarder::Forwarder,
}

impl Setting {
    async fn new(name: &str) -> Self {
        let mut world = World::new(name).await;
        let (forwarder, kubeconfig) = world.forwarder().await;
        let direct = std::mem::replace(&mut world.kubeconfig, kubeconfig);
        let short = ["--election-duration=15s", "--election-renew-deadline=12s"];
        let mut leader = world.controller(&short).await;
        let elected = leader.wait_for_log(ELECTED, WAIT_MAX).await;
        elected.expect("nobody else stands");
        world.kubeconfig = direct;
        let second = world.controller(&short).await;
        let relay = world.relay("relay-a", &[]).await;
        for name in ["orders", "rent"] {
            world.create(&world.session(name)).await;
            world.wait_available(name).await;
        }
        assert!(!second.logged().contains(ELECTED), "one leads");
        Self {
            world,
            leader,
            second,
            relay,
            forwarder,
        }
    }

    /// The second leads, and does what there is to do since nobody led: nothing is started twice, and no stream has closed.
    async fn second_goes_on(&mut self, connection: &mut tokio::net::TcpStream) {
        let world = &self.world;
        world.create(&world.session("bills")).await;
        world.delete("rent").await;
        let elected = self.second.wait_for_log(ELECTED, WAIT_MAX).await;
        elected.expect("it is its turn");
        let world = &self.world;
        world.wait_gone("rent").await;
        world.wait_available("bills").await;
        carry(connection).await;
        assert_eq!(world.simulator.calls(Operation::StartSession), 3);
        assert_eq!(world.live_sessions().len(), 2);
    }

    /// Nothing is left, and each session was started once.
    async fn end(self, sessions: u64) {
        let world = self.world;
        world.delete("orders").await;
        world.delete("bills").await;
        world.wait_gone("orders").await;
        world.wait_gone("bills").await;
        world.assert_nothing_is_left().await;
        assert_eq!(world.simulator.calls(Operation::StartSession), sessions);
        self.relay.stop().await.expect("it ends well");
        self.second.stop().await.expect("it ends well");
    }
}

#[tokio::test]
async fn when_the_leader_is_killed_the_other_goes_on() {
    let mut setting = Setting::new("lead-killed").await;
    let mut connection = setting.world.connect("orders", "db").await;
    setting.leader.signal("KILL").await.expect("it is there");
    setting.second_goes_on(&mut connection).await;
    setting.end(3).await;
}

#[tokio::test]
async fn a_leader_that_ends_in_order_gives_the_lead_away() {
    let mut setting = Setting::new("lead-given").await;
    let mut connection = setting.world.connect("orders", "db").await;
    setting.leader.signal("TERM").await.expect("it is there");
    let given = setting.leader.wait_for_log("gave the Lease back", WAIT_MAX);
    given.await.expect("nobody has to wait for its end");
    setting.second_goes_on(&mut connection).await;
    setting.end(3).await;
}

#[tokio::test]
async fn a_leader_that_is_cut_off_stops_and_stands_by_when_it_is_back() {
    let mut setting = Setting::new("lead-cut").await;
    let mut connection = setting.world.connect("orders", "db").await;
    setting.forwarder.silence();
    let lost = setting.leader.wait_for_log(LOST, WAIT_MAX).await;
    lost.expect("it can't renew");
    setting.second_goes_on(&mut connection).await;
    setting.forwarder.mend();
    let leader = setting.leader.logged();
    assert_eq!(leader.matches(ELECTED).count(), 1, "{leader}");
    setting.leader.signal("TERM").await.expect("it is there");
    setting.end(3).await;
}

#[tokio::test]
async fn a_leader_that_slept_does_none_of_what_came_meanwhile() {
    let mut setting = Setting::new("lead-slept").await;
    let mut connection = setting.world.connect("orders", "db").await;
    let by_leader = setting.world.written_by_controllers();
    let leader = by_leader.keys().next().expect("it has begun both").clone();
    assert_eq!(by_leader.len(), 1, "one leads");
    setting.leader.signal("STOP").await.expect("it is there");
    setting.second_goes_on(&mut connection).await;
    // In its sockets are sessions without listeners, and without their end: some that are gone since.
    let world = &setting.world;
    let passing = ["wages", "tax", "fees"];
    for name in passing {
        world.create(&world.session(name)).await;
        world.wait_available(name).await;
    }
    for name in passing {
        world.delete(name).await;
        world.wait_gone(name).await;
    }
    let terminated = world.simulator.calls(Operation::TerminateSession);
    // By now also what it asked for just before. The other may still write.
    let written = world.written_by_controllers()[&leader];

    setting.leader.signal("CONT").await.expect("it is there");
    let lost = setting.leader.wait_for_log(LOST, WAIT_MAX).await;
    lost.expect("its time was over");
    carry(&mut connection).await;
    setting.leader.signal("TERM").await.expect("it is there");
    let ended = setting.leader.wait_for_end(WAIT_MAX).await;
    ended.expect("it ends well");
    let world = &setting.world;
    let by_both = world.written_by_controllers();
    assert_eq!(by_both[&leader], written);
    assert_eq!(by_both.len(), 2, "the other has written");
    assert_eq!(
        world.simulator.calls(Operation::TerminateSession),
        terminated
    );
    setting.end(6).await;
}
