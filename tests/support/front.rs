//! TLS in front of a server that has none.

#![allow(
    dead_code,
    reason = "each test program that includes this file uses a part of it"
)]

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

/// A gateway behind TLS, and who trusts its certificate.
pub struct Front {
    listener: TcpListener,
    server: Arc<ServerConfig>,
    /// Trusts it and nobody else.
    pub trusting: Arc<ClientConfig>,
    /// Its certificate, for those who trust by file.
    pub pem: String,
}

impl Front {
    /// One whose certificate is of this name.
    pub async fn named(name: &str) -> Self {
        Self::of(&[name]).await
    }

    /// One whose certificate is of these names.
    pub async fn of(names: &[&str]) -> Self {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let certified = rcgen::generate_simple_self_signed(names).expect("keys");
        let certificate = certified.cert.der().clone();
        let key = certified.signing_key.serialize_der();
        let server = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.try_into().expect("a key"))
            .expect("a configuration");
        let mut roots = RootCertStore::empty();
        roots.add(certificate).expect("a root");
        let trusting = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            listener: TcpListener::bind("127.0.0.1:0").await.expect("a port"),
            server: Arc::new(server),
            trusting: Arc::new(trusting),
            pem: certified.cert.pem(),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("an address")
    }

    /// Waits for the next who comes, instead of serving.
    pub async fn accepted(&self) -> std::io::Result<SocketAddr> {
        let (_, from) = self.listener.accept().await?;
        Ok(from)
    }

    /// Passes what comes to the gateway at `host:port`.
    pub fn serve(self, gateway: String) {
        let acceptor = TlsAcceptor::from(self.server);
        tokio::spawn(async move {
            while let Ok((connection, _)) = self.listener.accept().await {
                let (acceptor, gateway) = (acceptor.clone(), gateway.clone());
                tokio::spawn(async move {
                    let mut client = acceptor.accept(connection).await?;
                    let mut gateway = TcpStream::connect(gateway).await?;
                    copy_bidirectional(&mut client, &mut gateway).await
                });
            }
        });
    }
}
