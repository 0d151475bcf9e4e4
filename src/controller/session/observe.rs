//! What is read before a session is decided about: caches, and the API server where a cache can't know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Resource as _, ResourceExt as _};

use super::desired::service_name;
use super::holder::{has_finalizer, held_by, is_anothers, is_leaving};
use super::service::{ServiceFound, find_service, is_owned};
use crate::broker::Identity;
use crate::controller::cached::listed;
use crate::controller::context::{Context, Memory};
use crate::controller::drain::Drain;
use crate::controller::error::Error;
use crate::controller::poll::Snapshot;
use crate::controller::relays::RelaysView;
use crate::controller::scopes::scope::Contents;
use crate::controller::trust;
use crate::crd::class::Aws;
use crate::crd::{
    DEFAULT_CLASS_ANNOTATION, SESSION_UID_LABEL, SsmListener, SsmSession, SsmSessionClass,
    SsmSessionStatus,
};
use crate::identity::identity_of;
use crate::reading::Guarded;

/// The class of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClassFound {
    /// This installation serves it.
    Ours {
        /// Its name.
        name: String,
        /// With what AWS is called.
        identity: Aws,
    },
    /// Another installation serves it.
    Foreign {
        /// Its name.
        name: String,
    },
    /// There is none, or too many.
    Missing {
        /// What is missing, and what to do.
        message: String,
        /// The class that the session names, or had, does not exist: it permits nothing any more.
        gone: bool,
    },
}

impl ClassFound {
    fn is_foreign(&self) -> bool {
        match self {
            Self::Foreign { .. } => true,
            Self::Ours { .. } | Self::Missing { .. } => false,
        }
    }
}

/// Name and UID of an object that is to be deleted.
pub type Doomed = (String, String);

/// Listeners that are a session's by their label, and of which nothing more can be read. To end them that is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnreadListeners {
    /// Those that nobody has deleted.
    pub staying: Vec<Doomed>,
    /// How many are being deleted.
    pub deleted: usize,
}

/// Everything that a decision about a session looks at.
#[derive(Clone, Debug)]
pub struct Observed {
    /// This installation, as finalizers and labels name it.
    pub installation: String,
    /// The session.
    pub session: Arc<SsmSession>,
    /// Its status as it was read.
    pub previous: SsmSessionStatus,
    /// Its class.
    pub class: ClassFound,
    /// Its listeners, by name.
    pub listeners: Vec<Arc<SsmListener>>,
    /// Its listeners of which only that can be read, where the API server was asked.
    pub unread_listeners: UnreadListeners,
    /// The Service of its name.
    pub service: ServiceFound,
    /// Services of its own under earlier names.
    pub old_services: Vec<Arc<Service>>,
    /// Its slices, by name.
    pub slices: Vec<Arc<EndpointSlice>>,
    /// The relays.
    pub relays: RelaysView,
    /// Whether each living relay has as many listeners as it takes.
    pub relays_full: bool,
    /// Whether the installation is asked to drain.
    pub drain: Drain,
    /// What AWS said, for each identity of class and listeners, and of sessions that were shown.
    pub snapshots: BTreeMap<Identity, Arc<Snapshot>>,
    /// What this process remembers of it.
    pub memory: Memory,
}

impl Observed {
    /// Whether this installation has something to take away before the session goes, or goes over to another one.
    #[must_use]
    pub fn has_finalizer(&self) -> bool {
        has_finalizer(&self.session, &self.installation)
    }

    /// The finalizer of another installation that holds the session: its finalizer was there before ours.
    #[must_use]
    pub fn held_by(&self) -> Option<&str> {
        held_by(&self.session, &self.installation)
    }

    /// Whether the session goes on without us, in the hands of another installation.
    #[must_use]
    pub fn is_anothers(&self) -> bool {
        is_anothers(&self.session, self.class.is_foreign(), &self.installation)
    }

