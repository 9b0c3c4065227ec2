//! Drivers run the app for the agent. They hold no policy: what may run is decided before they are called.
//!
//! A driver must be right after any crash: of the agent, of the app, of the keeper between them, of the host. So
//! every driver can say from the outside what runs ([`Driver::observe`]), and never from memory alone.

mod observe;
mod process;
mod spawn;
mod stop;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, io};

use soloist_core::ids::{Generation, Launch};

use crate::host::{IdentityError, ProcessId};
use crate::keeper::{ExitInfo, LogBounds};

pub use process::{ProcessDriver, ProcessDriverOptions};
pub use spawn::Scope;

/// A program with everything that it needs to start.
#[derive(Clone, PartialEq, Eq)]
pub struct AppCommand {
    /// Program and arguments; a program without a slash is looked for in `PATH` of `env`.
    pub argv: Vec<String>,
    /// The complete environment.
    pub env: BTreeMap<String, String>,
    /// Working folder.
    pub cwd: PathBuf,
    /// In how many processes the app runs by it, beside the main process where it is more than one.
    pub processes: u32,
}

impl fmt::Debug for AppCommand {
    // The environment holds passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppCommand").field("argv", &self.argv).field("cwd", &self.cwd).finish_non_exhaustive()
    }
}

/// One start of the app. The ledger names the same launch before the driver is called.
#[derive(Debug, Clone)]
pub struct LaunchPlan {
    /// The launch's own number.
    pub launch: Launch,
    /// Generation of the assignment that asks for it.
    pub generation: Option<Generation>,
    /// What to run.
    pub command: AppCommand,
    /// Time between SIGTERM and giving up, when the keeper itself is told to end (host shutdown).
    pub grace: Duration,
    /// Bounds of the app's log.
    pub log: LogBounds,
}

/// What a driver sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppSeen {
    /// No process of the app lives.
    NotRunning {
        /// How it ended last, if it ever ran.
        last_exit: Option<ExitInfo>,
    },
    /// At least one process of the app lives.
    Running {
        /// The main process; `None` when only descendants of it are left, or it is not known.
        main: Option<ProcessId>,
        /// The launch it belongs to, where known.
        launch: Option<Launch>,
        /// Generation of the assignment under which it was launched, where known.
        generation: Option<Generation>,
        /// Whether its keeper lives; without one the app is alive all the same, but nobody records its end.
        keeper_alive: bool,
        /// All live processes.
        pids: Vec<u32>,
        /// Wall clock at exec, in milliseconds since 1970; 0 if not known.
        started_unix_ms: u64,
    },
}

impl AppSeen {
    /// Whether any process of the app lives.
    pub fn runs(&self) -> bool {
        matches!(self, AppSeen::Running { .. })
    }
}

/// How a stop ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopOutcome {
    /// Nothing of the app is left; it was looked for.
    Stopped {
        /// How it came to that.
        how: StopHow,
    },
    /// The grace is over and nothing may be killed.
    StillRunning {
        /// What still runs.
        pids: Vec<u32>,
    },
}

/// How the app was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopHow {
    /// Nothing ran.
    NothingRan,
    /// It ended within the grace.
    Ended,
    /// It was killed after the grace.
    Killed,
}

/// A driver could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The app was not started, and this launch never will be.
    #[error("the app was not started: {0}")]
    Refused(String),
    /// Nothing was heard of the start in time: the app may start yet, until its ticket is taken away.
    #[error("the app's keeper did not report within {} s; take its ticket away and stop the app before trying again", .0.as_secs())]
    Slow(Duration),
    /// Killed processes do not go away.
    #[error(
        "processes {0:?} do not end after SIGKILL (uninterruptible I/O on a hung mount?); restart the host if they stay"
    )]
    Unkillable(Vec<u32>),
    /// The host did not do its part.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The boot cannot be told.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl DriverError {
    fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// Starts, stops and observes one app.
pub trait Driver: Send + Sync {
    /// Starts the app and returns once it executes. At most one app runs and a launch runs at most once, whatever
    /// is called how often.
    fn start(&self, plan: LaunchPlan) -> impl Future<Output = Result<(), DriverError>> + Send;

    /// Ends the app: asks it to, waits for `grace`, and kills what is left if it may. The caller has taken the
    /// ticket away under the exec lock before, so that nothing starts behind its back.
    fn stop(
        &self,
        grace: Duration,
        may_kill: bool,
    ) -> impl Future<Output = Result<StopOutcome, DriverError>> + Send;

    /// Looks at what runs, whoever started this agent or its predecessor.
    fn observe(&self) -> impl Future<Output = Result<AppSeen, DriverError>> + Send;

    /// Resolves once something is different from what was seen: the app or its keeper ended, or the app runs.
    /// Cancel-safe.
    fn changed(&self, seen: &AppSeen) -> impl Future<Output = ()> + Send;
}
