//! Whose a session is. Its class says who may serve it, and several installations may think that it is theirs: two in
//! two namespaces with one `controllerName`, or two with a default class each. The first to put its finalizer there
//! holds it, and every other waits until that is gone, so that a session is handed over in order.

use kube::ResourceExt as _;

use crate::crd::{SsmSession, session_finalizer, session_holder};

/// Whether this installation has something to take away before the session goes, or goes over to another one.
#[must_use]
pub fn has_finalizer(session: &SsmSession, installation: &str) -> bool {
    let ours = session_finalizer(installation);
    session.finalizers().contains(&ours)
}

/// The finalizer of another installation that holds the session: it was there before ours.
#[must_use]
pub fn held_by<'a>(session: &'a SsmSession, installation: &str) -> Option<&'a str> {
    let ours = session_finalizer(installation);
    session_holder(session.finalizers()).filter(|holder| *holder != ours)
}

/// Whether the session goes on without us, in the hands of another installation. `foreign`: its class says so.
#[must_use]
pub fn is_anothers(session: &SsmSession, foreign: bool, installation: &str) -> bool {
    let held = held_by(session, installation).is_some();
    foreign || (held && has_finalizer(session, installation))
}

/// Whether the session is being deleted, or is another installation's by now.
#[must_use]
pub fn is_leaving(session: &SsmSession, foreign: bool, installation: &str) -> bool {
    session.metadata.deletion_timestamp.is_some() || is_anothers(session, foreign, installation)
}
