//! The maintenance page, as browsers, NocoBase's client and strangers meet it.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::net::TcpListener as StdListener;
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt as _;
use reqwest::{Client, Method, Response};
use serde_json::Value;
use soloist_agent::page::{Face, PageConfig, Told, serve};
use soloist_core::Notice;
use soloist_core::time::Millis;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tokio_util::sync::CancellationToken;

/// What a browser accepts when somebody follows a link.
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
/// Longer than it takes until open pages are told to load anew.
const PATIENCE: Duration = Duration::from_secs(15);

/// A page that is served.
struct Page {
    base: String,
    told: watch::Sender<Told>,
    stop: CancellationToken,
    server: JoinHandle<std::io::Result<()>>,
    client: Client,
}

impl Page {
    fn new(template: Option<PathBuf>) -> Self {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let listen = listener.local_addr().unwrap();
        let config = PageConfig { listen, template, text: "Call 555-0199.".into(), retry_after_secs: 40 };
        let face = Face::new(&config).unwrap();
        let (told, seen) = watch::channel(Told::default());
        let stop = CancellationToken::new();
        let (base, ends) = (listen.to_string(), stop.clone());
        let server = tokio::task::spawn_blocking(move || serve(listener, face, seen, ends));
        Self { base, told, stop, server, client: Client::builder().no_proxy().build().unwrap() }
    }

    fn tell(&self, reason: &str, secs: Option<u64>) {
        self.hear(Some(Notice { reason: reason.into(), remaining: secs.map(Millis::from_secs) }));
    }

    fn hear(&self, notice: Option<Notice>) {
        self.told.send_if_modified(|told| told.hear(notice, Instant::now()));
    }

    async fn ask(&self, method: Method, path: &str, accept: &str) -> Response {
        let request = self.client.request(method, format!("http://{}{path}", self.base));
        let request = if accept.is_empty() { request } else { request.header("accept", accept) };
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 503, "{path}");
        assert_eq!(answer.headers()["cache-control"], "no-store", "{path}");
        assert!(answer.headers().contains_key("retry-after"), "{path}");
        answer
    }

    async fn socket(&self) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
        connect_async(format!("ws://{}/ws", self.base)).await.unwrap().0
    }

    async fn end(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.server).await.unwrap().unwrap().unwrap();
    }
}

fn kind(answer: &Response) -> String {
    answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned()).unwrap_or_default()
}

fn retry_after(answer: &Response) -> u64 {
    answer.headers()["retry-after"].to_str().unwrap().parse().unwrap()
}

/// The next text; `None` if the websocket was closed.
async fn next(socket: &mut WebSocketStream<MaybeTlsStream<TcpStream>>) -> Option<Value> {
    loop {
        match timeout(PATIENCE, socket.next()).await.expect("something comes")? {
            Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).unwrap()),
            Ok(Message::Close(_)) => return None,
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn browsers_get_a_page() {
    let page = Page::new(None);
    page.tell("Upgrade <script>alert(1)</script>", Some(200));
    for path in ["/", "/admin/xyz?tab=1", "/signin", "/live", "/status", "/index.html"] {
        let answer = page.ask(Method::GET, path, BROWSER).await;
        assert_eq!((kind(&answer).as_str(), retry_after(&answer)), ("text/html; charset=utf-8", 200));
        let text = answer.text().await.unwrap();
        assert!(text.contains("Upgrade &lt;script&gt;alert(1)&lt;&#x2f;script&gt;"), "{text}");
        assert!(text.contains("about 3 minutes") && text.contains("Call 555-0199."), "{text}");
        assert!(!text.contains("<script>alert") && !text.contains("http://"), "{text}");
    }
    let posted = page.ask(Method::POST, "/signin", BROWSER).await;
    assert!(posted.text().await.unwrap().contains("Upgrade"));
    let head = page.ask(Method::HEAD, "/", BROWSER).await;
    assert_eq!((kind(&head).as_str(), retry_after(&head)), ("text/html; charset=utf-8", 200));
    assert!(head.text().await.unwrap().is_empty());
    page.end().await;
}

#[tokio::test]
async fn programs_get_what_they_understand() {
    let page = Page::new(None);
    page.tell("Upgrade \"2.3\"", Some(70));
    let axios = "application/json, text/plain, */*";
    for (method, path, accept) in [
        (Method::GET, "/api/app:getInfo", axios),
        (Method::POST, "/api/users:create", "*/*"),
        (Method::GET, "/nocobase/api/users:list", axios),
    ] {
        let answer = page.ask(method, path, accept).await;
        assert_eq!(kind(&answer), "application/json; charset=utf-8");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["error"]["code"], "APP_COMMANDING");
        assert_eq!(body["error"]["maintaining"], true);
        assert_eq!(body["error"]["message"], "Upgrade \"2.3\" (about a minute left)");
    }
    for (path, accept) in [("/logo.png", "image/avif,image/webp,*/*;q=0.8"), ("/assets/index.js", "*/*")] {
        let answer = page.ask(Method::GET, path, accept).await;
        assert_eq!(kind(&answer), "");
        assert!(answer.text().await.unwrap().is_empty(), "{path}");
    }
    page.end().await;
}

