//! The NocoBase profile: an installation folder with `node_modules`, and settings in `.env`.
//!
//! The app is executed directly, without yarn, shells and pm2 between: its own launcher's environment is computed
//! first ([`environment`]), then `node …/@nocobase/app/lib/index.js start` is exactly one process. Only a run with
//! the right to install or upgrade gets `--quickstart`. Where the settings ask for several processes, a plain run is
//! pm2 with them ([`processes`]); every other run is one.

mod commercial;
mod database;
mod environment;
mod links;
mod plugins;
mod premises;
mod processes;
mod release;
mod settings;
mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::Deserialize;
use soloist_core::assignment::{DatabaseFacts, DbSession, RunMode};
use soloist_core::ids::{NodeId, Version};
use tokio::sync::Mutex;

pub use self::work::{sessions, unfinished};

use self::environment::{Cache, Environment};
use super::command::find_program;
use super::{Facts, NodeContext, ProfileError};
use crate::backup::plugins_folder;
use crate::driver::AppCommand;
use crate::host::disk::DiskReader;
use crate::host::{AppPattern, DatabaseAddress, Marker};
use crate::probe::{ApiClient, Proofs};

/// While it lies on the storage, the next plain start upgrades.
pub(crate) const MARKER: &str = ".upgrading";
/// How long a file on the app folder or the storage may take to answer.
const DISK_DEADLINE: Duration = Duration::from_secs(3);
/// Largest `package.json` that is read, in bytes.
const PACKAGE_MAX: u64 = 1024 * 1024;
/// Longest application name that PostgreSQL keeps, in bytes.
const PGAPPNAME_MAX: usize = 63;

/// How a node's app names its database sessions, with the prefix `soloist`, and its agent with `soloist-agent`.
pub(crate) fn session_name(prefix: &str, node: &NodeId) -> String {
    let mut name = format!("{prefix}-{node}");
    // Names of nodes are ASCII.
    name.truncate(PGAPPNAME_MAX);
    name
}
/// Longest path of a unix socket in bytes.
const SOCKET_MAX: usize = 107;

/// Configuration of a NocoBase node.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NocoBaseConfig {
    /// The installation: the folder with `node_modules`; perhaps a symbolic link to one of several releases.
    pub app_folder: PathBuf,
    /// The file with the app's settings; `.env` in the app's folder unless given. With releases it must lie outside of them.
    #[serde(default)]
    pub env_file: Option<PathBuf>,
    /// Variables that this node has beside or instead of those in `.env`, for example `APP_PORT`.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The `node` program; without it the one in `PATH`.
    #[serde(default)]
    pub node: Option<String>,
    /// File with the API credential.
    #[serde(default)]
    pub credential: Option<PathBuf>,
    /// Routes that prove plugins, by package name.
    #[serde(default)]
    pub plugin_routes: BTreeMap<String, String>,
    /// Application names of database sessions that may be there beside the fleet's own, for example `metabase`.
    #[serde(default)]
    pub known_sessions: Vec<String>,
}

/// A NocoBase installation on one node.
#[derive(Debug)]
pub struct NocoBaseProfile {
    config: NocoBaseConfig,
    node: NodeContext,
    proofs: Proofs,
    /// For the app folder.
    code: DiskReader,
    /// For the shared storage, which hangs more often.
    storage: DiskReader,
    cache: Mutex<Cache>,
    /// In how many processes the app runs now.
    running: AtomicU32,
}

impl NocoBaseProfile {
    pub(super) fn new(config: NocoBaseConfig, node: NodeContext) -> Self {
        let code = DiskReader::new(DISK_DEADLINE);
        Self {
            proofs: Proofs::new(config.plugin_routes.clone(), true),
            code,
            storage: DiskReader::new(DISK_DEADLINE),
            cache: Mutex::default(),
            running: AtomicU32::new(1),
            config,
            node,
        }
    }

    /// The complete environment of the app, as its own launcher computes it and with what Soloist sets.
    pub async fn environment(&self) -> Result<BTreeMap<String, String>, ProfileError> {
        Ok(self.computed(true).await?.vars)
    }

    pub(super) async fn command(&self, mode: RunMode) -> Result<AppCommand, ProfileError> {
        let environment = self.computed(true).await?;
        let (mut vars, folder) = (environment.vars.clone(), environment.folder.clone());
        let root = vars.get("APP_PACKAGE_ROOT").cloned().unwrap_or_default();
        let entry = PathBuf::from(&root).join("lib/index.js");
        if root.is_empty() || !self.code.exists(entry.clone()).await.unwrap_or(false) {
            let text = format!(
                "{} does not exist: the app in {} is not installed completely (run yarn install there)",
                entry.display(),
                self.config.app_folder.display()
            );
            return Err(ProfileError::Refused(text));
        }
        let (modules, plugins) = (folder.join("node_modules"), plugins_folder(&vars));
        let linked = self.code.call(modules, move |modules| links::link_all(&modules, &plugins)).await;
        if let Err(error) = linked {
            // NocoBase tries it itself, and most apps have all links already.
            tracing::warn!(%error, "links to added plugins cannot be made");
        }
        let mut argv = vec![self.node_program()?];
        if mode == RunMode::Plain && environment.processes > 1 {
            argv.extend(self.several(&environment, &entry, &mut vars).await?);
            return Ok(AppCommand { argv, env: vars, cwd: folder, processes: environment.processes });
        }
        processes::alone(&mut vars);
        let arguments = vars.get("NODE_ARGS").cloned().unwrap_or_default();
        argv.extend(arguments.split_whitespace().map(str::to_owned));
        argv.push(entry.display().to_string());
        argv.push("start".into());
        if let RunMode::Migrate(_) = mode {
            argv.push("--quickstart".into());
            vars.remove("SKIP_SAME_VERSION_UPGRADE");
        }
        Ok(AppCommand { argv, env: vars, cwd: folder, processes: 1 })
    }

