//! The tasks of a process: none ends unnoticed, and all end in order and in time.

use std::time::Duration;

use anyhow::{Context, anyhow};
use futures::future::select_all;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// One part of the program, running.
pub(super) struct Task {
    name: &'static str,
    stop: CancellationToken,
    handle: JoinHandle<anyhow::Result<()>>,
}

impl Task {
    /// Runs `run` until the token that it is given is cancelled.
    pub(super) fn spawn<F>(name: &'static str, run: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        Self {
            name,
            handle: tokio::spawn(run(stop.clone())),
            stop,
        }
    }
}

/// How a task ended, with its name; a panic is an error too.
fn outcome(
    name: &'static str,
    joined: Result<anyhow::Result<()>, JoinError>,
) -> anyhow::Result<()> {
    joined
        .map_err(|error| anyhow!("{name} broke off: {error}"))?
        .with_context(|| name)
}

/// Runs until a task ends or `shutdown` is cancelled, then ends one task after the other in the order given, all of
/// them within `deadline`.
///
/// # Errors
/// When a task ended by itself, failed, or did not end in time; the first of these.
pub(super) async fn supervise(
    mut tasks: Vec<Task>,
    shutdown: CancellationToken,
    deadline: Duration,
) -> anyhow::Result<()> {
    let early = tokio::select! {
        () = shutdown.cancelled() => None,
        (joined, index, _) = select_all(tasks.iter_mut().map(|task| &mut task.handle)) => {
            Some((joined, index))
        }
    };
    let mut result = match early {
        None => Ok(()),
        Some((joined, index)) => {
            let name = tasks.remove(index).name;
            let ended = outcome(name, joined)
                .and_then(|()| Err(anyhow!("{name} ended though nobody asked for it")));
            if let Err(error) = &ended {
                error!(
                    error = format!("{error:#}"),
                    "a task ended: ending the process"
                );
            }
            ended
        }
    };
    info!(?deadline, "shutting down");
    let until = Instant::now() + deadline;
    for task in tasks {
        let Task { name, stop, handle } = task;
        stop.cancel();
        let ended = match timeout_at(until, handle).await {
            Ok(joined) => outcome(name, joined),
            Err(_) => Err(anyhow!("{name} did not end within {deadline:?}")),
        };
        if let Err(error) = &ended {
            error!(error = format!("{error:#}"), "a task did not end well");
        }
        result = result.and(ended);
    }
    info!("shut down");
    result
}

/// Cancelled at the first SIGTERM or SIGINT.
///
/// # Errors
/// When the process may not listen for signals.
pub(super) fn on_signal() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        info!(signal = name, "asked to end");
        cancelled.cancel();
    });
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    type Order = Arc<Mutex<Vec<&'static str>>>;

    /// A task that ends when it is asked to, and notes that it did.
    fn obedient(name: &'static str, order: &Order) -> Task {
        let order = order.clone();
        Task::spawn(name, |stop| async move {
            stop.cancelled().await;
            order.lock().unwrap().push(name);
            Ok(())
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_is_asked_to_end_ends_its_tasks_in_order() {
        let order = Order::default();
        let tasks = vec![obedient("relay", &order), obedient("controller", &order)];
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        supervise(tasks, shutdown, DEADLINE).await.unwrap();
        assert_eq!(*order.lock().unwrap(), ["relay", "controller"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_by_itself_ends_the_process_with_an_error() {
        let order = Order::default();
        let tasks = vec![
            obedient("relay", &order),
            Task::spawn("controller", |_stop| async {
                Err(anyhow!("lost its cache"))
            }),
        ];
        let error = supervise(tasks, CancellationToken::new(), DEADLINE)
            .await
            .unwrap_err();
        assert_eq!(format!("{error:#}"), "controller: lost its cache");
        assert_eq!(
            *order.lock().unwrap(),
            ["relay"],
            "the others are ended all the same"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_returns_or_panics_unasked_is_an_error_too() {
        let returned = vec![Task::spawn("admin", |_stop| async { Ok(()) })];
        let error = supervise(returned, CancellationToken::new(), DEADLINE)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("nobody asked"), "{error:#}");

        let panicked = vec![Task::spawn("admin", |_stop| async { panic!("on purpose") })];
        let error = supervise(panicked, CancellationToken::new(), DEADLINE)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("broke off"), "{error:#}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_hangs_does_not_keep_the_process() {
        let hanging = Task::spawn("relay", |_stop| std::future::pending());
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        let error = supervise(vec![hanging], shutdown, DEADLINE)
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("did not end within 30s"),
            "{error:#}"
        );
    }
}
