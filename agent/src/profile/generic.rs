//! The generic profile: a configured command, with as much of NocoBase's API as the app has.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Deserialize;
use soloist_core::assignment::{DatabaseFacts, RunMode};
use soloist_core::ids::Version;
use soloist_core::quiet::WORK_MAX;

use super::command::{base_env, output};
use super::drift::{Drift, InMemory, Versions, compare};
use super::{Facts, NodeContext, Premises, ProfileError};
use crate::driver::AppCommand;
use crate::host::{AppPattern, Marker};
use crate::probe::{ApiClient, ApiError, Health, Prober, Proofs, Verdict};
use crate::work::{Unfinished, Work};

/// How long facts may take.
const FACTS_DEADLINE: Duration = Duration::from_secs(5);

/// Configuration of a generic app.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenericConfig {
    /// Program and arguments of a plain run.
    pub command: Vec<String>,
    /// Program and arguments of a run that may install or upgrade; without it such a run is refused.
    #[serde(default)]
    pub migrate_command: Option<Vec<String>>,
    /// Working folder.
    pub cwd: PathBuf,
    /// Environment, beside `PATH`, `HOME` and the like.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Base of an API like NocoBase's, for example `http://127.0.0.1:13000/api/`. With it the app is probed like
    /// NocoBase, and plugin tasks work.
    #[serde(default)]
    pub api_url: Option<String>,
    /// File with the API credential.
    #[serde(default)]
    pub credential: Option<PathBuf>,
    /// Without `api_url`: the app serves when this address answers 200. Without both it serves while it runs.
    #[serde(default)]
    pub health_url: Option<String>,
    /// Address that tells the facts as JSON.
    #[serde(default)]
    pub facts_url: Option<String>,
    /// Command that prints the facts as JSON: program and arguments.
    #[serde(default)]
    pub facts_command: Option<Vec<String>>,
    /// Command that prints what is under way inside the app and is waited for before a stop, one thing per line; program and arguments.
    #[serde(default)]
    pub work_command: Option<Vec<String>>,
    /// Routes that prove plugins, by package name.
    #[serde(default)]
    pub plugin_routes: BTreeMap<String, String>,
}

/// Facts as an app or a command tells them.
#[derive(Debug, Default, Deserialize)]
struct Told {
    #[serde(default)]
    code: Option<Version>,
    #[serde(default)]
    database: Option<ToldDatabase>,
    #[serde(default)]
    upgrading: bool,
}

#[derive(Debug, Deserialize)]
struct ToldDatabase {
    identity: String,
    #[serde(default)]
    version: Option<Version>,
    #[serde(default)]
    empty: bool,
}

/// A generic app on one node.
#[derive(Debug)]
pub struct GenericProfile {
    config: GenericConfig,
    node: NodeContext,
    api: Option<ApiClient>,
    health: Option<ApiClient>,
    facts: Option<ApiClient>,
    proofs: Proofs,
}

impl GenericProfile {
    pub(super) fn new(config: GenericConfig, node: NodeContext) -> Result<Self, ProfileError> {
        if config.command.is_empty() || config.migrate_command.as_ref().is_some_and(Vec::is_empty) {
            return Err(ProfileError::Refused("the profile's command names no program".into()));
        }
        let client = |url: &Option<String>| url.as_ref().map(|url| ApiClient::new(url, None)).transpose();
        let api =
            config.api_url.as_ref().map(|url| ApiClient::new(url, config.credential.clone())).transpose()?;
        Ok(Self {
            api,
            health: client(&config.health_url)?,
            facts: client(&config.facts_url)?,
            proofs: Proofs::new(config.plugin_routes.clone(), false),
            config,
            node,
        })
    }

    pub(super) fn command(&self, mode: RunMode) -> Result<AppCommand, ProfileError> {
        let argv = match (mode, &self.config.migrate_command) {
            (RunMode::Plain | RunMode::Single, _) => &self.config.command,
            (RunMode::Migrate(_), Some(command)) => command,
            (RunMode::Migrate(_), None) => {
                let text =
                    "this node has no migrate_command: it can neither install nor upgrade the app's database";
                return Err(ProfileError::Refused(text.into()));
            }
        };
        let mut env = self.env();
        env.insert(Marker::VARIABLE.into(), self.node.marker().value().to_owned());
        Ok(AppCommand { argv: argv.clone(), env, cwd: self.config.cwd.clone(), processes: 1 })
    }

