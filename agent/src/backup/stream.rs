//! Moving bytes: in threads of their own, bounded in memory, hashed and counted on the way, stopped with their user.
//!
//! A disk or mount that hangs holds up such a thread, and not the async runtime or its shutdown.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest as _, Sha256};

use super::error::BackupError;
use super::manifest::FileEntry;
use super::progress::Meter;
use crate::host::digest::{digits, sha256};

/// How many bytes are moved at a time.
const CHUNK: usize = 256 * 1024;

/// Tells a thread that nobody waits for it any more, and counts what it does.
#[derive(Debug, Clone)]
pub(super) struct Ticket {
    stop: Arc<AtomicBool>,
    meter: Meter,
}

impl Ticket {
    /// An error if the work was given up.
    pub(super) fn go_on(&self) -> io::Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("given up"));
        }
        Ok(())
    }

    fn passed(&self, bytes: usize) -> io::Result<()> {
        self.meter.add(bytes);
        self.go_on()
    }
}

/// Runs blocking work in a thread. When the future is dropped, the ticket's next look ends the work.
pub(super) async fn offload<T: Send + 'static>(
    meter: &Meter,
    work: impl FnOnce(&Ticket) -> Result<T, BackupError> + Send + 'static,
) -> Result<T, BackupError> {
    struct Stop(Arc<AtomicBool>);
    impl Drop for Stop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = Stop(Arc::default());
    let ticket = Ticket { stop: Arc::clone(&stop.0), meter: meter.clone() };
    let (send, receive) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("backup".into());
    let here = Path::new("of the backup");
    let started = thread.spawn(move || {
        // Whoever asked may have given up; then nobody wants the answer.
        let _ = send.send(work(&ticket));
    });
    started.map_err(BackupError::io("start a thread", here))?;
    let ended = receive.await;
    ended
        .map_err(|_| BackupError::io("end a thread", here)(io::Error::other("it ended without an answer")))?
}

/// Passes bytes on, and hashes and counts them.
pub(super) struct Hashing<W> {
    to: W,
    hash: Sha256,
    bytes: u64,
    ticket: Ticket,
}

impl<W> Hashing<W> {
    pub(super) fn new(to: W, ticket: &Ticket) -> Self {
        Self { to, hash: Sha256::new(), bytes: 0, ticket: ticket.clone() }
    }

    /// What it went to, the number of bytes, and their SHA-256.
    pub(super) fn end(self) -> (W, u64, String) {
        (self.to, self.bytes, digits(self.hash))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        self.ticket.passed(written)?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Copies to the end, in chunks.
pub(super) fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(length) => to.write_all(&chunk[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A new file, readable by its owner only.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)
}

/// Writes a new file with what `fill` gives, and syncs it.
pub(super) fn write(
    folder: &Path,
    name: &str,
    ticket: &Ticket,
    fill: impl FnOnce(&mut Hashing<File>) -> io::Result<()>,
) -> Result<FileEntry, BackupError> {
    let path = folder.join(name);
    let work = || {
        let mut to = Hashing::new(create(&path)?, ticket);
        fill(&mut to)?;
        let (file, bytes, sha256) = to.end();
        file.sync_all()?;
        Ok(FileEntry { name: name.to_owned(), bytes, sha256 })
    };
    work().map_err(BackupError::io("write", &path))
}

/// Length and SHA-256 of what a file holds.
pub(super) fn digest(path: &Path, ticket: &Ticket) -> io::Result<(u64, String)> {
    sha256(File::open(path)?, |bytes| ticket.passed(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::progress::Progress;

    fn meter() -> Meter {
        Meter::new(&tokio::sync::watch::channel(Progress::default()).0)
    }

    #[tokio::test]
    async fn what_is_written_is_hashed() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().to_owned();
        let meter = meter();
        let entry = offload(&meter, move |ticket| {
            let entry = write(&folder, "a", ticket, |to| to.write_all(b"abc"))?;
            assert_eq!(digest(&folder.join("a"), ticket).unwrap(), (entry.bytes, entry.sha256.clone()));
            Ok(entry)
        });
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(entry.await.unwrap(), FileEntry { name: "a".into(), bytes: 3, sha256: sha256.into() });
    }

    #[tokio::test]
    async fn a_thread_ends_with_its_user() {
        let (ended, mut seen) = tokio::sync::mpsc::channel(1);
        let meter = meter();
        let work = offload(&meter, move |ticket| {
            while ticket.go_on().is_ok() {
                std::thread::yield_now();
            }
            ended.blocking_send(()).unwrap();
            Ok(())
        });
        assert!(tokio::time::timeout(std::time::Duration::from_millis(20), work).await.is_err());
        seen.recv().await.unwrap();
    }
}
