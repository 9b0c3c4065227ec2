//! Making a backup.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use soloist_core::ids::BackupId;

use super::database::{Database, Facts};
use super::error::BackupError;
use super::folder::{Turn, remove_tree, sync_folder};
use super::installation::Installation;
use super::manifest::{FORMAT, Manifest, STORAGE, UPLOADS, UploadsKept, wall_ms};
use super::progress::{Meter, Stage};
use super::stream::{Ticket, offload, write};
use super::{Backups, archive, uploads};

/// What a backup does with uploaded files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uploads {
    /// Leaves them out.
    Skip,
    /// Copies all of them.
    Include,
    /// Copies what changed since a presync of the same id; all if there was none.
    Presync,
}

impl Backups {
    pub(super) async fn presync_all(
        &self,
        id: &BackupId,
        source: &Installation,
        meter: &Meter,
    ) -> Result<UploadsKept, BackupError> {
        let (turn, partial) = self.begin(id, true, meter).await?;
        self.space(id, Vec::new(), Some(source.uploads.clone()), 0, meter).await?;
        meter.stage(Stage::Uploads);
        let live = source.uploads.clone();
        offload(meter, move |ticket| {
            let _turn = turn;
            uploads::mirror(&live, &partial, ticket).map(|(_, kept)| kept)
        })
        .await
    }

    pub(super) async fn create_all(
        &self,
        id: &BackupId,
        source: &Installation,
        uploads: Uploads,
        meter: &Meter,
    ) -> Result<Manifest, BackupError> {
        let keep_uploads = uploads == Uploads::Presync;
        let (turn, partial) = self.begin(id, keep_uploads, meter).await?;
        let made = self.fill(id, source, uploads, &partial, &turn, meter).await;
        if made.is_err() {
            // What fails leaves no dump behind; what a presync copied is of use to the next try.
            let folder = self.folder().clone();
            let (id, turn) = (id.clone(), turn);
            let cleaned = offload(meter, move |_| {
                let _turn = turn;
                let partial = folder.begin(&id, keep_uploads)?;
                if keep_uploads { Ok(()) } else { remove_tree(&partial) }
            });
            if let Err(error) = cleaned.await {
                tracing::warn!("what is left of a failed backup cannot be removed: {error}");
            }
        }
        made
    }

    async fn begin(
        &self,
        id: &BackupId,
        keep_uploads: bool,
        meter: &Meter,
    ) -> Result<(Turn, PathBuf), BackupError> {
        meter.stage(Stage::Preparing);
        let (folder, id) = (self.folder().clone(), id.clone());
        offload(meter, move |_| {
            let turn = folder.turn(&id)?;
            if let Err(error) = folder.clear_unfinished(&id) {
                // The backup itself is not worse for it.
                tracing::warn!("what earlier backups have left cannot be removed: {error}");
            }
            let partial = folder.begin(&id, keep_uploads)?;
            Ok((turn, partial))
        })
        .await
    }

