//! The simulator keeps what it promises, seen by a client that shares none of the relay's machines.

#![allow(clippy::expect_used, clippy::panic, reason = "so does a test fail")]

mod api;
mod channel;
mod client;
mod ground;
mod identities;
#[path = "../support/token.rs"]
mod token;

use std::process::Stdio;

use client::{Service, within};
use ground::{REMOTE, echo};
use serde_json::json;

#[tokio::test]
async fn the_process_says_when_it_is_ready_and_ends_with_its_standard_input() {
    let echo = echo().await;
    let mut process = std::process::Command::new(env!("CARGO_BIN_EXE_ssm-simulator"))
        .args([
            "--agent",
            "mi-1",
            "--pace",
            "unthrottled",
            "--exit-with-stdin",
        ])
        .args(["--destination", &format!("db.internal:5432={echo}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the simulator's binary");
    let output = process.stdout.take().expect("piped");
    let (first_line, process) = tokio::task::spawn_blocking(move || {
        let line = std::io::BufRead::lines(std::io::BufReader::new(output)).next();
        (line.expect("a line").expect("text"), process)
    })
    .await
    .expect("a first line");
    let endpoint = first_line.strip_prefix("READY ").expect("READY").to_owned();
    let service = Service {
        endpoint,
        tls: None,
    };
    let ticket = service
        .start(REMOTE, json!({ "host": ["db.internal"] }))
        .await;
    within("the handshake", service.open(&ticket).await.shake_hands()).await;
    let ended = tokio::task::spawn_blocking(move || {
        let mut process = process;
        drop(process.stdin.take());
        process.wait()
    });
    let status = within("the process's end", ended)
        .await
        .expect("no panic")
        .expect("a status");
    assert!(status.success(), "{status}");
}
