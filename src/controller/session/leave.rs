//! How a session is let go, because it is deleted, because its class is another installation's, or because ours is asked
//! to drain: what we made for it is taken away, and then our finalizer. Pure.

use std::collections::HashSet;
use std::time::Duration;

use kube::ResourceExt as _;

use super::observe::Observed;
use super::plan::{Now, Plan, Release, Settings, all_doomed};
use super::service::ServiceFound;
use crate::controller::events::SessionEvent;
use crate::crd::session::AwsSession;
use crate::crd::{INSTALLATION_LABEL, SsmSession};

/// Decides for a session that has our finalizer.
///
/// Time is measured from when this process saw it first: the API server's clock and ours may be minutes apart.
pub fn decide_leaving(plan: &mut Plan, observed: &Observed, settings: &Settings, now: Now) {
    let deleting = observed.session.metadata.deletion_timestamp.is_some();
    plan.delete_listeners = all_doomed(observed);
    if observed.is_anothers() {
        // The other installation's slices may be there already.
        plan.delete_slices = slices_of_ours(observed);
    } else {
        plan.delete_slices = observed.slices.iter().map(|s| s.name_any()).collect();
        // The garbage collector would do it too, but learns of our kinds late in a young cluster.
        let service = match &observed.service {
            ServiceFound::Ours(service) => Some(service),
            ServiceFound::Absent
            | ServiceFound::Unread { .. }
            | ServiceFound::Leaving { .. }
            | ServiceFound::Conflict { .. } => None,
        };
        let services = service.into_iter().chain(&observed.old_services);
        plan.delete_services = services
            .map(|service| (service.name_any(), service.uid().unwrap_or_default()))
            .collect();
    }
    let since = observed.memory.leaving.unwrap_or(now.instant);
    plan.leaving = Some(since);
    let waited = now.instant.duration_since(since);
    let overdue = waited >= settings.finalizer_timeout;
    // Slices of a deleted session go with it; those of one that is handed over would stay, and lead somewhere else.
    plan.overdue = overdue && deleting;
    let left = observed.left();
    if observed.unread().is_some() && !deleting {
        // Nobody knows whether slices of ours lead somewhere; a deleted session's go with it.
        plan.release = None;
    } else if left == 0 {
        plan.release = Some(Release::Clean);
    } else if overdue {
        plan.release = Some(Release::Pending(left));
    } else {
        plan.requeue_after = Some(settings.finalizer_timeout.saturating_sub(waited));
    }
}

/// Decides for a session without our finalizer that is not ours to serve: what is left of ours goes all the same, for a
/// finalizer may be replaced by whoever writes the manifest.
pub fn decide_let_go(plan: &mut Plan, observed: &Observed) {
    plan.delete_listeners = all_doomed(observed);
    plan.delete_slices = slices_of_ours(observed);
}

/// Whether what a status says may be what we said: something of ours is there, and the status shows no AWS sessions, or
/// some of ours.
#[must_use]
pub fn may_have_said(observed: &Observed) -> bool {
    if observed.left() == 0 && slices_of_ours(observed).is_empty() {
        return false;
    }
    let statuses = observed.listeners.iter().flat_map(|l| &l.status);
    let recorded: HashSet<&str> = statuses
        .flat_map(|status| &status.sessions)
        .map(|session| session.session_id.as_str())
        .collect();
    let mut shown = observed.previous.sessions.iter();
    observed.previous.sessions.is_empty()
        || shown.any(|session| recorded.contains(session.session_id.as_str()))
}

/// Decides for a session that stays, when the installation is asked to drain.
///
/// The Service stays: it is the session's, and goes with it also when no operator runs. Its ClusterIP is what clients have
/// resolved and what network policies name, and nobody else takes its name until an operator serves the session again.
///
/// No listener may be left, however long that takes, since nobody would be there to end it. What AWS says of the ends is
/// waited for too, as far as it comes in time, since nobody corrects the status afterwards.
pub fn decide_draining(plan: &mut Plan, observed: &Observed, settings: &Settings, now: Now) {
    plan.delete_listeners = all_doomed(observed);
    plan.delete_slices = observed.slices.iter().map(|s| s.name_any()).collect();
    if !observed.has_finalizer() {
        return;
    }
    plan.draining = Some(observed.memory.draining.unwrap_or(now.instant));
    // Slices that can't be read may lead somewhere; nobody waits for ever for who may tell.
    let known = observed.unread().is_none() || gives_up(observed, settings, now);
    if observed.left() == 0 && plan.mirror.sessions.is_empty() && known {
        plan.release = Some(Release::Clean);
    } else {
        let left = settings
            .finalizer_timeout
            .saturating_sub(drained_for(observed, now));
        plan.requeue_after = Some(left).filter(|left| !left.is_zero());
    }
}

/// Whether ends of which AWS has not said when are reported without that: a drain has lasted long enough.
#[must_use]
pub fn gives_up(observed: &Observed, settings: &Settings, now: Now) -> bool {
    observed.is_draining() && drained_for(observed, now) >= settings.finalizer_timeout
}

fn drained_for(observed: &Observed, now: Now) -> Duration {
    let since = observed.memory.draining.unwrap_or(now.instant);
    now.instant.duration_since(since)
}

/// What is told once the session was let go. An installation that takes it over tells the ends itself.
#[must_use]
pub fn last_words(
    session: &SsmSession,
    release: Release,
    untold: &[AwsSession],
) -> Vec<SessionEvent> {
    let deleted = session.metadata.deletion_timestamp.is_some();
    let ended = untold.iter().filter(|_| deleted).map(SessionEvent::ended);
    let pending = match release {
        Release::Clean => None,
        Release::Pending(listeners) => Some(SessionEvent::TerminationPending { listeners }),
    };
    ended.chain(pending).collect()
}

fn slices_of_ours(observed: &Observed) -> Vec<String> {
    let ours = Some(&observed.installation);
    let slices = observed.slices.iter();
    slices
        .filter(|slice| slice.labels().get(INSTALLATION_LABEL) == ours)
        .map(|slice| slice.name_any())
        .collect()
}
