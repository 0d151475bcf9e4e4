//! Each right that the chart gives, and what needs it: a table that holds in both directions. A right that is in no row is
//! no right of the chart's, and a row's test fails when it can do without.

use std::collections::BTreeSet;
use std::fs;

use crate::audit::Request;
use crate::programs::in_checkout;
use crate::world::rendered_rights;

/// Where a right counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Where {
    /// In the operator's namespace.
    Home,
    /// In namespaces whose sessions are served.
    Watched,
    /// Everywhere.
    Everywhere,
}

use Where::{Everywhere, Home, Watched};

/// What shows that a right is needed.
#[derive(Clone, Copy, Debug)]
enum Need {
    /// The test here whose world is called so: it fails if nobody has used the right.
    World(&'static str),
    /// `tests/chart/rights.rs`, which fails when an installation leaves a right idle.
    Installed,
    /// The API server asks for it itself, while it answers another request; every test here fails without.
    Server,
    /// Only with `openshift`: its admission asks for it, which is no part of the API server that tests have.
    OpenShift,
}

use Need::{Installed, OpenShift, Server, World};

/// Component, place, verb and resource, and the need.
type Row = (&'static str, Where, &'static str, Need);

const SERVED: Need = World("main");

const TABLE: &[Row] = &[
    ("controller", Home, "get /namespaces", SERVED),
    (
        "controller",
        Home,
        "list ssm-operator.dev/ssmlisteners",
        SERVED,
    ),
    (
        "controller",
        Home,
        "watch ssm-operator.dev/ssmlisteners",
        SERVED,
    ),
    (
        "controller",
        Home,
        "create ssm-operator.dev/ssmlisteners",
        SERVED,
    ),
    (
        "controller",
        Home,
        "patch ssm-operator.dev/ssmlisteners",
        SERVED,
    ),
    (
        "controller",
        Home,
        "delete ssm-operator.dev/ssmlisteners",
        SERVED,
    ),
    ("controller", Home, "get coordination.k8s.io/leases", SERVED),
    (
        "controller",
        Home,
        "list coordination.k8s.io/leases",
        SERVED,
    ),
    (
        "controller",
        Home,
        "create coordination.k8s.io/leases",
        SERVED,
    ),
    (
        "controller",
        Home,
        "update coordination.k8s.io/leases",
        SERVED,
    ),
    (
        "controller",
        Home,
        "delete coordination.k8s.io/leases",
        Installed,
    ),
    (
        "controller",
        Home,
        "create events.k8s.io/events",
        World("gone"),
    ),
    ("controller", Watched, "get /services", SERVED),
    ("controller", Watched, "list /services", SERVED),
    ("controller", Watched, "watch /services", SERVED),
    ("controller", Watched, "create /services", SERVED),
    ("controller", Watched, "patch /services", World("added")),
    ("controller", Watched, "delete /services", SERVED),
    (
        "controller",
        Watched,
        "list discovery.k8s.io/endpointslices",
        SERVED,
    ),
    (
        "controller",
        Watched,
        "watch discovery.k8s.io/endpointslices",
        SERVED,
    ),
    // Of a patch that makes the slice.
    (
        "controller",
        Watched,
        "create discovery.k8s.io/endpointslices",
        Server,
    ),
    (
        "controller",
        Watched,
        "patch discovery.k8s.io/endpointslices",
        SERVED,
    ),
    (
        "controller",
        Watched,
        "delete discovery.k8s.io/endpointslices",
        SERVED,
    ),
    // Of a slice whose addresses are pods' own.
    (
        "controller",
        Watched,
        "create discovery.k8s.io/endpointslices/restricted",
        OpenShift,
    ),
    // Of an owner reference that holds up the deletion of the owner.
    (
        "controller",
        Watched,
        "update ssm-operator.dev/ssmsessions/finalizers",
        Server,
    ),
    ("controller", Watched, "create events.k8s.io/events", SERVED),
    (
        "controller",
        Watched,
        "patch events.k8s.io/events",
        Installed,
    ),
    (
        "controller",
        Everywhere,
        "list ssm-operator.dev/ssmsessionclasses",
        SERVED,
    ),
    (
        "controller",
        Everywhere,
        "watch ssm-operator.dev/ssmsessionclasses",
        SERVED,
    ),
    (
        "controller",
        Everywhere,
        "get apiextensions.k8s.io/customresourcedefinitions",
        SERVED,
    ),
    (
        "controller",
        Everywhere,
        "get ssm-operator.dev/ssmsessions",
        Installed,
    ),
    (
        "controller",
        Everywhere,
        "list ssm-operator.dev/ssmsessions",
        SERVED,
    ),
    (
        "controller",
        Everywhere,
        "watch ssm-operator.dev/ssmsessions",
        SERVED,
    ),
    (
        "controller",
        Everywhere,
        "patch ssm-operator.dev/ssmsessions",
        SERVED,
    ),
    (
        "controller",
        Everywhere,
        "update ssm-operator.dev/ssmsessions/status",
        SERVED,
    ),
    ("relay", Home, "get /namespaces", SERVED),
    (
        "relay",
        Home,
        "get ssm-operator.dev/ssmlisteners",
        World("too-late"),
    ),
    ("relay", Home, "list ssm-operator.dev/ssmlisteners", SERVED),
    ("relay", Home, "watch ssm-operator.dev/ssmlisteners", SERVED),
    (
        "relay",
        Home,
        "update ssm-operator.dev/ssmlisteners/status",
        SERVED,
    ),
    ("relay", Home, "get coordination.k8s.io/leases", SERVED),
    ("relay", Home, "create coordination.k8s.io/leases", SERVED),
    ("relay", Home, "update coordination.k8s.io/leases", SERVED),
];

/// The rights that the table says the world of this name needs, and that its processes have not used. Processes are named
/// by their component, and one that is all in one counts for each.
pub fn idle(world: &str, requests: &[Request]) -> Vec<&'static str> {
    let of_world = TABLE
        .iter()
        .filter(|(.., need)| matches!(need, World(name) if *name == world));
    let unused = of_world.filter(|(component, _, right, _)| {
        let is_it = |request: &&Request| {
            let by = [component, "all-in-one"];
            let by = by.iter().any(|by| request.account.ends_with(by));
            by && format!("{} {}", request.verb, request.resource) == *right
        };
        !requests.iter().any(|request| is_it(&request))
    });
    unused.map(|(_, _, right, _)| *right).collect()
}

