//! What is promised of the sessions of a deleted listener that no relay ends.

use std::collections::HashSet;

use jiff::Timestamp;
use kube::ResourceExt as _;

use super::act::act;
use super::decide::{Orphaned, Plan, Step};
use super::*;
use crate::broker::SessionId;
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
    assert!(said.contains("terminate s-hangs, s-denied of"), "{said}");
    assert!(said.contains("no answer within 10s"), "{said}");
    assert_eq!(*broker.terminated.lock().unwrap(), sessions);
    let noted = context.terminated(&listener.uid().unwrap());
    let ours = |session| (identity_of(&aws()), id(session));
    assert_eq!(noted, HashSet::from([ours("s-1"), ours("s-2")]));
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
