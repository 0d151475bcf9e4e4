//! What the controller shows of its state when its metrics are asked for: caches, relays and polls, each walked once.

use std::collections::BTreeMap;

use kube::ResourceExt as _;

use super::context::Context;
use super::metrics::State;
use super::relays::Liveness;
use crate::crd::SsmSession;
use crate::crd::condition::{Condition, ConditionType};

/// Counts what there is now; nothing before the caches were filled.
pub fn census(context: &Context) -> Option<State> {
    if !*context.synced.borrow() {
        return None;
    }
    let relays = context.relays.borrow().clone();
    let alive = relays.relays.values();
    let alive = alive.filter(|relay| relay.liveness == Liveness::Alive);
    let listeners = context.listeners.state();
    let unbound = listeners.iter().filter(|listener| {
        let relay = listener.spec.relay.as_ref();
        relay.is_none_or(|relay| relays.is_gone(relay))
    });
    let mut state = State {
        relays_alive: alive.count(),
        listeners_unbound: unbound.count(),
        polled: context.polls.known_since(),
        ..State::default()
    };
    count_sessions(context, &mut state);
    Some(state)
}

/// Those of other controllers' classes are theirs to count.
fn count_sessions(context: &Context, state: &mut State) {
    let classes = context.classes.state();
    let classes: BTreeMap<String, bool> = classes
        .iter()
        .filter(|class| class.unread().is_none())
        .map(|class| {
            let ours = class.spec.controller_name == context.options.controller_name;
            (class.name_any(), ours)
        })
        .collect();
    let ours = classes.iter().filter(|(_, ours)| **ours);
    state.sessions = ours.map(|(class, _)| (class.clone(), 0)).collect();

    let types = ConditionType::ALL.iter();
    let known: BTreeMap<(&str, &str), Condition> = types
        .flat_map(|of| of.conditions())
        .map(|condition| {
            let name = condition.condition_type().as_str();
            ((name, condition.reason()), condition)
        })
        .collect();
    for session in context.sessions.filter(|_| true) {
        let class = class_of(&session);
        let class = match class.map(|class| (class, classes.get(class))) {
            Some((_, Some(false))) => continue,
            Some((class, Some(true))) => class,
            // What a session names is anybody's text, and no label before an administrator has made a class of it.
            Some((_, None)) | None => "",
        };
        *state.sessions.entry(class.to_owned()).or_default() += 1;
        let has = session.status.iter().flat_map(|status| &status.conditions);
        let has = has.filter_map(|of| known.get(&(of.type_.as_str(), of.reason.as_str())));
        for condition in has {
            let counts = state.conditions.entry(class.to_owned()).or_default();
            match counts.iter_mut().find(|(of, _)| of == condition) {
                Some((_, count)) => *count += 1,
                None => counts.push((*condition, 1)),
            }
        }
    }
}

