//! What was written and is not on the disk yet. It can be read as if it were.

use std::{
    collections::BTreeMap,
    iter::Peekable,
    ops::{Bound, RangeBounds},
    sync::Arc,
    vec,
};

use redb::StorageError;

use super::disk::Cell;

/// A value with its checksum. Copies share it.
pub(crate) type Sealed = Arc<[u8]>;

/// Entries and cells that wait for the next sync. As many as the flusher's queue lets through.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pending {
    entries: BTreeMap<u64, Sealed>,
    cells: BTreeMap<Cell, Sealed>,
}

impl Pending {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.cells.is_empty()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (u64, &Sealed)> {
        self.entries.iter().map(|(index, sealed)| (*index, sealed))
    }

    pub(crate) fn cells(&self) -> impl Iterator<Item = (Cell, &Sealed)> {
        self.cells.iter().map(|(cell, sealed)| (*cell, sealed))
    }

    pub(crate) fn cell(&self, cell: Cell) -> Option<Sealed> {
        self.cells.get(&cell).cloned()
    }

    pub(crate) fn put(&mut self, cell: Cell, sealed: Sealed) {
        self.cells.insert(cell, sealed);
    }

    pub(crate) fn insert(&mut self, entries: Vec<(u64, Sealed)>) {
        self.entries.extend(entries);
    }

    pub(crate) fn range(&self, range: (Bound<u64>, Bound<u64>)) -> Vec<(u64, Sealed)> {
        // The map's own would panic where the start lies behind the end.
        let inside = self.entries.iter().filter(|(index, _)| range.contains(index));
        inside.map(|(index, sealed)| (*index, sealed.clone())).collect()
    }

    pub(crate) fn last(&self) -> Option<(u64, Sealed)> {
        self.entries.last_key_value().map(|(index, sealed)| (*index, sealed.clone()))
    }

    pub(crate) fn remove(&mut self, range: impl RangeBounds<u64>) {
        self.entries.retain(|index, _| !range.contains(index));
    }

    /// Forgets what was written to the disk, unless it was replaced meanwhile.
    pub(crate) fn forget(&mut self, written: &Pending) {
        self.entries
            .retain(|index, sealed| !written.entries.get(index).is_some_and(|old| Arc::ptr_eq(old, sealed)));
        self.cells
            .retain(|cell, sealed| !written.cells.get(cell).is_some_and(|old| Arc::ptr_eq(old, sealed)));
    }
}

/// Entries of the database and those that wait, in order; of two with one index the one that waits.
pub(crate) struct Merged {
    stored: Peekable<Stored>,
    waiting: Peekable<vec::IntoIter<(u64, Sealed)>>,
}

impl Merged {
    pub(crate) fn new(stored: redb::Range<'static, u64, &'static [u8]>, waiting: Vec<(u64, Sealed)>) -> Self {
        Self { stored: Stored(stored).peekable(), waiting: waiting.into_iter().peekable() }
    }
}

impl Iterator for Merged {
    type Item = Result<(u64, Sealed), StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let stored = match self.stored.peek() {
            Some(Ok((index, _))) => Some(*index),
            Some(Err(_)) => return self.stored.next(),
            None => None,
        };
        match (stored, self.waiting.peek().map(|(index, _)| *index)) {
            (Some(stored), Some(waiting)) if stored < waiting => self.stored.next(),
            (Some(stored), Some(waiting)) => {
                if stored == waiting {
                    let _ = self.stored.next();
                }
                self.waiting.next().map(Ok)
            }
            (Some(_), None) => self.stored.next(),
            (None, _) => self.waiting.next().map(Ok),
        }
    }
}

/// What the database has, copied out of its pages.
struct Stored(redb::Range<'static, u64, &'static [u8]>);

impl Iterator for Stored {
    type Item = Result<(u64, Sealed), StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.0.next()?;
        Some(found.map(|(index, sealed)| (index.value(), Arc::from(sealed.value()))))
    }
}
