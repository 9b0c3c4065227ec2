//! A whole system on loopback: three coordinators, agents, and the stand-in app.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{Cli, Daemon, Net, Place, Poller, bin, free_ports, get_json_at, kill_marked, until};

/// The host of clients in a network of one's own.
pub const CLIENT: &str = "c";

/// How a fleet is set up.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// How many coordinators.
    pub members: usize,
    /// How many nodes.
    pub nodes: usize,
    /// Extra arguments of every stand-in app.
    pub app_args: Vec<String>,
    /// Timeouts, as lines of the table `[fleet_defaults]`.
    pub policy: String,
    /// More tables of every agent's configuration; `DATABASE` in it stands for the stand-in's database.
    pub agent_tables: String,
    /// More keys of every agent's table `[app]`.
    pub app_keys: String,
    /// Versions of the code that lie ready on every node, the first of them current; none for a node without release folders.
    pub releases: Vec<String>,
    /// The program that fetches another version, as a list in TOML.
    pub fetch: String,
    /// Places for coordinators that join later.
    pub joining: usize,
    /// More keys of every coordinator's configuration.
    pub member_keys: String,
    /// The network with a host for each member (`m1`…), each node (`n1`…) and the clients; loopback if there is none.
    pub net: Option<Arc<Net>>,
}

impl Default for FleetOptions {
    fn default() -> Self {
        Self {
            members: 3,
            nodes: 3,
            app_args: vec!["--start-delay-ms".into(), "600".into(), "--task-delay-ms".into(), "500".into(), "--migrate-delay-ms".into(), "800".into()],
            policy: "contact_timeout = \"4s\"\npre_grant_timeout = \"60s\"\naccept_timeout = \"5s\"\nlease = \"6s\"\n\
                     gather_timeout = \"5s\"\nstart_timeout = \"30s\"\nstop_timeout = \"20s\"\ntask_timeout = \"30s\"\n"
                .into(),
            agent_tables: String::new(),
            app_keys: String::new(),
            releases: Vec::new(),
            fetch: "[]".into(),
            joining: 0,
            member_keys: String::new(),
            net: None,
        }
    }
}

/// A running system. Everything ends when it is dropped.
#[derive(Debug)]
pub struct Fleet {
    /// Its folder.
    pub folder: PathBuf,
    /// Name of the fleet, unique on this machine.
    pub name: String,
    /// The coordinators, by member id less one; `None` while one is down.
    pub members: Vec<Option<Daemon>>,
    /// The agents, by node number less one.
    pub agents: Vec<Option<Daemon>>,
    /// gRPC ports of the coordinators.
    pub grpc: Vec<u16>,
    /// HTTP ports of the coordinators.
    pub http: Vec<u16>,
    /// HTTP ports of the agents.
    pub agent_http: Vec<u16>,
    /// Ports of the apps.
    pub apps: Vec<u16>,
    founders: usize,
    /// The network, unless it is the loopback.
    pub net: Option<Arc<Net>>,
    poller: Option<Poller>,
    _temp: tempfile::TempDir,
}

impl Fleet {
    /// Starts coordinators and agents; nothing of the app runs yet.
    ///
    /// # Panics
    /// When they do not come up.
    #[must_use]
    pub fn start(options: &FleetOptions) -> Self {
        let mut fleet = Self::prepare(options);
        for member in 0..options.members {
            fleet.start_member(member);
        }
        for node in 0..options.nodes {
            fleet.start_agent(node);
        }
        fleet.until("the enrolment of every agent", 30, |status| {
            status["nodes"].as_array().is_some_and(|nodes| nodes.len() == options.nodes)
        });
        fleet
    }

    /// Writes the configuration; starts nothing.
    ///
    /// # Panics
    /// When the folder cannot be written.
    #[must_use]
    pub fn prepare(options: &FleetOptions) -> Self {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let folder = temp.path().to_owned();
        let members = options.members + options.joining;
        let ports = free_ports(members * 2 + options.nodes * 2);
        let (grpc, rest) = ports.split_at(members);
        let (http, rest) = rest.split_at(members);
        let (agent_http, apps) = rest.split_at(options.nodes);
        let name = format!("t{}-{}", std::process::id(), ports[0]);
        let mut fleet = Self {
            name,
            members: (0..members).map(|_| None).collect(),
            agents: (0..options.nodes).map(|_| None).collect(),
            grpc: grpc.to_vec(),
            http: http.to_vec(),
            agent_http: agent_http.to_vec(),
            apps: apps.to_vec(),
            folder,
            founders: options.members,
            net: options.net.clone(),
            poller: None,
            _temp: temp,
        };
        fleet.write(options);
        let agents = (0..options.nodes).map(|at| fleet.agent_address(at)).collect();
        fleet.poller = Some(Poller::start_at(fleet.place(CLIENT), agents));
        fleet
    }

