//! The HTTP client under the SDK: its own, and where a proxy is set the way through that.
//!
//! It promises that each request takes the way that [`Proxies`] say for its URL, also the requests for credentials, and
//! that a proxy's refusal reaches the caller in its own words.

use std::error::Error;
use std::fmt;
use std::task::{Context, Poll};

use aws_sdk_ssm::config::http::{HttpRequest, HttpResponse};
use aws_sdk_ssm::config::{
    ConfigBag, HttpClient, RuntimeComponents, RuntimeComponentsBuilder, SharedHttpClient,
};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::Uri;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower::Service;

use crate::proxy::{Carrier, ConnectError, Proxies};

/// A client for all identities; they share its connections.
pub(super) fn http_client(proxies: &Proxies) -> SharedHttpClient {
    let direct = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    match Tunnelled::new(proxies) {
        None => direct,
        Some(tunnelled) => SharedHttpClient::new(Fork {
            direct,
            tunnelled,
            proxies: proxies.clone(),
        }),
    }
}

/// The SDK's own client, and the one through proxies.
#[derive(Clone, Debug)]
struct Fork<D> {
    direct: D,
    tunnelled: Tunnelled,
    proxies: Proxies,
}

impl HttpClient for Fork<SharedHttpClient> {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Fork {
            direct: self.direct.http_connector(settings, components),
            tunnelled: self.tunnelled.clone(),
            proxies: self.proxies.clone(),
        })
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.direct.validate_base_client_config(components, config)
    }

    fn validate_final_config(
        &self,
        components: &RuntimeComponents,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.direct.validate_final_config(components, config)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.direct.connector_metadata()
    }
}

impl HttpConnector for Fork<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let url = request.uri().parse::<Uri>();
        if url.is_ok_and(|url| self.proxies.of(&url).is_some()) {
            self.tunnelled.call(request)
        } else {
            self.direct.call(request)
        }
    }
}

/// HTTP over connections that a proxy has made. Its waits are bounded by the time that an attempt has, and by that which
/// credentials have: the SDK's settings for connections are for its own client.
#[derive(Clone)]
struct Tunnelled(legacy::Client<HttpsConnector<Through>, SdkBody>);

impl Tunnelled {
    /// None without proxies.
    fn new(proxies: &Proxies) -> Option<Self> {
        let connector = HttpsConnector::from((Through(proxies.clone()), proxies.tls()?));
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(connector);
        Some(Self(client))
    }

    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = request
                .try_into_http1x()
                .map_err(|error| ConnectorError::user(error.into()))?;
            let answer = client.request(request).await.map_err(failed)?;
            HttpResponse::try_from(answer.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

impl fmt::Debug for Tunnelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tunnelled")
    }
}

/// All that goes wrong here may pass. What the proxy said is said without the layers above it.
fn failed(error: legacy::Error) -> ConnectorError {
    let outermost: &(dyn Error + 'static) = &error;
    let mut levels = std::iter::successors(Some(outermost), |&level| level.source());
    let refusal = levels.find_map(|level| level.downcast_ref::<ConnectError>());
    match refusal.cloned() {
        Some(refusal) => ConnectorError::io(refusal.into()),
        None => ConnectorError::io(error.into()),
    }
}

/// Connects through the proxy that is for a URL.
#[derive(Clone)]
struct Through(Proxies);

impl Service<Uri> for Through {
    type Response = Carrier;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Carrier, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let proxies = self.0.clone();
        async move {
            let proxy = proxies.of(&url).ok_or("no proxy is for this URL")?;
            let host = url.host().unwrap_or_default();
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let tls = url.scheme_str() == Some("https");
            let port = url.port_u16().unwrap_or(if tls { 443 } else { 80 });
            Ok(proxy.connect(host, port).await?)
        }
        .boxed()
    }
}
