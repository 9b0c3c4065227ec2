//! Ending the app in order: SIGTERM, the grace, SIGKILL; sooner when it holds on to nothing any more; and what that cut off.

use std::net::SocketAddr;
use std::time::Duration;

use soloist_core::ids::Launch;
use soloist_core::quiet::bounded;
use tokio::time::{sleep, timeout};

use crate::driver::{Driver as _, DriverError, ProcessDriver, StopOutcome};
use crate::let_go::{Sessions, let_go, listens};
use crate::profile::Profile;
use crate::work::{Work, WorkLog};

/// How long the look at what a stop may cut off can delay what is said of the stop.
const LOOK_MAX: Duration = Duration::from_secs(3);
/// How long the app's settings may take to be read before a stop goes on without them.
const SETTINGS_MAX: Duration = Duration::from_secs(2);
/// An execution is started in the database some milliseconds before the app's log says so.
const LOG_LATE: Duration = Duration::from_millis(300);

/// Time between SIGTERM and SIGKILL where the app's settings cannot be read in time.
const GRACE_UNKNOWN: Duration = Duration::from_secs(90);

/// An app that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// Its launch.
    pub launch: Launch,
    /// When it was launched, by the wall clock.
    pub started_unix_ms: u64,
}

/// Time between SIGTERM and SIGKILL where nobody says anything else.
pub(crate) async fn usual_grace(profile: &Profile) -> Duration {
    timeout(SETTINGS_MAX, profile.grace()).await.unwrap_or(GRACE_UNKNOWN)
}

/// A log of which nothing was read yet.
pub(crate) async fn new_log(profile: &Profile, driver: &ProcessDriver, launch: Launch) -> WorkLog {
    WorkLog::new(&driver.files().log(), launch, profile.log_has_lines().await)
}

/// What runs inside the app, by the database and the app's log. The log is given back for the next look.
pub(crate) async fn look_inside(
    profile: &Profile,
    log: WorkLog,
    running: Running,
) -> (Option<WorkLog>, Result<Vec<Work>, String>) {
    // The database first: what it names has its line in the log afterwards.
    let unfinished = match profile.unfinished().await {
        Ok(unfinished) => unfinished,
        Err(why) => return (Some(log), Err(why)),
    };
    let since = running.started_unix_ms;
    let read = match read_on(log).await {
        Ok(log) if unfinished.here(&log, since).is_empty() && unfinished.unsaid(&log) => {
            sleep(LOG_LATE).await;
            read_on(log).await
        }
        read => read,
    };
    match read {
        Ok(log) => {
            let works = unfinished.here(&log, since);
            (Some(log), Ok(works))
        }
        Err(why) => (None, Err(why)),
    }
}

async fn read_on(mut log: WorkLog) -> Result<WorkLog, String> {
    let read = tokio::task::spawn_blocking(move || log.read().map(|()| log));
    match read.await {
        Ok(read) => read.map_err(|error| format!("the app's log cannot be read: {error}")),
        Err(error) => Err(format!("the look at the app's log ended early: {error}")),
    }
}

/// Stops the app. What was cut off is `None` where nothing ran.
pub(crate) async fn end(
    profile: &Profile,
    driver: &ProcessDriver,
    running: Option<Running>,
    grace: Duration,
    may_kill: bool,
) -> (Result<StopOutcome, DriverError>, Option<Vec<String>>) {
    let Some(running) = running else { return (driver.stop(grace, may_kill).await, None) };
    let before = async {
        if !profile.tells_work() {
            return Vec::new();
        }
        let look = async {
            let log = new_log(profile, driver, running.launch).await;
            look_inside(profile, log, running).await.1
        };
        let works = match timeout(LOOK_MAX, look).await {
            Ok(works) => works,
            Err(_) => Err("the database does not answer in time".into()),
        };
        works.unwrap_or_else(|why| {
            tracing::warn!(%why, "it is not known what the stop cuts off");
            Vec::new()
        })
    };
    let listener = timeout(SETTINGS_MAX, profile.listener()).await.ok().flatten();
    let stop = end_soon(driver, listener, || profile.sessions(), grace, may_kill);
    // The look takes some milliseconds, and whatever ends in them ends by itself.
    let (outcome, works) = tokio::join!(stop, before);
    let stopped = matches!(outcome, Ok(StopOutcome::Stopped { .. }));
    if works.is_empty() || !stopped {
        return (outcome, stopped.then(Vec::new));
    }
    let cut = match profile.unfinished().await {
        Ok(unfinished) => unfinished.left(&works).into_iter().map(|work| work.text).collect(),
        Err(why) => {
            tracing::warn!(%why, "it is not known what the stop cut off");
            works.into_iter().map(|work| format!("perhaps {}", work.text)).collect::<Vec<_>>()
        }
    };
    for work in &cut {
        tracing::warn!(%work, "cut off by the stop");
    }
    (outcome, Some(bounded(cut)))
}

/// Stops the app, and kills what stays of it once it has closed the port that it listened on, and its sessions in the database.
///
/// # Errors
/// Those of the driver's stop.
pub async fn end_soon<S, F>(
    driver: &ProcessDriver,
    listener: Option<SocketAddr>,
    sessions: S,
    grace: Duration,
    may_kill: bool,
) -> Result<StopOutcome, DriverError>
where
    S: Fn() -> F,
    F: Future<Output = Sessions>,
{
    let stop = driver.stop(grace, may_kill);
    // An app that did not listen before its stop has no port to close.
    let Some(listener) = listener.filter(|_| may_kill) else { return stop.await };
    if !listens(listener).await {
        return stop.await;
    }
    tokio::pin!(stop);
    // Cancel-safe: the stop is waited for again below, and a look loses nothing.
    tokio::select! {
        outcome = &mut stop => return outcome,
        () = let_go(listener, sessions) => {}
    }
    tracing::info!("the app has closed its port and its database sessions: what is left of it is killed");
    // A second stop tightens the first one. Both wait for the end.
    let (outcome, tightened) = tokio::join!(stop, driver.stop(Duration::ZERO, true));
    if let Err(error) = tightened {
        tracing::warn!(%error, "what is left of the app could not be killed before its grace is over");
    }
    outcome
}
