//! Timeouts and bounds.

use serde::{Deserialize, Serialize};

use crate::time::Millis;

/// A fleet's timeouts. All lengths are in milliseconds of the state's time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// An agent that was not heard for this long counts as out of contact.
    pub contact_timeout: Millis,
    /// How long an operation may take, once it has the lock, to bring about what its exclusive part needs.
    pub pre_grant_timeout: Millis,
    /// How long a client whose operation reached the head of the queue has to confirm that it still wants it.
    pub confirm_timeout: Millis,
    /// How long an external holder has to accept its grant.
    pub accept_timeout: Millis,
    /// Length of an external holder's lease.
    pub lease: Millis,
    /// How long after the proven end of a lost holder's work the fleet is restored by itself.
    pub restore_after: Millis,
    /// How long a start waits for nodes that have not been heard yet.
    pub gather_timeout: Millis,
    /// How long a node may take to serve.
    pub start_timeout: Millis,
    /// How long a node may take to stop.
    pub stop_timeout: Millis,
    /// How long a task may take.
    pub task_timeout: Millis,
    /// How long a task may take that copies data: a backup or a restore.
    pub backup_timeout: Millis,
    /// How many backups are kept; older ones are removed once a newer one was made and checked.
    pub keep_backups: u32,
    /// How many nodes start at the same time once the first one serves.
    pub max_parallel: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            contact_timeout: Millis::from_secs(15),
            pre_grant_timeout: Millis::from_secs(600),
            confirm_timeout: Millis::from_secs(30),
            accept_timeout: Millis::from_secs(15),
            lease: Millis::from_secs(30),
            restore_after: Millis::from_secs(900),
            gather_timeout: Millis::from_secs(20),
            start_timeout: Millis::from_secs(600),
            stop_timeout: Millis::from_secs(120),
            task_timeout: Millis::from_secs(600),
            backup_timeout: Millis::from_secs(4 * 3600),
            keep_backups: 7,
            max_parallel: 1,
        }
    }
}

/// Most nodes of a fleet: NocoBase's worker ids end at 31.
pub const NODES_MAX: usize = 32;
/// Most fleets of one set of coordinators; bounds what anyone who can reach a coordinator can make it remember.
pub const FLEETS_MAX: usize = 10_000;
/// Most operations that wait in a fleet's queue: more is a client in a loop.
pub const QUEUE_MAX: usize = 32;
/// Most ended operations that a fleet remembers; asking again for an older one counts as new.
pub const HISTORY_MAX: usize = 50;
/// Most events that a fleet remembers.
pub const EVENTS_MAX: usize = 300;
/// Most attempts of a task that begin by themselves after its agent died in the middle.
pub const TASK_ATTEMPTS_MAX: u32 = 3;
/// Most backups that a fleet remembers, whatever its policy says.
pub const BACKUPS_MAX: usize = 100;
/// Longest reason, name of a person, or message that is kept, in characters.
pub const TEXT_MAX: usize = 500;
