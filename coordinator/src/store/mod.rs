//! What a member keeps on disk, and the state built from it.
//!
//! | part | where | why there |
//! |---|---|---|
//! | log, vote | redb, a transaction for each group of the `flusher` | whole transactions after a power cut, ordered keys |
//! | what was acknowledged | `marker` | notices a database that is older than what was promised |
//! | whose memory this is | `roll` | notices an empty folder and an older copy, by what the other members have met |
//! | snapshots | `snapshot` files | written once, read as a whole, sent as they are |
//! | events, for longer, and agents' records | sled, `archive`, `records` | many small writes that nobody waits for, and nobody misses |
//! | state | memory, `machine` | built from the newest snapshot and the log |
//!
//! Architecture invariant: nothing is acknowledged, to a client or to another member, before it is on the disk; and what
//! was acknowledged and is not there when the folder is opened again is an error that names the way out, never a silent
//! start with less. No other module knows how anything is stored.

mod archive;
mod backup;
mod check;
pub(crate) mod codec;
mod disk;
mod error;
mod flusher;
mod folder;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod hostile;
mod log;
mod machine;
mod marker;
mod pending;
mod records;
mod roll;
mod snapshot;

use std::{collections::BTreeMap, path::Path, sync::Arc};

pub use archive::{ARCHIVE_EVENTS_MAX, Archive};
pub use backup::{BackupHeader, RestoreError, restore, to_backup};
pub use error::{Damage, StoreError};
pub use log::LogStore;
pub use machine::{Machine, SnapshotBuilder, StoreHandle};
pub use records::{RECORDS_MAX, RecordPlace};
pub use roll::{Passport, Roll, Stranger};
pub use snapshot::{SnapshotFiles, SnapshotPlace};
use tokio::sync::watch;

pub(crate) use backup::{forget_predecessors, header};
pub(crate) use disk::MAX_COMMAND_BYTES;
pub(crate) use log::MAX_READ_BYTES;
pub(crate) use snapshot::MAX_SNAPSHOT_BYTES;

/// An open data folder.
#[derive(Debug)]
pub struct Store {
    /// The log and the vote.
    pub log: LogStore,
    /// The state, as of the newest snapshot.
    pub machine: Machine,
    /// The highest feature level of an entry in the log, with its index.
    level: (u32, u64),
    /// Which store this is, and which stores of others it has met.
    pub roll: Arc<Roll>,
    /// The members of its cluster as far as it knows, with their addresses.
    pub members: BTreeMap<u64, String>,
    /// The members of the cluster from whose backup it was made, until they were looked for.
    pub predecessors: Option<BTreeMap<u64, String>>,
    /// Index of the last entry in its log.
    pub last: Option<u64>,
    folder: watch::Receiver<()>,
}

impl Store {
    /// Opens a member's data folder, or creates it, and checks all of it. Blocks; takes longer the longer the log is.
    ///
    /// # Errors
    ///
    /// When the folder is in use, belongs to another member or cluster, or does not hold what was acknowledged.
    pub fn open(path: &Path, cluster: &str, member: u64) -> Result<Store, StoreError> {
        backup::finished(path)?;
        let folder = Arc::new(folder::Folder::open(path, cluster, member)?);
        let closed = folder.closed();
        // The marker is created before the database. So a database without a marker is never a new folder.
        if !marker::Marker::exists(path) && !disk::Disk::exists(path) {
            marker::Marker::create(path)?;
        }
        let roll = Arc::new(roll::Roll::open(path)?);
        let mut marker = marker::Marker::open(path)?;
        let disk = disk::Disk::open(&folder)?;
        let contents = check::check(&disk, marker.mark(), path)?;
        let files = snapshot::SnapshotFiles::open(folder.clone())?;
        let machine = Machine::open(files, contents.purged)?;
        // What was found may be more than was acknowledged, and will be answered for from now on.
        disk.sync()?;
        marker.set(contents.mark())?;
        let members = contents.members.clone().unwrap_or_else(|| machine.members());
        let last = contents.last.map(|last| last.index);
        let log = LogStore::start(folder, disk, marker, &contents)?;
        let (level, predecessors) = (contents.level, backup::predecessors(path)?);
        Ok(Store { log, machine, level, roll, members, predecessors, last, folder: closed })
    }

    /// Holds the member back to a feature level: what is of a higher one stops it.
    ///
    /// # Errors
    ///
    /// When the folder holds something of a higher level already.
    pub(crate) fn limit(&mut self, max: u32) -> Result<(), StoreError> {
        self.machine.limit(max)?;
        let (found, index) = self.level;
        if found > max {
            return Err(StoreError::TooNew { what: format!("log entry {index}"), found, max });
        }
        Ok(())
    }

    /// A receiver whose `changed` fails once everything in the folder is closed and another process may open it.
    pub(crate) fn closed(&self) -> watch::Receiver<()> {
        self.folder.clone()
    }
}
