//! Brokers around the real one: they lead elsewhere, hold calls up, or note secrets.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use futures::future::BoxFuture;
use secrecy::ExposeSecret;
use ssm_session_operator::aws::AwsBroker;
use ssm_session_operator::broker::{
    Broker, BrokerError, Filter, Identity, SessionId, SessionPage, SessionState, SignedHeaders,
    StartRequest, StreamUrl, Ticket, UrlPolicy,
};
use tokio::sync::watch;

/// What a broker around the real one does otherwise.
pub struct Around {
    aws: AwsBroker,
    /// How stream URLs begin instead.
    stream_base: Option<String>,
    /// StartSession and TerminateSession wait here until it is open.
    pub starts_open: watch::Sender<bool>,
    pub terminations_open: watch::Sender<bool>,
    /// The next upgrade that is to be signed finds a bug.
    pub panics: AtomicBool,
    /// Every token, stream URL and signed header that passed.
    secrets: Mutex<Vec<String>>,
}

impl Around {
    pub fn new(aws: AwsBroker) -> Self {
        Self {
            aws,
            stream_base: None,
            starts_open: watch::Sender::new(true),
            terminations_open: watch::Sender::new(true),
            panics: AtomicBool::new(false),
            secrets: Mutex::default(),
        }
    }

    /// Stream URLs begin with `base`, such as `wss://host:port`.
    pub fn leading_to(aws: AwsBroker, base: String) -> Self {
        Self {
            stream_base: Some(base),
            ..Self::new(aws)
        }
    }

    pub fn secrets(&self) -> Vec<String> {
        self.secrets.lock().expect("secrets").clone()
    }

    fn note(&self, secret: &str) {
        let mut secrets = self.secrets.lock().expect("secrets");
        secrets.push(secret.to_owned());
    }

    fn pass(&self, identity: &Identity, ticket: Ticket) -> Ticket {
        let url = ticket.stream_url(identity, UrlPolicy::Insecure);
        let url = url.expect("the simulator's URL").as_str().to_owned();
        self.note(ticket.expose_token());
        let (_, path) = url.split_once("/v1/").expect("a path");
        self.note(path);
        self.note(path.split_once('?').expect("a query").1);
        match &self.stream_base {
            None => ticket,
            Some(base) => {
                let token = ticket.expose_token().to_owned();
                Ticket::new(ticket.session_id, format!("{base}/v1/{path}"), token)
            }
        }
    }
}

async fn pass_gate(gate: &watch::Sender<bool>) {
    let mut gate = gate.subscribe();
    gate.wait_for(|open| *open).await.expect("the gate");
}

impl Broker for Around {
    fn start<'a>(
        &'a self,
        identity: &'a Identity,
        request: &'a StartRequest,
    ) -> BoxFuture<'a, Result<Ticket, BrokerError>> {
        async move {
            let ticket = self.aws.start(identity, request).await?;
            pass_gate(&self.starts_open).await;
            Ok(self.pass(identity, ticket))
        }
        .boxed()
    }

    fn resume<'a>(
        &'a self,
        identity: &'a Identity,
        session: &'a SessionId,
    ) -> BoxFuture<'a, Result<Ticket, BrokerError>> {
        async move {
            let ticket = self.aws.resume(identity, session).await?;
            Ok(self.pass(identity, ticket))
        }
        .boxed()
    }

    fn terminate<'a>(
        &'a self,
        identity: &'a Identity,
        session: &'a SessionId,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        async move {
            pass_gate(&self.terminations_open).await;
            self.aws.terminate(identity, session).await
        }
        .boxed()
    }

    fn describe<'a>(
        &'a self,
        identity: &'a Identity,
        state: SessionState,
        filters: &'a [Filter],
        next_token: Option<&'a str>,
    ) -> BoxFuture<'a, Result<SessionPage, BrokerError>> {
        self.aws.describe(identity, state, filters, next_token)
    }

    fn sign_upgrade<'a>(
        &'a self,
        identity: &'a Identity,
        url: &'a StreamUrl,
    ) -> BoxFuture<'a, Result<SignedHeaders, BrokerError>> {
        async move {
            assert!(!self.panics.swap(false, Ordering::Relaxed), "told to panic");
            let headers = self.aws.sign_upgrade(identity, url).await?;
            for (name, value) in &headers.0 {
                if name.eq_ignore_ascii_case("authorization") {
                    self.note(value.expose_secret());
                }
            }
            Ok(headers)
        }
        .boxed()
    }
}
