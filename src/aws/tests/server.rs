//! An HTTP server that answers what a script says, and keeps what it was sent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What the server does with one request.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// Status and body.
    Json(u16, Value),
    /// Status, further header lines, body.
    Http(u16, String, String),
    /// Reads the request and closes the connection.
    Close,
    /// Reads the request and never answers.
    Hang,
}

impl Answer {
    pub(super) fn ok(body: Value) -> Self {
        Self::Json(200, body)
    }

    /// An error as SSM writes it.
    pub(super) fn error(status: u16, code: &str, message: &str) -> Self {
        let code = format!("com.amazonaws.ssm#{code}");
        Self::Json(status, json!({ "__type": code, "message": message }))
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// Method, path and version.
    pub(super) line: String,
    /// By lower-case name.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Value,
}

#[derive(Default)]
struct Script {
    answers: std::collections::VecDeque<Answer>,
    requests: Vec<Request>,
}

/// Serves until it is dropped. The last answer of the script is repeated for ever.
pub(super) struct Server {
    port: u16,
    script: Arc<Mutex<Script>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(super) async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answers = answers.into_iter().collect();
        let script = Arc::new(Mutex::new(Script {
            answers,
            requests: Vec::new(),
        }));
        let shared = script.clone();
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                connections.spawn(serve(connection, shared.clone()));
            }
        });
        Self {
            port,
            script,
            accepting,
        }
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All requests so far.
    pub(super) fn requests(&self) -> Vec<Request> {
        self.script.lock().unwrap().requests.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(connection: TcpStream, script: Arc<Mutex<Script>>) {
    let mut connection = BufReader::new(connection);
    while let Some(request) = read(&mut connection).await {
        let answer = {
            let mut script = script.lock().unwrap();
            script.requests.push(request);
            let last = script.answers.len() == 1;
            if last {
                script.answers.front().cloned()
            } else {
                script.answers.pop_front()
            }
        };
        let (status, headers, body) = match answer.expect("a script has an answer") {
            Answer::Json(status, body) => (status, String::new(), body.to_string()),
            Answer::Http(status, headers, body) => (status, headers, body),
            Answer::Close => return,
            Answer::Hang => std::future::pending().await,
        };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/x-amz-json-1.1\r\n\
             content-length: {length}\r\n{headers}\r\n{body}"
        );
        connection.write_all(answer.as_bytes()).await.unwrap();
    }
}

/// None when the client closed the connection.
async fn read(connection: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    let mut headers = BTreeMap::new();
    connection
        .read_line(&mut line)
        .await
        .ok()
        .filter(|read| *read > 0)?;
    loop {
        let mut header = String::new();
        connection
            .read_line(&mut header)
            .await
            .ok()
            .filter(|read| *read > 0)?;
        let Some((name, value)) = header.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    connection.read_exact(&mut body).await.ok()?;
    // A form, as STS takes it, is kept as one text.
    let body = serde_json::from_slice(&body)
        .unwrap_or_else(|_| Value::from(String::from_utf8(body).unwrap()));
    Some(Request {
        line: line.trim_end().to_owned(),
        headers,
        body,
    })
}