#[tokio::test]
async fn who_may_come_again_when() {
    let page = Page::new(None);
    let unknown = page.ask(Method::GET, "/", BROWSER).await;
    assert_eq!(retry_after(&unknown), 40, "nobody has said anything");
    assert!(unknown.text().await.unwrap().contains("Not available right now"));
    let body: Value = page.ask(Method::GET, "/api/x:list", "").await.json().await.unwrap();
    assert_eq!(body["errors"][0]["code"], "APP_UNAVAILABLE");
    assert_eq!(body["error"], Value::Null, "nobody would ever close that dialog");
    for (remaining, seconds) in [(None, 40), (Some(2), 5), (Some(100_000), 3600)] {
        page.tell("Upgrade", remaining);
        assert_eq!(retry_after(&page.ask(Method::GET, "/", BROWSER).await), seconds);
    }
    page.end().await;
}

#[tokio::test]
async fn an_open_page_is_told_and_loads_anew_in_the_end() {
    let page = Page::new(None);
    let refused = connect_async(format!("ws://{}/ws", page.base)).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Http(answer) if answer.status().as_u16() == 503),
        "its client would not know when it is over: {refused}"
    );
    page.tell("Upgrade", None);
    let mut socket = page.socket().await;
    let first = next(&mut socket).await.unwrap();
    assert_eq!(first["type"], "maintaining");
    assert_eq!(
        (&first["payload"]["code"], &first["payload"]["message"]),
        (&"APP_COMMANDING".into(), &"Upgrade".into())
    );
    page.tell("Upgrade", Some(600));
    assert_eq!(next(&mut socket).await.unwrap()["payload"]["message"], "Upgrade (about 10 minutes left)");
    page.hear(None);
    let last = next(&mut socket).await.unwrap();
    assert_eq!(
        (&last["payload"]["code"], &last["payload"]["refresh"]),
        (&"APP_RUNNING".into(), &true.into())
    );
    assert_eq!(next(&mut socket).await, None);
    page.end().await;
}

#[tokio::test]
async fn when_the_agent_ends_nothing_is_loaded_anew() {
    let page = Page::new(None);
    page.tell("Upgrade", None);
    let mut socket = page.socket().await;
    assert!(next(&mut socket).await.is_some());
    page.stop.cancel();
    assert_eq!(next(&mut socket).await, None);
    page.end().await;
}

#[tokio::test]
async fn bodies_are_not_read_and_heads_have_a_bound() {
    let page = Page::new(None);
    let mut stream = TcpStream::connect(&page.base).await.unwrap();
    stream
        .write_all(b"POST /api/x:create HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\n\r\n")
        .await
        .unwrap();
    let mut answer = vec![0; 12];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, b"HTTP/1.1 503", "nobody waits for a gigabyte");
    let mut stream = TcpStream::connect(&page.base).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(64 * 1024));
    // It may be cut before everything is written.
    let _ = stream.write_all(head.as_bytes()).await;
    timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, b"HTTP/1.1 431");
    page.end().await;
}

#[tokio::test]
async fn a_template_of_ones_own_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.html");
    std::fs::write(&path, "<p>{{ reason }} {{ text }}{% if reason == 'bad' %}{{ missing }}{% endif %}</p>")
        .unwrap();
    let page = Page::new(Some(path));
    page.tell("a < b", None);
    let text = page.ask(Method::GET, "/", BROWSER).await.text().await.unwrap();
    assert_eq!(text, "<p>a &lt; b Call 555-0199.</p>");
    page.tell("bad", None);
    let text = page.ask(Method::GET, "/", BROWSER).await.text().await.unwrap();
    assert!(text.contains("Under maintenance") && text.contains("bad"), "the built-in page: {text}");
    page.end().await;
}
