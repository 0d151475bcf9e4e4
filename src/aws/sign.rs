//! The SigV4 signature of a websocket upgrade.
//!
//! It promises to sign the URL exactly as it is given: a GET with an empty body, for the service `ssmmessages`,
//! over the Host header that a websocket client sends.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;

use super::mute::mute;
use crate::broker::{BrokerError, ErrorKind, SignedHeaders, StreamUrl};

const SERVICE: &str = "ssmmessages";
/// No call of the API, but named like one in errors.
pub(super) const OPERATION: &str = "OpenDataChannel";

/// `authorization`, `x-amz-date` and, with temporary credentials, `x-amz-security-token`.
pub(super) fn sign_upgrade(
    credentials: Credentials,
    region: &str,
    url: &StreamUrl,
    now: SystemTime,
) -> Result<SignedHeaders, BrokerError> {
    tracing::dispatcher::with_default(mute(), || {
        let identity = credentials.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(region)
            .name(SERVICE)
            .time(now)
            .settings(SigningSettings::default())
            .build()
            .map_err(|_| failed("a parameter is missing"))?
            .into();
        let host = std::iter::once(("host", url.authority()));
        let request = SignableRequest::new("GET", url.as_str(), host, SignableBody::Bytes(&[]))
            .map_err(|_| failed("the stream URL can't be signed"))?;
        let (instructions, _signature) = sign(request, &params)
            .map_err(|_| failed("the credentials can't sign"))?
            .into_parts();
        let (headers, _query) = instructions.into_parts();
        let headers = headers
            .iter()
            .map(|h| (h.name().to_owned(), h.value().into()))
            .collect();
        Ok(SignedHeaders(headers))
    })
}

/// The signer's own errors may quote what it signs.
fn failed(why: &str) -> BrokerError {
    BrokerError::new(ErrorKind::CredentialsUnavailable, OPERATION, why)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::broker::{Identity, UrlPolicy};

    const ACCESS_KEY: &str = "AKIDEXAMPLE";
    const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    /// The moment of AWS's own examples.
    fn moment() -> SystemTime {
        "2015-08-30T12:36:00Z"
            .parse::<jiff::Timestamp>()
            .unwrap()
            .into()
    }

    fn signed(url: &str, token: Option<&str>) -> Vec<(String, String)> {
        let identity = Identity {
            region: "eu-central-1".to_owned(),
            ssm_endpoint: None,
            ssmmessages_endpoint: None,
            role: None,
        };
        let url = StreamUrl::check(url, &identity, UrlPolicy::Insecure).unwrap();
        let token = token.map(str::to_owned);
        let credentials = Credentials::new(ACCESS_KEY, SECRET_KEY, token, None, "test");
        let SignedHeaders(headers) =
            sign_upgrade(credentials, "eu-central-1", &url, moment()).unwrap();
        headers
            .into_iter()
            .map(|(name, value)| (name, value.expose_secret().to_owned()))
            .collect()
    }

    fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
        headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// The expected signatures were computed by a second implementation, from AWS's description of SigV4.
    #[test]
    fn an_upgrade_is_signed_as_aws_describes_it() {
        let url = "wss://ssmmessages.eu-central-1.amazonaws.com/v1/data-channel/john-0dc5b7af96EXAMPLE\
                   ?role=publish_subscribe&cell-number=AAEH%2Fq%3D%3D";
        let headers = signed(url, Some("FQoGZXIvYXdzEXAMPLE//token=="));
        assert_eq!(header(&headers, "x-amz-date"), Some("20150830T123600Z"));
        assert_eq!(
            header(&headers, "x-amz-security-token"),
            Some("FQoGZXIvYXdzEXAMPLE//token==")
        );
        assert_eq!(
            header(&headers, "authorization"),
            Some(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/eu-central-1/ssmmessages/aws4_request, \
                 SignedHeaders=host;x-amz-date;x-amz-security-token, Signature=5a0631ee18e0158982b4fbceb1e063dbd0124be849abaa0f0e88fe269bb66781"
            )
        );
        assert_eq!(headers.len(), 3);
    }

    #[test]
    fn long_lived_credentials_and_a_port_of_its_own_are_signed_too() {
        let headers = signed("ws://127.0.0.1:8443/v1/data-channel/a%40b@c", None);
        assert_eq!(header(&headers, "x-amz-security-token"), None);
        let authorization = header(&headers, "authorization").unwrap();
        assert!(
            authorization.contains("SignedHeaders=host;x-amz-date,"),
            "{authorization}"
        );
        assert!(
            authorization
                .ends_with("de5d8f296f89aa6160416db811f054a45d32afbfdc2a4a42e5d46ce7a4f992a9"),
            "{authorization}"
        );
    }
}
