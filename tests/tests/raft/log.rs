//! The log and the vote on a simulated disk, with the group commit that the real ones have.

use std::{
    fmt::Debug,
    io,
    ops::RangeBounds,
    sync::{Arc, Mutex},
    time::Duration,
};

use openraft::{
    OptionalSend,
    rt::AsyncRuntime,
    storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};

use crate::{
    Flaw,
    disk::{Disk, Write},
    oracle::Notes,
    runtime::Seeded,
    types::{LogEntry, LogId, Simulated, Vote},
};

/// How many writes wait for the disk at most. The library waits beyond that.
const QUEUE: usize = 1024;

/// How long a lying disk keeps what it has acknowledged in its cache.
const LIE: Duration = Duration::from_secs(2);

/// The most entries that are read, and sent to another member, at once.
const READ_MAX: usize = 64;

/// The log and the vote of one run of a member.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    disk: Disk,
    queue: mpsc::Sender<Op>,
    notes: Arc<Mutex<Notes>>,
}

/// What waits for the next sync.
enum Op {
    Appended(IOFlushed<Simulated>),
    Written(oneshot::Sender<io::Result<()>>),
}

impl Op {
    fn done(self, result: io::Result<()>) {
        match self {
            Op::Appended(callback) => callback.io_completed(result),
            Op::Written(done) => {
                // Nobody waits for it in a member that has stopped.
                let _ = done.send(result);
            }
        }
    }
}

impl Log {
    /// Starts on a disk, in the runtime of its member.
    pub(crate) fn start(disk: Disk, notes: Arc<Mutex<Notes>>, flaw: Option<Flaw>) -> Log {
        let (queue, waiting) = mpsc::channel(QUEUE);
        Seeded::spawn(flush(disk.clone(), waiting, flaw));
        Log { disk, queue, notes }
    }

    async fn enqueue(&self, op: Op) -> io::Result<()> {
        self.queue.send(op).await.map_err(|_| io::Error::other("the flusher has ended"))
    }

    /// Returns once all that was written is on the disk.
    async fn synced(&self) -> io::Result<()> {
        let (done, result) = oneshot::channel();
        self.enqueue(Op::Written(done)).await?;
        result.await.map_err(|_| io::Error::other("the flusher has ended"))?
    }
}

/// Syncs for all that wait at once, and tells them in their order.
async fn flush(disk: Disk, mut waiting: mpsc::Receiver<Op>, flaw: Option<Flaw>) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, QUEUE).await > 0 {
        if flaw == Some(Flaw::LyingDisk) {
            batch.drain(..).for_each(|op| op.done(Ok(())));
            let disk = disk.clone();
            Seeded::spawn(async move {
                sleep(LIE).await;
                disk.sync().await
            });
            continue;
        }
        let result = disk.sync().await;
        for op in batch.drain(..) {
            op.done(match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::other(error.to_string())),
            });
        }
        if result.is_err() {
            return;
        }
    }
}

impl RaftLogReader<Simulated> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<LogEntry>, io::Error> {
        let platter = self.disk.platter();
        Ok(platter.volatile.log.range(range).map(|(_, entry)| (**entry).clone()).collect())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<LogEntry>, io::Error> {
        let platter = self.disk.platter();
        let entries = platter.volatile.log.range(start..end).take(READ_MAX);
        Ok(entries.map(|(_, entry)| (**entry).clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.disk.platter().volatile.vote)
    }
}

impl RaftLogStorage<Simulated> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Simulated>, io::Error> {
        let platter = self.disk.platter();
        let (last_purged_log_id, last_log_id) = (platter.volatile.purged, platter.volatile.last());
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.disk.write(Write::Vote(*vote))?;
        self.synced().await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        committed.map_or(Ok(()), |committed| self.disk.write(Write::Committed(committed)))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let platter = self.disk.platter();
        Ok(platter.volatile.committed.min(platter.volatile.last()))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Simulated>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        for entry in entries {
            let entry = Arc::new(entry);
            self.notes.lock().expect("nobody panics while noting").appended(&entry);
            self.disk.write(Write::Put(entry))?;
        }
        self.enqueue(Op::Appended(callback)).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        self.disk.write(Write::Cut { keep: last_log_id })?;
        self.synced().await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.disk.write(Write::Purge(log_id))?;
        self.synced().await
    }
}
