//! Which stream URLs are trusted with a token, and which are not.

use proptest::prelude::*;

use super::{Identity, StreamUrl, UrlPolicy};

const GATEWAY: &str = "ssmmessages.eu-central-1.amazonaws.com";
const SECRET: &str = "AAEBAgMECELL";

fn identity(endpoint: Option<&str>) -> Identity {
    Identity {
        region: "eu-central-1".to_owned(),
        ssm_endpoint: None,
        ssmmessages_endpoint: endpoint.map(str::to_owned),
        role: None,
    }
}

fn check(url: &str, policy: UrlPolicy) -> Result<StreamUrl, String> {
    StreamUrl::check(url, &identity(None), policy)
}

fn usual() -> String {
    format!(
        "wss://{GATEWAY}/v1/data-channel/john@corp-0a1b2c?role=publish_subscribe&cell-number={SECRET}%3D"
    )
}

#[test]
fn the_url_of_the_regions_gateway_is_used_verbatim() {
    for url in [
        usual(),
        format!("wss://{GATEWAY}:443/v1/data-channel/x"),
        "wss://SSMMESSAGES.eu-central-1.AmazonAWS.com/x?a=b%2F..//&&@".to_owned(),
    ] {
        let checked = check(&url, UrlPolicy::Strict).unwrap();
        assert_eq!(checked.as_str(), url);
        assert_eq!(checked.host().to_lowercase(), GATEWAY);
        assert_eq!((checked.port(), checked.tls()), (443, true));
    }
}

#[test]
fn the_endpoint_of_the_class_takes_the_place_of_the_regions_gateway() {
    let by = |endpoint: &str, url: &str| {
        let checked = StreamUrl::check(url, &identity(Some(endpoint)), UrlPolicy::Strict);
        checked.map(|checked| checked.as_str().to_owned())
    };
    let session = "/v1/data-channel/john@corp-0a1b2c?role=publish_subscribe&cell-number=AAEB%3D";
    let of_aws = format!("wss://{GATEWAY}{session}");
    for (endpoint, expected) in [
        ("https://vpce-1.example.com", "wss://vpce-1.example.com"),
        (
            "https://vpce-1.example.com:8443",
            "wss://vpce-1.example.com:8443",
        ),
        ("https://[fd00::1]:8443", "wss://[fd00::1]:8443"),
    ] {
        let expected = format!("{expected}{session}");
        // As AWS writes it, in a case of its own, and by the endpoint already.
        let shouted = of_aws.replace(GATEWAY, &GATEWAY.to_uppercase());
        for url in [&of_aws, &shouted, &expected] {
            assert_eq!(by(endpoint, url).as_deref(), Ok(expected.as_str()));
        }
    }
    for url in [
        "wss://vpce-2.example.com:8443/x".to_owned(),
        "wss://vpce-1.example.com/x".to_owned(),
        format!("wss://{GATEWAY}:8443/x"),
        "wss://ssmmessages.eu-west-1.amazonaws.com/x".to_owned(),
        format!("ws://{GATEWAY}/x"),
    ] {
        let refused = by("https://vpce-1.example.com:8443", &url);
        assert!(refused.is_err(), "{refused:?}");
    }
}

/// Each is refused under every policy: no two parsers must read it in two ways.
#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let evil = "evil.example";
    let urls = [
        String::new(),
        "wss://".to_owned(),
        "wss:///v1".to_owned(),
        format!("wss:/{GATEWAY}/v1"),
        format!("wss:{GATEWAY}/v1"),
        format!("//{GATEWAY}/v1"),
        format!("WSS://{GATEWAY}/v1"),
        format!("https://{GATEWAY}/v1"),
        format!("wss://{GATEWAY}"),
        format!("wss://{GATEWAY}?x"),
        format!("wss://{GATEWAY}#/v1"),
        format!(" wss://{GATEWAY}/v1"),
        format!("wss://{GATEWAY}/v1 "),
        format!("wss://{GATEWAY}/v1\r\nHost: {evil}"),
        format!("wss://{GATEWAY}\t/v1"),
        format!("wss://{GATEWAY}./v1"),
        format!("wss://.{GATEWAY}/v1"),
        format!("wss://{GATEWAY}:/v1"),
        format!("wss://{GATEWAY}:0/v1"),
        format!("wss://{GATEWAY}:0443/v1"),
        format!("wss://{GATEWAY}:+443/v1"),
        format!("wss://{GATEWAY}:65979/v1"),
        format!("wss://{GATEWAY}:443:443/v1"),
        format!("wss://user:{SECRET}@{GATEWAY}/v1"),
        format!("wss://{GATEWAY}@{evil}/v1"),
        format!("wss://{GATEWAY}:443@{evil}/v1"),
        format!("wss://{evil}\\@{GATEWAY}/v1"),
        format!("wss://{evil}\\.{GATEWAY}/v1"),
        format!("wss://{GATEWAY}\\{evil}/v1"),
        format!("wss://{evil}#@{GATEWAY}/v1"),
        format!("wss://{evil}%2F.{GATEWAY}/v1"),
        "wss://ssmmessages%2Eeu-central-1.amazonaws.com/v1".to_owned(),
        "wss://ssmmessages.eu-central-1.amazonaws\u{3002}com/v1".to_owned(),
        "wss://ſsmmessages.eu-central-1.amazonaws.com/v1".to_owned(),
        format!("wss://{GATEWAY}/v1/{{}}"),
        format!("wss://{GATEWAY}/v1\0"),
        format!("wss://{GATEWAY}/{}", "x".repeat(4096)),
        "wss://[::1/v1".to_owned(),
        "wss://[::1]x/v1".to_owned(),
        "wss://[::1%25eth0]/v1".to_owned(),
        "wss://[fe80::1]]/v1".to_owned(),
        format!("wss://[{GATEWAY}]/v1"),
        "wss://::1/v1".to_owned(),
        "wss://127.1/v1".to_owned(),
        "wss://2130706433/v1".to_owned(),
        "wss://0x7f000001/v1".to_owned(),
        "wss://-a.example/v1".to_owned(),
        "wss://a_b.example/v1".to_owned(),
    ];
    for url in urls {
        for policy in [UrlPolicy::Strict, UrlPolicy::Insecure] {
            let refused = check(&url, policy).expect_err(&url);
            assert!(
                !refused.contains(SECRET) && !refused.contains("/v1"),
                "{refused}"
            );
        }
    }
}

