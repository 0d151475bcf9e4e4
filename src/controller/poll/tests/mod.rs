//! What is promised of a poll: it is whole or it does not count, and it asks for no more than it must.

mod deadlines;

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::time::Duration;

use futures::future::BoxFuture;

use super::take::take;
use super::task::{forget, publish};
use super::*;
use crate::broker::{
    Broker, ErrorKind, Filter, Marker, SessionPage, SessionState, SignedHeaders, StartRequest,
    StreamUrl, Ticket,
};
use crate::controller::fixtures::{self, at, described};
use crate::controller::metrics::PollLabels;
use crate::controller::relays::RelaysView;

/// More than any of these polls takes.
const WITHIN: Duration = Duration::from_mins(1);

/// Answers DescribeSessions from a list of pages, and History by id; nothing else is called.
#[derive(Default)]
struct Aws {
    active: Mutex<VecDeque<Result<SessionPage, BrokerError>>>,
    history: Vec<DescribedSession>,
    /// The session that History fails for.
    broken: Option<SessionId>,
    /// The Region whose endpoint never ends its answers: each page takes a while, and there is always another.
    endless: Option<&'static str>,
    /// The session whose look-up in History is never answered.
    hanging: Option<SessionId>,
    calls: Mutex<Vec<String>>,
}

fn refuse<'a, T: Send + 'a>(operation: &'static str) -> BoxFuture<'a, Result<T, BrokerError>> {
    Box::pin(async move {
        Err(BrokerError::new(
            ErrorKind::InvalidRequest,
            operation,
            "a poll only describes",
        ))
    })
}

impl Broker for Aws {
    fn start<'a>(
        &'a self,
        _: &'a Identity,
        _: &'a StartRequest,
    ) -> BoxFuture<'a, Result<Ticket, BrokerError>> {
        refuse("StartSession")
    }

    fn resume<'a>(
        &'a self,
        _: &'a Identity,
        _: &'a SessionId,
    ) -> BoxFuture<'a, Result<Ticket, BrokerError>> {
        refuse("ResumeSession")
    }

    fn terminate<'a>(
        &'a self,
        _: &'a Identity,
        _: &'a SessionId,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        refuse("TerminateSession")
    }

    fn describe<'a>(
        &'a self,
        identity: &'a Identity,
        state: SessionState,
        filters: &'a [Filter],
        next_token: Option<&'a str>,
    ) -> BoxFuture<'a, Result<SessionPage, BrokerError>> {
        Box::pin(async move {
            let value = filters
                .first()
                .map(|filter| filter.value.clone())
                .unwrap_or_default();
            let call = format!("{state:?} {value} {}", next_token.unwrap_or("-"));
            self.calls.lock().expect("not poisoned").push(call);
            if self.endless == Some(&identity.region) {
                tokio::time::sleep(Duration::from_secs(20)).await;
                return page(&[], Some("again"));
            }
            if self.hanging.as_ref().is_some_and(|id| id.as_str() == value) {
                pending::<()>().await;
            }
            match state {
                SessionState::Active => {
                    let page = self.active.lock().expect("not poisoned").pop_front();
                    page.unwrap_or_else(|| Ok(SessionPage::default()))
                }
                SessionState::History
                    if self.broken.as_ref().is_some_and(|id| id.as_str() == value) =>
                {
                    Err(unavailable())
                }
                SessionState::History => {
                    let sessions = self
                        .history
                        .iter()
                        .filter(|s| s.session_id.as_str() == value);
                    Ok(SessionPage {
                        sessions: sessions.cloned().collect(),
                        next_token: None,
                    })
                }
            }
        })
    }

    fn sign_upgrade<'a>(
        &'a self,
        _: &'a Identity,
        _: &'a StreamUrl,
    ) -> BoxFuture<'a, Result<SignedHeaders, BrokerError>> {
        refuse("sign")
    }
}

fn unavailable() -> BrokerError {
    BrokerError::new(ErrorKind::Unavailable, "DescribeSessions", "away")
}

impl Aws {
    fn with_pages(pages: Vec<Result<SessionPage, BrokerError>>) -> Self {
        Self {
            active: Mutex::new(pages.into()),
            ..Self::default()
        }
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().expect("not poisoned").clone()
    }
}

fn identity() -> Identity {
    Identity {
        region: "eu-test-1".into(),
        ssm_endpoint: None,
        ssmmessages_endpoint: None,
        role: None,
    }
}

#[allow(clippy::unnecessary_wraps, reason = "it stands for an answer of AWS")]
fn page(ids: &[&str], next_token: Option<&str>) -> Result<SessionPage, BrokerError> {
    let sessions = ids
        .iter()
        .map(|id| described(id, "Connected").build())
        .collect();
    Ok(SessionPage {
        sessions,
        next_token: next_token.map(str::to_owned),
    })
}

