//! Snapshots: one file each, written whole, checksummed, and only the newest is kept.
//!
//! ```text
//! magic 8 │ checksum 4 │ meta length 8 │ state length 8 │ meta │ state
//! ```

use std::{
    fmt::Debug,
    fs,
    future::Future,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    codec::{checksum, decode, encode},
    error::{Damage, StoreError},
    folder::{Folder, damaged, sync_folder, write_durably},
};
use crate::raft::types::{SameTypes, Snapshot, SnapshotMeta, TypeConfig};

/// The largest snapshot a member accepts, in bytes. A fleet's state is a few megabytes; more than this is a mistake, and
/// it is held in memory while it is sent and received.
pub(crate) const MAX_SNAPSHOT_BYTES: u64 = 256 * 1024 * 1024;

const FOLDER: &str = "snapshots";
const SUFFIX: &str = ".snapshot";
const MAGIC: &[u8; 8] = b"SOLOSNP1";
const HEADER_BYTES: usize = 8 + 4 + 8 + 8;

/// Where a state machine keeps its snapshots. Clones share it.
///
/// A member has its data folder, [`SnapshotFiles`]; a simulated member has a simulated disk, and a runtime of its own.
pub trait SnapshotPlace: Debug + Clone + Send + Sync + 'static {
    /// What the consensus library runs the state machine with.
    type Config: SameTypes;

    /// Stores a snapshot so that it survives a power cut, and removes the older ones. One that is older than the newest
    /// stored is dropped. May block.
    ///
    /// # Errors
    ///
    /// When it could not be written.
    fn save(&self, meta: &SnapshotMeta, state: &[u8]) -> io::Result<()>;

    /// Reads the newest snapshot. May block.
    ///
    /// # Errors
    ///
    /// When it is damaged or cannot be read. Older ones are gone, and so is the log they need.
    fn load(&self) -> Result<Option<Snapshot>, StoreError>;

    /// The data folder, for errors about it.
    fn path(&self) -> &Path;

    /// Does work with these snapshots where it may block.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> impl Future<Output = io::Result<T>> + Send;
}

/// The folder of snapshots. Clones share it.
#[derive(Debug, Clone)]
pub struct SnapshotFiles {
    path: PathBuf,
    folder: Arc<Folder>,
    /// One writer at a time: a snapshot that is built and one that comes in may meet.
    writing: Arc<Mutex<()>>,
}

impl SnapshotFiles {
    /// Opens the folder, and removes what a crash left unfinished.
    pub(crate) fn open(folder: Arc<Folder>) -> Result<SnapshotFiles, StoreError> {
        let path = folder.path().join(FOLDER);
        fs::create_dir_all(&path).map_err(StoreError::io("create folder", &path))?;
        sync_folder(folder.path())?;
        let files = SnapshotFiles { path, folder, writing: Arc::default() };
        for name in files.names()?.iter().filter(|name| name.ends_with(".tmp")) {
            remove(&files.path.join(name))?;
        }
        Ok(files)
    }

    /// The names of whole snapshots, the newest last.
    fn stored(&self) -> Result<Vec<String>, StoreError> {
        let mut names = self.names()?;
        names.retain(|name| name.ends_with(SUFFIX));
        names.sort();
        Ok(names)
    }

    fn names(&self) -> Result<Vec<String>, StoreError> {
        let list = || -> io::Result<Vec<String>> {
            fs::read_dir(&self.path)?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect()
        };
        list().map_err(StoreError::io("list folder", &self.path))
    }
}

impl SnapshotPlace for SnapshotFiles {
    type Config = TypeConfig;

    fn save(&self, meta: &SnapshotMeta, state: &[u8]) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // Names sort like what the snapshots cover: one index has one content, whoever was leader.
        let name = format!("{:020}{SUFFIX}", meta.last_log_id.map_or(0, |last| last.index));
        let stored = self.stored()?;
        if stored.last().is_some_and(|newest| *newest > name) {
            return Ok(());
        }
        write_durably(&self.path, &name, &to_file(meta, state)?)?;
        for older in stored.iter().filter(|stored| **stored < name) {
            remove(&self.path.join(older))?;
        }
        Ok(())
    }

    fn load(&self) -> Result<Option<Snapshot>, StoreError> {
        // Not while one is written: the newest by name could be removed between the listing and the reading.
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(name) = self.stored()?.pop() else { return Ok(None) };
        let path = self.path.join(&name);
        let content = fs::read(&path).map_err(StoreError::io("read", &path))?;
        match from_file(&content) {
            Some(snapshot) => Ok(Some(snapshot)),
            None => Err(damaged(self.path(), Damage::Record { record: format!("{FOLDER}/{name}") })),
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let files = self.clone();
        tokio::task::spawn_blocking(move || work(&files)).await.map_err(io::Error::other)?
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    fs::remove_file(path).map_err(StoreError::io("remove", path))
}

pub(super) fn to_file(meta: &SnapshotMeta, state: &[u8]) -> io::Result<Vec<u8>> {
    let meta = encode(meta)?;
    let mut content = Vec::with_capacity(HEADER_BYTES + meta.len() + state.len());
    content.extend_from_slice(MAGIC);
    content.extend_from_slice(&[0; 4]);
    content.extend_from_slice(&(meta.len() as u64).to_le_bytes());
    content.extend_from_slice(&(state.len() as u64).to_le_bytes());
    content.extend_from_slice(&meta);
    content.extend_from_slice(state);
    let sum = checksum(MAGIC, &content[12..]);
    content[8..12].copy_from_slice(&sum.to_le_bytes());
    Ok(content)
}

pub(super) fn from_file(content: &[u8]) -> Option<Snapshot> {
    let (magic, rest) = content.split_first_chunk::<8>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    if magic != MAGIC || *sum != checksum(MAGIC, rest).to_le_bytes() {
        return None;
    }
    let (meta_bytes, rest) = rest.split_first_chunk::<8>()?;
    let (state_bytes, rest) = rest.split_first_chunk::<8>()?;
    let (meta, state) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*meta_bytes)).ok()?)?;
    (state.len() as u64 == u64::from_le_bytes(*state_bytes)).then_some(())?;
    Some(Snapshot { meta: decode(meta).ok()?, snapshot: state.to_vec() })
}
