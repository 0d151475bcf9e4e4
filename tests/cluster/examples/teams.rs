//! Two teams: each has its own class, can't take the other's, and is served by its own role.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use ssm_session_operator::crd::{DEFAULT_CONTROLLER_NAME, SsmSession, SsmSessionClass};

use super::{Example, example};
use crate::roles::{Team, assert_assumed_as_the_classes_say, connect};
use crate::wait::ask_until;
use crate::world::{TARGET, WAIT_MAX, World};

fn session(name: &str, class: Option<&str>) -> SsmSession {
    let session = json!({
        "metadata": { "name": name },
        "spec": {
            "className": class,
            "target": { "id": TARGET },
            "ports": [{ "name": "db", "port": 5432, "remotePort": 5432 }],
            "reason": "a test",
        },
    });
    serde_json::from_value(session).expect("a session")
}

/// Whether the API server would take a session of a class; its own words when it refuses.
async fn would_take(sessions: &Api<SsmSession>, class: Option<&str>) -> Result<(), String> {
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let created = sessions.create(&dry_run, &session("new", class)).await;
    created.map(drop).map_err(|error| error.to_string())
}

async fn create_namespaces(client: &Client, example: &Example) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for namespace in example.of_kind("Namespace") {
        let namespace = serde_json::from_value(namespace.clone()).expect("a namespace");
        let created = namespaces.create(&PostParams::default(), &namespace).await;
        created.expect("it is not there yet");
    }
}

/// The teams of the example. Its classes are there, and lead to this world's AWS from now on.
async fn teams(world: &World, example: &Example) -> [Team; 2] {
    let classes: Api<SsmSessionClass> = Api::all(world.client.clone());
    for class in example.of_kind("SsmSessionClass") {
        let name = class["metadata"]["name"].as_str().expect("it has a name");
        let endpoint = world.simulator.endpoint();
        let endpoints = json!({ "ssm": endpoint, "ssmmessages": endpoint });
        let patch = json!({ "spec": { "aws": { "endpoints": endpoints } } });
        let us = PatchParams::default();
        let led = classes.patch(name, &us, &Patch::Merge(&patch)).await;
        led.expect("the administrator may edit classes");
    }
    let team = |name, owner| {
        let mut classes = example.of_kind("SsmSessionClass");
        let class = classes.find(|class| class["metadata"]["name"] == name);
        Team {
            name,
            class: name.to_owned(),
            aws: class.expect("it has a class")["spec"]["aws"].clone(),
            owner,
        }
    };
    [
        team(
            "warehouse",
            "arn:aws:sts::111122223333:assumed-role/warehouse-sessions/my-cluster-warehouse",
        ),
        team(
            "billing",
            "arn:aws:sts::444455556666:assumed-role/billing-sessions/my-cluster-billing",
        ),
    ]
}

/// A session of each team carries bytes, and AWS says that the team's own role has started it.
async fn both_are_served(world: &mut World, example: &Example) {
    let teams = teams(world, example).await;
    let mut options = vec![format!("--controller-name={DEFAULT_CONTROLLER_NAME}")];
    options.extend(
        teams
            .iter()
            .map(|team| format!("--watch-namespace={}", team.name)),
    );
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let operator = world.all_in_one(&options).await;
    for team in &teams {
        team.name.clone_into(&mut world.namespace);
        let class = json!({ "className": team.class });
        world.create(&world.session_with(team.name, class)).await;
        connect(world, team).await;
    }
    assert_assumed_as_the_classes_say(world, &teams);
    for team in &teams {
        team.name.clone_into(&mut world.namespace);
        world.delete(team.name).await;
        world.wait_gone(team.name).await;
    }
    world.assert_nothing_is_left().await;
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn each_of_two_teams_takes_its_own_class_and_no_other_and_is_served_by_its_own_role() {
    let mut world = World::new("teams").await;
    let (ground, client) = (world.ground, world.client.clone());
    let _held = super::hold_names(&client).await;
    let example = example("two-teams.yaml");
    create_namespaces(&client, &example).await;
    let of = |namespace: &str| Api::<SsmSession>::namespaced(client.clone(), namespace);
    let (warehouse, billing) = (of("warehouse"), of("billing"));
    // From before the policy, and against it.
    let stray = session("stray", Some("billing"));
    let created = warehouse.create(&PostParams::default(), &stray).await;
    let stray = created.expect("nothing is against it yet").name_any();

    let apply = ["apply", "-f", &example.path()];
    ground.kubectl(&apply).await.expect("it can be applied");
    // A policy counts a moment after it was written.
    let refused = ask_until(WAIT_MAX, async || {
        would_take(&warehouse, Some("billing")).await.err()
    });
    let refused = refused.await.expect("the other team's class is refused");
    assert!(
        refused.contains("must say className: warehouse"),
        "{refused}"
    );
    let refused = would_take(&billing, Some("warehouse")).await;
    let refused = refused.expect_err("it holds the other way round");
    assert!(refused.contains("must say className: billing"), "{refused}");
    would_take(&warehouse, None)
        .await
        .expect_err("nor is there a default");
    assert_eq!(would_take(&warehouse, Some("warehouse")).await, Ok(()));
    assert_eq!(would_take(&billing, Some("billing")).await, Ok(()));
    let elsewhere = of(&ground.namespace(&client, "teamless").await);
    let refused = would_take(&elsewhere, Some("billing")).await;
    let refused = refused.expect_err("who is of no team has no team's role");
    assert!(
        refused.contains("with the label team: billing"),
        "{refused}"
    );
    for others in [None, Some("standard")] {
        assert_eq!(would_take(&elsewhere, others).await, Ok(()));
    }

    let edit = async |patch: Value| {
        let patch = Patch::Merge(patch);
        warehouse
            .patch(&stray, &PatchParams::default(), &patch)
            .await
    };
    let metadata = json!({ "metadata": { "finalizers": ["example.com/any"] } });
    edit(metadata).await.expect("finalizers come");
    let metadata = json!({ "metadata": { "finalizers": null } });
    edit(metadata).await.expect("and go");
    let spec = json!({ "spec": { "reason": "another" } });
    edit(spec).await.expect_err("the rest stays as it is");
    let spec = json!({ "spec": { "className": "warehouse" } });
    edit(spec).await.expect("or becomes right");
    let at_once = DeleteParams::default();
    let gone = warehouse.delete(&stray, &at_once).await;
    gone.expect("nobody holds it");

    both_are_served(&mut world, &example).await;
    let delete = ["delete", "--wait=false", "-f", &example.path()];
    ground.kubectl(&delete).await.expect("it can be deleted");
}
