//! What an operator may set: every interval of the controller, each with its default and its reason.

use std::time::Duration;

/// How the controller of one installation behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerOptions {
    /// The `controllerName` of the classes that this installation serves.
    pub controller_name: String,
    /// The operator's own namespace: listeners and relays' Leases live here.
    pub namespace: String,
    /// UID of that namespace: what the markers are made of, and with the `controllerName` the installation.
    pub namespace_uid: String,
    /// Namespaces whose sessions are served; all of them when empty.
    pub watch_namespaces: Vec<String>,
    /// Between two DescribeSessions polls of one identity. 20 s: what AWS says is for people and for the sweeper,
    /// no byte waits for it, and an account's rate is shared with others.
    pub poll_interval: Duration,
    /// How long an unrecorded session must be seen before it is swept, and how long a mirror may lag. 60 s: more than
    /// StartSession's deadline of 30 s and the 10 s in which a relay must record what it was given, together.
    pub grace: Duration,
    /// How long a missing class or a denied call must last before it is called Stalled. 2 min: Flux gives up at once
    /// on Stalled, and a class or a role that is applied in the same sync arrives late.
    pub stalled_after: Duration,
    /// Between two looks at the relays' Leases. 1 s: a small part of the Lease of 12 s.
    pub relay_interval: Duration,
    /// How long a relay's Lease is good for. 12 s: so long the Leases must be known before a relay without one is gone,
    /// and so long a Lease that does not say so holds.
    pub lease_duration: Duration,
    /// How long nothing is moved when more than half of the relays look dead at once. 60 s: then it is more likely
    /// that they can't reach the API server than that all of them died.
    pub mass_death_pause: Duration,
    /// How long a living relay has to terminate the sessions of a deleted listener before the controller does it.
    pub terminate_after: Duration,
    /// How long a deleted session waits for its listeners. 60 s: then the listener, in the operator's namespace, is
    /// the durable wish to terminate, and no user's namespace hangs on AWS.
    pub finalizer_timeout: Duration,
    /// How long History is asked for the end of a session. 10 min: nobody knows how late AWS shows it.
    pub history_timeout: Duration,
    /// Between two looks at a Service that is not ours. It is not watched, since it does not carry our label.
    pub conflict_interval: Duration,
    /// Between two looks for a relay for a listener that has none. 10 s: room that another listener leaves is told to
    /// nobody.
    pub unbound_interval: Duration,
    /// Between two reconciles of an object to which nothing happens: a net for what a watch may have missed. And between
    /// two looks at the served definitions of the kinds, which change with a release.
    pub resync_interval: Duration,
    /// First delay after a failure.
    pub backoff_min: Duration,
    /// Longest delay after many failures.
    pub backoff_max: Duration,
    /// Deadline of one call to the API server, and with some room of one reconcile: the client has none itself.
    pub api_timeout: Duration,
    /// How many objects of one kind are reconciled at once. 16: reconciles mostly wait for the API server.
    pub concurrency: u16,
}

impl ControllerOptions {
    /// The defaults, for an operator that lives in `namespace`, which has this UID.
    #[must_use]
    pub fn new(namespace: impl Into<String>, namespace_uid: impl Into<String>) -> Self {
        Self {
            controller_name: crate::crd::DEFAULT_CONTROLLER_NAME.to_owned(),
            namespace: namespace.into(),
            namespace_uid: namespace_uid.into(),
            watch_namespaces: Vec::new(),
            poll_interval: Duration::from_secs(20),
            grace: Duration::from_mins(1),
            stalled_after: Duration::from_mins(2),
            relay_interval: Duration::from_secs(1),
            lease_duration: Duration::from_secs(12),
            mass_death_pause: Duration::from_mins(1),
            terminate_after: Duration::from_mins(1),
            finalizer_timeout: Duration::from_mins(1),
            history_timeout: Duration::from_mins(10),
            conflict_interval: Duration::from_secs(15),
            unbound_interval: Duration::from_secs(10),
            resync_interval: Duration::from_mins(5),
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_mins(5),
            api_timeout: Duration::from_secs(30),
            concurrency: 16,
        }
    }

    /// Which installation this is: in finalizers, in labels, and in the names of slices.
    #[must_use]
    pub fn installation(&self) -> String {
        crate::crd::installation(&self.namespace_uid, &self.controller_name)
    }

    /// Whether the sessions of this namespace are served.
    #[must_use]
    pub fn watches(&self, namespace: &str) -> bool {
        self.watch_namespaces.is_empty() || self.watch_namespaces.iter().any(|of| of == namespace)
    }
}
