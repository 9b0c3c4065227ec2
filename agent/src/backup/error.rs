//! What may go wrong with a backup, as texts that say what to do.

use std::io;
use std::path::{Path, PathBuf};

use soloist_core::ids::BackupId;

/// Why a backup could not be made, checked, removed or restored. No text holds a password.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file or folder could not be used.
    #[error("cannot {what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The app's settings describe something that cannot be backed up.
    #[error("{0}")]
    Setting(String),
    /// There is no such backup.
    #[error("there is no backup {id}; {known}")]
    Unknown {
        /// The id that was asked for.
        id: BackupId,
        /// The ids that there are, for people.
        known: String,
    },
    /// There is a complete backup of this id already.
    #[error("the backup {0} exists already: choose another id, or remove it first")]
    Exists(BackupId),
    /// Somebody else works on this backup.
    #[error("the backup {0} is in use by another process or call on this host: wait until that has ended")]
    Busy(BackupId),
    /// A program is not installed.
    #[error("{program} is not installed on this node: install the Debian package {package}")]
    NoProgram {
        /// The program, or several that would do.
        program: String,
        /// The package that has it.
        package: String,
    },
    /// The program for the dump is older than the database server.
    #[error("{program} {client} cannot dump a server {server}: install {package}")]
    ClientTooOld {
        /// The program.
        program: String,
        /// Its major version.
        client: u32,
        /// The server's major version.
        server: u32,
        /// The package that would do.
        package: String,
    },
    /// The program that loads a dump is too new for the database server.
    #[error(
        "{program} {client} cannot load into a server {server}, because it sets what only newer servers know: install {package}"
    )]
    ClientTooNew {
        /// The program.
        program: String,
        /// Its major version.
        client: u32,
        /// The server's major version.
        server: u32,
        /// The package that would do.
        package: String,
    },
    /// The server does not take the password.
    #[error(
        "the database {place} does not take the password of user {user}: correct DB_USER and DB_PASSWORD in the app's settings"
    )]
    Password {
        /// Host, port and name of the database.
        place: String,
        /// Who tried to sign in.
        user: String,
    },
    /// A program failed.
    #[error("{what} failed: {program}: {why}")]
    Program {
        /// What it was called for.
        what: &'static str,
        /// The program.
        program: String,
        /// The end of what it said, without secrets.
        why: String,
    },
    /// The disk is too small.
    #[error("too little space for the backup: needs about {}, has {}, at {path}; free some, or remove old backups", size(*needs_bytes), size(*has_bytes), path = path.display())]
    Space {
        /// Estimate of what is needed.
        needs_bytes: u64,
        /// What is free.
        has_bytes: u64,
        /// Where.
        path: PathBuf,
    },
    /// A backup is not what was written.
    #[error("the backup {id} is damaged: {file}: {why}; use another backup")]
    Damaged {
        /// Which backup.
        id: BackupId,
        /// Which of its files.
        file: String,
        /// How.
        why: String,
    },
    /// A backup that nobody checked is not restored.
    #[error("the backup {0} was never checked with success: check it first")]
    Unchecked(BackupId),
    /// The backup does not belong to this installation.
    #[error("the backup {id} cannot be restored here: {why}")]
    Elsewhere {
        /// Which backup.
        id: BackupId,
        /// What differs.
        why: String,
    },
    /// Others stay connected to the database.
    #[error("sessions on the database {place} did not end within {secs} s: {who}; stop what opens them")]
    Sessions {
        /// Host, port and name of the database.
        place: String,
        /// How long it was waited.
        secs: u64,
        /// Who is connected, for people.
        who: String,
    },
    /// A restore ended with something else than the backup holds.
    #[error("the restored database differs from the backup {id}: {why}")]
    Differs {
        /// Which backup.
        id: BackupId,
        /// What differs.
        why: String,
    },
    /// The time is over.
    #[error(
        "{what} took longer than {secs} s and was stopped: give it more time, or look whether the database or a mount hangs"
    )]
    Deadline {
        /// What was under way.
        what: &'static str,
        /// The deadline.
        secs: u64,
    },
}

impl BackupError {
    /// For `map_err` at a call that touches `path`.
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// A number of bytes for people.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut whole, mut rest, mut unit) = (bytes, 0, 0);
    while whole >= 1024 && unit + 1 < UNITS.len() {
        rest = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit += 1;
    }
    if unit == 0 || whole >= 100 {
        format!("{whole} {}", UNITS[unit])
    } else {
        format!("{whole}.{rest} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(200 * 1024 * 1024), "200 MiB");
        assert_eq!(size(u64::MAX), "16777215 TiB");
    }
}
