//! Every session of the examples is served as it stands. Only its class is changed, so that it leads to the simulator.

use std::collections::BTreeMap;

use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::Value;
use ssm_session_operator::crd::session::Port;
use ssm_session_operator::crd::{
    DEFAULT_CLASS_ANNOTATION, DEFAULT_CONTROLLER_NAME, SsmSession, SsmSessionClass,
};
use ssm_session_operator::simulator::{Agent, AgentOptions, Pace};
use tokio::net::TcpStream;
use tokio::sync::MutexGuard;

use super::{Example, example, examples, hold_names};
use crate::process::Process;
use crate::world::{REMOTE_PORT, TARGET, World, carry};

/// The namespace of all sessions of the examples.
pub const NAMESPACE: &str = "shop";

/// A world in which the examples' sessions are served.
pub struct Shop {
    /// Its user's namespace is that of the examples.
    pub world: World,
    _agents: Vec<Agent>,
    _held: MutexGuard<'static, ()>,
}

impl Shop {
    /// With an agent for every target of the examples, and no operator yet.
    pub async fn new() -> Self {
        let mut world = World::new("examples").await;
        let held = hold_names(&world.client).await;
        NAMESPACE.clone_into(&mut world.namespace);
        apply_class(&world).await;
        let mut agents = Vec::new();
        for (target, ports) in targets() {
            if target == TARGET {
                let usual = |port: &Port| destination(port) == ("localhost".into(), REMOTE_PORT);
                assert!(
                    ports.iter().all(usual),
                    "the world's agent reaches no other"
                );
                continue;
            }
            let mut options = AgentOptions::new(&target);
            options.pace = Pace::Unthrottled;
            for port in &ports {
                let address = world.server.address();
                options.destinations.insert(destination(port), address);
            }
            agents.push(Agent::start(&world.simulator.endpoint(), options).expect("a URL"));
            let online = world.simulator.wait_for_target(&target).await;
            online.expect("the agent connects");
        }
        Self {
            world,
            _agents: agents,
            _held: held,
        }
    }

    /// Starts the operator as an installation with defaults is named.
    pub async fn serve(&self) -> Process {
        let name = format!("--controller-name={DEFAULT_CONTROLLER_NAME}");
        self.world.all_in_one(&[&name]).await
    }

    /// Applies an example as its head says.
    pub async fn apply(&self, example: &Example) {
        let apply = ["apply", "-f", &example.path()];
        let applied = self.world.ground.kubectl(&apply).await;
        applied.expect("the example can be applied");
    }

    /// Dials every port of a session, and carries bytes.
    async fn carry(&self, session: &SsmSession) {
        let name = session.name_any();
        let session = self.world.wait_ready(&name).await;
        let endpoint = session.status.and_then(|status| status.endpoint);
        let endpoint = endpoint.expect("a session that is Ready has one");
        for port in &session.spec.ports {
            let mut connection: TcpStream = self.world.dial(&endpoint.service, &port.name).await;
            carry(&mut connection).await;
        }
    }

    async fn delete(&self, session: &SsmSession) {
        self.world.delete(&session.name_any()).await;
        self.world.wait_gone(&session.name_any()).await;
    }
}

/// The class of the examples as the default one, leading to the simulator.
async fn apply_class(world: &World) {
    let mut class = example("class.yaml").object("SsmSessionClass").clone();
    class["metadata"]["annotations"][DEFAULT_CLASS_ANNOTATION] = "true".into();
    for service in ["ssm", "ssmmessages"] {
        class["spec"]["aws"]["endpoints"][service] = world.simulator.endpoint().into();
    }
    let class: SsmSessionClass = serde_json::from_value(class).expect("a class");
    let classes: Api<SsmSessionClass> = Api::all(world.client.clone());
    let (name, us) = (class.name_any(), PatchParams::apply("tests").force());
    let applied = classes.patch(&name, &us, &Patch::Apply(&class)).await;
    applied.expect("the class is admitted");
}

/// What the agent dials for a port.
fn destination(port: &Port) -> (String, u16) {
    let host = port.remote_host.as_deref().unwrap_or("localhost");
    let number = u16::try_from(port.remote_port).expect("a port");
    (host.to_owned(), number)
}

fn sessions(example: &Example) -> Vec<SsmSession> {
    let read = |session: &Value| serde_json::from_value(session.clone()).expect("a session");
    let sessions: Vec<SsmSession> = example.of_kind("SsmSession").map(read).collect();
    for session in &sessions {
        assert_eq!(session.namespace().as_deref(), Some(NAMESPACE));
    }
    sessions
}

/// Every target of the examples, with all ports that sessions reach there.
fn targets() -> BTreeMap<String, Vec<Port>> {
    let mut targets: BTreeMap<String, Vec<Port>> = BTreeMap::new();
    for session in examples().iter().flat_map(sessions) {
        let target = session.spec.target.to_aws().expect("a target");
        targets
            .entry(target)
            .or_default()
            .extend(session.spec.ports);
    }
    targets
}

#[tokio::test]
async fn every_session_of_the_examples_carries_bytes_as_it_stands() {
    let shop = Shop::new().await;
    let operator = shop.serve().await;
    let mut served = 0;
    for example in examples() {
        let sessions = sessions(&example);
        if sessions.is_empty() {
            continue;
        }
        shop.apply(&example).await;
        for session in sessions {
            shop.carry(&session).await;
            shop.delete(&session).await;
            served += 1;
        }
    }
    assert!(served >= 5, "only {served} sessions were found");
    shop.world.assert_nothing_is_left().await;
    operator.stop().await.expect("it ends well");
}
