//! The agent's record of its node: what ran, and what was looked at while an operation was alone.
//!
//! ```text
//!   loop ──Fact──► Recorder ──sealed, appended, synced──► evidence.jsonl ──full──► evidence.old.jsonl
//!                     └──► session ──► members, which keep a copy
//! ```
//!
//! Each record has the hash of the one before. A launch is recorded before anything can run, so that what is not recorded did
//! not run under this agent.

mod file;
mod upload;

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rustix::time::{ClockId, clock_gettime};
use soloist_core::evidence::{Fact, Moment, Record};
use soloist_core::ids::{BootId, FleetId, Incarnation, NodeId};
use soloist_proto::evidence::seal;
use tokio::sync::watch;

use file::ChainFile;

pub use upload::Upload;

/// Most records that are at hand for a member that has none of them.
const KEPT_MAX: usize = 4_000;
/// Most records in one message to a member.
const MESSAGE_RECORDS_MAX: usize = 64;
/// Most bytes of records in one message.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Clock ticks in a second, as `/proc` counts them: the same on every Linux that Soloist runs on.
const TICKS_PER_SECOND: u64 = 100;

/// The place of a record: its chain, and its number in that.
pub type RecordPlace = (u64, u64);

/// Milliseconds since the host's boot, with the time in which it slept.
#[must_use]
pub fn boot_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let (secs, nanos) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    secs.saturating_mul(1000).saturating_add(nanos / 1_000_000)
}

/// A process's start time in milliseconds since boot.
#[must_use]
pub fn ticks_ms(ticks: u64) -> u64 {
    ticks.saturating_mul(1000) / TICKS_PER_SECOND
}

/// When something happened, in milliseconds since boot, by the wall clock as it is now.
#[must_use]
pub fn wall_to_boot_ms(unix_ms: u64) -> u64 {
    boot_ms().saturating_sub(wall_ms().saturating_sub(unix_ms))
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Writes the record. Clones write the same one.
#[derive(Debug, Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    book: Mutex<Book>,
    grown: watch::Sender<RecordPlace>,
}

#[derive(Debug)]
struct Book {
    node: NodeId,
    boot: BootId,
    file: ChainFile,
    chain: u64,
    seq: u64,
    last_hash: String,
    kept: VecDeque<(RecordPlace, String)>,
}

impl Recorder {
    /// Goes on with the record in a data folder, or begins one. Returns what it holds already.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn open(
        folder: &Path,
        (fleet, node): (&FleetId, &NodeId),
        boot: &BootId,
        incarnation: Incarnation,
    ) -> io::Result<(Recorder, Vec<Record>)> {
        let (file, found, torn) = ChainFile::open(folder)?;
        let records: Vec<Record> = found.iter().map(|(record, _)| record.clone()).collect();
        let last = records.last();
        let new = || wall_ms().saturating_mul(1000).saturating_add(rand::random::<u64>() % 1000);
        let mut book = Book {
            node: node.clone(),
            boot: boot.clone(),
            file,
            chain: last.map_or_else(new, |last| last.chain),
            seq: last.map_or(0, |last| last.seq),
            last_hash: last.map(|last| last.hash.clone()).unwrap_or_default(),
            kept: found.into_iter().map(|(record, text)| ((record.chain, record.seq), text)).collect(),
        };
        let place = book.append(Fact::Opened { fleet: fleet.clone(), incarnation, torn })?;
        let shared = Shared { book: Mutex::new(book), grown: watch::Sender::new(place) };
        Ok((Recorder { shared: Arc::new(shared) }, records))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.shared.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a record; after this returns it survives a power cut. Blocks for milliseconds.
    ///
    /// # Errors
    /// When it cannot be written; then it is not there.
    pub fn append(&self, fact: Fact) -> io::Result<()> {
        let place = self.book().append(fact)?;
        self.shared.grown.send_replace(place);
        Ok(())
    }

    /// The records after a place, as many as go into one message.
    #[must_use]
    pub fn after(&self, place: Option<RecordPlace>) -> Vec<String> {
        let book = self.book();
        let mut bytes = 0;
        let new = book.kept.iter().filter(|(at, _)| Some(*at) > place).map(|(_, text)| text);
        let fits = new.take(MESSAGE_RECORDS_MAX).take_while(|text| {
            bytes += text.len();
            bytes <= MESSAGE_BYTES_MAX
        });
        fits.cloned().collect()
    }

    /// Says when there is more.
    #[must_use]
    pub fn grown(&self) -> watch::Receiver<RecordPlace> {
        self.shared.grown.subscribe()
    }
}

