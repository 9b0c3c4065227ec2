//! Profiles: what kind of app a node runs, how it is started, and what can be learned of it before and while it
//! runs. `nocobase` is the real thing, `generic` drives anything else, first of all the demo's stand-in.

mod command;
mod drift;
mod generic;
pub(crate) mod nocobase;
mod premises;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use soloist_core::assignment::{DatabaseFacts, DbSession, RunMode};
use soloist_core::evidence::Sessions as Connected;
use soloist_core::ids::{FleetId, NodeId, Version};

use crate::backup::Installation;
use crate::driver::AppCommand;
use crate::host::{AppPattern, Marker};
use crate::let_go::Sessions;
use crate::probe::{ApiClient, ApiError, Health, Prober, Proofs, Verdict};
use crate::release::{Contents, Releases};
use crate::work::Unfinished;

pub(crate) use command::{base_env, find_program, output};
pub use drift::{Difference, Drift, Versions};
pub use generic::{GenericConfig, GenericProfile};
pub(crate) use nocobase::MARKER;
pub use nocobase::{NocoBaseConfig, NocoBaseProfile, sessions, unfinished};
pub(crate) use premises::{Launcher, Premises, Survey};

/// Time between SIGTERM and SIGKILL of a generic app where nobody says anything else.
const GRACE_GENERIC: Duration = Duration::from_secs(30);

/// Which node a profile is for.
#[derive(Debug, Clone)]
pub struct NodeContext {
    /// The fleet.
    pub fleet: FleetId,
    /// The node.
    pub node: NodeId,
    /// The agent's data folder for this node.
    pub data_folder: PathBuf,
    /// The folder with the releases of the app, if there is one: a process in any of them is the app.
    pub releases: Option<PathBuf>,
}

impl NodeContext {
    /// The node's marker.
    pub fn marker(&self) -> Marker {
        Marker::new(&self.fleet, &self.node)
    }

    /// The folders that the app may run in, as they are named and as they really are.
    fn app_folders(&self, app_folder: &Path) -> Vec<PathBuf> {
        let mut folders: Vec<PathBuf> = [Some(app_folder), self.releases.as_deref()]
            .into_iter()
            .flatten()
            .flat_map(|folder| [folder.canonicalize().ok(), Some(folder.to_owned())])
            .flatten()
            .collect();
        folders.dedup();
        folders
    }
}

/// What is known of a node's code, database and storage.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Version of the code on disk.
    pub code: Option<Version>,
    /// In how many processes the app runs when it is started plainly, if that could be read.
    pub processes: Option<u32>,
    /// The database, if it could be read.
    pub database: Option<DatabaseFacts>,
    /// Sessions in the database that belong to no node.
    pub sessions: Vec<DbSession>,
    /// Why it could not.
    pub database_error: Option<String>,
    /// Whether the storage says that the next start upgrades (NocoBase's `.upgrading`).
    pub upgrading: bool,
    /// Why the app must not be started as things are, for people.
    pub refusal: Option<String>,
}

/// Where an app's plugins lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PluginPlaces {
    /// The app's storage.
    pub(crate) storage: PathBuf,
    /// Those that were added.
    pub(crate) plugins: PathBuf,
    /// Those that came with the app, beside links to the others.
    pub(crate) modules: PathBuf,
}

/// What fetches an app's commercial plugins. Holds passwords, so it cannot be printed.
pub(crate) struct CommercialFetch {
    /// The program and its arguments.
    pub(crate) argv: Vec<String>,
    /// Its environment.
    pub(crate) env: BTreeMap<String, String>,
    /// The address that it fetches from.
    pub(crate) server: String,
}

/// A profile could not do its part.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The node's installation or settings do not allow it; says what and where.
    #[error("{0}")]
    Refused(String),
    /// A helper program failed.
    #[error("{what} failed: {why}")]
    Helper {
        /// Which one.
        what: &'static str,
        /// How.
        why: String,
    },
    /// The API client could not be made.
    #[error(transparent)]
    Api(#[from] ApiError),
}

/// The `profile` part of a node's configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "profile", rename_all = "lowercase")]
pub enum ProfileConfig {
    /// A NocoBase installation.
    NocoBase(NocoBaseConfig),
    /// Any program.
    Generic(GenericConfig),
}

/// A node's profile.
#[derive(Debug)]
pub enum Profile {
    /// A NocoBase installation.
    NocoBase(NocoBaseProfile),
    /// Any program.
    Generic(GenericProfile),
}

