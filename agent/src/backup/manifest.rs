//! What a backup says of itself: `manifest.json`, the last file that is written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use soloist_core::ids::{BackupId, Version};

use super::installation::Dialect;

/// Version of the format of a backup.
pub(super) const FORMAT: u32 = 1;
/// The manifest's name.
pub(super) const FILE: &str = "manifest.json";
/// The dump of the database.
pub(super) const DUMP: &str = "database.dump";
/// The kept paths of the storage.
pub(super) const STORAGE: &str = "storage.tar";
/// One line of JSON for each entry of the folder `uploads`.
pub(super) const UPLOADS_INDEX: &str = "uploads.jsonl";
/// The copied uploads.
pub(super) const UPLOADS: &str = "uploads";

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name in the backup's folder.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

/// What a backup has of the uploaded files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UploadsKept {
    /// How many files and links.
    pub entries: u64,
    /// Their length together, in bytes.
    pub bytes: u64,
}

/// A check that found nothing wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// When, by the wall clock, in milliseconds since 1970.
    pub at_ms: u64,
    /// Whether it was restored into a scratch database, too.
    pub deep: bool,
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the format.
    pub format: u32,
    /// Its name.
    pub id: BackupId,
    /// The node that made it.
    pub node: String,
    /// When it began, by the wall clock, in milliseconds since 1970.
    pub started_at_ms: u64,
    /// How long it took, in milliseconds, a presync before it left out.
    pub duration_ms: u64,
    /// Kind of the database.
    pub dialect: Dialect,
    /// Host, port and name of the database.
    pub place: String,
    /// The one schema that was dumped; none stands for the whole database.
    pub schema: Option<String>,
    /// The schemas that there were.
    pub schemas: Vec<String>,
    /// Prefix of the app's tables.
    pub prefix: String,
    /// The table with the version.
    pub version_table: String,
    /// The app's version in the database; none if its table was missing or empty.
    pub version: Option<Version>,
    /// Number of tables.
    pub tables: u64,
    /// What the database server calls itself.
    pub server: String,
    /// The programs that were used, with what they say is their version.
    pub programs: BTreeMap<String, String>,
    /// Which paths of [`super::KEPT`] were there.
    pub kept: BTreeMap<String, bool>,
    /// Uploaded files; none if the backup left them out.
    pub uploads: Option<UploadsKept>,
    /// The files, without this manifest and the single uploads.
    pub files: Vec<FileEntry>,
    /// The last check, if it found nothing wrong.
    pub checked: Option<Checked>,
    /// What the last check found wrong.
    pub damage: Option<String>,
}

impl Manifest {
    /// Length of everything in bytes. The numbers may be anybody's: a folder of backups is shared.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let uploads = self.uploads.map_or(0, |uploads| uploads.bytes);
        self.files.iter().fold(uploads, |sum, file| sum.saturating_add(file.bytes))
    }
}

/// A note beside the manifest: a restore of this backup began, and perhaps ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreNote {
    /// Host, port and name of the database that it went into.
    pub place: String,
    /// When it began, in milliseconds since 1970.
    pub began_at_ms: u64,
    /// When it ended with success; without it the database and the storage may be half restored: restore again.
    pub ended_at_ms: Option<u64>,
}

/// The wall clock, in milliseconds since 1970. Only for people: nothing is decided by it.
pub(super) fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