impl Book {
    fn append(&mut self, fact: Fact) -> io::Result<RecordPlace> {
        let mut record = Record {
            node: self.node.clone(),
            chain: self.chain,
            seq: self.seq + 1,
            prev: self.last_hash.clone(),
            boot: self.boot.clone(),
            at: Moment { boot_ms: boot_ms(), wall_ms: wall_ms() },
            fact,
            hash: String::new(),
        };
        let text = seal(&mut record).map_err(io::Error::other)?;
        self.file.append(&text)?;
        (self.seq, self.last_hash) = (record.seq, record.hash);
        let place = (self.chain, self.seq);
        self.kept.push_back((place, text));
        if self.kept.len() > KEPT_MAX {
            self.kept.pop_front();
        }
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use soloist_core::evidence::breaks;
    use soloist_core::ids::{Generation, Launch};
    use soloist_proto::evidence::open;

    use super::*;

    fn recorder(folder: &Path) -> (Recorder, Vec<Record>) {
        let (fleet, node) = (FleetId::new("shop").unwrap(), NodeId::new("node-1").unwrap());
        Recorder::open(folder, (&fleet, &node), &BootId("b".into()), Incarnation(7)).unwrap()
    }

    #[test]
    fn it_goes_on_over_restarts_and_torn_ends_as_one_chain() {
        let folder = tempfile::tempdir().unwrap();
        let (first, found) = recorder(folder.path());
        assert!(found.is_empty());
        first.append(Fact::Resting { generation: Generation(4) }).unwrap();
        first.append(Fact::Unlaunched { launch: Launch(u64::MAX) }).unwrap();
        drop(first);
        let path = folder.path().join("evidence.jsonl");
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        let (second, found) = recorder(folder.path());
        assert_eq!(found.len(), 2, "the record whose writing was cut is lost");
        second.append(Fact::Resting { generation: Generation(5) }).unwrap();
        let records: Vec<Record> = second.after(None).iter().map(|text| open(text).unwrap()).collect();
        assert_eq!(records.iter().map(|record| record.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert!(breaks(&records).is_empty());
        assert!(matches!(records[2].fact, Fact::Opened { torn: true, .. }));
        assert_eq!(second.after(Some((records[0].chain, 3))).len(), 1);
    }

    #[test]
    fn a_record_that_was_changed_ends_the_chain() {
        let folder = tempfile::tempdir().unwrap();
        let (first, _) = recorder(folder.path());
        first.append(Fact::Resting { generation: Generation(4) }).unwrap();
        drop(first);
        let path = folder.path().join("evidence.jsonl");
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, whole.replacen("\"incarnation\":7", "\"incarnation\":8", 1)).unwrap();
        let (_second, found) = recorder(folder.path());
        assert!(found.is_empty(), "another chain is begun");
        assert!(folder.path().join("evidence.damaged.jsonl").exists());
    }

    #[test]
    fn it_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let (recorder, _) = recorder(folder.path());
        for generation in 0..3_000 {
            let _ = recorder.book().append(Fact::Resting { generation: Generation(generation) }).unwrap();
        }
        let size: u64 = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(size < 2 * file::FILE_MAX, "{size}");
        assert!(folder.path().join("evidence.old.jsonl").exists());
    }
}
