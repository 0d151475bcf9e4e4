//! What is promised of the sweeper: whom it suspects, and whom it ends.

use super::*;
use crate::controller::fake_aws::FakeAws;
use crate::controller::fixtures;
use crate::crd::class::Aws;

const SECOND: Duration = Duration::from_secs(1);

fn identity() -> Identity {
    Identity {
        region: "eu-test-1".into(),
        ssm_endpoint: None,
        ssmmessages_endpoint: None,
        role: None,
    }
}

fn active(id: &str, reason: &str) -> HashMap<SessionId, DescribedSession> {
    let session = fixtures::described(id, "Connected").reason(reason).build();
    HashMap::from([(session.session_id.clone(), session)])
}

fn marked(namespace_uid: &str, listener_uid: &str) -> String {
    Marker::new(namespace_uid, listener_uid).append_to("because")
}

const NAMESPACE: &str = "3f2a8f6e-8f5e-4f0e-9f59-0d9f1f0c2a01";
const OTHER_NAMESPACE: &str = "7c7d2a55-51be-4a62-9a93-0a4e8a1f9b02";
const LISTENER: &str = "b1d7a9a2-3a40-4b57-a2f5-5a3c0a9d7e03";

#[test]
fn an_unrecorded_session_is_suspect_after_two_polls_and_the_grace() {
    let mut sweeper = Sweeper::new(NAMESPACE, 60 * SECOND);
    let active = active("s-1", &marked(NAMESPACE, LISTENER));
    let start = Instant::now();
    let mut poll = |after| {
        sweeper
            .handle_poll(&identity(), &active, &[], start + after)
            .len()
    };
    assert_eq!(
        [poll(Duration::ZERO), poll(20 * SECOND), poll(60 * SECOND)],
        [0, 0, 0]
    );
    assert_eq!(poll(61 * SECOND), 1);
}

#[test]
fn one_poll_is_never_enough_however_late_the_second() {
    let mut sweeper = Sweeper::new(NAMESPACE, 60 * SECOND);
    let active = active("s-1", &marked(NAMESPACE, LISTENER));
    let now = Instant::now();
    assert!(
        sweeper
            .handle_poll(&identity(), &active, &[], now + 600 * SECOND)
            .is_empty()
    );
}

#[test]
fn a_session_that_vanished_in_between_starts_afresh() {
    let mut sweeper = Sweeper::new(NAMESPACE, 60 * SECOND);
    let active = active("s-1", &marked(NAMESPACE, LISTENER));
    let now = Instant::now();
    let _ = sweeper.handle_poll(&identity(), &active, &[], now);
    let _ = sweeper.handle_poll(&identity(), &HashMap::new(), &[], now + 30 * SECOND);
    assert!(
        sweeper
            .handle_poll(&identity(), &active, &[], now + 90 * SECOND)
            .is_empty()
    );
}

#[test]
fn what_aws_is_ending_already_is_not_suspect() {
    let mut sweeper = Sweeper::new(NAMESPACE, SECOND);
    let now = Instant::now();
    for status in ["Terminating", "Terminated", "Failed"] {
        let session = fixtures::described("s-1", status);
        let session = session.reason(&marked(NAMESPACE, LISTENER)).build();
        let active = HashMap::from([(session.session_id.clone(), session)]);
        for round in 0..3 {
            let at = now + round * 60 * SECOND;
            let suspects = sweeper.handle_poll(&identity(), &active, &[], at);
            assert!(
                suspects.is_empty() && !sweeper.suspects(&identity()),
                "{status}"
            );
        }
    }
}

