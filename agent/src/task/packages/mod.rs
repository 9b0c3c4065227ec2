//! Plugins as packages: fetched and looked into while the app runs, exchanged while nothing does.
//!
//! | task | check | run | recovered |
//! |---|---|---|---|
//! | `packages` | fetch each, look into it, make it ready | exchange the folders | as interrupted: another attempt goes on |
//! | `packages-back` | – | take the exchange back | the same |
//! | `plugin-off` | – | note in the database that a plugin is not enabled | the same |
//! | `marker-off` | – | remove NocoBase's marker `.upgrading` from the storage | the same |
//!
//! Nodes that share their storage find what the first of them has made ready, and then what it has exchanged.

mod archive;
mod place;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use soloist_core::assignment::{Task, TaskPhase, TaskResult};
use soloist_core::ids::{FleetId, NodeId};
use soloist_core::packages::{
    MARKER_OFF, OPERATION, PACKAGES, PACKAGES_BACK, PLUGIN_OFF, PUT, REMOVE, SHA256, VERSION,
};
use soloist_core::upgrade::DIGEST;
use tokio::sync::watch;

use self::place::{Exchange, Ready};
use super::owner::Owner;
use super::{Output, params};
use crate::host::disk::DiskReader;
use crate::profile::{MARKER, PluginPlaces, Profile};

/// Names of the tasks in this file.
pub(super) const NAMES: [&str; 4] = [PACKAGES, PACKAGES_BACK, PLUGIN_OFF, MARKER_OFF];

/// How long unpacking and renaming may take. Only a mount that hangs takes longer, and then the operation's own deadline comes first.
const DISK_DEADLINE: Duration = Duration::from_secs(1800);
/// How long npm may take.
const FETCH_DEADLINE: Duration = Duration::from_secs(600);
/// How many operations' exchanges are kept on the disk.
const KEPT: usize = 3;

/// Does the tasks of one node.
#[derive(Debug)]
pub struct PackageTasks {
    profile: Arc<Profile>,
    owner: Owner,
    disk: DiskReader,
}

/// One change that a task asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wish {
    plugin: String,
    /// Where it comes from; none if it goes.
    source: Option<String>,
    version: Option<String>,
    sha256: Option<String>,
}

impl PackageTasks {
    /// Tasks of a node.
    #[must_use]
    pub fn new(profile: Arc<Profile>, fleet: FleetId, node: NodeId) -> Self {
        Self { profile, owner: Owner { fleet, node }, disk: DiskReader::new(DISK_DEADLINE) }
    }

    /// Makes ready what a task needs, or does it. A result means that nothing of it is still under way.
    pub async fn perform(&self, task: &Task, tell: &watch::Sender<String>) -> (TaskResult, Output) {
        let mut output = Output::new();
        match self.try_perform(task, tell, &mut output).await {
            Ok(()) => (TaskResult::Done, output),
            Err(why) => (TaskResult::Failed(why), output),
        }
    }

    /// Ends what an earlier run of the agent has begun. Another attempt finishes it.
    pub async fn recover(&self) -> (TaskResult, Output) {
        self.owner.interrupted().await
    }

    async fn try_perform(
        &self,
        task: &Task,
        tell: &watch::Sender<String>,
        output: &mut Output,
    ) -> Result<(), String> {
        self.owner.end_leftovers().await?;
        if task.name == PLUGIN_OFF && task.phase == TaskPhase::Run {
            let plugin = params::plugin(&task.params)?;
            return self.profile.plugin_off(&plugin).await;
        }
        let places = self.profile.plugin_places().await?;
        if task.name == MARKER_OFF && task.phase == TaskPhase::Run {
            return self.aside(places.storage.join(MARKER), remove).await;
        }
        let base = places.storage.join(".soloist").join(self.owner.fleet.as_str()).join("packages");
        let operation = task.params.get(OPERATION).ok_or("the parameter \"operation\" is missing")?;
        let work = base.join(operation);
        match (task.name.as_str(), task.phase) {
            (PACKAGES, TaskPhase::Check) => {
                let kept = operation.clone();
                self.aside(base, move |base| forget(base, &kept)).await?;
                let mut digests = Vec::new();
                for wish in wishes(task)? {
                    tell.send_replace(format!("making {} ready", wish.plugin));
                    let ready = self.make_ready(task, &wish, &places, &work).await;
                    let ready = ready.map_err(|why| format!("{}: {why}", wish.plugin))?;
                    digests.push(ready.digest);
                    output.insert(wish.plugin, ready.version.unwrap_or_else(|| "removed".into()));
                }
                output.insert(DIGEST.into(), digests.join(" "));
                Ok(())
            }
            (PACKAGES, TaskPhase::Run) => {
                for wish in wishes(task)? {
                    tell.send_replace(format!("exchanging {}", wish.plugin));
                    let exchange = Exchange::new(&places.plugins, &work, &wish.plugin);
                    let done = self.aside(work.clone(), move |_| exchange.run()).await;
                    done.map_err(|why| format!("{}: {why}", wish.plugin))?;
                }
                Ok(())
            }
            (PACKAGES_BACK, TaskPhase::Run) => self.aside(work, move |work| back(work, &places)).await,
            (other, _) => Err(format!("this agent has no task \"{other}\" to check")),
        }
    }

