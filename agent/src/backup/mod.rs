//! Backups of one app's state: dumping, checking, listing, removing and restoring it.
//!
//! ```text
//!             presync            create                  check                     restore
//!   app runs ────┬──► app stopped ──┬──────────────────────┬─────────────────────────┬────────────►
//!                ▼                  ▼                      ▼                         ▼
//!          partial/uploads      database.dump      every hash, the dump's     sessions end, database
//!                               storage.tar        list, the tar; deep: a     emptied, dump loaded,
//!                               uploads            restore into a scratch     storage exchanged by
//!                               manifest, rename   database                   renames
//! ```
//!
//! The app must be stopped during `restore`, and nobody may change plugins during `create`: this is for the caller to see
//! to. Both may be cut off anywhere and done again. A backup is restored only after a check that found nothing wrong.
//!
//! | module | what it holds |
//! |---|---|
//! | `installation` | what is backed up, from the app's own settings; the list of kept paths |
//! | `folder`, `manifest` | where backups lie, and what they say of themselves |
//! | `create`, `check`, `restore` | the work, step by step |
//! | `database`, `postgres`, `mysql` | asking, dumping, emptying and loading a database with its own programs |
//! | `program`, `secret`, `stream`, `progress` | children that never outlive their user; passwords; bytes; how far it is |
//! | `archive`, `storage`, `uploads` | the storage: packed, put back, mirrored |
//! | `config`, `external` | the operator's wishes, and programs of the operator's own |

mod archive;
mod check;
mod config;
mod create;
mod database;
mod error;
mod external;
mod folder;
mod installation;
mod manifest;
mod mysql;
mod postgres;
mod program;
mod progress;
mod restore;
mod secret;
mod storage;
mod stream;
mod uploads;

use std::future::Future;
use std::time::Duration;

use soloist_core::ids::BackupId;
use tokio::sync::watch;

pub use config::{BackupConfig, ExternalConfig, UploadsPolicy};
pub use create::Uploads;
pub use error::{BackupError, size};
pub use external::External;
pub use folder::{Folder, Listing};
pub(crate) use installation::plugins_folder;
pub use installation::{Dialect, Installation, KEPT};
pub use manifest::{Checked, FileEntry, Manifest, RestoreNote, UploadsKept};
pub use program::Tools;
pub use progress::{Progress, Stage};
pub use restore::{Restored, UploadsBack};

use self::progress::{Meter, Stage as At};

/// Bounds of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long all of it may take. Then every child is killed.
    pub deadline: Duration,
    /// What must stay free where the backups lie, in bytes.
    pub reserve_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        // A fleet's database has some gigabytes at most, dumped in minutes; an hour is a hang.
        Self { deadline: Duration::from_secs(3600), reserve_bytes: 512 * 1024 * 1024 }
    }
}

/// Makes, checks and restores the backups of one folder.
///
/// Every call ends when its future is dropped: children are killed with their groups, threads stop at their next chunk.
#[derive(Debug, Clone)]
pub struct Backups {
    folder: Folder,
    tools: Tools,
    node: String,
    limits: Limits,
}

impl Backups {
    /// Works in `folder` with `tools`, in the name of a node: sessions on the database are called `soloist-backup-<node>`.
    #[must_use]
    pub fn new(folder: Folder, tools: Tools, node: &str, limits: Limits) -> Self {
        Self { folder, tools, node: node.to_owned(), limits }
    }

    /// Where the backups lie: to list, show, remove and prune them.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Copies uploads before the outage, so that a later [`Backups::create`] with [`Uploads::Presync`] copies only what
    /// changed since. The app may run. May be called again.
    ///
    /// # Errors
    /// When the id is taken or in use, or the copy fails or takes too long.
    pub async fn presync(
        &self,
        id: &BackupId,
        source: &Installation,
        progress: &watch::Sender<Progress>,
    ) -> Result<UploadsKept, BackupError> {
        let meter = Meter::new(progress);
        let kept = self.within("the presync", self.presync_all(id, source, &meter)).await?;
        meter.stage(At::Done);
        Ok(kept)
    }

