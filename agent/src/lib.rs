//! Soloist's agent: keeps one NocoBase node in the state that the coordinators assign, or steers one load balancer.

pub mod agent;
pub mod backup;
pub mod balancer;
pub mod config;
pub mod coordinators;
pub mod driver;
pub mod ending;
pub mod evidence;
pub mod fence;
pub mod glass;
#[cfg(test)]
#[path = "../../proto/tests/hell/mod.rs"]
mod hell;
pub mod host;
#[cfg(test)]
mod hostile;
pub mod http;
pub mod jobs;
pub mod keeper;
pub mod ledger;
pub mod let_go;
pub mod membership;
pub mod page;
pub mod preflight;
pub mod probe;
pub mod profile;
pub mod release;
pub mod report;
pub mod session;
pub mod status;
pub mod steer;
pub mod task;
pub mod work;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use soloist_core::command::Registration;
use soloist_core::evidence::Tracker;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::balancer::{Balancer, BalancerConfig};
use crate::config::Config;
use crate::coordinators::Coordinators;
use crate::driver::{ProcessDriver, ProcessDriverOptions};
use crate::evidence::Recorder;
use crate::fence::Carrier;
use crate::host::Host;
use crate::http::Asks;
use crate::jobs::{Jobs, RESULTS_MAX};
use crate::ledger::{DataFolder, LedgerFile, Loaded};
use crate::membership::Membership;
use crate::page::{Face, Told};
use crate::preflight::Gatherer;
use crate::profile::{NodeContext, Profile, ProfileConfig};
use crate::session::{Identity, News, Outgoing};
use crate::status::Status;
use crate::task::LongTasks;
use crate::task::backup::BackupTasks;
use crate::task::commercial::CommercialTasks;
use crate::task::packages::PackageTasks;
use crate::task::release::ReleaseTasks;
use crate::task::verify::VerifyTasks;

/// News that may wait for the loop.
const NEWS_MAX: usize = 64;

/// Runs the agent until `stop` is cancelled. The app, or the load balancer, is left alone.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let folder = DataFolder::open(&config.data_dir)?;
    let (ledger, loaded) = LedgerFile::open(&folder)?;
    let host = Host { boot_id: config.boot_id_file.clone(), machine_id: config.machine_id_file.clone() };
    let (machine, boot) = (host.machine_id()?, host.boot_id()?);
    let listener = match config.http {
        Some(address) => Some(TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {address} for HTTP (key http, or SOLOIST_AGENT_HTTP): is another agent running?")
        })?),
        None => None,
    };
    let page = open_page(&config)?;
    let (membership, registration) = Membership::new(&config, ledger, machine, boot)?;
    let ledger = if loaded == Loaded::Fresh { "new" } else { "found" };
    tracing::info!(fleet = %config.fleet, node = %config.node, role = ?config.role(), ledger, "agent runs");
    let going = stop.child_token();
    let record = || {
        open_record(folder.path(), &config, &membership)
            .context("cannot go on with the record of the node (evidence.jsonl in data_dir)")
    };
    let recorded = config.app.as_ref().map(|_| record()).transpose()?;
    let listeners = Listeners { http: listener, page };
    let recorder = recorded.as_ref().map(|(recorder, _)| recorder.clone());
    let (wires, lines) = Wires::new(&config, folder.path(), listeners, registration, recorder, &going);
    let result = match (config.app.clone().zip(recorded), config.balancer.clone()) {
        (Some((app, recorded)), _) => {
            run_app(config, app, host, &folder, (membership, recorded), lines, going.clone()).await
        }
        (None, Some(balancer)) => run_balancer(config, &balancer, membership, lines, going.clone()).await,
        (None, None) => Err(anyhow::anyhow!("the configuration has neither [app] nor [balancer]")),
    };
    going.cancel();
    wires.end().await?;
    drop(folder);
    result
}

/// The node's record, and what it leaves open.
fn open_record(
    folder: &Path,
    config: &Config,
    membership: &Membership,
) -> std::io::Result<(Recorder, Tracker)> {
    let who = (&config.fleet, &config.node);
    let (recorder, records) = Recorder::open(folder, who, membership.boot(), membership.incarnation())?;
    Ok((recorder, Tracker::recall(&records)))
}

/// The maintenance page and where it is served, if it is.
fn open_page(config: &Config) -> anyhow::Result<Option<(std::net::TcpListener, Face)>> {
    let Some(page) = &config.page else { return Ok(None) };
    let listener = std::net::TcpListener::bind(page.listen).with_context(|| {
        format!(
            "cannot listen on {} for the maintenance page (listen in [page]): does something else?",
            page.listen
        )
    })?;
    let face = Face::new(page).context("the maintenance page (template in [page])")?;
    Ok(Some((listener, face)))
}

/// Where the agent listens.
struct Listeners {
    http: Option<TcpListener>,
    page: Option<(std::net::TcpListener, Face)>,
}

