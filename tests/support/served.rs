//! What `/metrics` shows when every metric has a series: for what tells of metrics, and for what asks for them.

use std::collections::BTreeMap;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use ssm_session_operator::binding::BindingMetrics;
use ssm_session_operator::controller::metrics::{
    Kind, KindLabel, Metrics, PollLabels, ScopeLabels, State,
};
use ssm_session_operator::crd::condition::ConditionType;
use ssm_session_operator::operator::build;
use ssm_session_operator::{aws, relay};

/// The value here of a label whose values are not a closed set.
pub const OPEN: &str = "…";

/// What `all-in-one` shows, in OpenMetrics.
pub fn text() -> String {
    let mut registry = Registry::default();
    build::register(&mut registry);
    let controller = Metrics::register(&mut registry);
    let _ = BindingMetrics::register(&mut registry);
    relay::Metrics::default().register(&mut registry);
    let _ = aws::Metrics::register(&mut registry);

    // These have a series for each Region that is polled, and none until one is.
    let region = OPEN.to_owned();
    drop(controller.poll_errors.get_or_create(&PollLabels { region }));
    // One for each namespace that is watched.
    let scope = OPEN.to_owned();
    drop(
        controller
            .scope_synced
            .get_or_create(&ScopeLabels { scope }),
    );
    // And these once a kind was looked at.
    for kind in Kind::DEFINED {
        drop(controller.crd_outdated.get_or_create(&KindLabel { kind }));
    }
    let conditions = ConditionType::ALL.iter().flat_map(|of| of.conditions());
    let conditions: Vec<_> = conditions.map(|condition| (condition, 1)).collect();
    let state = State {
        relays_alive: 1,
        listeners_unbound: 0,
        sessions: BTreeMap::from([(OPEN.to_owned(), 1)]),
        conditions: BTreeMap::from([(OPEN.to_owned(), conditions)]),
        polled: BTreeMap::from([(OPEN.to_owned(), 1)]),
    };
    let _showing = controller.show(move || Some(state.clone()));
    let mut text = String::new();
    encode(&mut text, &registry).expect("a string takes everything");
    let version = |value| format!("version=\"{value}\"");
    text.replace(&version(env!("CARGO_PKG_VERSION")), &version(OPEN))
}
