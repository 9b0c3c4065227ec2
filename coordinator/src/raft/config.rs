//! How a member is set up, and the settings of the consensus library that must not be left at their defaults.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use openraft::{Config, SnapshotPolicy};

use soloist_core::command::FEATURE_LEVEL;

use super::error::OpenError;

/// Entries per message to another member. The store limits its size too.
const MAX_ENTRIES_PER_MESSAGE: u64 = 128;

/// Entries per write to the log, so that one write does not hold up a vote for long.
const MAX_ENTRIES_PER_WRITE: u64 = 512;

/// Proposals, and separately notifications, that may wait inside the library. Beyond, whoever proposes waits.
const MAX_WAITING: u64 = 4096;

/// Time to send a whole snapshot and have it installed, in milliseconds.
const SNAPSHOT_TRANSFER_MS: u64 = 60_000;

/// Pause before an unreachable member is tried again.
const RETRY_PAUSE: &str = "200ms";

/// Who this member is, and where and with whom it lives.
#[derive(Debug, Clone)]
pub struct RaftOptions {
    /// The cluster's name. Members of another cluster are refused, on the network and on the disk.
    pub cluster: String,
    /// This member's id. Never reused: a member that lost its disk comes back under a new one.
    pub member: u64,
    /// The folder that holds everything this member must not forget.
    pub data_folder: PathBuf,
    /// The members of a new cluster, this one included, with their addresses (`host:port`). Used only while the data folder
    /// is new; all members may be given the same list, and all may start at once. Empty for a member that an existing
    /// cluster is about to take in.
    pub initial_members: BTreeMap<u64, String>,
    /// How fast failures are noticed.
    pub timing: Timing,
    /// How the log is kept short.
    pub compaction: Compaction,
    /// The highest feature level that this member follows, if it is held back; see [`FEATURE_LEVEL`].
    pub max_level: u32,
    /// How long a proposal may wait for a majority, and a read for its confirmation.
    pub deadline: Duration,
}

impl RaftOptions {
    /// Options with the usual timing, for a member that waits to be taken in.
    pub fn new(cluster: impl Into<String>, member: u64, data_folder: impl Into<PathBuf>) -> RaftOptions {
        RaftOptions {
            cluster: cluster.into(),
            member,
            data_folder: data_folder.into(),
            initial_members: BTreeMap::new(),
            timing: Timing::default(),
            compaction: Compaction::default(),
            max_level: FEATURE_LEVEL,
            deadline: Duration::from_secs(5),
        }
    }

    /// The same options with the members of a new cluster.
    pub fn with_initial_members(
        mut self,
        members: impl IntoIterator<Item = (u64, impl Into<String>)>,
    ) -> RaftOptions {
        self.initial_members = members.into_iter().map(|(id, address)| (id, address.into())).collect();
        self
    }
}

/// How fast failures are noticed. All members of a cluster should agree.
///
/// A crashed leader is replaced after about its lease (`election_max_ms`) and a random election time more: 1.0 to 1.3 s
/// with the defaults. Shorter times replace it faster and mistake a slow disk for a crash more often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two signs of life of a leader.
    pub heartbeat_ms: u64,
    /// A member that hears nothing stands for election after a random time between this …
    pub election_min_ms: u64,
    /// … and this.
    pub election_max_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Timing { heartbeat_ms: 100, election_min_ms: 300, election_max_ms: 600 }
    }
}

/// How the log is kept short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compaction {
    /// Entries after which a snapshot is taken.
    pub snapshot_every: u64,
    /// Entries kept behind a snapshot, so that a member that was away for a moment needs no snapshot.
    pub keep_entries: u64,
}

impl Default for Compaction {
    fn default() -> Self {
        Compaction { snapshot_every: 5_000, keep_entries: 1_000 }
    }
}

/// The library's configuration for a member with these options.
///
/// # Errors
///
/// When the library finds that the options cannot work together.
pub fn library_config(options: &RaftOptions) -> Result<Config, OpenError> {
    let config = Config {
        cluster_name: options.cluster.clone(),
        heartbeat_interval: options.timing.heartbeat_ms,
        election_timeout_min: options.timing.election_min_ms,
        election_timeout_max: options.timing.election_max_ms,

        // By default a leader that restarts goes on leading its term without an election. But a leader sends entries
        // before they are on its own disk: after a power cut in between, it would give the same log ids to other commands,
        // and members would apply different ones. It must ask for votes again.
        enable_leader_restore: Some(false),

        // A member that was cut off asks before it raises the term, so its return does not depose a working leader.
        enable_pre_vote: Some(true),

        // Unset on purpose: a member that lost acknowledged entries must fail loudly, not be filled up again in silence.
        allow_log_reversion: None,

        snapshot_policy: SnapshotPolicy::LogsSinceLast(options.compaction.snapshot_every),
        max_in_snapshot_log_to_keep: options.compaction.keep_entries,
        // A purge costs a sync. It follows a snapshot and takes all it may at once, so there is nothing to batch.
        purge_batch_size: 1,
        // A member that lags further than this gets a snapshot, which it needs anyway once the log is cut off.
        replication_lag_threshold: options.compaction.snapshot_every,
        install_snapshot_timeout: SNAPSHOT_TRANSFER_MS,

        max_payload_entries: MAX_ENTRIES_PER_MESSAGE,
        max_append_entries: Some(MAX_ENTRIES_PER_WRITE),
        api_channel_size: Some(MAX_WAITING),
        notification_channel_size: Some(MAX_WAITING),
        backoff: RETRY_PAUSE.to_owned(),
        ..Config::default()
    };
    config.validate().map_err(|error| OpenError::Options(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dangerous_defaults_are_overridden() {
        let config = library_config(&RaftOptions::new("test", 1, "/nowhere")).unwrap();
        assert_eq!(config.enable_leader_restore, Some(false));
        assert_eq!(config.enable_pre_vote, Some(true));
        assert_eq!(config.allow_log_reversion, None);
    }

    #[test]
    fn impossible_timing_is_refused() {
        let mut options = RaftOptions::new("test", 1, "/nowhere");
        options.timing.election_min_ms = options.timing.election_max_ms;
        assert!(matches!(library_config(&options), Err(OpenError::Options(_))));
    }
}
