//! With what AWS is called, and where its message gateway is.
//!
//! It promises that a gateway's host comes from the identity alone, never from an answer of AWS, and that STS is asked
//! in no other partition than the identity's.

use super::url::{HTTPS_PORT, HostPort};

/// With what AWS is called. Sessions of one identity share a poll and a rate limiter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// The Region, such as `eu-central-1`.
    pub region: String,
    /// URL of the SSM API, when it is not the Region's public one.
    pub ssm_endpoint: Option<String>,
    /// URL of the message gateway, when it is not the Region's public one.
    pub ssmmessages_endpoint: Option<String>,
    /// The role that is assumed for every call; without one the process calls with its own identity.
    pub role: Option<Role>,
}

/// A role, and how it is assumed. The ids of its sessions begin with its session name, so that a policy can say that
/// who starts a session may end it: processes and runs of processes that share sessions must have the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Role {
    /// Its ARN.
    pub arn: String,
    /// What its trust policy asks for, if it does.
    pub external_id: Option<String>,
    /// The role session name, 2..64 characters.
    pub session_name: String,
}

/// The partitions of AWS: what their Regions begin with, and the DNS suffix of their services. A Region that
/// begins with none of them is of the commercial partition.
const PARTITIONS: &[(&str, &str)] = &[
    ("cn-", "amazonaws.com.cn"),
    ("us-gov-", "amazonaws.com"),
    ("us-iso-", "c2s.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
    ("eusc-", "amazonaws.eu"),
];
const COMMERCIAL_SUFFIX: &str = "amazonaws.com";

/// Longer than any Region's name; keeps the host below the 253 characters of DNS.
const REGION_BYTES_MAX: usize = 64;

impl Identity {
    /// Host and port of the message gateway: those of the endpoint, else the Region's public ones.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the Region or the endpoint.
    pub fn ssmmessages_host(&self) -> Result<HostPort, String> {
        let Self {
            region,
            ssm_endpoint: _,
            ssmmessages_endpoint,
            role: _,
        } = self;
        match ssmmessages_endpoint {
            Some(endpoint) => host_of_endpoint(endpoint),
            None => public_gateway(region),
        }
    }

    /// Where AWS says that the message gateway of the Region is, whatever endpoint it is reached by.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the Region.
    pub(super) fn public_ssmmessages_host(&self) -> Result<HostPort, String> {
        public_gateway(&self.region)
    }

    /// The Region in which STS is asked for this identity's credentials, by a process that runs in the Region `own`.
    ///
    /// A private network has an endpoint of STS in its own Region, and seldom in each of those that it has sessions in;
    /// what STS gives in one Region is good in all of its partition, and in no other.
    #[must_use]
    pub fn sts_region<'a>(&'a self, own: Option<&'a str>) -> &'a str {
        let same = |own: &&str| {
            checked_region(own).is_ok() && partition_prefix(own) == partition_prefix(&self.region)
        };
        own.filter(same).unwrap_or(&self.region)
    }
}

fn public_gateway(region: &str) -> Result<HostPort, String> {
    let (region, suffix) = (checked_region(region)?, dns_suffix(region));
    Ok(HostPort {
        host: format!("ssmmessages.{region}.{suffix}"),
        port: HTTPS_PORT,
    })
}

fn partition(region: &str) -> Option<&'static (&'static str, &'static str)> {
    PARTITIONS
        .iter()
        .find(|(prefix, _)| region.starts_with(prefix))
}

fn dns_suffix(region: &str) -> &'static str {
    partition(region).map_or(COMMERCIAL_SUFFIX, |(_, suffix)| suffix)
}

/// Tells partitions apart, which their suffixes do not: two have the same. None is the commercial one.
fn partition_prefix(region: &str) -> Option<&'static str> {
    partition(region).map(|(prefix, _)| *prefix)
}

fn checked_region(region: &str) -> Result<&str, String> {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let sound = (1..=REGION_BYTES_MAX).contains(&region.len())
        && region.bytes().all(known)
        && !region.starts_with('-')
        && !region.ends_with('-');
    sound
        .then_some(region)
        .ok_or_else(|| format!("{region:?} is not a Region"))
}

