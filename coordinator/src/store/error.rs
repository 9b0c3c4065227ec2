//! Why a data folder cannot be used.

use std::{io, path::PathBuf};

/// What to do with a member whose folder cannot be trusted any more.
const REJOIN: &str = "This member may have forgotten what it promised to the others, so it must not take part again \
    with this data. Stop it, remove it from the cluster, wipe this folder, and let it join under a new member id. If \
    it is the only member, do not wipe: the folder is the cluster; restore a backup of it instead";

/// A data folder could not be opened, or a write to it failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused something.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },

    /// Another process has the folder open.
    #[error(
        "data folder {} is in use by another process. Two members must never share a folder: stop the other one, or \
         give this one a folder of its own",
        path.display()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },

    /// The folder belongs to another member or another cluster.
    #[error(
        "data folder {} belongs to member {found_member} of cluster {found_cluster:?}, and this is member {member} of \
         cluster {cluster:?}. Start it with its own folder, or correct its member id and cluster name",
        path.display()
    )]
    WrongOwner {
        /// The folder.
        path: PathBuf,
        /// The cluster this process was started for.
        cluster: String,
        /// The member this process was started as.
        member: u64,
        /// The cluster the folder names.
        found_cluster: String,
        /// The member the folder names.
        found_member: u64,
    },

    /// The cluster was finalized for a later release than this one, or than this member is held back to.
    #[error(
        "{what} is of feature level {found}, and this member goes up to {max}: the cluster was finalized for a later release. \
         Start that release here, or raise max_feature_level in this member's configuration if it is set. The data is fine: \
         nothing has to be deleted"
    )]
    TooNew {
        /// What was met.
        what: String,
        /// Its level.
        found: u32,
        /// The highest level that this member follows.
        max: u32,
    },

    /// The folder does not hold what it should.
    #[error("data folder {} is damaged: {damage}. {REJOIN}", path.display())]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// What was found.
        damage: Damage,
    },

    /// The log's database failed.
    #[error("cannot {doing} the log database in {}", path.display())]
    Database {
        /// What was tried.
        doing: &'static str,
        /// The database's folder.
        path: PathBuf,
        /// The database's answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// For `map_err` after a system call.
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.into();
        move |source| StoreError::Io { doing, path, source }
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        io::Error::other(error)
    }
}

/// What is wrong with a data folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// A file that is written when the folder is first used is gone or unreadable.
    #[error("its file {file:?} is missing or unreadable ({detail})")]
    File {
        /// The file's name.
        file: &'static str,
        /// What is wrong with it.
        detail: String,
    },

    /// A record's checksum does not fit.
    #[error("record {record} has a wrong checksum or cannot be read")]
    Record {
        /// Which record.
        record: String,
    },

    /// The database refuses to open its own files.
    #[error("the log database cannot be read ({detail})")]
    Database {
        /// The database's words.
        detail: String,
    },

    /// Entries are missing from the middle of the log.
    #[error("the log has a hole: entry {expected} should come next, and entry {found} does")]
    Hole {
        /// The index that should follow.
        expected: u64,
        /// The index that does.
        found: u64,
    },

    /// An entry is older than the one before it: part of the log came back from before a truncation.
    #[error("log entry {index} comes from an older leader than the entry before it")]
    Order {
        /// The entry's index.
        index: u64,
    },

    /// The end of the log is missing or differs, although it was acknowledged.
    #[error("the log was acknowledged up to {acknowledged}, and holds {found}")]
    LostLog {
        /// The last log id that was acknowledged.
        acknowledged: String,
        /// What is there instead.
        found: String,
    },

    /// The vote is missing or older than one that was acknowledged: with it, two leaders in one term are possible.
    #[error("the vote {acknowledged} was given, and the log database holds {found}")]
    LostVote {
        /// The vote that was acknowledged.
        acknowledged: String,
        /// What is there instead.
        found: String,
    },

    /// The log was cut off at its start, and no snapshot holds what was cut off.
    #[error("the log starts after entry {purged}, and the newest snapshot holds {found}")]
    LostSnapshot {
        /// The last index that was removed from the log.
        purged: u64,
        /// What the newest snapshot covers.
        found: String,
    },
}
