//! The log database: redb, used so that "written" means "on the disk".
//!
//! What is written waits in memory ([`Pending`]) and can be read at once. [`Disk::sync`] puts all of it into one transaction, which the
//! database makes durable before it returns: either all of it is there after a power cut, or none.
//!
//! redb keeps a copy-on-write tree in one file, with checksums, and goes back to the last whole transaction when it opens. What it does
//! not promise is to notice every change that others make to a file which was closed in order. So it checks its own checksums whenever it opens,
//! every value is sealed besides, and [`super::check`] looks at all of it.

use std::{
    fs, io,
    ops::{Bound, RangeBounds},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition,
};
use serde::{Serialize, de::DeserializeOwned};
use soloist_core::command::FEATURE_LEVEL;

use super::{
    codec::{decode, encode, entry_level, seal, unseal},
    error::{Damage, StoreError},
    folder::{Folder, damaged, sync_folder},
    pending::{Merged, Pending, Sealed},
};
use crate::raft::types::LogEntry;

/// The largest encoded command that a leader accepts, in bytes: far more than any command has, and little enough that a client in a
/// loop does not fill the disk.
pub(crate) const MAX_COMMAND_BYTES: usize = 64 * 1024;

/// Memory for the database's pages, in bytes. The log's tail, which is all that is read in normal work, is far smaller.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// How often and how long to wait for the database's own lock: a database that was just closed in this process may be released by
/// another thread. Other processes are kept out by the folder's lock.
const OPEN_ATTEMPTS: u32 = 40;
const OPEN_PAUSE: Duration = Duration::from_millis(50);

const DATABASE: &str = "log.redb";
/// The name under which it is made.
const UNFINISHED: &str = "log.redb.new";
/// Where an earlier build kept it, with another library.
const EARLIER: &str = "log/db";

/// Sealed entries by index.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// Sealed values by the cell's name.
const CELLS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("cells");

/// A single value beside the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
    pending: Mutex<Pending>,
    database: Database,
}

impl Disk {
    /// Whether the folder has a database, of this build or of an earlier one.
    pub(crate) fn exists(folder: &Path) -> bool {
        [DATABASE, EARLIER].iter().any(|name| folder.join(name).exists())
    }

    /// Opens the database, or makes one. What it recovered is durable then.
    pub(crate) fn open(folder: &Folder) -> Result<Disk, StoreError> {
        let path = folder.path().join(DATABASE);
        if folder.path().join(EARLIER).exists() {
            let detail = "it was written by a build from before 0.1, with another library".to_owned();
            return Err(damaged(folder.path(), Damage::Database { detail }));
        }
        if !path.exists() {
            create(folder.path())?;
        }
        let database = open_database(&path, folder.path())?;
        Ok(Disk { folder: folder.path().to_owned(), path, pending: Mutex::default(), database })
    }

