//! A load balancer in front of a fleet: a real HAProxy or nginx with `deploy`'s configuration, and an agent beside it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::proxy::Group;
use super::{Cli, Daemon, Fleet, bin, free_ports, get, haproxy, nginx, until};

/// The name of its agent in the fleet. One for all: another load balancer on the same host takes the place of the first.
pub const NAME: &str = "edge";

/// Which load balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// HAProxy, with stickiness by cookie.
    Haproxy,
    /// nginx, with stickiness by the client's address.
    Nginx,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        })
    }
}

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

/// Where it lies and listens.
#[derive(Debug, Clone)]
pub(super) struct Place {
    folder: PathBuf,
    /// Where users come.
    pub(super) port: u16,
    /// The maintenance page of its agent.
    pub(super) page: u16,
    /// Where nginx tells its agent what is in force.
    pub(super) status: u16,
}

impl Place {
    /// A file of it.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The same, to stand in a configuration.
    pub(super) fn path(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// A load balancer and its agent. Both end when this is dropped.
#[derive(Debug)]
pub struct Balancer {
    /// Which one.
    pub kind: Kind,
    /// Where users come.
    pub port: u16,
    place: Place,
    /// Its agent; `None` while it is down.
    pub agent: Option<Daemon>,
    proxy: Group,
}

impl Balancer {
    /// Starts both in a folder of their own: the agent first, because nginx needs a file that it writes.
    ///
    /// # Panics
    /// When they do not come up.
    #[must_use]
    pub fn start(kind: Kind, folder: &Path, behind: &Behind) -> Self {
        fs::create_dir_all(folder).expect("the folder can be made");
        let ports = free_ports(4);
        let place = Place { folder: folder.to_owned(), port: ports[0], page: ports[1], status: ports[2] };
        let table = match kind {
            Kind::Haproxy => haproxy::configure(&place, behind),
            Kind::Nginx => nginx::configure(&place, behind),
        };
        write_agent(&place, behind, ports[3], &table);
        let agent = start_agent(&place);
        let proxy = match kind {
            Kind::Haproxy => haproxy::start(&place),
            Kind::Nginx => nginx::start(&place, || agent.log()),
        };
        let what = format!("an answer of {kind}");
        until(&what, Duration::from_secs(20), || proxy.daemon.log(), || get(place.port, "/"));
        Self { kind, port: place.port, place, agent: Some(agent), proxy }
    }

    /// The same in front of a fleet. Returns when the fleet knows it.
    ///
    /// # Panics
    /// When they do not come up.
    #[must_use]
    pub fn before(kind: Kind, fleet: &Fleet) -> Self {
        let nodes = fleet.apps.iter().copied().zip(fleet.agent_http.iter().copied()).collect();
        let coordinators = fleet.grpc.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let behind = Behind { fleet: fleet.name.clone(), coordinators, nodes };
        let balancer = Self::start(kind, &fleet.folder.join(kind.to_string()), &behind);
        let known = |status: &Value| status["balancers"][0]["acknowledged"] == true;
        fleet.until("the enrolment of the balancer", 30, known);
        balancer
    }

    /// The file with which somebody on its host lets users in, and the program that makes it.
    ///
    /// # Panics
    /// When the agent's program does not end well.
    pub fn break_glass(&self, what: &str) {
        let mut command = std::process::Command::new(bin("soloist-agent"));
        command.arg("--config").arg(self.place.file("agent.toml"));
        command.args(["break-glass", "traffic", what, "--reason", "no quorum"]);
        let output = command.output().expect("the agent's program can be run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts its agent.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_agent(&mut self) {
        self.agent = Some(start_agent(&self.place));
    }

    /// Makes it read its configuration anew, as its service does when somebody else has changed it. Returns when a new worker is there.
    ///
    /// # Panics
    /// When none comes.
    pub fn reload(&self) {
        match self.kind {
            Kind::Haproxy => haproxy::reload(&self.place, &self.proxy),
            Kind::Nginx => nginx::reload(&self.proxy),
        }
    }

    /// What its agent has said.
    #[must_use]
    pub fn log(&self) -> String {
        self.agent.as_ref().map(Daemon::log).unwrap_or_default()
    }
}

/// How many connections were cut at the deadlines of drains, as the fleet's events say: with nginx, worker processes.
///
/// # Panics
/// When the events cannot be read.
#[must_use]
pub fn cut(cli: &Cli) -> u64 {
    let events = cli.run(&["events", "-o", "json"]).expect(0).stdout;
    let events = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let cut = events.filter_map(|event| {
        let (_, rest) = event["text"].as_str()?.split_once(" is out, ")?;
        rest.strip_suffix(" connections were cut")?.parse::<u64>().ok()
    });
    cut.sum()
}

fn write_agent(place: &Place, behind: &Behind, http: u16, table: &str) {
    let coordinators: Vec<String> =
        behind.coordinators.iter().map(|address| format!("\"{address}\"")).collect();
    let text = format!(
        "fleet = \"{}\"\nnode = \"{NAME}\"\ndata_dir = \"{}\"\ncoordinators = [{}]\nhttp = \"127.0.0.1:{http}\"\n\n\
         [page]\nlisten = \"127.0.0.1:{}\"\n\n[balancer]\n{table}",
        behind.fleet,
        place.path("agent"),
        coordinators.join(", "),
        place.page,
    );
    fs::write(place.file("agent.toml"), text).expect("a configuration can be written");
}

fn start_agent(place: &Place) -> Daemon {
    let config = place.path("agent.toml");
    Daemon::start(&bin("soloist-agent"), &["--config", &config], &place.file("agent.log"))
}

/// An inline table of the nodes, as an agent's configuration has it.
pub(super) fn servers(behind: &Behind, server: impl Fn(usize, u16) -> String) -> String {
    let servers = behind.nodes.iter().enumerate().map(|(at, (app, _))| {
        let number = at + 1;
        format!("node-{number} = \"{}\"", server(number, *app))
    });
    format!("{{ {} }}", servers.collect::<Vec<_>>().join(", "))
}
