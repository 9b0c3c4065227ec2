//! The stage: a temporary folder, ports, and the processes of the play. Dropping it ends and removes all of them.

use std::{
    fs::{self, File},
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use std::io::Write as _;

use rustix::process::{Pid, Signal, kill_process_group};
use soloist_core::ids::FleetId;
use tempfile::TempDir;

use super::{
    files::{AgentFile, COORDINATOR, CREDENTIAL},
    ports, sweep,
};
use crate::{
    client::Client,
    error::{CtlError, Result},
    ui::Ui,
};

/// The nodes.
pub(super) const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
/// How long one request of the demo may take.
const TIMEOUT: Duration = Duration::from_secs(12);

/// The processes and what they need.
pub(super) struct Stage {
    /// Its name is drawn: agents know an app by fleet and node, and two demos on one machine must not know each other's.
    fleet: FleetId,
    program: PathBuf,
    coordinator: PathBuf,
    agent: PathBuf,
    /// `None` once the folder is to be kept.
    folder: Option<TempDir>,
    path: PathBuf,
    ports: [u16; 12],
    coordinators: [Option<Child>; 3],
    agents: Vec<Child>,
}

impl Stage {
    /// Finds the programs, makes the folder, and chooses ports.
    pub(super) fn new() -> Result<Stage> {
        let program = std::env::current_exe()
            .map_err(|error| CtlError::failed(format!("cannot find this program's own file: {error}")))?;
        let sibling = |name: &str| {
            let file = program.with_file_name(name);
            if file.is_file() {
                return Ok(file);
            }
            let text = format!("the demo needs {name} beside {}", program.display());
            Err(CtlError::failed(text).hint("build all programs: cargo build --release"))
        };
        let (coordinator, agent) = (sibling("soloist-coordinator")?, sibling("soloist-agent")?);
        let folder = tempfile::Builder::new().prefix("soloist-demo-").tempdir().map_err(file_error)?;
        let path = folder.path().canonicalize().map_err(file_error)?;
        let stage = Stage {
            fleet: fleet()?,
            program,
            coordinator,
            agent,
            folder: Some(folder),
            path,
            ports: ports::free()?,
            coordinators: [None, None, None],
            agents: Vec::new(),
        };
        stage.write_files()?;
        Ok(stage)
    }

    fn write_files(&self) -> Result<()> {
        for folder in NODES.iter().map(|node| format!("{node}-app")).chain(["storage".to_owned()]) {
            fs::create_dir(self.path.join(folder)).map_err(file_error)?;
        }
        fs::write(self.path.join("coordinator.toml"), COORDINATOR).map_err(file_error)?;
        let mut credential = File::options();
        let credential = credential.write(true).create_new(true).mode(0o600);
        let mut credential = credential.open(self.path.join("credential")).map_err(file_error)?;
        credential.write_all(CREDENTIAL.as_bytes()).map_err(file_error)?;
        let coordinators = self.endpoints();
        for (at, node) in NODES.into_iter().enumerate() {
            let (program, folder) = (&self.program, &self.path);
            let (http, app) = (self.port(6 + at), self.port(9 + at));
            let file = AgentFile {
                fleet: self.fleet.as_str(),
                node,
                program,
                folder,
                coordinators: &coordinators,
                http,
                app,
            };
            fs::write(self.path.join(format!("{node}.toml")), file.toml()?).map_err(file_error)?;
        }
        Ok(())
    }

    fn port(&self, at: usize) -> u16 {
        self.ports.get(at).copied().unwrap_or_default()
    }

    /// Where the coordinators answer.
    pub(super) fn endpoints(&self) -> Vec<String> {
        self.ports.iter().take(3).map(|port| format!("127.0.0.1:{port}")).collect()
    }

    /// The fleet.
    pub(super) fn fleet(&self) -> &FleetId {
        &self.fleet
    }

    /// The folder of everything.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file that plays the database.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join("database.json")
    }

    /// A client of the coordinators.
    pub(super) fn client(&self) -> Result<Client> {
        Client::new(&self.endpoints(), TIMEOUT)
    }

    /// Starts a coordinator, by its id from 1.
    pub(super) fn start_coordinator(&mut self, id: usize) -> Result<()> {
        let at = id.saturating_sub(1);
        let mut command = Command::new(&self.coordinator);
        command.arg("--config").arg(self.path.join("coordinator.toml"));
        command.arg("--id").arg(id.to_string());
        command.arg("--data").arg(self.path.join(format!("coordinator-{id}")));
        command.arg("--listen").arg(format!("127.0.0.1:{}", self.port(at)));
        command.arg("--http").arg(format!("127.0.0.1:{}", self.port(3 + at)));
        for (member, address) in self.endpoints().iter().enumerate() {
            command.arg("--member").arg(format!("{}={address}", member + 1));
        }
        let child = self.start(command, &format!("coordinator-{id}"))?;
        if let Some(place) = self.coordinators.get_mut(at) {
            *place = Some(child);
        }
        Ok(())
    }

    /// Starts the agent of a node.
    pub(super) fn start_agent(&mut self, node: &str) -> Result<()> {
        let mut command = Command::new(&self.agent);
        command.arg("--config").arg(self.path.join(format!("{node}.toml")));
        let child = self.start(command, node)?;
        self.agents.push(child);
        Ok(())
    }

    /// Kills a coordinator as a power cut would.
    pub(super) fn kill_coordinator(&mut self, id: usize) -> Result<()> {
        let child = self.coordinators.get_mut(id.saturating_sub(1)).and_then(Option::take);
        let Some(mut child) = child else { return Err(CtlError::failed(format!("there is no member {id}"))) };
        child.kill().and_then(|()| child.wait().map(drop)).map_err(file_error)
    }

    fn start(&self, mut command: Command, name: &str) -> Result<Child> {
        let log = File::options().create(true).append(true).open(self.path.join(format!("{name}.log")));
        let log = log.map_err(file_error)?;
        let both = log.try_clone().map_err(file_error)?;
        // What is set around the demo is not meant for its parts.
        let foreign = std::env::vars_os().map(|(name, _)| name);
        for name in foreign.filter(|name| name.to_str().is_some_and(|name| name.starts_with("SOLOIST_"))) {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(log).stderr(both).current_dir(&self.path).process_group(0);
        command.spawn().map_err(|error| CtlError::failed(format!("cannot start {name}: {error}")))
    }

    /// The first of the processes that should run and does not, with the end of its log.
    pub(super) fn fallen(&mut self) -> Option<String> {
        let path = self.path.clone();
        let coordinators = self
            .coordinators
            .iter_mut()
            .enumerate()
            .map(|(at, child)| (format!("coordinator-{}", at + 1), child.as_mut()));
        let agents =
            NODES.iter().zip(&mut self.agents).map(|(node, child)| ((*node).to_owned(), Some(child)));
        for (name, child) in coordinators.chain(agents) {
            if let Some(status) = child.and_then(|child| child.try_wait().ok().flatten()) {
                let log = fs::read_to_string(path.join(format!("{name}.log"))).unwrap_or_default();
                let last = log.lines().last().unwrap_or_default();
                return Some(format!("{name} has ended ({status}): {last}"));
            }
        }
        None
    }

    /// Keeps the folder with the logs; the processes end nevertheless.
    pub(super) fn keep_folder(&mut self) -> PathBuf {
        if let Some(folder) = self.folder.take() {
            let _ = folder.keep();
        }
        self.path.clone()
    }

    /// Says how to talk to it.
    pub(super) fn explain(&self, ui: Ui) -> Result<()> {
        let program = self.program.display();
        ui.text(&format!(
            "\nIt goes on running. In another shell:\n\n  export SOLOIST_ENDPOINTS={} SOLOIST_FLEET={}\n  {program} status\n  \
             {program} plugin list\n  {program} run --solo -- sh -c 'env | grep SOLOIST_'\n\nLogs: {}\nCtrl-C here ends it \
             and leaves nothing behind.\n",
            self.endpoints().join(","),
            self.fleet,
            self.path.display(),
        ))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Agents first: they would start an app again.
        let children: Vec<Child> =
            self.agents.drain(..).chain(self.coordinators.iter_mut().filter_map(Option::take)).collect();
        for mut child in children {
            let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            // Each has a group of its own; who is gone already needs no signal.
            let _ = group.map(|group| kill_process_group(group, Signal::KILL));
            let _ = child.wait();
        }
        // Keepers and apps outlive their agents on purpose.
        if !sweep::sweep(&self.path) {
            Ui::new(crate::ui::Format::Table).note("some processes of the demo do not end; see ps");
        }
    }
}

fn fleet() -> Result<FleetId> {
    let random = uuid::Uuid::new_v4().simple().to_string();
    let short: String = random.chars().take(4).collect();
    FleetId::new(format!("demo-{short}")).map_err(|error| CtlError::failed(error.to_string()))
}

fn file_error(error: std::io::Error) -> CtlError {
    CtlError::failed(format!("the demo's folder: {error}"))
}
