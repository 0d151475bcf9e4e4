//! The one loop that waits: it asks until there is an answer, and gives up at a deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks until there is an answer; `None` once `limit` has passed without one.
pub async fn ask_until<T>(limit: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        let answer = ask().await;
        if answer.is_some() || Instant::now() >= deadline {
            return answer;
        }
        sleep(PAUSE).await;
    }
}
