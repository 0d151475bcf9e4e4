//! How values of options are written: durations, port ranges, ratios, names, addresses and URLs.
//!
//! Every error is a sentence for whoever typed the option.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::Uri;
use jiff::SignedDuration;

/// A duration such as `10s`, `500ms` or `5m`; longer than nothing.
///
/// # Errors
/// A sentence for the terminal.
pub fn duration(text: &str) -> Result<Duration, String> {
    let signed: SignedDuration = text
        .parse()
        .map_err(|error| format!("not a duration such as 10s, 500ms or 5m: {error}"))?;
    let duration = Duration::try_from(signed).map_err(|_| "is negative".to_owned())?;
    if duration.is_zero() {
        Err("must be longer than 0".to_owned())
    } else {
        Ok(duration)
    }
}

/// A range of ports such as `10240-32767`, both ends included.
///
/// # Errors
/// A sentence for the terminal.
pub fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text
        .split_once('-')
        .ok_or("not a range such as 10240-32767")?;
    let port = |text: &str| {
        let port = text.trim().parse::<u16>().ok().filter(|port| *port > 0);
        port.ok_or_else(|| format!("{:?} is not a port, 1 to 65535", text.trim()))
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        Err(format!("{first} is above {last}"))
    } else {
        Ok(first..=last)
    }
}

/// The name of a Kubernetes object: a DNS subdomain.
///
/// # Errors
/// A sentence for the terminal.
pub fn object_name(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        let inner = label
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        !label.is_empty() && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    if text.len() <= 253 && text.split('.').all(label) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{text:?} can't name a Kubernetes object: use a-z, 0-9, '-' and '.'"
        ))
    }
}

/// An address that EndpointSlices may hold: the API server refuses loopback, link-local, multicast and
/// unspecified ones.
///
/// # Errors
/// A sentence for the terminal.
pub fn advertise_address(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text
        .trim()
        .parse()
        .map_err(|_| format!("{text:?} is no IP address"))?;
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let kind = if address.is_loopback() {
        "a loopback"
    } else if address.is_unspecified() {
        "the unspecified"
    } else if address.is_multicast() {
        "a multicast"
    } else if link_local {
        "a link-local"
    } else {
        return Ok(address);
    };
    Err(format!(
        "{address} is {kind} address: the API server refuses it in EndpointSlices. Give the address by which pods \
         reach this relay; what it listens on is --listen-address"
    ))
}

/// A URL that may be left empty. By this name clap takes it for one value; by its own for an option that may be missing,
/// which the environment can't say: a variable that is set to nothing is a value too.
pub type MaybeUrl = Option<Uri>;

/// The URL of a collector of traces, to which the path of traces is added; empty is none.
///
/// # Errors
/// A sentence for the terminal, without the URL: it may hold a password.
pub fn collector(text: &str) -> Result<MaybeUrl, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let url: Uri = text.parse().map_err(|error| format!("no URL: {error}"))?;
    let host = url
        .authority()
        .is_some_and(|host| !host.as_str().contains('@'));
    if !host || !matches!(url.scheme_str(), Some("http" | "https")) || url.query().is_some() {
        return Err("not http:// or https:// with a host, without user and query".to_owned());
    }
    Ok(Some(url))
}

/// A part of all, from 0 to 1.
///
/// # Errors
/// A sentence for the terminal.
pub fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text
        .parse()
        .ok()
        .filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "not a number from 0 to 1".to_owned())
}
