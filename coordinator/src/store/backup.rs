//! Backups of the coordinators' state: one file each, and a data folder made from one.
//!
//! ```text
//! magic 8 │ checksum 4 │ header length 8 │ header, JSON │ state
//! ```
//!
//! A folder that is being made holds a file that says so, from before anything else is in it until everything is on the disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use openraft::{BasicNode, Membership};
use serde::{Deserialize, Serialize};
use soloist_core::{State, restore::restored};

use super::{
    codec::{checksum, decode, encode, seal, unseal},
    disk::{Cell, Disk},
    error::{Damage, StoreError},
    folder::{Folder, damaged, sync_folder, write_durably},
    marker::{Mark, Marker},
    snapshot::{SnapshotFiles, SnapshotPlace as _},
};
use crate::raft::types::{LeaderId, LogId, SnapshotMeta, StoredMembership, Vote};

const MAGIC: &[u8; 8] = b"SOLOBKP1";
/// The version of the header that this release writes and the highest that it reads.
const FORMAT: u32 = 1;
/// The largest backup that is read, in bytes: somewhat more than the largest snapshot.
const BACKUP_BYTES_MAX: u64 = super::MAX_SNAPSHOT_BYTES + 1024 * 1024;

/// In a folder while it is being made from a backup.
const UNFINISHED: &str = "restoring";
/// In a folder that was made from a backup, until the members of before were looked for.
const PREDECESSORS: &str = "predecessors";

/// What a backup is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupHeader {
    /// The file's version.
    pub format: u32,
    /// The cluster's name.
    pub cluster: String,
    /// Which cluster of that name.
    pub era: u64,
    /// Log index of the last entry in it.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// The feature level of the member that made it.
    pub feature_level: u32,
    /// The members at that time, with their addresses.
    pub members: BTreeMap<u64, String>,
    /// The member that made it.
    pub member: u64,
    /// When it was made, milliseconds since 1970.
    pub wall_ms: u64,
    /// Whether no leader could be asked: then it may lack what was decided last.
    pub stale: bool,
}

/// Why a backup cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The file is no whole backup, or not for this member.
    #[error("{} cannot be restored: {problem}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        problem: String,
    },
    /// There is something in the data folder.
    #[error(
        "data folder {} is not empty. A restore makes a new cluster and never touches what there is: move that folder away, or name \
         another one with --data",
        path.display()
    )]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// The data folder cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A backup file's bytes.
///
/// # Errors
///
/// When the header cannot be encoded.
pub fn to_backup(header: &BackupHeader, state: &State) -> io::Result<Vec<u8>> {
    let header = serde_json::to_vec(header)?;
    let state = encode(state)?;
    let mut content = Vec::with_capacity(20 + header.len() + state.len());
    content.extend_from_slice(MAGIC);
    content.extend_from_slice(&[0; 4]);
    content.extend_from_slice(&(header.len() as u64).to_le_bytes());
    content.extend_from_slice(&header);
    content.extend_from_slice(&state);
    let sum = checksum(MAGIC, &content[12..]);
    content[8..12].copy_from_slice(&sum.to_le_bytes());
    Ok(content)
}

/// What a backup file holds.
fn from_backup(content: &[u8]) -> Result<(BackupHeader, State), String> {
    let cut = || "it is cut short; take another copy".to_owned();
    let (magic, rest) = content.split_first_chunk::<8>().ok_or_else(cut)?;
    if magic != MAGIC {
        return Err("it is no backup of Soloist's coordinators".to_owned());
    }
    let (sum, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
    if *sum != checksum(MAGIC, rest).to_le_bytes() {
        return Err("its checksum is wrong: it was cut short or changed; take another copy".to_owned());
    }
    let (length, rest) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| cut())?;
    let (header, state) = rest.split_at_checked(length).ok_or_else(cut)?;
    let header: BackupHeader = serde_json::from_slice(header).map_err(|error| error.to_string())?;
    if header.format > FORMAT {
        return Err(format!("its format {} is from a later release, this one knows {FORMAT}", header.format));
    }
    if header.feature_level > soloist_core::command::FEATURE_LEVEL {
        return Err(format!("it was made by a later release, of feature level {}", header.feature_level));
    }
    let state = decode(state).map_err(|error| error.to_string())?;
    Ok((header, state))
}

