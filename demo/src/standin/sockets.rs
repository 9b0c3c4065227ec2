//! The stand-in's WebSockets. They say nothing.
//!
//! As with NocoBase, one that is open keeps the process alive after it was told to stop: its port is closed and it has left the
//! database by then, and it ends when the last client has gone.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::response::Response;
use tokio::sync::watch;

use super::app::App;

/// How many are open.
#[derive(Debug, Default)]
pub(super) struct Sockets(watch::Sender<usize>);

impl Sockets {
    /// Counts one until what this gives is dropped.
    fn enter(&self) -> Open {
        self.0.send_modify(|open| *open += 1);
        Open(self.0.clone())
    }

    /// Waits until none is open.
    pub(super) async fn all_closed(&self) {
        // An error would say that the sender is gone, and this is it.
        let _ = self.0.subscribe().wait_for(|open| *open == 0).await;
    }
}

/// One that is open.
struct Open(watch::Sender<usize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

/// Answers the upgrade in every phase, as NocoBase does.
pub(super) async fn open(State(app): State<Arc<App>>, upgrade: WebSocketUpgrade) -> Response {
    let open = app.sockets.enter();
    upgrade.on_upgrade(move |socket| hold(socket, open))
}

/// Reads until the client has gone.
async fn hold(mut socket: WebSocket, _open: Open) {
    while let Some(Ok(_)) = socket.recv().await {}
}
