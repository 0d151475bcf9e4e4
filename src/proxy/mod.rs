//! Which connections to AWS go through an HTTP proxy, and the way through it.
//!
//! One set of rules for the SDK and for websockets, read from the environment as other programs read it. It promises
//! that loopback and link-local addresses, at which nodes and pods get credentials, never take a proxy; that every proxied
//! connection is a tunnel made by CONNECT, so that the proxy sees a host and a port and no more; and that the proxy's
//! user and password are never printed.

mod connect;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::Uri;
use http::uri::Authority;
use hyper_util::client::proxy::matcher::Matcher;
use tokio_rustls::rustls::ClientConfig;

pub use connect::{Carrier, ConnectError, Proxy};

/// `HTTPS_PROXY` counts for `https://` and `wss://`, `HTTP_PROXY` for `http://` and `ws://`, and what `NO_PROXY` names
/// is connected to directly. Each is read in lower case too; the upper case comes first.
const VARIABLES: [&str; 3] = ["HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"];

/// The proxies of this process, if there are any.
#[derive(Clone, Default)]
pub struct Proxies(Option<Arc<Rules>>);

struct Rules {
    matcher: Matcher,
    tls: Arc<ClientConfig>,
    /// For logs: each variable that is set, without users and passwords.
    said: Vec<String>,
}

/// A variable that names no proxy. Its value may hold a password and is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} is no URL of a proxy, http://host:port or https://host:port; in its user and password all but letters and \
     digits has to be percent-encoded"
)]
pub struct NoProxyUrl(&'static str);

impl Proxies {
    /// The proxies that the variables name. `tls` is for connections to proxies by `https://`, and for those through
    /// any proxy to AWS.
    ///
    /// # Errors
    /// A variable that is set and names no proxy.
    pub fn read(
        variable: impl Fn(&str) -> Option<String>,
        tls: Arc<ClientConfig>,
    ) -> Result<Self, NoProxyUrl> {
        let value = |name: &str| {
            let given = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
            let value = given(name).or_else(|| given(&name.to_lowercase()));
            value.map(|value| value.trim().to_owned())
        };
        let [https_name, http_name, no_name] = VARIABLES;
        let (https, http, no) = (value(https_name), value(http_name), value(no_name));
        let no = no.map(|no| {
            no.split(',')
                .filter_map(entry)
                .collect::<Vec<_>>()
                .join(",")
        });
        let everything = no.iter().any(|no| no.split(',').any(|entry| entry == "*"));
        if everything || (https.is_none() && http.is_none()) {
            return Ok(Self::default());
        }
        let mut said = Vec::new();
        for (name, url) in [(https_name, &https), (http_name, &http)] {
            if let Some(url) = url {
                said.push(format!("{name}={}", shown(url).ok_or(NoProxyUrl(name))?));
            }
        }
        said.extend(no.iter().map(|no| format!("{no_name}={no}")));
        let matcher = Matcher::builder()
            .https(https.unwrap_or_default())
            .http(http.unwrap_or_default())
            .no(no.unwrap_or_default())
            .build();
        Ok(Self(Some(Arc::new(Rules { matcher, tls, said }))))
    }

    /// Whether no connection takes a proxy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The proxy for a connection to the host of an `http://` or `https://` URL.
    #[must_use]
    pub fn of(&self, url: &Uri) -> Option<Proxy> {
        let rules = self.0.as_ref()?;
        if url.host().is_none_or(is_near) {
            return None;
        }
        let way = rules.matcher.intercept(url)?;
        Proxy::new(&way, rules.tls.clone())
    }

    /// The proxy for a connection to `authority`, by TLS or not.
    #[must_use]
    pub fn to(&self, authority: &str, tls: bool) -> Option<Proxy> {
        let url = Uri::builder()
            .scheme(if tls { "https" } else { "http" })
            .authority(authority)
            .path_and_query("/")
            .build();
        self.of(&url.ok()?)
    }

    /// TLS through the proxies; `None` when there are none.
    #[must_use]
    pub fn tls(&self) -> Option<Arc<ClientConfig>> {
        Some(self.0.as_ref()?.tls.clone())
    }
}

/// What is set, for logs; users and passwords are left out.
impl fmt::Display for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(rules) => f.write_str(&rules.said.join(" ")),
            None => f.write_str("none"),
        }
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxies({self})")
    }
}

/// An entry of `NO_PROXY` in the only spelling that the matcher knows: `*.example.com` is `.example.com`, and the port that
/// is AWS's is left out of `host:443`. What is for another port says nothing of AWS, and an URL is no entry.
fn entry(entry: &str) -> Option<&str> {
    let entry = entry.trim();
    let entry = entry
        .strip_prefix('*')
        .filter(|rest| rest.starts_with('.'))
        .unwrap_or(entry);
    // More than one colon is an address.
    let host = match entry.split_once(':') {
        Some((host, "443" | "80")) => host,
        Some((_, port)) if !port.contains(':') => return None,
        Some(_) | None => entry,
    };
    (!host.is_empty()).then_some(host)
}

/// A proxy's URL without user and password, if it is one.
fn shown(url: &str) -> Option<String> {
    let url: Uri = url.parse().ok()?;
    let scheme = url.scheme_str().unwrap_or("http");
    let authority: &Authority = url.authority()?;
    // With two of them, who reads it decides which one ends the password.
    let sound = matches!(scheme, "http" | "https")
        && authority.as_str().matches('@').count() <= 1
        && !authority.host().is_empty()
        // A port that is none would be taken for that of the scheme.
        && (authority.port_u16().is_some() || authority.as_str().ends_with(authority.host()));
    let (host, user) = (authority.host(), authority.as_str().contains('@'));
    let port = authority
        .port_u16()
        .map_or(String::new(), |port| format!(":{port}"));
    let redacted = if user { "[redacted]@" } else { "" };
    sound.then(|| format!("{scheme}://{redacted}{host}{port}"))
}

/// Whether a host is the pod's own or its node's: a sidecar, the node's metadata, the agent of EKS Pod Identity and that of
/// ECS. They give credentials to who asks, and a proxy would get its own or nobody's.
fn is_near(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse().map(|address: IpAddr| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => {
            address.is_loopback()
                || address.is_unicast_link_local()
                || address.segments()[..2] == [0xfd00, 0x0ec2]
        }
        Err(_) => bare.trim_end_matches('.').eq_ignore_ascii_case("localhost"),
    }
}
