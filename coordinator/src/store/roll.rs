//! The roll: which store this is, and which stores of the other members it has met.
//!
//! A member's id says who speaks. It does not say with which memory: with an empty folder, or with an older copy of its own, a member would
//! vote again where it has voted, and forget entries that were counted as its own. What a folder has forgotten it cannot know by itself. So
//! every member shows a passport with every message, and remembers the passports of the others on the disk, before it answers or
//! counts what they say.
//!
//! | part of a passport | changes | tells apart |
//! |---|---|---|
//! | store | when a folder is made, at random | another folder under the same id |
//! | run, draw | at every start: counted up, and at random | an older copy of the same folder |
//! | era | when a cluster is restored from a backup, at random | the cluster of before |

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::{
    codec::{decode, encode, seal, unseal},
    error::{Damage, StoreError},
    folder::{damaged, write_durably},
};

/// The file's name in the data folder, and what its checksum is bound to.
const ROLL: &str = "roll";

/// Most members of whom a passport is remembered, removed ones included: ids are never used again, so the list only grows.
const MET_MAX: usize = 512;

/// What a member shows: with which memory it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Passport {
    /// Which cluster: 0 if it was founded, another number if it was restored from a backup.
    pub era: u64,
    /// Which folder.
    pub store: u64,
    /// How often it was opened.
    pub run: u64,
    /// A random number of this run.
    pub draw: u64,
}

/// Why a member's word does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stranger {
    /// It belongs to the cluster from before, or after, a restore.
    OtherEra,
    /// Its id was met with another folder.
    OtherStore,
    /// Its folder is older than one that was met.
    OlderCopy,
    /// There are too many members to remember another.
    TooMany,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Page {
    own: Passport,
    /// Whether this store has taken part. Before, it has promised nothing.
    begun: bool,
    met: BTreeMap<u64, Passport>,
}

/// The open roll.
#[derive(Debug)]
pub struct Roll {
    folder: PathBuf,
    page: Mutex<Page>,
}

impl Roll {
    /// Writes the roll of a folder that is being made. `era` is 0 unless the cluster is restored from a backup, and such a store has begun.
    pub(crate) fn create(folder: &Path, era: u64) -> Result<(), StoreError> {
        let own = Passport { era, store: rand::random(), run: 0, draw: rand::random() };
        write(folder, &Page { own, begun: era != 0, met: BTreeMap::new() })
    }

    /// Opens the roll, and begins another run.
    pub(crate) fn open(folder: &Path) -> Result<Roll, StoreError> {
        let path = folder.join(ROLL);
        let bad = |detail: &str| damaged(folder, Damage::File { file: ROLL, detail: detail.to_owned() });
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(bad("no such file")),
            Err(error) => return Err(StoreError::io("read", path)(error)),
        };
        let page = unseal(ROLL.as_bytes(), &bytes).and_then(|bytes| decode::<Page>(bytes).ok());
        let mut page = page.ok_or_else(|| bad("its checksum is wrong"))?;
        page.own.run += 1;
        page.own.draw = rand::random();
        write(folder, &page)?;
        Ok(Roll { folder: folder.to_owned(), page: Mutex::new(page) })
    }

    fn page(&self) -> MutexGuard<'_, Page> {
        // A page is replaced as a whole, after it was written.
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this member shows.
    pub fn own(&self) -> Passport {
        self.page().own
    }

    /// Whether this store has taken part.
    pub fn begun(&self) -> bool {
        self.page().begun
    }

    /// Takes part from now on, in a cluster of this era. It is on the disk when this returns.
    ///
    /// # Errors
    ///
    /// When that cannot be written.
    pub fn begin(&self, era: u64) -> Result<(), StoreError> {
        self.change(|page| {
            page.begun = true;
            page.own.era = era;
        })
    }

    /// What speaks against this passport of a member. Remembers nothing.
    pub fn doubt(&self, member: u64, shown: Passport) -> Option<Stranger> {
        doubt(&self.page(), member, shown)
    }

    /// Takes a passport in, or says what speaks against it. A new one is on the disk when this returns.
    ///
    /// # Errors
    ///
    /// When that cannot be written: then the member's word must not count.
    pub fn meet(&self, member: u64, shown: Passport) -> Result<Result<(), Stranger>, StoreError> {
        {
            let page = self.page();
            if let Some(stranger) = doubt(&page, member, shown) {
                return Ok(Err(stranger));
            }
            if page.met.get(&member) == Some(&shown) {
                return Ok(Ok(()));
            }
            if page.met.len() >= MET_MAX && !page.met.contains_key(&member) {
                return Ok(Err(Stranger::TooMany));
            }
        }
        self.change(|page| {
            page.met.insert(member, shown);
        })?;
        Ok(Ok(()))
    }

    fn change(&self, change: impl FnOnce(&mut Page)) -> Result<(), StoreError> {
        let mut page = self.page();
        let mut changed = page.clone();
        change(&mut changed);
        if changed != *page {
            write(&self.folder, &changed)?;
            *page = changed;
        }
        Ok(())
    }
}

