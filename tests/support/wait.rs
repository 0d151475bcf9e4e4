//! The one loop that polls: tests wait on conditions and never for a time.

#![allow(
    dead_code,
    reason = "each test program that includes this file uses a part of it"
)]

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Long against the cost of asking, short against what is waited for.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Asks until there is an answer; `None` when the time is up.
pub async fn answer<T>(within: Duration, ask: impl AsyncFn() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = ask().await {
            return Some(answer);
        }
        if Instant::now() > deadline {
            return None;
        }
        sleep(ASK_EVERY).await;
    }
}