#[test]
fn a_session_that_was_just_terminated_takes_the_grace_again() {
    let mut sweeper = Sweeper::new(NAMESPACE, 60 * SECOND);
    let active = active("s-1", &marked(NAMESPACE, LISTENER));
    let start = Instant::now();
    let poll = |sweeper: &mut Sweeper, after: u32| {
        let suspects = sweeper.handle_poll(&identity(), &active, &[], start + after * SECOND);
        suspects.len()
    };
    assert_eq!([poll(&mut sweeper, 0), poll(&mut sweeper, 61)], [0, 1]);
    let session = SessionId::parse("s-1").expect("an id");
    let swept = Swept {
        terminated: vec![session],
        left: Vec::new(),
    };
    sweeper.handle_swept(&identity(), &swept, start + 61 * SECOND);
    assert!(!sweeper.suspects(&identity()));
    let later = [81, 101, 141].map(|after| poll(&mut sweeper, after));
    assert_eq!(later, [0, 0, 0]);
    assert_eq!(poll(&mut sweeper, 142), 1);
}

#[test]
fn what_can_not_be_ended_is_tried_ever_later_and_stays_suspected() {
    let mut sweeper = Sweeper::new(NAMESPACE, 60 * SECOND);
    let active = active("s-1", &marked(NAMESPACE, LISTENER));
    let start = Instant::now();
    let mut tries = Vec::new();
    for seconds in (0..7200).step_by(20) {
        let now = start + Duration::from_secs(seconds);
        let suspects = sweeper.handle_poll(&identity(), &active, &[], now);
        assert!(sweeper.suspects(&identity()));
        if !suspects.is_empty() {
            let left = suspects.into_iter().map(|of| of.session).collect();
            let swept = Swept {
                terminated: Vec::new(),
                left,
            };
            sweeper.handle_swept(&identity(), &swept, now);
            tries.push(seconds);
        }
    }
    // Each pause is half as long as it may be at least, and lasts until the next poll.
    let pauses: Vec<u64> = tries.windows(2).map(|of| of[1] - of[0]).collect();
    assert_eq!(tries[0], 80);
    for (pause, longest) in pauses
        .iter()
        .zip([60, 120, 240].into_iter().chain([480; 100]))
    {
        assert!((longest / 2..=longest + 20).contains(pause), "{pauses:?}");
    }
    assert!(tries.len() > 12, "{tries:?}: for ever");
}

#[test]
fn strangers_and_other_installations_are_never_suspect() {
    let mut sweeper = Sweeper::new(NAMESPACE, SECOND);
    let now = Instant::now();
    for reason in ["lunch", &marked(OTHER_NAMESPACE, LISTENER)] {
        let active = active("s-1", reason);
        for round in 0..5 {
            let at = now + round * 60 * SECOND;
            assert!(
                sweeper
                    .handle_poll(&identity(), &active, &[], at)
                    .is_empty(),
                "{reason}"
            );
        }
    }
}

#[test]
fn a_session_on_record_with_an_identity_that_is_not_its_listeners_is_as_good_as_unrecorded() {
    let mut sweeper = Sweeper::new(NAMESPACE, SECOND);
    let active = active("s-1", &marked(NAMESPACE, LISTENER));
    let elsewhere = Aws {
        region: "eu-test-2".into(),
        ..Aws::default()
    };
    let listener = fixtures::listener("sql")
        .uid(LISTENER)
        .serving("relay-a", "one", "s-1")
        .recorded_with(&elsewhere);
    let mut former = listener.clone().build();
    former.spec.former_identities = vec![elsewhere];
    let now = Instant::now();
    let mut suspects = |listener: SsmListener, from: u64| {
        let listeners = [Arc::new(listener)];
        let polls = [from, from + 60].map(|seconds| {
            let at = now + Duration::from_secs(seconds);
            sweeper.handle_poll(&identity(), &active, &listeners, at)
        });
        polls[1].len()
    };
    assert_eq!(suspects(former, 0), 0);
    assert_eq!(suspects(listener.build(), 300), 1);
}

