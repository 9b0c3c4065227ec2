//! The maintenance page: what users see while they are kept away from a fleet.
//!
//! ```text
//!   coordinators ──notice──► session ──► Told ──► every request: 503, as a page, as JSON, or with nothing
//!                                           └──► open websockets: maintenance, and in the end: load anew
//! ```
//!
//! Load balancers send users here while no node is given to them. So strangers reach it: it tells nothing of the agent, everything
//! has a bound, and it runs in a thread of its own, so that a crowd does not slow the agent down.

mod answer;
mod config;
mod listen;
mod render;
mod socket;
mod told;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use config::PageConfig;
pub use render::{Face, TemplateError};
pub use told::{Current, Told};

use answer::{Site, router};
use listen::Room;

/// How long websockets have to say goodbye when the agent stops.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// Serves the page until told to stop. It takes the thread that calls it.
///
/// # Errors
/// When the listener cannot be used.
pub fn serve(
    listener: TcpListener,
    face: Face,
    told: watch::Receiver<Told>,
    stop: CancellationToken,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let room = Room::new();
    tracing::info!(
        connections = room.connections,
        websockets = room.sockets,
        "the maintenance page is served"
    );
    let sockets = Arc::new(Semaphore::new(room.sockets));
    let site = Site { face, told, sockets: Arc::clone(&sockets), stop: stop.clone() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        listen::serve(listener, router(Arc::new(site)), room, stop).await?;
        let all = u32::try_from(room.sockets).unwrap_or(u32::MAX);
        // A client that takes nothing any more is not waited for.
        let _ = timeout(CLOSE_MAX, sockets.acquire_many(all)).await;
        Ok(())
    })
}