    /// Fetches a package and looks into it, unless that was done already.
    async fn make_ready(
        &self,
        task: &Task,
        wish: &Wish,
        places: &PluginPlaces,
        work: &Path,
    ) -> Result<Ready, String> {
        let exchange = Exchange::new(&places.plugins, work, &wish.plugin);
        if let Some(ready) = exchange.ready() {
            return Ok(ready);
        }
        if self.is_shipped(&places.modules.join(&wish.plugin)).await? {
            return Err("it is part of NocoBase itself: an upgrade changes it".into());
        }
        let Some(source) = &wish.source else {
            let there = self.aside(places.plugins.join(&wish.plugin), |path| path.try_exists()).await?;
            if !there {
                return Err(format!("it is not among the plugins in {}", places.plugins.display()));
            }
            let ready = Ready { plugin: wish.plugin.clone(), version: None, digest: "removed".into() };
            let noted = ready.clone();
            return self.aside(work.to_owned(), move |_| exchange.note(&noted)).await.map(|()| ready);
        };
        let fetched = tempfile::Builder::new().prefix("soloist-package").tempdir();
        let fetched = fetched.map_err(|error| format!("no temporary folder can be made: {error}"))?;
        let archive = if source == "npm" {
            self.with_npm(task, wish, fetched.path()).await?
        } else {
            PathBuf::from(source)
        };
        let code = self.profile.facts().await.code.map(|code| code.0);
        let (wish, node) = (wish.clone(), self.owner.node.clone());
        let unpacked = work.join(format!(".{node}"));
        self.aside(archive, move |archive| look_into(archive, &unpacked, &exchange, &wish, code.as_deref()))
            .await
    }

    async fn with_npm(&self, task: &Task, wish: &Wish, to: &Path) -> Result<PathBuf, String> {
        let version = wish.version.as_ref().map(|version| format!("@{version}")).unwrap_or_default();
        let argv = [
            "npm",
            "pack",
            "--silent",
            "--pack-destination",
            &to.to_string_lossy(),
            &format!("{}{version}", wish.plugin),
        ];
        let argv = argv.into_iter().map(str::to_owned).collect();
        let ran = self.owner.run(task, argv, &[], FETCH_DEADLINE, |_| {}).await;
        ran.map_err(|error| format!("npm cannot fetch it: {error}"))?;
        let found = self.aside(to.to_owned(), |folder| {
            std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()
        });
        found.await?.pop().ok_or_else(|| "npm has left no archive".to_owned())
    }

    /// Whether a package lies in the app's own folder, and is not only linked from there.
    async fn is_shipped(&self, path: &Path) -> Result<bool, String> {
        self.aside(path.to_owned(), |path| match std::fs::symlink_metadata(path) {
            Ok(found) => Ok(found.is_dir()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        })
        .await
    }

    /// Work on a disk that may hang.
    async fn aside<T: Send + 'static>(
        &self,
        path: PathBuf,
        work: impl FnOnce(&Path) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        self.disk.call(path, move |path| work(&path)).await.map_err(|error| error.to_string())
    }
}

/// Makes an archive ready to take a plugin's place.
fn look_into(
    archive: &Path,
    unpacked: &Path,
    exchange: &Exchange,
    wish: &Wish,
    code: Option<&str>,
) -> std::io::Result<Ready> {
    let refuse = |what: String| Err(std::io::Error::other(what));
    let at = |error: std::io::Error| {
        std::io::Error::new(error.kind(), format!("{} on this node: {error}", archive.display()))
    };
    let digest = archive::sha256(archive).map_err(at)?;
    if wish.sha256.as_ref().is_some_and(|wanted| !wanted.eq_ignore_ascii_case(&digest)) {
        return refuse(format!(
            "{} on this node is another file: its SHA-256 is {digest}",
            archive.display()
        ));
    }
    if unpacked.exists() {
        std::fs::remove_dir_all(unpacked)?;
    }
    archive::unpack(archive, unpacked).map_err(at)?;
    let package = archive::package(unpacked)
        .map_err(|error| std::io::Error::other(format!("{} is no plugin: {error}", archive.display())))?;
    if package.name != wish.plugin {
        return refuse(format!("{} holds {}", archive.display(), package.name));
    }
    if wish.version.as_ref().is_some_and(|wanted| *wanted != package.version) {
        return refuse(format!("{} holds version {}", archive.display(), package.version));
    }
    if let Some(why) = archive::problem(unpacked, &package, code) {
        return refuse(why);
    }
    let fresh = exchange.fresh();
    if let Some(parent) = fresh.parent() {
        std::fs::create_dir_all(parent)?;
    }
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh)?;
    }
    std::fs::rename(unpacked, &fresh)?;
    let ready = Ready { plugin: package.name, version: Some(package.version), digest };
    exchange.note(&ready)?;
    Ok(ready)
}

/// Removes a file that may be gone already.
fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Takes back everything that an operation has exchanged.
fn back(work: &Path, places: &PluginPlaces) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(work) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().replace('+', "/");
        if !name.starts_with('.') {
            Exchange::new(&places.plugins, work, &name).back()?;
        }
    }
    Ok(())
}

/// Removes what the oldest operations have left.
fn forget(base: &Path, keep: &str) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(base) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name() != keep {
            found.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    found.sort();
    let old = found.len().saturating_sub(KEPT);
    found.into_iter().take(old).try_for_each(|(_, path)| std::fs::remove_dir_all(path))
}

/// What a task asks for; the reason of an error is for people.
fn wishes(task: &Task) -> Result<Vec<Wish>, String> {
    let of = |kind: &str, plugin: &str| task.params.get(&format!("{kind}{plugin}")).cloned();
    let mut wishes = Vec::new();
    for (key, value) in &task.params {
        let (plugin, source) = match (key.strip_prefix(PUT), key.strip_prefix(REMOVE)) {
            (Some(plugin), _) => (plugin, Some(value.clone())),
            (None, Some(plugin)) => (plugin, None),
            (None, None) => continue,
        };
        params::package(plugin)?;
        let (version, sha256) = (of(VERSION, plugin), of(SHA256, plugin));
        wishes.push(Wish { plugin: plugin.to_owned(), source, version, sha256 });
    }
    Ok(wishes)
}
