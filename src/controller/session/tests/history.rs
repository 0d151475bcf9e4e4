//! The mirrored sessions: live ones word for word, ended ones once, with their duration.

use std::collections::HashSet;

use super::*;
use crate::broker::SessionId;
use crate::controller::fixtures::{described, listener};
use crate::crd::class::Aws;
use crate::crd::listener::EndReason;
use crate::crd::session::AwsSession;

fn id(id: &str) -> SessionId {
    SessionId::parse(id).expect("an id")
}

fn ids(sessions: &[AwsSession]) -> Vec<&str> {
    sessions
        .iter()
        .map(|session| session.session_id.as_str())
        .collect()
}

fn serving() -> World {
    World::made(&["sql"], vec![listener("sql").serving("a", "1", "s-1")])
}

#[test]
fn before_the_first_poll_a_session_shows_without_a_status() {
    let status = serving().report();
    let session = &status.sessions[0];
    assert_eq!(
        (session.session_id.as_str(), session.status.as_deref()),
        ("s-1", None)
    );
    let ours = (
        session.port.as_deref(),
        session.replica,
        session.relay.as_deref(),
    );
    assert_eq!(ours, (Some("sql"), Some(0), Some("a")));
}

#[test]
fn what_aws_says_is_mirrored_word_for_word_and_long_words_are_cut() {
    let mut world = serving();
    let mut said = described("s-1", "SomethingNew")
        .reason(&"r".repeat(5000))
        .build();
    said.max_session_duration = Some("1080".into());
    said.s3_output_url = Some("https://bucket/key".into());
    world.poll(|snapshot| {
        snapshot.active.insert(id("s-1"), said);
    });
    let status = world.report();
    let session = &status.sessions[0];
    assert_eq!(session.status.as_deref(), Some("SomethingNew"));
    assert_eq!(session.start_date.as_deref(), Some("2026-11-22T10:00:00Z"));
    assert_eq!(session.max_session_duration.as_deref(), Some("1080"));
    let url = session
        .output_url
        .as_ref()
        .and_then(|url| url.s3.as_deref());
    assert_eq!(url, Some("https://bucket/key"));
    let reason = session.reason.as_deref().expect("a reason");
    assert_eq!(
        (reason.chars().count(), reason.ends_with("(cut)")),
        (1024, true)
    );
}

#[test]
fn a_live_session_that_a_poll_misses_is_looked_up_and_stays() {
    let mut world = serving();
    world.poll(|_| {});
    let plan = world.decide();
    let wanted: Vec<_> = plan
        .mirror
        .wanted
        .iter()
        .map(|(_, id)| id.as_str())
        .collect();
    assert_eq!(wanted, ["s-1"]);
    assert_eq!(ids(&plan.mirror.sessions), ["s-1"]);
    world.poll(|snapshot| {
        snapshot
            .active
            .insert(id("s-1"), described("s-1", "Connected").build());
    });
    assert!(world.decide().mirror.wanted.is_empty());
}

#[test]
fn ends_are_looked_for_with_the_listeners_identity_and_never_with_one_that_only_a_record_names() {
    let elsewhere = Aws {
        region: "eu-test-2".into(),
        ..Aws::default()
    };
    let live = listener("sql").serving("a", "1", "s-1");
    let live = live.recorded_with(&elsewhere);
    let mut world = World::made(&["sql"], vec![live.clone()]);
    world.poll(|_| {});
    let plan = world.decide();
    assert_eq!(ids(&plan.mirror.sessions), ["s-1"]);
    assert!(plan.mirror.wanted.is_empty() && plan.mirror.started_with.is_empty());
    world.listeners(vec![live.ended("s-1")]);
    let plan = world.decide();
    let ours = (identity_of(&fixtures::aws()), id("s-1"));
    assert_eq!(plan.mirror.wanted, HashSet::from([ours]));
    assert!(plan.mirror.started_with.is_empty());
}

#[test]
fn disconnected_changes_nothing_and_terminated_is_looked_up() {
    for (word, wanted) in [
        ("Disconnected", 0),
        ("Connecting", 0),
        ("Terminated", 1),
        ("Failed", 1),
    ] {
        let mut world = serving();
        world.poll(|snapshot| {
            snapshot
                .active
                .insert(id("s-1"), described("s-1", word).build());
        });
        let plan = world.decide();
        assert_eq!(plan.mirror.wanted.len(), wanted, "{word}");
        assert_eq!(ids(&plan.mirror.sessions), ["s-1"], "{word}");
    }
}

