//! The one moment in which an app starts: under the exec lock, with the ledger's permission.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use soloist_core::ids::{BootId, Launch};

use super::files::{KeeperFiles, KeeperRecord, LaunchFile, VERSION, unix_ms};
use super::log::AppLog;
use crate::host::{IdentityError, Marker, ProcessId, scan_marked};
use crate::ledger::{self, LedgerError};

/// Why a keeper did not start the app.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("another keeper of this node runs already")]
    SecondKeeper,
    #[error("the ledger does not permit launch {0} (a stop or another launch came first)")]
    NotPermitted(Launch),
    #[error("launch {0} was executed before; every launch runs once")]
    Used(Launch),
    #[error("the launch file is not for launch {0} (another launch came first)")]
    OtherLaunch(Launch),
    #[error(
        "the launch file has version {0}, which this keeper does not know; use the keeper of the agent's own version"
    )]
    Version(u32),
    #[error("processes of this node still run: {0:?}")]
    StillRunning(Vec<u32>),
    #[error("cannot execute {program} in {cwd}: {source}")]
    Exec { program: String, cwd: String, source: io::Error },
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("cannot {what}: {source}")]
    Io { what: &'static str, source: io::Error },
}

impl Refusal {
    pub(super) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Refusal {
        move |source| Refusal::Io { what, source }
    }
}

/// A started app.
pub(super) struct Started {
    pub(super) app: ProcessId,
    pub(super) boot: BootId,
}

/// Starts the app if everything permits it. All of it happens under the exec lock, which a stop takes too.
pub(super) fn exec(
    files: &KeeperFiles,
    plan: &LaunchFile,
    boot: BootId,
    log: &AppLog,
) -> Result<Started, Refusal> {
    let _lock = files.exec_lock().map_err(Refusal::io("take the exec lock"))?;
    let ledger = ledger::read(&files.ledger())?.unwrap_or_default();
    if !ledger.may_exec(plan.launch, &boot) {
        return Err(Refusal::NotPermitted(plan.launch));
    }
    let last = files.read_keeper().map_err(Refusal::io("read the last keeper's record"))?;
    if last.is_some_and(|record| record.launch == plan.launch) {
        return Err(Refusal::Used(plan.launch));
    }
    let running = scan_marked(&plan.marker()).map_err(Refusal::io("look for running processes"))?;
    if !running.is_empty() {
        return Err(Refusal::StillRunning(running.iter().map(|id| id.pid).collect()));
    }
    // Used up before the exec: a keeper that dies in between leaves a launch that nobody runs again.
    let mut record = KeeperRecord {
        v: VERSION,
        launch: plan.launch,
        generation: plan.generation,
        boot: boot.clone(),
        keeper: ProcessId::own().map_err(Refusal::io("find the keeper's own process"))?,
        app: None,
        started_unix_ms: unix_ms(),
    };
    files.write_keeper(&record).map_err(Refusal::io("write the keeper's record"))?;
    // What the app writes from here on belongs to this launch. A full disk must not keep it from starting.
    let _ = log.mark(plan.launch);
    let pid = spawn(plan, log)?;
    // The child cannot be reaped by anyone else, so its entry is there even if it ended at once.
    record.app = ProcessId::of(pid);
    let app = record.app.ok_or_else(|| io::Error::other("/proc does not show the new process"));
    let app = app.map_err(Refusal::io("find the app's process"))?;
    // From here on the app runs and this keeper must stay with it: without the second record the app is still
    // found by its marker.
    let _ = files.write_keeper(&record);
    let _ = files.remove_launch();
    Ok(Started { app, boot })
}

/// Executes the program. Returns after the exec itself, so that the new process carries the marker already.
fn spawn(plan: &LaunchFile, log: &AppLog) -> Result<u32, Refusal> {
    let error = |source| Refusal::Exec {
        program: plan.argv.first().cloned().unwrap_or_default(),
        cwd: plan.cwd.display().to_string(),
        source,
    };
    let (program, args) = plan
        .argv
        .split_first()
        .ok_or_else(|| error(io::Error::new(io::ErrorKind::InvalidInput, "no program")))?;
    let child = Command::new(program)
        .args(args)
        .env_clear()
        .envs(&plan.env)
        .env(Marker::VARIABLE, plan.marker().value())
        .current_dir(&plan.cwd)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.handle().map_err(error)?)
        .stderr(log.handle().map_err(error)?)
        .spawn()
        .map_err(error)?;
    Ok(child.id())
}
