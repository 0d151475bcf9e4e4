//! What AWS refuses: what is said of it, that it is tried again without a hot loop, and that it heals by itself.

use std::collections::BTreeSet;

use ssm_session_operator::crd::condition::ReadyReason;
use ssm_session_operator::crd::listener::{ErrorClass, ListenerState};
use ssm_session_operator::crd::{SsmListener, SsmSession};
use ssm_session_operator::simulator::{Fault, Operation};

use crate::looks::{Following, is_ready, message, status};
use crate::world::{SECRET_KEY, World, condition, reason};

/// What is seen of a start that fails for as long as its cause lasts.
struct Failing {
    /// The kind of error that the relay reports.
    class: ErrorClass,
    /// The condition that says so, with its status and reason.
    said: (&'static str, &'static str, &'static str),
    /// A part of what it says.
    words: &'static str,
    /// What `Ready` comes to: `Failed` while Stalled, `Progressing` while only time is needed.
    ready: ReadyReason,
    /// Reasons of the Events that are told before it heals.
    told: &'static [&'static str],
}

/// A session whose starts fail: that is said in its conditions and in its Events, it is tried again and again, each time
/// at the moment that is written down, and it carries bytes once the cause is gone.
async fn fails_and_heals(world: &World, failing: &Failing, heal: impl FnOnce(&World)) {
    // Long enough for each failure to be written down before the next, on a loaded machine too.
    let operator = world.all_in_one(&["--backoff-min=1s"]).await;
    let mut sessions = world.follow("orders").await;
    let mut listeners: Following<SsmListener> = Following::new(world.listeners(), None).await;
    world.create(&world.session("orders")).await;
    let (kind, status_said, why) = failing.said;
    let session = sessions
        .until("what is wrong", |session| {
            condition(session, kind) == status_said
                && reason(session, kind) == why
                && status(session).next_retry_time.is_some()
        })
        .await;
    let words = message(&session, kind);
    assert!(words.contains(failing.words), "{words}");
    assert_eq!(
        (condition(&session, "Ready"), reason(&session, "Ready")),
        ("False", failing.ready.as_str())
    );
    assert_eq!(
        (
            condition(&session, "Available"),
            reason(&session, "Available")
        ),
        ("False", "NoSession")
    );

    // Each failed start is written down with the time of the next one, which no other has.
    let retry_at = |listener: &SsmListener| {
        let status = listener.status.as_ref()?;
        let failed = status.last_error.as_ref()?.class == failing.class;
        status.retry_at.clone().filter(|_| failed)
    };
    let mut retries = BTreeSet::new();
    while retries.len() < 3 {
        let new = |listener: &SsmListener| {
            retry_at(listener).is_some_and(|retry| !retries.contains(&retry))
        };
        let listener = listeners.until("another retry", new).await;
        retries.extend(retry_at(&listener));
    }
    for told in failing.told {
        world
            .until(&format!("an Event: {told}"), async || {
                Ok(world.told("orders").await.contains(*told))
            })
            .await;
    }
    let mut told = world.told("orders").await;
    // A start that is over at once may be over before anybody has seen it as one.
    told.remove("SessionStarted");
    assert!(
        told.iter().eq(failing.told),
        "{told:?} is told, not {:?}",
        failing.told
    );

    heal(world);
    // The polls share the rate limiter, which may take a while to speed up again after throttling.
    let healed =
        |session: &SsmSession| is_ready(session) && reason(session, "AwsReachable") == "Reachable";
    let session = sessions.until("that it heals", healed).await;
    assert_eq!(status(&session).next_retry_time, None);
    let serves = |listener: &SsmListener| {
        let status = listener.status.as_ref();
        status.is_some_and(|status| {
            status.state == ListenerState::Serving
                && status.last_error.is_none()
                && status.retry_at.is_none()
        })
    };
    listeners.until("that it serves", serves).await;
    let retries: BTreeSet<_> = listeners.versions.iter().filter_map(retry_at).collect();
    let calls = world.simulator.calls(Operation::StartSession);
    let calls_max = retries.len() as u64 + 1;
    assert!(calls <= calls_max, "{calls} calls for {retries:?}");
    let mut versions = sessions.versions.iter();
    let stalled = versions.any(|session| !condition(session, "Stalled").is_empty());
    assert_eq!(
        stalled,
        failing.ready == ReadyReason::Failed,
        "Stalled is for what needs somebody"
    );
    world.connect("orders", "db").await;
    // What failed after it had begun is terminated.
    world
        .wait_aws("no session is live but the one that serves", |_| {
            world.live_sessions().len() == 1
        })
        .await;
    world.remove("orders").await;
    operator.stop().await.expect("it ends well");
}