#[test]
fn an_ended_session_waits_for_its_end_date_and_then_moves_to_history_once() {
    let mut world = serving();
    world.poll(|snapshot| {
        snapshot
            .active
            .insert(id("s-1"), described("s-1", "Connected").build());
    });
    world.report();
    world.listeners(vec![listener("sql").serving("a", "1", "s-1").ended("s-1")]);
    let waiting = world.after(60);
    assert_eq!(
        (ids(&waiting.sessions), ids(&waiting.history)),
        (vec!["s-1"], vec![])
    );
    assert_eq!(
        waiting.sessions[0].end_reason,
        Some(EndReason::ClosedByService)
    );
    world.poll(|snapshot| {
        snapshot.active.clear();
        let over = described("s-1", "Terminated").ended_at(at(3723)).build();
        snapshot.ended.insert(id("s-1"), over);
    });
    let ended = world.after(20);
    assert_eq!(
        (ids(&ended.sessions), ids(&ended.history)),
        (vec![], vec!["s-1"])
    );
    let session = &ended.history[0];
    assert_eq!(session.duration.as_deref(), Some("1h2m3s"));
    assert_eq!(session.end_date.as_deref(), Some("2026-11-22T11:02:03Z"));
    assert_eq!(session.end_message.as_deref(), Some("closed"));
    world.poll(|snapshot| snapshot.ended.clear());
    assert!(world.decide().mirror.wanted.is_empty());
    assert_eq!(world.after(3600).history, ended.history);
}

#[test]
fn an_end_that_aws_never_shows_is_given_up_after_a_while() {
    let mut world = serving();
    world.report();
    world.listeners(vec![listener("sql").serving("a", "1", "s-1").ended("s-1")]);
    world.poll(|_| {});
    assert_eq!(ids(&world.report().sessions), ["s-1"]);
    assert_eq!(ids(&world.after(599).sessions), ["s-1"]);
    let status = world.after(1);
    assert_eq!(ids(&status.history), ["s-1"]);
    assert_eq!(
        (status.history[0].duration.as_deref(), status.sessions.len()),
        (None, 0)
    );
}

#[test]
fn an_end_whose_report_was_overtaken_is_reported_by_the_next_and_not_looked_for_anew() {
    let mut world = serving();
    world.report();
    world.listeners(vec![]);
    world.poll(|_| {});
    world.report();
    world.seconds += 600;
    for _ in 0..2 {
        let plan = world.decide();
        let ended = plan.mirror.ended.iter().map(|s| s.session_id.as_str());
        assert_eq!(ended.collect::<Vec<_>>(), ["s-1"]);
        let memory = std::mem::take(&mut world.observed.memory);
        world.observed.memory = memory::decided(memory, &plan, world.start);
    }
    world.report();
    let memory = &world.observed.memory;
    assert!(memory.ending.is_empty() && memory.started_with.is_empty());
    assert!(memory.finished.contains("s-1"));
}

#[test]
fn what_aws_said_before_an_end_that_it_never_shows_is_not_said_of_the_ended_session() {
    for (word, said) in [("Connected", None), ("Terminated", Some("Terminated"))] {
        let mut world = serving();
        world.poll(|snapshot| {
            let described = described("s-1", word).build();
            snapshot.active.insert(id("s-1"), described);
        });
        world.report();
        world.listeners(vec![listener("sql").serving("a", "1", "s-1").ended("s-1")]);
        let shown = world.report().sessions[0].status.clone();
        assert_eq!(shown.as_deref(), Some(word));
        let status = world.after(600);
        assert_eq!(ids(&status.history), ["s-1"]);
        assert_eq!(status.history[0].status.as_deref(), said, "{word}");
    }
}