    pub(super) async fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        match self.code_version().await {
            Ok(version) => facts.code = Some(version),
            Err(why) => facts.refusal = Some(why),
        }
        let environment = match self.computed(false).await {
            Ok(environment) => environment,
            Err(error) => {
                facts.refusal.get_or_insert(error.to_string());
                facts.database_error = Some("not asked: the app's settings are not known".into());
                return facts;
            }
        };
        facts.processes = Some(environment.processes);
        if environment.processes > 1
            && let Err(error) = self.pm2(&environment).await
        {
            facts.refusal.get_or_insert(error.to_string());
        }
        let marker = PathBuf::from(environment.get("STORAGE_PATH")).join(MARKER);
        let (upgrading, database) = tokio::join!(self.storage.exists(marker), self.database(&environment));
        match upgrading {
            Ok(upgrading) => facts.upgrading = upgrading,
            Err(error) => {
                facts.refusal.get_or_insert(format!("the app's storage cannot be read: {error}"));
            }
        }
        match database {
            Ok((database, sessions)) => (facts.database, facts.sessions) = (Some(database), sessions),
            Err(error) => facts.database_error = Some(error),
        }
        facts
    }

    async fn database(&self, environment: &Environment) -> Result<(DatabaseFacts, Vec<DbSession>), String> {
        let own = self.pgappname("soloist-agent");
        database::facts(environment, &own, &self.config.known_sessions).await
    }

    pub(super) async fn api(&self) -> Result<ApiClient, ProfileError> {
        Ok(self.computed(false).await?.api.of_processes(self.running.load(Ordering::Relaxed)))
    }

    pub(super) fn runs_as(&self, processes: u32) {
        self.running.store(processes, Ordering::Relaxed);
    }

    pub(super) async fn pattern(&self) -> AppPattern {
        let app_folders = self.node.app_folders(&self.config.app_folder);
        let database = match self.computed(false).await {
            Ok(environment) if !environment.get("DB_DATABASE").is_empty() => Some(DatabaseAddress {
                host: environment.get("DB_HOST").to_owned(),
                port: environment.get("DB_PORT").to_owned(),
                database: environment.get("DB_DATABASE").to_owned(),
            }),
            // The folder alone must do until the settings are readable.
            _ => None,
        };
        AppPattern::NocoBase { app_folders, database }
    }

    pub(super) fn proofs(&self) -> &Proofs {
        &self.proofs
    }

    async fn code_version(&self) -> Result<Version, String> {
        #[derive(Deserialize)]
        struct Package {
            version: Version,
        }
        let path = self.config.app_folder.join("node_modules/@nocobase/server/package.json");
        let text = self.code.read(path.clone(), PACKAGE_MAX).await;
        let text = text.map_err(|error| format!("no NocoBase is installed: {}: {error}", path.display()))?;
        let package: Package =
            serde_json::from_str(&text).map_err(|error| format!("{} is damaged: {error}", path.display()))?;
        Ok(package.version)
    }

    fn node_program(&self) -> Result<String, ProfileError> {
        let base = super::command::base_env();
        let path = self.config.env.get("PATH").or_else(|| base.get("PATH")).map_or("", String::as_str);
        find_program(self.config.node.as_deref().unwrap_or("node"), path).ok_or_else(|| {
            ProfileError::Refused(format!(
                "no program \"node\" in {path}; set `node` in the agent's configuration"
            ))
        })
    }

    fn pgappname(&self, prefix: &str) -> String {
        session_name(prefix, &self.node.node)
    }

    /// What Soloist sets, whatever `.env` says.
    fn own_vars(&self) -> Result<[(&'static str, String); 6], ProfileError> {
        let folder = self.node.data_folder.join("nocobase");
        let text = |path: PathBuf| {
            path.into_os_string().into_string().map_err(|path| {
                ProfileError::Refused(format!("the data folder {} is not text", path.to_string_lossy()))
            })
        };
        // The defaults lie in the shared storage, where nodes would take each other's commands.
        let socket = text(folder.join("gateway.sock"))?;
        if socket.len() > SOCKET_MAX {
            let why = format!(
                "the socket path {socket} has more than {SOCKET_MAX} bytes; give the agent a shorter data folder"
            );
            return Err(ProfileError::Refused(why));
        }
        Ok([
            ("SOCKET_PATH", socket),
            ("PM2_HOME", text(folder.join("pm2"))?),
            ("APP_LAUNCH_MODE", "node".into()),
            ("DISABLE_PKG_DOWNLOAD", "true".into()),
            ("PGAPPNAME", self.pgappname("soloist")),
            (Marker::VARIABLE, self.node.marker().value().to_owned()),
        ])
    }
}