/// A row of a world that is not there would be proved by nobody.
#[test]
fn every_world_of_the_table_is_there() {
    let files = fs::read_dir(in_checkout("tests/cluster")).expect("it is in the checkout");
    let files = files.map(|file| file.expect("it can be listed").path());
    let files = files.filter(|file| file.is_file() && !file.ends_with("rights.rs"));
    let tests: String = files
        .map(|file| fs::read_to_string(file).expect("it is text"))
        .collect();
    for (.., need) in TABLE {
        if let World(name) = need {
            let mut ways = ["new", "serving", "serving_apart"].iter();
            let made = ways.any(|way| tests.contains(&format!("World::{way}(\"{name}\"")));
            assert!(made, "no test has the world {name}");
        }
    }
}

#[tokio::test]
async fn every_right_of_the_chart_is_in_the_table_of_what_needs_it() {
    let given = rendered_rights(true).await;
    let row =
        |(component, place, right, _): &Row| ((*component).to_owned(), *place, (*right).to_owned());
    let table: BTreeSet<_> = TABLE.iter().map(row).collect();
    let unneeded: Vec<_> = given.difference(&table).collect();
    let ungiven: Vec<_> = table.difference(&given).collect();
    assert!(
        unneeded.is_empty(),
        "rights that nothing needs: {unneeded:#?}"
    );
    assert!(
        ungiven.is_empty(),
        "rights that the chart does not give: {ungiven:#?}"
    );

    let besides: BTreeSet<_> = &given - &rendered_rights(false).await;
    let of_openshift = TABLE
        .iter()
        .filter(|(.., need)| matches!(need, OpenShift))
        .map(row);
    assert_eq!(besides, of_openshift.collect());
}