    /// Whether the session is being deleted, or is another installation's by now.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        is_leaving(&self.session, self.class.is_foreign(), &self.installation)
    }

    /// Why nobody knows what is in the session's namespace, if so.
    #[must_use]
    pub fn unread(&self) -> Option<&str> {
        match &self.service {
            ServiceFound::Unread { message } => Some(message),
            ServiceFound::Absent
            | ServiceFound::Ours(_)
            | ServiceFound::Leaving { .. }
            | ServiceFound::Conflict { .. } => None,
        }
    }

    /// How many listeners there are.
    #[must_use]
    pub fn left(&self) -> usize {
        let UnreadListeners { staying, deleted } = &self.unread_listeners;
        self.listeners.len() + staying.len() + deleted
    }

    /// Whether the session stays, and is let go all the same: the installation is asked to drain.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.drain == Drain::Asked && !self.is_leaving()
    }
}

/// Reads everything.
///
/// # Errors
/// When the API server does not answer.
pub async fn observe(session: &Arc<SsmSession>, context: &Context) -> Result<Observed, Error> {
    let uid = session.uid().unwrap_or_default();
    let namespace = session.namespace().unwrap_or_default();
    let classes = context.classes.state();
    let installation = context.options.installation();
    let class = find_class(session, &classes, &context.options.controller_name);
    let leaving = is_leaving(session, class.is_foreign(), &installation);
    let held = held_by(session, &installation).is_some();
    let drain = *context.drain.borrow();
    let goes = leaving || drain == Drain::Asked;
    let ask = goes && has_finalizer(session, &installation);
    let (listeners, unread_listeners) = find_listeners(session, ask, context).await?;
    let labelled = |labels: &BTreeMap<String, String>| labels.get(SESSION_UID_LABEL) == Some(&uid);
    let in_namespace = |of: Option<String>| of.as_deref() == Some(&namespace);
    let name = service_name(session);
    let mut old_services = context.services.filter(|service| {
        in_namespace(service.namespace())
            && is_owned(service.owner_references(), &uid)
            && service.name_any() != name
            && service.meta().deletion_timestamp.is_none()
    });
    old_services.sort_by_key(|service| service.name_any());
    let mut slices = context
        .slices
        .filter(|slice| in_namespace(slice.namespace()) && labelled(slice.labels()));
    slices.sort_by_key(|slice| slice.name_any());
    let service = if let Contents::Unreadable(message) = context.contents(&namespace) {
        ServiceFound::Unread { message }
    } else if goes || held {
        // The end of a session does not hang on whether its namespace can be read; the Service goes with its owner.
        let cached = context.services.get(&namespace, &name);
        let ours = cached.filter(|service| {
            is_owned(service.owner_references(), &uid)
                && service.meta().deletion_timestamp.is_none()
        });
        ours.map_or(ServiceFound::Absent, ServiceFound::Ours)
    } else {
        find_service(session, &name, context).await?
    };
    let mut identities = identities(&class, &listeners);
    let memory = context.memory(&uid);
    // Ends are looked for also when neither class nor listener is left to say with which identity.
    identities.extend(memory.started_with.values().cloned());
    let snapshots = identities.into_iter().map(|identity| {
        let snapshot = context.polls.snapshot(&identity);
        (identity, snapshot)
    });
    let relays = context.relays.borrow().clone();
    let all = context.listeners.state();
    let bound = all.iter().filter_map(|l| l.spec.relay.as_deref());
    Ok(Observed {
        relays_full: relays.are_full(bound),
        installation,
        previous: session.status.clone().unwrap_or_default(),
        snapshots: snapshots.collect(),
        relays,
        drain,
        memory,
        session: Arc::clone(session),
        class,
        listeners,
        unread_listeners,
        service,
        old_services,
        slices,
    })
}

