//! Feeds the machines with the Leases of the operator's namespace, those of relays and the one that asks for a drain;
//! publishes what they know, and deletes Leases that nobody needs.
//!
//! Leases are listed and not watched: each answer says that the API server is in reach, and its absence that it is not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::{Api, ResourceExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::{LeaseSeen, Relays, RelaysView};
use crate::backoff::jittered;
use crate::controller::cached::salvaged;
use crate::controller::context::Context;
use crate::controller::drain::{Drain, DrainSeen, Drains};
use crate::crd::{
    DRAIN_LEASE, RELAY_CAPACITY_ANNOTATION, RELAY_LEASE_LABEL, SsmListener, relay_label_value,
};
use crate::lease::{holder, promised, renewal};
use crate::reading::Guarded;

/// For how many of the controller's own Lease durations a relay's Lease is believed at most: the relay writes into it how
/// long it is good for, and one that was taken over would count as alive for ever after its pod was deleted. Ten: relays
/// whose operator gave them a longer `--lease-duration` than the controllers have room enough.
const LEASE_DURATIONS_MAX: u32 = 10;

/// Looks at the Leases for ever; it may be dropped at any point.
pub async fn run(
    context: Arc<Context>,
    view: watch::Sender<RelaysView>,
    drain: watch::Sender<Drain>,
) {
    let options = &context.options;
    let api: Api<Lease> = Api::namespaced(context.client.clone(), &options.namespace);
    let all: Api<Guarded<Lease>> = Api::namespaced(context.client.clone(), &options.namespace);
    let label = relay_label_value(&options.controller_name);
    let installation = options.installation();
    let mut relays = Relays::new(options.mass_death_pause, options.lease_duration);
    let mut drains = Drains::default();
    let mut reachable = true;
    loop {
        // All at once: besides ours there are few in the operator's own namespace.
        match timeout(options.api_timeout, all.list(&ListParams::default())).await {
            Ok(Ok(leases)) => {
                // One that can't be read is nobody's promise: its relay is as good as without.
                let leases: Vec<Lease> = salvaged(leases.items).collect();
                if !reachable {
                    info!("the API server is in reach again; relays' lives are watched afresh");
                }
                reachable = true;
                let now = Instant::now();
                let mut asking = leases.iter();
                let asking = asking.find_map(|lease| DrainSeen::of(lease, &installation));
                drains.handle_lease(asking, now);
                let seen = leases.iter().filter(|lease| is_relays(lease, &label));
                let seen = seen.map(|lease| lease_seen(lease, options.lease_duration));
                relays.handle_leases(seen.collect(), now);
            }
            Ok(Err(error)) => {
                if std::mem::take(&mut reachable) {
                    warn!(%error, "relays' Leases can't be listed; no relay is taken for dead meanwhile");
                }
                relays.handle_unreachable();
                drains.handle_unreachable(Instant::now());
            }
            Err(_) => {
                if std::mem::take(&mut reachable) {
                    warn!("the API server does not answer; no relay is taken for dead meanwhile");
                }
                relays.handle_unreachable();
                drains.handle_unreachable(Instant::now());
            }
        }
        let now = Instant::now();
        // Before the relays: nothing is decided until these are known, and then both are.
        publish_drain(&context, &drain, drains.drain());
        if let Some(next) = relays.poll_view(now) {
            publish(&context, &view, next);
        }
        for (name, resource_version) in relays.poll_leftovers(options.grace, now) {
            stop_lease(&context, &api, &name, resource_version).await;
        }
        if let Some(resource_version) = drains.poll_leftover() {
            delete_lease(&context, &api, DRAIN_LEASE, Some(resource_version)).await;
        }
        tokio::time::sleep(jittered(options.relay_interval)).await;
    }
}

fn is_relays(lease: &Lease, label: &str) -> bool {
    lease.labels().get(RELAY_LEASE_LABEL).map(String::as_str) == Some(label)
}

/// A Lease without a duration is good for `duration`, as ours are, and none for more than [`LEASE_DURATIONS_MAX`] of them.
fn lease_seen(lease: &Lease, duration: Duration) -> LeaseSeen {
    let capacity = lease.annotations().get(RELAY_CAPACITY_ANNOTATION);
    LeaseSeen {
        name: lease.name_any(),
        incarnation: holder(lease).map(str::to_owned),
        duration: promised(lease)
            .unwrap_or(duration)
            .min(duration * LEASE_DURATIONS_MAX),
        renewed: renewal(lease),
        capacity: capacity
            .and_then(|capacity| capacity.parse().ok())
            .unwrap_or(0),
        resource_version: lease.resource_version(),
    }
}