/// The class that a session names, or was given as the default.
fn class_of(session: &SsmSession) -> Option<&str> {
    let given = session.status.as_ref();
    let given = given.and_then(|status| status.class.as_ref());
    session
        .spec
        .class_name
        .as_ref()
        .or(given)
        .map(String::as_str)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition as ApiCondition, Time};
    use kube_runtime::reflector::{self, store::Writer};
    use kube_runtime::watcher::Event;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::controller::context::Stores;
    use crate::controller::fake_aws::FakeAws;
    use crate::controller::fixtures::{self, at, class, listener, relays};
    use crate::controller::metrics::Metrics;
    use crate::crd::condition::{Conditions, ReadyReason, StalledReason};
    use crate::crd::{SsmListener, SsmSessionClass, SsmSessionStatus};

    /// Caches as the API server fills them, and what is shown of them.
    struct Shown {
        sessions: Writer<SsmSession>,
        classes: Writer<SsmSessionClass>,
        listeners: Writer<SsmListener>,
        context: Context,
    }

    impl Shown {
        fn new() -> Self {
            let (sessions, session_writer) = reflector::store();
            let (classes, class_writer) = reflector::store();
            let (listeners, listener_writer) = reflector::store();
            let mut context = fixtures::context(
                Arc::new(FakeAws::default()),
                relays(&[("relay-a", "run-1"), ("relay-b", "run-1")]),
            );
            context.sessions = Stores(vec![sessions]);
            context.classes = classes;
            context.listeners = listeners;
            Self {
                sessions: session_writer,
                classes: class_writer,
                listeners: listener_writer,
                context,
            }
        }

        fn lines(self) -> (Self, Vec<String>) {
            let mut registry = Registry::default();
            let metrics = Metrics::register(&mut registry);
            let context = Arc::new(self.context);
            let shown = Arc::clone(&context);
            let showing = metrics.show(move || census(&shown));
            let lines = lines(&registry);
            drop(showing);
            let context = Arc::into_inner(context).expect("nobody else has it");
            (Self { context, ..self }, lines)
        }
    }

    fn lines(registry: &Registry) -> Vec<String> {
        let mut text = String::new();
        encode(&mut text, registry).expect("text");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let lines = lines.filter_map(|line| line.strip_prefix("ssm_operator_controller_"));
        let gauges = ["relays_", "listeners_", "session", "last_poll"];
        let lines = lines.filter(|line| gauges.iter().any(|gauge| line.starts_with(gauge)));
        lines.map(str::to_owned).collect()
    }

    fn session(name: &str, class: Option<&str>, conditions: &[Condition]) -> SsmSession {
        let mut session = fixtures::session(&["db"]);
        session.metadata.name = Some(name.into());
        session.spec.class_name = class.map(str::to_owned);
        let mut set = Conditions::new(1);
        for condition in conditions {
            set.set(*condition, "words");
        }
        session.status = Some(SsmSessionStatus {
            class: class.map(str::to_owned),
            conditions: set.merge(&[], at(0)),
            ..SsmSessionStatus::default()
        });
        session
    }

    const NOTHING: [&str; 2] = ["relays_alive 2", "listeners_unbound 0"];

    #[tokio::test]
    async fn what_is_deleted_has_no_series_at_the_next_scrape() {
        let mut shown = Shown::new();
        let ours = shown.context.options.controller_name.clone();
        let failed = [
            Condition::Ready(ReadyReason::Failed),
            Condition::Stalled(StalledReason::AccessDenied),
        ];
        let (plain, orders) = (
            class("plain", &ours),
            session("orders", Some("plain"), &failed),
        );
        let unbound = listener("db").build();
        shown
            .classes
            .apply_watcher_event(&Event::Apply(plain.clone()));
        shown
            .sessions
            .apply_watcher_event(&Event::Apply(orders.clone()));
        shown
            .listeners
            .apply_watcher_event(&Event::Apply(unbound.clone()));
        let (mut shown, lines) = shown.lines();
        let class = "class=\"plain\"";
        assert_eq!(
            lines,
            [
                "relays_alive 2".to_owned(),
                "listeners_unbound 1".to_owned(),
                format!("sessions{{{class}}} 1"),
                format!(
                    "session_conditions{{{class},type=\"Ready\",status=\"False\",reason=\"Failed\"}} 1"
                ),
                format!(
                    "session_conditions{{{class},type=\"Stalled\",status=\"True\",reason=\"AccessDenied\"}} 1"
                ),
            ]
        );

        shown.sessions.apply_watcher_event(&Event::Delete(orders));
        shown.listeners.apply_watcher_event(&Event::Delete(unbound));
        let (mut shown, lines) = shown.lines();
        assert_eq!(lines[..2], NOTHING);
        assert_eq!(lines[2..], [format!("sessions{{{class}}} 0")]);

        shown.classes.apply_watcher_event(&Event::Delete(plain));
        let (_, lines) = shown.lines();
        assert_eq!(lines, NOTHING);
    }

    #[tokio::test]
    async fn only_classes_that_administrators_made_and_reasons_that_we_know_are_labels() {
        let mut shown = Shown::new();
        let ours = shown.context.options.controller_name.clone();
        for of in [class("plain", &ours), class("theirs", "example.com/other")] {
            shown.classes.apply_watcher_event(&Event::Apply(of));
        }
        let ready = [Condition::Ready(ReadyReason::Available)];
        let mut by_default = session("by-default", Some("plain"), &ready);
        by_default.spec.class_name = None;
        let mut strange = session("strange", Some("nobody-made-it"), &[]);
        let status = strange.status.as_mut().expect("set above");
        status.conditions.push(ApiCondition {
            type_: "Ready".into(),
            reason: "AnybodysText".into(),
            status: "False".into(),
            last_transition_time: Time(at(0)),
            message: String::new(),
            observed_generation: None,
        });
        let sessions = [
            session("named", Some("plain"), &ready),
            session("foreign", Some("theirs"), &ready),
            by_default,
            strange,
        ];
        for session in sessions {
            shown.sessions.apply_watcher_event(&Event::Apply(session));
        }
        let (_, lines) = shown.lines();
        assert_eq!(
            lines[2..],
            [
                "sessions{class=\"\"} 1",
                "sessions{class=\"plain\"} 2",
                "session_conditions{class=\"plain\",type=\"Ready\",status=\"True\",reason=\"Available\"} 2",
            ]
        );
    }

    #[tokio::test]
    async fn who_does_not_lead_and_whose_caches_are_not_filled_shows_no_state() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let mut context = fixtures::context(Arc::new(FakeAws::default()), relays(&[]));
        context.synced = tokio::sync::watch::channel(false).1;
        let context = Arc::new(context);
        let shown = Arc::clone(&context);
        let showing = metrics.show(move || census(&shown));
        assert_eq!(lines(&registry), Vec::<String>::new());
        drop(showing);
        let showing = metrics.show(|| Some(State::default()));
        assert_eq!(lines(&registry), ["relays_alive 0", "listeners_unbound 0"]);
        drop(showing);
        assert_eq!(lines(&registry), Vec::<String>::new());
    }
}
