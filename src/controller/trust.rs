//! Whose identity a recorded session has.
//!
//! A relay writes beside each session with what it was started. One that was taken over could write an endpoint of its
//! own there, and so aim the signed calls of controller and other relays at it. So AWS is never called with what a record
//! says, but only with what the controller itself wrote into the listener's spec: the record picks one of those. This is
//! asked wherever a record leads to a call, and so is [`SsmListenerSpec::identity_of_record`] in the relays.

use std::sync::PoisonError;

use kube::ResourceExt as _;
use tracing::warn;

use super::context::Context;
use crate::broker::Identity;
use crate::crd::listener::ListenerSession;
use crate::crd::{SsmListener, SsmListenerSpec};
use crate::identity::identity_of;

/// With what a recorded session was started, if its record may be believed.
#[must_use]
pub fn identity_of_record(spec: &SsmListenerSpec, session: &ListenerSession) -> Option<Identity> {
    spec.identity_of_record(session).map(identity_of)
}

/// With what a recorded session is looked for and terminated: its identity, and all of the listener's if its record names
/// none of those. TerminateSession does no harm where the session is not.
#[must_use]
pub fn identities_to_ask(spec: &SsmListenerSpec, session: &ListenerSession) -> Vec<Identity> {
    match identity_of_record(spec, session) {
        Some(identity) => vec![identity],
        None => identities(spec),
    }
}

/// All with which sessions of a listener may have been started.
#[must_use]
pub fn identities(spec: &SsmListenerSpec) -> Vec<Identity> {
    spec.identities().map(identity_of).collect()
}

/// Says, once for each, which live sessions are on record with an identity that is not their listener's.
pub fn tell_strangers(listener: &SsmListener, context: &Context) {
    let uid = listener.uid().unwrap_or_default();
    let sessions = listener.status.iter().flat_map(|status| &status.sessions);
    let live = sessions.filter(|session| session.ended_at.is_none());
    let strange: Vec<&ListenerSession> = live
        .filter(|session| listener.spec.identity_of_record(session).is_none())
        .collect();
    let ids = strange
        .iter()
        .map(|session| session.session_id.clone())
        .collect();
    let mut all = context
        .strangers
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let told = if strange.is_empty() {
        all.remove(&uid)
    } else {
        all.insert(uid, ids)
    };
    drop(all);
    let told = told.unwrap_or_default();
    for session in strange {
        if !told.contains(&session.session_id) {
            warn!(listener = %listener.name_any(), session = %session.session_id, relay = %session.relay,
                region = %session.identity.region, role = session.identity.role_arn,
                endpoint = session.identity.endpoints.as_ref().and_then(|of| of.ssm.as_deref()),
                "a relay recorded a session with an AWS identity that its listener never had: AWS is not called with \
                 it. Unless the operator was just upgraded, that relay may have been taken over");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::controller::fake_aws::FakeAws;
    use crate::controller::fixtures::{aws, context, listener, relays};
    use crate::crd::class::{Aws, Endpoints};

    fn elsewhere() -> Aws {
        Aws {
            endpoints: Some(Endpoints {
                ssm: Some("https://attacker.example".into()),
                ssmmessages: None,
            }),
            ..aws()
        }
    }

    /// A listener whose only session is on record with this identity.
    fn recorded_with(identity: &Aws) -> SsmListener {
        let listener = listener("sql").serving("a", "1", "s-1");
        listener.recorded_with(identity).build()
    }

    fn asked(listener: &SsmListener) -> Vec<Identity> {
        let status = listener.status.as_ref().expect("a status");
        identities_to_ask(&listener.spec, &status.sessions[0])
    }

    #[test]
    fn aws_is_never_asked_with_an_identity_that_only_a_record_names() {
        let mut listener = recorded_with(&elsewhere());
        let former = Aws {
            region: "eu-test-2".into(),
            ..Aws::default()
        };
        listener.spec.former_identities = vec![former.clone()];
        assert_eq!(
            asked(&listener),
            [identity_of(&aws()), identity_of(&former)]
        );
        listener.spec.former_identities = vec![elsewhere()];
        assert_eq!(asked(&listener), [identity_of(&elsewhere())]);
    }

    #[tokio::test]
    async fn a_stranger_is_told_once_and_forgotten_with_its_record() {
        let context = context(Arc::new(FakeAws::default()), relays(&[]));
        let told = || context.strangers.lock().expect("no panic").len();
        let listener = recorded_with(&elsewhere());
        tell_strangers(&listener, &context);
        tell_strangers(&listener, &context);
        assert_eq!(told(), 1);
        tell_strangers(&recorded_with(&aws()), &context);
        assert_eq!(told(), 0);
    }
}
