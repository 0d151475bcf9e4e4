//! Writes a session's status, guarded by the version that was read, and publishes the Events that follow from it.

use kube::api::PostParams;
use kube::{Api, ResourceExt as _};

use crate::controller::cached::reread;
use crate::controller::context::Context;
use crate::controller::error::Error;
use crate::controller::events;
use crate::controller::names::FIELD_MANAGER;
use crate::crd::session::AwsSession;
use crate::crd::{SsmSession, SsmSessionStatus};
use crate::reading::Guarded;

/// Writes `status` if it differs from what is there, and gives the session as it is then.
///
/// `ended`: AWS sessions whose end this status reports, also those for which its history has no room. Events are
/// published after the write: a status that somebody else overtook is decided anew, and said once.
///
/// # Errors
/// When the API server refuses the write, or somebody else wrote the session first.
pub async fn report(
    mut session: SsmSession,
    status: &SsmSessionStatus,
    ended: &[AwsSession],
    context: &Context,
) -> Result<SsmSession, Error> {
    let previous = session.status.clone().unwrap_or_default();
    let events = events::between(&previous, status, ended);
    if session.status.is_none() || previous != *status {
        session = write(session, status, context).await?;
    }
    for event in events {
        events::publish(context, &session, event).await;
    }
    Ok(session)
}

async fn write(
    mut session: SsmSession,
    status: &SsmSessionStatus,
    context: &Context,
) -> Result<SsmSession, Error> {
    let name = session.name_any();
    let namespace = session.namespace().unwrap_or_default();
    let api: Api<Guarded<SsmSession>> = Api::namespaced(context.client.clone(), &namespace);
    session.status = Some(status.clone());
    session.metadata.managed_fields = None;
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let action = format!("write the status of SsmSession {namespace}/{name}");
    // Guarded what comes, not what goes.
    let body = Guarded(Ok(session.clone()));
    let written = api.replace_status(&name, &params, &body).await;
    Ok(reread(&session, written.map_err(Error::api(action))?))
}