    fn address(&self, host: &str) -> IpAddr {
        self.net.as_ref().map_or(Ipv4Addr::LOCALHOST, |net| net.address(host)).into()
    }

    /// Where the programs of a host run.
    #[must_use]
    pub fn place(&self, host: &str) -> Place {
        self.net.as_ref().map(|net| net.place(host)).unwrap_or_default()
    }

    /// The gRPC address of a member, by its id less one.
    #[must_use]
    pub fn member_address(&self, at: usize) -> SocketAddr {
        SocketAddr::new(self.address(&format!("m{}", at + 1)), self.grpc[at])
    }

    /// The HTTP address of an agent, by node number less one.
    #[must_use]
    pub fn agent_address(&self, at: usize) -> SocketAddr {
        SocketAddr::new(self.address(&format!("n{}", at + 1)), self.agent_http[at])
    }

    /// Of those that the cluster begins with.
    fn members_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        (0..self.founders).map(|at| self.member_address(at))
    }

    fn write(&self, options: &FleetOptions) {
        let save = |name: String, text: &str| {
            std::fs::write(self.folder.join(name), text)
                .expect("a file in a temporary folder can be written");
        };
        let mut list = "[members]\n".to_owned();
        for (at, address) in self.members_addresses().enumerate() {
            let _ = writeln!(list, "{} = \"{address}\"", at + 1);
        }
        for at in 0..self.grpc.len() {
            let text = format!(
                "id = {}\ndata = \"{}\"\nlisten = \"{}\"\nhttp = \"127.0.0.1:{}\"\n{}{}\n[fleet_defaults]\n{}",
                at + 1,
                self.folder.join(format!("member-{}", at + 1)).display(),
                self.member_address(at),
                self.http[at],
                options.member_keys,
                if at < options.members { &list } else { "join = true\n" },
                options.policy,
            );
            save(format!("coordinator-{}.toml", at + 1), &text);
        }
        let storage = self.folder.join("storage");
        std::fs::create_dir_all(&storage).expect("a folder in a temporary folder can be made");
        (1..=self.apps.len()).for_each(|number| save(format!("boot-id-{number}"), "boot-1\n"));
        self.write_credential();
        for at in 0..self.apps.len() {
            save(format!("agent-{}.toml", at + 1), &{
                let database = self.folder.join("database.json").to_string_lossy().into_owned();
                let mut tables = options.agent_tables.replace("DATABASE", &database);
                let mut args = options.app_args.clone();
                if let Some(first) = options.releases.first() {
                    options.releases.iter().for_each(|version| self.add_release(at, version));
                    std::os::unix::fs::symlink(self.releases(at).join(first), self.current(at))
                        .expect("a link in a temporary folder can be made");
                    args.extend([
                        "--code-file".to_owned(),
                        self.current(at).join("version").display().to_string(),
                    ]);
                    tables += &format!(
                        "\n[release]\nfolder = \"{}\"\ncurrent = \"{}\"\nversion_file = \"version\"\nfetch = {}\n",
                        self.releases(at).display(),
                        self.current(at).display(),
                        options.fetch,
                    );
                }
                let routes = "[app.plugin_routes]";
                let config = self.agent_config(at, &storage, &args);
                config.replace(routes, &format!("{}{routes}", options.app_keys)) + &tables
            });
        }
    }

    /// The folder with a node's releases, by node number less one.
    #[must_use]
    pub fn releases(&self, at: usize) -> PathBuf {
        self.folder.join(format!("node-{}/releases", at + 1))
    }

    /// The link to a node's current release.
    #[must_use]
    pub fn current(&self, at: usize) -> PathBuf {
        self.folder.join(format!("node-{}/current", at + 1))
    }

    /// Puts a version of the stand-in's code on a node.
    ///
    /// # Panics
    /// When the folder cannot be written.
    pub fn add_release(&self, at: usize, version: &str) {
        let folder = self.releases(at).join(version);
        std::fs::create_dir_all(&folder).expect("a folder in a temporary folder can be made");
        std::fs::write(folder.join("version"), format!("{version}\n")).expect("a file can be written");
    }

    /// The version of a node's code.
    #[must_use]
    pub fn code(&self, at: usize) -> String {
        let text = std::fs::read_to_string(self.current(at).join("version")).unwrap_or_default();
        text.trim().to_owned()
    }

    fn write_credential(&self) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.folder.join("credential");
        std::fs::write(&path, "account = \"admin@nocobase.com\"\npassword = \"admin123\"\n")
            .expect("a file can be written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a mode can be set");
    }

    /// The configuration of one agent.
    #[must_use]
    pub fn agent_config(&self, at: usize, storage: &Path, app_args: &[String]) -> String {
        let program = bin("soloist");
        let database = self.folder.join("database.json");
        let (database, storage) = (database.to_string_lossy(), storage.to_string_lossy());
        let files = ["--database", &*database, "--storage", &*storage];
        let port = self.apps[at].to_string();
        let mut start = vec!["stand-in".to_owned(), "start".to_owned(), "--port".to_owned(), port];
        start.extend(files.iter().map(ToString::to_string));
        start.extend(app_args.iter().cloned());
        let mut facts: Vec<String> =
            ["stand-in", "facts"].iter().chain(files.iter()).map(ToString::to_string).collect();
        if let Some(code) = app_args.iter().position(|arg| arg == "--code-file") {
            facts.extend(app_args[code..].iter().take(2).cloned());
        }
        let list = |args: &[String]| {
            let all = std::iter::once(program.to_string_lossy().into_owned()).chain(args.iter().cloned());
            all.map(|arg| format!("\"{arg}\"")).collect::<Vec<_>>().join(", ")
        };
        let migrate: Vec<String> = start.iter().cloned().chain(["--quickstart".to_owned()]).collect();
        let coordinators =
            self.members_addresses().map(|address| format!("\"{address}\"")).collect::<Vec<_>>().join(", ");
        let folder = self.folder.join(format!("node-{}", at + 1));
        std::fs::create_dir_all(&folder).expect("a folder in a temporary folder can be made");
        format!(
            "fleet = \"{name}\"\nnode = \"node-{number}\"\ndata_dir = \"{data}\"\ncoordinators = [{coordinators}]\n\
             http = \"{http}\"\ngrace_secs = 5\nboot_id_file = \"{boot}\"\n\n[app]\nprofile = \"generic\"\n\
             command = [{plain}]\nmigrate_command = [{migrate}]\nfacts_command = [{facts}]\ncwd = \"{cwd}\"\n\
             api_url = \"http://127.0.0.1:{app}/api/\"\ncredential = \"{credential}\"\n\
             [app.plugin_routes]\n\"@nocobase/plugin-map\" = \"map-configuration:get?type=amap\"\n",
            name = self.name,
            number = at + 1,
            data = self.folder.join(format!("agent-{}", at + 1)).display(),
            http = self.agent_address(at),
            boot = self.boot_id(at).display(),
            plain = list(&start),
            migrate = list(&migrate),
            facts = list(&facts),
            cwd = folder.display(),
            app = self.apps[at],
            credential = self.folder.join("credential").display(),
        )
    }

    /// Starts a coordinator, by member id less one.
    pub fn start_member(&mut self, at: usize) {
        let config = self.folder.join(format!("coordinator-{}.toml", at + 1));
        let log = self.folder.join(format!("coordinator-{}.log", at + 1));
        let config = config.to_string_lossy().into_owned();
        self.members[at] = Some(Daemon::start_at(
            &self.place(&format!("m{}", at + 1)),
            &bin("soloist-coordinator"),
            &["--config", &config],
            &log,
        ));
    }

    /// Changes a coordinator's configuration, by member id less one; it counts from its next start on.
    ///
    /// # Panics
    /// When the file cannot be read or written.
    pub fn configure_member(&self, at: usize, change: impl FnOnce(String) -> String) {
        let path = self.folder.join(format!("coordinator-{}.toml", at + 1));
        let text = std::fs::read_to_string(&path).expect("the configuration can be read");
        std::fs::write(path, change(text)).expect("the configuration can be written");
    }

    /// Starts an agent, by node number less one.
    pub fn start_agent(&mut self, at: usize) {
        let config = self.folder.join(format!("agent-{}.toml", at + 1));
        let log = self.folder.join(format!("agent-{}.log", at + 1));
        let config = config.to_string_lossy().into_owned();
        self.agents[at] = Some(Daemon::start_at(
            &self.place(&format!("n{}", at + 1)),
            &bin("soloist-agent"),
            &["--config", &config],
            &log,
        ));
    }

    /// The command line of this system.
    #[must_use]
    pub fn cli(&self) -> Cli {
        let endpoints: Vec<String> =
            (0..self.grpc.len()).map(|at| self.member_address(at).to_string()).collect();
        let (program, fleet) = (bin("soloist"), self.name.clone());
        Cli { program, endpoints: endpoints.join(","), fleet, place: self.place(CLIENT) }
    }

    /// The id of the member at a place: its number, until a new member takes the place.
    #[must_use]
    pub fn member_id(&self, at: usize) -> u64 {
        let config = self.folder.join(format!("coordinator-{}.toml", at + 1));
        let text = std::fs::read_to_string(config).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("id = "));
        line.and_then(|id| id.parse().ok()).unwrap_or(0)
    }

    /// The place of the member that leads, if somebody knows it.
    #[must_use]
    pub fn known_leader(&self) -> Option<usize> {
        let leader = self.cli().status()?["freshness"]["leader"].as_u64()?;
        (0..self.members.len()).find(|at| self.member_id(*at) == leader)
    }

    /// The same.
    ///
    /// # Panics
    /// When nobody knows one within ten seconds.
    #[must_use]
    pub fn leader(&self) -> usize {
        until("a leader", Duration::from_secs(10), || self.logs(), || self.known_leader())
    }

    /// Waits until the status satisfies the condition, and gives it.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn until(&self, what: &str, secs: u64, condition: impl Fn(&Value) -> bool) -> Value {
        let cli = self.cli();
        let state = || format!("{}\n{}", cli.run(&["status"]).stdout, self.logs());
        until(what, Duration::from_secs(secs), state, || cli.status().filter(|status| condition(status)))
    }

    /// Waits until every node serves and the lock is free.
    pub fn until_whole(&self) {
        let count = self.apps.len();
        self.until("the whole fleet serving", 60, |status| whole(status, count));
    }

    /// The status of an agent, from itself.
    #[must_use]
    pub fn agent_status(&self, at: usize) -> Option<Value> {
        let address = self.agent_address(at);
        self.place(CLIENT).within(|| get_json_at(address, "/status"))
    }

    /// The stand-in's database.
    #[must_use]
    pub fn database(&self) -> Value {
        let text = std::fs::read_to_string(self.folder.join("database.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// The entry in the environment of every process of a node's app.
    #[must_use]
    pub fn marker(&self, at: usize) -> String {
        format!("SOLOIST_NODE={}/node-{}", self.name, at + 1)
    }

    /// The ends of all logs, for a failing test.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut logs = BTreeMap::new();
        for (kind, list) in [("coordinator", &self.members), ("agent", &self.agents)] {
            for (at, daemon) in list.iter().enumerate() {
                let text = daemon.as_ref().map(Daemon::log).unwrap_or_default();
                let lines: Vec<&str> = text.lines().filter(|line| !line.contains("openraft")).collect();
                let end = lines.len().saturating_sub(12);
                logs.insert(format!("{kind}-{}", at + 1), lines[end..].join("\n"));
            }
        }
        logs.into_iter().map(|(name, text)| format!("--- {name}\n{text}\n")).collect()
    }

    /// The file with the boot id of a node's host, by node number less one.
    #[must_use]
    pub fn boot_id(&self, at: usize) -> PathBuf {
        self.folder.join(format!("boot-id-{}", at + 1))
    }

    /// As a power cut of one node's host: its agent and its app are killed, and the boot id changes.
    ///
    /// # Panics
    /// When the boot id cannot be written.
    pub fn cut_power(&mut self, at: usize) {
        // First the agent: it would start the app again.
        self.agents[at] = None;
        kill_marked(&self.marker(at));
        let before = std::fs::read_to_string(self.boot_id(at)).unwrap_or_default();
        std::fs::write(self.boot_id(at), format!("{}-again\n", before.trim()))
            .expect("the boot id can be written");
    }

    /// As a power cut of everything: all is killed at once, and the boot ids change.
    ///
    /// # Panics
    /// When a boot id cannot be written.
    pub fn power_cut(&mut self) {
        for daemon in self.agents.iter_mut().chain(self.members.iter_mut()) {
            if let Some(mut daemon) = daemon.take() {
                daemon.kill();
            }
        }
        (0..self.apps.len()).for_each(|at| self.cut_power(at));
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.agents.clear();
        self.members.clear();
        for at in 0..self.apps.len() {
            kill_marked(&self.marker(at));
        }
    }
}

/// Whether a status says that all `count` nodes serve, as heard just now, and nobody holds the lock.
#[must_use]
pub fn whole(status: &Value, count: usize) -> bool {
    let serves = |node: &Value| {
        let current = node["acknowledged"] == true && !node["heard"].is_null() && node["lost"] == false;
        current && node["app"] == "serving" && node["wanted"] == "plain"
    };
    let nodes = status["nodes"].as_array();
    status["lock"]["held"] == false
        && nodes.is_some_and(|nodes| nodes.len() == count && nodes.iter().all(serves))
}