fn id(id: &str) -> SessionId {
    SessionId::parse(id).expect("an id")
}

#[tokio::test]
async fn a_poll_reads_all_pages_also_behind_an_empty_one() {
    let aws = Aws::with_pages(vec![
        page(&["a"], Some("1")),
        page(&[], Some("2")),
        page(&["b"], None),
    ]);
    let snapshot = take(&aws, &identity(), &Snapshot::default(), &[], WITHIN)
        .await
        .expect("three pages");
    assert_eq!((snapshot.round, snapshot.active.len()), (1, 2));
    assert_eq!(aws.calls(), ["Active  -", "Active  1", "Active  2"]);
}

#[tokio::test]
async fn that_markers_are_shown_is_known_from_the_first_that_is() {
    let marked = Marker::new("namespace", "listener").append_to("because");
    let shown = |reason: &str| {
        let sessions = vec![described("a", "Connected").reason(reason).build()];
        Ok(SessionPage {
            sessions,
            next_token: None,
        })
    };
    let aws = Aws::with_pages(vec![shown("because"), shown(&marked), page(&["b"], None)]);
    let mut snapshot = Snapshot::default();
    for shows_markers in [false, true, true] {
        let taken = take(&aws, &identity(), &snapshot, &[], WITHIN).await;
        snapshot = taken.expect("a page");
        assert_eq!(snapshot.shows_markers, shows_markers);
    }
}

#[tokio::test]
async fn a_failed_page_fails_the_whole_poll() {
    let throttled = BrokerError::new(ErrorKind::Throttled, "DescribeSessions", "slower");
    let aws = Aws::with_pages(vec![page(&["a"], Some("1")), Err(throttled.clone())]);
    let taken = take(&aws, &identity(), &Snapshot::default(), &[], WITHIN).await;
    assert_eq!(taken, Err(throttled));
}

#[tokio::test]
async fn history_is_asked_only_for_what_is_wanted_and_not_plainly_active() {
    let over = described("gone", "Terminated").ended_at(at(9)).build();
    let mut aws = Aws::with_pages(vec![page(&["live"], None)]);
    aws.history = vec![over.clone()];
    let wanted = [vec![id("gone"), id("live"), id("unknown")]];
    let snapshot = take(&aws, &identity(), &Snapshot::default(), &wanted, WITHIN)
        .await
        .expect("a poll");
    let mut calls = aws.calls();
    calls.sort();
    assert_eq!(calls, ["Active  -", "History gone -", "History unknown -"]);
    assert_eq!(snapshot.ended, HashMap::from([(id("gone"), over)]));
    assert!(snapshot.says_over(&id("gone")) && !snapshot.says_over(&id("unknown")));
}

#[tokio::test]
async fn an_end_that_is_known_is_not_asked_for_again_and_not_kept_for_ever() {
    let aws = Aws {
        history: vec![described("gone", "Terminated").ended_at(at(9)).build()],
        ..Aws::default()
    };
    let wanted = [vec![id("gone")]];
    let first = take(&aws, &identity(), &Snapshot::default(), &wanted, WITHIN)
        .await
        .expect("a poll");
    let second = take(&aws, &identity(), &first, &wanted, WITHIN)
        .await
        .expect("a poll");
    assert_eq!(second.ended, first.ended);
    assert_eq!(aws.calls(), ["Active  -", "History gone -", "Active  -"]);
    let third = take(&aws, &identity(), &second, &[], WITHIN)
        .await
        .expect("a poll");
    assert!(third.ended.is_empty());
}

#[tokio::test]
async fn a_look_up_that_fails_costs_neither_what_is_active_nor_the_other_look_ups() {
    let aws = Aws {
        history: vec![described("gone", "Terminated").ended_at(at(9)).build()],
        broken: Some(id("broken")),
        ..Aws::with_pages(vec![page(&["live"], None)])
    };
    let wanted = [vec![id("broken"), id("gone")]];
    let snapshot = take(&aws, &identity(), &Snapshot::default(), &wanted, WITHIN)
        .await
        .expect("all pages were read");
    assert_eq!((snapshot.round, snapshot.active.len()), (1, 1));
    assert!(snapshot.says_over(&id("gone")));
    assert_eq!(snapshot.error, Some(unavailable()));
}

