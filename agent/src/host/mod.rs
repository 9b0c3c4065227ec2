//! What the agent knows of its host: boot, machine, processes.
//!
//! Everything is read from `/proc` and `/etc`. A process is known by its id, its start time and the boot it lives
//! in, never by its id alone: ids are used again.

pub(crate) mod child;
pub(crate) mod comers;
pub(crate) mod digest;
pub mod disk;
pub mod durable;
pub mod leftover;
pub mod lock;
mod pattern;
pub mod process;
mod scan;

use std::path::{Path, PathBuf};
use std::{fs, io};

use soloist_core::ids::{BootId, MachineId};

pub use pattern::{AppPattern, DatabaseAddress};
pub use process::ProcessId;
pub use scan::{Marker, Scan, ScanQuery, scan, scan_marked, scan_twice, tree};

/// Where the kernel tells its boot id.
pub const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";
/// Where the machine id lies.
pub const MACHINE_ID_PATH: &str = "/etc/machine-id";
/// Longest accepted boot or machine id in bytes; both are 32 to 36 characters.
const ID_MAX: usize = 64;

/// Reads the identity of the host; the paths can be replaced in tests.
#[derive(Debug, Clone)]
pub struct Host {
    /// File with the boot id.
    pub boot_id: PathBuf,
    /// File with the machine id.
    pub machine_id: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Self { boot_id: BOOT_ID_PATH.into(), machine_id: MACHINE_ID_PATH.into() }
    }
}

/// An identity of the host could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the {what} from {path}: {source}", path = path.display())]
pub struct IdentityError {
    /// What was to be read.
    pub what: &'static str,
    /// Where.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

impl Host {
    /// The id of the current boot.
    pub fn boot_id(&self) -> Result<BootId, IdentityError> {
        read_id("boot id", &self.boot_id).map(BootId)
    }

    /// The id of the machine.
    pub fn machine_id(&self) -> Result<MachineId, IdentityError> {
        read_id("machine id", &self.machine_id).map(MachineId)
    }
}

fn read_id(what: &'static str, path: &Path) -> Result<String, IdentityError> {
    let error = |source| IdentityError { what, path: path.to_owned(), source };
    let text = fs::read_to_string(path).map_err(error)?;
    let id = text.trim();
    if id.is_empty() || id.len() > ID_MAX || id.contains(char::is_whitespace) {
        return Err(error(io::Error::new(io::ErrorKind::InvalidData, "the file does not hold one id")));
    }
    Ok(id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host { boot_id: folder.path().join("boot"), machine_id: folder.path().join("machine") };
        fs::write(&host.boot_id, "b-1\n").unwrap();
        fs::write(&host.machine_id, "\n").unwrap();
        assert_eq!(host.boot_id().unwrap(), BootId("b-1".into()));
        let error = host.machine_id().unwrap_err().to_string();
        assert!(error.contains("machine id") && error.contains("one id"), "{error}");
        assert!(!Host::default().boot_id().unwrap().0.is_empty());
    }
}
