//! Clients of a balancer: one that asks all the time, and single requests and connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::PATIENCE;

/// Between two requests of a client that asks all the time.
const EVERY: Duration = Duration::from_millis(20);

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// One request on a connection of its own. Status 0 stands for a connection that broke; the reason is the body.
pub(crate) async fn ask(port: u16, method: &str, path: &str, cookie: &str) -> Answer {
    let failed = |why: String| Answer { status: 0, head: String::new(), body: why };
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let cookie = if cookie.is_empty() { String::new() } else { format!("Cookie: {cookie}\r\n") };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{cookie}Content-Length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match timeout(PATIENCE, exchange).await {
        Err(_) => failed("no answer in time".into()),
        Ok(Err(error)) => failed(error.to_string()),
        Ok(Ok(text)) => {
            let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
            Answer { status, head: head.to_owned(), body: body.to_owned() }
        }
    }
}

/// One GET without a cookie.
pub(crate) async fn get(port: u16, path: &str) -> Answer {
    ask(port, "GET", path, "").await
}

/// A slow request in the background.
pub(crate) fn slow(port: u16, cookie: &'static str) -> JoinHandle<Answer> {
    tokio::spawn(async move { ask(port, "GET", "/slow", cookie).await })
}

/// A connection that was upgraded as a WebSocket is, and is known to work.
pub(crate) struct Upgraded(TcpStream);

impl Upgraded {
    pub(crate) async fn open(port: u16, cookie: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: {cookie}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap();
            head.push(byte);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        let mut upgraded = Self(stream);
        assert!(upgraded.echoes().await);
        upgraded
    }

    /// Whether it still works.
    pub(crate) async fn echoes(&mut self) -> bool {
        let exchange = async {
            self.0.write_all(b"x").await?;
            self.0.read_u8().await
        };
        matches!(timeout(PATIENCE, exchange).await.expect("an answer or an end"), Ok(b'x'))
    }
}

/// A connection with one answered request, which is kept and says nothing.
pub(crate) async fn idle(port: u16, cookie: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: test\r\nCookie: {cookie}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    while !bytes.windows(5).any(|part| part == b"node-") {
        bytes.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
    }
    // The number of the node.
    timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap();
    stream
}

/// A client that asks every 20 ms.
pub(crate) struct Asker {
    stop: Arc<AtomicBool>,
    asking: JoinHandle<Vec<Answer>>,
}

impl Asker {
    /// With `keeps`, it sends the cookie that it is given, as a browser does.
    pub(crate) fn start(port: u16, cookie: &str, keeps: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, mut cookie) = (Arc::clone(&stop), cookie.to_owned());
        let asking = tokio::spawn(async move {
            let mut answers = Vec::new();
            while !stopped.load(Ordering::SeqCst) {
                let answer = ask(port, "GET", "/", &cookie).await;
                if let Some(given) = answer.header("set-cookie").filter(|_| keeps) {
                    cookie = given.split(';').next().unwrap_or_default().to_owned();
                }
                answers.push(answer);
                tokio::time::sleep(EVERY).await;
            }
            answers
        });
        Self { stop, asking }
    }

    /// Stops it. Every request must have been answered well; gives who answered.
    pub(crate) async fn all_well(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        let answers = self.asking.await.unwrap();
        let bad: Vec<&Answer> = answers.iter().filter(|answer| answer.status != 200).collect();
        assert!(bad.is_empty(), "{} of {} failed: {:?}", bad.len(), answers.len(), bad[0]);
        answers.into_iter().map(|answer| answer.body).collect()
    }
}
