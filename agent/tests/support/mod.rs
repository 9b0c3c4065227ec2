//! A node with a process driver and shell scripts as apps. Whatever a test started is killed when it ends.

#![allow(dead_code, reason = "each test program uses a part")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use soloist_agent::driver::{
    AppCommand, AppSeen, Driver, DriverError, LaunchPlan, ProcessDriver, ProcessDriverOptions, Scope,
};
use soloist_agent::host::{Host, Marker, ProcessId, scan_marked};
use soloist_agent::keeper::LogBounds;
use soloist_agent::ledger::{DataFolder, LedgerFile};
use soloist_core::agent::LaunchTicket;
use soloist_core::assignment::RunMode;
use soloist_core::ids::{FleetId, Generation, Launch, NodeId};

/// No wait in a test is longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// A node under test.
pub(crate) struct Node {
    pub(crate) temp: tempfile::TempDir,
    pub(crate) fleet: FleetId,
    pub(crate) node: NodeId,
    pub(crate) host: Host,
    pub(crate) driver: ProcessDriver,
    next: AtomicU64,
}

impl Node {
    /// A node with a fleet name of its own.
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let fleet = FleetId::new(format!("test-{}-{number}", std::process::id())).unwrap();
        let node = NodeId::new("n1").unwrap();
        let boot_id = temp.path().join("boot_id");
        std::fs::write(&boot_id, "boot-1\n").unwrap();
        let host = Host { boot_id, ..Host::default() };
        std::fs::create_dir(temp.path().join("data")).unwrap();
        let driver = make_driver(temp.path(), &fleet, &node, &host);
        Self { temp, fleet, node, host, driver, next: AtomicU64::new(1) }
    }

    /// A further driver, like that of a restarted agent.
    pub(crate) fn another_driver(&self) -> ProcessDriver {
        make_driver(self.temp.path(), &self.fleet, &self.node, &self.host)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.temp.path().join("data")
    }

    pub(crate) fn marker(&self) -> Marker {
        Marker::new(&self.fleet, &self.node)
    }

    pub(crate) fn marked(&self) -> Vec<ProcessId> {
        scan_marked(&self.marker()).unwrap()
    }

    /// Writes the ticket as an agent does: under the exec lock, synced.
    pub(crate) fn ticket(&self, launch: Option<Launch>) {
        self.driver.with_exec_lock(|| self.write_ticket(launch)).unwrap();
    }

    /// Writes the ticket; the caller holds the exec lock.
    pub(crate) fn write_ticket(&self, launch: Option<Launch>) {
        let boot = self.host.boot_id().unwrap();
        let folder = DataFolder::open(&self.data()).unwrap();
        let (mut file, _) = LedgerFile::open(&folder).unwrap();
        let mut ledger = file.ledger().clone();
        ledger.launch =
            launch.map(|launch| LaunchTicket { launch, mode: RunMode::Plain, boot, processes: None });
        file.store(ledger).unwrap();
    }

    /// A plan that runs a shell script; the script can write to `$OUT`.
    pub(crate) fn plan(&self, script: &str) -> LaunchPlan {
        let launch = Launch(self.next.fetch_add(1, Ordering::Relaxed));
        let path = self.temp.path().join(format!("app-{launch}.sh"));
        std::fs::write(&path, script).unwrap();
        let env = [
            ("PATH".to_owned(), std::env::var("PATH").unwrap()),
            ("OUT".to_owned(), self.temp.path().display().to_string()),
            (Marker::VARIABLE.to_owned(), self.marker().value().to_owned()),
        ];
        LaunchPlan {
            launch,
            generation: Some(Generation(launch.0 + 100)),
            command: AppCommand {
                argv: vec!["/bin/sh".into(), path.display().to_string()],
                env: env.into(),
                cwd: self.temp.path().into(),
                processes: 1,
            },
            grace: Duration::from_secs(1),
            log: LogBounds::default(),
        }
    }

    /// Starts a script with a ticket.
    pub(crate) async fn start(&self, script: &str) -> Result<Launch, DriverError> {
        let plan = self.plan(script);
        let launch = plan.launch;
        self.ticket(Some(launch));
        self.driver.start(plan).await.map(|()| launch)
    }

    pub(crate) async fn seen(&self) -> AppSeen {
        self.driver.observe().await.unwrap()
    }

    pub(crate) async fn main(&self) -> ProcessId {
        match self.seen().await {
            AppSeen::Running { main: Some(main), .. } => main,
            other => panic!("no main process: {other:?}"),
        }
    }

    pub(crate) fn keeper(&self) -> ProcessId {
        self.driver.files().read_keeper().unwrap().unwrap().keeper
    }

    /// Waits until the app wrote this file under `$OUT`.
    pub(crate) async fn file(&self, name: &str) -> String {
        let path = self.temp.path().join(name);
        let text = until(|| std::fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n'))).await;
        text.trim().to_owned()
    }
}

fn make_driver(temp: &Path, fleet: &FleetId, node: &NodeId, host: &Host) -> ProcessDriver {
    ProcessDriver::new(ProcessDriverOptions {
        folder: temp.join("data"),
        fleet: fleet.clone(),
        node: node.clone(),
        keeper: env!("CARGO_BIN_EXE_soloist-agent").into(),
        scope: Scope::None,
        host: host.clone(),
        start_deadline: PATIENCE,
    })
}

impl Drop for Node {
    fn drop(&mut self) {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let left = scan_marked(&self.marker()).unwrap_or_default();
            for id in &left {
                let _ = id.signal(Signal::KILL);
            }
            if left.is_empty() {
                break;
            }
        }
        if let Ok(Some(record)) = self.driver.files().read_keeper() {
            let _ = record.keeper.signal(Signal::KILL);
        }
    }
}

/// Waits for a condition.
pub(crate) async fn until<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "waited too long");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