fn doubt(page: &Page, member: u64, shown: Passport) -> Option<Stranger> {
    if shown.era != page.own.era {
        return Some(Stranger::OtherEra);
    }
    let known = page.met.get(&member)?;
    if known.store != shown.store {
        return Some(Stranger::OtherStore);
    }
    (shown.run < known.run || shown.run == known.run && shown.draw != known.draw)
        .then_some(Stranger::OlderCopy)
}

fn write(folder: &Path, page: &Page) -> Result<(), StoreError> {
    let bytes = encode(page).map_err(|error| StoreError::io("encode the roll of", folder)(error.into()))?;
    write_durably(folder, ROLL, &seal(ROLL.as_bytes(), &bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roll(folder: &Path) -> Roll {
        Roll::create(folder, 0).unwrap();
        Roll::open(folder).unwrap()
    }

    #[test]
    fn a_member_is_known_again_over_its_runs_and_ours() {
        let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let roll = roll(own.path());
        Roll::create(other.path(), 0).unwrap();
        for _ in 0..3 {
            let shown = Roll::open(other.path()).unwrap().own();
            assert_eq!(roll.meet(2, shown).unwrap(), Ok(()));
            assert_eq!(roll.meet(2, shown).unwrap(), Ok(()), "each message shows it");
        }
        let shown = roll.page().met[&2];
        let again = Roll::open(own.path()).unwrap();
        assert_eq!((again.doubt(2, shown), again.own().run), (None, 2));
    }

    #[test]
    fn another_folder_an_older_copy_and_another_era_are_strangers() {
        let (own, other, copy) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let own = roll(own.path());
        Roll::create(other.path(), 0).unwrap();
        fs::copy(other.path().join(ROLL), copy.path().join(ROLL)).unwrap();
        let shown = Roll::open(other.path()).unwrap().own();
        own.meet(2, shown).unwrap().unwrap();
        assert_eq!(own.doubt(2, Passport { store: 7, ..shown }), Some(Stranger::OtherStore));
        let copied = Roll::open(copy.path()).unwrap().own();
        assert_eq!(copied.run, shown.run);
        assert_eq!(own.doubt(2, copied), Some(Stranger::OlderCopy));
        assert_eq!(own.doubt(2, Passport { run: 0, ..shown }), Some(Stranger::OlderCopy));
        assert_eq!(own.doubt(3, Passport { era: 5, ..shown }), Some(Stranger::OtherEra));
    }

    #[test]
    fn a_changed_roll_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        drop(roll(folder.path()));
        let path = folder.path().join(ROLL);
        let mut bytes = fs::read(&path).unwrap();
        bytes[20] ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = Roll::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("\"roll\"") && error.contains("new member id"), "{error}");
    }
}
