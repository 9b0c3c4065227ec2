//! File locks (flock) between the processes of one host. The kernel frees them when their holder dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a waiting process tries again. Locks here are held for milliseconds.
const RETRY: Duration = Duration::from_millis(5);

/// A held lock; dropping it frees it.
#[derive(Debug)]
pub struct Held {
    file: File,
}

impl Held {
    /// The locked file, for notes about the holder.
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// Takes the lock file if nobody holds it; `None` if somebody does.
pub fn try_take(path: &Path) -> io::Result<Option<Held>> {
    let file =
        OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Held { file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Takes the lock file, waiting at most `patience` for its holder.
pub fn take(path: &Path, patience: Duration) -> io::Result<Held> {
    let begun = Instant::now();
    loop {
        if let Some(held) = try_take(path)? {
            return Ok(held);
        }
        if begun.elapsed() >= patience {
            let text = format!("{} is locked for more than {} s", path.display(), patience.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        std::thread::sleep(RETRY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excludes_until_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = try_take(&path).unwrap().unwrap();
        assert!(try_take(&path).unwrap().is_none());
        assert_eq!(take(&path, Duration::ZERO).unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(held);
        assert!(take(&path, Duration::ZERO).is_ok());
    }
}