/// Tells who asks, and has everything looked at again for which it makes a difference.
fn publish_drain(context: &Context, drain: &watch::Sender<Drain>, next: Drain) {
    let previous = *drain.borrow();
    if previous == next {
        return;
    }
    match next {
        Drain::No => info!("no drain is asked for, or no more: sessions are served"),
        Drain::Unconfirmed => warn!(
            lease = DRAIN_LEASE,
            "a drain may be asked for: until that is known no session is begun with"
        ),
        Drain::Asked => warn!(
            lease = DRAIN_LEASE,
            "a drain is asked for, as before the operator is uninstalled: every listener ends, every session is let \
             go, and nothing is begun for as long as the Lease is renewed"
        ),
    }
    drain.send_replace(next);
    for listener in context.listeners.state() {
        context.trigger_listener(&listener);
    }
    for session in context.sessions.filter(|_| true) {
        let namespace = session.namespace().unwrap_or_default();
        context.trigger_session(&namespace, &session.name_any());
    }
}

/// Tells who asks, and triggers the listeners for which it makes a difference.
fn publish(context: &Context, view: &watch::Sender<RelaysView>, next: RelaysView) {
    let previous = view.borrow().clone();
    if previous == next {
        return;
    }
    for (name, relay) in &next.relays {
        if previous.relays.get(name).map(|relay| relay.liveness) != Some(relay.liveness) {
            info!(relay = %name, incarnation = %relay.incarnation, liveness = ?relay.liveness, "relay seen");
        }
    }
    if next.moves_paused && !previous.moves_paused {
        warn!("more than half of the relays look dead at once; nothing is moved for now");
    }
    let everywhere = previous.moves_paused != next.moves_paused
        || previous.absent_is_gone != next.absent_is_gone;
    let names: BTreeSet<&String> = previous.relays.keys().chain(next.relays.keys()).collect();
    let changed: BTreeSet<String> = names
        .into_iter()
        .filter(|name| previous.relays.get(*name) != next.relays.get(*name))
        .cloned()
        .collect();
    // One whose relay is gone may go to any that came, so it looks on whatever changed.
    let gone = next.clone();
    view.send_replace(next);
    for listener in context.listeners.state() {
        let affected = listener
            .spec
            .relay
            .as_ref()
            .is_none_or(|relay| everywhere || changed.contains(relay) || gone.is_gone(relay));
        if affected {
            context.trigger_listener(&listener);
        }
    }
}

/// Deletes the Lease of a relay that is gone, unless a listener names it or it was written since.
async fn stop_lease(
    context: &Context,
    api: &Api<Lease>,
    name: &str,
    resource_version: Option<String>,
) {
    let named = |listener: &SsmListener| listener.spec.relay.as_deref() == Some(name);
    if context.listeners.find(named).is_some() {
        return;
    }
    delete_lease(context, api, name, resource_version).await;
}

/// Deletes a Lease that has run out, unless it was written since.
async fn delete_lease(
    context: &Context,
    api: &Api<Lease>,
    name: &str,
    resource_version: Option<String>,
) {
    let params = DeleteParams::default().preconditions(Preconditions {
        resource_version,
        uid: None,
    });
    match timeout(context.options.api_timeout, api.delete(name, &params)).await {
        Ok(Ok(_)) => info!(lease = %name, "deleted a Lease that nobody renews"),
        Ok(Err(error)) => debug!(lease = %name, %error, "Lease not deleted; tried again"),
        Err(_) => debug!(lease = %name, "Lease not deleted: no answer; tried again"),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::LeaseSpec;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn lease(seconds: Option<i32>) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some("one".to_owned()),
            lease_duration_seconds: seconds,
            ..LeaseSpec::default()
        };
        Lease {
            spec: Some(spec),
            ..Lease::default()
        }
    }

    #[test]
    fn a_lease_is_good_for_as_long_as_it_says_but_not_for_ever() {
        for (said, believed) in [
            (None, 12),
            (Some(-1), 12),
            (Some(3), 3),
            (Some(60), 60),
            (Some(120), 120),
            (Some(121), 120),
            (Some(i32::MAX), 120),
        ] {
            let seen = lease_seen(&lease(said), 12 * SECOND);
            assert_eq!(seen.duration, believed * SECOND, "{said:?}");
        }
    }

    #[test]
    fn a_relay_that_claims_an_endless_lease_is_dead_soon_after_its_last_renewal() {
        let mut relays = Relays::new(60 * SECOND, 12 * SECOND);
        let start = Instant::now();
        relays.handle_leases(Vec::new(), start);
        let seen = lease_seen(&lease(Some(i32::MAX)), 12 * SECOND);
        let mut view = |after: u32| {
            let now = start + after * SECOND;
            relays.handle_leases(vec![seen.clone()], now);
            relays.poll_view(now).expect("the API server is there")
        };
        assert!(view(0).is_alive(&seen.name) && view(120).is_alive(&seen.name));
        assert!(!view(121).acts(&seen.name));
    }
}
