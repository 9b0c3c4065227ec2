//! What runs: from the keeper's record, and from the process table, which has the last word.

use std::time::{Duration, Instant};

use soloist_core::ids::BootId;

use super::process::Shared;
use super::{AppSeen, DriverError};
use crate::host::{ProcessId, scan_marked};
use crate::keeper::{ExitHow, ExitInfo, KeeperRecord, VERSION, everything};

/// How long a living keeper may take to record the end of its app: one small synced write.
const RECORD_DEADLINE: Duration = Duration::from_secs(1);

/// The last record and what lives of it now.
pub(super) struct Snapshot {
    pub(super) record: Option<KeeperRecord>,
    pub(super) boot: BootId,
    /// The keeper, if it lives.
    pub(super) keeper: Option<ProcessId>,
    /// The app's main process, if it lives.
    pub(super) main: Option<ProcessId>,
    /// Every live process of the app.
    pub(super) all: Vec<ProcessId>,
}

/// Looks at everything once. Blocks for some milliseconds.
pub(super) fn snapshot(shared: &Shared) -> Result<Snapshot, DriverError> {
    let boot = shared.options.host.boot_id()?;
    let record = shared.files.read_keeper().map_err(DriverError::io("read the keeper's record"))?;
    // Ids of another boot mean nothing in this one.
    let current = record.as_ref().filter(|record| record.boot == boot);
    let keeper = current.map(|record| record.keeper).filter(|keeper| keeper.alive());
    let main = current.and_then(|record| record.app).filter(|app| app.alive());
    let mut all = match (keeper, main) {
        (Some(keeper), _) => everything(keeper.pid, &shared.marker),
        (None, Some(main)) => everything(main.pid, &shared.marker),
        (None, None) => scan_marked(&shared.marker),
    }
    .map_err(DriverError::io("look for the app's processes"))?;
    if let Some(main) = main.filter(|main| main.alive() && !all.contains(main)) {
        all.push(main);
    }
    Ok(Snapshot { record, boot, keeper, main, all })
}

/// The driver's `observe`.
pub(super) fn observe(shared: &Shared) -> Result<AppSeen, DriverError> {
    let seen = snapshot(shared)?;
    let current = seen.record.as_ref().filter(|record| record.boot == seen.boot);
    if !seen.all.is_empty() {
        return Ok(AppSeen::Running {
            main: seen.main,
            launch: current.map(|record| record.launch),
            generation: current.and_then(|record| record.generation),
            keeper_alive: seen.keeper.is_some(),
            pids: seen.all.iter().map(|id| id.pid).collect(),
            started_unix_ms: current.map_or(0, |record| record.started_unix_ms),
        });
    }
    let exit = match &seen.record {
        Some(record) if seen.keeper.is_some() => await_exit(shared, record)?,
        _ => shared.files.read_exit().map_err(DriverError::io("read how the app ended"))?,
    };
    Ok(AppSeen::NotRunning { last_exit: last_exit(seen.record, exit) })
}

/// The app has ended and its keeper lives: it is about to record the end.
fn await_exit(shared: &Shared, record: &KeeperRecord) -> Result<Option<ExitInfo>, DriverError> {
    let begun = Instant::now();
    loop {
        let last_look = !record.keeper.alive() || begun.elapsed() > RECORD_DEADLINE;
        let exit = shared.files.read_exit().map_err(DriverError::io("read how the app ended"))?;
        if last_look || exit.as_ref().is_some_and(|exit| exit.launch == record.launch) {
            return Ok(exit);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The end of the last launch: as recorded, or unseen.
fn last_exit(record: Option<KeeperRecord>, exit: Option<ExitInfo>) -> Option<ExitInfo> {
    let Some(record) = record else { return exit };
    let unseen = ExitInfo {
        v: VERSION,
        launch: record.launch,
        boot: record.boot,
        how: ExitHow::Unseen,
        asked: false,
        ended_unix_ms: 0,
    };
    Some(exit.filter(|exit| exit.launch == record.launch).unwrap_or(unseen))
}