#[test]
fn the_end_of_a_session_is_told_once_whatever_the_history_has_room_for() {
    let ports: Vec<String> = (0..8).map(|n| format!("p{n}")).collect();
    let names: Vec<&str> = ports.iter().map(String::as_str).collect();
    let session = |port: &str| format!("s-{port}");
    let serving = |port: &&str| listener(port).serving("a", "1", &session(port));
    let mut world = World::made(&names, names.iter().map(serving).collect());
    world.report();
    let ended = |port: &&str| serving(port).ended(&session(port));
    world.listeners(names.iter().map(ended).collect());
    assert_eq!(world.decide().mirror.ended, [], "AWS shows none yet");
    assert_eq!(world.decide().mirror.untold().len(), 8);
    world.poll(|snapshot| {
        for port in &names {
            let over = described(&session(port), "Terminated").ended_at(at(90));
            snapshot.ended.insert(id(&session(port)), over.build());
        }
    });
    let plan = world.decide();
    assert_eq!(plan.mirror.ended.len(), 8);
    assert_eq!(plan.mirror.history.len(), 5);
    assert_eq!(plan.mirror.untold(), []);
    world.report();
    assert_eq!(world.decide().mirror.ended, []);
    world.observed.memory = Memory::default();
    assert_eq!(world.decide().mirror.ended, [], "nor by a new controller");
}

#[test]
fn a_session_whose_listener_is_gone_is_not_lost() {
    let mut world = World::made(&["sql"], vec![listener("sql").serving("a", "1", "s-1")]);
    world.poll(|snapshot| {
        snapshot
            .active
            .insert(id("s-1"), described("s-1", "Connected").build());
    });
    world.report();
    world.listeners(vec![]);
    world.poll(|snapshot| {
        snapshot.active.clear();
        snapshot.ended.insert(
            id("s-1"),
            described("s-1", "Terminated").ended_at(at(59)).build(),
        );
    });
    let status = world.after(1);
    assert_eq!(ids(&status.history), ["s-1"]);
    assert_eq!(status.history[0].end_reason, Some(EndReason::Deleted));
    assert_eq!(status.history[0].duration.as_deref(), Some("59s"));
}

#[test]
fn an_end_is_looked_for_with_the_identity_that_class_and_listener_had() {
    let mut world = serving();
    world.report();
    world.listeners(vec![]);
    world.observed.snapshots.clear();
    world.observed.class = ClassFound::Missing {
        gone: true,
        message: "deleted".into(),
    };
    world.report();
    let plan = world.decide();
    assert_eq!(ids(&plan.mirror.sessions), ["s-1"]);
    let identity = identity_of(&fixtures::aws());
    assert_eq!(plan.mirror.wanted, HashSet::from([(identity, id("s-1"))]));
    world.poll(|snapshot| {
        let over = described("s-1", "Terminated").ended_at(at(59)).build();
        snapshot.ended.insert(id("s-1"), over);
    });
    let status = world.report();
    assert_eq!(ids(&status.history), ["s-1"]);
    assert!(status.history[0].end_date.is_some());
    assert!(world.decide().mirror.started_with.is_empty());
}

#[test]
fn history_keeps_the_last_five_newest_first_and_what_fell_off_does_not_come_back() {
    let mut world = serving();
    let mut builder = listener("sql");
    let names: Vec<String> = (0..8).map(|n| format!("s-{n}")).collect();
    for name in &names {
        builder = builder.serving("a", "1", name);
    }
    let all = builder.clone();
    world.listeners(vec![all]);
    world.report();
    for name in &names {
        builder = builder.ended(name);
    }
    world.listeners(vec![builder]);
    world.poll(|snapshot| {
        for (n, name) in (0..).zip(&names) {
            let over = described(name, "Terminated")
                .ended_at(at(100 + n * 10))
                .build();
            snapshot.ended.insert(id(name), over);
        }
    });
    let status = world.report();
    assert_eq!(ids(&status.history), ["s-7", "s-6", "s-5", "s-4", "s-3"]);
    world.poll(|snapshot| snapshot.ended.clear());
    assert_eq!(world.report(), status);
    assert_eq!(world.decide().mirror.wanted, HashSet::new());
    world.observed.memory = Memory::default();
    assert_eq!(world.report(), status, "nor for a new controller");
    assert_eq!(world.decide().mirror.wanted, HashSet::new());
}

#[test]
fn a_status_that_was_not_written_is_said_again() {
    let mut world = serving();
    world.report();
    world.listeners(vec![listener("sql").serving("a", "1", "s-1").ended("s-1")]);
    world.poll(|snapshot| {
        snapshot.ended.insert(
            id("s-1"),
            described("s-1", "Terminated").ended_at(at(9)).build(),
        );
    });
    let overtaken = world.decide();
    assert_eq!(world.decide().status, overtaken.status);
    assert_eq!(ids(&world.report().history), ["s-1"]);
}
