//! Noticing that an app or its keeper ended.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use super::observe::snapshot;
use super::process::ProcessDriver;
use super::{AppSeen, Driver};
use crate::host::ProcessId;

/// Longest time until a change is noticed that no process descriptor announces.
const POLL: Duration = Duration::from_secs(2);
/// The same where the kernel gives no process descriptors.
const POLL_BLIND: Duration = Duration::from_millis(500);

/// The driver's `changed`.
pub(super) async fn changed(driver: &ProcessDriver, seen: &AppSeen) {
    loop {
        // Watched first, looked at second: what ends in between is seen by one of the two.
        let watched = driver
            .aside(snapshot)
            .await
            .map(|now| now.keeper.into_iter().chain(now.main).collect::<Vec<_>>());
        match driver.observe().await {
            Ok(now) if !same(&now, seen) => return,
            Ok(_) => {}
            // What cannot be seen cannot be called unchanged; the caller looks itself and has the error.
            Err(_) => {
                sleep(POLL_BLIND).await;
                return;
            }
        }
        let watched = watched.unwrap_or_default();
        let running = seen.runs();
        let mut ends: FuturesUnordered<_> = watched.iter().filter_map(|id| watch(*id)).map(ended).collect();
        let blind = running && ends.len() < watched.len().max(1);
        tokio::select! {
            // Cancel-safe: nothing is taken, only waited for.
            Some(()) = ends.next() => {}
            () = sleep(if blind { POLL_BLIND } else { POLL }) => {}
        }
    }
}

/// Whether a caller would do anything differently. Workers come and go and do not count.
fn same(a: &AppSeen, b: &AppSeen) -> bool {
    match (a, b) {
        (AppSeen::NotRunning { last_exit: a }, AppSeen::NotRunning { last_exit: b }) => a == b,
        (
            AppSeen::Running { main, launch, keeper_alive, .. },
            AppSeen::Running { main: main_b, launch: launch_b, keeper_alive: keeper_b, .. },
        ) => main == main_b && launch == launch_b && keeper_alive == keeper_b,
        _ => false,
    }
}

fn watch(id: ProcessId) -> Option<AsyncFd<rustix::fd::OwnedFd>> {
    let fd = id.open().ok().flatten()?;
    #[expect(
        deprecated,
        reason = "its successor needs unsafe; an owned descriptor keeps the promise that it asks for"
    )]
    AsyncFd::with_interest(fd, Interest::READABLE).ok()
}

async fn ended(fd: AsyncFd<rustix::fd::OwnedFd>) {
    // A descriptor that cannot be waited for makes the caller look again; the pause keeps it from spinning.
    if fd.readable().await.is_err() {
        sleep(POLL_BLIND).await;
    }
}
