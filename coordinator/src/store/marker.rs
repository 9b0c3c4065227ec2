//! The marker: what this member has acknowledged, in a small file beside the log database.
//!
//! A damaged database may open without a word and show an older log or an older vote. The marker is what tells: it is
//! raised and synced after the database and before anything is acknowledged, and lowered and synced before the log is
//! truncated. So at every moment, crash or not, the database holds at least what the marker says.
//!
//! It is on the path of every write, hence no rename: the file has two slots with a sequence number and a checksum
//! each, written in turn. A write that a power cut tears spoils the older state only.
//!
//! ```text
//! 0          4096        8192
//! │ slot 0 … │ slot 1 …  │      a slot: magic, sequence, flags, last log id, vote, checksum
//! ```

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{
    codec::checksum,
    error::{Damage, StoreError},
    folder::{damaged, write_durably},
};
use crate::raft::types::{LeaderId, LogId, Vote};

/// The file's name in the data folder.
const MARKER: &str = "marker";
/// Distance of the two slots: a disk block each, so that no write can touch both.
const SLOT_STRIDE: usize = 4096;
/// Length of the slot's content, without its checksum.
const BODY_BYTES: usize = 64;
const SLOT_BYTES: usize = BODY_BYTES + 4;
const MAGIC: &[u8; 8] = b"SOLOMRK1";

const HAS_LAST: u8 = 1;
const HAS_VOTE: u8 = 2;
const VOTE_COMMITTED: u8 = 4;

/// What was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    /// The last log entry.
    pub(crate) last: Option<LogId>,
    /// The vote.
    pub(crate) vote: Option<Vote>,
}

/// The open marker file.
#[derive(Debug)]
pub(crate) struct Marker {
    file: File,
    path: PathBuf,
    sequence: u64,
    mark: Mark,
}

impl Marker {
    /// Whether the folder has a marker.
    pub(crate) fn exists(folder: &Path) -> bool {
        folder.join(MARKER).exists()
    }

    /// Creates the marker of a folder that holds nothing yet.
    pub(crate) fn create(folder: &Path) -> Result<(), StoreError> {
        let mut content = vec![0; 2 * SLOT_STRIDE];
        content[..SLOT_BYTES].copy_from_slice(&encode_slot(0, &Mark::default()));
        write_durably(folder, MARKER, &content)
    }

    /// Opens the marker and reads its newer slot.
    pub(crate) fn open(folder: &Path) -> Result<Marker, StoreError> {
        let bad = |detail: &str| damaged(folder, Damage::File { file: MARKER, detail: detail.to_owned() });
        let path = folder.join(MARKER);
        let file = match File::options().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(bad("no such file")),
            Err(error) => return Err(StoreError::io("open", path)(error)),
        };
        let newest = [0, 1]
            .into_iter()
            .filter_map(|slot| {
                let mut bytes = [0; SLOT_BYTES];
                file.read_exact_at(&mut bytes, (slot * SLOT_STRIDE) as u64).ok()?;
                decode_slot(&bytes)
            })
            .max_by_key(|(sequence, _)| *sequence);
        let (sequence, mark) = newest.ok_or_else(|| bad("neither of its slots has a valid checksum"))?;
        Ok(Marker { file, path, sequence, mark })
    }

    /// What the marker says.
    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }

    /// Changes the marker; the change is on disk when this returns. An unchanged mark costs nothing.
    ///
    /// After an error the marker must not be used again: what the file holds then is not known.
    pub(crate) fn set(&mut self, mark: Mark) -> Result<(), StoreError> {
        if mark == self.mark {
            return Ok(());
        }
        let sequence = self.sequence + 1;
        let offset = (sequence % 2) * SLOT_STRIDE as u64;
        self.file
            .write_all_at(&encode_slot(sequence, &mark), offset)
            .map_err(StoreError::io("write", &self.path))?;
        self.file.sync_data().map_err(StoreError::io("sync", &self.path))?;
        self.sequence = sequence;
        self.mark = mark;
        Ok(())
    }
}

fn encode_slot(sequence: u64, mark: &Mark) -> [u8; SLOT_BYTES] {
    let mut flags = 0;
    let mut numbers = [0; 5];
    if let Some(last) = mark.last {
        flags |= HAS_LAST;
        numbers[..3].copy_from_slice(&[last.leader_id.term, last.leader_id.node_id, last.index]);
    }
    if let Some(vote) = mark.vote {
        flags |= HAS_VOTE | if vote.committed { VOTE_COMMITTED } else { 0 };
        numbers[3..].copy_from_slice(&[vote.leader_id.term, vote.leader_id.node_id]);
    }
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(MAGIC);
    slot[8..16].copy_from_slice(&sequence.to_le_bytes());
    slot[16] = flags;
    for (at, number) in numbers.iter().enumerate() {
        slot[24 + at * 8..32 + at * 8].copy_from_slice(&number.to_le_bytes());
    }
    let sum = checksum(MAGIC, &slot[..BODY_BYTES]);
    slot[BODY_BYTES..].copy_from_slice(&sum.to_le_bytes());
    slot
}

fn decode_slot(slot: &[u8; SLOT_BYTES]) -> Option<(u64, Mark)> {
    let sum = checksum(MAGIC, &slot[..BODY_BYTES]);
    if slot[..8] != *MAGIC || slot[BODY_BYTES..] != sum.to_le_bytes() {
        return None;
    }
    let number = |at: usize| slot[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let flags = slot[16];
    let last = if flags & HAS_LAST == 0 {
        None
    } else {
        let leader = LeaderId { term: number(24)?, node_id: number(32)? };
        Some(LogId { leader_id: leader, index: number(40)? })
    };
    let vote = if flags & HAS_VOTE == 0 {
        None
    } else {
        let leader = LeaderId { term: number(48)?, node_id: number(56)? };
        Some(Vote { leader_id: leader, committed: flags & VOTE_COMMITTED != 0 })
    };
    Some((number(8)?, Mark { last, vote }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(term: u64, index: u64) -> Mark {
        let leader = LeaderId { term, node_id: 7 };
        Mark {
            last: Some(LogId { leader_id: leader, index }),
            vote: Some(Vote { leader_id: leader, committed: index.is_multiple_of(2) }),
        }
    }

    #[test]
    fn reopening_shows_what_was_set() {
        let folder = tempfile::tempdir().unwrap();
        Marker::create(folder.path()).unwrap();
        assert_eq!(Marker::open(folder.path()).unwrap().mark(), Mark::default());
        for index in 0..5 {
            Marker::open(folder.path()).unwrap().set(mark(3, index)).unwrap();
            assert_eq!(Marker::open(folder.path()).unwrap().mark(), mark(3, index));
        }
    }

    #[test]
    fn a_torn_write_leaves_the_state_before_it() {
        let folder = tempfile::tempdir().unwrap();
        Marker::create(folder.path()).unwrap();
        let mut marker = Marker::open(folder.path()).unwrap();
        marker.set(mark(1, 1)).unwrap();
        marker.set(mark(1, 2)).unwrap();
        // Sequence 2 is in slot 0.
        marker.file.write_all_at(&[0xff; 8], 40).unwrap();
        assert_eq!(Marker::open(folder.path()).unwrap().mark(), mark(1, 1));
    }

    #[test]
    fn without_a_valid_slot_it_refuses() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(MARKER), [0; 100]).unwrap();
        let error = Marker::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("marker") && error.contains("new member id"), "{error}");
    }
}
