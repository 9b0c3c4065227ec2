//! Where backups lie, one folder each.
//!
//! ```text
//! ROOT/before-2.2.16/manifest.json, database.dump, storage.tar, uploads.jsonl, uploads/…, restore.json
//! ROOT/.partial-before-2.2.17/…    not complete: a backup under way, a presync, or what a crash left behind; it goes when the
//!                                  next backup begins
//! ROOT/.lock-before-2.2.16         held by whoever writes, checks, removes or restores that backup
//! ```
//!
//! A backup appears by one rename, after all its files were synced. Lock files stay, because removing one that somebody
//! waits for would let two in.

use std::fs::{self, DirBuilder, File};
use std::io::Read as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use soloist_core::ids::BackupId;

use super::error::BackupError;
use super::manifest::{self, Manifest, RestoreNote};
use crate::host::{durable, lock};

/// Largest manifest that is read, in bytes. A real one has a few kilobytes.
const MANIFEST_MAX: u64 = 4 * 1024 * 1024;
/// How the name of a folder begins whose backup is not complete.
const PARTIAL: &str = ".partial-";
/// The note about a restore.
const RESTORE_NOTE: &str = "restore.json";

/// What lies in the folder.
#[derive(Debug, Default)]
pub struct Listing {
    /// Complete backups, newest first.
    pub backups: Vec<Manifest>,
    /// Backups whose manifest cannot be understood, and why.
    pub unreadable: Vec<(BackupId, String)>,
}

/// The folder of all backups. Its calls block: where it may lie on a mount that hangs, make them in a thread.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
}

/// The right to work on one backup; it ends when the last copy is dropped.
pub(super) type Turn = Arc<Right>;

/// A lock that is freed when this is dropped, even if a child that is being started at this moment has a copy of its file.
#[derive(Debug)]
pub(super) struct Right(lock::Held);

impl Drop for Right {
    fn drop(&mut self) {
        // Closing the file frees the lock, too, once no copy is left.
        let _ = self.0.file().unlock();
    }
}