impl Profile {
    /// Makes a profile. Reads nothing yet.
    pub fn new(config: ProfileConfig, node: NodeContext) -> Result<Self, ProfileError> {
        Ok(match config {
            ProfileConfig::NocoBase(config) => Profile::NocoBase(NocoBaseProfile::new(config, node)),
            ProfileConfig::Generic(config) => Profile::Generic(GenericProfile::new(config, node)?),
        })
    }

    /// What to execute for a run in this mode.
    pub async fn command(&self, mode: RunMode) -> Result<AppCommand, ProfileError> {
        match self {
            Profile::NocoBase(profile) => profile.command(mode).await,
            Profile::Generic(profile) => profile.command(mode),
        }
    }

    /// What is known of code, database and storage. Takes at most some seconds, whatever hangs.
    pub async fn facts(&self) -> Facts {
        match self {
            Profile::NocoBase(profile) => profile.facts().await,
            Profile::Generic(profile) => profile.facts().await,
        }
    }

    /// What preflight looks at by itself.
    pub(crate) async fn premises(&self) -> Premises {
        match self {
            Profile::NocoBase(profile) => profile.premises().await,
            Profile::Generic(profile) => profile.premises(),
        }
    }

    /// What the database tells beside the facts; `None` for an app whose database is not known.
    pub(crate) async fn survey(&self) -> Option<Result<Survey, String>> {
        match self {
            Profile::NocoBase(profile) => profile.survey().await,
            Profile::Generic(_) => None,
        }
    }

    /// The app's API; `None` for an app without one.
    pub async fn api(&self) -> Result<Option<ApiClient>, ProfileError> {
        match self {
            Profile::NocoBase(profile) => profile.api().await.map(Some),
            Profile::Generic(profile) => Ok(profile.api()),
        }
    }

    /// Takes in how many processes the app runs now: what only a process knows is asked of each.
    pub(crate) fn runs_as(&self, processes: u32) {
        match self {
            Profile::NocoBase(profile) => profile.runs_as(processes),
            // Nothing is known of its processes.
            Profile::Generic(_) => {}
        }
    }

    /// Looks whether the running app serves.
    pub async fn look(&self, prober: &mut Prober, code: Option<&Version>) -> (Health, Verdict) {
        match self.api().await {
            Ok(Some(api)) => prober.look(&api, code).await,
            Ok(None) => match self {
                Profile::Generic(profile) => profile.look(prober).await,
                Profile::NocoBase(_) => (Health::Silent, Verdict::NotYet("it has no API".into())),
            },
            Err(error) => (Health::Silent, Verdict::NotYet(error.to_string())),
        }
    }

    /// Time between SIGTERM and SIGKILL where nobody says anything else.
    pub(crate) async fn grace(&self) -> Duration {
        match self {
            Profile::NocoBase(profile) => profile.grace().await,
            Profile::Generic(_) => GRACE_GENERIC,
        }
    }

    /// Whether it can be told what runs inside the app by itself.
    pub(crate) fn tells_work(&self) -> bool {
        match self {
            Profile::NocoBase(_) => true,
            Profile::Generic(profile) => profile.tells_work(),
        }
    }

    /// What is unfinished; nothing for an app of which it cannot be told.
    pub(crate) async fn unfinished(&self) -> Result<Unfinished, String> {
        match self {
            Profile::NocoBase(profile) => profile.unfinished().await,
            Profile::Generic(profile) => profile.unfinished().await,
        }
    }

    /// Whether the app's output has a line for each piece of work that begins.
    pub(crate) async fn log_has_lines(&self) -> bool {
        match self {
            Profile::NocoBase(profile) => profile.log_has_lines().await,
            Profile::Generic(_) => false,
        }
    }

    /// Where the app listens, if it can be told what it holds on to when it is stopped.
    pub(crate) async fn listener(&self) -> Option<SocketAddr> {
        match self {
            Profile::NocoBase(profile) => profile.listener().await,
            Profile::Generic(_) => None,
        }
    }

    /// How many database sessions may be the app's.
    pub(crate) async fn sessions(&self) -> Sessions {
        match self {
            Profile::NocoBase(profile) => profile.sessions().await,
            Profile::Generic(_) => Sessions::Unknown,
        }
    }

