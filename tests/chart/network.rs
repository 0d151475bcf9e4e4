//! The NetworkPolicies: all pods are denied everything, and each is let what it needs and no more.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::programs::{objects, render, ways};

/// What gives a node's credentials to whoever asks.
const METADATA: [&str; 2] = ["169.254.169.254", "fd00:ec2::254"];

/// What gives a pod its own.
const POD_IDENTITY: [&str; 2] = ["169.254.170.23", "fd00:ec2::23"];

/// Where DNS is asked, wherever that is.
const DNS: [u16; 2] = [53, 5353];

/// Where a cache on the node is asked.
const NODE_LOCAL_DNS: &str = "169.254.20.10";

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    let all = objects.iter();
    all.filter(|object| object["kind"] == kind).collect()
}

/// The pods of Deployments and Jobs: their labels and their first container's arguments.
fn pods(objects: &[Value]) -> Vec<&Value> {
    let all = objects.iter().map(|object| &object["spec"]["template"]);
    all.filter(|template| template["spec"]["containers"].is_array())
        .collect()
}

fn selects(policy: &Value, pod: &Value) -> bool {
    let wanted = policy["spec"]["podSelector"]["matchLabels"].as_object();
    let wanted = wanted.expect("our policies select by labels");
    let labels = &pod["metadata"]["labels"];
    wanted.iter().all(|(key, value)| labels[key] == *value)
}

fn list(value: &Value) -> Vec<&Value> {
    value.as_array().into_iter().flatten().collect()
}

/// The chart with these options besides the ways to render it.
async fn rendered(more: &[&str]) -> Vec<(Vec<String>, Vec<Value>)> {
    let mut all = Vec::new();
    for mut way in ways() {
        way.extend(more.iter().map(|option| (*option).to_owned()));
        let manifest = render(&way).await;
        let manifest = manifest.unwrap_or_else(|error| panic!("{way:?}: {error:#}"));
        all.push((way, objects(&manifest)));
    }
    all
}

#[tokio::test]
async fn each_pod_is_denied_everything_and_has_one_policy_of_its_own() {
    for (way, objects) in rendered(&[]).await {
        let policies = of_kind(&objects, "NetworkPolicy");
        let pods = pods(&objects);
        assert!(pods.len() >= 2, "{way:?}: a Deployment and the drain");
        for pod in &pods {
            let own: Vec<_> = policies.iter().filter(|of| selects(of, pod)).collect();
            let denies = |policy: &&&&Value| {
                let spec = &policy["spec"];
                spec["ingress"].is_null() && spec["egress"].is_null()
            };
            assert_eq!(own.len(), 2, "{way:?}: {own:#?}");
            assert_eq!(own.iter().filter(denies).count(), 1, "{way:?}: {own:#?}");
        }
        for policy in &policies {
            let types = &policy["spec"]["policyTypes"];
            assert_eq!(*types, json!(["Ingress", "Egress"]), "{way:?}");
            let selected = pods.iter().filter(|pod| selects(policy, pod)).count();
            let name = policy["metadata"]["name"].as_str().expect("it has a name");
            let all = name.ends_with("-default-deny");
            let expected = if all { pods.len() } else { 1 };
            assert_eq!(selected, expected, "{way:?}: {name}");
        }
    }
}

