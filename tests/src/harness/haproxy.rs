//! HAProxy in front of a fleet, with `deploy`'s configuration and an agent beside it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::proxy::{Group, changed, deploy, program};
use super::{Daemon, bin, free_ports, get, until};

/// What it stands in front of.
#[derive(Debug, Clone)]
pub struct Behind {
    /// The fleet.
    pub fleet: String,
    /// gRPC addresses of the coordinators.
    pub coordinators: Vec<String>,
    /// Per node, in their order: the port of its app, and of its agent's HTTP.
    pub nodes: Vec<(u16, u16)>,
}

/// HAProxy and its agent. Both end when this is dropped.
#[derive(Debug)]
pub struct Haproxy {
    /// Where users come.
    pub port: u16,
    folder: PathBuf,
    proxy: Option<Group>,
    /// Its agent; `None` while it is down.
    pub agent: Option<Daemon>,
}

impl Haproxy {
    /// Starts both in a folder of their own.
    ///
    /// # Panics
    /// When they do not come up.
    #[must_use]
    pub fn start(folder: &Path, behind: &Behind) -> Self {
        std::fs::create_dir_all(folder).expect("the folder can be made");
        let ports = free_ports(3);
        let mut haproxy = Self { port: ports[0], folder: folder.to_owned(), proxy: None, agent: None };
        haproxy.write_proxy(behind, ports[1]);
        haproxy.write_agent(behind, ports[1], ports[2]);
        haproxy.start_proxy();
        haproxy.start_agent();
        haproxy
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn write_proxy(&self, behind: &Behind, page: u16) {
        let mut servers = behind.nodes.iter().enumerate().map(|(at, (app, agent))| {
            let number = at + 1;
            format!("server app{number} 127.0.0.1:{app} cookie app{number} port {agent}")
        });
        let first = servers.next().expect("a fleet has a node");
        let others = servers.collect::<Vec<_>>().join("\n    ");
        let text = changed(
            "haproxy/haproxy.cfg",
            &[
                ("bind :80", &format!("bind 127.0.0.1:{}", self.port)),
                ("server app1 10.0.0.1:13000 cookie app1 port 7411", &first),
                ("server app2 10.0.0.2:13000 cookie app2 port 7411", &others),
                ("127.0.0.1:7410", &format!("127.0.0.1:{page}")),
                (
                    "/run/haproxy/admin.sock mode 660 group haproxy",
                    &format!("{} mode 660", self.path("admin.sock")),
                ),
                ("/var/lib/haproxy/soloist.state", &self.path("soloist.state")),
                (
                    "/usr/share/soloist/maintenance.http",
                    &deploy("maintenance/maintenance.http").display().to_string(),
                ),
                // Only root can change these.
                ("    chroot /var/lib/haproxy\n    user haproxy\n    group haproxy\n", ""),
            ],
        );
        std::fs::write(self.folder.join("haproxy.cfg"), text).expect("a configuration can be written");
    }

    fn write_agent(&self, behind: &Behind, page: u16, http: u16) {
        let mut servers = String::new();
        for number in 1..=behind.nodes.len() {
            let comma = if number > 1 { ", " } else { "" };
            let _ = write!(servers, "{comma}node-{number} = \"app{number}\"");
        }
        let coordinators: Vec<String> =
            behind.coordinators.iter().map(|address| format!("\"{address}\"")).collect();
        let text = format!(
            "fleet = \"{}\"\nnode = \"haproxy\"\ndata_dir = \"{}\"\ncoordinators = [{}]\nhttp = \"127.0.0.1:{http}\"\n\n\
             [page]\nlisten = \"127.0.0.1:{page}\"\n\n\
             [balancer]\nkind = \"haproxy\"\nsocket = \"{}\"\nworkers = \"{}\"\nbackends = [\"nocobase\"]\n\
             servers = {{ {servers} }}\nstate_file = \"{}\"\n",
            behind.fleet,
            self.path("agent"),
            coordinators.join(", "),
            self.path("admin.sock"),
            self.path("workers.sock"),
            self.path("soloist.state"),
        );
        std::fs::write(self.folder.join("agent.toml"), text).expect("a configuration can be written");
    }

    /// Starts HAProxy as a service does: one process that starts workers.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn start_proxy(&mut self) {
        let (workers, config) = (self.path("workers.sock"), self.path("haproxy.cfg"));
        let args = ["-W", "-S", &*workers, "-f", &*config];
        let group = Group::start(&program("haproxy"), &args, &self.folder.join("haproxy.log"));
        let port = self.port;
        until("an answer of HAProxy", Duration::from_secs(20), || group.daemon.log(), || get(port, "/"));
        self.proxy = Some(group);
    }

    /// Starts its agent.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_agent(&mut self) {
        let (config, log) = (self.path("agent.toml"), self.folder.join("agent.log"));
        self.agent = Some(Daemon::start(&bin("soloist-agent"), &["--config", &config], &log));
    }

    /// HAProxy itself.
    #[must_use]
    pub fn proxy(&self) -> Option<&Group> {
        self.proxy.as_ref()
    }
}
