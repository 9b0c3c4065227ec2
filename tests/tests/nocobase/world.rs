//! The fleet that the scenarios share, and its two witnesses.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use soloist_demo::monitor::{Monitor, MonitorOptions, Process, Recording, Window, is_nocobase};
use soloist_tests::harness::{Cli, Daemon, Place, Poller, bin, get, get_json, kill_marked, until, whole};
use soloist_tests::witness::{DatabaseWitness, Sightings, Tolerance, disagreements};

use crate::server::Server;

/// The version under test.
pub(crate) const VERSION: &str = "2.2.15";
/// Number of nodes.
pub(crate) const NODES: usize = 3;

/// Shorter timeouts than a fleet has by itself.
pub(crate) const TIMEOUTS: &str =
    "lease = \"6s\"\naccept_timeout = \"10s\"\ncontact_timeout = \"8s\"\ngather_timeout = \"10s\"\n";

/// Everything that the scenarios use.
pub(crate) struct World {
    /// The server that the fleet's database is on.
    pub(crate) server: Server,
    /// The quick start's folder.
    pub(crate) lab: PathBuf,
    root: PathBuf,
    /// Where the code of the version under test is.
    pub(crate) cache: PathBuf,
    /// The command line.
    pub(crate) cli: Cli,
    /// Coordinators by member id less one.
    pub(crate) members: Vec<Option<Daemon>>,
    /// Agents by node number less one.
    pub(crate) agents: Vec<Option<Daemon>>,
    monitor: Option<Monitor>,
    witness: Option<DatabaseWitness>,
    _poller: Poller,
    boots: u32,
}

/// What both witnesses saw during a scenario.
pub(crate) struct Seen {
    /// Process trees.
    pub(crate) processes: Recording,
    /// Database sessions.
    pub(crate) sessions: Sightings,
    /// How far apart they may be.
    pub(crate) tolerance: Tolerance,
    /// When both clocks were zero, by the wall clock in milliseconds.
    epoch_wall_ms: u64,
}

