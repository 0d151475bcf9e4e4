//! What is promised of deleted listeners' sessions: with whose identity they are ended, and that each deletion ends.

use std::collections::HashSet;

use super::decide::{Plan, Step};
use super::observe::Observed;
use super::tests::{SETTINGS, after, id, marker, observed};
use super::*;
use crate::broker::{Identity, Marker, SessionId};
use crate::controller::fixtures::{self, at, described, listener, relays};
use crate::controller::poll::Snapshot;
use crate::crd::class::{Aws, Endpoints};
use crate::identity::identity_of;

/// What a taken-over relay may write: an identity that leads to an endpoint of its own.
fn elsewhere() -> Aws {
    Aws {
        endpoints: Some(Endpoints {
            ssm: Some("https://attacker.example".into()),
            ssmmessages: None,
        }),
        ..fixtures::aws()
    }
}

/// The calls of a plan's terminations.
fn terminations(plan: &Plan) -> Vec<(Identity, SessionId)> {
    let calls = plan.steps.iter().filter_map(|step| match step {
        Step::Terminate { identity, session } => Some((identity.clone(), session.clone())),
        Step::Delete(_) | Step::SetSpec { .. } | Step::LeaveAlone(_) | Step::RemoveFinalizer => {
            None
        }
    });
    calls.collect()
}

/// A complete poll of this identity that began so many seconds after the deletion was seen.
fn polled(observed: &mut Observed, aws: &Aws, seconds: u64, active: &[&str]) {
    let sessions = active
        .iter()
        .map(|name| (id(name), described(name, "Connected").build()));
    let snapshot = Snapshot {
        round: 9,
        begun: Some(after(seconds)),
        active: sessions.collect(),
        ..Snapshot::default()
    };
    observed
        .snapshots
        .insert(identity_of(aws), Arc::new(snapshot));
}

#[test]
fn a_session_is_ended_with_an_identity_of_its_listener_whatever_its_record_says() {
    let former = Aws {
        region: "eu-test-2".into(),
        ..Aws::default()
    };
    let with = |recorded: &Aws| {
        let listener = listener("sql").serving("a", "1", "s-1");
        let listener = listener.recorded_with(recorded).deleted_at(at(0));
        let listener = listener.change(|l| l.spec.former_identities = vec![former.clone()]);
        observed(listener, relays(&[]))
    };
    let call = |aws: &Aws| (identity_of(aws), id("s-1"));
    let asked = |observed: &Observed| {
        let plan = decide(observed, &SETTINGS, after(0));
        let wanted = wanted(&observed.listener);
        let calls = terminations(&plan);
        assert_eq!(calls.iter().cloned().collect::<HashSet<_>>(), wanted);
        calls
    };
    assert_eq!(asked(&with(&fixtures::aws())), [call(&fixtures::aws())]);
    assert_eq!(asked(&with(&former)), [call(&former)]);
    let mut strange = with(&elsewhere());
    let both = [call(&fixtures::aws()), call(&former)];
    assert_eq!(asked(&strange), both);

    strange.terminated.insert(both[0].clone());
    let plan = decide(&strange, &SETTINGS, after(0));
    assert_eq!(terminations(&plan), both[1..]);
    strange.terminated.insert(both[1].clone());
    let steps = decide(&strange, &SETTINGS, after(0)).steps;
    assert_eq!(steps, [Step::RemoveFinalizer]);
}

#[test]
fn a_session_that_aws_neither_ends_nor_shows_holds_no_deletion_for_ever() {
    let going = listener("sql").serving("a", "1", "s-1").deleted_at(at(0));
    let mut observed = observed(going, relays(&[]));
    let calls = |observed: &Observed| terminations(&decide(observed, &SETTINGS, after(900))).len();
    assert_eq!(calls(&observed), 1, "nothing is known of it");
    polled(&mut observed, &fixtures::aws(), 119, &[]);
    assert_eq!(calls(&observed), 1, "the poll came too early");
    polled(&mut observed, &fixtures::aws(), 600, &["s-1"]);
    assert_eq!(calls(&observed), 1, "it runs");
    polled(&mut observed, &elsewhere(), 600, &[]);
    assert_eq!(calls(&observed), 1, "another identity says nothing of it");
    polled(&mut observed, &fixtures::aws(), 600, &["s-2"]);
    let steps = decide(&observed, &SETTINGS, after(900)).steps;
    assert_eq!(steps, [Step::RemoveFinalizer]);
}

#[test]
fn a_session_that_aws_shows_as_anothers_holds_no_deletion_and_is_left_alone() {
    let going = listener("sql").serving("a", "1", "s-1").deleted_at(at(0));
    let other = Marker::new("namespace-uid", "uid-of-other").append_to("because");
    // What is to be done once a poll has shown the session with this reason.
    let steps = |reason: Option<&str>, seconds: u64, shows_markers: bool| {
        let mut observed = observed(going.clone(), relays(&[]));
        let shown = described("s-1", "Connected");
        let shown = match reason {
            Some(reason) => shown.reason(reason),
            None => shown,
        };
        let snapshot = Snapshot {
            round: 9,
            begun: Some(after(seconds)),
            active: [(id("s-1"), shown.build())].into(),
            shows_markers,
            ..Snapshot::default()
        };
        let identity = identity_of(&fixtures::aws());
        observed.snapshots.insert(identity, Arc::new(snapshot));
        decide(&observed, &SETTINGS, after(900)).steps
    };
    let left = [Step::LeaveAlone(id("s-1")), Step::RemoveFinalizer];
    for reason in [None, Some("a person's own"), Some(&other)] {
        assert_eq!(steps(reason, 600, true), left, "{reason:?}");
        let ended = |steps: Vec<Step>| matches!(steps[..], [Step::Terminate { .. }]);
        assert!(ended(steps(reason, 119, true)), "the poll came too early");
        assert!(ended(steps(reason, 600, false)), "no marker was ever shown");
    }
    let ours = marker().append_to("because");
    let steps = steps(Some(&ours), 600, true);
    assert!(matches!(steps[..], [Step::Terminate { .. }]));
}
