//! The log database: sled, used so that "written" means "on the disk".
//!
//! Three habits of sled 0.34 decide how it is used here:
//!
//! - Its `flush` hands everything to the kernel and starts the write-out, but does not wait for the disk. So this module
//!   keeps a file handle of its own on the database file and syncs that after every flush.
//! - A tree node larger than a quarter of a segment goes to a file of its own, which is never synced. So segments are large
//!   and entries are limited, and snapshots are not kept here at all. Should there be such a file, it is synced too.
//! - Damage may be invisible when it opens. So every value is sealed, and [`super::check`] looks at all of it.

use std::{
    fs::{self, File},
    io,
    ops::{Bound, RangeBounds},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    codec::{decode, encode, seal, unseal},
    error::{Damage, StoreError},
    folder::{Folder, damaged, sync_folder},
};
use crate::raft::types::LogEntry;

/// The largest encoded command that a leader accepts, in bytes.
///
/// A tree node is split when it has more than 16 entries. Thirty of this size still fit in a quarter of a segment.
pub(crate) const MAX_COMMAND_BYTES: usize = 64 * 1024;
const SEGMENT_BYTES: usize = 8 * 1024 * 1024;

/// Memory for the database's pages. The log's tail, which is all that is read in normal work, is far smaller.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;

/// How often and how long to wait for the database's own lock: a database that was just closed in this process
/// releases it from a background thread. Other processes are kept out by the folder's lock.
const OPEN_ATTEMPTS: u32 = 40;
const OPEN_PAUSE: Duration = Duration::from_millis(50);

const DATABASE: &str = "log";
/// sled's main file.
const DATABASE_FILE: &str = "db";
/// sled's folder for large nodes.
const LARGE_NODES: &str = "blobs";

/// A single value beside the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell {
    /// The vote.
    Vote,
    /// Up to where the log was removed at its start.
    Purged,
    /// Up to where the log is known to be committed. A hint that shortens recovery; nothing depends on it.
    Committed,
}

impl Cell {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Cell::Vote => "vote",
            Cell::Purged => "purged",
            Cell::Committed => "committed",
        }
    }
}

/// The open database.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: PathBuf,
    path: PathBuf,
    log: sled::Tree,
    cells: sled::Tree,
    db: sled::Db,
    file: File,
}

impl Disk {
    /// Whether the folder has a database.
    pub(crate) fn exists(folder: &Path) -> bool {
        folder.join(DATABASE).join(DATABASE_FILE).exists()
    }

    /// Opens the database, and makes everything that it recovered durable.
    pub(crate) fn open(folder: &Folder) -> Result<Disk, StoreError> {
        let path = folder.path().join(DATABASE);
        let db = open_database(&path, folder.path())?;
        let failed = |source: sled::Error| database("open", &path, source);
        let log = db.open_tree("log").map_err(failed)?;
        let cells = db.open_tree("cells").map_err(failed)?;
        let file_path = path.join(DATABASE_FILE);
        let file = File::options()
            .read(true)
            .write(true)
            .open(&file_path)
            .map_err(StoreError::io("open", &file_path))?;
        let disk = Disk { folder: folder.path().to_owned(), path, log, cells, db, file };
        disk.sync()?;
        sync_folder(&disk.path)?;
        sync_folder(folder.path())?;
        Ok(disk)
    }