    async fn fill(
        &self,
        id: &BackupId,
        source: &Installation,
        uploads: Uploads,
        partial: &Path,
        turn: &Turn,
        meter: &Meter,
    ) -> Result<Manifest, BackupError> {
        let (started_at_ms, began) = (wall_ms(), Instant::now());
        let (database, facts) = self.able(id, source, uploads, meter).await?;
        let kept = source.kept();
        let live = (uploads != Uploads::Skip).then(|| source.uploads.clone());

        meter.stage(Stage::Dump);
        let mut files = vec![database.dump(partial).await?];
        meter.stage(Stage::Storage);
        let (folder, held) = (partial.to_owned(), turn.clone());
        let (tar, present) = offload(meter, move |ticket| {
            let _turn = held;
            let mut present = BTreeMap::new();
            let tar = write(&folder, STORAGE, ticket, |to| {
                present = archive::pack(&kept, to, ticket)?;
                Ok(())
            })?;
            Ok((tar, present))
        })
        .await?;
        files.push(tar);
        let mut copied = None;
        if let Some(live) = live {
            meter.stage(Stage::Uploads);
            let (folder, held) = (partial.to_owned(), turn.clone());
            let work = move |ticket: &Ticket| {
                let _turn = held;
                uploads::mirror(&live, &folder, ticket)
            };
            let (index, kept) = offload(meter, work).await?;
            files.push(index);
            copied = Some(kept);
        }
        let program = database.programs.dump.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let manifest = Manifest {
            format: FORMAT,
            id: id.clone(),
            node: self.node.clone(),
            started_at_ms,
            duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            dialect: source.dialect,
            place: source.place(),
            schema: source.schema.clone(),
            schemas: facts.schemas,
            prefix: source.prefix.clone(),
            version_table: source.version_table(),
            version: facts.version,
            tables: facts.tables,
            server: facts.server,
            programs: [(program, database.programs.dump_version.clone())].into(),
            kept: present,
            uploads: copied,
            files,
            checked: None,
            damage: None,
        };
        let (folder, partial, held) = (self.folder().clone(), partial.to_owned(), turn.clone());
        offload(meter, move |_| {
            let _turn = held;
            sync_folder(&partial)?;
            folder.complete_with(&manifest)?;
            Ok(manifest)
        })
        .await
    }

    /// The database, with programs that fit it, and room for what is to be copied.
    pub(super) async fn able(
        &self,
        id: &BackupId,
        source: &Installation,
        uploads: Uploads,
        meter: &Meter,
    ) -> Result<(Database, Facts), BackupError> {
        let (database, facts) = Database::ready(source, &self.tools, &self.node, meter).await?;
        let paths = source.kept().into_iter().map(|(_, path)| path).collect();
        let live = (uploads != Uploads::Skip).then(|| source.uploads.clone());
        self.space(id, paths, live, facts.bytes, meter).await?;
        Ok((database, facts))
    }

    /// Refuses when it will not fit. A dump is smaller than its database, so the estimate is on the safe side.
    async fn space(
        &self,
        id: &BackupId,
        kept: Vec<PathBuf>,
        live: Option<PathBuf>,
        database_bytes: u64,
        meter: &Meter,
    ) -> Result<(), BackupError> {
        let (folder, copied) = (self.folder().path().to_owned(), self.folder().partial(id).join(UPLOADS));
        let reserve = self.limits.reserve_bytes;
        offload(meter, move |ticket| {
            let mut needs_bytes = reserve.saturating_add(database_bytes);
            for path in kept.iter().chain(&live) {
                let bytes = length(path, ticket).map_err(BackupError::io("measure", path))?;
                needs_bytes = needs_bytes.saturating_add(bytes);
            }
            if live.is_some() {
                // What a presync copied is there already.
                let bytes = length(&copied, ticket).map_err(BackupError::io("measure", &copied))?;
                needs_bytes = needs_bytes.saturating_sub(bytes).max(reserve);
            }
            let stat = rustix::fs::statvfs(&folder).map_err(io::Error::from);
            let stat = stat.map_err(BackupError::io("measure the space at", &folder))?;
            let has_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
            if has_bytes < needs_bytes {
                return Err(BackupError::Space { needs_bytes, has_bytes, path: folder });
            }
            Ok(())
        })
        .await
    }
}

/// Length of everything below a path. Links count nothing, and what is missing neither.
fn length(path: &Path, ticket: &Ticket) -> io::Result<u64> {
    let (mut bytes, mut waiting) = (0, vec![path.to_owned()]);
    while let Some(path) = waiting.pop() {
        ticket.go_on()?;
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if meta.is_file() {
            bytes += meta.len();
        } else if meta.is_dir() {
            match fs::read_dir(&path) {
                Ok(entries) => waiting.extend(entries.flatten().map(|entry| entry.path())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(bytes)
}