/// What connects an agent's loop with the world.
struct Lines {
    news: mpsc::Receiver<News>,
    outgoing: watch::Sender<Outgoing>,
    status: watch::Sender<Status>,
    asks: Arc<Asks>,
    fences: Carrier,
}

/// The work at the other ends.
struct Wires {
    session: JoinHandle<()>,
    http: Option<JoinHandle<std::io::Result<()>>>,
    page: Option<JoinHandle<std::io::Result<()>>>,
}

impl Wires {
    fn new(
        config: &Config,
        folder: &Path,
        listeners: Listeners,
        registration: watch::Receiver<Registration>,
        recorder: Option<Recorder>,
        going: &CancellationToken,
    ) -> (Self, Lines) {
        let (news_out, news) = mpsc::channel(NEWS_MAX);
        let (outgoing, outgoing_in) = watch::channel(Outgoing::default());
        let (status, status_in) = watch::channel(agent::first_status(config));
        let asks = Arc::new(Asks::default());
        let fences = Carrier::new(&config.fences, &config.fleet, &config.node, going.clone());
        let identity = Identity { fleet: config.fleet.clone(), node: config.node.clone() };
        let coordinators = Coordinators::open(folder, &config.coordinators);
        let (told, told_in) = watch::channel(Told::default());
        let told_out = (outgoing_in, recorder);
        let session =
            session::keep(identity, coordinators, registration, told_out, news_out, told, going.clone());
        let http = listeners
            .http
            .map(|listener| tokio::spawn(http::serve(listener, status_in, Arc::clone(&asks), going.clone())));
        let stop = going.clone();
        let page = listeners.page.map(|(listener, face)| {
            tokio::task::spawn_blocking(move || page::serve(listener, face, told_in, stop))
        });
        (Self { session: tokio::spawn(session), http, page }, Lines { news, outgoing, status, asks, fences })
    }

    async fn end(self) -> anyhow::Result<()> {
        self.session.await.context("the session ended in an error")?;
        if let Some(http) = self.http {
            http.await.context("HTTP ended in an error")?.context("HTTP failed")?;
        }
        if let Some(page) = self.page {
            page.await
                .context("the maintenance page ended in an error")?
                .context("the maintenance page failed")?;
        }
        Ok(())
    }
}

async fn run_balancer(
    config: Config,
    balancer: &BalancerConfig,
    membership: Membership,
    lines: Lines,
    going: CancellationToken,
) -> anyhow::Result<()> {
    let Lines { news, outgoing, status, fences, .. } = lines;
    let balancer = Balancer::new(balancer);
    Ok(steer::run(steer::Parts { config, membership, balancer, news, outgoing, status, fences }, going)
        .await?)
}

async fn run_app(
    config: Config,
    app: ProfileConfig,
    host: Host,
    folder: &DataFolder,
    (membership, (recorder, tracker)): (Membership, (Recorder, Tracker)),
    lines: Lines,
    going: CancellationToken,
) -> anyhow::Result<()> {
    let Lines { news, outgoing, status, asks, fences } = lines;
    let (fleet, node) = (config.fleet.clone(), config.node.clone());
    let context = NodeContext {
        fleet: fleet.clone(),
        node: node.clone(),
        data_folder: folder.path().to_owned(),
        releases: config.release.as_ref().and_then(|release| release.folder.clone()),
    };
    let profile = Arc::new(Profile::new(app, context.clone())?);
    let mut options = ProcessDriverOptions::new(folder.path().to_owned(), fleet.clone(), node.clone())
        .context("cannot find the agent's own program")?;
    options.host = host;
    let driver = ProcessDriver::new(options);
    task::end_leftovers(&fleet, &node).await.map_err(anyhow::Error::msg)?;
    let backups = config.backup.clone();
    let backups = BackupTasks::new(Arc::clone(&profile), backups, folder.path(), fleet.clone(), node.clone());
    let release = config.release.as_ref();
    let releases = ReleaseTasks::new(Arc::clone(&profile), release, fleet.clone(), node.clone());
    let packages = PackageTasks::new(Arc::clone(&profile), fleet.clone(), node.clone());
    let commercial = CommercialTasks::new(Arc::clone(&profile), fleet.clone(), node.clone());
    let verifications = VerifyTasks::new(Arc::clone(&profile), config.checks.clone(), fleet, node);
    let tasks = LongTasks { backups, commercial, packages, releases, verifications };
    let gatherer = Arc::new(Gatherer::new(context, config.backup.external.is_some(), Arc::clone(&asks)));
    let (done_out, done) = mpsc::channel(RESULTS_MAX);
    let jobs = Jobs::new(Arc::clone(&profile), driver.clone(), gatherer, tasks, done_out);
    let parts = agent::Parts {
        config,
        membership,
        profile,
        driver,
        news,
        outgoing,
        status,
        asks,
        fences,
        recorder,
        tracker,
        jobs,
        done,
    };
    Ok(agent::run(parts, going).await?)
}

/// Reads the configuration, with the process's own environment.
pub fn load(path: &Path) -> Result<Config, config::ConfigError> {
    Config::load(path, |name| std::env::var(name).ok())
}
