//! Backoff between the failures of a watch, that grow until it has shown something.

use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use kube_runtime::watcher::{Error, Event};
use tokio::time::sleep;

use crate::backoff::Backoff;

/// The same events, with a pause behind each error.
///
/// Only a complete list, or a change, says that the watch works again. That it begins to list, which it says before it asks,
/// says nothing: one whose lists fail would ask again and again after the shortest pause.
pub fn paced<K: Send>(
    events: impl Stream<Item = Result<Event<K>, Error>> + Send + Unpin,
    pauses: Backoff,
) -> impl Stream<Item = Result<Event<K>, Error>> + Send {
    let begin = (events, pauses, None::<Duration>);
    stream::unfold(begin, async |(mut events, mut pauses, pause)| {
        if let Some(pause) = pause {
            sleep(pause).await;
        }
        let event = events.next().await?;
        let pause = match &event {
            Err(_) => Some(pauses.next_delay()),
            Ok(Event::Init | Event::InitApply(_)) => None,
            Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_)) => {
                pauses.reset();
                None
            }
        };
        Some((event, (events, pauses, pause)))
    })
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const MIN: Duration = Duration::from_secs(1);
    const MAX: Duration = Duration::from_secs(30);

    /// How long each event was waited for.
    async fn waits(events: Vec<Result<Event<()>, Error>>) -> Vec<Duration> {
        let paced = paced(stream::iter(events), Backoff::new(MIN, MAX));
        let mut last = Instant::now();
        let waits = paced.map(|_| {
            let now = Instant::now();
            now - std::mem::replace(&mut last, now)
        });
        waits.collect().await
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_can_not_list_asks_less_and_less_often() {
        let tries = 8;
        let failing = || {
            [
                Ok(Event::Init),
                Ok(Event::InitApply(())),
                Err(Error::NoResourceVersion),
            ]
        };
        let waits = waits((0..tries).flat_map(|_| failing()).collect()).await;
        let pauses: Vec<Duration> = waits.into_iter().step_by(3).skip(1).collect();
        let due = [1, 2, 4, 8, 16, 30, 30].map(Duration::from_secs);
        assert_eq!(pauses.len(), due.len());
        for (pause, due) in pauses.into_iter().zip(due) {
            // The clock ticks in milliseconds.
            let late = Duration::from_millis(2);
            assert!(
                due / 2 <= pause && pause <= due + late,
                "{pause:?} of {due:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_or_a_change_begins_the_pauses_anew() {
        let fails = || Err(Error::NoResourceVersion);
        for works in [Event::InitDone, Event::Apply(()), Event::Delete(())] {
            let waits = waits(vec![
                fails(),
                fails(),
                fails(),
                Ok(works),
                fails(),
                Ok(Event::Init),
            ]);
            let waits = waits.await;
            assert!(waits[3] >= 2 * MIN, "{waits:?}");
            assert!(waits[5] <= MIN + Duration::from_millis(2), "{waits:?}");
        }
    }
}
