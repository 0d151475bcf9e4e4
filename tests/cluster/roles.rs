//! Classes with roles of their own: every call for a session is made by its class's role, whichever process makes it.

use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use ssm_session_operator::crd::listener::EndReason;
use ssm_session_operator::crd::{SsmSession, SsmSessionClass};
use ssm_session_operator::simulator::{AssumedRole, Fault, Operation};
use tokio::net::TcpStream;

use crate::listeners::live_session;
use crate::looks::{is_ready, live, message};
use crate::world::{World, carry, condition, reason};

/// A team, its class, and the role by which that class reaches the team's account.
pub struct Team {
    /// Its name, and that of its session.
    pub name: &'static str,
    /// Its class.
    pub class: String,
    /// What that says of AWS.
    pub aws: Value,
    /// Whom AWS says to have called.
    pub owner: &'static str,
}

async fn teams(world: &World) -> [Team; 2] {
    let team = |name, aws, owner| Team {
        name,
        class: format!("{}-{name}", world.class),
        aws,
        owner,
    };
    let teams = [
        team(
            "warehouse",
            json!({
                "roleArn": "arn:aws:iam::111122223333:role/teams/warehouse",
                "externalId": "warehouse/1",
                "sessionName": "warehouse-sessions",
            }),
            "arn:aws:sts::111122223333:assumed-role/warehouse/warehouse-sessions",
        ),
        team(
            "billing",
            json!({ "roleArn": "arn:aws:iam::444455556666:role/billing" }),
            "arn:aws:sts::444455556666:assumed-role/billing/ssm-session-operator",
        ),
    ];
    for team in &teams {
        world.create_class_with(&team.class, &team.aws).await;
    }
    teams
}

/// The AWS session of a team's `SsmSession`, once AWS has shown who started it, and a connection through it.
pub async fn connect(world: &World, team: &Team) -> (String, TcpStream) {
    let is_mirrored = |session: &SsmSession| {
        let shown = live(session, "db").and_then(|session| session.owner);
        is_ready(session) && shown.is_some_and(|owner| owner == team.owner)
    };
    let what = "what AWS says of its session";
    let session = world.wait(team.name, what, is_mirrored).await;
    let id = live(&session, "db").expect("it is there").session_id;
    let name = team.owner.rsplit('/').next().unwrap_or_default();
    assert!(id.starts_with(&format!("{name}-")), "{id}");
    (id, world.connect(team.name, "db").await)
}

#[tokio::test]
async fn sessions_of_two_roles_are_called_for_by_their_own_and_outlive_its_credentials() {
    let world = World::new("roles").await;
    // So near to their end that they are renewed every few seconds.
    world.inject(Fault::CredentialsLifetime { seconds: 60 });
    let teams = teams(&world).await;
    let controller = world.controller(&[]).await;
    let relay = world.relay("relay-a", &[]).await;
    for team in &teams {
        let class = json!({ "className": team.class });
        world.create(&world.session_with(team.name, class)).await;
    }
    let mut running = Vec::new();
    for team in &teams {
        let (id, connection) = connect(&world, team).await;
        running.push((team, id, connection));
    }

    // Each session is resumed and opened again, which AWS allows to nobody but who started it.
    for (_, id, connection) in &mut running {
        let session = id.clone();
        world.inject(Fault::CloseWebsockets { session });
        world
            .wait_aws("a resumed session", |aws| {
                let session = aws.session(id);
                session.is_some_and(|s| s.resumed > 0 && s.client_attached)
            })
            .await;
        carry(connection).await;
    }
    world.wait_calls(Operation::AssumeRole, 6).await;
    for (_, _, connection) in &mut running {
        carry(connection).await;
    }
    assert_eq!(
        world.simulator.calls(Operation::StartSession),
        2,
        "none is lost"
    );

    // Without the class it is the listener that knows the role.
    let [warehouse, billing] = &teams;
    let classes: Api<SsmSessionClass> = Api::all(world.client.clone());
    let at_once = DeleteParams::default();
    let gone = classes.delete(&billing.class, &at_once).await;
    gone.expect("the class can be deleted");
    world.delete(billing.name).await;
    world.wait_gone(billing.name).await;
    world.wait_terminated(&running[1].1).await;

    // Another run of the relay ends what the first one left.
    let old = running[0].1.clone();
    relay.kill().await.expect("it can be killed");
    let relay = world.relay("relay-a", &[]).await;
    world.wait_terminated(&old).await;
    world
        .wait_ended(warehouse.name, &old, EndReason::RelayLost)
        .await;
    world.wait_available(warehouse.name).await;
    let listener = world.wait_serving(warehouse.name).await;
    assert_ne!(live_session(&listener), old);
    world.connect(warehouse.name, "db").await;

    assert_assumed_as_the_classes_say(&world, &teams);
    world.remove(warehouse.name).await;
    relay.stop().await.expect("it ends well");
    controller.stop().await.expect("it ends well");
}

/// Both roles were assumed, each time with what its class says, and with the pods' own identity.
pub fn assert_assumed_as_the_classes_say(world: &World, teams: &[Team]) {
    let assumed = world.simulator.overview().assumed;
    let said = teams.iter().map(|team| {
        let word = |field: &str| team.aws[field].as_str().map(str::to_owned);
        AssumedRole {
            role_arn: word("roleArn").expect("a role"),
            session_name: word("sessionName").unwrap_or_else(|| "ssm-session-operator".to_owned()),
            external_id: word("externalId"),
            by: "arn:aws:sts::123456789012:assumed-role/ssm-operator/ssm-operator".to_owned(),
            token: None,
        }
    });
    let said: Vec<_> = said.collect();
    for role in &said {
        assert!(assumed.contains(role), "{role:?} is not in {assumed:?}");
    }
    let strange = assumed.iter().find(|role| !said.contains(role));
    assert_eq!(strange, None);
}

#[tokio::test]
async fn a_role_that_may_not_be_assumed_is_told_in_words_of_aws_and_heals_by_itself() {
    let world = World::new("refused-role").await;
    world.fail(Operation::AssumeRole, "AccessDenied");
    let [team, _] = teams(&world).await;
    let operator = world.all_in_one(&[]).await;
    let class = json!({ "className": team.class });
    world.create(&world.session_with(team.name, class)).await;
    let session = world
        .wait(team.name, "what is wrong", |session| {
            condition(session, "AwsReachable") == "False"
                && reason(session, "AwsReachable") == "AccessDenied"
        })
        .await;
    let said = message(&session, "AwsReachable");
    assert!(said.contains("AssumeRole: AccessDenied"), "{said}");
    assert_eq!(world.simulator.calls(Operation::StartSession), 0);

    world.mend();
    world.wait_ready(team.name).await;
    // The controller assumes the role for itself, at its next poll.
    let reachable = |session: &SsmSession| reason(session, "AwsReachable") == "Reachable";
    world
        .wait(team.name, "a poll that succeeds", reachable)
        .await;
    world.connect(team.name, "db").await;
    world.remove(team.name).await;
    operator.stop().await.expect("it ends well");
}
