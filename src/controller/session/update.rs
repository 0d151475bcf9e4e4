//! What becomes of a listener when its session asks for something else than it says.
//!
//! Its AWS sessions were started with the identity that it has, and can be ended with no other. So an identity that is
//! replaced stays in `spec.formerIdentities`, until nothing on record names it and nothing that does can come any more.

use crate::crd::class::Aws;
use crate::crd::listener::ListenerState;
use crate::crd::{SsmListener, SsmListenerSpec, limit};

/// Former identities of a listener.
const FORMER_MAX: usize = limit::FORMER_IDENTITIES_MAX as usize;

/// What is to be written.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// It has the spec that is asked for.
    None,
    /// This.
    Write(Box<SsmListener>),
    /// Nothing for now: too many former identities are still needed to end what runs with them, these AWS sessions. It is
    /// looked at again when the relay records an end. Without its identity a session would be lost, and its listener goes on
    /// as it is meanwhile.
    Held(Vec<String>),
}

/// The existing listener with the spec that is asked for. Relay and lost sessions stay.
#[must_use]
pub fn listener_update(existing: &SsmListener, desired: &SsmListener) -> Update {
    let Some(former_identities) = former_identities(existing, &desired.spec.identity) else {
        return Update::Held(live_with_former(existing));
    };
    let spec = SsmListenerSpec {
        relay: existing.spec.relay.clone(),
        lost_sessions: existing.spec.lost_sessions.clone(),
        former_identities,
        ..desired.spec.clone()
    };
    if spec == existing.spec {
        return Update::None;
    }
    let mut update = existing.clone();
    update.spec = spec;
    Update::Write(Box::new(update))
}

/// The identities to be named beside `next`, in the order in which they are; none if more are needed than there is room
/// for. Those that only ended sessions name, by which AWS is asked for their ends, are the first to go.
fn former_identities(existing: &SsmListener, next: &Aws) -> Option<Vec<Aws>> {
    let spec = &existing.spec;
    let sessions = || existing.status.iter().flat_map(|status| &status.sessions);
    let names = |identity: &Aws, is_live: bool| {
        let mut sessions = sessions().filter(|session| session.ended_at.is_none() == is_live);
        sessions.any(|session| session.identity.is_same_as(identity))
    };
    let needed = |identity: &Aws| {
        // A relay that has read this object may start with what stands there until it has read the next.
        let may_start = spec.relay.is_some()
            && (identity == &spec.identity || !has_read_spec_and_starts_nothing(existing));
        may_start || names(identity, true)
    };
    let former = spec
        .identities()
        .filter(|identity| !identity.is_same_as(next));
    let former: Vec<&Aws> = former.collect();
    let count = former.iter().filter(|identity| needed(identity)).count();
    let mut room = FORMER_MAX.checked_sub(count)?;
    let is_kept = |identity: &&Aws| {
        let kept = needed(identity) || (room > 0 && names(identity, false));
        if kept && !needed(identity) {
            room -= 1;
        }
        kept
    };
    Some(former.into_iter().filter(is_kept).cloned().collect())
}

/// The live AWS sessions that only former identities can end.
fn live_with_former(listener: &SsmListener) -> Vec<String> {
    let former = &listener.spec.former_identities;
    let sessions = listener.status.iter().flat_map(|status| &status.sessions);
    let live = sessions.filter(|session| session.ended_at.is_none());
    let theirs = live.filter(|session| former.iter().any(|of| of.is_same_as(&session.identity)));
    theirs.map(|session| session.session_id.clone()).collect()
}

/// Whether the relay serves the spec as it stands, and no start of before is on its way: what it starts from now on, it
/// starts with the present identity. While a start that was overtaken by a change is on its way, it says `Starting`.
fn has_read_spec_and_starts_nothing(listener: &SsmListener) -> bool {
    listener.status.as_ref().is_some_and(|status| {
        let starts = match status.state {
            ListenerState::Starting | ListenerState::Unknown => true,
            ListenerState::Serving | ListenerState::Waiting | ListenerState::Ended => false,
        };
        status.observed_generation == listener.metadata.generation && !starts
    })
}
