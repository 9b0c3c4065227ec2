//! What happened, for longer than the replicated state remembers it: each member keeps a copy of its own, in sled.
//!
//! Nothing is decided by it, and it is written without waiting for the disk: what sled loses in a power cut is missing from this member's copy
//! and from no other's. A copy that cannot be opened is moved aside, and a new one begun.

use std::{
    collections::BTreeMap,
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use soloist_core::{event::Event, ids::FleetId};

use super::{
    codec::{decode, encode, seal, unseal},
    records::Counts,
};

/// Most events of one fleet that a member keeps: some months of daily operations.
pub const ARCHIVE_EVENTS_MAX: usize = 20_000;
/// How many are removed at once when there are more.
const PRUNE: usize = 1_000;
/// Memory for the archive's pages, in bytes.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;
/// Between two writes to the disk, in milliseconds.
const FLUSH_EVERY_MS: u64 = 1_000;

/// How often and how long to wait for the lock: an archive that was just closed in this process releases it from a background thread.
const OPEN_ATTEMPTS: u32 = 40;
const OPEN_PAUSE: Duration = Duration::from_millis(50);

const FOLDER: &str = "archive";
/// Where one goes that cannot be opened; the one before it is removed.
const DAMAGED: &str = "archive.damaged";

/// The archive of one member.
#[derive(Debug, Default)]
pub struct Archive {
    /// `None` if none can be opened: then nothing is kept.
    pub(super) db: Option<sled::Db>,
    /// How many records of agents there are, once they were counted.
    pub(super) counts: Mutex<Counts>,
    /// By fleet: how many there are, and the log index of the last.
    known: Mutex<BTreeMap<FleetId, Known>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Known {
    count: usize,
    last: u64,
}

impl Archive {
    /// Opens the archive in a data folder, or begins one. Blocks. Never fails: what cannot be kept is missing, and the log says so.
    #[must_use]
    pub fn open(data: &Path) -> Archive {
        let path = data.join(FOLDER);
        let db = open(&path).or_else(|why| {
            if matches!(&why, sled::Error::Io(error) if is_locked(error)) {
                return Err(why);
            }
            tracing::warn!(%why, path = %path.display(), "the archive of events cannot be opened: it is moved aside, and a new one begun");
            let aside = data.join(DAMAGED);
            // There may be none, and it may be a file.
            let _ = fs::remove_dir_all(&aside).or_else(|_| fs::remove_file(&aside));
            fs::rename(&path, &aside)?;
            open(&path)
        });
        let db = db.inspect_err(|why| tracing::warn!(%why, "events are not archived")).ok();
        let archive = Archive { db, ..Archive::default() };
        archive.count();
        archive
    }

    fn count(&self) {
        let Some(db) = &self.db else { return };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for name in db.tree_names() {
            let Some(fleet) = std::str::from_utf8(&name).ok().and_then(|name| FleetId::new(name).ok()) else {
                continue;
            };
            let Ok(tree) = db.open_tree(&name) else { continue };
            let mut found = Known::default();
            for key in tree.iter().keys().flatten() {
                found.count += 1;
                found.last = found.last.max(index_of(&key));
            }
            known.insert(fleet, found);
        }
    }

    /// The log index of the last event that it has of a fleet; 0 if it has none.
    pub fn last(&self, fleet: &FleetId) -> u64 {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(fleet).map_or(0, |known| known.last)
    }

    /// Adds events of a fleet, in order, all of those that share a log index together. Blocks.
    pub fn add(&self, fleet: &FleetId, events: &[Event]) {
        let Some(tree) = self.db.as_ref().and_then(|db| db.open_tree(fleet.as_str()).ok()) else { return };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.entry(fleet.clone()).or_default();
        let mut place = 0;
        let mut before = None;
        for event in events {
            place = if before == Some(event.index) { place + 1 } else { 0 };
            before = Some(event.index);
            let key = key(event.index, place);
            let Ok(value) = encode(event) else { continue };
            match tree.insert(key, seal(&key, &value)) {
                Ok(None) => known.count += 1,
                Ok(Some(_)) => {}
                Err(error) => {
                    tracing::warn!(%error, "an event is not archived");
                    return;
                }
            }
            known.last = known.last.max(event.index);
        }
        if known.count > ARCHIVE_EVENTS_MAX {
            for key in tree.iter().keys().flatten().take(PRUNE) {
                known.count -= usize::from(matches!(tree.remove(key), Ok(Some(_))));
            }
        }
    }

    /// At most `limit` events of a fleet from a log index up to another, that one excluded, in order. One that cannot be read is left out.
    /// Blocks.
    pub fn range(&self, fleet: &FleetId, indexes: std::ops::Range<u64>, limit: usize) -> Vec<Event> {
        let Some(tree) = self.db.as_ref().and_then(|db| db.open_tree(fleet.as_str()).ok()) else {
            return Vec::new();
        };
        let found = tree.range(key(indexes.start, 0)..key(indexes.end, 0)).flatten();
        found.filter_map(|(key, sealed)| decode(unseal(&key, &sealed)?).ok()).take(limit).collect()
    }
}

fn open(path: &Path) -> sled::Result<sled::Db> {
    let config =
        sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(Some(FLUSH_EVERY_MS));
    let mut attempt = 1;
    loop {
        // It may panic over damage of its own.
        let opened = catch_unwind(AssertUnwindSafe(|| config.open()));
        match opened.unwrap_or_else(|_| Err(sled::Error::ReportableBug("it gave up".to_owned()))) {
            Err(sled::Error::Io(error)) if attempt < OPEN_ATTEMPTS && is_locked(&error) => {
                attempt += 1;
                thread::sleep(OPEN_PAUSE);
            }
            result => return result,
        }
    }
}

/// sled wraps the lock's error in a text of its own.
fn is_locked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.to_string().contains("could not acquire lock")
}

/// Log index, and place among the events of that entry.
fn key(index: u64, place: u16) -> [u8; 10] {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&index.to_be_bytes());
    key[8..].copy_from_slice(&place.to_be_bytes());
    key
}

