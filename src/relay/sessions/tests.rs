//! What becomes of the sessions of one listener.

use std::time::Duration;

use super::*;

const DELAY: Duration = Duration::from_secs(1);

fn backoff() -> Backoff {
    Backoff::new(DELAY, DELAY)
}

fn id(name: &str) -> SessionId {
    SessionId::parse(name).expect("an id")
}

fn record(name: &str) -> SessionRecord {
    SessionRecord {
        session_id: id(name),
        identity: Identity {
            region: "eu-central-1".to_owned(),
            ssm_endpoint: None,
            ssmmessages_endpoint: None,
            role: None,
        },
        relay: "relay-1".to_owned(),
        incarnation: "run-1".to_owned(),
        started_at: Timestamp::UNIX_EPOCH,
        end: None,
    }
}

/// None so far, of a run that has recorded something.
fn recorded() -> Sessions {
    let mut sessions = Sessions::default();
    sessions.handle_recorded();
    sessions
}

fn due(sessions: &mut Sessions, now: Instant) -> Vec<String> {
    std::iter::from_fn(|| sessions.poll_terminate(now))
        .map(|(id, _)| id.to_string())
        .collect()
}

#[test]
fn a_session_that_is_wanted_is_not_terminated() {
    let mut sessions = recorded();
    sessions.add(record("a"));
    assert_eq!(due(&mut sessions, Instant::now()), Vec::<String>::new());
    assert_eq!((sessions.live_count(), sessions.poll_timeout()), (1, None));
}

#[test]
fn a_session_stays_live_until_aws_has_answered() {
    let (mut sessions, now) = (recorded(), Instant::now());
    sessions.add(record("a"));
    sessions.terminate(&id("a"), EndReason::Deleted, "", now, &backoff());
    assert_eq!(due(&mut sessions, now), ["a"]);
    sessions.handle_terminate_failed(&id("a"), false, now);
    assert_eq!(sessions.records(), [record("a")]);
    let at = sessions.poll_timeout().expect("a deadline");
    assert!(at > now && at <= now + DELAY);
    assert!(due(&mut sessions, now).is_empty());
    assert_eq!(due(&mut sessions, at), ["a"]);
    let over = sessions.handle_over(&id("a"), EndReason::ClosedByService, Timestamp::UNIX_EPOCH);
    let end = over.and_then(|record| record.end).expect("an end");
    assert_eq!(end.reason, EndReason::Deleted);
    assert_eq!((sessions.live_count(), sessions.poll_timeout()), (0, None));
}

#[test]
fn the_first_reason_stands() {
    let (mut sessions, now) = (recorded(), Instant::now());
    sessions.add(record("a"));
    sessions.add(record("b"));
    sessions.terminate(
        &id("a"),
        EndReason::ClosedByService,
        "idle",
        now,
        &backoff(),
    );
    sessions.terminate_all(EndReason::Deleted, now, &backoff());
    assert_eq!(
        due(&mut sessions, now),
        ["a", "b"],
        "each is called for once"
    );
    for (name, reason, message) in [
        ("a", EndReason::ClosedByService, "idle"),
        ("b", EndReason::Deleted, ""),
    ] {
        let over = sessions.handle_over(&id(name), EndReason::RelayLost, Timestamp::UNIX_EPOCH);
        let end = over.and_then(|record| record.end).expect("an end");
        assert_eq!((end.reason, end.message.as_str()), (reason, message));
    }
}

#[test]
fn a_session_that_nobody_had_ended_here_ends_for_the_reason_that_aws_gives() {
    let mut sessions = recorded();
    sessions.add(record("a"));
    let reason = EndReason::TerminatedExternally;
    let over = sessions.handle_over(&id("a"), reason, Timestamp::UNIX_EPOCH);
    assert_eq!(
        over.and_then(|record| record.end).map(|end| end.reason),
        Some(reason)
    );
    assert!(
        sessions
            .handle_over(&id("a"), reason, Timestamp::UNIX_EPOCH)
            .is_none()
    );
}

#[test]
fn what_an_earlier_run_recorded_and_aws_refuses_to_end_stands_in_nobodys_way() {
    let now = Instant::now();
    let old: Vec<_> = (0..64).map(|n| record(&format!("old-{n}"))).collect();
    let mut sessions = Sessions::inherit(old, now, &backoff());
    sessions.handle_recorded();
    assert_eq!(sessions.open_count(), 64);
    assert_eq!(due(&mut sessions, now).len(), 64);
    for n in 0..64 {
        sessions.handle_terminate_failed(&id(&format!("old-{n}")), true, now);
    }
    sessions.add(record("new"));
    assert_eq!((sessions.open_count(), sessions.live_count()), (1, 65));
    let records = sessions.records();
    assert_eq!(
        (&records[0], records.len()),
        (&record("new"), 1 + REFUSED_MAX)
    );
    // They are tried again all the same; an answer that says nothing of rights changes nothing.
    assert_eq!(due(&mut sessions, now + DELAY).len(), 64);
    sessions.handle_terminate_failed(&id("old-0"), false, now);
    assert_eq!(sessions.open_count(), 1);

    let mut own = recorded();
    own.add(record("a"));
    own.terminate(&id("a"), EndReason::Deleted, "", now, &backoff());
    assert_eq!(due(&mut own, now), ["a"]);
    own.handle_terminate_failed(&id("a"), true, now);
    assert_eq!(own.open_count(), 1, "what this run began is its own doing");
}

#[test]
fn a_session_that_an_earlier_run_recorded_twice_is_ended_once_and_then_over() {
    let now = Instant::now();
    let twice = vec![record("a"), record("b"), record("a")];
    let mut sessions = Sessions::inherit(twice, now, &backoff());
    sessions.handle_recorded();
    assert_eq!(due(&mut sessions, now), ["a", "b"]);
    for name in ["a", "b"] {
        sessions.handle_over(&id(name), EndReason::RelayLost, Timestamp::UNIX_EPOCH);
    }
    assert_eq!((sessions.open_count(), sessions.live_count()), (0, 0));
    assert_eq!(sessions.records().len(), 2);
}

#[test]
fn live_sessions_of_an_earlier_run_are_terminated_and_the_others_kept() {
    let now = Instant::now();
    let mut ended = record("old");
    ended.end = Some(SessionEnd {
        at: Timestamp::UNIX_EPOCH,
        reason: EndReason::Replaced,
        message: String::new(),
    });
    let records = vec![ended.clone(), record("a"), record("b")];
    let mut sessions = Sessions::inherit(records, now, &backoff());
    assert!(due(&mut sessions, now).is_empty(), "they may be another's");
    assert_eq!(sessions.poll_timeout(), None);
    sessions.handle_recorded();
    assert_eq!(due(&mut sessions, now), ["a", "b"]);
    assert_eq!(sessions.records(), [record("a"), record("b"), ended]);
}
