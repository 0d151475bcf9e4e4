//! Connections: TCP, TLS when configured, HTTP/1.1 with upgrades, and which path leads where.

use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router, routing::post};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::connection::Connection;
use super::{Shared, admin, api, gateway, pod_identity};

/// Pause after a failed accept, which mostly means that descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a client may take for its TLS handshake.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves each connection in a task of its own, until the simulator is shut down.
pub(super) async fn accept(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    shared: Arc<Shared>,
) {
    let router = Router::new()
        .route("/", post(api::call))
        .merge(gateway::routes())
        .merge(admin::routes())
        .merge(pod_identity::routes())
        .with_state(Arc::clone(&shared));
    loop {
        let accepted = tokio::select! {
            () = shared.cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the simulator could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Nagle's algorithm would hold small frames back; without it only timing differs.
        let _ = stream.set_nodelay(true);
        let (router, acceptor) = (router.clone(), acceptor.clone());
        let shared_by_connection = Arc::clone(&shared);
        shared.tasks.spawn(async move {
            let abort = shared_by_connection.cancel.child_token();
            let connection = match Connection::new(&stream, abort) {
                Ok(connection) => connection,
                Err(error) => return tracing::warn!(%error, "a connection could not be kept"),
            };
            let serving = async {
                let Some(acceptor) = acceptor else {
                    return serve(stream, router, connection.clone()).await;
                };
                match tokio::time::timeout(TLS_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => serve(stream, router, connection.clone()).await,
                    Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                    Err(_) => tracing::debug!("TLS handshake took too long"),
                }
            };
            tokio::select! {
                () = connection.aborted() => {}
                () = serving => {}
            }
        });
    }
}

async fn serve<S>(stream: S, router: Router, connection: Connection)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router.layer(Extension(connection)));
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the simulator ended early");
    }
}