    fn env(&self) -> BTreeMap<String, String> {
        let mut env = base_env();
        env.extend(self.config.env.clone());
        env
    }

    pub(super) async fn facts(&self) -> Facts {
        let told = match (&self.config.facts_command, &self.facts) {
            (Some(command), _) => {
                let text =
                    output("facts_command", command, &self.env(), &self.config.cwd, FACTS_DEADLINE).await;
                text.map_err(|error| error.to_string()).and_then(|text| parse(text.as_bytes()))
            }
            (None, Some(client)) => match client.get_exact().await {
                Ok(answer) if answer.status == 200 => parse(&answer.body),
                Ok(answer) => Err(format!("facts_url answers with status {}", answer.status)),
                Err(error) => Err(error.to_string()),
            },
            (None, None) => Ok(Told::default()),
        };
        match told {
            Ok(told) => Facts {
                processes: None,
                code: told.code,
                database: told.database.map(|database| DatabaseFacts {
                    identity: database.identity,
                    version: database.version,
                    empty: database.empty,
                }),
                sessions: Vec::new(),
                database_error: None,
                upgrading: told.upgrading,
                refusal: None,
            },
            Err(why) => Facts { database_error: Some(why), ..Facts::default() },
        }
    }

    /// Whether it can be told what is under way inside the app.
    pub(super) fn tells_work(&self) -> bool {
        self.config.work_command.is_some()
    }

    /// What is under way inside the app.
    pub(super) async fn unfinished(&self) -> Result<Unfinished, String> {
        let Some(command) = &self.config.work_command else { return Ok(Unfinished::default()) };
        let text = output("work_command", command, &self.env(), &self.config.cwd, FACTS_DEADLINE).await;
        let text = text.map_err(|error| error.to_string())?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).take(WORK_MAX);
        Ok(Unfinished { own: lines.map(Work::said).collect(), ..Unfinished::default() })
    }

    pub(super) fn premises(&self) -> Premises {
        Premises { app_folder: self.config.cwd.clone(), launcher: None }
    }

    pub(super) fn api(&self) -> Option<ApiClient> {
        self.api.clone()
    }

    /// The look at an app without API.
    pub(super) async fn look(&self, prober: &mut Prober) -> (Health, Verdict) {
        let Some(client) = &self.health else { return (Health::Ok, Verdict::Serving) };
        let health = match client.get_exact().await {
            Ok(answer) => Health::parse(answer.status, &answer.body),
            Err(ApiError::Refused(_)) => Health::Refused,
            Err(_) => Health::Silent,
        };
        let verdict = match health {
            Health::Ok => {
                prober.reset();
                Verdict::Serving
            }
            _ => prober.judge(&health, None, None, Instant::now()),
        };
        (health, verdict)
    }

    pub(super) fn pattern(&self) -> AppPattern {
        let app_folders = self.node.app_folders(&self.config.cwd);
        AppPattern::Command { app_folders, argv: self.config.command.clone() }
    }

    /// In what the loaded plugins differ from the enabled ones, where the app has an API that tells both.
    pub(super) async fn drift(&self) -> Option<Result<Drift, String>> {
        let api = self.api.as_ref()?;
        let (wanted, loaded) = tokio::join!(api.enabled(), api.loaded());
        match (wanted, loaded) {
            (Ok(Some(wanted)), Ok(Some(loaded))) => {
                Some(Ok(compare(&wanted, &InMemory::of(loaded), None, Versions::new())))
            }
            (Ok(_), Ok(_)) => None,
            (Err(error), _) | (_, Err(error)) => Some(Err(error.to_string())),
        }
    }

    /// Some address of the app.
    pub(super) fn address(&self) -> Option<String> {
        let client = self.api.as_ref().or(self.health.as_ref()).or(self.facts.as_ref());
        client.map(|client| client.base().to_owned())
    }

    pub(super) fn proofs(&self) -> &Proofs {
        &self.proofs
    }
}

fn parse(text: &[u8]) -> Result<Told, String> {
    serde_json::from_slice(text).map_err(|why| format!("the facts are not what is expected: {why}"))
}
