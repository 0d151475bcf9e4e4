//! For how long a process may act that holds a Lease.

use std::sync::{Arc, Mutex, PoisonError};

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use tokio::time::Instant;

/// The time of a holder: its clones all hear of a renewal.
///
/// Whoever stops a holder whose time is over may come late: a process that slept wakes with events in its sockets, and any
/// of its tasks may be the first to run. So each act asks the term.
#[derive(Clone, Debug)]
pub struct Term(Arc<Mutex<Instant>>);

/// The term is over: another may act now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not done: the Lease was not renewed in time, so another process may lead now")]
pub struct Over;

impl Term {
    /// A term up to this instant.
    #[must_use]
    pub fn new(deadline: Instant) -> Self {
        Self(Arc::new(Mutex::new(deadline)))
    }

    /// Up to when it is, as far as is known now.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its Lease was renewed, and holds up to this instant.
    pub fn renew(&self, deadline: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
    }

    /// Its Lease was lost.
    pub fn end(&self) {
        self.renew(Instant::now());
    }

    /// Whether its holder may act.
    ///
    /// # Errors
    /// [`Over`] when it may not.
    pub fn check(&self) -> Result<(), Over> {
        if Instant::now() < self.deadline() {
            Ok(())
        } else {
            Err(Over)
        }
    }

    /// A client that sends no request when the term is over, and then answers with [`Over`].
    #[must_use]
    pub fn client(&self, client: Client) -> Client {
        let (term, namespace) = (self.clone(), client.default_namespace().to_owned());
        let fenced = tower::service_fn(move |request: Request<Body>| {
            let (term, client) = (term.clone(), client.clone());
            async move {
                term.check()?;
                let answer: Response<Body> = client.send(request).await?;
                Ok::<_, tower::BoxError>(answer)
            }
        });
        Client::new(fenced, namespace)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use k8s_openapi::api::coordination::v1::Lease;
    use kube::Api;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_client_sends_nothing_after_the_term_and_sends_again_once_it_is_renewed() {
        let sent = Arc::new(AtomicU32::new(0));
        let counted = sent.clone();
        let server = tower::service_fn(move |_: Request<Body>| {
            counted.fetch_add(1, Ordering::Relaxed);
            async { Ok::<_, Infallible>(Response::new(Body::from(b"{}".to_vec()))) }
        });
        let term = Term::new(Instant::now() + SECOND);
        let client = term.client(Client::new(server, "of-its-own"));
        assert_eq!(client.default_namespace(), "of-its-own");
        let leases: Api<Lease> = Api::default_namespaced(client);
        leases.get("any").await.expect("the term has begun");

        tokio::time::advance(SECOND).await;
        let error = leases.get("any").await.expect_err("the term is over");
        assert!(format!("{error:?}").contains("Over"), "{error:?}");
        assert_eq!(sent.load(Ordering::Relaxed), 1);

        term.renew(Instant::now() + SECOND);
        leases.get("any").await.expect("it goes on");
        term.end();
        leases.get("any").await.expect_err("it was lost");
        assert_eq!(sent.load(Ordering::Relaxed), 2);
    }
}