impl World {
    /// Prepares the lab: packages, NocoBase, the database's server, Redis, configurations. Starts neither coordinators nor
    /// agents.
    pub(crate) fn new(server: Server) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("the tests lie in the repository")
            .to_owned();
        let cache =
            std::env::var_os("SOLOIST_NOCOBASE_CACHE").map_or_else(|| root.join(".cache"), PathBuf::from);
        let lab = root.join(".cache").join(server.folder);
        let endpoints: Vec<String> =
            (1..=3).map(|at| format!("127.0.0.1:{}", 7400 + server.offset + at)).collect();
        let cli = Cli {
            program: bin("soloist"),
            endpoints: endpoints.join(","),
            fleet: server.fleet.into(),
            place: Place::default(),
        };
        let agents: Vec<u16> = (1..=3).map(|at| 7410 + server.offset + at).collect();
        let mut world = Self {
            server,
            lab,
            root,
            cache,
            cli,
            members: (0..3).map(|_| None).collect(),
            agents: (0..NODES).map(|_| None).collect(),
            monitor: None,
            witness: None,
            _poller: Poller::start(&agents),
            boots: 1,
        };
        world.down();
        world.quickstart(&["--prepare"]);
        world.lab = world.lab.canonicalize().expect("the quick start made its folder");
        world.adapt();
        world
    }

    fn quickstart(&self, args: &[&str]) {
        let folder = bin("soloist").parent().expect("programs lie in a folder").to_owned();
        let (server, offset) = (self.server, self.server.offset.to_string());
        let status = Command::new(self.root.join("deploy/quickstart.sh"))
            .args(args)
            .args(["--version", VERSION, "--database", server.name(), "--fleet", server.fleet])
            .args(["--port-offset", &offset, "--dir"])
            .arg(&self.lab)
            .arg("--cache")
            .arg(&self.cache)
            .arg("--bin")
            .arg(folder)
            .stdin(Stdio::null())
            .status()
            .expect("the quick start can be run");
        assert!(status.success(), "deploy/quickstart.sh {args:?} failed");
    }

    fn down(&self) {
        if self.lab.exists() {
            self.quickstart(&["--down"]);
        }
    }

    /// Gives the agents a boot id that a test can change and a program for a check, and the coordinators short timeouts.
    fn adapt(&self) {
        let save = |path: &Path, text: String| std::fs::write(path, text).expect("the lab can be written");
        let read = |path: &Path| std::fs::read_to_string(path).expect("the quick start wrote it");
        let boot = self.lab.join("boot-id");
        save(&boot, "boot-1\n".into());
        for at in 1..=NODES {
            let path = self.lab.join(format!("etc/agent-{at}.toml"));
            let line = format!(
                "boot_id_file = \"{}\"\n\n[checks]\nsmoke = [\"true\"]\n\n[release]\n",
                boot.display()
            );
            // One node makes its backups as carefully as it can.
            let backup =
                if at == 2 { "\n[backup]\nuploads = \"presync\"\nverify_restore = true\n" } else { "" };
            save(&path, read(&path).replacen("\n[release]\n", &line, 1) + backup);
        }
        for at in 1..=3 {
            let path = self.lab.join(format!("etc/coordinator-{at}.toml"));
            save(&path, read(&path) + "\n[fleet_defaults]\n" + TIMEOUTS);
        }
    }

    /// Starts both witnesses.
    pub(crate) fn begin(&mut self) {
        let (fleet, lab) = (self.server.fleet, self.lab.join("nodes").to_string_lossy().into_owned());
        let options = MonitorOptions::new(is_nocobase).labelled(move |process| label(process, fleet, &lab));
        self.monitor = Some(Monitor::start(options).expect("the process table can be watched"));
        let witness = DatabaseWitness::start(self.server.witness());
        self.witness = Some(witness.expect("the database can be watched"));
    }

    /// Ends both witnesses.
    pub(crate) fn end(&mut self) {
        self.monitor = None;
        self.witness = None;
    }

    /// What the witnesses have seen; they must agree.
    pub(crate) fn seen(&self) -> Seen {
        let monitor = self.monitor.as_ref().expect("a scenario has begun");
        let processes = monitor.so_far().only(|interval| interval.label != "elsewhere");
        let mut sessions = self.witness.as_ref().expect("a scenario has begun").so_far();
        // An agent's work on a backup is no app.
        sessions.sessions.retain(|found| !found.application.starts_with("soloist-backup-"));
        let age = monitor.epoch().elapsed();
        let epoch_wall_ms = wall_ms() - u64::try_from(age.as_millis()).expect("a test is short");
        Seen { processes, sessions, tolerance: Tolerance::default(), epoch_wall_ms }
    }

    /// A node's app port, by node number less one.
    pub(crate) fn app_port(&self, at: usize) -> u16 {
        13001 + self.server.offset + u16::try_from(at).expect("few nodes")
    }

    /// A node's agent's HTTP port.
    pub(crate) fn agent_port(&self, at: usize) -> u16 {
        7411 + self.server.offset + u16::try_from(at).expect("few nodes")
    }

    /// Starts what is missing of coordinators.
    pub(crate) fn start_members(&mut self, which: &[usize]) {
        for at in which {
            let config = self.lab.join(format!("etc/coordinator-{}.toml", at + 1));
            let log = self.lab.join(format!("log/soloist-coordinator-{}.log", at + 1));
            let config = config.to_string_lossy().into_owned();
            self.members[*at].get_or_insert_with(|| {
                Daemon::start(&bin("soloist-coordinator"), &["--config", &config], &log)
            });
        }
    }

    /// Starts an agent. Programs in `bin` of the lab go before others of their name.
    pub(crate) fn start_agent(&mut self, at: usize) {
        let others = std::env::var("PATH").expect("the test has a PATH");
        self.start_agent_in(at, &format!("{}:{others}", self.lab.join("bin").display()));
    }

    /// Starts an agent that finds programs in these folders.
    pub(crate) fn start_agent_in(&mut self, at: usize, path: &str) {
        let config = self.lab.join(format!("etc/agent-{}.toml", at + 1));
        let log = self.lab.join(format!("log/soloist-agent-{}.log", at + 1));
        let config = config.to_string_lossy().into_owned();
        let path = format!("PATH={path}");
        let program = bin("soloist-agent").to_string_lossy().into_owned();
        let args = [&*path, &*program, "--config", &*config];
        self.agents[at].get_or_insert_with(|| Daemon::start(Path::new("env"), &args, &log));
    }

    /// Starts everything of Soloist that does not run.
    pub(crate) fn start_soloist(&mut self) {
        self.start_members(&[0, 1, 2]);
        (0..NODES).for_each(|at| self.start_agent(at));
        self.until("three enrolled agents", 60, |status| {
            status["nodes"].as_array().is_some_and(|nodes| nodes.len() == NODES)
        });
    }

    /// Makes sure that a scenario begins with three nodes that serve and a free lock.
    pub(crate) fn ensure_whole(&mut self) {
        self.start_soloist();
        if self.cli.status().is_some_and(|status| status["active"] == false) {
            self.install();
        }
        self.until_whole();
    }

    /// The first start.
    pub(crate) fn install(&self) {
        let _ = self.cli.run(&["start", "--install", "--nodes", "node-1,node-2,node-3"]).expect(0);
    }

    /// Waits until the status satisfies the condition.
    pub(crate) fn until(&self, what: &str, secs: u64, condition: impl Fn(&Value) -> bool) -> Value {
        let state = || format!("{}\n{}", self.cli.run(&["status"]).stdout, self.logs());
        until(what, Duration::from_secs(secs), state, || self.cli.status().filter(|status| condition(status)))
    }

    /// Waits until every node serves and the lock is free.
    pub(crate) fn until_whole(&self) -> Value {
        self.until("the whole fleet serving", 180, |status| whole(status, NODES))
    }

    /// The member that leads, by id less one.
    pub(crate) fn leader(&self) -> usize {
        let find =
            || usize::try_from(self.cli.status()?["freshness"]["leader"].as_u64()?).ok()?.checked_sub(1);
        until("a leader", Duration::from_secs(20), || self.logs(), find)
    }

    /// One value from a database.
    pub(crate) fn sql(&self, database: &str, query: &str) -> String {
        self.server.sql(database, query)
    }

    /// Settings of a node by hand, for the lab's `lab_env_file`.
    pub(crate) fn by_hand(&self, port: u16, database: &str) -> String {
        let (server, redis) = (self.server, 16379 + self.server.offset);
        format!(
            "APP_PORT={port} DB_DIALECT={} DB_PORT={} DB_DATABASE={database} REDIS_PORT={redis}",
            server.name(),
            server.port()
        )
    }

    /// A command of the lab's shell library.
    pub(crate) fn lab(&self, script: &str) -> Command {
        let text = format!(
            "source '{}/deploy/lab/lab.sh'; lab_init '{}'; {script}",
            self.root.display(),
            self.lab.display()
        );
        let mut command = Command::new("bash");
        command.args(["-c", &text]).stdin(Stdio::null());
        command
    }

    /// Runs a command of the lab's shell library to its end.
    pub(crate) fn lab_run(&self, script: &str) -> String {
        let output = self.lab(script).output().expect("bash can be run");
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Whether a node has loaded plugin-map, by its own route.
    pub(crate) fn map_is_loaded(&self, at: usize) -> bool {
        get(self.app_port(at), "/api/map-configuration:get?type=amap")
            .is_some_and(|(status, _)| status != 404)
    }

    /// The main process of a node's app, as its agent knows it.
    pub(crate) fn app_pids(&self, at: usize) -> Vec<u64> {
        let status = get_json(self.agent_port(at), "/status").unwrap_or_default();
        status["pids"]
            .as_array()
            .map(|pids| pids.iter().filter_map(Value::as_u64).collect())
            .unwrap_or_default()
    }

    /// The entry in the environment of every process of a node's app.
    pub(crate) fn marker(&self, at: usize) -> String {
        format!("SOLOIST_NODE={}/node-{}", self.server.fleet, at + 1)
    }

    /// As a power cut: everything of Soloist and every app is killed at once, and the boot id changes.
    pub(crate) fn power_cut(&mut self) {
        for daemon in self.agents.iter_mut().chain(self.members.iter_mut()) {
            if let Some(mut daemon) = daemon.take() {
                daemon.kill();
            }
        }
        (0..NODES).for_each(|at| kill_marked(&self.marker(at)));
        self.boots += 1;
        std::fs::write(self.lab.join("boot-id"), format!("boot-{}\n", self.boots))
            .expect("the lab can be written");
    }

    /// Events with their wall clock, oldest first.
    pub(crate) fn events(&self) -> Vec<Value> {
        let output = self.cli.run(&["events", "-o", "json"]).expect(0);
        output.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The ends of all logs.
    pub(crate) fn logs(&self) -> String {
        let mut text = String::new();
        for (kind, list) in [("coordinator", &self.members), ("agent", &self.agents)] {
            for (at, daemon) in list.iter().enumerate() {
                let log = daemon.as_ref().map(Daemon::log).unwrap_or_default();
                let lines: Vec<&str> = log.lines().filter(|line| !line.contains("openraft")).collect();
                let end = lines[lines.len().saturating_sub(10)..].join("\n");
                text += &format!("--- {kind}-{}\n{end}\n", at + 1);
            }
        }
        text
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.agents.clear();
        self.members.clear();
        (0..NODES).for_each(|at| kill_marked(&self.marker(at)));
        self.end();
        self.down();
    }
}

impl Seen {
    /// The time between two moments of the wall clock, as a window of both witnesses.
    pub(crate) fn window(&self, from_ms: u64, to_ms: u64) -> Window {
        let since = |ms: u64| Duration::from_millis(ms.saturating_sub(self.epoch_wall_ms));
        Window { from: since(from_ms), to: since(to_ms) }
    }

    /// Both witnesses must agree, and in the window exactly one tree ran, that of `node`, or none.
    pub(crate) fn alone(&self, window: Window, node: Option<&str>) {
        self.agree();
        let labels = self.processes.labels(window);
        let most = self.processes.max_concurrent(window);
        let sessions = self.sessions.nodes(window);
        match node {
            Some(node) => {
                assert_eq!(
                    (most, labels.as_slice()),
                    (1, [node].as_slice()),
                    "{:?}",
                    self.processes.timeline(window, 80)
                );
                assert_eq!(
                    sessions.into_iter().collect::<Vec<_>>(),
                    [node],
                    "database sessions while {node} was alone"
                );
            }
            None => {
                assert!(sessions.is_empty(), "database sessions of {sessions:?} while all were stopped");
                assert!(most <= 1, "{}", self.processes.timeline(window, 80));
            }
        }
    }

    /// Both witnesses must agree.
    pub(crate) fn agree(&self) {
        let nodes = self.processes.only(|interval| interval.label.starts_with("node-"));
        let found = disagreements(&nodes, &self.sessions, self.tolerance);
        assert!(found.is_empty(), "the witnesses disagree: {found:?}");
    }
}

/// Wall clock in milliseconds since 1970.
pub(crate) fn wall_ms() -> u64 {
    let past = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    u64::try_from(past.as_millis()).expect("milliseconds fit")
}

/// The node of a process: by its marker, else by the folder it runs in.
fn label(process: &Process, fleet: &str, nodes: &str) -> String {
    if let Some(marker) =
        process.variable("SOLOIST_NODE").and_then(|marker| marker.strip_prefix(&format!("{fleet}/")))
    {
        return marker.to_owned();
    }
    let folder = process
        .folder
        .as_ref()
        .and_then(|folder| folder.to_str()?.strip_prefix(nodes).map(ToOwned::to_owned));
    match folder {
        Some(rest) => format!("by-hand-{}", rest.trim_matches('/').split('/').next().unwrap_or_default()),
        None => "elsewhere".to_owned(),
    }
}

/// Waits for something that is not in the status.
pub(crate) fn wait(what: &str, secs: u64, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    until(
        what,
        Duration::from_secs(secs),
        || format!("after {} s", began.elapsed().as_secs()),
        || condition().then_some(()),
    );
}
