//! A simulated disk: what was written, and which part of it a power cut leaves.
//!
//! ```text
//! write ──► volatile image ──► pending, in order ──sync──► durable image
//!                                     │ power cut: of each file, a random beginning of what is pending survives
//! ```
//!
//! The log and the vote are files of their own, so of writes that were not synced, a later one to one file may survive an
//! earlier one to the other. Within a file the order holds: a log with a hole is refused by the store when it is opened,
//! so what comes after a lost write counts as lost too.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use soloist_coordinator::store::{SnapshotPlace, StoreError};
use tokio::time::sleep;

use crate::{
    chance::Chance,
    types::{LogEntry, LogId, Simulated, Snapshot, SnapshotMeta, Vote},
};

/// Of a thousand syncs, so many take twenty times as long as the others.
const HICCUPS: u64 = 20;

/// What a disk holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Image {
    pub(crate) log: BTreeMap<u64, Arc<LogEntry>>,
    pub(crate) purged: Option<LogId>,
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) snapshot: Option<Snapshot>,
}

impl Image {
    /// The id of the last entry, or of the last that was purged.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.log.values().next_back().map(|entry| entry.log_id).max(self.purged)
    }

    fn write(&mut self, write: &Write) {
        match write {
            Write::Put(entry) => {
                self.log.insert(entry.log_id.index, entry.clone());
            }
            Write::Cut { keep } => {
                self.log.split_off(&keep.map_or(0, |keep| keep.index + 1));
            }
            Write::Purge(last) => {
                self.purged = self.purged.max(Some(*last));
                self.log = self.log.split_off(&(last.index + 1));
            }
            Write::Vote(vote) => self.vote = Some(*vote),
            Write::Committed(committed) => self.committed = Some(*committed),
        }
    }
}

/// A change of the log or of one of the small values beside it.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    Put(Arc<LogEntry>),
    Cut { keep: Option<LogId> },
    Purge(LogId),
    Vote(Vote),
    Committed(LogId),
}

/// The files whose writes a power cut may tear apart.
const FILES: usize = 3;

impl Write {
    fn file(&self) -> usize {
        match self {
            Write::Put(_) | Write::Cut { .. } | Write::Purge(_) => 0,
            Write::Vote(_) => 1,
            Write::Committed(_) => 2,
        }
    }
}

/// How a disk behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mood {
    /// The longest ordinary sync, in milliseconds.
    pub(crate) sync_ms: u64,
    /// Whether the next sync fails, and everything after it.
    pub(crate) fails: bool,
}

/// A member's disk. Clones share it; it outlives the member's process.
#[derive(Debug, Clone)]
pub(crate) struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug)]
pub(crate) struct Platter {
    pub(crate) volatile: Image,
    durable: Image,
    pending: Vec<Write>,
    /// What was purged since the oracle looked last.
    pub(crate) purged: BTreeMap<u64, Arc<LogEntry>>,
    pub(crate) mood: Mood,
    pub(crate) broken: bool,
    chance: Chance,
}

impl Disk {
    /// An empty disk.
    pub(crate) fn new(mood: Mood, chance: Chance) -> Disk {
        let (volatile, durable) = (Image::default(), Image::default());
        Disk(Arc::new(Mutex::new(Platter {
            volatile,
            durable,
            pending: Vec::new(),
            purged: BTreeMap::new(),
            mood,
            broken: false,
            chance,
        })))
    }

    /// Everything about it, for the driver and for what a process does at once.
    pub(crate) fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().expect("nobody panics while holding a disk")
    }

    /// Writes without a sync.
    pub(crate) fn write(&self, write: Write) -> io::Result<()> {
        let mut platter = self.platter();
        platter.usable()?;
        if let Write::Purge(last) = &write {
            let gone = platter.volatile.log.range(..=last.index);
            let gone: Vec<_> = gone.map(|(index, entry)| (*index, entry.clone())).collect();
            platter.purged.extend(gone);
        }
        platter.volatile.write(&write);
        platter.pending.push(write);
        Ok(())
    }

    /// Makes durable what was written before the call, which takes a while.
    pub(crate) async fn sync(&self) -> io::Result<()> {
        let (until, length) = {
            let mut platter = self.platter();
            (platter.pending.len(), platter.length())
        };
        sleep(length).await;
        let mut platter = self.platter();
        platter.usable()?;
        if platter.mood.fails {
            platter.broken = true;
            return platter.usable();
        }
        // Under a lie, another sync may have been faster.
        let until = until.min(platter.pending.len());
        let done: Vec<Write> = platter.pending.drain(..until).collect();
        done.iter().for_each(|write| platter.durable.write(write));
        Ok(())
    }

    /// Cuts the power: of what was not synced, a random part is there afterwards. A failed disk is replaced by one with
    /// the same content. Returns how many writes are lost.
    pub(crate) fn cut_power(&self) -> usize {
        let mut platter = self.platter();
        let pending = std::mem::take(&mut platter.pending);
        let mut left: Vec<u64> = Vec::new();
        for file in 0..FILES {
            let count = pending.iter().filter(|write| write.file() == file).count() as u64;
            left.push(platter.chance.between(0, count));
        }
        let mut lost = 0;
        for write in pending {
            match &mut left[write.file()] {
                0 => lost += 1,
                more => {
                    *more -= 1;
                    platter.durable.write(&write);
                }
            }
        }
        platter.volatile = platter.durable.clone();
        platter.purged.clear();
        (platter.broken, platter.mood.fails) = (false, false);
        lost
    }
}

impl Platter {
    fn usable(&self) -> io::Result<()> {
        if self.broken { Err(io::Error::other("the simulated disk has failed")) } else { Ok(()) }
    }

    /// How long the next sync takes.
    fn length(&mut self) -> Duration {
        let ms = self.chance.between(1, self.mood.sync_ms);
        Duration::from_millis(if self.chance.permille(HICCUPS) { ms * 20 } else { ms })
    }
}

impl SnapshotPlace for Disk {
    type Config = Simulated;

    fn save(&self, meta: &SnapshotMeta, state: &[u8]) -> io::Result<()> {
        let mut platter = self.platter();
        platter.usable()?;
        let newest = platter.durable.snapshot.as_ref().and_then(|newest| newest.meta.last_log_id);
        if newest <= meta.last_log_id {
            let snapshot = Some(Snapshot { meta: meta.clone(), snapshot: state.to_vec() });
            platter.durable.snapshot.clone_from(&snapshot);
            platter.volatile.snapshot = snapshot;
        }
        Ok(())
    }

    fn load(&self) -> Result<Option<Snapshot>, StoreError> {
        Ok(self.platter().volatile.snapshot.clone())
    }

    fn path(&self) -> &Path {
        Path::new("simulated")
    }

    // It takes a while before the work is done and after it, and a power cut may come in both.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let length = self.platter().length();
        sleep(length).await;
        let result = work(self);
        sleep(length).await;
        result
    }
}