    /// Who is connected to the app's database; the reason of an error is for people.
    pub(crate) async fn connected(&self) -> Result<Connected, String> {
        match self {
            Profile::NocoBase(profile) => profile.connected().await,
            Profile::Generic(_) => {
                Err("the app is not NocoBase, and its database's sessions cannot be asked for".into())
            }
        }
    }

    /// How the node's app is recognised among the host's processes.
    pub async fn pattern(&self) -> AppPattern {
        match self {
            Profile::NocoBase(profile) => profile.pattern().await,
            Profile::Generic(profile) => profile.pattern(),
        }
    }

    /// What a backup of the app holds; the reason of an error is for people.
    ///
    /// # Errors
    /// When it cannot be backed up.
    pub async fn installation(&self) -> Result<Installation, String> {
        match self {
            Profile::NocoBase(profile) => {
                let vars = profile.environment().await.map_err(|error| error.to_string())?;
                Installation::from_vars(&vars).map_err(|error| error.to_string())
            }
            Profile::Generic(_) => {
                Err("this node's app is not NocoBase, so only programs of your own can back it up: see \
                                        [backup.external] in its agent's configuration"
                    .into())
            }
        }
    }

    /// How to tell which version a release of the app holds.
    pub(crate) fn contents(&self, version_file: &Path) -> Contents {
        match self {
            Profile::NocoBase(_) => Contents::NocoBase,
            Profile::Generic(_) => Contents::Other { version_file: version_file.to_owned() },
        }
    }

    /// Whether the app would find its settings and its storage again after a switch to another release; the reason of an error
    /// is for people.
    pub(crate) async fn release_fits(&self, releases: &Releases, version: &Version) -> Result<(), String> {
        match self {
            Profile::NocoBase(profile) => profile.release_fits(releases, version).await,
            // What it keeps where is its own matter.
            Profile::Generic(_) => Ok(()),
        }
    }

    /// Where the node's own app listens, without a path: `http://127.0.0.1:13000`; the reason of an error is for people.
    pub(crate) async fn origin(&self) -> Result<String, String> {
        let address = match self {
            Profile::NocoBase(profile) => {
                Some(profile.api().await.map_err(|error| error.to_string())?.base().to_owned())
            }
            Profile::Generic(profile) => profile.address(),
        };
        let address = address.ok_or(
            "it is not known where this node's app listens: set api_url or health_url in the [app] table of its agent's configuration",
        )?;
        let parsed =
            reqwest::Url::parse(&address).map_err(|error| format!("{address} is no address: {error}"))?;
        Ok(parsed.origin().ascii_serialization())
    }

    /// In what the plugins that the running app has loaded differ from those that it should have; `None` where nothing can
    /// tell. The reason of an error is for people.
    pub(crate) async fn drift(&self, before: Option<&Versions>) -> Option<Result<Drift, String>> {
        match self {
            Profile::NocoBase(profile) => Some(profile.drift(before).await),
            Profile::Generic(profile) => profile.drift().await,
        }
    }

    /// Notes in the database that a plugin is not enabled; the reason of an error is for people. Nothing of the app may run.
    pub(crate) async fn plugin_off(&self, plugin: &str) -> Result<(), String> {
        match self {
            Profile::NocoBase(profile) => profile.plugin_off(plugin).await,
            Profile::Generic(_) => {
                Err("this node's app is not NocoBase: how it notes its plugins is not known".into())
            }
        }
    }

    /// What fetches the app's commercial plugins; the reason of an error is for people.
    pub(crate) async fn commercial(&self) -> Result<CommercialFetch, String> {
        match self {
            Profile::NocoBase(profile) => profile.commercial().await,
            Profile::Generic(_) => {
                Err("this node's app is not NocoBase: it has no commercial plugins".into())
            }
        }
    }

    /// Where the app's plugins lie; the reason of an error is for people.
    pub(crate) async fn plugin_places(&self) -> Result<PluginPlaces, String> {
        match self {
            Profile::NocoBase(profile) => profile.plugin_places().await,
            Profile::Generic(_) => {
                Err("this node's app is not NocoBase: where its plugins lie is not known".into())
            }
        }
    }

    /// What can prove which plugins the app has loaded.
    pub fn proofs(&self) -> &Proofs {
        match self {
            Profile::NocoBase(profile) => profile.proofs(),
            Profile::Generic(profile) => profile.proofs(),
        }
    }
}
