//! An app as a balancer sees it: an HTTP server with slow requests and upgraded connections, and its agent's `/ready`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What belongs to the key that every client here sends (RFC 6455, section 1.3).
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// One server; it ends when this is dropped.
pub(crate) struct Node {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    name: String,
    /// It stands for the maintenance page: 503 for everything.
    page: bool,
    ready: AtomicBool,
    requests: AtomicU64,
    slow: AtomicU64,
    release: watch::Sender<bool>,
}

impl Node {
    pub(crate) async fn start(name: &str) -> Self {
        Self::serve(name, false, 0).await
    }

    /// The maintenance page, at a port or any.
    pub(crate) async fn page(port: u16) -> Self {
        Self::serve("page", true, port).await
    }

    async fn serve(name: &str, page: bool, port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            page,
            ready: AtomicBool::new(true),
            requests: AtomicU64::new(0),
            slow: AtomicU64::new(0),
            release: watch::Sender::new(false),
        });
        let of_all = Arc::clone(&shared);
        let serving = tokio::spawn(async move {
            // With the set, all connections end too when this does.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(connection(stream, Arc::clone(&of_all)));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { port, shared, serving }
    }

    /// Lets all slow requests end, also those to come.
    pub(crate) fn release(&self) {
        self.shared.release.send_replace(true);
    }

    /// What `/ready` says.
    pub(crate) fn set_ready(&self, ready: bool) {
        self.shared.ready.store(ready, Ordering::SeqCst);
    }

    /// Slow requests that have come so far.
    pub(crate) fn slow(&self) -> u64 {
        self.shared.slow.load(Ordering::SeqCst)
    }

    /// Requests that have come so far, without those of health checks.
    pub(crate) fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if !matches!(stream.read_line(&mut head).await, Ok(1..)) {
                return;
            }
        }
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        if path != "/ready" {
            shared.requests.fetch_add(1, Ordering::SeqCst);
        }
        let (status, body) = match path.as_str() {
            _ if shared.page => ("503 Service Unavailable\r\nRetry-After: 7", "page".to_owned()),
            "/ready" if shared.ready.load(Ordering::SeqCst) => ("200 OK", "ready".to_owned()),
            "/ready" => ("503 Service Unavailable", "not ready".to_owned()),
            "/slow" => {
                let mut release = shared.release.subscribe();
                shared.slow.fetch_add(1, Ordering::SeqCst);
                if release.wait_for(|released| *released).await.is_err() {
                    return;
                }
                ("200 OK", shared.name.clone())
            }
            "/ws" => {
                let answer = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
                let mut byte = [0];
                while let Ok(1) = stream.read(&mut byte).await {
                    if stream.write_all(&byte).await.is_err() {
                        return;
                    }
                }
                return;
            }
            // As a process that dies in the middle of a request.
            "/die" => return,
            _ => ("200 OK", shared.name.clone()),
        };
        let length = body.len();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}
