//! Other versions of the app's code: looking whether one is there, fetching it, and making it current.
//!
//! | task | check | run | done before, if |
//! |---|---|---|---|
//! | `release` | is it there and complete, could it be made current, and is there a way back | make it current | the code has this version |
//! | `prepare` | fetch it if it is not there, then the same | – | – |

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use soloist_core::assignment::{Task, TaskPhase, TaskResult};
use soloist_core::ids::{FleetId, NodeId, Version};
use soloist_core::upgrade::{DIGEST, PREPARE, RELEASE};
use tokio::sync::watch;

use super::Output;
use super::owner::Owner;
use crate::host::disk::DiskReader;
use crate::profile::Profile;
use crate::release::{ExternalRelease, ReleaseConfig, ReleaseError, Releases, version};

/// Names of the tasks in this file.
pub(super) const NAMES: [&str; 2] = [RELEASE, PREPARE];

/// How long reading a release, or removing one that was not fetched completely, may take. Only a mount that hangs takes longer,
/// and then the operation's own deadline comes first.
const DISK_DEADLINE: Duration = Duration::from_secs(3600);
/// How long a configured program may take to check or to switch.
const PROGRAM_DEADLINE: Duration = Duration::from_secs(300);
/// How often it is tried to begin a fetch while another agent of this host fetches.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// Does the tasks of one node.
#[derive(Debug)]
pub struct ReleaseTasks {
    profile: Arc<Profile>,
    store: Store,
    owner: Owner,
    disk: DiskReader,
}

/// Who has the releases.
#[derive(Debug)]
enum Store {
    Nobody,
    Own { releases: Releases, fetch: Vec<String>, deadline: Duration },
    External { programs: ExternalRelease, deadline: Duration },
}

impl ReleaseTasks {
    /// Tasks of a node.
    #[must_use]
    pub fn new(profile: Arc<Profile>, config: Option<&ReleaseConfig>, fleet: FleetId, node: NodeId) -> Self {
        let store = match config {
            None => Store::Nobody,
            Some(config) => {
                let deadline = Duration::from_secs(config.fetch_deadline_secs);
                match (&config.external, releases(config, &profile)) {
                    (Some(programs), _) => Store::External { programs: programs.clone(), deadline },
                    (None, Some(releases)) => Store::Own { releases, fetch: config.fetch.clone(), deadline },
                    (None, None) => Store::Nobody,
                }
            }
        };
        Self { profile, store, owner: Owner { fleet, node }, disk: DiskReader::new(DISK_DEADLINE) }
    }

    /// Looks whether a task could be done, or does it. A result means that nothing of it is still under way.
    pub async fn perform(&self, task: &Task, tell: &watch::Sender<String>) -> (TaskResult, Output) {
        let mut output = Output::new();
        match self.try_perform(task, tell, &mut output).await {
            Ok(()) => (TaskResult::Done, output),
            Err(why) => (TaskResult::Failed(why), output),
        }
    }

    /// Ends a task that an earlier run of the agent has begun, and says whether it was done.
    pub async fn recover(&self, task: &Task) -> (TaskResult, Output) {
        if let Err(why) = self.owner.end_leftovers().await {
            return (TaskResult::Failed(why), Output::new());
        }
        let done = match (wanted(task), &self.store) {
            (Ok(version), Store::Own { releases, .. }) if task.name == RELEASE => {
                let own = releases.clone();
                // Exchanging the link is one step; doing it again only sees to it that it has reached the disk.
                let look = move || Ok(own.is_current(&version) && own.switch(&version).is_ok());
                self.aside(releases.current.clone(), look).await == Ok(true)
            }
            (Ok(version), Store::External { .. }) if task.name == RELEASE => {
                self.profile.facts().await.code == Some(version)
            }
            _ => false,
        };
        (if done { TaskResult::Done } else { TaskResult::Interrupted }, Output::new())
    }

    async fn try_perform(
        &self,
        task: &Task,
        tell: &watch::Sender<String>,
        output: &mut Output,
    ) -> Result<(), String> {
        let version = wanted(task)?;
        self.owner.end_leftovers().await?;
        match (task.name.as_str(), task.phase) {
            (PREPARE, _) => {
                self.fetch(task, &version, tell).await?;
                self.check(task, &version, output).await
            }
            (RELEASE, TaskPhase::Check) => self.check(task, &version, output).await,
            (RELEASE, TaskPhase::Run) => self.switch(task, &version).await,
            (other, _) => Err(format!("this agent has no task \"{other}\"")),
        }
    }

    async fn check(&self, task: &Task, version: &Version, output: &mut Output) -> Result<(), String> {
        let digest = match &self.store {
            Store::Nobody => return Err(nobody(version)),
            Store::Own { releases, .. } => {
                let (own, wanted) = (releases.clone(), version.clone());
                let look = move || {
                    own.switchable()?;
                    own.returns()?;
                    own.look(&wanted)
                };
                let digest = self.aside(releases.folder.clone(), look).await?;
                self.profile.release_fits(releases, version).await?;
                digest
            }
            Store::External { programs, .. } => {
                let said = self.program(task, &programs.check, version, PROGRAM_DEADLINE).await?;
                said.lines().next().unwrap_or_default().trim().to_owned()
            }
        };
        if !digest.is_empty() {
            output.insert(DIGEST.into(), digest);
        }
        Ok(())
    }

