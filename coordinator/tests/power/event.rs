//! What a member tells the outside, line by line. What it told is known after the power cut, whatever its disk has lost.

use std::io::Write as _;

use openraft::type_config::alias::{EntryOf, LogIdOf, VoteOf};
use serde::{Deserialize, Serialize};
use soloist_coordinator::raft::types::TypeConfig;

pub(crate) type Id = LogIdOf<TypeConfig>;
pub(crate) type Vote = VoteOf<TypeConfig>;
pub(crate) type LogEntry = EntryOf<TypeConfig>;

/// Begins each line, since the test library prints lines too.
const MARK: &str = "POWER ";

/// A line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The folder is open, and holds this. From now on the member answers for it.
    Opened(Contents),
    /// The folder was refused, in these words.
    Refused(String),
    /// This will be written now.
    Began(Step),
    /// This was acknowledged.
    Acknowledged(Step),
    /// Something failed while the folder was open, and the member stops.
    Failed(String),
}

/// What is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Step {
    /// A vote.
    Vote(Vote),
    /// Entries, with a digest of each.
    Append(Vec<(Id, u64)>),
    /// The entries behind this one go.
    Truncate(Id),
    /// The entries up to this one go.
    Purge(Id),
    /// A snapshot, up to this entry and with a digest of the state.
    Snapshot(Id, u64),
}

/// What an open folder holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Contents {
    /// The vote.
    pub(crate) vote: Option<Vote>,
    /// Up to where the log was purged.
    pub(crate) purged: Option<Id>,
    /// The log.
    pub(crate) entries: Vec<(Id, u64)>,
    /// The newest snapshot.
    pub(crate) snapshot: Option<(Id, u64)>,
}

impl Event {
    /// Tells it.
    pub(crate) fn tell(&self) {
        let line = format!("{MARK}{}\n", serde_json::to_string(self).unwrap());
        let mut out = std::io::stdout().lock();
        out.write_all(line.as_bytes()).and_then(|()| out.flush()).unwrap();
    }

    /// Understands a line; `None` if it is not one of these.
    pub(crate) fn heard(line: &str) -> Option<Event> {
        // The test library begins a line with the test's name and does not end it.
        let (_, told) = line.split_once(MARK)?;
        Some(serde_json::from_str(told).unwrap_or_else(|error| panic!("{error} in the line {told}")))
    }
}