    /// Returns when everything written before is on the disk. An error here is final: nobody knows then which writes the
    /// kernel has dropped, and a second try that succeeds proves nothing.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(|source| database("flush", &self.path, source))?;
        self.sync_large_nodes()?;
        self.file.sync_data().map_err(StoreError::io("sync", self.path.join(DATABASE_FILE)))
    }

    /// Entries are limited so that there are none of these; but an acknowledgement must not depend on that.
    fn sync_large_nodes(&self) -> Result<(), StoreError> {
        let folder = self.path.join(LARGE_NODES);
        let files = match fs::read_dir(&folder) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(StoreError::io("list folder", folder)(error)),
        };
        let mut any = false;
        for file in files {
            let path = file.map_err(StoreError::io("list folder", &folder))?.path();
            match File::open(&path).and_then(|file| file.sync_all()) {
                Ok(()) => any = true,
                // The database removes those that it no longer needs.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(StoreError::io("sync", path)(error)),
            }
        }
        if any { sync_folder(&folder) } else { Ok(()) }
    }

    /// Reads a cell.
    pub(crate) fn get<T: DeserializeOwned>(&self, cell: Cell) -> Result<Option<T>, StoreError> {
        let key = cell.name().as_bytes();
        let Some(sealed) = self.cells.get(key).map_err(|source| self.reading(source))? else {
            return Ok(None);
        };
        self.open_value(key, &sealed, || cell.name().to_owned()).map(Some)
    }

    /// Writes a cell. It is on the disk after the next [`Disk::sync`].
    pub(crate) fn put<T: Serialize>(&self, cell: Cell, value: &T) -> io::Result<()> {
        let key = cell.name().as_bytes();
        let sealed = seal(key, &encode(value)?);
        self.cells.insert(key, sealed).map_err(|source| database("write to", &self.path, source))?;
        Ok(())
    }

    /// Adds entries, all or none. They can be read at once, and are on the disk after the next [`Disk::sync`].
    pub(crate) fn insert(&self, entries: impl IntoIterator<Item = LogEntry>) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        for entry in entries {
            let key = entry.log_id.index.to_be_bytes();
            batch.insert(&key, seal(&key, &encode(&entry)?));
        }
        self.log.apply_batch(batch).map_err(|source| database("append to", &self.path, source))?;
        Ok(())
    }

    /// The entries in a range of indexes, in order.
    pub(crate) fn entries(
        &self,
        range: impl RangeBounds<u64>,
    ) -> impl DoubleEndedIterator<Item = Result<LogEntry, StoreError>> + '_ {
        self.sized_entries(range).map(|entry| entry.map(|(entry, _)| entry))
    }

    fn sized_entries(
        &self,
        range: impl RangeBounds<u64>,
    ) -> impl DoubleEndedIterator<Item = Result<(LogEntry, usize), StoreError>> + '_ {
        let bounds = (key_bound(range.start_bound()), key_bound(range.end_bound()));
        self.log.range(bounds).map(|pair| {
            let (key, sealed) = pair.map_err(|source| self.reading(source))?;
            let entry: LogEntry = self.open_value(&key, &sealed, || entry_name(&key))?;
            if entry.log_id.index.to_be_bytes() != *key {
                return Err(damaged(&self.folder, Damage::Record { record: entry_name(&key) }));
            }
            Ok((entry, sealed.len()))
        })
    }

    /// The first entries in a range of indexes, at least one if there is any, until they have this size together.
    pub(crate) fn first_entries(
        &self,
        range: impl RangeBounds<u64>,
        max_bytes: usize,
    ) -> Result<Vec<LogEntry>, StoreError> {
        let mut bytes = 0;
        self.sized_entries(range)
            .take_while(|entry| {
                let room = bytes < max_bytes;
                bytes += entry.as_ref().map_or(0, |(_, size)| *size);
                room
            })
            .map(|entry| entry.map(|(entry, _)| entry))
            .collect()
    }

    /// Removes all entries from an index on, the highest first: a crash in between leaves no hole.
    pub(crate) fn remove_from(&self, first: u64) -> Result<(), StoreError> {
        for pair in self.log.range(first.to_be_bytes()..).rev() {
            let (key, _) = pair.map_err(|source| self.reading(source))?;
            self.log.remove(key).map_err(|source| database("truncate", &self.path, source))?;
        }
        Ok(())
    }

    /// Removes all entries up to an index, inclusive. [`Cell::Purged`] must be on the disk already.
    pub(crate) fn remove_up_to(&self, last: u64) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for pair in self.log.range(..=last.to_be_bytes()) {
            let (key, _) = pair.map_err(|source| self.reading(source))?;
            batch.remove(key);
        }
        self.log.apply_batch(batch).map_err(|source| database("purge", &self.path, source))
    }

    fn open_value<T: DeserializeOwned>(
        &self,
        key: &[u8],
        sealed: &[u8],
        name: impl Fn() -> String,
    ) -> Result<T, StoreError> {
        unseal(key, sealed)
            .and_then(|value| decode(value).ok())
            .ok_or_else(|| damaged(&self.folder, Damage::Record { record: name() }))
    }

    fn reading(&self, source: sled::Error) -> StoreError {
        database("read", &self.path, source)
    }
}

