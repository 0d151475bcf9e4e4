//! What is promised of the sessions of a deleted listener that no relay ends.

use std::collections::HashSet;

use futures::future::join_all;
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::act::{Again, act};
use super::decide::{Orphaned, Plan, Step};
use super::*;
use crate::broker::{Identity, Role, SessionId};
use crate::controller::fake_aws::FakeAws;
use crate::controller::fixtures::{aws, calls, context, listener, relays, unreadable_api};
use crate::identity::identity_of;

fn id(id: &str) -> SessionId {
    SessionId::parse(id).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_session_that_can_not_be_terminated_keeps_no_other_alive() {
    let broker = Arc::new(FakeAws::default());
    let context = context(broker.clone(), relays(&[]));
    let listener = listener("sql").serving("a", "1", "s-1");
    let listener = listener.deleted_at(Timestamp::now()).arc();
    let observed = observe::observe(&listener, &context).await.unwrap();
    let sessions = ["s-hangs", "s-denied", "s-1", "s-2"];
    let terminate = |session: &&str| Step::Terminate {
        identity: identity_of(&aws()),
        session: id(session),
    };
    let plan = Plan {
        steps: sessions.iter().map(terminate).collect(),
        requeue_after: None,
    };
    let error = act(&observed, &plan, &context).await.unwrap_err();

    let said = error.to_string();
    assert!(said.contains("terminate s-denied, s-hangs of"), "{said}");
    let mut asked = broker.terminated.lock().unwrap().clone();
    asked.sort();
    assert_eq!(asked, ["s-1", "s-2", "s-denied", "s-hangs"]);
    let noted = context.terminated(&listener.uid().unwrap());
    let ours = |session| (identity_of(&aws()), id(session));
    assert_eq!(noted, HashSet::from([ours("s-1"), ours("s-2")]));
}

/// What comes of terminating these sessions of a listener with this identity.
async fn end(context: &Context, identity: &Identity, sessions: &[String]) -> Result<Again, Error> {
    let terminate = |session: &String| Step::Terminate {
        identity: identity.clone(),
        session: id(session),
    };
    take(context, sessions.iter().map(terminate).collect()).await
}

/// What comes of these steps for a deleted listener.
async fn take(context: &Context, steps: Vec<Step>) -> Result<Again, Error> {
    let listener = listener("sql").serving("a", "1", "s-1");
    let listener = listener.deleted_at(Timestamp::now()).arc();
    let observed = observe::observe(&listener, context).await?;
    let plan = Plan {
        steps,
        requeue_after: None,
    };
    act(&observed, &plan, context).await
}

fn in_region(region: &str) -> Identity {
    Identity {
        region: region.into(),
        ..identity_of(&aws())
    }
}

#[tokio::test(start_paused = true)]
async fn a_region_that_hangs_keeps_no_turn_of_another_though_a_listener_waits_for_both() {
    let context = context(Arc::new(FakeAws::default()), relays(&[]));
    let step = |region: &str, session: String| Step::Terminate {
        identity: in_region(region),
        session: id(&session),
    };
    let both = (0..context.options.concurrency / 4).map(|n| {
        let hangs = step("eu-test-1", format!("s-hangs-{n}"));
        take(&context, vec![hangs, step("eu-test-2", format!("s-{n}"))])
    });
    let mut both = std::pin::pin!(join_all(both));
    assert!(futures::poll!(&mut both).is_pending());
    for region in ["eu-test-2", "eu-test-3"] {
        let there = end(&context, &in_region(region), &["s-there".to_owned()]).await;
        assert_eq!(there.unwrap(), Again::AtOnce, "{region}");
    }
    assert!(both.await.iter().all(Result::is_err), "it hangs");
}

#[tokio::test(start_paused = true)]
async fn a_region_that_hangs_takes_a_part_of_the_reconciles_and_keeps_no_other_waiting() {
    let broker = Arc::new(FakeAws::default());
    let context = context(broker.clone(), relays(&[]));
    let hanging = identity_of(&aws());
    let answering = in_region("eu-test-2");
    let waiting = (0..100).map(|n| {
        let sessions = [format!("s-hangs-{n}")];
        let (context, hanging) = (&context, &hanging);
        async move { end(context, hanging, &sessions).await }
    });
    let there = ["s-1".to_owned()];
    let (waited, there) = tokio::join!(join_all(waiting), end(&context, &answering, &there));
    assert_eq!(there.unwrap(), Again::AtOnce);
    let part = usize::from(context.options.concurrency) / 4;
    let failed = waited.iter().filter(|outcome| outcome.is_err());
    assert_eq!(failed.count(), part);
    let later = waited
        .iter()
        .filter(|outcome| matches!(outcome, Ok(Again::AtItsTurn)));
    assert_eq!(later.count(), 100 - part);
    assert_eq!(broker.terminated.lock().unwrap().len(), part + 1);

    // Each turn was given back.
    let sessions = ["s-2".to_owned()];
    let next = end(&context, &hanging, &sessions).await;
    assert_eq!(next.unwrap(), Again::AtOnce);
}

#[tokio::test]
async fn identities_of_one_region_share_a_turn_and_each_is_asked_however_many_there_are() {
    let broker = Arc::new(FakeAws::default());
    let context = context(broker.clone(), relays(&[]));
    let count = usize::from(context.options.concurrency);
    let terminate = |n: usize| Step::Terminate {
        identity: Identity {
            role: Some(Role {
                arn: format!("arn:aws:iam::123456789012:role/{n}"),
                external_id: None,
                session_name: "test".into(),
            }),
            ..identity_of(&aws())
        },
        session: id(&format!("s-{n}")),
    };
    let again = take(&context, (0..count).map(terminate).collect()).await;
    assert_eq!(again.unwrap(), Again::AtOnce);
    assert_eq!(broker.terminated.lock().unwrap().len(), count);
}

#[tokio::test(start_paused = true)]
async fn however_many_sessions_are_not_answered_for_it_is_aws_that_is_named() {
    let broker = Arc::new(FakeAws::default());
    let context = context(broker, relays(&[]));
    let sessions: Vec<String> = (0..64).map(|n| format!("s-hangs-{n}")).collect();
    let deadline = context.options.api_timeout * 2;
    let identity = identity_of(&aws());
    let ended = end(&context, &identity, &sessions);
    let ended = tokio::time::timeout(deadline, ended).await;
    let error = ended.expect("within the reconcile's deadline").unwrap_err();
    let said = error.to_string();
    assert!(said.contains("no answer within 10s"), "{said}");
}

#[tokio::test]
async fn a_write_whose_answer_can_not_be_read_is_done() {
    let mut context = context(Arc::new(FakeAws::default()), relays(&[]));
    let (client, asked) = unreadable_api(&[]);
    context.client = client;
    let listener = listener("sql").arc();
    let observed = observe::observe(&listener, &context).await.unwrap();
    asked.lock().unwrap().clear();
    let set_spec = Step::SetSpec {
        relay: None,
        lost_sessions: Vec::new(),
    };
    let steps = vec![
        Step::Delete(Orphaned::Draining),
        set_spec,
        Step::RemoveFinalizer,
    ];
    let plan = Plan {
        steps,
        requeue_after: None,
    };
    act(&observed, &plan, &context).await.unwrap();
    let name = listener.name_any();
    let written = ["DELETE", "PATCH", "PATCH"].map(|of| format!("{of} {name}"));
    assert_eq!(calls(&asked), written);
}

#[tokio::test]
async fn the_ends_of_a_deleted_listeners_sessions_are_looked_for_until_they_are_on_record() {
    let context = context(Arc::new(FakeAws::default()), relays(&[("a", "1")]));
    let identity = identity_of(&aws());
    let serving = listener("sql").serving("a", "1", "s-1");
    let deleted = serving.clone().deleted_at(Timestamp::now());
    steps(&deleted.clone().arc(), &context).await.unwrap();
    assert_eq!(context.polls.wanted(&identity), [[id("s-1")]]);

    steps(&deleted.ended("s-1").arc(), &context).await.unwrap();
    assert!(context.polls.wanted(&identity).is_empty());
    assert!(
        wanted(&serving.build()).is_empty(),
        "the session's reconciler looks for these"
    );
}
