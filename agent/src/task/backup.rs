//! Making, checking, restoring and removing backups.
//!
//! | task | check | run | done before, if |
//! |---|---|---|---|
//! | `backup` | is there anything worth a backup; uploads copied ahead, if wanted | make, check, remove old ones | it is there and checked |
//! | `restore` | is it there and checked, and does it fit the code as it is, or as it will be | restore | never: it is done again |
//! | `backup-remove` | – | remove | it is not there |

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use soloist_core::assignment::{Task, TaskPhase, TaskResult};
use soloist_core::ids::{BackupId, FleetId, NodeId, Version};
use tokio::sync::watch;

use crate::backup::{
    BackupConfig, BackupError, Backups, External, Folder, Installation, Limits, Manifest, Progress, Tools,
    Uploads, UploadsBack, UploadsPolicy, size,
};
use crate::host::leftover;
use crate::profile::Profile;

use super::Output;

/// Names of the tasks in this file.
pub const NAMES: [&str; 3] = ["backup", "restore", "backup-remove"];

/// Does the tasks of one node.
#[derive(Debug)]
pub struct BackupTasks {
    profile: Arc<Profile>,
    config: BackupConfig,
    folder: std::path::PathBuf,
    fleet: FleetId,
    node: NodeId,
}

/// Who makes the backups.
enum Maker {
    Own(Backups, Installation),
    External(External),
}

impl BackupTasks {
    /// Tasks of a node, with the backups in `data_folder` unless configured otherwise.
    pub fn new(
        profile: Arc<Profile>,
        config: BackupConfig,
        data_folder: &Path,
        fleet: FleetId,
        node: NodeId,
    ) -> Self {
        let folder = config.folder.clone().unwrap_or_else(|| data_folder.join("backups"));
        Self { profile, config, folder, fleet, node }
    }

    /// Looks whether a task could be done, or does it. A result means that nothing of it is still under way.
    pub async fn perform(&self, task: &Task, progress: &watch::Sender<Progress>) -> (TaskResult, Output) {
        let mut output = Output::new();
        let result = match (task.phase, self.end_leftovers().await) {
            (_, Err(why)) => Err(why),
            (TaskPhase::Check, Ok(())) => self.check(task, progress).await,
            (TaskPhase::Run, Ok(())) => self.run(task, progress, &mut output).await,
        };
        match result {
            Ok(()) => (TaskResult::Done, output),
            Err(why) => (TaskResult::Failed(why), output),
        }
    }

    /// Ends a task that an earlier run of the agent has begun, and says whether it was done.
    pub async fn recover(&self, task: &Task) -> (TaskResult, Output) {
        let mut output = Output::new();
        let done = match self.end_leftovers().await {
            Ok(()) => self.is_done(task, &mut output).await,
            // As long as something of it runs, nothing may be begun anew.
            Err(why) => return (TaskResult::Failed(why), output),
        };
        (if done { TaskResult::Done } else { TaskResult::Interrupted }, output)
    }

    async fn is_done(&self, task: &Task, output: &mut Output) -> bool {
        let (Ok(id), Ok(Maker::Own(backups, _))) = (backup(task), self.maker().await) else { return false };
        let there = backups.folder().show(&id).ok().filter(|manifest| manifest.checked.is_some());
        match (task.name.as_str(), there) {
            ("backup", Some(manifest)) => {
                describe(&manifest, output);
                true
            }
            ("backup-remove", None) => true,
            _ => false,
        }
    }

