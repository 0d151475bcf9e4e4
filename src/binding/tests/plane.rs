//! A relay that only notes what it is told.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::binding::DataPlane;
use crate::relay::{EndReason, Inherited, ListenerId, ListenerSpec, Recorder};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Call {
    Ensure(ListenerId, Box<ListenerSpec>, Inherited),
    Stop(ListenerId, EndReason),
    Shutdown,
}

#[derive(Default)]
struct Noted {
    calls: Vec<Call>,
    live: BTreeSet<ListenerId>,
    recorders: Vec<(ListenerId, Arc<dyn Recorder>)>,
}

/// Clones are the same relay.
#[derive(Clone, Default)]
pub(super) struct FakePlane {
    noted: Arc<Mutex<Noted>>,
    changed: Arc<tokio::sync::Notify>,
}

impl FakePlane {
    pub(super) fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.noted.lock().unwrap().calls)
    }

    /// Waits for the next call.
    pub(super) async fn next_call(&self) -> Call {
        loop {
            let changed = self.changed.notified();
            {
                let mut noted = self.noted.lock().unwrap();
                if !noted.calls.is_empty() {
                    return noted.calls.remove(0);
                }
            }
            changed.await;
        }
    }

    /// The relay has finished stopping a listener.
    pub(super) fn let_go(&self, id: &ListenerId) {
        assert!(
            self.noted.lock().unwrap().live.remove(id),
            "{id} was not live"
        );
    }

    /// The recorder that was given with a listener last.
    pub(super) fn recorder(&self, id: &ListenerId) -> Arc<dyn Recorder> {
        let noted = self.noted.lock().unwrap();
        noted
            .recorders
            .iter()
            .rfind(|(of, _)| of == id)
            .unwrap()
            .1
            .clone()
    }

    fn note(&self, call: Call, change: impl FnOnce(&mut Noted)) {
        let mut noted = self.noted.lock().unwrap();
        noted.calls.push(call);
        change(&mut noted);
        self.changed.notify_one();
    }
}

impl DataPlane for FakePlane {
    fn ensure(
        &self,
        id: &ListenerId,
        spec: ListenerSpec,
        inherited: Inherited,
        recorder: Arc<dyn Recorder>,
    ) {
        self.note(
            Call::Ensure(id.clone(), Box::new(spec), inherited),
            |noted| {
                noted.live.insert(id.clone());
                noted.recorders.push((id.clone(), recorder));
            },
        );
    }

    fn stop(&self, id: &ListenerId, reason: EndReason) {
        self.note(Call::Stop(id.clone(), reason), |_| {});
    }

    fn listeners(&self) -> Vec<ListenerId> {
        self.noted.lock().unwrap().live.iter().cloned().collect()
    }

    fn shutdown(&self, _deadline: Duration) -> BoxFuture<'_, ()> {
        async { self.note(Call::Shutdown, |noted| noted.live.clear()) }.boxed()
    }
}
