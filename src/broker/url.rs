//! Stream URLs: checked before a token goes there, then used as AWS gave them. Where a class has an endpoint of its own for
//! the message gateway, that takes the place of the host.
//!
//! It promises that the authority it checked is the one that a client connects to. The grammar is therefore
//! narrower than that of URLs: what two parsers could read in two ways is refused, and what is left is read a
//! second time by the parser that the websocket client uses. No error holds a path or a query.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::Identity;

/// The port of `https://` and `wss://`.
pub(super) const HTTPS_PORT: u16 = 443;
const HTTP_PORT: u16 = 80;

/// Several times the longest stream URL seen; AWS documents no maximum.
const URL_BYTES_MAX: usize = 4096;
const HOST_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// Which stream URLs are trusted with a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UrlPolicy {
    /// `wss://` on the host of the identity's message gateway only.
    #[default]
    Strict,
    /// Any host, also without TLS: for the simulator, on loopback.
    Insecure,
}

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A DNS name or an IP address, IPv6 without its brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl HostPort {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`; without a port it is `default_port`.
    pub(super) fn parse(authority: &str, default_port: u16) -> Result<Self, &'static str> {
        let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
            let (address, port) = rest
                .split_once(']')
                .ok_or("an IPv6 address without its end")?;
            address
                .parse::<Ipv6Addr>()
                .map_err(|_| "an IPv6 address that is none")?;
            (address, port)
        } else {
            let (name, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            check_name(name)?;
            (name, port)
        };
        let port = match port.strip_prefix(':') {
            Some(digits) => parse_port(digits)?,
            None if port.is_empty() => default_port,
            None => return Err("something behind the host that is no port"),
        };
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }

    /// Whether both are the same place; DNS names have no case.
    fn is(&self, other: &Self) -> bool {
        self.host.eq_ignore_ascii_case(&other.host) && self.port == other.port
    }
}

/// As URLs write it; the port of `https://` and `wss://` is left out.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]")?;
        } else {
            f.write_str(host)?;
        }
        if *port == HTTPS_PORT {
            return Ok(());
        }
        write!(f, ":{port}")
    }
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > HOST_BYTES_MAX {
        return Err("a host of no or too many characters");
    }
    let known = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let sound = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(known)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !name.split('.').all(sound) {
        return Err("a host that is no plain DNS name");
    }
    // Resolvers read `127.1` and `0x7f000001` as addresses too; only the one usual form is let through.
    let last = name.rsplit('.').next().unwrap_or(name);
    if last.starts_with(|c: char| c.is_ascii_digit()) && name.parse::<Ipv4Addr>().is_err() {
        return Err("a host that is neither a DNS name nor an IP address");
    }
    Ok(())
}

fn parse_port(digits: &str) -> Result<u16, &'static str> {
    let usual = !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    digits
        .parse()
        .ok()
        .filter(|_| usual)
        .ok_or("a port that is none")
}

/// A checked stream URL, with path and query as AWS gave them.
#[derive(Clone, PartialEq, Eq)]
pub struct StreamUrl {
    url: String,
    authority_end: usize,
    at: HostPort,
    tls: bool,
}

const WSS: &str = "wss://";
const WS: &str = "ws://";

impl StreamUrl {
    /// Checks scheme, host and port.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the URL, without its path and query.
    pub fn check(url: &str, identity: &Identity, policy: UrlPolicy) -> Result<Self, String> {
        let url = Self::read(url).map_err(|wrong| format!("the stream URL has {wrong}"))?;
        match policy {
            UrlPolicy::Insecure => Ok(url),
            UrlPolicy::Strict => {
                if !url.tls {
                    return Err("the stream URL is not wss://".to_owned());
                }
                let gateway = identity.ssmmessages_host()?;
                if url.at.is(&gateway) {
                    return Ok(url);
                }
                let (HostPort { host, port }, expected) = (&url.at, &gateway);
                if url.at.is(&identity.public_ssmmessages_host()?) {
                    return url.by(&gateway);
                }
                Err(format!(
                    "the stream URL leads to {host}:{port}, not to the message gateway {}:{}; if it is meant, set the \
                     ssmmessages endpoint",
                    expected.host, expected.port
                ))
            }
        }
    }

    /// The same by the endpoint of the class: AWS names the gateway of its Region also to those who reach that by an
    /// interface endpoint only. Path and query are the session's own, and stay.
    fn by(self, endpoint: &HostPort) -> Result<Self, String> {
        let rest = &self.url[self.authority_end..];
        Self::read(&format!("{WSS}{endpoint}{rest}"))
            .map_err(|wrong| format!("by the ssmmessages endpoint, the stream URL has {wrong}"))
    }

    fn read(url: &str) -> Result<Self, &'static str> {
        if url.len() > URL_BYTES_MAX {
            return Err("more characters than any of AWS");
        }
        if url
            .bytes()
            .any(|b| !b.is_ascii_graphic() || br#"\#"<>^`{|}"#.contains(&b))
        {
            return Err("a character that does not belong there");
        }
        let (tls, scheme) = match (url.strip_prefix(WSS), url.strip_prefix(WS)) {
            (Some(_), _) => (true, WSS),
            (None, Some(_)) => (false, WS),
            (None, None) => return Err("another scheme than wss"),
        };
        let rest = &url[scheme.len()..];
        let end = rest.find(['/', '?']).ok_or("no path")?;
        if rest.as_bytes()[end] != b'/' {
            return Err("no path");
        }
        let at = HostPort::parse(&rest[..end], if tls { HTTPS_PORT } else { HTTP_PORT })?;
        let read = Self {
            url: url.to_owned(),
            authority_end: scheme.len() + end,
            at,
            tls,
        };
        read.reads_the_same_elsewhere()
            .then_some(read)
            .ok_or("two readings")
    }

    /// Whether the websocket client's own parser finds the same authority.
    fn reads_the_same_elsewhere(&self) -> bool {
        self.url.parse::<http::Uri>().is_ok_and(|uri| {
            let authority = uri.authority().map(http::uri::Authority::as_str);
            let bare = uri
                .host()
                .map(|host| host.trim_start_matches('[').trim_end_matches(']'));
            uri.scheme_str() == Some(if self.tls { "wss" } else { "ws" })
                && authority == Some(self.authority())
                && bare == Some(self.at.host.as_str())
                && uri.port_u16().is_none_or(|port| port == self.at.port)
        })
    }

    /// The URL to connect to. Its query may identify the session: it is not for logs.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// Host and port as the URL writes them: what the Host header says.
    #[must_use]
    pub fn authority(&self) -> &str {
        let scheme = if self.tls { WSS } else { WS };
        &self.url[scheme.len()..self.authority_end]
    }

    /// The host to connect to, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.at.host
    }

    /// The TCP port to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.at.port
    }

    /// Whether the connection is `wss://`.
    #[must_use]
    pub fn tls(&self) -> bool {
        self.tls
    }
}

impl fmt::Debug for StreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { WSS } else { WS };
        write!(f, "{scheme}{}/[redacted]", self.authority())
    }
}
