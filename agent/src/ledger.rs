//! The agent's memory on disk, and the folder that it lies in.
//!
//! ```text
//! DATA/agent.lock     held by the one agent that uses the folder; names its process id
//! DATA/ledger.json    what the agent must remember over its own death
//! DATA/…              files of the app keeper, see [`crate::keeper`]
//! ```

use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use soloist_core::agent::Ledger;

use crate::host::{durable, lock};

/// Version of the ledger's file format.
const FORMAT: u32 = 1;
/// Largest ledger that is read, in bytes. A real one has a few kilobytes.
const LEDGER_MAX: u64 = 1024 * 1024;

/// Something about the data folder or the ledger is not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The folder or a file in it could not be used.
    #[error("cannot {what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another agent uses the folder.
    #[error("the data folder {path} is in use by another agent ({holder}); give each agent a folder of its own, or stop the other one", path = path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Who holds it, for people.
        holder: String,
    },
    /// The ledger cannot be understood.
    #[error("the ledger {path} cannot be read: {why}; without it this agent cannot know what it started. Make sure that no app process of this node runs, then move the file away; the agent then registers anew", path = path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// The data folder of one node, locked for this process.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    _lock: lock::Held,
}

impl DataFolder {
    /// Creates the folder where needed and locks it until the value is dropped.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let io = |what| move |source| LedgerError::Io { what, path: path.to_owned(), source };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io("create the data folder"))?;
        let path_full = path.canonicalize().map_err(io("find the data folder"))?;
        let file = path_full.join("agent.lock");
        let Some(held) = lock::try_take(&file).map_err(io("lock the data folder"))? else {
            let holder = std::fs::read_to_string(&file).unwrap_or_default();
            let holder = match holder.trim() {
                "" => "its process is not known".to_owned(),
                pid => format!("process {pid}"),
            };
            return Err(LedgerError::InUse { path: path_full, holder });
        };
        let mut note = held.file();
        note.set_len(0)
            .and_then(|()| note.rewind())
            .and_then(|()| writeln!(note, "{}", std::process::id()))
            .map_err(io("write the lock file of"))?;
        Ok(Self { path: path_full, _lock: held })
    }

    /// The folder's canonical path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether a ledger was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loaded {
    /// There was none: this agent has never acted, or its folder was lost.
    Fresh,
    /// It was there.
    Existing,
}

#[derive(Serialize, Deserialize)]
struct Stored<L> {
    format: u32,
    ledger: L,
}

/// The ledger and its file; memory and disk never differ.
#[derive(Debug)]
pub struct LedgerFile {
    path: PathBuf,
    ledger: Ledger,
}

impl LedgerFile {
    /// Path of the ledger in a data folder.
    pub fn path_in(folder: &Path) -> PathBuf {
        folder.join("ledger.json")
    }

    /// Reads the ledger of a data folder. The file is created by the first [`store`](Self::store).
    pub fn open(folder: &DataFolder) -> Result<(Self, Loaded), LedgerError> {
        let path = Self::path_in(folder.path());
        let (ledger, loaded) = match read(&path)? {
            Some(ledger) => (ledger, Loaded::Existing),
            None => (Ledger::default(), Loaded::Fresh),
        };
        Ok((Self { path, ledger }, loaded))
    }

    /// The ledger as it stands on disk.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Replaces the ledger; after this returns it survives a power cut. On an error the old one stands.
    pub fn store(&mut self, ledger: Ledger) -> Result<(), LedgerError> {
        let error = |source| LedgerError::Io { what: "write the ledger", path: self.path.clone(), source };
        let stored = Stored { format: FORMAT, ledger: &ledger };
        let bytes = serde_json::to_vec_pretty(&stored).map_err(|source| error(source.into()))?;
        durable::write(&self.path, &bytes).map_err(error)?;
        self.ledger = ledger;
        Ok(())
    }
}

/// Reads a ledger file; `None` if there is none. The keeper reads it like this under the exec lock.
pub fn read(path: &Path) -> Result<Option<Ledger>, LedgerError> {
    let error = |source| LedgerError::Io { what: "read the ledger", path: path.to_owned(), source };
    let corrupt = |why: String| LedgerError::Corrupt { path: path.to_owned(), why };
    let mut text = Vec::new();
    match std::fs::File::open(path) {
        Ok(file) => file.take(LEDGER_MAX).read_to_end(&mut text).map_err(error)?,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(other) => return Err(error(other)),
    };
    let head: Stored<serde_json::Value> =
        serde_json::from_slice(&text).map_err(|why| corrupt(format!("it is not a ledger ({why})")))?;
    if head.format != FORMAT {
        let why = format!(
            "its format {} is not the {FORMAT} that this agent knows (a newer agent wrote it?)",
            head.format
        );
        return Err(corrupt(why));
    }
    serde_json::from_value(head.ledger)
        .map(Some)
        .map_err(|why| corrupt(format!("its content is not valid ({why})")))
}

#[cfg(test)]
mod tests {
    use soloist_core::ids::{Generation, Incarnation};

    use super::*;

    fn open(path: &Path) -> (DataFolder, LedgerFile, Loaded) {
        let folder = DataFolder::open(path).unwrap();
        let (file, loaded) = LedgerFile::open(&folder).unwrap();
        (folder, file, loaded)
    }

    #[test]
    fn remembers_over_a_restart() {
        let temp = tempfile::tempdir().unwrap();
        let (folder, mut file, loaded) = open(temp.path());
        assert_eq!(loaded, Loaded::Fresh);
        let ledger = Ledger { floor: Generation(7), lineage: vec![Incarnation(3)], ..Ledger::default() };
        file.store(ledger.clone()).unwrap();
        drop((folder, file));
        let (_folder, file, loaded) = open(temp.path());
        assert_eq!((loaded, file.ledger()), (Loaded::Existing, &ledger));
    }

    #[test]
    fn a_torn_or_newer_ledger_is_an_error_that_helps() {
        let temp = tempfile::tempdir().unwrap();
        let (folder, mut file, _) = open(temp.path());
        file.store(Ledger::default()).unwrap();
        let path = LedgerFile::path_in(folder.path());
        let whole = std::fs::read(&path).unwrap();
        for bad in [&whole[..whole.len() / 2], b"", b"[]", br#"{"format":1,"ledger":{"floor":"x"}}"#] {
            std::fs::write(&path, bad).unwrap();
            let text = LedgerFile::open(&folder).unwrap_err().to_string();
            assert!(text.contains("ledger.json") && text.contains("move the file away"), "{text}");
        }
        std::fs::write(&path, br#"{"format":9,"ledger":{"anything":1}}"#).unwrap();
        let text = LedgerFile::open(&folder).unwrap_err().to_string();
        assert!(text.contains("newer agent"), "{text}");
    }

    #[test]
    fn one_agent_per_folder() {
        let temp = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(temp.path()).unwrap();
        let text = DataFolder::open(temp.path()).unwrap_err().to_string();
        assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
        drop(folder);
        DataFolder::open(temp.path()).unwrap();
    }
}