/// The class that a session names, or the installation's default. While there is no single default, a session stays
/// with the class that it had: a default is moved in two edits, and no session ends between them.
#[must_use]
pub fn find_class(
    session: &SsmSession,
    classes: &[Arc<SsmSessionClass>],
    controller_name: &str,
) -> ClassFound {
    let found = |class: &SsmSessionClass| {
        if let Some(why) = class.unread() {
            ClassFound::Missing {
                gone: false,
                message: format!(
                    "SsmSessionClass {} can't be read: {why}. What runs goes on, and nothing is begun",
                    class.name_any()
                ),
            }
        } else if class.spec.controller_name == controller_name {
            ClassFound::Ours {
                name: class.name_any(),
                identity: class.spec.aws.clone(),
            }
        } else {
            ClassFound::Foreign {
                name: class.name_any(),
            }
        }
    };
    if let Some(name) = &session.spec.class_name {
        return match classes.iter().find(|class| class.name_any() == *name) {
            Some(class) => found(class),
            None => ClassFound::Missing {
                gone: true,
                message: format!(
                    "SsmSessionClass {name} does not exist: create it, or name another in spec.className"
                ),
            },
        };
    }
    let is_default = |class: &&Arc<SsmSessionClass>| {
        class
            .annotations()
            .get(DEFAULT_CLASS_ANNOTATION)
            .is_some_and(|value| value == "true")
    };
    let (unread, read): (Vec<_>, Vec<_>) = classes
        .iter()
        .filter(is_default)
        .partition(|class| class.unread().is_some());
    let (ours, theirs): (Vec<_>, Vec<_>) = read
        .into_iter()
        .partition(|class| class.spec.controller_name == controller_name);
    let before = session
        .status
        .as_ref()
        .and_then(|status| status.class.as_ref());
    let resolved = before.and_then(|name| classes.iter().find(|class| class.name_any() == *name));
    let gone = before.is_some() && resolved.is_none();
    let kept = resolved.filter(|class| class.spec.controller_name == controller_name);
    // One that can't be read may be ours or another's: nobody can tell whose the session is.
    let in_doubt = match resolved {
        Some(class) if class.unread().is_some() => {
            Some(class).filter(|class| is_default(class) || ours.len() != 1)
        }
        Some(_) | None if ours.is_empty() && kept.is_none() => unread.first().copied(),
        Some(_) | None => None,
    };
    if let Some(class) = in_doubt {
        return found(class);
    }
    match (ours.as_slice(), kept.as_ref(), theirs.as_slice()) {
        ([class], _, _) | (_, Some(class), _) | ([], None, [class, ..]) => found(class),
        ([], None, []) => ClassFound::Missing {
            gone,
            message: format!(
                "spec.className is not set and no SsmSessionClass is annotated {DEFAULT_CLASS_ANNOTATION}: \"true\""
            ),
        },
        ([_, _, ..], None, _) => {
            let names: BTreeSet<String> = ours.iter().map(|class| class.name_any()).collect();
            let names = names.into_iter().collect::<Vec<_>>().join(", ");
            ClassFound::Missing {
                gone,
                message: format!(
                    "several SsmSessionClasses are the default: {names}; leave the annotation on one, or set spec.className"
                ),
            }
        }
    }
}

/// `ask`: the session is to be let go, and a listener that the cache lacks would be left, so the API server is asked. The
/// cache may lack one because it can't be read.
async fn find_listeners(
    session: &SsmSession,
    ask: bool,
    context: &Context,
) -> Result<(Vec<Arc<SsmListener>>, UnreadListeners), Error> {
    let uid = session.uid().unwrap_or_default();
    let mut unread = UnreadListeners::default();
    let mut listeners = if ask {
        let api: Api<Guarded<SsmListener>> =
            Api::namespaced(context.client.clone(), &context.options.namespace);
        let params = ListParams::default().labels(&format!("{SESSION_UID_LABEL}={uid}"));
        let action = format!("list the listeners of SsmSession {}", session.name_any());
        let listeners = api.list(&params).await.map_err(Error::api(action))?;
        let listed = listed(listeners.items, &context.listeners);
        for metadata in listed.unread {
            if metadata.deletion_timestamp.is_some() {
                unread.deleted += 1;
            } else {
                let doomed = (metadata.name, metadata.uid);
                unread
                    .staying
                    .push((doomed.0.unwrap_or_default(), doomed.1.unwrap_or_default()));
            }
        }
        listed.known.into_iter().map(Arc::new).collect()
    } else {
        context
            .listeners
            .state_filter(|listener| listener.spec.session_ref.uid == uid)
    };
    listeners.retain(|listener: &Arc<SsmListener>| listener.spec.session_ref.uid == uid);
    listeners.sort_by_key(|listener| listener.name_any());
    Ok((listeners, unread))
}

fn identities(class: &ClassFound, listeners: &[Arc<SsmListener>]) -> BTreeSet<Identity> {
    let mut identities = BTreeSet::new();
    if let ClassFound::Ours { identity, .. } = class {
        identities.insert(identity_of(identity));
    }
    for listener in listeners {
        identities.extend(trust::identities(&listener.spec));
    }
    identities
}
