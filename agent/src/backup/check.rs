//! Checking a backup: that it is what was written, and that it can be restored.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use soloist_core::ids::BackupId;

use super::database::Database;
use super::error::BackupError;
use super::folder::Turn;
use super::installation::{Dialect, Installation};
use super::manifest::{Checked, DUMP, Manifest, STORAGE, wall_ms};
use super::program::version;
use super::progress::{Meter, Stage};
use super::stream::{Ticket, digest, offload};
use super::{Backups, archive, mysql, postgres, uploads};

/// How long dropping a scratch database may take, beside the deadline.
const DROP_DEADLINE: Duration = Duration::from_secs(60);

impl Backups {
    pub(super) async fn check_all(&self, id: &BackupId, meter: &Meter) -> Result<Checked, BackupError> {
        let turn = self.folder().turn(id)?;
        let manifest = self.folder().show(id)?;
        let result = self.read_back(&manifest, &turn, meter).await;
        self.conclude(manifest, result, false)
    }

    pub(super) async fn check_deep_all(
        &self,
        id: &BackupId,
        scratch: &Installation,
        meter: &Meter,
    ) -> Result<Checked, BackupError> {
        let turn = self.folder().turn(id)?;
        let manifest = self.folder().show(id)?;
        let result = self.within("the deep check", async {
            self.read_back(&manifest, &turn, meter).await?;
            fits(&manifest, scratch)?;
            let (database, _) = Database::ready(scratch, &self.tools, &self.node, meter).await?;
            let scratch = database.scratch(id).await?;
            Ok((database, scratch))
        });
        let (database, scratch) = match result.await {
            Ok(both) => both,
            Err(error) => return self.conclude(manifest, Err(error), true),
        };
        let dump = self.folder().complete(id).join(DUMP);
        let result = self.within("the deep check", async {
            scratch.load(&dump, &manifest).await?;
            scratch.compare(&manifest).await
        });
        let result = result.await;
        let late = |_| BackupError::Deadline {
            what: "dropping the scratch database",
            secs: DROP_DEADLINE.as_secs(),
        };
        let dropped = tokio::time::timeout(DROP_DEADLINE, database.drop_scratch(&scratch)).await;
        let dropped = dropped.map_err(late).flatten();
        if let (Err(_), Err(error)) = (&result, &dropped) {
            tracing::warn!("{error}");
        }
        self.conclude(manifest, result.and(dropped), true)
    }

    /// Writes the result into the manifest. What says nothing about the backup changes nothing.
    fn conclude(
        &self,
        mut manifest: Manifest,
        result: Result<(), BackupError>,
        deep: bool,
    ) -> Result<Checked, BackupError> {
        let checked = Checked { at_ms: wall_ms(), deep };
        match &result {
            Ok(()) => (manifest.checked, manifest.damage) = (Some(checked), None),
            Err(BackupError::Damaged { file, why, .. }) => {
                (manifest.checked, manifest.damage) = (None, Some(format!("{file}: {why}")));
            }
            Err(BackupError::Differs { why, .. }) => {
                (manifest.checked, manifest.damage) = (None, Some(format!("{DUMP}: it gave {why}")));
            }
            Err(_) => return result.map(|()| checked),
        }
        self.folder().note(&manifest)?;
        result.map(|()| checked)
    }

    /// Everything that can be checked without a database.
    async fn read_back(&self, manifest: &Manifest, turn: &Turn, meter: &Meter) -> Result<(), BackupError> {
        self.compare_hashes(manifest, turn, meter).await?;
        let folder = self.folder().complete(&manifest.id);
        let wrong =
            |file: &str, why| BackupError::Damaged { id: manifest.id.clone(), file: file.into(), why };
        let tar = folder.join(STORAGE);
        let names = offload(meter, move |ticket| Ok(archive::walk(&tar, ticket))).await?;
        let names = names.map_err(|error| wrong(STORAGE, error.to_string()))?;
        let wanted = manifest.kept.iter().filter(|(_, present)| **present).map(|(name, _)| name.clone());
        if wanted.collect::<BTreeSet<_>>() != names.iter().cloned().collect() {
            return Err(wrong(
                STORAGE,
                format!("it holds other paths than were packed: {}", names.join(", ")),
            ));
        }
        let dump = folder.join(DUMP);
        let tables = match manifest.dialect {
            Dialect::Postgres => self.postgres_tables(&dump, manifest, meter).await?,
            Dialect::Mysql | Dialect::Mariadb => {
                let (path, table) = (dump.clone(), manifest.version_table.clone());
                let tables = offload(meter, move |ticket| {
                    mysql::tables(&path, ticket).map_err(BackupError::io("read", &path))
                });
                tables.await?.map(|names| (names.len(), names.contains(&table)))
            }
        };
        let (count, versioned) = tables.map_err(|why| wrong(DUMP, why))?;
        if manifest.version.is_some() && !versioned {
            return Err(wrong(DUMP, format!("it lists no rows of the table {}", manifest.version_table)));
        }
        if count as u64 != manifest.tables {
            return Err(wrong(DUMP, format!("it lists {count} tables instead of {}", manifest.tables)));
        }
        Ok(())
    }