/// The same, while AWS answers StartSession with this error.
async fn answers(name: &str, code: &str, failing: Failing) {
    let world = World::new(name).await;
    world.fail(Operation::StartSession, code);
    fails_and_heals(&world, &failing, World::mend).await;
}

#[tokio::test]
async fn throttled_starts_are_said_and_each_retry_is_one_call() {
    let failing = Failing {
        class: ErrorClass::Throttled,
        said: ("AwsReachable", "False", "Throttled"),
        words: "ThrottlingException",
        ready: ReadyReason::Progressing,
        told: &[],
    };
    answers("throttled", "ThrottlingException", failing).await;
}

#[tokio::test]
async fn an_error_inside_of_aws_is_said_and_waited_for() {
    let failing = Failing {
        class: ErrorClass::AwsUnavailable,
        said: ("AwsReachable", "False", "AwsUnavailable"),
        words: "InternalServerError",
        ready: ReadyReason::Progressing,
        told: &[],
    };
    answers("internal", "InternalServerError", failing).await;
}

#[tokio::test]
async fn an_invalid_document_is_stalled_at_once_and_tried_all_the_same() {
    let failing = Failing {
        class: ErrorClass::InvalidDocument,
        said: ("Stalled", "True", "InvalidDocument"),
        words: "port db: StartSession: InvalidDocument",
        ready: ReadyReason::Failed,
        told: &[],
    };
    answers("document", "InvalidDocument", failing).await;
}

#[tokio::test]
async fn sessions_without_a_token_are_terminated_and_followed() {
    let world = World::new("tokenless").await;
    world.inject(Fault::EmptyTokens {
        operation: Operation::StartSession,
        calls: u32::MAX,
    });
    let failing = Failing {
        class: ErrorClass::DataChannel,
        said: ("Reconciling", "True", "Retrying"),
        words: "StartSession gave no token",
        ready: ReadyReason::Progressing,
        told: &["SessionEnded"],
    };
    fails_and_heals(&world, &failing, World::mend).await;
    assert!(world.simulator.sessions().len() > 3);
}

#[tokio::test]
async fn without_credentials_aws_is_not_called_and_they_are_found_when_they_appear() {
    let mut world = World::new("credentials").await;
    let file = world.folder().join("credentials");
    world.credentials = vec![
        ("AWS_SHARED_CREDENTIALS_FILE", file.display().to_string()),
        (
            "AWS_CONFIG_FILE",
            world.folder().join("config").display().to_string(),
        ),
    ];
    let failing = Failing {
        class: ErrorClass::CredentialsUnavailable,
        said: ("AwsReachable", "False", "CredentialsUnavailable"),
        words: "no usable credentials: Environment: ",
        ready: ReadyReason::Progressing,
        told: &[],
    };
    fails_and_heals(&world, &failing, |world| {
        assert!(world.simulator.overview().calls.is_empty(), "AWS is called");
        let key = format!(
            "[default]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = {SECRET_KEY}\n"
        );
        std::fs::write(&file, key).expect("the folder takes a file");
    })
    .await;
}