/// The header of a backup that is made now, in a cluster of this name and era.
pub(crate) fn header(cluster: &str, era: u64, member: u64, wall_ms: u64, stale: bool) -> BackupHeader {
    BackupHeader {
        format: FORMAT,
        cluster: cluster.to_owned(),
        era,
        index: 0,
        term: 0,
        feature_level: soloist_core::command::FEATURE_LEVEL,
        members: BTreeMap::new(),
        member,
        wall_ms,
        stale,
    }
}

/// Makes a member's data folder from a backup: the only member of a new cluster that goes on from there. `wall_ms` is the time, milliseconds since
/// 1970. Blocks. Returns the backup's
/// header and the log index from which the new cluster goes on.
///
/// # Errors
///
/// When the backup cannot be used, or the folder is not new.
pub fn restore(
    folder: &Path,
    cluster: &str,
    member: u64,
    address: &str,
    backup: &Path,
    wall_ms: u64,
) -> Result<(BackupHeader, u64), RestoreError> {
    let read = |source| RestoreError::Read { path: backup.to_owned(), source };
    let unusable = |problem: String| RestoreError::Unusable { path: backup.to_owned(), problem };
    if fs::metadata(backup).map_err(read)?.len() > BACKUP_BYTES_MAX {
        return Err(unusable("it is larger than any backup".to_owned()));
    }
    let (header, state) = from_backup(&fs::read(backup).map_err(read)?).map_err(unusable)?;
    if header.cluster != cluster {
        return Err(unusable(format!(
            "it is of cluster {:?}, and this member is of cluster {cluster:?}; correct the name in the configuration",
            header.cluster
        )));
    }
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries.count(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(StoreError::io("list folder", folder)(error).into()),
    };
    if entries > 0 {
        return Err(RestoreError::NotEmpty { path: folder.to_owned() });
    }
    let (state, index) = restored(&state, header.index, wall_ms).ok_or_else(|| {
        let text = "this host's clock is behind the backup's numbers, which go on with the time: set it right, and restore again";
        unusable(text.to_owned())
    })?;
    fs::create_dir_all(folder).map_err(StoreError::io("create data folder", folder))?;
    write_durably(folder, UNFINISHED, b"A backup is being restored here.\n")?;
    // Counted up, so that of two eras the later one is known, and drawn, so that two restores of one backup differ.
    let era = (((header.era >> 32) + 1) << 32) | u64::from(rand::random::<u32>());
    let leader_id = LeaderId { term: header.term + 1, node_id: member };
    let last = LogId { leader_id, index };
    let opened = Arc::new(Folder::open_in(folder, cluster, member, era)?);
    Marker::create(folder)?;
    let disk = Disk::open(&opened)?;
    let vote = Vote::new(leader_id.term, member);
    let written = disk.put(Cell::Vote, &vote).and_then(|()| disk.put(Cell::Purged, &last));
    written.map_err(StoreError::io("write", folder))?;
    disk.sync()?;
    let nodes = BTreeMap::from([(member, BasicNode::new(address))]);
    let membership = Membership::new(vec![BTreeSet::from([member])], nodes);
    let membership = membership.map_err(|error| unusable(error.to_string()))?;
    let meta = SnapshotMeta {
        last_log_id: Some(last),
        last_membership: StoredMembership::new(Some(last), membership),
    };
    let encoded = encode(&state).map_err(|error| unusable(error.to_string()))?;
    let files = SnapshotFiles::open(opened.clone())?;
    files.save(&meta, &encoded).map_err(StoreError::io("write a snapshot in", folder))?;
    Marker::open(folder)?.set(Mark { last: Some(last), vote: Some(vote) })?;
    let others = encode(&header.members).map_err(|error| unusable(error.to_string()))?;
    write_durably(folder, PREDECESSORS, &seal(PREDECESSORS.as_bytes(), &others))?;
    fs::remove_file(folder.join(UNFINISHED)).map_err(StoreError::io("remove", folder.join(UNFINISHED)))?;
    sync_folder(folder)?;
    Ok((header, index))
}

