//! The way of a client's packet where no kube-proxy runs: from the Service's EndpointSlice to the relay's port.
//!
//! The API server refuses loopback addresses in a slice, so that relays on this machine advertise an address that is
//! kept for documentation. What is dialled instead is loopback, on the port that the slice says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams};

/// What relays on this machine advertise: TEST-NET-1, which is routed nowhere.
pub const ADVERTISED_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));

/// The same of the other family: the documentation prefix.
pub const ADVERTISED_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10));

/// Where a port of a Service leads to, on loopback: its ready endpoints of all slices, IPv4 first.
pub async fn endpoints(
    client: &kube::Client,
    namespace: &str,
    service: &str,
    port: &str,
) -> Result<Vec<SocketAddr>> {
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    let selector = format!("kubernetes.io/service-name={service}");
    let slices = slices
        .list(&ListParams::default().labels(&selector))
        .await
        .context("slices")?;
    let mut found = Vec::new();
    for slice in slices {
        let number = slice
            .ports
            .iter()
            .flatten()
            .find(|candidate| candidate.name.as_deref() == Some(port))
            .and_then(|candidate| candidate.port);
        let ready = slice
            .endpoints
            .iter()
            .any(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true)));
        let loopback = match slice.address_type.as_str() {
            "IPv4" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            _ => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        if let (Some(number), true) = (number, ready) {
            found.push(SocketAddr::new(loopback, u16::try_from(number)?));
        }
    }
    found.sort();
    Ok(found)
}
