//! The closed list of Events: those that follow from a condition, and the others.

use std::collections::BTreeMap;
use std::iter::successors;

use jiff::Timestamp;
use kube_runtime::events::EventType;
use ssm_session_operator::controller::events::{SessionEvent, between, outdated};
use ssm_session_operator::crd::SsmSessionStatus;
use ssm_session_operator::crd::condition::{Condition, ConditionType, Conditions};

use crate::page;
use crate::page::{code, codes, table};
use crate::troubleshooting::section;

const ABOUT: &str = "Every Event that the operator publishes, on the SsmSession that it is about unless its row says otherwise.";

pub fn page() -> String {
    let advice = section("Events");
    let of_sessions = successors(after(None), |event| after(Some(event)));
    let mut others: Vec<_> = of_sessions.map(|event| event.to_event()).collect();
    others.push(outdated(&[]));
    advice.assert_names(others.iter().map(|event| event.reason.as_str()));
    let mut rows: Vec<_> = others
        .iter()
        .map(|event| {
            let meaning = advice.rows[&event.reason].meaning.clone();
            [
                word(event.type_),
                code(&event.reason),
                code(&event.action),
                meaning,
            ]
        })
        .collect();
    rows.extend(troubles());
    let link = advice.link("What to do");
    let table = table(["Type", "Reason", "Action", "Meaning"], &rows);
    page::page("Events", ABOUT, &[format!("{link}."), table])
}

fn word(type_: EventType) -> String {
    format!("{type_:?}")
}

/// A row for each reason of a condition that is told by an Event when it is new.
fn troubles() -> Vec<[String; 4]> {
    let mut told: BTreeMap<String, (EventType, String, Vec<&str>)> = BTreeMap::new();
    for condition in ConditionType::ALL
        .iter()
        .copied()
        .flat_map(ConditionType::conditions)
    {
        let events = between(&SsmSessionStatus::default(), &saying(condition), &[]);
        for event in events {
            let event = event.to_event();
            let (_, _, types) =
                told.entry(event.reason)
                    .or_insert((event.type_, event.action, Vec::new()));
            types.push(condition.condition_type().as_str());
        }
    }
    told.into_iter()
        .map(|(reason, (type_, action, types))| {
            let meaning = format!("new as the [reason](conditions.md) of {}", codes(types));
            [word(type_), code(&reason), code(&action), meaning]
        })
        .collect()
}

fn saying(condition: Condition) -> SsmSessionStatus {
    let mut conditions = Conditions::new(1);
    conditions.set(condition, "");
    SsmSessionStatus {
        conditions: conditions.merge(&[], Timestamp::UNIX_EPOCH),
        ..SsmSessionStatus::default()
    }
}

/// The Events that follow from no condition, one after the other: a new one compiles only with a place among them.
fn after(event: Option<&SessionEvent>) -> Option<SessionEvent> {
    let session = String::new();
    match event {
        None => Some(SessionEvent::SessionStarted {
            session,
            port: String::new(),
        }),
        Some(SessionEvent::SessionStarted { .. }) => Some(SessionEvent::SessionEnded {
            session,
            why: String::new(),
        }),
        Some(SessionEvent::SessionEnded { .. }) => Some(SessionEvent::OrphanTerminated { session }),
        Some(SessionEvent::OrphanTerminated { .. }) => {
            Some(SessionEvent::TerminationPending { listeners: 1 })
        }
        Some(SessionEvent::TerminationPending { .. }) => {
            Some(SessionEvent::HeldByAnother { holder: session })
        }
        Some(SessionEvent::HeldByAnother { .. } | SessionEvent::Trouble { .. }) => None,
    }
}