    /// Looks whether a backup could be made now: the database answers, the programs fit it, and there is room. Makes nothing.
    ///
    /// # Errors
    /// As for [`Backups::create`].
    pub async fn try_create(
        &self,
        id: &BackupId,
        source: &Installation,
        uploads: Uploads,
        progress: &watch::Sender<Progress>,
    ) -> Result<(), BackupError> {
        let meter = Meter::new(progress);
        self.within("the look at the database", self.able(id, source, uploads, &meter)).await.map(drop)
    }

    /// Looks whether a backup could be restored now: it is checked, the database answers, and the programs fit it. Changes
    /// nothing.
    ///
    /// # Errors
    /// As for [`Backups::restore`].
    pub async fn try_restore(
        &self,
        id: &BackupId,
        target: &Installation,
        progress: &watch::Sender<Progress>,
    ) -> Result<(), BackupError> {
        let meter = Meter::new(progress);
        self.within("the look at the database", self.loadable(id, target, &meter)).await.map(drop)
    }

    /// Makes a backup. It is complete when this returns, and not yet checked.
    ///
    /// # Errors
    /// When the id is taken or in use, there is too little space, a program is missing, too old or fails, or it takes too
    /// long. Then no backup of this id is listed.
    pub async fn create(
        &self,
        id: &BackupId,
        source: &Installation,
        uploads: Uploads,
        progress: &watch::Sender<Progress>,
    ) -> Result<Manifest, BackupError> {
        let meter = Meter::new(progress);
        let manifest = self.within("the backup", self.create_all(id, source, uploads, &meter)).await?;
        meter.stage(At::Done);
        Ok(manifest)
    }

    /// Reads a backup back: compares every hash, lists the dump, walks the archive. The result goes into the manifest.
    ///
    /// # Errors
    /// [`BackupError::Damaged`] with the file and how it differs; else when it cannot be read in time.
    pub async fn check(
        &self,
        id: &BackupId,
        progress: &watch::Sender<Progress>,
    ) -> Result<Checked, BackupError> {
        let meter = Meter::new(progress);
        let checked = self.within("the check", self.check_all(id, &meter)).await?;
        meter.stage(At::Done);
        Ok(checked)
    }

    /// Like [`Backups::check`], and restores the database into a scratch one, `<database>_soloist_check_<short>` on the
    /// server of `scratch`, whose role must be permitted to create databases. The scratch database is dropped again, after a
    /// failure too; what a dropped future leaves is dropped by the next check of the same backup.
    ///
    /// # Errors
    /// As for [`Backups::check`]; [`BackupError::Differs`] when something else came out than went in.
    pub async fn check_deep(
        &self,
        id: &BackupId,
        scratch: &Installation,
        progress: &watch::Sender<Progress>,
    ) -> Result<Checked, BackupError> {
        let meter = Meter::new(progress);
        let checked = self.check_deep_all(id, scratch, &meter).await?;
        meter.stage(At::Done);
        Ok(checked)
    }

    /// Puts database and storage back to what a backup holds. Ends all other sessions on the database first. What came
    /// into the database's schemas after the backup is gone afterwards; roles, extensions and the schemas themselves stay.
    ///
    /// # Errors
    /// When the backup was not checked, is damaged, or belongs to another kind of installation: then nothing was
    /// changed. After any other error restore again.
    pub async fn restore(
        &self,
        id: &BackupId,
        target: &Installation,
        uploads: UploadsBack,
        progress: &watch::Sender<Progress>,
    ) -> Result<Restored, BackupError> {
        let meter = Meter::new(progress);
        let restored = self.within("the restore", self.restore_all(id, target, uploads, &meter)).await?;
        meter.stage(At::Done);
        Ok(restored)
    }

    async fn within<T>(
        &self,
        what: &'static str,
        work: impl Future<Output = Result<T, BackupError>>,
    ) -> Result<T, BackupError> {
        let deadline = self.limits.deadline;
        let late = |_| BackupError::Deadline { what, secs: deadline.as_secs() };
        tokio::time::timeout(deadline, work).await.map_err(late)?
    }
}