#[tokio::test]
async fn clients_reach_the_ports_that_listeners_have_and_no_others() {
    let labelled = json!([{ "namespaceSelector": { "matchLabels": {
        "ssm-operator.dev/clients": "true",
    } } }]);
    let served = json!([{ "namespaceSelector": { "matchExpressions": [{
        "key": "kubernetes.io/metadata.name", "operator": "In", "values": ["shop", "bank"],
    }] } }]);
    let named = json!([{
        "namespaceSelector": { "matchLabels": { "example.com/sessions": "allowed" } },
        "podSelector": { "matchExpressions": [{ "key": "tier", "operator": "Exists" }] },
    }]);
    let everybody = json!([{ "namespaceSelector": {} }]);
    let open = "--set-json=networkPolicy.clients=[{\"namespaceSelector\":{}}]";
    let mut ways = rendered(&[]).await;
    ways.extend(rendered(&[open]).await);
    for (way, objects) in ways {
        let values = way.first().map_or("", String::as_str);
        let clients = match values {
            _ if way.iter().any(|option| option == open) => &everybody,
            _ if values.ends_with("/namespaced.yaml") => &served,
            _ if values.ends_with("/everything.yaml") => &named,
            _ => &labelled,
        };
        let mut relays = 0;
        for pod in pods(&objects) {
            let arguments = list(&pod["spec"]["containers"][0]["args"]);
            let mut arguments = arguments.iter().filter_map(|argument| argument.as_str());
            let range = arguments.find_map(|argument| argument.strip_prefix("--port-range="));
            let policies = of_kind(&objects, "NetworkPolicy");
            let policies = policies.iter().filter(|policy| selects(policy, pod));
            let rules: Vec<_> = policies
                .flat_map(|policy| list(&policy["spec"]["ingress"]))
                .collect();
            let ranges: Vec<_> = rules
                .iter()
                .filter(|rule| {
                    list(&rule["ports"])
                        .iter()
                        .any(|port| port["endPort"].is_u64())
                })
                .collect();
            let Some(range) = range else {
                assert!(ranges.is_empty(), "{way:?}: {ranges:#?}");
                continue;
            };
            relays += 1;
            let (first, last) = range.split_once('-').expect("it is a range");
            let (first, last): (u16, u16) = (
                first.parse().expect("a port"),
                last.parse().expect("a port"),
            );
            let expected = json!({
                "from": clients,
                "ports": [{ "protocol": "TCP", "port": first, "endPort": last }],
            });
            assert_eq!(ranges, [&&expected], "{way:?}");
        }
        assert_eq!(relays, 1, "{way:?}");
    }
}

/// DNS, that of a cache on the node, the API server, AWS, and the agent of Pod Identity: a rule that is lost for one of the pods is missed there.
#[tokio::test]
async fn each_pod_has_its_ways_out() {
    for mode in ["split", "all-in-one"] {
        let rendered = render(&[format!("--set=mode={mode}")]).await;
        let objects = objects(&rendered.expect("it is rendered"));
        let policies = of_kind(&objects, "NetworkPolicy");
        for pod in pods(&objects) {
            let rules = policies.iter().filter(|policy| selects(policy, pod));
            let rules = rules.flat_map(|policy| list(&policy["spec"]["egress"]));
            let ports = rules.map(|rule| {
                let ports = list(&rule["ports"]).into_iter();
                ports.filter_map(|port| port["port"].as_u64()).collect()
            });
            let ports: Vec<Vec<_>> = ports.collect();
            let mut expected = vec![vec![53, 53], vec![53, 53], vec![443, 6443]];
            if pod["metadata"]["labels"]["app.kubernetes.io/component"] != "drain" {
                expected.extend([vec![443], vec![80]]);
            }
            assert_eq!(ports, expected, "{mode}: {}", pod["metadata"]["labels"]);
        }
    }
}

#[tokio::test]
async fn nothing_comes_in_to_the_drain() {
    let further = r#"--set-json=networkPolicy.extraIngress=[{"ports":[{"port":8080}]}]"#;
    for (way, objects) in rendered(&[further]).await {
        let policies = of_kind(&objects, "NetworkPolicy");
        let mut drains = policies.iter().filter(|policy| {
            let labels = &policy["spec"]["podSelector"]["matchLabels"];
            labels["app.kubernetes.io/component"] == "drain"
        });
        let drain = drains.next().expect("it has one");
        assert_eq!(drain["spec"]["ingress"], json!([]), "{way:?}");
    }
}