#[test]
fn hosts_that_are_not_the_gateway_are_refused_with_a_sentence_that_names_them() {
    for host in [
        "evil.example",
        "ssmmessages.eu-west-1.amazonaws.com",
        "ssmmessages.eu-central-1.amazonaws.com.evil.example",
        "evil-ssmmessages.eu-central-1.amazonaws.com",
        "ssmmessages.eu-central-1.amazonaws.com:8443",
        "127.0.0.1:443",
        "[::1]:443",
    ] {
        let url = format!("wss://{host}/v1/data-channel/x?cell-number={SECRET}");
        let refused = check(&url, UrlPolicy::Strict).expect_err(host);
        let named = host
            .trim_start_matches('[')
            .split([']', ':'])
            .next()
            .unwrap();
        assert!(
            refused.contains(named) && refused.contains(GATEWAY),
            "{refused}"
        );
        assert!(
            !refused.contains(SECRET) && !refused.contains("data-channel"),
            "{refused}"
        );
    }
    assert!(
        check(&usual().replace("wss", "ws"), UrlPolicy::Strict)
            .unwrap_err()
            .contains("wss")
    );
}

#[test]
fn an_identity_without_a_gateway_trusts_no_url() {
    let mut nowhere = identity(None);
    nowhere.region = "eu-central-1.amazonaws.com/".to_owned();
    assert!(StreamUrl::check(&usual(), &nowhere, UrlPolicy::Strict).is_err());
}

#[test]
fn insecure_takes_any_plain_host_with_or_without_tls() {
    for (url, host, port, tls) in [
        (
            "ws://127.0.0.1:8080/v1/data-channel/x?token=no",
            "127.0.0.1",
            8080,
            false,
        ),
        ("ws://simulator/v1", "simulator", 80, false),
        ("wss://[::1]:9/v1", "::1", 9, true),
        ("wss://[::1]/v1", "::1", 443, true),
    ] {
        let checked = check(url, UrlPolicy::Insecure).unwrap();
        assert_eq!(
            (checked.host(), checked.port(), checked.tls()),
            (host, port, tls)
        );
    }
}

#[test]
fn a_stream_url_prints_without_path_and_query() {
    let printed = format!("{:?}", check(&usual(), UrlPolicy::Strict).unwrap());
    assert_eq!(printed, format!("wss://{GATEWAY}/[redacted]"));
}

proptest! {
    /// Whatever is put anywhere into a good URL: if it is still trusted, then the websocket client's parser
    /// leads to the gateway and to nothing else.
    #[test]
    fn a_trusted_url_leads_to_the_gateway(at in 0_usize..60, put in "[\\x00-\\x7f]{0,3}|\\PC{1,2}", cut in 0_usize..3) {
        let mut url = usual();
        let end = (at + cut).min(url.len());
        url.replace_range(at..end, &put);
        if let Ok(checked) = check(&url, UrlPolicy::Strict) {
            let uri: http::Uri = checked.as_str().parse().unwrap();
            prop_assert_eq!(uri.host().unwrap().to_lowercase(), GATEWAY);
            prop_assert_eq!(uri.port_u16().unwrap_or(443), 443);
            prop_assert_eq!(uri.authority().unwrap().as_str(), checked.authority());
            prop_assert_eq!(checked.as_str(), url);
        }
    }

    #[test]
    fn checking_never_panics_and_trusts_no_random_text(url in any::<String>()) {
        prop_assert!(check(&url, UrlPolicy::Strict).is_err());
        let _ = check(&format!("wss://{url}"), UrlPolicy::Insecure);
        let _ = check(&format!("wss://[{url}"), UrlPolicy::Insecure);
    }
}
