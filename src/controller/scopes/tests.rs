//! What is known of watched namespaces, and what is said of it.

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use kube::core::Status;
use kube_runtime::watcher;
use tokio::sync::watch;
use tokio::time::advance;

use super::*;
use crate::controller::fake_aws::FakeAws;
use crate::controller::fixtures::{context, relays};
use crate::controller::metrics::ScopeLabels;

/// A scope, and what says of its two caches that they were filled.
fn scope(namespace: &str) -> (Arc<Scope>, [watch::Sender<bool>; 2]) {
    let filled = [watch::channel(false), watch::channel(false)];
    let [(services, of_services), (slices, of_slices)] = filled;
    let scope = Scope::new(Some(namespace.to_owned()), [of_services, of_slices]);
    (scope, [services, slices])
}

fn refused() -> watcher::Error {
    let status = serde_json::json!({ "code": 403, "message": "services is forbidden" });
    let status: Status = serde_json::from_value(status).expect("a status");
    watcher::Error::InitialListFailed(kube::Error::Api(status.boxed()))
}

async fn refuse(scope: &Arc<Scope>) {
    let changes = stream::iter([Err::<(), _>(refused())]);
    scope.hears(changes).for_each(|_| async {}).await;
}

#[tokio::test]
async fn a_namespace_is_known_once_both_caches_are_and_stays_so() {
    let (scope, [services, slices]) = scope("shop");
    assert_eq!(scope.contents(), Contents::Pending);
    services.send_replace(true);
    assert_eq!(scope.contents(), Contents::Pending);
    refuse(&scope).await;
    let why = "what is in namespace shop can't be read: services is forbidden";
    assert_eq!(scope.contents(), Contents::Unreadable(why.to_owned()));
    slices.send_replace(true);
    assert_eq!(scope.contents(), Contents::Known);
    refuse(&scope).await;
    assert_eq!(scope.contents(), Contents::Known, "its cache stays");
}

#[test]
fn a_namespace_is_covered_by_its_own_scope_or_by_that_of_all() {
    let (shop, _) = scope("shop");
    assert!(shop.covers("shop") && !shop.covers("gone"));
    let all = Scope::new(None, [watch::channel(false).1, watch::channel(false).1]);
    assert!(all.covers("shop") && all.covers("gone"));
}

#[tokio::test(start_paused = true)]
async fn one_that_can_not_be_read_is_told_until_it_can_and_one_that_does_not_answer_is_too() {
    let mut context = context(Arc::new(FakeAws::default()), relays(&[]));
    let (shop, of_shop) = scope("shop");
    let (gone, of_gone) = scope("gone");
    let (mute, _of_mute) = scope("mute");
    context.scopes = vec![shop, Arc::clone(&gone), mute];
    let context = Arc::new(context);
    let (sender, mut told) = watch::channel(String::new());
    let running = tokio::spawn(run(Arc::clone(&context), sender));
    let synced = |scope: &str| {
        let scope = scope.to_owned();
        let gauge = context.metrics.scope_synced.get(&ScopeLabels { scope });
        gauge.map(|gauge| gauge.get())
    };

    refuse(&gone).await;
    told.changed().await.expect("it runs");
    let said = told.borrow_and_update().clone();
    assert_eq!(
        said,
        "what is in namespace gone can't be read; the log says why"
    );
    assert_eq!((synced("shop"), synced("gone")), (Some(0), Some(0)));
    for cache in of_shop.iter().chain(&of_gone) {
        cache.send_replace(true);
    }
    told.changed().await.expect("it runs");
    assert_eq!(*told.borrow_and_update(), "");
    let all = ["shop", "gone", "mute"].map(synced);
    assert_eq!(all, [Some(1), Some(1), Some(0)]);

    advance(context.options.api_timeout).await;
    told.changed().await.expect("it runs");
    assert!(told.borrow_and_update().contains("namespace mute"));
    assert!(
        matches!(context.contents("mute"), Contents::Unreadable(why) if why.contains("no answer"))
    );
    running.abort();
}
