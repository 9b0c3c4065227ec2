//! The log and the vote, as the consensus library wants them.

use std::{
    fmt::Debug,
    io,
    ops::RangeBounds,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use openraft::{
    OptionalSend,
    storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    check::Contents,
    disk::{Cell, Disk},
    error::StoreError,
    flusher::{self, Failure, Op},
    folder::Folder,
    marker::Marker,
};
use crate::raft::types::{LogEntry, LogId, TypeConfig, Vote};

/// How much of the log is read, and sent to another member, at once, in bytes. One more entry may begin below it. Small,
/// so that a member that catches up does not keep a thread busy for the time of a heartbeat.
pub(crate) const MAX_READ_BYTES: usize = 512 * 1024;

/// The stored log and vote of a member. Clones share it; the last one to go closes it.
#[derive(Debug, Clone)]
pub struct LogStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// `None` only while dropping.
    queue: Option<mpsc::Sender<Op>>,
    flusher: Option<thread::JoinHandle<()>>,
    failure: Failure,
    /// The vote on the disk. Changes only after a new one is.
    vote: Mutex<Option<Vote>>,
    disk: Arc<Disk>,
    /// Last, so that the folder is unlocked after the database has closed.
    _folder: Arc<Folder>,
}

impl LogStore {
    /// Starts the flusher on a database that was checked.
    pub(crate) fn start(
        folder: Arc<Folder>,
        disk: Disk,
        marker: Marker,
        contents: &Contents,
    ) -> Result<LogStore, StoreError> {
        let disk = Arc::new(disk);
        let (queue, flusher, failure) = flusher::spawn(disk.clone(), marker)
            .map_err(StoreError::io("start the flusher thread for", folder.path()))?;
        let vote = Mutex::new(contents.vote);
        let inner =
            Inner { queue: Some(queue), flusher: Some(flusher), failure, vote, disk, _folder: folder };
        Ok(LogStore { inner: Arc::new(inner) })
    }

    /// Why the disk can no longer be written to; `None` while it can.
    pub(crate) fn failure(&self) -> Failure {
        self.inner.failure.clone()
    }

    async fn enqueue(&self, op: Op) -> io::Result<()> {
        let queue = self.inner.queue.as_ref().ok_or_else(|| io::Error::other("the log is closing"))?;
        queue.send(op).await.map_err(|_| match &*self.inner.failure.borrow() {
            Some(error) => io::Error::other(error.clone()),
            None => io::Error::other("the log's flusher thread has ended"),
        })
    }

    /// Hands an operation to the flusher and waits until it is done.
    async fn wait(&self, op: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Op) -> io::Result<()> {
        let (done, result) = oneshot::channel();
        self.enqueue(op(done)).await?;
        result.await.map_err(|_| io::Error::other("the log's flusher thread has ended"))?
    }

    fn vote(&self) -> std::sync::MutexGuard<'_, Option<Vote>> {
        // The lock only covers copying a value, so a poisoned one holds a sound value too.
        self.inner.vote.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<LogEntry>, io::Error> {
        self.inner.disk.entries(range).map(|entry| entry.map_err(io::Error::from)).collect()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<LogEntry>, io::Error> {
        Ok(self.inner.disk.first_entries(start..end, MAX_READ_BYTES)?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(*self.vote())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let last_purged_log_id = self.inner.disk.get::<LogId>(Cell::Purged)?;
        let last = self.inner.disk.last()?.map(|entry| entry.log_id);
        // A purge after a snapshot came in may lie beyond the end of the log.
        Ok(LogState { last_purged_log_id, last_log_id: last.max(last_purged_log_id) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = *vote;
        self.inner.disk.put(Cell::Vote, &vote)?;
        self.wait(|done| Op::Voted { vote, done }).await?;
        *self.vote() = Some(vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // Not synced: a stale value only means that more is applied again from the leader's word.
        match committed {
            Some(committed) => self.inner.disk.put(Cell::Committed, &committed),
            None => Ok(()),
        }
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let committed = self.inner.disk.get::<LogId>(Cell::Committed)?;
        // Never more than the log holds: a hint must not be able to stop a member.
        Ok(committed.min(self.get_log_state().await?.last_log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut last = None;
        self.inner.disk.insert(entries.into_iter().inspect(|entry| last = Some(entry.log_id)))?;
        match last {
            Some(last) => self.enqueue(Op::Appended { last, done: callback }).await,
            None => {
                callback.io_completed(Ok(()));
                Ok(())
            }
        }
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        self.wait(|done| Op::Truncate { keep: last_log_id, done }).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        // The mark first, and on the disk: without it, the missing start would look like damage.
        self.inner.disk.put(Cell::Purged, &log_id)?;
        self.wait(|done| Op::Written { done }).await?;
        Ok(self.inner.disk.remove_up_to(log_id.index)?)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The flusher ends with the queue. Waiting for it means the database is closed when this returns.
        self.queue.take();
        if let Some(flusher) = self.flusher.take()
            && flusher.thread().id() != thread::current().id()
            && flusher.join().is_err()
        {
            tracing::error!("the log's flusher thread has panicked");
        }
    }
}
