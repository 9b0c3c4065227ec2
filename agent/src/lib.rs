//! Soloist's agent: keeps one NocoBase node in the state that the coordinators assign.

pub mod agent;
pub mod backup;
pub mod config;
pub mod driver;
pub mod host;
pub mod http;
pub mod jobs;
pub mod keeper;
pub mod ledger;
pub mod preflight;
pub mod probe;
pub mod profile;
pub mod release;
pub mod session;
pub mod status;
pub mod task;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::agent::Parts;
use crate::config::Config;
use crate::driver::{ProcessDriver, ProcessDriverOptions};
use crate::host::Host;
use crate::jobs::{Jobs, RESULTS_MAX};
use crate::ledger::{DataFolder, LedgerFile, Loaded};
use crate::preflight::Gatherer;
use crate::profile::{NodeContext, Profile};
use crate::session::{Identity, Outgoing};
use crate::task::LongTasks;
use crate::task::backup::BackupTasks;
use crate::task::release::ReleaseTasks;
use crate::task::verify::VerifyTasks;

/// News that may wait for the loop.
const NEWS_MAX: usize = 64;

/// Runs the agent until `stop` is cancelled. The app is left alone.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let folder = DataFolder::open(&config.data_dir)?;
    let (mut ledger, loaded) = LedgerFile::open(&folder)?;
    let host = Host { boot_id: config.boot_id_file.clone(), machine_id: config.machine_id_file.clone() };
    let (machine, boot) = (host.machine_id()?, host.boot_id()?);
    let listener = match config.http {
        Some(address) => Some(TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {address} for HTTP (key http, or SOLOIST_AGENT_HTTP): is another agent running?")
        })?),
        None => None,
    };
    let registration = agent::introduce(&config, &mut ledger, &machine, &boot)?;
    let context = NodeContext {
        fleet: config.fleet.clone(),
        node: config.node.clone(),
        data_folder: folder.path().to_owned(),
        releases: config.release.as_ref().and_then(|release| release.folder.clone()),
    };
    let profile = Arc::new(Profile::new(config.app.clone(), context.clone())?);
    let mut options =
        ProcessDriverOptions::new(folder.path().to_owned(), config.fleet.clone(), config.node.clone())
            .context("cannot find the agent's own program")?;
    options.host = host;
    let driver = ProcessDriver::new(options);
    task::end_leftovers(&config.fleet, &config.node).await.map_err(anyhow::Error::msg)?;
    tracing::info!(
        fleet = %config.fleet,
        node = %config.node,
        ledger = if loaded == Loaded::Fresh { "new" } else { "found" },
        "agent runs"
    );

    let (news_out, news) = mpsc::channel(NEWS_MAX);
    let (done_out, done) = mpsc::channel(RESULTS_MAX);
    let (outgoing, outgoing_in) = watch::channel(Outgoing::default());
    let (registration, registration_in) = watch::channel(registration);
    let (status, status_in) = watch::channel(agent::first_status(&config));
    let identity = Identity { fleet: config.fleet.clone(), node: config.node.clone() };
    let going = stop.child_token();
    let session = tokio::spawn(session::keep(
        identity,
        config.coordinators.clone(),
        registration_in,
        outgoing_in,
        news_out,
        going.clone(),
    ));
    let http = listener.map(|listener| tokio::spawn(http::serve(listener, status_in, going.clone())));
    let backups = BackupTasks::new(
        Arc::clone(&profile),
        config.backup.clone(),
        folder.path(),
        config.fleet.clone(),
        config.node.clone(),
    );
    let (fleet, node) = (config.fleet.clone(), config.node.clone());
    let release = config.release.as_ref();
    let releases = ReleaseTasks::new(Arc::clone(&profile), release, fleet.clone(), node.clone());
    let verifications = VerifyTasks::new(Arc::clone(&profile), config.checks.clone(), fleet, node);
    let tasks = LongTasks { backups, releases, verifications };
    let gatherer = Arc::new(Gatherer::new(context, config.backup.external.is_some()));
    let jobs = Jobs::new(Arc::clone(&profile), driver.clone(), gatherer, tasks, done_out);
    let parts = Parts {
        config,
        ledger,
        profile,
        driver,
        machine,
        boot,
        news,
        outgoing,
        registration,
        status,
        jobs,
        done,
    };
    let result = agent::run(parts, going.clone()).await;
    going.cancel();
    session.await.context("the session ended in an error")?;
    if let Some(http) = http {
        http.await.context("HTTP ended in an error")?.context("HTTP failed")?;
    }
    drop(folder);
    Ok(result?)
}

/// Reads the configuration, with the process's own environment.
pub fn load(path: &Path) -> Result<Config, config::ConfigError> {
    Config::load(path, |name| std::env::var(name).ok())
}
