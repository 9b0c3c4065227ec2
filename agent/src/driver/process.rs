//! The process driver: runs the app as a process under an app keeper.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use soloist_core::ids::{FleetId, NodeId};

use super::spawn::{Scope, spawn_keeper};
use super::{AppSeen, Driver, DriverError, LaunchPlan, StopOutcome, observe, stop, watch};
use crate::host::{Host, Marker};
use crate::keeper::{KeeperFiles, LaunchFile, Started, VERSION};

/// How a process driver is set up.
#[derive(Debug, Clone)]
pub struct ProcessDriverOptions {
    /// The node's data folder, locked by this agent.
    pub folder: PathBuf,
    /// The fleet.
    pub fleet: FleetId,
    /// The node.
    pub node: NodeId,
    /// The program that has the `keep` command: the agent itself.
    pub keeper: PathBuf,
    /// Whether keepers get a systemd scope.
    pub scope: Scope,
    /// The host's identity.
    pub host: Host,
    /// How long a start may take until the keeper reports: 15 s are plenty, as it does not wait for the app.
    pub start_deadline: Duration,
}

impl ProcessDriverOptions {
    /// Usual options; the keeper is the running program itself.
    pub fn new(folder: PathBuf, fleet: FleetId, node: NodeId) -> io::Result<Self> {
        Ok(Self {
            folder,
            fleet,
            node,
            keeper: std::env::current_exe()?,
            scope: Scope::detect(),
            host: Host::default(),
            start_deadline: Duration::from_secs(15),
        })
    }
}

/// The process driver. It keeps nothing in memory: any number of them for the same folder see the same.
#[derive(Debug, Clone)]
pub struct ProcessDriver {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: ProcessDriverOptions,
    pub(super) files: KeeperFiles,
    pub(super) marker: Marker,
}

impl ProcessDriver {
    /// A driver for a node. Starts nothing.
    pub fn new(options: ProcessDriverOptions) -> Self {
        let files = KeeperFiles::new(options.folder.clone());
        let marker = Marker::new(&options.fleet, &options.node);
        Self { shared: Arc::new(Shared { options, files, marker }) }
    }

    /// The node's marker.
    pub fn marker(&self) -> &Marker {
        &self.shared.marker
    }

    /// The files that the driver shares with its keepers.
    pub fn files(&self) -> &KeeperFiles {
        &self.shared.files
    }

    /// Runs `change` while no keeper of this node can start the app: the place to change the ledger's ticket.
    /// Blocks for milliseconds, at most [`EXEC_PATIENCE`](crate::keeper::EXEC_PATIENCE).
    pub fn with_exec_lock<R>(&self, change: impl FnOnce() -> R) -> io::Result<R> {
        let _held = self.shared.files.exec_lock()?;
        Ok(change())
    }

    /// Runs something that blocks for milliseconds aside of the async threads.
    pub(super) async fn aside<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<R, DriverError> + Send + 'static,
    ) -> Result<R, DriverError> {
        let shared = Arc::clone(&self.shared);
        let work = tokio::task::spawn_blocking(move || work(&shared));
        work.await.unwrap_or_else(|error| Err(DriverError::io("look at processes")(io::Error::other(error))))
    }
}

impl Driver for ProcessDriver {
    async fn start(&self, plan: LaunchPlan) -> Result<(), DriverError> {
        let launch = plan.launch;
        self.aside(move |shared| {
            let file = LaunchFile {
                v: VERSION,
                launch: plan.launch,
                generation: plan.generation,
                marker: shared.marker.value().to_owned(),
                argv: plan.command.argv,
                env: plan.command.env,
                cwd: plan.command.cwd,
                grace_ms: u64::try_from(plan.grace.as_millis()).unwrap_or(u64::MAX),
                log: plan.log,
                boot_id_path: shared.options.host.boot_id.clone(),
            };
            shared.files.write_launch(&file).map_err(DriverError::io("write the launch file"))
        })
        .await?;
        match spawn_keeper(&self.shared.options, launch).await? {
            Started::Running { app } => {
                tracing::debug!(pid = app.pid, %launch, "app executed");
                Ok(())
            }
            Started::Refused { reason } => Err(DriverError::Refused(reason)),
        }
    }

    async fn stop(&self, grace: Duration, may_kill: bool) -> Result<StopOutcome, DriverError> {
        stop::stop(self, grace, may_kill).await
    }

    async fn observe(&self) -> Result<AppSeen, DriverError> {
        self.aside(observe::observe).await
    }

    async fn changed(&self, seen: &AppSeen) {
        watch::changed(self, seen).await;
    }
}