fn open_database(path: &Path, folder: &Path) -> Result<sled::Db, StoreError> {
    let config = sled::Config::new()
        .path(path)
        .mode(sled::Mode::HighThroughput)
        .segment_size(SEGMENT_BYTES)
        .cache_capacity(CACHE_BYTES)
        // Flushing is the flusher's work; a second flusher would only compete with it.
        .flush_every_ms(None);
    let mut attempt = 1;
    loop {
        match config.open() {
            Ok(db) => return Ok(db),
            Err(sled::Error::Io(error)) if attempt < OPEN_ATTEMPTS && is_locked(&error) => {
                attempt += 1;
                thread::sleep(OPEN_PAUSE);
            }
            Err(error @ (sled::Error::Corruption { .. } | sled::Error::ReportableBug(_))) => {
                return Err(damaged(folder, Damage::Database { detail: error.to_string() }));
            }
            Err(error) => return Err(database("open", path, error)),
        }
    }
}

/// sled wraps the lock's error in a text of its own.
fn is_locked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.to_string().contains("could not acquire lock")
}

fn database(doing: &'static str, path: &Path, source: sled::Error) -> StoreError {
    StoreError::Database { doing, path: path.to_owned(), source: source.into() }
}

fn entry_name(key: &[u8]) -> String {
    match <[u8; 8]>::try_from(key) {
        Ok(index) => format!("log entry {}", u64::from_be_bytes(index)),
        Err(_) => format!("log entry with key {key:02x?}"),
    }
}

fn key_bound(bound: Bound<&u64>) -> Bound<[u8; 8]> {
    bound.map(|index| index.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use openraft::{EntryPayload, entry::RaftEntry};

    use super::*;
    use crate::raft::types::{LeaderId, LogId};

    fn entry(index: u64) -> LogEntry {
        let leader_id = LeaderId { term: 1, node_id: 1 };
        LogEntry::new(LogId { leader_id, index }, EntryPayload::Blank)
    }

    fn open() -> (tempfile::TempDir, Disk) {
        let path = tempfile::tempdir().unwrap();
        let disk = Disk::open(&Folder::open(path.path(), "test", 1).unwrap()).unwrap();
        disk.insert((0..10).map(entry)).unwrap();
        (path, disk)
    }

    #[test]
    fn a_record_with_a_wrong_checksum_is_named() {
        let (_path, disk) = open();
        let key = 3_u64.to_be_bytes();
        let elsewhere = disk.log.get(4_u64.to_be_bytes()).unwrap().unwrap();
        // Sound in itself, but not under this key.
        disk.log.insert(key, elsewhere).unwrap();
        let error = disk.entries(..).find_map(Result::err).unwrap().to_string();
        assert!(error.contains("log entry 3"), "{error}");
        disk.cells.insert(Cell::Vote.name(), b"junk").unwrap();
        let error = disk.get::<u64>(Cell::Vote).unwrap_err().to_string();
        assert!(error.contains("record vote"), "{error}");
    }

    #[test]
    fn reading_is_limited_but_goes_on() {
        let (_path, disk) = open();
        assert_eq!(disk.first_entries(2..8, 1).unwrap(), [entry(2)]);
        assert_eq!(disk.first_entries(2..8, usize::MAX).unwrap().len(), 6);
        assert_eq!(disk.first_entries(8..8, 1).unwrap(), []);
    }
}
