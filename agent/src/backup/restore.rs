//! Restoring a backup.

use std::time::Instant;

use soloist_core::ids::{BackupId, Version};

use super::check::fits;
use super::database::Database;
use super::error::BackupError;
use super::folder::Turn;
use super::installation::Installation;
use super::manifest::{DUMP, Manifest, RestoreNote, STORAGE, wall_ms};
use super::progress::{Meter, Stage};
use super::stream::offload;
use super::{Backups, storage, uploads};

/// What a restore does with uploaded files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadsBack {
    /// Leaves them as they are.
    Leave,
    /// Puts back what is missing or differs, if the backup has uploads. What was uploaded later stays.
    Complete,
}

/// What is there after a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The app's version in the database; none if it had none.
    pub version: Option<Version>,
    /// Number of tables.
    pub tables: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

impl Backups {
    pub(super) async fn restore_all(
        &self,
        id: &BackupId,
        target: &Installation,
        uploads: UploadsBack,
        meter: &Meter,
    ) -> Result<Restored, BackupError> {
        let began = Instant::now();
        let turn = self.folder().turn(id)?;
        let (manifest, database) = self.loadable(id, target, meter).await?;
        self.compare_hashes(&manifest, &turn, meter).await?;

        let mut note = RestoreNote { place: target.place(), began_at_ms: wall_ms(), ended_at_ms: None };
        self.folder().note_restore(id, &note)?;
        database.alone().await?;
        database.clear().await?;
        database.load(&self.folder().complete(id).join(DUMP), &manifest).await?;
        database.compare(&manifest).await?;
        self.files_back(&manifest, target, uploads, &turn, meter).await?;
        note.ended_at_ms = Some(wall_ms());
        self.folder().note_restore(id, &note)?;
        Ok(Restored {
            version: manifest.version,
            tables: manifest.tables,
            duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// The backup, which may be restored, and the database, with programs that fit it.
    pub(super) async fn loadable(
        &self,
        id: &BackupId,
        target: &Installation,
        meter: &Meter,
    ) -> Result<(Manifest, Database), BackupError> {
        meter.stage(Stage::Preparing);
        let manifest = self.folder().show(id)?;
        if let Some(why) = &manifest.damage {
            let (file, why) = why.split_once(": ").unwrap_or(("", why));
            return Err(BackupError::Damaged { id: id.clone(), file: file.to_owned(), why: why.to_owned() });
        }
        if manifest.checked.is_none() {
            return Err(BackupError::Unchecked(id.clone()));
        }
        fits(&manifest, target)?;
        let (database, _) = Database::ready(target, &self.tools, &self.node, meter).await?;
        Ok((manifest, database))
    }

    async fn files_back(
        &self,
        manifest: &Manifest,
        target: &Installation,
        uploads: UploadsBack,
        turn: &Turn,
        meter: &Meter,
    ) -> Result<(), BackupError> {
        meter.stage(Stage::Unpack);
        let (folder, held) = (self.folder().complete(&manifest.id), turn.clone());
        let (manifest, target) = (manifest.clone(), target.clone());
        offload(meter, move |ticket| {
            let _turn = held;
            let tar = folder.join(STORAGE);
            let aside = storage::put_back(&tar, &manifest.id, &target.kept(), &manifest.kept, ticket)?;
            if uploads == UploadsBack::Complete && manifest.uploads.is_some() {
                uploads::complete(&folder, &target.uploads, ticket)?;
            }
            aside.remove()
        })
        .await
    }
}
