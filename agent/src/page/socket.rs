//! A websocket of an open NocoBase page.
//!
//! ```text
//!   taken ─► maintaining ─► (again when it changes) ─► it is over ─► a moment later: running, reload ─► closed
//!                                                 └─► the agent stops, the life ends, silence ─────► closed
//! ```
//!
//! NocoBase's client leaves its maintenance dialog for nothing but such a message. What a client sends is not read.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::render::{back, maintaining};
use super::told::Told;

/// Longest message of a client in bytes; the longest of NocoBase's holds a token.
pub(super) const MESSAGE_MAX: usize = 64 * 1024;
/// Between two pings.
const PING_EVERY: Duration = Duration::from_secs(20);
/// A client from which nothing came for so long has gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long a message may take to be sent.
const SEND_MAX: Duration = Duration::from_secs(5);
/// A websocket is closed after so long; the client opens another one.
const LIFE_MAX: Duration = Duration::from_secs(3600);
/// How long a load balancer may take to see that nodes are back.
const SETTLE_MS: u64 = 1500;
/// All open pages load anew when it is over, spread over so long.
const SPREAD_MS: u64 = 4000;

/// Keeps a client told until it is over.
pub(super) async fn hold(mut socket: WebSocket, mut told: watch::Receiver<Told>, stop: CancellationToken) {
    let ends = Instant::now() + LIFE_MAX;
    let mut heard = Instant::now();
    let mut pings = interval(PING_EVERY);
    let mut said = String::new();
    loop {
        let (current, over) = {
            let told = told.borrow_and_update();
            (told.now(Instant::now()), told.is_over())
        };
        if over {
            // Cancel-safe: both arms only wait.
            tokio::select! {
                () = sleep(Duration::from_millis(SETTLE_MS + rand::random::<u64>() % SPREAD_MS)) => {
                    send(&mut socket, Message::Text(back().into())).await;
                }
                () = stop.cancelled() => {}
            }
            break;
        }
        if let Some(text) = current.as_ref().map(maintaining).filter(|text| *text != said) {
            if !send(&mut socket, Message::Text(text.clone().into())).await {
                return;
            }
            said = text;
        }
        // Cancel-safe: a websocket, a watch and an interval lose nothing when another arm wins.
        tokio::select! {
            () = stop.cancelled() => break,
            () = sleep_until(ends) => break,
            changed = told.changed() => {
                if changed.is_err() {
                    break;
                }
            }
            _ = pings.tick() => {
                if heard.elapsed() > SILENCE_MAX || !send(&mut socket, Message::Ping(Vec::new().into())).await {
                    return;
                }
            }
            message = socket.recv() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(Message::Text(_) | Message::Binary(_) | Message::Ping(_) | Message::Pong(_))) => {
                    heard = Instant::now();
                }
            }
        }
    }
    let frame = CloseFrame { code: close_code::AWAY, reason: "".into() };
    send(&mut socket, Message::Close(Some(frame))).await;
}

async fn send(socket: &mut WebSocket, message: Message) -> bool {
    matches!(timeout(SEND_MAX, socket.send(message)).await, Ok(Ok(())))
}
