//! Which of the watched namespaces can be read. Rights in a namespace go with it, or are taken away by somebody: then what
//! is in that one is not known, and the sessions of every other one are served as ever.
//!
//! It is said in the log, once and then rarely, by a metric, and by `/readyz`, which does not fail for it: a process that
//! was started again would not see more.

pub mod scope;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::future::select_all;
use kube::ResourceExt as _;
use tokio::sync::watch::Sender;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::context::Context;
use crate::crd::SsmSession;
use scope::{Contents, Scope};

/// Between two times that the log says the same.
const SAID_EVERY: Duration = Duration::from_hours(1);

/// What was said of a scope.
#[derive(Clone, Debug)]
struct Said {
    contents: Contents,
    at: Instant,
}

/// Says which scopes can't be read, and asks for their sessions to be looked at when that changes; for ever. It may be
/// dropped at any point. `unreadable` is told the places, and nothing when there are none.
pub async fn run(context: Arc<Context>, unreadable: Sender<String>) {
    let scopes = &context.scopes;
    let begun = Instant::now();
    let late = begun + context.options.api_timeout;
    let pending = Said {
        contents: Contents::Pending,
        at: begun,
    };
    let mut said = vec![pending; scopes.len()];
    loop {
        // Before it is looked at, so that nothing that happens meanwhile is missed.
        let changes: Vec<_> = scopes.iter().map(|scope| scope.changed()).collect();
        let now = Instant::now();
        for (scope, said) in scopes.iter().zip(&mut said) {
            if now >= late && scope.contents() == Contents::Pending {
                let waited = context.options.api_timeout;
                scope.fail(&format!("no answer within {waited:?}"));
            }
            look(&context, scope, said, now);
        }
        let places = scopes.iter().filter(|scope| scope.is_unreadable());
        let places: Vec<_> = places.map(|scope| scope.place()).collect();
        let text = match places.as_slice() {
            [] => String::new(),
            places => format!(
                "what is in {} can't be read; the log says why",
                places.join(", ")
            ),
        };
        unreadable.send_if_modified(|before| {
            let differs = *before != text;
            *before = text;
            differs
        });
        let wake = if now < late { late } else { now + SAID_EVERY };
        let _ = timeout_at(wake, select_all(changes)).await;
    }
}

/// Says of one scope what is new.
fn look(context: &Context, scope: &Scope, said: &mut Said, now: Instant) {
    let contents = scope.contents();
    context
        .metrics
        .scope_synced(scope.label(), contents == Contents::Known);
    let again = now >= said.at + SAID_EVERY;
    // The words may come in many forms, such as one for each kind.
    let same = std::mem::discriminant(&contents) == std::mem::discriminant(&said.contents);
    match &contents {
        Contents::Unreadable(message) if !same || again => {
            warn!(
                scope = scope.label(),
                "{message}; its sessions are only let go of, those elsewhere are served \
                as ever. Grant the rights of the chart's Role there, or take the namespace out of watchNamespaces"
            );
            said.at = now;
        }
        Contents::Known if matches!(said.contents, Contents::Unreadable(_)) => {
            info!(scope = scope.label(), "what is there can be read again");
        }
        Contents::Pending | Contents::Known | Contents::Unreadable(_) => {}
    }
    if !same {
        let concerned =
            |session: &SsmSession| scope.covers(&session.namespace().unwrap_or_default());
        for session in context.sessions.filter(concerned) {
            let namespace = session.namespace().unwrap_or_default();
            context.trigger_session(&namespace, &session.name_any());
        }
    }
    said.contents = contents;
}