    async fn end_leftovers(&self) -> Result<(), String> {
        let mark = self.mark();
        let ended = tokio::task::spawn_blocking(move || leftover::end(leftover::BACKUP, &mark)).await;
        ended.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    fn mark(&self) -> String {
        format!("{}/{}", self.fleet, self.node)
    }

    async fn maker(&self) -> Result<Maker, String> {
        let (fleet, node) = (self.fleet.clone(), self.node.clone());
        let deadline = Duration::from_secs(self.config.deadline_secs);
        let tools = Tools::of_process(self.mark());
        if let Some(external) = &self.config.external {
            return Ok(Maker::External(External::new(external.clone(), tools, fleet, node, deadline)));
        }
        let source = self.profile.installation().await?;
        let path = self.folder.clone();
        let opened = tokio::task::spawn_blocking(move || Folder::open(&path)).await;
        let folder = opened.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let limits = Limits { deadline, ..Limits::default() };
        Ok(Maker::Own(Backups::new(folder, tools, node.as_str(), limits), source))
    }

    async fn check(&self, task: &Task, progress: &watch::Sender<Progress>) -> Result<(), String> {
        let id = backup(task)?;
        match (task.name.as_str(), self.maker().await?) {
            ("backup", Maker::Own(backups, source)) => {
                self.worth_it().await?;
                let uploads = copied(uploads(self.config.uploads, task)?);
                backups.try_create(&id, &source, uploads, progress).await.map_err(text)?;
                if uploads == Uploads::Presync {
                    backups.presync(&id, &source, progress).await.map_err(text)?;
                }
                Ok(())
            }
            ("backup", Maker::External(_)) => self.worth_it().await,
            ("restore", Maker::Own(backups, source)) => {
                let manifest = backups.folder().show(&id).map_err(text)?;
                backups.try_restore(&id, &source, progress).await.map_err(text)?;
                let asked = task.params.get("code").map(String::as_str);
                let code = if asked.is_none() { self.profile.facts().await.code } else { None };
                code_fits(&id, manifest.version.as_ref(), asked, code.as_ref())
            }
            ("restore", Maker::External(external)) if !external.restores() => {
                Err("no program for restores is configured on this node: see [backup.external] in its agent's configuration".into())
            }
            ("restore", Maker::External(external)) => external.check(&id, progress).await.map_err(text),
            _ => Ok(()),
        }
    }

    /// An empty database is not worth a backup: somebody points at the wrong one.
    async fn worth_it(&self) -> Result<(), String> {
        let facts = self.profile.facts().await;
        match (facts.database, facts.database_error) {
            (Some(database), _) if database.version.is_some() => Ok(()),
            (Some(_), _) => {
                Err("the database has no installed app in it: there is nothing to back up".into())
            }
            (None, Some(why)) => Err(why),
            // An app of which nothing is known.
            (None, None) => Ok(()),
        }
    }

    async fn run(
        &self,
        task: &Task,
        progress: &watch::Sender<Progress>,
        output: &mut Output,
    ) -> Result<(), String> {
        let id = backup(task)?;
        match (task.name.as_str(), self.maker().await?) {
            ("backup", Maker::Own(backups, source)) => {
                self.make(&id, uploads(self.config.uploads, task)?, &backups, &source, progress, output)
                    .await?;
                let keep = task.params.get("keep").and_then(|keep| keep.parse().ok()).unwrap_or(usize::MAX);
                let folder = backups.folder().clone();
                let pruned = tokio::task::spawn_blocking(move || folder.prune(keep)).await;
                let removed = pruned.map_err(|error| error.to_string())?.map_err(text)?;
                let removed: Vec<String> = removed.iter().map(ToString::to_string).collect();
                output.insert("removed".into(), removed.join(","));
                Ok(())
            }
            ("backup", Maker::External(external)) => {
                let began = Instant::now();
                external.create(&id, progress).await.map_err(text)?;
                external.check(&id, progress).await.map_err(text)?;
                let version = self.profile.facts().await.database.and_then(|database| database.version);
                output.extend(version.map(|version| ("version".to_owned(), version.0)));
                output.insert("duration".into(), seconds(began.elapsed()));
                output.insert("checked".into(), "by the configured program".into());
                Ok(())
            }
            ("restore", Maker::Own(backups, source)) => {
                self.restore(&id, &backups, &source, progress, output).await
            }
            ("restore", Maker::External(external)) => external.restore(&id, progress).await.map_err(text),
            ("backup-remove", Maker::Own(backups, _)) => {
                let folder = backups.folder().clone();
                let removed = tokio::task::spawn_blocking(move || folder.remove(&id)).await;
                match removed.map_err(|error| error.to_string())? {
                    Ok(()) | Err(BackupError::Unknown { .. }) => Ok(()),
                    Err(error) => Err(error.to_string()),
                }
            }
            ("backup-remove", Maker::External(external)) => {
                external.remove(&id, progress).await.map_err(text)
            }
            (other, _) => Err(format!("this agent has no task \"{other}\"")),
        }
    }

    async fn make(
        &self,
        id: &BackupId,
        uploads: UploadsPolicy,
        backups: &Backups,
        source: &Installation,
        progress: &watch::Sender<Progress>,
        output: &mut Output,
    ) -> Result<(), String> {
        match backups.create(id, source, copied(uploads), progress).await {
            // An earlier attempt has made it, and was cut off before its check.
            Ok(_) | Err(BackupError::Exists(_)) => {}
            Err(error) => return Err(error.to_string()),
        }
        if self.config.verify_restore {
            backups.check_deep(id, source, progress).await.map_err(text)?;
        } else {
            backups.check(id, progress).await.map_err(text)?;
        }
        describe(&backups.folder().show(id).map_err(text)?, output);
        Ok(())
    }

    async fn restore(
        &self,
        id: &BackupId,
        backups: &Backups,
        target: &Installation,
        progress: &watch::Sender<Progress>,
        output: &mut Output,
    ) -> Result<(), String> {
        let restored = backups.restore(id, target, UploadsBack::Complete, progress).await;
        // The note is written before anything is touched, and says when all is done.
        let note = backups.folder().restore_note(id).ok().flatten();
        if note.is_none_or(|note| note.ended_at_ms.is_some()) && restored.is_err() {
            output.insert("touched".into(), "no".into());
        }
        let restored = restored.map_err(text)?;
        output.insert("duration".into(), seconds(Duration::from_millis(restored.duration_ms)));
        Ok(())
    }
}

fn backup(task: &Task) -> Result<BackupId, String> {
    let name = task.params.get("backup").ok_or("the parameter \"backup\" is missing")?;
    BackupId::new(name.as_str()).map_err(|error| error.to_string())
}

/// What a policy means for one backup.
fn copied(uploads: UploadsPolicy) -> Uploads {
    match uploads {
        UploadsPolicy::Skip => Uploads::Skip,
        UploadsPolicy::Presync => Uploads::Presync,
        UploadsPolicy::Include => Uploads::Include,
    }
}

/// What is done with uploads: as this node's own configuration says, else as the task does.
fn uploads(own: Option<UploadsPolicy>, task: &Task) -> Result<UploadsPolicy, String> {
    match (own, task.params.get("uploads").map(String::as_str)) {
        (Some(own), _) => Ok(own),
        (None, None | Some("skip")) => Ok(UploadsPolicy::Skip),
        (None, Some("presync")) => Ok(UploadsPolicy::Presync),
        (None, Some("include")) => Ok(UploadsPolicy::Include),
        (None, Some(other)) => {
            Err(format!("the parameter \"uploads\" is \"{other}\": skip, presync or include is meant"))
        }
    }
}

/// Whether a backup of version `old` fits the code: the one that is there, or the one that the operation brings with it.
fn code_fits(
    id: &BackupId,
    old: Option<&Version>,
    asked: Option<&str>,
    code: Option<&Version>,
) -> Result<(), String> {
    match (old, asked, code) {
        (Some(old), Some(asked), _) if old.0 != asked => Err(format!(
            "the backup {id} is of version {old}, and the code is to be {asked}: restore it together with the code {old}"
        )),
        (Some(old), None, Some(code)) if old != code => Err(format!(
            "the backup {id} is of version {old}, and this node's code has version {code}: bring the code of all nodes to \
             {old} first"
        )),
        _ => Ok(()),
    }
}

fn text(error: BackupError) -> String {
    error.to_string()
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// What people want to know of a backup.
fn describe(manifest: &Manifest, output: &mut Output) {
    let mut tell = |name: &str, value: String| output.insert(name.to_owned(), value);
    if let Some(version) = &manifest.version {
        tell("version", version.0.clone());
    }
    tell("size", size(manifest.bytes()));
    tell("bytes", manifest.bytes().to_string());
    tell("duration", seconds(Duration::from_millis(manifest.duration_ms)));
    tell("tables", manifest.tables.to_string());
    tell("server", manifest.server.clone());
    for file in &manifest.files {
        tell(&format!("sha256 {}", file.name), file.sha256.clone());
    }
    let deep = manifest.checked.is_some_and(|checked| checked.deep);
    tell("checked", if deep { "restored into a scratch database" } else { "read back" }.into());
    let uploads =
        manifest.uploads.map(|uploads| format!("{} files, {}", uploads.entries, size(uploads.bytes)));
    tell("uploads", uploads.unwrap_or_else(|| "left out".into()));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use soloist_core::assignment::{Needs, TaskKey};
    use soloist_core::ids::OperationId;

    use super::*;

    #[test]
    fn the_nodes_own_policy_for_uploads_wins() {
        let task = |uploads: &[&str]| Task {
            key: TaskKey { operation: OperationId::new("op").unwrap(), step: 1, attempt: 1 },
            phase: TaskPhase::Run,
            needs: Needs::Nothing,
            name: "backup".into(),
            params: uploads
                .iter()
                .map(|word| ("uploads".to_owned(), (*word).to_owned()))
                .collect::<BTreeMap<_, _>>(),
            checks: Vec::new(),
        };
        assert_eq!(uploads(Some(UploadsPolicy::Skip), &task(&["include"])), Ok(UploadsPolicy::Skip));
        assert_eq!(uploads(None, &task(&["include"])), Ok(UploadsPolicy::Include));
        assert_eq!(uploads(None, &task(&["presync"])), Ok(UploadsPolicy::Presync));
        assert_eq!(uploads(None, &task(&[])), Ok(UploadsPolicy::Skip));
        assert!(uploads(None, &task(&["some"])).unwrap_err().contains("\"some\""));
    }

    #[test]
    fn a_backup_fits_the_code_that_there_will_be() {
        let (id, old, new) = ("b".parse().unwrap(), Version("1".into()), Version("2".into()));
        let fits = |asked, code| code_fits(&id, Some(&old), asked, code);
        assert_eq!(fits(None, Some(&old)), Ok(()));
        assert!(fits(None, Some(&new)).unwrap_err().contains("bring the code of all nodes to 1"));
        assert_eq!(fits(Some("1"), Some(&new)), Ok(()), "the code is switched with it");
        assert!(fits(Some("2"), None).unwrap_err().contains("the code is to be 2"));
        assert_eq!(code_fits(&id, None, Some("2"), None), Ok(()), "nothing is known of it");
    }
}
