//! What the command line takes, and what it says of what it does not take.

use std::time::Duration;

use clap::CommandFactory;

use super::{Cli, Command, CommonArgs, ControllerArgs, RelayArgs};

/// `all-in-one` with what is required, and `more`.
fn all_in_one(more: &[&str]) -> Result<(CommonArgs, ControllerArgs, RelayArgs), String> {
    let required = [
        "ssm-session-operator",
        "all-in-one",
        "--namespace=ssm-system",
        "--relay-name=relay-0",
        "--advertise-address=192.0.2.1",
    ];
    let cli = Cli::try_parse_checked(required.iter().chain(more).copied());
    match cli.map_err(|error| error.to_string())?.command {
        Command::AllInOne {
            common,
            controller,
            relay,
        } => Ok((*common, controller, *relay)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_command_line_is_consistent_in_itself() {
    Cli::command().debug_assert();
}

#[test]
fn defaults_are_those_of_the_relay() {
    let (common, controller, args) = all_in_one(&[]).unwrap();
    assert_eq!(common.lease_duration, Duration::from_secs(12));
    assert_eq!(common.shutdown_deadline, Duration::from_secs(30));
    assert_eq!(common.admin_address.to_string(), "[::]:8080");
    assert_eq!(controller.poll_interval, Duration::from_secs(20));
    assert_eq!(controller.unbound_interval, Duration::from_secs(10));
    assert_eq!(args.port_range, 10240..=32767);
    assert_eq!(args.external_end_delay, Duration::from_mins(5));
    assert_eq!(
        args.listen_addresses,
        ["0.0.0.0".parse::<std::net::IpAddr>().unwrap()]
    );
    assert!(!args.insecure_stream_urls);
    assert_eq!(common.otlp_endpoint, None);
}

#[test]
fn a_collector_that_is_left_empty_is_none() {
    let (common, ..) = all_in_one(&["--otlp-endpoint="]).unwrap();
    assert_eq!(common.otlp_endpoint, None);
    let (common, ..) = all_in_one(&["--otlp-endpoint=http://collector:4318"]).unwrap();
    let url = common.otlp_endpoint.map(|url| url.to_string());
    assert_eq!(url.as_deref(), Some("http://collector:4318/"));
}

#[test]
fn durations_are_written_as_people_write_them() {
    let (common, controller, relay) = all_in_one(&[
        "--poll-interval=500ms",
        "--grace=1m30s",
        "--lease-duration=2s",
        "--lease-renew=700ms",
    ])
    .unwrap();
    assert_eq!(controller.poll_interval, Duration::from_millis(500));
    assert_eq!(controller.grace, Duration::from_secs(90));
    assert_eq!(common.lease_duration, Duration::from_secs(2));
    assert_eq!(relay.lease_renew, Duration::from_millis(700));
}

#[test]
fn a_shorter_grace_takes_shorter_calls() {
    let (common, controller, _) = all_in_one(&[
        "--poll-interval=1s",
        "--grace=5s",
        "--aws-call-timeout=3s",
        "--record-timeout=1500ms",
    ])
    .unwrap();
    assert_eq!(controller.grace, Duration::from_secs(5));
    assert_eq!(common.aws_call_timeout, Duration::from_secs(3));
    assert_eq!(common.record_timeout, Duration::from_millis(1500));
}

#[test]
fn lists_are_given_option_by_option_and_addresses_also_with_commas() {
    let (_, controller, relay) = all_in_one(&[
        "--watch-namespace=shop",
        "--watch-namespace=bank",
        "--advertise-address=2001:db8::1",
        "--listen-address=127.0.0.1",
        "--listen-address=127.0.0.2",
        "--listen-address=::1",
    ])
    .unwrap();
    assert_eq!(controller.watch_namespaces, ["shop", "bank"]);
    assert_eq!(relay.advertise_addresses.len(), 2);
    assert_eq!(relay.listen_addresses.len(), 3);

    let cli = Cli::try_parse_checked([
        "ssm-session-operator",
        "relay",
        "--namespace=a",
        "--relay-name=b",
        "--advertise-address=192.0.2.1,2001:db8::1",
    ]);
    let Command::Relay { common: _, relay } = cli.unwrap().command else {
        panic!()
    };
    assert_eq!(relay.advertise_addresses.len(), 2);
    let everywhere = ["0.0.0.0", "::"].map(|text| text.parse::<std::net::IpAddr>().unwrap());
    assert_eq!(relay.listen_addresses, everywhere);
}

#[test]
fn what_can_not_work_is_refused_with_the_reason() {
    let cases: &[(&[&str], &str)] = &[
        (
            &["--advertise-address=127.0.0.1"],
            "the API server refuses it in EndpointSlices",
        ),
        (&["--advertise-address=::1"], "loopback"),
        (&["--advertise-address=0.0.0.0"], "unspecified"),
        (&["--advertise-address=169.254.1.1"], "link-local"),
        (&["--advertise-address=fe80::1"], "link-local"),
        (&["--advertise-address=orders-db"], "no IP address"),
        (
            &["--advertise-address=192.0.2.2"],
            "one address of each family",
        ),
        (&["--lease-renew=7s"], "more than half of --lease-duration"),
        (&["--backoff-min=10m"], "above --backoff-max"),
        (&["--grace=10s"], "two polls"),
        (&["--grace=40s"], "would be swept"),
        (&["--record-timeout=5m"], "would be swept"),
        (&["--aws-call-timeout=50s"], "would be swept"),
        (
            &["--listen-address=::1"],
            "--advertise-address 192.0.2.1: no --listen-address is of its family",
        ),
        (&["--hold=-1s"], "negative"),
        (&["--hold=0s"], "longer than 0"),
        (&["--hold=10"], "not a duration"),
        (&["--port-range=10240"], "not a range"),
        (&["--port-range=0-10"], "is not a port"),
        (&["--port-range=20-70000"], "is not a port"),
        (&["--port-range=200-100"], "200 is above 100"),
        (
            &["--watch-namespace=Shop"],
            "can't name a Kubernetes object",
        ),
        (&["--capacity=0"], "0 is not in 1.."),
        (&["--log-filter=a=loudly"], "--log-filter"),
        (&["--controller-name="], "--controller-name is empty"),
        (&["--log-format=xml"], "possible values: json, text"),
        (
            &["--otlp-endpoint=collector:4318"],
            "not http:// or https://",
        ),
        (
            &["--otlp-endpoint=http://user:word@collector"],
            "without user and query",
        ),
        (
            &["--otlp-endpoint=http://collector?x=y"],
            "without user and query",
        ),
        (&["--otlp-sampling=1.1"], "from 0 to 1"),
        (&["--otlp-sampling=NaN"], "from 0 to 1"),
    ];
    for (more, words) in cases {
        let error = all_in_one(more).expect_err(&format!("{more:?}"));
        assert!(error.contains(words), "{more:?}: {error}");
    }
}

#[test]
fn a_drain_takes_what_it_needs_and_no_more() {
    let drain = |more: &[&str]| -> Result<_, String> {
        let required = ["ssm-session-operator", "drain", "--namespace=ssm-system"];
        let cli = Cli::try_parse_checked(required.iter().chain(more).copied());
        match cli.map_err(|error| error.to_string())?.command {
            Command::Drain {
                installation,
                drain,
            } => Ok((installation, drain)),
            other => panic!("{other:?}"),
        }
    };
    let (installation, args) = drain(&[]).unwrap();
    assert_eq!(installation.namespace, "ssm-system");
    let helm_waits = Duration::from_mins(5);
    assert!(args.timeout < helm_waits);
    for (more, words) in [
        ("--quiet=4m", "no drain would end well"),
        ("--controller-name=", "--controller-name is empty"),
        ("--log-filter=a=loudly", "--log-filter"),
        ("--lease-duration=12s", "unexpected argument"),
    ] {
        let error = drain(&[more]).expect_err(more);
        assert!(error.contains(words), "{more}: {error}");
    }
}

#[test]
fn an_insecure_option_calls_itself_so() {
    let mut relay = Cli::command();
    let relay = relay.find_subcommand_mut("relay").unwrap();
    let help = relay.render_long_help().to_string();
    assert!(help.contains("INSECURE"), "{help}");
}

#[test]
fn crds_need_no_cluster() {
    let cli = Cli::try_parse_checked(["ssm-session-operator", "crds", "--dir", "crds"]).unwrap();
    let Command::Crds { dir } = cli.command else {
        panic!()
    };
    assert_eq!(dir.unwrap().to_str(), Some("crds"));
}