    /// Returns when everything written before is on the disk. An error here is final: nobody knows then which writes the
    /// kernel has dropped, and a second try that succeeds proves nothing.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        let written = self.pending().clone();
        if written.is_empty() {
            return Ok(());
        }
        let work = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            {
                let mut log = transaction.open_table(LOG)?;
                for (index, sealed) in written.entries() {
                    log.insert(index, &sealed[..])?;
                }
                let mut cells = transaction.open_table(CELLS)?;
                for (cell, sealed) in written.cells() {
                    cells.insert(cell.name(), &sealed[..])?;
                }
            }
            // Durable when it returns: that is redb's default, and what an acknowledgement rests on.
            Ok(transaction.commit()?)
        };
        work().map_err(|source| failed("write to", &self.path, source))?;
        self.pending().forget(&written);
        Ok(())
    }

    /// Reads a cell.
    pub(crate) fn get<T: DeserializeOwned>(&self, cell: Cell) -> Result<Option<T>, StoreError> {
        let found = self.pending().cell(cell);
        let sealed = match found {
            Some(sealed) => Some(sealed),
            None => self.read_cell(cell).map_err(|source| self.reading(source))?,
        };
        sealed
            .map(|sealed| self.open_value(cell.name().as_bytes(), &sealed, || cell.name().to_owned()))
            .transpose()
    }

    fn read_cell(&self, cell: Cell) -> Result<Option<Sealed>, redb::Error> {
        let cells = self.database.begin_read()?.open_table(CELLS)?;
        Ok(cells.get(cell.name())?.map(|sealed| Arc::from(sealed.value())))
    }

    /// Writes a cell. It is on the disk after the next [`Disk::sync`].
    pub(crate) fn put<T: Serialize>(&self, cell: Cell, value: &T) -> io::Result<()> {
        let sealed = seal(cell.name().as_bytes(), &encode(value)?);
        self.pending().put(cell, sealed.into());
        Ok(())
    }

    /// Adds entries, all or none. They can be read at once, and are on the disk after the next [`Disk::sync`].
    pub(crate) fn insert(&self, entries: impl IntoIterator<Item = LogEntry>) -> io::Result<()> {
        let sealed = entries.into_iter().map(|entry| {
            let index = entry.log_id.index;
            Ok((index, Sealed::from(seal(&index.to_be_bytes(), &encode(&entry)?))))
        });
        let sealed = sealed.collect::<io::Result<Vec<_>>>()?;
        self.pending().insert(sealed);
        Ok(())
    }

    /// The entries in a range of indexes, in order.
    pub(crate) fn entries(
        &self,
        range: impl RangeBounds<u64>,
    ) -> impl Iterator<Item = Result<LogEntry, StoreError>> + '_ {
        self.sized_entries(range).map(|entry| entry.map(|(entry, _)| entry))
    }

    fn sized_entries(
        &self,
        range: impl RangeBounds<u64>,
    ) -> impl Iterator<Item = Result<(LogEntry, usize), StoreError>> + '_ {
        let (first, stored) = match self.merged((range.start_bound().cloned(), range.end_bound().cloned())) {
            Ok(stored) => (None, Some(stored)),
            Err(source) => (Some(Err(self.reading(source))), None),
        };
        let opened = stored.into_iter().flatten().map(|found| {
            let (index, sealed) = found.map_err(|source| self.reading(source.into()))?;
            Ok((self.open_entry(index, &sealed)?, sealed.len()))
        });
        first.into_iter().chain(opened)
    }

    fn merged(&self, range: (Bound<u64>, Bound<u64>)) -> Result<Merged, redb::Error> {
        // First what waits: what is written meanwhile is found in either place.
        let waiting = self.pending().range(range);
        let stored = self.database.begin_read()?.open_table(LOG)?.range(range)?;
        Ok(Merged::new(stored, waiting))
    }

    /// The last entry.
    pub(crate) fn last(&self) -> Result<Option<LogEntry>, StoreError> {
        let waiting = self.pending().last();
        let read = || -> Result<Option<(u64, Sealed)>, redb::Error> {
            let log = self.database.begin_read()?.open_table(LOG)?;
            Ok(log.last()?.map(|(index, sealed)| (index.value(), Arc::from(sealed.value()))))
        };
        let stored = read().map_err(|source| self.reading(source))?;
        let last = match (waiting, stored) {
            (Some(waiting), Some(stored)) if stored.0 > waiting.0 => Some(stored),
            (Some(waiting), _) => Some(waiting),
            (None, stored) => stored,
        };
        last.map(|(index, sealed)| self.open_entry(index, &sealed)).transpose()
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

    /// Removes all entries from an index on. They are gone from the disk when it returns.
    pub(crate) fn remove_from(&self, first: u64) -> Result<(), StoreError> {
        self.pending().remove(first..);
        self.remove("truncate", first..)
    }

    /// Removes all entries up to an index, inclusive. [`Cell::Purged`] must be on the disk already.
    pub(crate) fn remove_up_to(&self, last: u64) -> Result<(), StoreError> {
        self.pending().remove(..=last);
        self.remove("purge", ..=last)
    }

    fn remove(&self, doing: &'static str, range: impl RangeBounds<u64>) -> Result<(), StoreError> {
        let work = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            transaction.open_table(LOG)?.retain_in(range, |_, _| false)?;
            Ok(transaction.commit()?)
        };
        work().map_err(|source| failed(doing, &self.path, source))
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        // Nothing under the lock can end half-way.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_entry(&self, index: u64, sealed: &[u8]) -> Result<LogEntry, StoreError> {
        let name = || format!("log entry {index}");
        let entry: LogEntry = self.open_value(&index.to_be_bytes(), sealed, name).map_err(|error| {
            let record = unseal(&index.to_be_bytes(), sealed);
            match record.and_then(entry_level).filter(|level| *level > FEATURE_LEVEL) {
                Some(found) => StoreError::TooNew { what: name(), found, max: FEATURE_LEVEL },
                None => error,
            }
        })?;
        if entry.log_id.index != index {
            return Err(damaged(&self.folder, Damage::Record { record: name() }));
        }
        Ok(entry)
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

    fn reading(&self, source: redb::Error) -> StoreError {
        failed("read", &self.path, source)
    }
}

