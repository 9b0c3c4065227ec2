//! A client that keeps what a browser keeps: its connection, and the load balancer's cookie.

use std::future::poll_fn;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::time::Duration;

use hyper::Request;
use hyper::body::Body as _;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{COOKIE, HOST, SET_COOKIE};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// The cookie of `deploy`'s HAProxy.
pub(super) const STICKS: &str = "SOLOIST=";
/// How long a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// One browser.
#[derive(Debug)]
pub(super) struct Sticky {
    port: u16,
    runtime: Runtime,
    kept: Option<SendRequest<String>>,
    cookie: Option<String>,
}

impl Sticky {
    pub(super) fn new(port: u16) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self { port, runtime: runtime.expect("a thread can be started"), kept: None, cookie: None }
    }

    /// The server that its cookie names.
    pub(super) fn server(&self) -> Option<String> {
        self.cookie.as_deref().and_then(|cookie| cookie.strip_prefix(STICKS)).map(str::to_owned)
    }

    /// Status and body of a GET; and whether it was asked twice: once on a kept connection, which ended without an answer, and
    /// then on a new one. A browser does so (RFC 9112, section 9.3.1). A new connection that ends without an answer is not forgiven.
    pub(super) fn get(&mut self, path: &str) -> (Option<(u16, String)>, bool) {
        let kept = self.kept.take().filter(|kept| !kept.is_closed());
        let (port, mut cookie) = (self.port, self.cookie.clone());
        let (answer, again) = self.runtime.block_on(async {
            if let Some(kept) = kept {
                if let Some(answer) = ask(kept, port, path, &mut cookie).await {
                    return (Some(answer), false);
                }
                return (fresh(port, path, &mut cookie).await, true);
            }
            (fresh(port, path, &mut cookie).await, false)
        });
        self.cookie = cookie;
        let answer = answer.map(|(status, body, kept)| {
            self.kept = Some(kept);
            (status, body)
        });
        (answer, again)
    }
}

type Answered = (u16, String, SendRequest<String>);

async fn fresh(port: u16, path: &str, cookie: &mut Option<String>) -> Option<Answered> {
    let stream = timeout(CONNECT_MAX, TcpStream::connect((Ipv4Addr::LOCALHOST, port))).await.ok()?.ok()?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
    // It ends with its sender, or with the other side.
    tokio::spawn(connection);
    ask(sender, port, path, cookie).await
}

async fn ask(
    mut sender: SendRequest<String>,
    port: u16,
    path: &str,
    cookie: &mut Option<String>,
) -> Option<Answered> {
    let exchange = async {
        let mut request = Request::get(path).header(HOST, format!("127.0.0.1:{port}"));
        if let Some(cookie) = cookie.as_deref() {
            request = request.header(COOKIE, cookie);
        }
        sender.ready().await.ok()?;
        let answer = sender.send_request(request.body(String::new()).ok()?).await.ok()?;
        let status = answer.status().as_u16();
        let given = answer.headers().get_all(SET_COOKIE).iter().filter_map(|given| given.to_str().ok());
        if let Some(given) = given.filter_map(sticks).next_back() {
            *cookie = Some(given);
        }
        let (mut body, mut bytes) = (answer.into_body(), Vec::new());
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            if let Ok(data) = frame.ok()?.into_data() {
                bytes.extend_from_slice(&data);
            }
        }
        Some((status, String::from_utf8_lossy(&bytes).into_owned()))
    };
    let (status, body) = timeout(ANSWER_MAX, exchange).await.ok()??;
    Some((status, body, sender))
}

/// The load balancer's cookie, as a client sends it back.
pub(super) fn sticks(given: &str) -> Option<String> {
    let cookie = given.split(';').next()?.trim();
    cookie.starts_with(STICKS).then(|| cookie.to_owned())
}
