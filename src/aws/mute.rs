//! Silence around the SDK.
//!
//! At TRACE the SDK prints whole answers with their tokens, its signer whole URLs with their query. It promises
//! that nothing logged inside reaches a subscriber, whatever its filter, and that everything outside does.

use std::sync::LazyLock;

use tracing::Dispatch;
use tracing::subscriber::NoSubscriber;

/// Registered like any subscriber, unlike `Dispatch::none()`: with only one registered, tracing would ask the
/// one in force where an event is first met, and a library's event first met in silence would stay silent.
static MUTE: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::new()));

/// For `with_subscriber` and `with_default`.
pub(super) fn mute() -> &'static Dispatch {
    &MUTE
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::span;

    use super::*;

    /// Counts events.
    #[derive(Clone, Default)]
    struct Ear(Arc<Mutex<u32>>);

    impl tracing::Subscriber for Ear {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, _: &tracing::Event<'_>) {
            *self.0.lock().unwrap() += 1;
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    #[test]
    fn an_event_is_silent_inside_and_heard_outside_even_if_first_met_inside() {
        let ear = Ear::default();
        let _default = tracing::subscriber::set_default(ear.clone());
        let say = || tracing::error!("one callsite");
        tracing::dispatcher::with_default(mute(), say);
        assert_eq!(*ear.0.lock().unwrap(), 0);
        say();
        assert_eq!(*ear.0.lock().unwrap(), 1);
        tracing::dispatcher::with_default(mute(), say);
        assert_eq!(*ear.0.lock().unwrap(), 1);
    }
}
