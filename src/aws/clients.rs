//! The clients of all identities.
//!
//! It promises that an identity has one client as long as it is used, and with it one limiter, which remembers that AWS
//! throttles, and one set of credentials, for which STS was asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_ssm::config::SharedHttpClient;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::AwsOptions;
use super::client::Client;
use super::http::http_client;
use crate::broker::Identity;

/// A client that was not used for so long belongs to a class that was edited: the controller polls each identity several
/// times a minute, and what a relay's has kept by the next resume, an hour later, is out of date.
const UNUSED_MAX: Duration = Duration::from_hours(1);

/// Identities come from classes and from the snapshots of listeners, so that only edits of classes make new ones. This is
/// far more than a cluster has classes, since polls that go round among more would each find their client gone; and
/// it bounds what an hour of edits can take: a client begins with 30 KiB.
const IDENTITIES_MAX: usize = 1024;

/// The clients of all identities; they share connections, and nothing else.
pub(super) struct Clients {
    options: AwsOptions,
    http: SharedHttpClient,
    by_identity: Mutex<HashMap<Identity, (Arc<Client>, Instant)>>,
}

impl Clients {
    pub(super) fn new(options: AwsOptions) -> Self {
        let http = http_client(&options.proxies);
        Self {
            options,
            http,
            by_identity: Mutex::new(HashMap::new()),
        }
    }

    /// The client of `identity`, made at its first use. Those that nobody has used for long make room, and where all are
    /// in use the one unused for longest.
    pub(super) async fn of(&self, identity: &Identity) -> Arc<Client> {
        let mut by_identity = self.by_identity.lock().await;
        if let Some((client, used_at)) = by_identity.get_mut(identity) {
            *used_at = Instant::now();
            return client.clone();
        }
        by_identity.retain(|_, (_, used_at)| used_at.elapsed() < UNUSED_MAX);
        let unused = by_identity.iter().min_by_key(|(_, (_, used_at))| *used_at);
        if let Some(unused) = unused.map(|(identity, _)| identity.clone())
            && by_identity.len() >= IDENTITIES_MAX
        {
            by_identity.remove(&unused);
        }
        let client = Arc::new(Client::new(identity, &self.options, &self.http));
        by_identity.insert(identity.clone(), (client.clone(), Instant::now()));
        client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(number: usize) -> Identity {
        let region = format!("eu-central-{number}");
        Identity {
            region,
            ssm_endpoint: None,
            ssmmessages_endpoint: None,
            role: None,
        }
    }

    /// Uses each of these identities once, a second after the other.
    async fn use_each(clients: &Clients, numbers: std::ops::Range<usize>) {
        for number in numbers {
            tokio::time::advance(Duration::from_secs(1)).await;
            clients.of(&identity(number)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_identities_that_are_used_in_turn_keep_their_clients_up_to_a_limit() {
        let clients = Clients::new(crate::aws::tests::options());
        let first = clients.of(&identity(0)).await;
        for _round in 0..2 {
            use_each(&clients, 0..IDENTITIES_MAX).await;
        }
        assert!(Arc::ptr_eq(&first, &clients.of(&identity(0)).await));
        use_each(&clients, 1..IDENTITIES_MAX).await;
        let second = clients.of(&identity(1)).await;
        use_each(&clients, IDENTITIES_MAX..IDENTITIES_MAX + 1).await;
        assert_eq!(clients.by_identity.lock().await.len(), IDENTITIES_MAX);
        assert!(Arc::ptr_eq(&second, &clients.of(&identity(1)).await));
        assert!(!Arc::ptr_eq(&first, &clients.of(&identity(0)).await));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_goes_when_it_was_not_used_for_long_and_others_are_made() {
        let clients = Clients::new(crate::aws::tests::options());
        let edited = clients.of(&identity(0)).await;
        let used = clients.of(&identity(1)).await;
        tokio::time::advance(UNUSED_MAX / 2).await;
        clients.of(&identity(1)).await;
        tokio::time::advance(UNUSED_MAX / 2).await;
        clients.of(&identity(2)).await;
        assert_eq!(clients.by_identity.lock().await.len(), 2);
        assert!(Arc::ptr_eq(&used, &clients.of(&identity(1)).await));
        assert!(!Arc::ptr_eq(&edited, &clients.of(&identity(0)).await));
    }

    #[tokio::test]
    async fn without_other_credentials_the_default_chain_is_asked_when_it_is_needed() {
        let clients = Clients::new(AwsOptions::default());
        let client = clients.of(&identity(0)).await;
        assert_eq!(client.region, "eu-central-0");
    }
}
