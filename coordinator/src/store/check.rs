//! What is looked at before a data folder is used again.
//!
//! The database may open without complaint after it lost its end, its middle or an update. Every record is read, the log
//! must be without holes and in order, and nothing may be missing of what the marker says was acknowledged.

use std::{collections::BTreeMap, path::Path};

use openraft::EntryPayload;
use soloist_core::command::FIRST_LEVEL;

use super::{
    disk::{Cell, Disk},
    error::{Damage, StoreError},
    folder::damaged,
    marker::Mark,
};
use crate::raft::types::{LogId, Vote};

/// What a sound database holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    /// The vote.
    pub(crate) vote: Option<Vote>,
    /// Up to where the log was removed at its start.
    pub(crate) purged: Option<LogId>,
    /// The last entry, or `purged` if there is none.
    pub(crate) last: Option<LogId>,
    /// The highest feature level of an entry, with its index; the lowest level there is if there is no entry.
    pub(crate) level: (u32, u64),
    /// The members that the last change of them in the log names, with their addresses.
    pub(crate) members: Option<BTreeMap<u64, String>>,
}

impl Contents {
    /// The mark that promises all of it.
    pub(crate) fn mark(&self) -> Mark {
        Mark { last: self.last, vote: self.vote }
    }
}

/// Reads everything, compares it with the marker, and finishes a purge that a crash interrupted.
pub(crate) fn check(disk: &Disk, mark: Mark, folder: &Path) -> Result<Contents, StoreError> {
    let vote: Option<Vote> = disk.get(Cell::Vote)?;
    let purged: Option<LogId> = disk.get(Cell::Purged)?;
    if let Some(purged) = purged {
        disk.remove_up_to(purged.index)?;
    }

    let mut last = purged;
    // What the log says about the index of the marker's last entry.
    let mut at_mark = None;
    let mut level = (FIRST_LEVEL, 0);
    let mut members = None;
    for entry in disk.entries(..) {
        let entry = entry?;
        let id = entry.log_id;
        match &entry.payload {
            EntryPayload::Normal(command) if command.feature_level > level.0 => {
                level = (command.feature_level, id.index);
            }
            EntryPayload::Membership(found) => {
                members = Some(found.nodes().map(|(id, node)| (*id, node.addr.clone())).collect());
            }
            EntryPayload::Normal(_) | EntryPayload::Blank => {}
        }
        let expected = last.map_or(0, |last| last.index + 1);
        if id.index != expected {
            return Err(damaged(folder, Damage::Hole { expected, found: id.index }));
        }
        if last.is_some_and(|last| id.leader_id < last.leader_id) {
            return Err(damaged(folder, Damage::Order { index: id.index }));
        }
        if mark.last.is_some_and(|mark| mark.index == id.index) {
            at_mark = Some(id);
        }
        last = Some(id);
    }

    if let Some(acknowledged) = mark.last {
        let purged_since = purged.is_some_and(|purged| purged >= acknowledged);
        if !purged_since && at_mark != Some(acknowledged) {
            return Err(damaged(
                folder,
                Damage::LostLog {
                    acknowledged: acknowledged.to_string(),
                    found: at_mark.or(last).map_or("no entry".to_owned(), |last| last.to_string()),
                },
            ));
        }
    }
    if let Some(acknowledged) = mark.vote {
        // Votes are only partly ordered in general, so "not at least" is the safe way to ask.
        if !vote.is_some_and(|vote| vote >= acknowledged) {
            return Err(damaged(
                folder,
                Damage::LostVote {
                    acknowledged: acknowledged.to_string(),
                    found: vote.map_or("no vote".to_owned(), |vote| vote.to_string()),
                },
            ));
        }
    }
    Ok(Contents { vote, purged, last, level, members })
}

#[cfg(test)]
mod tests {
    use openraft::entry::RaftEntry;

    use super::*;
    use crate::{
        raft::types::{LeaderId, LogEntry},
        store::folder::Folder,
    };

    fn entry(term: u64, index: u64) -> LogEntry {
        LogEntry::new(LogId { leader_id: LeaderId { term, node_id: 1 }, index }, EntryPayload::Blank)
    }

    fn checked(
        entries: impl IntoIterator<Item = LogEntry>,
        purged: Option<LogId>,
    ) -> Result<Contents, Damage> {
        let path = tempfile::tempdir().unwrap();
        let disk = Disk::open(&Folder::open(path.path(), "test", 1).unwrap()).unwrap();
        disk.insert(entries).unwrap();
        if let Some(purged) = purged {
            disk.put(Cell::Purged, &purged).unwrap();
        }
        match check(&disk, Mark::default(), path.path()) {
            Ok(contents) => Ok(contents),
            Err(StoreError::Damaged { damage, .. }) => Err(damage),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_log_without_holes_is_sound() {
        let last = checked((0..5).map(|index| entry(1, index)), None).unwrap().last;
        assert_eq!(last, Some(entry(1, 4).log_id));
        assert_eq!(checked([], None).unwrap().last, None);
    }

    #[test]
    fn a_purge_that_was_interrupted_is_finished() {
        let purged = Some(entry(1, 2).log_id);
        let contents = checked((1..5).map(|index| entry(1, index)), purged).unwrap();
        assert_eq!((contents.purged, contents.last), (purged, Some(entry(1, 4).log_id)));
        // After a snapshot that came in, the purge may lie beyond the log.
        assert_eq!(checked([], purged).unwrap().last, purged);
    }

    #[test]
    fn holes_are_found_wherever_they_are() {
        let without =
            |missing: u64| (0..5).filter(move |index| *index != missing).map(|index| entry(1, index));
        for missing in 0..4 {
            let hole = Damage::Hole { expected: missing, found: missing + 1 };
            assert_eq!(checked(without(missing), None), Err(hole));
        }
        let purged = Some(entry(1, 2).log_id);
        assert_eq!(checked([entry(1, 4)], purged), Err(Damage::Hole { expected: 3, found: 4 }));
    }

    #[test]
    fn an_entry_from_an_older_leader_is_found() {
        let entries = [entry(1, 0), entry(2, 1), entry(1, 2)];
        assert_eq!(checked(entries, None), Err(Damage::Order { index: 2 }));
    }
}
