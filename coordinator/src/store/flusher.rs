//! The one thread that makes writes durable, and thereby decides when anything is acknowledged.
//!
//! ```text
//!  log store ──write to database──► (readable)
//!            ──op──► bounded queue ──► flusher: drain the queue
//!                                               sync the database      ┐ once for
//!                                               raise and sync marker  ┘ the whole group
//!                                               acknowledge each op
//! ```
//!
//! The more that waits, the larger the group: under load, the cost of a sync is shared. Truncation goes through the same
//! queue, since it lowers the marker and must not race with a raise.

use std::{io, sync::Arc, thread};

use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    disk::Disk,
    error::StoreError,
    marker::{Mark, Marker},
};
use crate::raft::types::{LogId, TypeConfig, Vote};

/// How many operations may wait for the disk. Beyond, whoever writes waits, which is the back-pressure wanted.
pub(crate) const QUEUE_OPS: usize = 1024;

/// How many operations share one sync at most, so that the first of them is not kept waiting without end.
const GROUP_OPS: usize = 512;

/// Something to make durable. What it acknowledges was already written to the database.
pub(crate) enum Op {
    /// Entries were appended.
    Appended {
        /// The last of them.
        last: LogId,
        /// Told when they are on the disk.
        done: IOFlushed<TypeConfig>,
    },
    /// A vote was written.
    Voted {
        /// The vote.
        vote: Vote,
        /// Told when it is on the disk.
        done: oneshot::Sender<io::Result<()>>,
    },
    /// Something else was written, that the marker does not speak of.
    Written {
        /// Told when it is on the disk.
        done: oneshot::Sender<io::Result<()>>,
    },
    /// The end of the log must go. Unlike the others, this is not done yet.
    Truncate {
        /// The last entry that stays.
        keep: Option<LogId>,
        /// Told when the rest is gone from the disk.
        done: oneshot::Sender<io::Result<()>>,
    },
}

impl Op {
    fn acknowledge(self, result: io::Result<()>) {
        match self {
            Op::Appended { done, .. } => done.io_completed(result),
            // Whoever asked may have gone; the write is done all the same.
            Op::Voted { done, .. } | Op::Written { done } | Op::Truncate { done, .. } => {
                drop(done.send(result))
            }
        }
    }
}

/// Why the flusher has stopped: `None` while it works.
pub(crate) type Failure = watch::Receiver<Option<Arc<StoreError>>>;

/// Starts the flusher. It ends when the queue's sender is dropped, or at the first failure.
pub(crate) fn spawn(
    disk: Arc<Disk>,
    marker: Marker,
) -> io::Result<(mpsc::Sender<Op>, thread::JoinHandle<()>, Failure)> {
    let (sender, queue) = mpsc::channel(QUEUE_OPS);
    let (failure, failed) = watch::channel(None);
    let flusher = Flusher { disk, marker, failure };
    let thread = thread::Builder::new().name("log-flusher".to_owned()).spawn(move || flusher.run(queue))?;
    Ok((sender, thread, failed))
}

struct Flusher {
    disk: Arc<Disk>,
    marker: Marker,
    failure: watch::Sender<Option<Arc<StoreError>>>,
}

impl Flusher {
    fn run(mut self, mut queue: mpsc::Receiver<Op>) {
        let mut group = Vec::with_capacity(GROUP_OPS);
        while let Some(op) = queue.blocking_recv() {
            group.push(op);
            while group.len() < GROUP_OPS {
                let Ok(op) = queue.try_recv() else { break };
                group.push(op);
            }
            if let Err(error) = self.commit(&mut group) {
                self.stop(error, group);
                return;
            }
        }
        // What nobody waits for: up to where the log is known to be committed.
        if let Err(error) = self.disk.sync() {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the last writes did not reach the disk"
            );
        }
    }

    /// Commits a group in the order of its operations. On failure, those not acknowledged stay in the group.
    fn commit(&mut self, group: &mut Vec<Op>) -> Result<(), StoreError> {
        while !group.is_empty() {
            let writes = group.iter().take_while(|op| !matches!(op, Op::Truncate { .. })).count();
            if writes > 0 {
                self.commit_writes(&group[..writes])?;
                group.drain(..writes).for_each(|op| op.acknowledge(Ok(())));
            } else if let Some(Op::Truncate { keep, .. }) = group.first() {
                self.truncate(*keep)?;
                group.remove(0).acknowledge(Ok(()));
            }
        }
        Ok(())
    }

    /// First the database, then the marker: the marker must never promise what the database does not hold.
    fn commit_writes(&mut self, writes: &[Op]) -> Result<(), StoreError> {
        let mut mark = self.marker.mark();
        for op in writes {
            match op {
                Op::Appended { last, .. } => mark.last = Some(*last),
                Op::Voted { vote, .. } => mark.vote = Some(*vote),
                Op::Written { .. } | Op::Truncate { .. } => {}
            }
        }
        self.disk.sync()?;
        self.marker.set(mark)
    }

    /// First the marker, then the database, for the same reason.
    fn truncate(&mut self, keep: Option<LogId>) -> Result<(), StoreError> {
        let mark = self.marker.mark();
        if mark.last > keep {
            self.marker.set(Mark { last: keep, ..mark })?;
        }
        self.disk.remove_from(keep.map_or(0, |keep| keep.index + 1))?;
        self.disk.sync()
    }

    /// A failed write is final. Everyone who waits is told, nothing is tried again, and no later operation is taken.
    fn stop(self, error: StoreError, unfinished: Vec<Op>) {
        let error = Arc::new(error);
        tracing::error!(
            error = &*error as &dyn std::error::Error,
            "a write to the disk failed; this member must stop, and what it wrote last is unknown"
        );
        self.failure.send_replace(Some(error.clone()));
        for op in unfinished {
            op.acknowledge(Err(io::Error::other(error.clone())));
        }
    }
}
