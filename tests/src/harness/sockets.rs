//! Open browser tabs: WebSockets that come back when they are closed, as those of NocoBase's client do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::{COOKIE, SET_COOKIE};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::sticky::sticks;
use super::until;

/// NocoBase's client tries again after so long.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a handshake may take.
const OPEN_MAX: Duration = Duration::from_secs(3);
/// How long an answer to a ping may take.
const PONG_MAX: Duration = Duration::from_secs(3);
/// How long it may take until all are open.
const ALL_MAX: Duration = Duration::from_secs(20);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What became of them.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Handshakes that succeeded.
    pub opened: usize,
    /// Those that the other side ended.
    pub closed: usize,
    /// Handshakes that failed, by how.
    pub failed: BTreeMap<String, usize>,
    /// Longest time that one of them was away.
    pub longest_away: Duration,
    /// Those that are open.
    pub open: usize,
    /// Those that answered a ping at the end.
    pub answered: usize,
}

impl Tally {
    fn has_opened(&mut self, away: Duration) {
        (self.opened, self.open) = (self.opened + 1, self.open + 1);
        self.longest_away = self.longest_away.max(away);
    }

    fn has_closed(&mut self) {
        (self.closed, self.open) = (self.closed + 1, self.open - 1);
    }
}

/// A number of them.
#[derive(Debug)]
pub struct Sockets {
    count: usize,
    tally: Arc<Mutex<Tally>>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Sockets {
    /// Opens them at `/ws` of a port, and waits until all are there.
    ///
    /// # Panics
    /// When they are not in time.
    #[must_use]
    pub fn start(port: u16, count: usize) -> Self {
        let (stop, stopped) = watch::channel(false);
        let tally = Arc::new(Mutex::new(Tally::default()));
        let shared = Arc::clone(&tally);
        let thread = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
            runtime.block_on(join_all((0..count).map(|_| hold(port, Arc::clone(&shared), stopped.clone()))));
        });
        let sockets = Self { count, tally, stop, thread };
        sockets.until_all_open();
        sockets
    }

    /// How it stands.
    #[must_use]
    pub fn tally(&self) -> Tally {
        locked(&self.tally).clone()
    }

    /// Waits until all are open.
    ///
    /// # Panics
    /// When they are not in time.
    pub fn until_all_open(&self) {
        let all = || (self.tally().open == self.count).then_some(());
        until("all websockets open", ALL_MAX, || format!("{:?}", self.tally()), all);
    }

    /// Ends them, each after a ping.
    ///
    /// # Panics
    /// When their thread did.
    #[must_use]
    pub fn stop(self) -> Tally {
        self.stop.send_replace(true);
        self.thread.join().expect("websockets end well");
        locked(&self.tally).clone()
    }
}

fn locked(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    // A panic elsewhere leaves these plain values in order.
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of them, until it is told to stop.
async fn hold(port: u16, tally: Arc<Mutex<Tally>>, mut stop: watch::Receiver<bool>) {
    let (mut cookie, mut away) = (None, Instant::now());
    while !*stop.borrow() {
        match open(port, &mut cookie).await {
            Ok(mut socket) => {
                locked(&tally).has_opened(away.elapsed());
                tokio::select! {
                    () = end(&mut socket) => {}
                    _ = stop.wait_for(|stop| *stop) => {
                        let answered = timeout(PONG_MAX, answers(&mut socket)).await.unwrap_or(false);
                        locked(&tally).answered += usize::from(answered);
                        return;
                    }
                }
                away = Instant::now();
                locked(&tally).has_closed();
            }
            Err(why) => *locked(&tally).failed.entry(why).or_default() += 1,
        }
        tokio::select! {
            () = sleep(AGAIN) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
}

/// Opens one with the cookie that it has, and keeps the one that it is given.
async fn open(port: u16, cookie: &mut Option<String>) -> Result<Socket, String> {
    let request = format!("ws://127.0.0.1:{port}/ws").into_client_request();
    let mut request = request.map_err(|error| error.to_string())?;
    if let Some(value) = cookie.as_deref().and_then(|cookie| HeaderValue::from_str(cookie).ok()) {
        request.headers_mut().insert(COOKIE, value);
    }
    let opened = timeout(OPEN_MAX, connect_async(request)).await;
    let (socket, answer) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(Error::Http(answer))) => return Err(format!("status {}", answer.status().as_u16())),
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("no answer within {} s", OPEN_MAX.as_secs())),
    };
    let given = answer.headers().get_all(SET_COOKIE).iter().filter_map(|given| given.to_str().ok());
    if let Some(given) = given.filter_map(sticks).next_back() {
        *cookie = Some(given);
    }
    Ok(socket)
}

/// Waits for its end. Whatever the app says is read.
async fn end(socket: &mut Socket) {
    while let Some(Ok(_)) = socket.next().await {}
}

/// Whether the app answers a ping.
async fn answers(socket: &mut Socket) -> bool {
    if socket.send(Message::Ping(Vec::new().into())).await.is_err() {
        return false;
    }
    while let Some(Ok(message)) = socket.next().await {
        if message.is_pong() {
            return true;
        }
    }
    false
}
