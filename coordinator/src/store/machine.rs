//! The replicated state: the core's `State`, changed by committed entries only.
//!
//! It lives in memory. On the disk are the newest snapshot and the log behind it, from which it is built again.

use std::{
    io,
    sync::{Arc, RwLock},
    time::Duration,
};

use futures::{Stream, TryStreamExt};
use openraft::{
    EntryPayload, OptionalSend,
    storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine},
};
use soloist_core::State;
use tokio::sync::watch;

use super::{
    codec::{decode, encode},
    error::{Damage, StoreError},
    snapshot::SnapshotFiles,
};
use crate::raft::types::{
    Applied, LogEntry, LogId, Response, Snapshot, SnapshotMeta, StoredMembership, TypeConfig,
};

/// Why a reader may rely on the state's lock.
const POISONED: &str =
    "a panic while an entry was applied leaves no state to trust; the process must restart";

/// Read access to the replicated state, for every part of the coordinator. Clones share it.
#[derive(Debug, Clone)]
pub struct StoreHandle {
    shared: Arc<Shared>,
}

impl StoreHandle {
    /// Reads the state. The second argument is the index of the last entry it includes, 0 if there is none.
    ///
    /// No entry is applied meanwhile, so take out what is needed and return.
    pub fn read<R>(&self, f: impl FnOnce(&State, u64) -> R) -> R {
        let replica = self.shared.replica.read().expect(POISONED);
        f(&replica.state, replica.index())
    }

    /// The index of the last applied entry, as it changes. A value seen here is included in every later
    /// [`StoreHandle::read`].
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.shared.applied.subscribe()
    }

    /// Waits until the entry with this index is applied here. `false` if that takes longer than `deadline`.
    pub async fn wait_applied(&self, index: u64, deadline: Duration) -> bool {
        let mut applied = self.applied();
        let reached = applied.wait_for(|applied| *applied >= index);
        matches!(tokio::time::timeout(deadline, reached).await, Ok(Ok(_)))
    }
}

/// The state machine that the consensus library feeds.
#[derive(Debug)]
pub struct Machine {
    shared: Arc<Shared>,
    files: SnapshotFiles,
}

#[derive(Debug)]
struct Shared {
    replica: RwLock<Replica>,
    applied: watch::Sender<u64>,
}

/// The state, and up to where it is.
#[derive(Debug, Clone, Default)]
struct Replica {
    last: Option<LogId>,
    membership: StoredMembership,
    state: State,
}

impl Replica {
    fn index(&self) -> u64 {
        self.last.map_or(0, |last| last.index)
    }

    fn apply(&mut self, entry: &LogEntry) -> Response {
        let index = entry.log_id.index;
        let response = match &entry.payload {
            EntryPayload::Blank => Response::Internal { index },
            EntryPayload::Normal(command) => {
                let reply = soloist_core::apply(&mut self.state, index, command).reply;
                Response::Command(Applied { index, reply })
            }
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                Response::Internal { index }
            }
        };
        self.last = Some(entry.log_id);
        response
    }
}

impl Machine {
    /// Builds the state from the newest snapshot. `purged` is where the log starts: the snapshot must reach that far.
    pub(crate) fn open(files: SnapshotFiles, purged: Option<LogId>) -> Result<Machine, StoreError> {
        let replica = match files.load()? {
            None => Replica::default(),
            Some(snapshot) => decode_replica(&snapshot.meta, &snapshot.snapshot).map_err(|error| {
                files.damaged(Damage::Record { record: format!("state in the newest snapshot ({error})") })
            })?,
        };
        if let Some(purged) = purged
            && replica.last.is_none_or(|last| last < purged)
        {
            let found = replica.last.map_or("nothing".to_owned(), |last| format!("entries up to {last}"));
            return Err(files.damaged(Damage::LostSnapshot { purged: purged.index, found }));
        }
        let applied = watch::Sender::new(replica.index());
        Ok(Machine { shared: Arc::new(Shared { replica: RwLock::new(replica), applied }), files })
    }

    /// Read access to the state.
    pub fn handle(&self) -> StoreHandle {
        StoreHandle { shared: self.shared.clone() }
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let replica = self.shared.replica.read().expect(POISONED);
        Ok((replica.last, replica.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let response = self.shared.replica.write().expect(POISONED).apply(&entry);
            // Before the answer: whoever got it may wait for its index and must not wait in vain.
            self.shared.applied.send_replace(entry.log_id.index);
            if let Some(responder) = responder {
                responder.send(response);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        // A copy, so that entries go on being applied while it is encoded and written.
        let replica = Arc::new(self.shared.replica.read().expect(POISONED).clone());
        SnapshotBuilder { replica, files: self.files.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Vec<u8>) -> Result<(), io::Error> {
        // Decoded first: one that cannot be read must not replace one that can.
        let replica = decode_replica(meta, &snapshot)?;
        let (files, meta) = (self.files.clone(), meta.clone());
        blocking(move || files.save(&meta, &snapshot)).await?;
        let index = replica.index();
        *self.shared.replica.write().expect(POISONED) = replica;
        self.shared.applied.send_replace(index);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let files = self.files.clone();
        blocking(move || Ok(files.load()?)).await
    }
}

/// Writes one snapshot, of the state at the moment this was made.
#[derive(Debug)]
pub struct SnapshotBuilder {
    replica: Arc<Replica>,
    files: SnapshotFiles,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (replica, files) = (self.replica.clone(), self.files.clone());
        blocking(move || {
            let last_membership = replica.membership.clone();
            let meta = SnapshotMeta { last_log_id: replica.last, last_membership };
            let state = encode(&replica.state)?;
            files.save(&meta, &state)?;
            Ok(Snapshot { meta, snapshot: state })
        })
        .await
    }
}

fn decode_replica(meta: &SnapshotMeta, state: &[u8]) -> io::Result<Replica> {
    let (last, membership) = (meta.last_log_id, meta.last_membership.clone());
    Ok(Replica { last, membership, state: decode(state)? })
}

/// Runs file work where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
