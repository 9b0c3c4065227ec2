//! Replacing the include file, with the one before it kept until the new one has passed its test.
//!
//! The test is of nginx's whole configuration, so the new file must lie in its place for it. Until it has passed, the file
//! before it lies beside it, under a name that `include *.conf` does not match; so it can be put back also by an agent that
//! was killed in between.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::super::error::BalancerError;
use crate::host::durable;

/// Largest file that is taken for ours, in bytes.
const SIZE_MAX: u64 = 1024 * 1024;

/// The file, and the name under which the one before it waits.
#[derive(Debug, Clone)]
pub(super) struct Place {
    path: PathBuf,
    before: PathBuf,
}

impl Place {
    pub(super) fn new(path: &Path) -> Self {
        let mut before = path.as_os_str().to_owned();
        before.push(".before");
        Self { path: path.to_owned(), before: before.into() }
    }

    /// The file's text; `None` if there is none yet.
    pub(super) fn read(&self) -> Result<Option<String>, BalancerError> {
        match fs::metadata(&self.path) {
            Ok(meta) if meta.len() > SIZE_MAX => {
                Err(failed("read", &self.path)(io::Error::other("it is too large to be ours")))
            }
            Ok(_) => fs::read_to_string(&self.path).map(Some).map_err(failed("read", &self.path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &self.path)(error)),
        }
    }

    /// Puts a text in its place, and keeps what was there. What waits already is from a test that was interrupted: it has
    /// passed its own, and what lies in the place has not.
    pub(super) fn replace(&self, text: &str) -> Result<(), BalancerError> {
        let current = self.read()?;
        if current.as_deref() == Some(text) {
            return Ok(());
        }
        if !self.before.exists() {
            // To nginx, an empty file is as good as none.
            let bytes = current.unwrap_or_default().into_bytes();
            durable::write(&self.before, &bytes).map_err(failed("write", &self.before))?;
        }
        durable::write(&self.path, text.as_bytes()).map_err(failed("write", &self.path))
    }

    /// The new file has passed: what was before is not needed any more.
    pub(super) fn keep(&self) -> Result<(), BalancerError> {
        match fs::remove_file(&self.before) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &self.before)(error))
            }
            _ => Ok(()),
        }
    }

    /// The new file has not passed: what was before comes back.
    pub(super) fn put_back(&self) -> Result<(), BalancerError> {
        match fs::rename(&self.before, &self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("put back", &self.path)(error))
            }
            _ => Ok(()),
        }
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BalancerError {
    let path = path.to_owned();
    move |source| BalancerError::File { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passed_its_test_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(&folder.path().join("a.conf"));
        assert_eq!(place.read().unwrap(), None);
        place.replace("one").unwrap();
        place.put_back().unwrap();
        assert_eq!(place.read().unwrap().as_deref(), Some(""), "there was nothing before the first");
        place.replace("one").unwrap();
        place.keep().unwrap();
        place.replace("two").unwrap();
        // Interrupted here, and then something else is wanted.
        place.replace("three").unwrap();
        place.put_back().unwrap();
        assert_eq!(place.read().unwrap().as_deref(), Some("one"));
        place.replace("four").unwrap();
        place.keep().unwrap();
        place.put_back().unwrap();
        assert_eq!(place.read().unwrap().as_deref(), Some("four"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else stays");
    }
}