/// Makes an empty database under another name, and renames it when all of it is on the disk.
fn create(folder: &Path) -> Result<(), StoreError> {
    let (path, unfinished) = (folder.join(DATABASE), folder.join(UNFINISHED));
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(StoreError::io("remove", &unfinished)(error));
        }
        _ => {}
    }
    let work = || -> Result<(), redb::Error> {
        let database = Database::builder().create(&unfinished)?;
        let transaction = database.begin_write()?;
        transaction.open_table(LOG)?;
        transaction.open_table(CELLS)?;
        transaction.commit()?;
        Ok(database.close()?)
    };
    work().map_err(|source| failed("create", &unfinished, source))?;
    fs::File::open(&unfinished)
        .and_then(|file| file.sync_all())
        .map_err(StoreError::io("sync", &unfinished))?;
    fs::rename(&unfinished, &path).map_err(StoreError::io("rename", &unfinished))?;
    sync_folder(folder)
}

fn open_database(path: &Path, folder: &Path) -> Result<Database, StoreError> {
    let mut attempt = 1;
    loop {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        match builder.open(path) {
            Ok(database) => return Ok(database),
            Err(DatabaseError::DatabaseAlreadyOpen) if attempt < OPEN_ATTEMPTS => {
                attempt += 1;
                thread::sleep(OPEN_PAUSE);
            }
            Err(error) if is_damage(&error) => {
                return Err(damaged(folder, Damage::Database { detail: error.to_string() }));
            }
            Err(error) => return Err(failed("open", path, error.into())),
        }
    }
}

/// Whether the file is not what was written, rather than not to be had.
fn is_damage(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::UpgradeRequired(_) | DatabaseError::Storage(StorageError::Corrupted(_)) => true,
        // The file ends before it should, or is no database at all.
        DatabaseError::Storage(StorageError::Io(error)) => {
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}

fn failed(doing: &'static str, path: &Path, source: redb::Error) -> StoreError {
    StoreError::Database { doing, path: path.to_owned(), source: source.into() }
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
        disk.sync().unwrap();
        // Sound in itself, but not under this key.
        let elsewhere = seal(&4_u64.to_be_bytes(), &encode(&entry(4)).unwrap());
        disk.pending().insert(vec![(3, elsewhere.into())]);
        let error = disk.entries(..).find_map(Result::err).unwrap().to_string();
        assert!(error.contains("log entry 3"), "{error}");
        disk.pending().put(Cell::Vote, Sealed::from(&b"junk"[..]));
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

    #[test]
    fn what_waits_and_what_is_written_are_read_as_one() {
        let (_path, disk) = open();
        disk.sync().unwrap();
        disk.remove_from(8).unwrap();
        let later = |index| {
            LogEntry::new(LogId { leader_id: LeaderId { term: 2, node_id: 1 }, index }, EntryPayload::Blank)
        };
        disk.insert([later(8), later(9), later(10)]).unwrap();
        let found: Vec<LogEntry> = disk.entries(6..10).map(Result::unwrap).collect();
        assert_eq!(found, [entry(6), entry(7), later(8), later(9)]);
        assert_eq!(disk.last().unwrap(), Some(later(10)));
        disk.remove_up_to(7).unwrap();
        assert_eq!(disk.entries(..).next().unwrap().unwrap(), later(8));
        disk.sync().unwrap();
        assert_eq!(disk.entries(..).count(), 3);
        disk.remove_from(0).unwrap();
        assert_eq!(disk.last().unwrap(), None);
    }

    #[test]
    fn a_database_of_an_earlier_build_is_refused_with_the_way_out() {
        let path = tempfile::tempdir().unwrap();
        let folder = Folder::open(path.path(), "test", 1).unwrap();
        fs::create_dir(path.path().join("log")).unwrap();
        fs::write(path.path().join(EARLIER), "").unwrap();
        let error = Disk::open(&folder).unwrap_err().to_string();
        assert!(error.contains("before 0.1") && error.contains("new member id"), "{error}");
    }
}
