//! A member's data folder: who owns it, and that only one process uses it.
//!
//! ```text
//! identity     cluster name and member id, written once
//! lock         held while a process has the folder open
//! roll         which store this is, and which stores of others it has met (see `roll`)
//! marker       what was acknowledged: last log id and vote (see `marker`)
//! log/         the log database
//! snapshots/   the newest snapshot (see `snapshot`)
//! ```

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    error::{Damage, StoreError},
    roll::Roll,
};

const IDENTITY: &str = "identity";
const LOCK: &str = "lock";

/// How long to wait for the lock. A process that is just ending, or a child that it was just starting, holds it for a
/// moment longer; a restart should not fail over that.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The layout this release writes. A folder with a higher number was written by a later release.
const FORMAT: u32 = 1;

/// An open data folder. Dropping it lets another process in.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Kept for its lock, which ends with the file.
    _lock: File,
    /// Dropped last: whoever waits for [`Folder::closed`] then finds the lock free.
    closed: watch::Sender<()>,
}

/// Whose folder it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    format: u32,
    cluster: String,
    member: u64,
}

impl Folder {
    /// Creates the folder if there is none, locks it, and checks its owner.
    pub(crate) fn open(path: &Path, cluster: &str, member: u64) -> Result<Folder, StoreError> {
        Folder::open_in(path, cluster, member, 0)
    }

    /// The same; one that is made belongs to this era of the cluster.
    pub(crate) fn open_in(path: &Path, cluster: &str, member: u64, era: u64) -> Result<Folder, StoreError> {
        let missing = path.ancestors().take_while(|folder| !folder.exists()).count();
        fs::create_dir_all(path).map_err(StoreError::io("create data folder", path))?;
        let lock = lock(path)?;
        let wanted = Identity { format: FORMAT, cluster: cluster.to_owned(), member };
        match read_identity(path)? {
            None => {
                // Before anything is in it: a folder whose own name a power cut takes away would begin again as a new one.
                sync_parents(path, missing.max(1))?;
                Roll::create(path, era)?;
                write_durably(path, IDENTITY, &identity_text(&wanted, path)?)?;
            }
            Some(found) if found.format > FORMAT => {
                let detail =
                    format!("format {} is from a later release, this one knows {FORMAT}", found.format);
                return Err(damaged(path, Damage::File { file: IDENTITY, detail }));
            }
            Some(found) if found.cluster != wanted.cluster || found.member != wanted.member => {
                return Err(StoreError::WrongOwner {
                    path: path.to_owned(),
                    cluster: wanted.cluster,
                    member,
                    found_cluster: found.cluster,
                    found_member: found.member,
                });
            }
            Some(_) => {}
        }
        Ok(Folder { path: path.to_owned(), _lock: lock, closed: watch::Sender::new(()) })
    }

    /// Where the folder is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A receiver whose `changed` fails once the folder is closed and unlocked.
    pub(crate) fn closed(&self) -> watch::Receiver<()> {
        self.closed.subscribe()
    }
}

/// A [`StoreError::Damaged`] for this folder.
pub(crate) fn damaged(path: &Path, damage: Damage) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), damage }
}

/// Makes the names in a folder durable, after a file was created, renamed or removed in it.
pub(crate) fn sync_folder(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(StoreError::io("sync folder", path))
}

/// Makes a folder's own name durable, and the names of this many folders in all that it lies in.
fn sync_parents(path: &Path, names: usize) -> Result<(), StoreError> {
    let path = std::path::absolute(path).map_err(StoreError::io("find", path))?;
    path.ancestors().skip(1).take(names).try_for_each(|folder| match sync_folder(folder) {
        // What may not be read was made by somebody else, long before.
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        result => result,
    })
}

/// Writes a whole file so that after a crash either none of it or all of it is there.
pub(crate) fn write_durably(folder: &Path, name: &str, content: &[u8]) -> Result<(), StoreError> {
    let temporary = folder.join(format!("{name}.tmp"));
    let mut file = File::create(&temporary).map_err(StoreError::io("create", &temporary))?;
    file.write_all(content).map_err(StoreError::io("write", &temporary))?;
    file.sync_all().map_err(StoreError::io("sync", &temporary))?;
    let path = folder.join(name);
    fs::rename(&temporary, &path).map_err(StoreError::io("rename a temporary file to", &path))?;
    sync_folder(folder)
}

fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join(LOCK);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(StoreError::io("open", &path))?;
    let patience = Instant::now() + LOCK_PATIENCE;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if Instant::now() < patience => thread::sleep(LOCK_PAUSE),
            Err(Errno::WOULDBLOCK) => return Err(StoreError::InUse { path: folder.to_owned() }),
            Err(errno) => return Err(StoreError::Io { doing: "lock", path, source: errno.into() }),
        }
    }
}

fn read_identity(folder: &Path) -> Result<Option<Identity>, StoreError> {
    let path = folder.join(IDENTITY);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| damaged(folder, Damage::File { file: IDENTITY, detail: error.to_string() })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", path)(error)),
    }
}

fn identity_text(identity: &Identity, folder: &Path) -> Result<Vec<u8>, StoreError> {
    let mut text = serde_json::to_vec(identity)
        .map_err(|error| StoreError::io("encode the identity of", folder)(error.into()))?;
    text.push(b'\n');
    Ok(text)
}