    /// Number of tables, and whether the rows of the version's table are there; or why the dump cannot be listed.
    async fn postgres_tables(
        &self,
        dump: &Path,
        manifest: &Manifest,
        meter: &Meter,
    ) -> Result<Result<(usize, bool), String>, BackupError> {
        // An older one than made the dump does not understand it.
        let made_by = manifest.programs.values().next().map_or(0, |line| version(line).0);
        let program = match self.tools.postgres_of(made_by, "pg_restore") {
            Some(program) => program,
            None => self.tools.find(&["pg_restore"], postgres::PACKAGE)?,
        };
        if let Err(why) = postgres::whole(&self.tools, &program, dump, meter).await? {
            return Ok(Err(why));
        }
        let entries = postgres::entries(&self.tools, &program, dump, meter).await?;
        Ok(entries.map(|entries| {
            let schema = manifest.schema.as_deref().unwrap_or("public");
            let rows = format!("TABLE DATA {schema} {} ", manifest.version_table);
            let mut count = 0;
            let mut versioned = false;
            for entry in entries.iter().map(|line| postgres::entry(line)) {
                versioned |= entry.starts_with(&rows);
                let table = entry.strip_prefix("TABLE ");
                count += usize::from(
                    table.is_some_and(|rest| !["DATA ", "ATTACH "].iter().any(|kind| rest.starts_with(kind))),
                );
            }
            (count, versioned)
        }))
    }

    /// Compares all files with the manifest, and the uploads with their index.
    pub(super) async fn compare_hashes(
        &self,
        manifest: &Manifest,
        turn: &Turn,
        meter: &Meter,
    ) -> Result<(), BackupError> {
        meter.stage(Stage::Reading);
        let folder = self.folder().complete(&manifest.id);
        let (manifest, held) = (manifest.clone(), turn.clone());
        offload(meter, move |ticket| {
            let _turn = held;
            let wrong =
                |file: &str, why| BackupError::Damaged { id: manifest.id.clone(), file: file.into(), why };
            for file in &manifest.files {
                same(&folder.join(&file.name), file.bytes, &file.sha256, ticket)
                    .map_err(|why| wrong(&file.name, why))?;
            }
            if manifest.uploads.is_some() {
                uploads::verify(&folder, ticket).map_err(|(file, why)| wrong(&file, why))?;
            }
            // Given up is not damaged; then nobody waits for this, but it must not look like an answer.
            ticket.go_on().map_err(BackupError::io("read", &folder))
        })
        .await
    }
}

fn same(path: &Path, bytes: u64, sha256: &str, ticket: &Ticket) -> Result<(), String> {
    let (length, hash) = digest(path, ticket).map_err(|error| error.to_string())?;
    if length != bytes {
        return Err(format!("it has {length} bytes instead of {bytes}"));
    }
    if hash != sha256 {
        return Err("its SHA-256 is another one than when it was written".to_owned());
    }
    Ok(())
}

/// Refuses an installation that the backup cannot be loaded into.
pub(super) fn fits(manifest: &Manifest, target: &Installation) -> Result<(), BackupError> {
    let refuse = |why| Err(BackupError::Elsewhere { id: manifest.id.clone(), why });
    if manifest.dialect != target.dialect {
        return refuse(format!(
            "it is of {:?}, and DB_DIALECT here is {:?}",
            manifest.dialect, target.dialect
        ));
    }
    if manifest.schema != target.schema {
        let show = |schema: &Option<String>| schema.clone().unwrap_or_else(|| "the whole database".into());
        let (theirs, ours) = (show(&manifest.schema), show(&target.schema));
        return refuse(format!("it holds {theirs}, and DB_SCHEMA here means {ours}"));
    }
    if manifest.version_table != target.version_table() {
        let (theirs, ours) = (&manifest.version_table, target.version_table());
        return refuse(format!(
            "its version is in {theirs}, and here in {ours}: DB_TABLE_PREFIX and DB_UNDERSCORED must be as they were"
        ));
    }
    Ok(())
}
