//! The Helm chart: what it renders is accepted, is what its values say, and carries bytes with no right too many.
//!
//! helm and kube-score are built as the test control plane is, once, into the same cache, and promtool is fetched there.
#![allow(clippy::expect_used, clippy::panic, reason = "so does a test fail")]

#[path = "../support/audit.rs"]
mod audit;
#[path = "../support/control_plane/mod.rs"]
mod control_plane;
#[path = "../support/dial.rs"]
mod dial;
#[path = "../support/front.rs"]
mod front;
#[path = "../support/http.rs"]
mod http;
#[path = "../support/proxy.rs"]
mod http_proxy;
#[path = "../support/iam.rs"]
mod iam;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/programs.rs"]
mod programs;
#[path = "../support/served.rs"]
mod served;
#[path = "../support/transfer.rs"]
mod transfer;
#[path = "../support/wait.rs"]
mod wait;

mod alerts;
mod aws;
mod beside;
mod counts;
mod documented;
mod eks;
mod everything;
mod ground;
mod identities;
mod installed;
mod kubelet;
mod metrics;
mod names;
mod namespaces;
mod network;
mod notes;
mod past;
mod people;
mod pods;
mod policies;
mod proxy;
mod released;
mod rendered;
mod requests;
mod rights;
mod score;
mod uninstalled;
mod upgraded;
mod values;
mod workloads;

/// How long a condition may take: far above what anything here takes on a loaded machine.
const WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(90);
