//! Which way a connection takes, what a proxy is asked, and what its answers become.

use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::*;

fn tls() -> Arc<ClientConfig> {
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty());
    Arc::new(config.with_no_client_auth())
}

fn read(variables: &[(&str, &str)]) -> Result<Proxies, NoProxyUrl> {
    let find = |name: &str| variables.iter().find(|(variable, _)| *variable == name);
    Proxies::read(|name| Some(find(name)?.1.to_owned()), tls())
}

fn proxies(variables: &[(&str, &str)]) -> Proxies {
    read(variables).unwrap()
}

/// Where a connection to a URL goes first; `direct` without a proxy.
fn way(proxies: &Proxies, url: &str) -> String {
    let proxy = proxies.of(&url.parse().unwrap());
    proxy.map_or_else(|| "direct".to_owned(), |proxy| proxy.to_string())
}

#[test]
fn each_scheme_has_its_proxy_and_a_variable_either_case() {
    let both = [
        ("HTTPS_PROXY", "http://a.test:1"),
        ("http_proxy", "b.test:2"),
    ];
    assert_eq!(way(&proxies(&both), "https://ssm.test"), "a.test:1");
    assert_eq!(way(&proxies(&both), "http://ssm.test"), "b.test:2");
    let upper_first = [
        ("https_proxy", "http://a.test:1"),
        ("HTTPS_PROXY", "http://b.test:2"),
    ];
    assert_eq!(way(&proxies(&upper_first), "https://ssm.test"), "b.test:2");
    let empty = [("HTTPS_PROXY", " "), ("https_proxy", "http://a.test:1")];
    assert_eq!(way(&proxies(&empty), "https://ssm.test"), "a.test:1");
    assert_eq!(way(&proxies(&empty), "http://ssm.test"), "direct");
    assert_eq!(way(&proxies(&[]), "https://ssm.test"), "direct");
    assert!(proxies(&[("NO_PROXY", "ssm.test")]).is_empty());
}

#[test]
fn what_no_proxy_names_is_reached_directly() {
    let table = [
        ("ssm.test", "ssm.test", true),
        ("ssm.test", "a.ssm.test", true),
        ("ssm.test", "xssm.test", false),
        (".ssm.test", "a.ssm.test", true),
        ("a.test, ssm.test", "SSM.TEST", true),
        ("*", "ssm.test", true),
        ("a.test, *", "10.1.2.3", true),
        ("*.ssm.test", "a.ssm.test", true),
        ("*.ssm.test", "ssm.test", true),
        ("*.ssm.test", "xssm.test", false),
        ("ssm.test:443", "a.ssm.test", true),
        ("ssm.test:8443", "ssm.test", false),
        ("http://ssm.test", "ssm.test", false),
        ("10.0.0.0/8", "10.1.2.3", true),
        ("10.0.0.0/8", "11.1.2.3", false),
        ("10.1.2.3", "10.1.2.3", true),
        ("fd00:1::/32", "[fd00:1::5]", true),
        ("fd00:1::/32", "[fd00:2::5]", false),
    ];
    for (no, host, direct) in table {
        let proxies = proxies(&[("HTTPS_PROXY", "http://proxy.test:1"), ("no_proxy", no)]);
        let way = way(&proxies, &format!("https://{host}:443/"));
        assert_eq!(way == "direct", direct, "{no} {host}");
        assert_eq!(proxies.to(&format!("{host}:443"), true).is_none(), direct);
    }
}

#[test]
fn addresses_of_the_pod_and_of_its_node_never_take_a_proxy() {
    let proxies = proxies(&[("HTTP_PROXY", "http://proxy.test:1"), ("NO_PROXY", ".svc")]);
    for near in [
        "http://169.254.169.254/latest/meta-data",
        "http://169.254.170.2/v2/credentials",
        "http://169.254.170.23/v1/credentials",
        "http://[fd00:ec2::23]/v1/credentials",
        "http://[fd00:ec2::254]/latest",
        "http://[fe80::1]/",
        "http://localhost:1338/",
        "http://LocalHost./",
        "http://127.0.0.1/",
        "http://127.1.2.3:8080/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:169.254.169.254]/",
    ] {
        assert_eq!(way(&proxies, near), "direct", "{near}");
    }
    for far in ["[fd00:ec3::1]", "localhost.test", "128.0.0.1", "[::2]"] {
        assert_eq!(
            way(&proxies, &format!("http://{far}/")),
            "proxy.test:1",
            "{far}"
        );
    }
}

#[test]
fn user_and_password_are_never_printed() {
    let proxies = proxies(&[
        ("HTTPS_PROXY", "http://uSeR:pAsS%40wOrD@proxy.test:3128"),
        ("HTTP_PROXY", "https://proxy.test"),
        ("NO_PROXY", ".svc"),
    ]);
    let proxy = proxies.to("ssm.test", true).unwrap();
    let debug = format!("{proxies:?} {proxy:?} {proxy}");
    assert!(
        !debug.contains("uSeR") && !debug.contains("pAsS"),
        "{debug}"
    );
    assert!(!debug.contains("dVNlU"), "{debug}");
    assert_eq!(
        proxies.to_string(),
        "HTTPS_PROXY=http://[redacted]@proxy.test:3128 HTTP_PROXY=https://proxy.test NO_PROXY=.svc"
    );
}