    async fn switch(&self, task: &Task, version: &Version) -> Result<(), String> {
        match &self.store {
            Store::Nobody => return Err(nobody(version)),
            Store::Own { releases, .. } => {
                let (own, wanted) = (releases.clone(), version.clone());
                self.aside(releases.current.clone(), move || own.switch(&wanted)).await?;
            }
            Store::External { programs, .. } => {
                self.program(task, &programs.switch, version, PROGRAM_DEADLINE).await?;
            }
        }
        // An app that tells nothing while it is stopped is believed to be what was asked for.
        match self.profile.facts().await.code {
            Some(code) if code != *version => Err(format!(
                "the code has version {code} after the switch to {version}: look whether the app's folder goes through what \
                 [release] in this node's agent configuration names"
            )),
            _ => Ok(()),
        }
    }

    /// Fetches a version that is not there.
    async fn fetch(
        &self,
        task: &Task,
        version: &Version,
        tell: &watch::Sender<String>,
    ) -> Result<(), String> {
        match &self.store {
            Store::Nobody => Err(nobody(version)),
            Store::Own { fetch, .. } if fetch.is_empty() => Ok(()),
            Store::Own { releases, fetch, deadline } => {
                let began = Instant::now();
                let held = loop {
                    let (own, wanted) = (releases.clone(), version.clone());
                    let look = move || Ok(if own.exists(&wanted) { None } else { Some(own.turn()?) });
                    match self.aside(releases.folder.clone(), look).await? {
                        // It is there, or has come in the meantime; whether it is whole, the check says.
                        None => return Ok(()),
                        Some(Some(held)) => break held,
                        Some(None) if began.elapsed() >= *deadline => {
                            return Err(format!(
                                "another agent on this host fetches into {} for more than {} s",
                                releases.folder.display(),
                                deadline.as_secs()
                            ));
                        }
                        Some(None) => tokio::time::sleep(TRY_AGAIN).await,
                    }
                };
                tell.send_replace(format!("fetching version {version}"));
                let fetched = self.fetch_into(task, releases, fetch, version, *deadline, tell).await;
                if fetched.is_err() {
                    let own = releases.clone();
                    if let Err(error) = self.aside(releases.folder.clone(), move || own.clear()).await {
                        tracing::warn!("what is left of a failed fetch cannot be removed: {error}");
                    }
                }
                drop(held);
                fetched
            }
            Store::External { programs, .. } if programs.fetch.is_empty() => Ok(()),
            Store::External { programs, deadline } => {
                tell.send_replace(format!("fetching version {version}"));
                self.program(task, &programs.fetch, version, *deadline).await.map(drop)
            }
        }
    }

    async fn fetch_into(
        &self,
        task: &Task,
        releases: &Releases,
        fetch: &[String],
        version: &Version,
        deadline: Duration,
        tell: &watch::Sender<String>,
    ) -> Result<(), String> {
        let (own, wanted) = (releases.clone(), version.clone());
        let partial = self.aside(releases.folder.clone(), move || own.begin(&wanted)).await?;
        let folder = partial.to_str().ok_or_else(|| format!("{} is not text", partial.display()))?;
        let argv = fetch.iter().cloned().chain([version.0.clone(), folder.to_owned()]).collect();
        let said = |line: &str| {
            tell.send_replace(format!("fetching version {version}: {line}"));
        };
        let fetched = self.owner.run(task, argv, &[], deadline, said).await;
        fetched.map_err(|error| format!("version {version} was not fetched: {error}"))?;
        tell.send_replace(format!("writing version {version} to the disk"));
        let (own, wanted) = (releases.clone(), version.clone());
        let adopted = self.aside(releases.folder.clone(), move || own.adopt(&wanted, &partial)).await;
        adopted.map_err(|why| format!("{} ended well, but {why}", fetch.join(" ")))
    }

    /// Runs a configured program with the version as its last argument.
    async fn program(
        &self,
        task: &Task,
        argv: &[String],
        version: &Version,
        deadline: Duration,
    ) -> Result<String, String> {
        let argv = argv.iter().cloned().chain([version.0.clone()]).collect();
        self.owner.run(task, argv, &[], deadline, |_| {}).await.map_err(|error| error.to_string())
    }

    async fn aside<T: Send + 'static>(
        &self,
        path: PathBuf,
        work: impl FnOnce() -> Result<T, ReleaseError> + Send + 'static,
    ) -> Result<T, String> {
        let done = self.disk.call(path, move |_| Ok(work())).await;
        done.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }
}

/// The releases in folders, if these are configured.
fn releases(config: &ReleaseConfig, profile: &Profile) -> Option<Releases> {
    Some(Releases {
        folder: config.folder.clone()?,
        current: config.current.clone()?,
        contents: profile.contents(&config.version_file),
        fetches: !config.fetch.is_empty(),
    })
}

fn wanted(task: &Task) -> Result<Version, String> {
    let text = task.params.get("version").ok_or("the parameter \"version\" is missing")?;
    version(text).map_err(|error| error.to_string())
}

fn nobody(version: &Version) -> String {
    format!(
        "this node's agent does not know where versions of the code lie, so it cannot switch to {version}: add [release] to its \
         configuration, with folder (one folder per version) and current (a symbolic link to one of them, through which the app's \
         folder goes)"
    )
}
