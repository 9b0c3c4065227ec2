//! Stopping: through the keeper while it answers, by hand when it does not, and always with a proof at the end.

use std::fs::File;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use super::observe::{Snapshot, snapshot};
use super::process::ProcessDriver;
use super::{DriverError, StopHow, StopOutcome};
use crate::host::ProcessId;
use crate::keeper::protocol::{Cmd, LINE_MAX, PROTOCOL, Reply, Request};
use crate::keeper::{ExitHow, KeeperState, socket};

/// A keeper answers at once; one that does not is stuck.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
/// How often it is looked whether everything has ended.
const LOOK: Duration = Duration::from_millis(20);
/// How long processes may take to disappear after SIGKILL.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// The driver's `stop`.
pub(super) async fn stop(
    driver: &ProcessDriver,
    grace: Duration,
    kill: bool,
) -> Result<StopOutcome, DriverError> {
    let first = look(driver).await?;
    if first.all.is_empty() {
        end_keeper(driver, first.keeper).await?;
        return Ok(StopOutcome::Stopped { how: StopHow::NothingRan });
    }
    let deadline = Instant::now() + grace;
    let mut killed = false;
    if first.keeper.is_some() {
        let stop = Cmd::Stop { grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX), kill };
        match ask(driver, stop).await {
            Ok(_) => match with_keeper(driver, deadline, kill).await? {
                Some(outcome) => return Ok(outcome),
                None => tracing::warn!("the app's keeper ended or got stuck in the middle of a stop"),
            },
            Err(error) => {
                tracing::warn!(%error, "the app's keeper does not answer, the app is stopped without it")
            }
        }
    }
    // Without the keeper: ask the main process, or all that is left of it.
    let rest = look(driver).await?;
    signal(&rest.main.map_or_else(|| rest.all.clone(), |main| vec![main]), Signal::TERM);
    let mut rest_asked = rest.main.is_none();
    loop {
        let seen = look(driver).await?;
        if seen.all.is_empty() {
            end_keeper(driver, seen.keeper).await?;
            let how = if killed { StopHow::Killed } else { StopHow::Ended };
            return Ok(StopOutcome::Stopped { how });
        }
        let now = Instant::now();
        if now >= deadline && !kill {
            return Ok(StopOutcome::StillRunning { pids: pids(&seen) });
        }
        if now >= deadline + KILL_DEADLINE {
            return Err(DriverError::Unkillable(pids(&seen)));
        }
        if now >= deadline {
            killed = true;
            signal(&seen.all, Signal::KILL);
        } else if seen.main.is_none() && !rest_asked {
            signal(&seen.all, Signal::TERM);
            rest_asked = true;
        }
        sleep(LOOK).await;
    }
}

/// Waits while the keeper stops the app. `None` when the keeper is no help any more.
async fn with_keeper(
    driver: &ProcessDriver,
    deadline: Instant,
    kill: bool,
) -> Result<Option<StopOutcome>, DriverError> {
    loop {
        let seen = look(driver).await?;
        if seen.all.is_empty() {
            let killed = |shared: &super::process::Shared| {
                let exit = shared.files.read_exit().ok().flatten();
                Ok(exit.is_some_and(|exit| exit.how == ExitHow::Signal(Signal::KILL.as_raw())))
            };
            // The keeper records the end before its own.
            end_keeper(driver, seen.keeper).await?;
            let how = if driver.aside(killed).await? { StopHow::Killed } else { StopHow::Ended };
            return Ok(Some(StopOutcome::Stopped { how }));
        }
        if seen.keeper.is_none() {
            return Ok(None);
        }
        let now = Instant::now();
        if now >= deadline {
            match ask(driver, Cmd::Status).await {
                Ok(reply) if reply.state == KeeperState::Stopping && now < deadline + KILL_DEADLINE => {}
                Ok(_) if !kill => return Ok(Some(StopOutcome::StillRunning { pids: pids(&seen) })),
                // It may just have done its work and ended; then the next round takes its record.
                Ok(_) | Err(_) if look(driver).await?.all.is_empty() => continue,
                Ok(_) | Err(_) => return Ok(None),
            }
        }
        sleep(LOOK).await;
    }
}

async fn look(driver: &ProcessDriver) -> Result<Snapshot, DriverError> {
    driver.aside(snapshot).await
}

/// Nothing of the app is left: its keeper ends by itself, and one that is stuck is ended.
async fn end_keeper(driver: &ProcessDriver, keeper: Option<ProcessId>) -> Result<(), DriverError> {
    let Some(keeper) = keeper else { return Ok(()) };
    let deadline = Instant::now() + ANSWER_DEADLINE;
    while keeper.alive() {
        if Instant::now() >= deadline {
            // Looked at again: a keeper is only killed while it keeps nothing.
            if look(driver).await?.all.is_empty() {
                keeper.signal(Signal::KILL).map_err(DriverError::io("end a stuck keeper"))?;
            }
            return Ok(());
        }
        sleep(LOOK).await;
    }
    Ok(())
}

fn signal(ids: &[ProcessId], signal: Signal) {
    for id in ids {
        if let Err(error) = id.signal(signal) {
            tracing::warn!(pid = id.pid, %error, "cannot signal a process of the app");
        }
    }
}

fn pids(seen: &Snapshot) -> Vec<u32> {
    seen.all.iter().map(|id| id.pid).collect()
}

/// Asks the keeper over its socket.
async fn ask(driver: &ProcessDriver, cmd: Cmd) -> Result<Reply, DriverError> {
    let ask = async {
        let folder = File::open(driver.files().folder())?;
        let mut stream = UnixStream::connect(socket::address(&folder)).await?;
        let mut line = serde_json::to_vec(&Request { v: PROTOCOL, cmd })?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = String::new();
        BufReader::new(stream.take(LINE_MAX as u64)).read_line(&mut answer).await?;
        let reply: Reply = serde_json::from_str(&answer)?;
        match reply.error {
            None => Ok(reply),
            Some(error) => Err(std::io::Error::other(error)),
        }
    };
    let late = |_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut));
    timeout(ANSWER_DEADLINE, ask).await.unwrap_or_else(late).map_err(DriverError::io("ask the app's keeper"))
}
