//! The app's output in files of bounded size.
//!
//! The app has the file itself as its output, opened for appending, so it does not depend on the keeper. Rotating
//! therefore copies the file and empties it; what is written between the last copied byte and the emptying, some
//! microseconds, is lost. Bounded disk use comes first.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use soloist_core::ids::Launch;

use super::files::LogBounds;

/// Most times that the copy is extended by what the app wrote meanwhile.
const CATCH_UP_MAX: u32 = 8;

/// The log of one app.
pub(super) struct AppLog {
    path: PathBuf,
    file: File,
    bounds: LogBounds,
}

impl AppLog {
    pub(super) fn open(path: &Path, bounds: LogBounds) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)?;
        Ok(Self { path: path.to_owned(), file, bounds })
    }

    /// A handle for the app's output.
    pub(super) fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Writes the line that begins a launch.
    pub(super) fn mark(&self, launch: Launch) -> io::Result<()> {
        let line = format!("{}\n", crate::work::mark(launch));
        (&self.file).write_all(line.as_bytes())
    }

    /// Moves the content away once it is too long.
    pub(super) fn rotate(&mut self) -> io::Result<()> {
        if self.file.metadata()?.len() < self.bounds.max_bytes {
            return Ok(());
        }
        let kept = self.shift().and_then(|()| self.copy());
        // Emptied even if keeping failed (a full disk): the bound holds, the old content does not.
        self.file.set_len(0)?;
        kept
    }

    fn old(&self, n: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{n}"));
        name.into()
    }

    fn shift(&self) -> io::Result<()> {
        for n in (1..self.bounds.keep.max(1)).rev() {
            match std::fs::rename(self.old(n), self.old(n + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn copy(&self) -> io::Result<()> {
        let mut from = File::open(&self.path)?;
        let mut to =
            OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(self.old(1))?;
        let mut done = 0;
        for _ in 0..CATCH_UP_MAX {
            from.seek(SeekFrom::Start(done))?;
            let more = io::copy(&mut io::Read::take(&from, self.bounds.max_bytes), &mut to)?;
            done += more;
            if more == 0 || done >= self.bounds.max_bytes.saturating_mul(2) {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_and_written_on_by_the_same_handle() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("app.log");
        let mut log = AppLog::open(&path, LogBounds { max_bytes: 100, keep: 2 }).unwrap();
        let mut app = log.handle().unwrap();
        for round in 0..5 {
            app.write_all(&[b'a' + round; 120]).unwrap();
            log.rotate().unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        }
        app.write_all(b"end").unwrap();
        log.rotate().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"end");
        assert_eq!(std::fs::read(temp.path().join("app.log.1")).unwrap(), [b'e'; 120]);
        assert_eq!(std::fs::read(temp.path().join("app.log.2")).unwrap(), [b'd'; 120]);
        assert!(!temp.path().join("app.log.3").exists());
    }
}