fn index_of(key: &[u8]) -> u64 {
    key.first_chunk().map_or(0, |index| u64::from_be_bytes(*index))
}

#[cfg(test)]
mod tests {
    use soloist_core::{event::EventKind, time::Time};

    use super::*;

    fn event(index: u64, text: &str) -> Event {
        let kind = EventKind::Freeze(text.to_owned());
        Event { index, time: Time(index), wall_ms: index, operation: None, node: None, kind }
    }

    fn fleet() -> FleetId {
        FleetId::new("main").unwrap()
    }

    #[test]
    fn events_are_kept_in_order_and_each_once() {
        let folder = tempfile::tempdir().unwrap();
        {
            let archive = Archive::open(folder.path());
            assert_eq!((archive.last(&fleet()), archive.range(&fleet(), 0..9, 9)), (0, vec![]));
            archive.add(&fleet(), &[event(3, "a"), event(3, "b"), event(5, "c")]);
            archive.add(&fleet(), &[event(3, "a"), event(3, "b"), event(5, "c"), event(300, "d")]);
        }
        let archive = Archive::open(folder.path());
        assert_eq!(archive.last(&fleet()), 300);
        let all = [event(3, "a"), event(3, "b"), event(5, "c"), event(300, "d")];
        assert_eq!(archive.range(&fleet(), 0..1000, 9), all);
        assert_eq!(archive.range(&fleet(), 4..300, 9), all[2..3]);
        assert_eq!(archive.range(&fleet(), 0..1000, 2), all[..2]);
        assert_eq!(archive.range(&FleetId::new("other").unwrap(), 0..1000, 2), []);
    }

    #[test]
    fn it_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::open(folder.path());
        let many: Vec<Event> = (1..=ARCHIVE_EVENTS_MAX as u64 + 10).map(|index| event(index, "x")).collect();
        archive.add(&fleet(), &many);
        let left = archive.range(&fleet(), 0..u64::MAX, usize::MAX);
        assert_eq!(left.len(), ARCHIVE_EVENTS_MAX + 10 - PRUNE);
        assert_eq!(left[0].index, PRUNE as u64 + 1, "the oldest go");
    }

    #[test]
    fn a_damaged_one_is_moved_aside_and_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        Archive::open(folder.path()).add(&fleet(), &[event(1, "a")]);
        let path = folder.path().join(FOLDER);
        fs::remove_dir_all(&path).unwrap();
        fs::write(&path, "nonsense").unwrap();
        let archive = Archive::open(folder.path());
        assert_eq!(archive.last(&fleet()), 0);
        archive.add(&fleet(), &[event(2, "b")]);
        assert_eq!(archive.range(&fleet(), 0..9, 9), [event(2, "b")]);
        assert!(folder.path().join(DAMAGED).exists());
    }
}