/// Refuses a folder in which a restore was cut off.
pub(crate) fn finished(folder: &Path) -> Result<(), StoreError> {
    if folder.join(UNFINISHED).exists() {
        let detail = "a restore was cut off in it: wipe it, and restore the backup again".to_owned();
        return Err(damaged(folder, Damage::File { file: UNFINISHED, detail }));
    }
    Ok(())
}

/// The members of the cluster before the restore, until they were looked for.
pub(crate) fn predecessors(folder: &Path) -> Result<Option<BTreeMap<u64, String>>, StoreError> {
    let path = folder.join(PREDECESSORS);
    let bad = || {
        let detail = "its checksum is wrong".to_owned();
        damaged(folder, Damage::File { file: PREDECESSORS, detail })
    };
    match fs::read(&path) {
        Ok(bytes) => {
            let members = unseal(PREDECESSORS.as_bytes(), &bytes).and_then(|bytes| decode(bytes).ok());
            members.ok_or_else(bad).map(Some)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", path)(error)),
    }
}

/// The members of before were looked for, and are gone.
pub(crate) fn forget_predecessors(folder: &Path) -> Result<(), StoreError> {
    let path = folder.join(PREDECESSORS);
    fs::remove_file(&path).map_err(StoreError::io("remove", path))?;
    sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(folder: &Path) -> PathBuf {
        let header = BackupHeader {
            index: 70,
            term: 4,
            members: BTreeMap::from([(1, "a:1".to_owned()), (2, "b:1".to_owned())]),
            ..header("test", 0, 1, 5, false)
        };
        let path = folder.join("backup");
        fs::write(&path, to_backup(&header, &State::default()).unwrap()).unwrap();
        path
    }

    #[test]
    fn a_folder_is_made_and_opens_as_another_era_far_above() {
        let temp = tempfile::tempdir().unwrap();
        let (file, folder) = (backup(temp.path()), temp.path().join("data"));
        let (header, index) = restore(&folder, "test", 7, "c:1", &file, 9).unwrap();
        assert_eq!((header.index, index), (70, soloist_core::restore::first_index(70, 9).unwrap()));
        let store = super::super::Store::open(&folder, "test", 7).unwrap();
        assert_eq!((store.last, store.members), (Some(index), BTreeMap::from([(7, "c:1".to_owned())])));
        assert!(store.roll.begun() && store.roll.own().era > 0);
        assert_eq!(predecessors(&folder).unwrap().unwrap().len(), 2);
        let again = restore(&folder, "test", 7, "c:1", &file, 9).unwrap_err();
        assert!(matches!(again, RestoreError::NotEmpty { .. }), "{again}");
    }

    #[test]
    fn what_is_no_whole_backup_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let file = backup(temp.path());
        let whole = fs::read(&file).unwrap();
        let folder = temp.path().join("data");
        let refused = |content: &[u8], cluster: &str| {
            fs::write(&file, content).unwrap();
            let error = restore(&folder, cluster, 1, "a:1", &file, 9).unwrap_err().to_string();
            assert!(!folder.exists(), "nothing is begun: {error}");
            error
        };
        let mut changed = whole.clone();
        changed[30] ^= 1;
        assert!(refused(&changed, "test").contains("checksum"));
        assert!(refused(&whole[..whole.len() - 1], "test").contains("checksum"));
        assert!(refused(b"PK", "test").contains("cut short"));
        assert!(refused(&whole, "other").contains("\"other\""));
        fs::write(&file, &whole).unwrap();
        let error = restore(&folder, "test", 1, "a:1", &file, 0).unwrap_err().to_string();
        assert!(error.contains("clock") && !folder.exists(), "{error}");
    }

    #[test]
    fn a_restore_that_was_cut_off_does_not_open() {
        let temp = tempfile::tempdir().unwrap();
        write_durably(temp.path(), UNFINISHED, b"").unwrap();
        let error = super::super::Store::open(temp.path(), "test", 1).unwrap_err().to_string();
        assert!(error.contains("restore the backup again"), "{error}");
    }
}
