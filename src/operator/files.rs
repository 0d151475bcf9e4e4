//! How many file descriptors this process may have, and how many of them are left for clients.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// For what is there once: connections to the API server and to AWS, the admin port with its probes, the runtime.
const ONCE: usize = 256;

/// For a listener: a socket for each family, and a websocket for each of up to four sessions, all but one of which are
/// about to end.
const PER_LISTENER: usize = 6;

/// Takes as many file descriptors as the system gives: each client and each websocket is one, and the usual soft limit of
/// 1024 is used up by the clients of four listeners.
pub(super) fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => info!(limit = maximum, "file descriptors"),
        Err(error) => {
            warn!(limit = current, %error, "the limit of file descriptors can't be raised; clients beyond it are not accepted");
        }
    }
}

/// How many clients all listeners together may have, so that so many listeners can go on and probes are answered.
pub(super) fn clients_max(listeners: usize) -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok());
    limit.map_or(usize::MAX, |limit| left(limit, listeners))
}

/// A quarter at least: where the limit is so low, not all listeners find a session anyway.
fn left(limit: usize, listeners: usize) -> usize {
    let others = ONCE + PER_LISTENER * listeners;
    limit.saturating_sub(others).max(limit / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_have_what_listeners_and_the_rest_leave_and_a_quarter_at_least() {
        assert_eq!(left(65_536, 500), 62_280);
        assert_eq!(left(1024, 500), 256);
    }
}