impl Folder {
    /// Uses a folder, and creates it where needed, readable by its owner only.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn open(root: &Path) -> Result<Self, BackupError> {
        private_folder(root).map_err(BackupError::io("create the folder for backups", root))?;
        let root = root.canonicalize().map_err(BackupError::io("find the folder for backups", root))?;
        Ok(Self { root })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// All complete backups.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Listing, BackupError> {
        let mut listing = Listing::default();
        for id in self.ids()? {
            match self.show(&id) {
                Ok(manifest) => listing.backups.push(manifest),
                // Removed in the meantime.
                Err(BackupError::Unknown { .. }) => {}
                Err(error) => listing.unreadable.push((id, error.to_string())),
            }
        }
        listing.backups.sort_by(|a, b| (b.started_at_ms, &b.id).cmp(&(a.started_at_ms, &a.id)));
        Ok(listing)
    }

    /// One backup's manifest.
    ///
    /// # Errors
    /// When there is no such backup, or its manifest cannot be understood.
    pub fn show(&self, id: &BackupId) -> Result<Manifest, BackupError> {
        let path = self.complete(id).join(manifest::FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(_) if !self.complete(id).exists() => return Err(self.unknown(id)),
            Err(error) => return Err(BackupError::io("read", &path)(error)),
        };
        let mut text = String::new();
        file.take(MANIFEST_MAX).read_to_string(&mut text).map_err(BackupError::io("read", &path))?;
        let damaged = |why: String| BackupError::Damaged { id: id.clone(), file: manifest::FILE.into(), why };
        let manifest: Manifest = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if manifest.format != manifest::FORMAT {
            return Err(damaged(format!(
                "its format is {}, this program knows {}",
                manifest.format,
                manifest::FORMAT
            )));
        }
        if manifest.id != *id {
            return Err(damaged(format!("it is the manifest of {}", manifest.id)));
        }
        Ok(manifest)
    }

    /// The note about the last restore of a backup, if one began.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn restore_note(&self, id: &BackupId) -> Result<Option<RestoreNote>, BackupError> {
        let path = self.complete(id).join(RESTORE_NOTE);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(MANIFEST_MAX).read_to_end(&mut bytes)) {
            Ok(_) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| BackupError::io("understand", &path)(error.into())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(BackupError::io("read", &path)(error)),
        }
    }

    /// Removes a backup; what a crash leaves of it is not listed any more.
    ///
    /// # Errors
    /// When there is no such backup, somebody works on it, or it cannot be removed.
    pub fn remove(&self, id: &BackupId) -> Result<(), BackupError> {
        let _turn = self.turn(id)?;
        let (complete, partial) = (self.complete(id), self.partial(id));
        if !complete.exists() {
            return Err(self.unknown(id));
        }
        remove_tree(&partial)?;
        fs::rename(&complete, &partial).map_err(BackupError::io("remove", &complete))?;
        self.sync()?;
        remove_tree(&partial)
    }

    /// Removes checked backups but the `keep` newest ones, and never the newest one. What was not checked with success
    /// neither counts nor is removed.
    ///
    /// # Errors
    /// When the folder cannot be read or a backup cannot be removed.
    pub fn prune(&self, keep: usize) -> Result<Vec<BackupId>, BackupError> {
        let checked = self.list()?.backups.into_iter().filter(|manifest| manifest.checked.is_some());
        let old: Vec<BackupId> = checked.skip(keep.max(1)).map(|manifest| manifest.id).collect();
        old.iter().try_for_each(|id| self.remove(id))?;
        Ok(old)
    }

    // ---- for whoever writes ----

    /// Locks one backup for this call.
    pub(super) fn turn(&self, id: &BackupId) -> Result<Turn, BackupError> {
        let path = self.root.join(format!(".lock-{id}"));
        let held = lock::try_take(&path).map_err(BackupError::io("lock", &path))?;
        held.map(|held| Arc::new(Right(held))).ok_or_else(|| BackupError::Busy(id.clone()))
    }

    /// Begins a backup: an empty folder, but for what a presync left if that is wanted. The id must not be taken.
    pub(super) fn begin(&self, id: &BackupId, keep_uploads: bool) -> Result<PathBuf, BackupError> {
        if self.complete(id).exists() {
            return Err(BackupError::Exists(id.clone()));
        }
        let partial = self.partial(id);
        let stays = |name: &std::ffi::OsStr| {
            keep_uploads && (name == manifest::UPLOADS || name == manifest::UPLOADS_INDEX)
        };
        if let Ok(entries) = fs::read_dir(&partial) {
            for entry in entries.flatten().filter(|entry| !stays(&entry.file_name())) {
                remove_tree(&entry.path())?;
            }
        }
        private_folder(&partial).map_err(BackupError::io("create", &partial))?;
        Ok(partial)
    }

    /// Removes what other backups that were never finished have left. Their names are never used again; whoever works on one
    /// of them at this moment keeps it.
    pub(super) fn clear_unfinished(&self, but: &BackupId) -> Result<(), BackupError> {
        let entries = fs::read_dir(&self.root).map_err(BackupError::io("read", &self.root))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| BackupId::new(name.strip_prefix(PARTIAL)?).ok());
            let Some(id) = id.filter(|id| id != but) else { continue };
            match self.turn(&id) {
                Ok(_turn) => remove_tree(&entry.path())?,
                Err(BackupError::Busy(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Completes a backup whose other files are all synced.
    pub(super) fn complete_with(&self, manifest: &Manifest) -> Result<(), BackupError> {
        let (complete, partial) = (self.complete(&manifest.id), self.partial(&manifest.id));
        Self::put(&partial.join(manifest::FILE), manifest)?;
        fs::rename(&partial, &complete).map_err(BackupError::io("complete", &complete))?;
        self.sync()
    }

    /// Writes a changed manifest over the old one.
    pub(super) fn note(&self, manifest: &Manifest) -> Result<(), BackupError> {
        Self::put(&self.complete(&manifest.id).join(manifest::FILE), manifest)
    }

    /// Writes the note about a restore.
    pub(super) fn note_restore(&self, id: &BackupId, note: &RestoreNote) -> Result<(), BackupError> {
        Self::put(&self.complete(id).join(RESTORE_NOTE), note)
    }

    /// The folder of a complete backup.
    pub(super) fn complete(&self, id: &BackupId) -> PathBuf {
        self.root.join(id.as_str())
    }

    /// The folder of one that is not complete.
    pub(super) fn partial(&self, id: &BackupId) -> PathBuf {
        self.root.join(format!("{PARTIAL}{id}"))
    }

    fn put(path: &Path, value: &impl Serialize) -> Result<(), BackupError> {
        let write = || durable::write(path, &serde_json::to_vec_pretty(value)?);
        write().map_err(BackupError::io("write", path))
    }

    fn ids(&self) -> Result<Vec<BackupId>, BackupError> {
        let entries = fs::read_dir(&self.root).map_err(BackupError::io("read", &self.root))?;
        let names = entries.flatten().filter(|entry| entry.path().is_dir());
        let mut ids: Vec<BackupId> =
            names.filter_map(|entry| BackupId::new(entry.file_name().into_string().ok()?).ok()).collect();
        ids.sort();
        Ok(ids)
    }

    fn unknown(&self, id: &BackupId) -> BackupError {
        let ids = self.ids().unwrap_or_default();
        let known = match ids.as_slice() {
            [] => format!("{} has none", self.root.display()),
            ids => {
                format!("there are: {}", ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
        };
        BackupError::Unknown { id: id.clone(), known }
    }

    fn sync(&self) -> Result<(), BackupError> {
        sync_folder(&self.root)
    }
}

/// Creates a folder with what is missing above it, readable by its owner only.
pub(super) fn private_folder(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes the names in a folder survive a power cut.
pub(super) fn sync_folder(path: &Path) -> Result<(), BackupError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(BackupError::io("sync", path))
}

/// Removes whatever is there. Links are not followed.
pub(super) fn remove_tree(path: &Path) -> Result<(), BackupError> {
    let result = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(BackupError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path()).unwrap();
        let id: BackupId = "a".parse().unwrap();
        let turn = folder.turn(&id).unwrap();
        assert!(matches!(folder.turn(&id), Err(BackupError::Busy(_))));
        drop(turn);
        assert!(folder.turn(&id).is_ok());
    }
}