/// An endpoint is written with or without scheme, and with nothing behind its host but a slash.
fn host_of_endpoint(endpoint: &str) -> Result<HostPort, String> {
    let schemes = ["https://", "wss://", "http://", "ws://"];
    let authority = schemes
        .iter()
        .find_map(|s| endpoint.strip_prefix(s))
        .unwrap_or(endpoint);
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    HostPort::parse(authority, HTTPS_PORT)
        .map_err(|wrong| format!("endpoint of ssmmessages: {wrong}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(region: &str, endpoint: Option<&str>) -> Result<String, String> {
        let identity = Identity {
            region: region.to_owned(),
            ssm_endpoint: Some("https://elsewhere.example".to_owned()),
            ssmmessages_endpoint: endpoint.map(str::to_owned),
            role: None,
        };
        identity
            .ssmmessages_host()
            .map(|HostPort { host, port }| format!("{host}:{port}"))
    }

    #[test]
    fn a_region_has_the_gateway_of_its_partition() {
        let regions = [
            ("eu-central-1", "ssmmessages.eu-central-1.amazonaws.com:443"),
            ("cn-north-1", "ssmmessages.cn-north-1.amazonaws.com.cn:443"),
            (
                "us-gov-west-1",
                "ssmmessages.us-gov-west-1.amazonaws.com:443",
            ),
            ("us-iso-east-1", "ssmmessages.us-iso-east-1.c2s.ic.gov:443"),
            (
                "us-isob-east-1",
                "ssmmessages.us-isob-east-1.sc2s.sgov.gov:443",
            ),
            (
                "us-isof-south-1",
                "ssmmessages.us-isof-south-1.csp.hci.ic.gov:443",
            ),
            (
                "eu-isoe-west-1",
                "ssmmessages.eu-isoe-west-1.cloud.adc-e.uk:443",
            ),
            (
                "eusc-de-east-1",
                "ssmmessages.eusc-de-east-1.amazonaws.eu:443",
            ),
        ];
        for (region, host) in regions {
            assert_eq!(gateway(region, None).as_deref(), Ok(host));
        }
    }

    #[test]
    fn sts_is_asked_in_the_process_own_region_if_that_is_in_the_identitys_partition() {
        for (region, own, asked) in [
            ("us-east-1", Some("eu-central-1"), "eu-central-1"),
            ("eu-central-1", Some("eu-central-1"), "eu-central-1"),
            ("eu-central-1", None, "eu-central-1"),
            ("cn-north-1", Some("cn-northwest-1"), "cn-northwest-1"),
            ("cn-north-1", Some("eu-central-1"), "cn-north-1"),
            ("eu-central-1", Some("cn-north-1"), "eu-central-1"),
            // Their hosts have the same suffix.
            ("us-gov-west-1", Some("us-east-1"), "us-gov-west-1"),
            ("us-east-1", Some("us-gov-west-1"), "us-east-1"),
            ("us-iso-east-1", Some("us-isob-east-1"), "us-iso-east-1"),
            // What is no Region is no host either.
            ("eu-central-1", Some(""), "eu-central-1"),
            ("eu-central-1", Some("evil.example/"), "eu-central-1"),
        ] {
            let identity = Identity {
                region: region.to_owned(),
                ssm_endpoint: None,
                ssmmessages_endpoint: None,
                role: None,
            };
            assert_eq!(identity.sts_region(own), asked, "{region} from {own:?}");
        }
    }

    #[test]
    fn an_endpoint_takes_the_place_of_the_regions_gateway() {
        let endpoints = [
            (
                "https://vpce-1.ssmmessages.eu-central-1.vpce.amazonaws.com",
                443,
            ),
            (
                "https://vpce-1.ssmmessages.eu-central-1.vpce.amazonaws.com/",
                443,
            ),
            (
                "wss://vpce-1.ssmmessages.eu-central-1.vpce.amazonaws.com:8443",
                8443,
            ),
            (
                "vpce-1.ssmmessages.eu-central-1.vpce.amazonaws.com:8443",
                8443,
            ),
        ];
        for (endpoint, port) in endpoints {
            let host = format!("vpce-1.ssmmessages.eu-central-1.vpce.amazonaws.com:{port}");
            assert_eq!(gateway("eu-central-1", Some(endpoint)), Ok(host));
        }
        assert_eq!(gateway("x", Some("ws://[::1]:9")).as_deref(), Ok("::1:9"));
    }

    #[test]
    fn what_is_no_region_or_endpoint_has_no_gateway() {
        for region in [
            "",
            "-",
            "eu.evil.example/",
            "EU-CENTRAL-1",
            "eu central",
            "eu-central-1.",
        ] {
            assert!(gateway(region, None).is_err(), "{region}");
        }
        for endpoint in [
            "",
            "https://",
            "https://a@b",
            "https://a/path",
            "ftp://a",
            "https://a:0",
            "https://a?b",
        ] {
            assert!(
                gateway("eu-central-1", Some(endpoint)).is_err(),
                "{endpoint}"
            );
        }
    }
}
