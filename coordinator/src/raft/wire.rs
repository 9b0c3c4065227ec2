//! Sizes and shapes of messages between members, the same on both sides.

use serde::{Deserialize, Serialize};

use super::types::{SnapshotMeta, Vote};
use crate::store::{MAX_COMMAND_BYTES, MAX_READ_BYTES};

/// The largest message between members, in bytes. What is read from the log for one message ends with at most one entry
/// above the limit for reading; the rest is room for what is around the entries.
pub(crate) const MAX_MESSAGE_BYTES: usize = MAX_READ_BYTES + MAX_COMMAND_BYTES + 128 * 1024;

/// How much of a snapshot goes into one message, in bytes.
pub(crate) const SNAPSHOT_PART_BYTES: usize = 256 * 1024;

/// What precedes a snapshot's bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotHeader {
    /// The vote of the leader that sends it.
    pub(crate) vote: Vote,
    /// What it covers.
    pub(crate) meta: SnapshotMeta,
    /// Its length.
    pub(crate) bytes: u64,
    /// The checksum of its bytes.
    pub(crate) checksum: u32,
}

impl SnapshotHeader {
    /// The checksum's key.
    pub(crate) const KEY: &[u8] = b"snapshot transfer";
}