#[tokio::test]
async fn nothing_goes_out_to_the_nodes_credentials_and_to_the_pods_own_by_their_rule_alone() {
    let proxied = "--set-json=proxy.url=\"http://proxy.example.com\",proxy.secret=\"\",\
                   networkPolicy.proxy.ports=[80],networkPolicy.proxy.cidrs=[\"0.0.0.0/0\",\"::/0\"]";
    let wide =
        "--set-json=networkPolicy.aws.cidrs=[\"0.0.0.0/1\",\"128.0.0.0/1\",\"::/1\",\"8000::/1\"]";
    for more in [
        &[][..],
        &[proxied],
        &[wide],
        &["--set=networkPolicy.podIdentity=false"],
    ] {
        for (way, objects) in rendered(more).await {
            let mut own = 0;
            for policy in of_kind(&objects, "NetworkPolicy") {
                for rule in list(&policy["spec"]["egress"]) {
                    for address in METADATA {
                        assert!(!lets_to(rule, address), "{way:?}: {address}: {rule:#}");
                    }
                    if POD_IDENTITY.iter().any(|address| lets_to(rule, address)) {
                        let expected = json!({
                            "to": [
                                { "ipBlock": { "cidr": "169.254.170.23/32" } },
                                { "ipBlock": { "cidr": "fd00:ec2::23/128" } },
                            ],
                            "ports": [{ "protocol": "TCP", "port": 80 }],
                        });
                        assert_eq!(*rule, expected, "{way:?}");
                        own += 1;
                    }
                }
            }
            let options = way.join(" ");
            let off = options.contains("everything") || options.contains("podIdentity=false");
            let split = !options.contains("all-in-one");
            let expected = if off { 0 } else { 1 + usize::from(split) };
            assert_eq!(
                own, expected,
                "{way:?}: of what calls AWS, not of the drain"
            );
        }
    }
}

#[tokio::test]
async fn wide_blocks_leave_out_what_aws_has_on_each_node_and_others_nothing() {
    let node = "169.254.0.0/16";
    let nodes = ["fe80::/10", "fd00:ec2::/32"];
    let table: [(&str, &[&str]); 16] = [
        ("0.0.0.0/0", &[node]),
        ("0.0.0.0/1", &[]),
        ("128.0.0.0/1", &[node]),
        ("160.0.0.0/4", &[node]),
        ("168.0.0.0/6", &[node]),
        ("172.0.0.0/6", &[]),
        ("169.254.0.0/15", &[node]),
        // Who names them means them.
        ("169.254.0.0/16", &[]),
        ("169.254.170.0/24", &[]),
        ("10.0.0.0/8", &[]),
        ("::/0", &nodes),
        ("8000::/1", &nodes),
        ("fc00::/7", &nodes[1..]),
        ("fd00:ec2::/31", &nodes[1..]),
        ("fe80::/9", &nodes[..1]),
        ("2600:1f00::/24", &[]),
    ];
    let blocks = table.map(|(block, _)| block);
    let option = format!("--set-json=networkPolicy.aws.cidrs={}", json!(blocks));
    let rendered = render(&[option]).await.expect("it is rendered");
    let objects = objects(&rendered);
    let policies = of_kind(&objects, "NetworkPolicy");
    let mut rules = policies
        .iter()
        .flat_map(|policy| list(&policy["spec"]["egress"]));
    let of_aws = rules.find(|rule| list(&rule["to"]).len() == table.len());
    let expected = table.map(|(block, except)| {
        if except.is_empty() {
            json!({ "ipBlock": { "cidr": block } })
        } else {
            json!({ "ipBlock": { "cidr": block, "except": except } })
        }
    });
    assert_eq!(of_aws.expect("it is there")["to"], json!(expected));
}

