//! What one running stand-in process knows: its phase, what it has loaded, and its registration on the database.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;

use super::database::{Content, Database, ProcessRow};
use super::options::StandinOptions;
use super::sockets::Sockets;

/// Where the process stands, as its health endpoint tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// A command runs (`start`, `pm.enable`, …); the message moves.
    Commanding { command: &'static str, message: String },
    /// It serves.
    Running,
    /// A command failed; the process stays like this until it is stopped.
    Failed { message: String },
    /// It was told to stop and drains.
    Stopped,
}

#[derive(Debug)]
struct Shared {
    phase: Phase,
    loaded: BTreeSet<String>,
    own: ProcessRow,
}

/// One stand-in process.
#[derive(Debug)]
pub(super) struct App {
    pub(super) options: StandinOptions,
    /// The version of the code that this process has loaded; the disk may hold a later one by now.
    pub(super) code: String,
    pub(super) database: Database,
    pub(super) sockets: Sockets,
    shared: Mutex<Shared>,
}

impl App {
    pub(super) fn new(options: StandinOptions) -> anyhow::Result<Self> {
        let own = ProcessRow::own(&options.node)?;
        let code = options.files.code()?;
        let phase = Phase::Commanding { command: "start", message: "app is preparing".to_owned() };
        let database = Database::new(&options.files.database);
        Ok(Self {
            options,
            code,
            database,
            sockets: Sockets::default(),
            shared: Mutex::new(Shared { phase, loaded: BTreeSet::new(), own }),
        })
    }

    pub(super) fn phase(&self) -> Phase {
        self.shared().phase.clone()
    }

    /// Moves to `phase`. Nothing follows [`Phase::Stopped`].
    pub(super) fn set_phase(&self, phase: Phase) {
        let mut shared = self.shared();
        if shared.phase != Phase::Stopped {
            shared.phase = phase;
        }
    }

    /// Shows the progress of a command.
    pub(super) fn progress(&self, command: &'static str, message: impl Into<String>) {
        self.set_phase(Phase::Commanding { command, message: message.into() });
    }

    /// Begins a command if the process serves and does nothing else; says whether it did.
    pub(super) fn begin(&self, command: &'static str, message: String) -> bool {
        let mut shared = self.shared();
        let free = shared.phase == Phase::Running;
        if free {
            shared.phase = Phase::Commanding { command, message };
        }
        free
    }

    pub(super) fn is_loaded(&self, plugin: &str) -> bool {
        self.shared().loaded.contains(plugin)
    }

    pub(super) fn set_loaded(&self, plugins: impl IntoIterator<Item = String>) {
        self.shared().loaded = plugins.into_iter().collect();
    }

    pub(super) fn is_migrating(&self) -> bool {
        self.shared().own.migrating
    }

    /// Connects to the database, or meets the others on it again while migrating.
    pub(super) async fn register(self: &Arc<Self>, migrating: bool) -> anyhow::Result<()> {
        let own = {
            let mut shared = self.shared();
            shared.own.migrating = migrating;
            shared.own.clone()
        };
        let lines = self.update(move |content| content.register(&own)).await?;
        for line in lines {
            self.log(&format!("DAMAGE {line}"));
        }
        Ok(())
    }

    /// Disconnects from the database. A process that is killed never gets here: its entry goes stale.
    pub(super) async fn leave(self: &Arc<Self>) {
        let own = self.shared().own.clone();
        if let Err(error) = self.update(move |content| content.unregister(&own)).await {
            self.log(&format!("cannot disconnect: {error:#}"));
        }
    }

    /// Reads the database off the async threads, because a lock may have to be waited for.
    pub(super) async fn read(self: &Arc<Self>) -> anyhow::Result<Content> {
        let database = self.database.clone();
        tokio::task::spawn_blocking(move || database.read()).await.context("the database read was cut off")?
    }

    /// Changes the database off the async threads.
    pub(super) async fn update<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Content) -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        let database = self.database.clone();
        tokio::task::spawn_blocking(move || database.update(change))
            .await
            .context("the database write was cut off")?
    }

    /// One line for the log, which is stderr.
    pub(super) fn log(&self, text: &str) {
        eprintln!("stand-in {}: {text}", self.options.node);
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        // A panic elsewhere leaves these plain values in order.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
