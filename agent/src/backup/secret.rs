//! Passwords for programs: in a file that only the owner can read, in a private folder, for as long as it is needed.
//!
//! Neither arguments nor the environment hold them. The folder's name has its owner's process, so that what a killed agent
//! left behind is recognised and removed by the next one.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::error::BackupError;
use super::installation::{Dialect, Installation};
use super::stream::create;
use crate::host::ProcessId;

/// How the private folders' names begin.
const NAME: &str = "soloist-backup-";

/// A file with a password. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Secret {
    folder: PathBuf,
    file: PathBuf,
}

impl Secret {
    /// Writes the file for programs of this installation's dialect.
    pub(super) fn new(temporary: &Path, installation: &Installation) -> Result<Self, BackupError> {
        let io = || BackupError::io("write the password's file into", temporary);
        let owner = ProcessId::own().map_err(io())?;
        remove_left_behind(temporary);
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let folder = temporary.join(format!("{NAME}{}-{}-{unique}", owner.pid, owner.start_time_ticks));
        fs::DirBuilder::new().mode(0o700).create(&folder).map_err(io())?;
        let secret = Self { file: folder.join("password"), folder };
        let text = match installation.dialect {
            Dialect::Postgres => pass_file(installation),
            Dialect::Mysql | Dialect::Mariadb => option_file(installation),
        };
        create(&secret.file).and_then(|mut file| file.write_all(text.as_bytes())).map_err(io())?;
        Ok(secret)
    }

    /// The file.
    pub(super) fn path(&self) -> String {
        self.file.to_string_lossy().into_owned()
    }

    /// Another file in the private folder, gone with it.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::warn!(folder = %self.folder.display(), "a file with a password cannot be removed: {error}");
        }
    }
}

/// PostgreSQL's format: any place, because the children are told the place.
fn pass_file(installation: &Installation) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    format!("*:*:*:{}:{}\n", escape(&installation.user), escape(&installation.password))
}

/// The format of MySQL and MariaDB. With `loose-` an option that a program does not know is no error.
fn option_file(installation: &Installation) -> String {
    // A quote inside would end the value, and what looks like a comment after it would be one.
    let quote = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    format!(
        "[client]\nprotocol=tcp\nhost={}\nport={}\nuser={}\npassword={}\nloose-ssl-verify-server-cert=0\n",
        quote(&installation.host),
        installation.port,
        quote(&installation.user),
        quote(&installation.password)
    )
}

/// Removes folders of processes that live no more.
fn remove_left_behind(temporary: &Path) {
    let Ok(entries) = fs::read_dir(temporary) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(NAME)).and_then(owner);
        let Some(owner) = owner.filter(|owner| !owner.alive()) else { continue };
        if mine(&entry).unwrap_or(false) {
            tracing::info!(pid = owner.pid, "removing a password's file that a killed process left");
            // Somebody else may be doing the same.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn owner(rest: &str) -> Option<ProcessId> {
    let mut parts = rest.split('-');
    Some(ProcessId { pid: parts.next()?.parse().ok()?, start_time_ticks: parts.next()?.parse().ok()? })
}

fn mine(entry: &fs::DirEntry) -> io::Result<bool> {
    let meta = entry.metadata()?;
    Ok(meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn installation(dialect: &str) -> Installation {
        let pairs = [
            ("DB_DIALECT", dialect),
            ("DB_HOST", "h"),
            ("DB_DATABASE", "d"),
            ("DB_USER", "u:v"),
            ("DB_PASSWORD", "a:b\\c\"#"),
            ("STORAGE_PATH", "/s"),
        ];
        let vars = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Installation::from_vars(&vars).unwrap()
    }

    #[test]
    fn the_file_is_private_and_short_lived() {
        let place = tempfile::tempdir().unwrap();
        let left = place.path().join(format!("{NAME}4000000000-1-x"));
        fs::create_dir(&left).unwrap();
        let secret = Secret::new(place.path(), &installation("postgres")).unwrap();
        assert_eq!(fs::read_to_string(secret.path()).unwrap(), "*:*:*:u\\:v:a\\:b\\\\c\"#\n");
        assert_eq!(fs::metadata(secret.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&secret.folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(!left.exists(), "its process does not live");
        let second = Secret::new(place.path(), &installation("mysql")).unwrap();
        assert!(fs::read_to_string(second.path()).unwrap().contains("password=\"a:b\\\\c\\\"#\"\n"));
        drop((secret, second));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }
}