/// Whether DNS goes out to this address where the block with the longest prefix decides, be it one that a rule lets out or
/// one that a rule leaves out: so some versions of Amazon VPC CNI look it up.
fn lets_dns_to(policy: &Value, address: &str) -> bool {
    let everywhere = [json!("0.0.0.0/0"), json!("::/0")];
    let mut decisive = (0, false);
    for rule in list(&policy["spec"]["egress"]) {
        let asks = |protocol| json!({ "protocol": protocol, "port": DNS[0] });
        let ports = list(&rule["ports"]);
        let is_dns = ["UDP", "TCP"].iter().all(|of| ports.contains(&&asks(*of)));
        let peers = list(&rule["to"]);
        let own = peers.iter().map(|peer| (&peer["ipBlock"]["cidr"], is_dns));
        let others = everywhere.iter().filter(|_| peers.is_empty());
        let left_out = peers
            .iter()
            .flat_map(|peer| list(&peer["ipBlock"]["except"]));
        let blocks = own.chain(others.map(|block| (block, is_dns)));
        let blocks = blocks.chain(left_out.map(|block| (block, false)));
        for (block, is_let) in blocks {
            if block.is_string() && contains(block, address) {
                decisive = decisive.max((prefix(block), is_let));
            }
        }
    }
    decisive.1
}

/// How many bits of a block of addresses are given.
fn prefix(block: &Value) -> u32 {
    let (_, length) = block
        .as_str()
        .and_then(|block| block.split_once('/'))
        .expect("a block");
    length.parse().expect("a length")
}

#[tokio::test]
async fn a_cache_of_dns_on_the_node_is_asked_though_rules_leave_out_its_neighbours() {
    for (way, objects) in rendered(&[]).await {
        let mut pods = 0;
        for policy in of_kind(&objects, "NetworkPolicy") {
            if policy["spec"]["egress"].is_null() {
                continue;
            }
            pods += 1;
            assert!(lets_dns_to(policy, NODE_LOCAL_DNS), "{way:?}: {policy:#}");
            assert!(!lets_dns_to(policy, METADATA[0]), "{way:?}: {policy:#}");
        }
        assert!(pods >= 2, "{way:?}");
    }
    let option = r#"--set-json=networkPolicy.dns=[{"ipBlock":{"cidr":"10.0.0.10/32"}}]"#;
    for (way, objects) in rendered(&[option]).await {
        for policy in of_kind(&objects, "NetworkPolicy") {
            assert!(!lets_dns_to(policy, NODE_LOCAL_DNS), "{way:?}: {policy:#}");
        }
    }
}

/// Whether a rule lets TCP go out to this address, on other ports than those of DNS.
fn lets_to(rule: &Value, address: &str) -> bool {
    let ports = list(&rule["ports"]);
    let of_dns = |port: &&Value| DNS.iter().any(|dns| port["port"] == *dns);
    if !ports.is_empty() && ports.iter().all(of_dns) {
        return false;
    }
    let peers = list(&rule["to"]);
    // No peer means anywhere.
    peers.is_empty()
        || peers.iter().any(|peer| {
            let block = &peer["ipBlock"];
            let except = list(&block["except"]);
            !block.is_null()
                && contains(&block["cidr"], address)
                && !except.iter().any(|except| contains(except, address))
        })
}

/// Whether a block of addresses, such as `10.0.0.0/8`, has this one.
fn contains(block: &Value, address: &str) -> bool {
    let (base, _) = block
        .as_str()
        .and_then(|block| block.split_once('/'))
        .expect("a block");
    let length = prefix(block);
    let bits = |address: &str| match address.parse().expect("an address") {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let ((base, width), (address, family)) = (bits(base), bits(address));
    width == family && (base ^ address).checked_shr(width - length).unwrap_or(0) == 0
}

#[test]
fn addresses_are_in_the_blocks_that_have_them() {
    for (block, address, inside) in [
        ("0.0.0.0/0", "169.254.169.254", true),
        ("169.254.0.0/16", "169.254.169.254", true),
        ("169.255.0.0/16", "169.254.169.254", false),
        ("169.254.169.254/32", "169.254.169.254", true),
        ("169.254.169.253/32", "169.254.169.254", false),
        ("::/0", "fd00:ec2::254", true),
        ("::/0", "169.254.169.254", false),
        ("fd00:ec2::/32", "fd00:ec2::254", true),
        ("fe80::/10", "fd00:ec2::254", false),
    ] {
        assert_eq!(
            contains(&json!(block), address),
            inside,
            "{block} {address}"
        );
    }
}