#[tokio::test]
async fn a_token_that_never_ends_does_not_hold_the_poll_for_ever() {
    let aws = Aws::with_pages((0..2000).map(|_| page(&[], Some("again"))).collect());
    assert!(
        take(&aws, &identity(), &Snapshot::default(), &[], WITHIN)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn with_more_lookups_than_fit_each_has_its_turn() {
    let ids = (100..230).map(|n| id(&format!("s-{n}")));
    let ids: Vec<SessionId> = ids.collect();
    for of_each in [130, 10, 2, 1] {
        let aws = Aws::default();
        let wanted: Vec<_> = ids.chunks(of_each).map(<[_]>::to_vec).collect();
        polled(&aws, &wanted, 4).await;
        assert_eq!(looked_up(&aws).len(), ids.len(), "{of_each} of each object");
    }
}

#[tokio::test]
async fn an_object_with_many_sessions_keeps_none_with_one_waiting() {
    let aws = Aws::default();
    let many = |object: u32| (0..64).map(move |n| id(&format!("many-{object}-{n}")));
    let mut wanted: Vec<Vec<_>> = (0..20).map(|object| many(object).collect()).collect();
    wanted.insert(7, vec![id("single")]);
    polled(&aws, &wanted, 1).await;
    let asked = looked_up(&aws);
    assert!(asked.contains("History single -"), "{asked:?}");
    assert_eq!(asked.len(), 50);
}

async fn polled(aws: &Aws, wanted: &[Vec<SessionId>], polls: u32) {
    let mut snapshot = Snapshot::default();
    for _ in 0..polls {
        let taken = take(aws, &identity(), &snapshot, wanted, WITHIN).await;
        snapshot = taken.expect("a poll");
    }
}

fn looked_up(aws: &Aws) -> HashSet<String> {
    let calls = aws.calls().into_iter();
    calls.filter(|call| call.starts_with("History")).collect()
}

#[test]
fn only_what_changed_is_news() {
    let mut before = Snapshot::default();
    before
        .active
        .insert(id("same"), described("same", "Connected").build());
    before
        .active
        .insert(id("gone"), described("gone", "Connected").build());
    before
        .active
        .insert(id("other"), described("other", "Connecting").build());
    let mut after = before.clone();
    after.round = 9;
    after.active.remove(&id("gone"));
    after
        .active
        .insert(id("other"), described("other", "Connected").build());
    assert_eq!(
        after.changed_since(&before),
        HashSet::from([id("gone"), id("other")])
    );
}

#[test]
fn a_want_replaces_what_was_wanted_before() {
    let polls = Polls::default();
    let want = |ids: &[&str]| Want {
        namespace: "shop".into(),
        name: "db".into(),
        sessions: ids.iter().map(|name| (identity(), id(name))).collect(),
    };
    polls.want("uid", Some(want(&["a", "b"])));
    polls.want("uid", Some(want(&["b"])));
    assert_eq!(polls.wanted(&identity()), [[id("b")]]);
    assert_eq!(
        polls.interested(&HashSet::from([id("b")])),
        [("shop".into(), "db".into())]
    );
    polls.want("gone", Some(want(&["c"])));
    polls.keep_wants_of(|uid| uid == "uid");
    assert_eq!(polls.wanted(&identity()), [[id("b")]]);
    polls.want("uid", None);
    assert!(polls.wanted(&identity()).is_empty() && polls.wanted_identities().is_empty());
}

#[tokio::test]
async fn the_time_of_the_last_poll_is_that_of_the_identity_that_waits_longest_and_goes_with_the_last()
 {
    let context = fixtures::context(Arc::new(Aws::default()), RelaysView::default());
    let other = Identity {
        ssm_endpoint: Some("https://vpce.example.com".into()),
        ..identity()
    };
    let poll = |identity: &Identity, taken: Option<i64>| {
        let snapshot = |seconds| Snapshot {
            taken_at: Some(at(seconds)),
            ..Snapshot::default()
        };
        let taken = taken.map_or_else(|| Err(unavailable()), |seconds| Ok(snapshot(seconds)));
        let previous = context.polls.snapshot(identity);
        publish(&context, identity, &previous, taken);
    };
    let shown = || context.polls.known_since();
    let sample = |seconds: i64| BTreeMap::from([("eu-test-1".to_owned(), seconds)]);
    let failed = || {
        let region = "eu-test-1".to_owned();
        let errors = &context.metrics.poll_errors;
        errors
            .get(&PollLabels { region })
            .map(|errors| errors.get())
    };
    poll(&identity(), Some(10));
    assert_eq!(shown(), sample(at(10).as_second()));
    poll(&other, None);
    assert_eq!(shown(), sample(0), "one has never been answered");
    poll(&other, Some(20));
    assert_eq!(shown(), sample(at(10).as_second()));
    poll(&identity(), Some(30));
    assert_eq!(shown(), sample(at(20).as_second()));
    poll(&identity(), None);
    poll(&other, Some(40));
    assert_eq!(shown(), sample(at(30).as_second()), "a failed poll is none");
    assert_eq!(failed(), Some(2));
    forget(&context, &identity());
    assert_eq!((shown(), failed()), (sample(at(40).as_second()), Some(2)));
    forget(&context, &other);
    assert_eq!((shown(), failed()), (BTreeMap::new(), None));
}
