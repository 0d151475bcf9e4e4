//! What does not answer, or answers for ever, is given up in time, and costs nobody else anything.

use super::*;
use crate::controller::context::Context;
use crate::controller::poll::take::poll_max;
use crate::controller::poll::task::poll_all;

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_answers_for_ever_fails_the_poll_in_time() {
    let aws = Aws {
        endless: Some("eu-test-1"),
        ..Aws::default()
    };
    let start = Instant::now();
    let within = poll_max(Duration::from_secs(20));
    let taken = take(&aws, &identity(), &Snapshot::default(), &[], within).await;
    let error = taken.expect_err("it never ended");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let said = error.to_string();
    assert!(said.contains("no complete answer within 60s"), "{said}");
    assert_eq!(start.elapsed(), within);
    assert_eq!(poll_max(Duration::from_secs(1)), within);
    assert_eq!(poll_max(WITHIN), 3 * WITHIN);
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_is_never_answered_costs_not_what_is_active() {
    let aws = Aws {
        hanging: Some(id("hanging")),
        ..Aws::with_pages(vec![page(&["live"], None)])
    };
    let wanted = [vec![id("hanging"), id("later")]];
    let snapshot = take(&aws, &identity(), &Snapshot::default(), &wanted, WITHIN)
        .await
        .expect("all pages were read");
    assert_eq!(snapshot.active.len(), 1);
    let error = snapshot.error.expect("one was not answered");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(aws.calls(), ["Active  -", "History hanging -"]);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_answers_for_ever_keeps_no_other_identity_from_being_polled() {
    let stalled = Identity {
        region: "eu-test-2".into(),
        ..identity()
    };
    let aws = Arc::new(Aws {
        endless: Some("eu-test-2"),
        ..Aws::default()
    });
    let context = fixtures::context(aws, RelaysView::default());
    let named = |_: &Context| HashSet::from([identity(), stalled.clone()]);
    let for_ever = tokio::time::timeout(Duration::from_secs(205), poll_all(&context, named)).await;
    assert!(for_ever.is_err());
    // One each 20 s, a tenth more or less.
    let round = context.polls.snapshot(&identity()).round;
    assert!((9..=12).contains(&round), "{round}");
    let snapshot = context.polls.snapshot(&stalled);
    assert_eq!(snapshot.round, 0);
    let said = snapshot.error.as_ref().expect("it failed").to_string();
    assert!(said.contains("no complete answer within 60s"), "{said}");
    let known = context.polls.known_since();
    assert_eq!(known["eu-test-2"], 0);
    assert!(known["eu-test-1"] > 0);
}