#[tokio::test(start_paused = true)]
async fn what_aws_does_not_end_keeps_no_other_session_alive_and_no_sweep_going() {
    let broker = Arc::new(FakeAws::default());
    let context = fixtures::context(broker.clone(), fixtures::relays(&[]));
    let suspect = |session: &str| Suspect {
        session: SessionId::parse(session).expect("an id"),
        marker: Marker::new(NAMESPACE, LISTENER),
    };
    let hanging = (100..200).map(|n| suspect(&format!("s-hangs-{n}")));
    let suspects = [suspect("s-denied"), suspect("s-1"), suspect("s-2")];
    let suspects = suspects.into_iter().chain(hanging).collect();
    let start = Instant::now();
    let deadline = start + SWEEP_MAX;
    let mut swept = end_unrecorded(&context, &identity(), suspects, &[], deadline).await;
    swept.terminated.sort();
    let ids: Vec<&str> = swept.terminated.iter().map(SessionId::as_str).collect();
    assert_eq!(ids, ["s-1", "s-2"]);
    let left = swept.left.iter().map(SessionId::as_str);
    let (hung, denied): (Vec<_>, Vec<_>) = left.partition(|id| id.contains("hangs"));
    assert_eq!(denied, ["s-denied"]);
    // The Events about the two may each wait for an API server that is not there.
    let events = 2 * context.options.api_timeout;
    assert!(start.elapsed() <= SWEEP_MAX + events, "on the tests' clock");
    let asked = broker.terminated.lock().expect("not poisoned").len();
    assert!(asked < 103, "{asked}: the rest waits for the next poll");
    assert!(hung.len() + 3 <= asked, "what was not tried has not failed");
}

#[test]
fn sessions_of_a_listener_that_can_not_be_read_run_on_until_it_is_deleted() {
    let judged = |deleted: bool, partial: bool| {
        let mut metadata = serde_json::json!({ "name": "l", "uid": LISTENER });
        if deleted {
            metadata["deletionTimestamp"] = "2026-11-22T10:00:00Z".into();
        }
        let metadata = vec![serde_json::from_value(metadata).expect("metadata")];
        let (unread, partial) = if partial {
            (Vec::new(), metadata)
        } else {
            (metadata, Vec::new())
        };
        let listeners = Listed {
            known: Vec::new(),
            unread,
            partial,
        };
        let of = |session: &str, listener: &str| Suspect {
            session: SessionId::parse(session).expect("an id"),
            marker: Marker::new(NAMESPACE, listener),
        };
        let suspects = vec![of("s-1", LISTENER), of("s-2", OTHER_NAMESPACE)];
        let ids = |of: Vec<Suspect>| {
            let ids = of.into_iter().map(|of| of.session.to_string());
            ids.collect::<Vec<_>>()
        };
        let (judged, left) = judgeable(NAMESPACE, suspects, &listeners);
        (ids(judged), ids(left))
    };
    for partial in [false, true] {
        let of = |ids: &[&str]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(judged(false, partial), (of(&["s-2"]), of(&["s-1"])));
        assert_eq!(judged(true, partial), (of(&["s-1", "s-2"]), of(&[])));
    }
}

#[test]
fn what_its_listener_records_as_live_is_left_alone_and_what_it_records_as_ended_is_not() {
    let mut sweeper = Sweeper::new(NAMESPACE, SECOND);
    let active = active("s-1", &marked(NAMESPACE, LISTENER));
    let live = fixtures::listener("sql")
        .uid(LISTENER)
        .serving("relay-a", "one", "s-1");
    let ended = Arc::new(live.clone().ended("s-1").build());
    let live = Arc::new(live.build());
    let now = Instant::now();
    for round in 0..3 {
        let at = now + round * 60 * SECOND;
        let listeners = [Arc::clone(&live)];
        assert!(
            sweeper
                .handle_poll(&identity(), &active, &listeners, at)
                .is_empty()
        );
    }
    let listeners = [ended];
    let _ = sweeper.handle_poll(&identity(), &active, &listeners, now + 300 * SECOND);
    let suspects = sweeper.handle_poll(&identity(), &active, &listeners, now + 400 * SECOND);
    assert_eq!(suspects.len(), 1);
}