#[test]
fn what_is_no_proxy_is_refused_without_being_repeated() {
    for wrong in [
        "socks5://uSeR:pAsS@proxy.test:1080",
        "http://uSeR:pAsS wOrD@proxy.test",
        "http://uSeR:pA@sS@proxy.test",
        "http://",
        "/pAsS",
        "http://uSeR:pAsS@proxy.test:31280000",
        "http://proxy.test:",
    ] {
        let error = read(&[("https_proxy", wrong)]).unwrap_err().to_string();
        assert!(error.starts_with("HTTPS_PROXY is no URL"), "{error}");
        assert!(
            !error.contains("pAsS") && !error.contains("uSeR"),
            "{error}"
        );
    }
}

/// What comes to a proxy, which answers each request with `answer` and sends back what comes after.
async fn serve(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let (mut client, mut head) = (BufReader::new(client), String::new());
        while !head.ends_with("\r\n\r\n") {
            client.read_line(&mut head).await.unwrap();
        }
        client.write_all(answer.as_bytes()).await.unwrap();
        let mut client: TcpStream = client.into_inner();
        let (mut reader, mut writer) = client.split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
        head
    });
    (address, serving)
}

async fn connect(url: &str) -> Result<Carrier, ConnectError> {
    let proxy = proxies(&[("HTTPS_PROXY", url)]).to("ssm.test", true);
    proxy.unwrap().connect("ssm.test", 443).await
}

#[tokio::test]
async fn a_tunnel_is_asked_for_by_host_and_port_and_carries_bytes() {
    let (address, serving) = serve("HTTP/1.1 200 Connection established\r\n\r\n").await;
    let url = format!("http://user:p%40ss@{address}");
    let carrier = connect(&url).await.unwrap();
    let mut carrier = hyper_util::rt::TokioIo::new(carrier);
    carrier.write_all(b"hello").await.unwrap();
    let mut echoed = [0; 5];
    carrier.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"hello");
    drop(carrier);
    let head = serving.await.unwrap().to_lowercase();
    assert!(
        head.starts_with("connect ssm.test:443 http/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\nhost: ssm.test:443\r\n"), "{head}");
    // Of `user:p@ss`.
    let authorization = "\r\nproxy-authorization: basic dxnlcjpwqhnz\r\n";
    assert!(head.contains(authorization), "{head}");
}

#[tokio::test]
async fn a_refusal_names_proxy_destination_and_status() {
    let table = [
        ("HTTP/1.1 403 Forbidden", "403 Forbidden; it does not allow"),
        (
            "HTTP/1.1 407 Who?",
            "407 Proxy Authentication Required; its URL has no",
        ),
        ("HTTP/1.0 502 Bad", "502 Bad Gateway; it can't reach it"),
        (
            "HTTP/1.1 302 Found\r\nlocation: http://login.test",
            "302 Found",
        ),
    ];
    for (answer, words) in table {
        let answer = format!("{answer}\r\ncontent-length: 6\r\n\r\nSECRET");
        let (address, serving) = serve(Box::leak(answer.into_boxed_str())).await;
        let error = connect(&format!("http://{address}")).await.unwrap_err();
        let expected =
            format!("the proxy {address} does not connect to ssm.test:443: HTTP status {words}");
        assert!(error.to_string().starts_with(&expected), "{error}");
        assert!(!error.to_string().contains("SECRET"), "{error}");
        serving.await.unwrap();
    }
}

#[tokio::test]
async fn a_refused_password_is_told_from_a_missing_one() {
    let (address, _serving) = serve("HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n").await;
    let error = connect(&format!("http://uSeR:pAsS@{address}")).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("does not accept the user and password"),
        "{error}"
    );
    assert!(
        !error.contains("uSeR") && !error.contains("pAsS"),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_no_answer_of_a_proxy_is_an_error() {
    let greeting = "HTTP/1.1 200 OK\r\n\r\nSSH-2.0-OpenSSH";
    for answer in [greeting, "SSH-2.0-OpenSSH\r\n\r\n"] {
        let (address, _serving) = serve(answer).await;
        let error = connect(&format!("http://{address}")).await.unwrap_err();
        assert!(matches!(error, ConnectError::Broken { .. }), "{error}");
    }
    let (address, serving) = serve("").await;
    serving.abort();
    let error = connect(&format!("http://{address}")).await.unwrap_err();
    assert!(error.to_string().contains(&address), "{error}");
}

#[tokio::test]
async fn a_proxy_that_is_away_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = connect(&format!("http://{address}")).await.unwrap_err();
    let expected = format!("the proxy {address} can't be connected to: ");
    assert!(error.to_string().starts_with(&expected), "{error}");
}

#[tokio::test]
async fn a_proxy_that_never_answers_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connecting = tokio::spawn(async move { connect(&format!("http://{address}")).await });
    let (mut client, _) = listener.accept().await.unwrap();
    // Asked by now: what is left is to wait, and on virtual time.
    client.read_u8().await.unwrap();
    tokio::time::pause();
    let error = connecting.await.unwrap().unwrap_err();
    let late = format!("the proxy {address} did not connect to ssm.test:443 within 6s");
    assert_eq!(error.to_string(), late);
}
