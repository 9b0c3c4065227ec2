//! The listener: strangers reach it, so everything about a connection has a bound.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Most connections at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 500;
/// Most websockets at a time; more are answered 503.
const SOCKETS_MAX: usize = 1000;
/// Of the files that the agent may open, the page takes this part for connections at the most …
const CONNECTIONS_SHARE: usize = 8;
/// … and this part for websockets. The rest is for the agent itself.
const SOCKETS_SHARE: usize = 2;
/// How long a request's head may take to come; a connection that is kept may be idle for as long.
const HEAD_READ_MAX: Duration = Duration::from_secs(15);
/// Largest head of a request in bytes.
const HEAD_MAX: usize = 32 * 1024;
/// Most headers of a request.
const HEADERS_MAX: usize = 100;
/// A connection ends after so long, except as a websocket.
const LIFE_MAX: Duration = Duration::from_secs(120);
/// How long an answer that was begun may take to leave when the connection must end.
const END_MAX: Duration = Duration::from_secs(2);
/// Pause after an error of the listener, for example when no file can be opened.
const PAUSE: Duration = Duration::from_millis(200);

/// How much there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) connections: usize,
    pub(super) sockets: usize,
}

impl Room {
    /// As much as the limit of open files leaves.
    pub(super) fn new() -> Self {
        let files = getrlimit(Resource::Nofile).current;
        Self::within(files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX))
    }

    fn within(files: usize) -> Self {
        Self {
            connections: (files / CONNECTIONS_SHARE).clamp(1, CONNECTIONS_MAX),
            sockets: (files / SOCKETS_SHARE).min(SOCKETS_MAX),
        }
    }
}

/// Serves until told to stop.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    room: Room,
    stop: CancellationToken,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(room.connections));
    loop {
        // Cancel-safe: a place that was not taken is free, and a connection that was not accepted waits.
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = Arc::clone(&places).acquire_owned() => place.map_err(io::Error::other)?,
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, router.clone(), place, stop.clone()));
            }
            Err(error) => {
                tracing::debug!(%error, "the maintenance page cannot accept a connection");
                sleep(PAUSE).await;
            }
        }
    }
    let all = u32::try_from(room.connections).unwrap_or(u32::MAX);
    // What has not left by now is cut.
    let _ = timeout(END_MAX, places.acquire_many(all)).await;
    Ok(())
}

async fn connection(stream: TcpStream, router: Router, place: OwnedSemaphorePermit, stop: CancellationToken) {
    // A small answer should not wait for the next one; without that it is only slower.
    let _ = stream.set_nodelay(true);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_READ_MAX)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_MAX)
        .max_buf_size(HEAD_MAX);
    let serving =
        http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).with_upgrades();
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        // An error is a client that goes, or that is none: nobody has to know.
        _ = serving.as_mut() => {}
        () = async { tokio::select! { () = sleep(LIFE_MAX) => {}, () = stop.cancelled() => {} } } => {
            serving.as_mut().graceful_shutdown();
            let _ = timeout(END_MAX, serving).await;
        }
    }
    drop(place);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_leaves_files_for_the_agent() {
        assert_eq!(Room::within(usize::MAX), Room { connections: CONNECTIONS_MAX, sockets: SOCKETS_MAX });
        let room = Room::within(1024);
        assert_eq!(room, Room { connections: 128, sockets: 512 });
        assert!(room.connections + room.sockets <= 1024 - 256, "the agent itself needs some dozens");
    }
}
