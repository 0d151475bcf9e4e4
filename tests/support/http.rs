//! HTTP as far as tests need it: one request on a connection of its own.

#![allow(
    dead_code,
    reason = "each test program that includes this file uses a part of it"
)]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Far above what anything on loopback takes on a loaded machine.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status code.
    pub status: u16,
    /// Its head, in lower case.
    pub head: String,
    /// Its body.
    pub body: String,
}

/// `GET` of a path from `address`, such as `127.0.0.1:8080`.
pub async fn get(address: &str, path: &str) -> Result<Answer> {
    send(address, &format!("GET {path}"), "", "").await
}

/// One call of the SSM API at `endpoint`, as somebody else would make it.
pub async fn call_ssm(endpoint: &str, operation: &str, request: &Value) -> Result<Value> {
    let address = endpoint
        .strip_prefix("http://")
        .context("not a plain HTTP endpoint")?;
    let headers = format!(
        "Content-Type: application/x-amz-json-1.1\r\nX-Amz-Target: AmazonSSM.{operation}\r\n"
    );
    let answer = send(address, "POST /", &headers, &request.to_string()).await?;
    ensure!(answer.status == 200, "{operation}: {}", answer.body);
    Ok(serde_json::from_str(&answer.body)?)
}

async fn send(address: &str, what: &str, headers: &str, body: &str) -> Result<Answer> {
    let request = format!(
        "{what} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let exchange = async {
        let mut connection = TcpStream::connect(address).await?;
        connection.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = timeout(ANSWER_TIMEOUT, exchange)
        .await
        .with_context(|| format!("{address} did not answer in {ANSWER_TIMEOUT:?}"))??;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("not an answer of HTTP")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok(Answer {
        status,
        head: head.to_lowercase(),
        body: body.to_owned(),
    })
}
