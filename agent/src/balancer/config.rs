//! The `[balancer]` table of the agent's configuration.
//!
//! ```toml
//! [balancer]
//! kind = "haproxy"
//! socket = "/run/haproxy/admin.sock"
//! workers = "/run/haproxy/workers.sock"
//! backends = ["nocobase"]
//! servers = { node-1 = "app1" }
//! state_file = "/var/lib/haproxy/soloist.state"
//! ```
//!
//! ```toml
//! [balancer]
//! kind = "nginx"
//! upstream = "nocobase"
//! include = "/etc/nginx/soloist/nocobase.conf"
//! servers = { node-1 = "10.0.0.1:13000" }
//! options = ["least_conn", "keepalive 16"]
//! page = "127.0.0.1:7410"
//! status = "127.0.0.1:8089"
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use soloist_core::ids::NodeId;

/// Most backends and most options: more is a mistake in the file.
const LIST_MAX: usize = 32;
/// Most servers that a balancer is steered for; a fleet has a handful.
const SERVERS_MAX: usize = 256;

/// The load balancer beside this agent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum BalancerConfig {
    /// HAProxy, through its management socket.
    Haproxy(HaproxyConfig),
    /// nginx, through a file that it includes, and reloads.
    Nginx(NginxConfig),
}

/// How HAProxy is steered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HaproxyConfig {
    /// Its management socket: `stats socket PATH level admin`.
    pub socket: PathBuf,
    /// The socket of the process that starts HAProxy's workers (`haproxy -W -S PATH`). Through it, the connections of workers
    /// that a reload has left behind are seen and cut as well; without it they are not. Debian's service has one: see
    /// `deploy/haproxy/haproxy.cfg`.
    #[serde(default)]
    pub workers: Option<PathBuf>,
    /// Backends that have the nodes as servers; each has all of them.
    pub backends: Vec<String>,
    /// Names of the nodes' servers; a node that is not here has a server of its own name.
    #[serde(default)]
    pub servers: BTreeMap<NodeId, String>,
    /// File that is kept as `show servers state` has it, so that a reload with `load-server-state-from-file` changes nothing.
    #[serde(default)]
    pub state_file: Option<PathBuf>,
}

/// How nginx is steered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NginxConfig {
    /// Name of the upstream block.
    pub upstream: String,
    /// The file that the agent writes, and that nginx's configuration includes in its `http` block.
    pub include: PathBuf,
    /// Address of each node's app, `host:port`.
    pub servers: BTreeMap<NodeId, String>,
    /// More lines of the upstream block, without their semicolon.
    #[serde(default)]
    pub options: Vec<String>,
    /// Where the maintenance page is served: the only server while every node is out.
    pub page: SocketAddr,
    /// Loopback address at which nginx tells which nodes it sends requests to.
    pub status: SocketAddr,
    /// Tries nginx's configuration without using it.
    #[serde(default = "test")]
    pub test: Vec<String>,
    /// Makes nginx read its configuration anew.
    #[serde(default = "reload")]
    pub reload: Vec<String>,
    /// File with the process id of nginx's first process.
    #[serde(default = "pid_file")]
    pub pid_file: PathBuf,
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn test() -> Vec<String> {
    words(&["nginx", "-t"])
}

fn reload() -> Vec<String> {
    words(&["nginx", "-s", "reload"])
}

fn pid_file() -> PathBuf {
    "/run/nginx.pid".into()
}

impl BalancerConfig {
    /// What is wrong with it, for people.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        match self {
            Self::Haproxy(config) => config.problem(),
            Self::Nginx(config) => config.problem(),
        }
    }
}

impl HaproxyConfig {
    fn problem(&self) -> Option<String> {
        let paths = [
            ("socket", Some(&self.socket)),
            ("workers", self.workers.as_ref()),
            ("state_file", self.state_file.as_ref()),
        ];
        if let Some(problem) = paths.into_iter().find_map(|(key, path)| relative(key, path?)) {
            return Some(problem);
        }
        if self.backends.is_empty() || self.backends.len() > LIST_MAX {
            return Some(format!("backends in [balancer] must name 1 to {LIST_MAX} backends of HAProxy"));
        }
        let names = self.backends.iter().chain(self.servers.values());
        if let Some(name) = names.into_iter().find(|name| !is_name(name)) {
            return Some(format!("\"{name}\" in [balancer] cannot be a name in HAProxy: {NAME}"));
        }
        if let Some(twice) = twice(&self.backends) {
            return Some(format!("backends in [balancer] has \"{twice}\" twice: remove one"));
        }
        too_many(&self.servers).or_else(|| shared(&self.servers))
    }

    /// The name of a node's server.
    pub(super) fn server<'a>(&'a self, node: &'a NodeId) -> &'a str {
        self.servers.get(node).map_or(node.as_str(), String::as_str)
    }
}

impl NginxConfig {
    fn problem(&self) -> Option<String> {
        let paths = [("include", &self.include), ("pid_file", &self.pid_file)];
        if let Some(problem) = paths.into_iter().find_map(|(key, path)| relative(key, path)) {
            return Some(problem);
        }
        if !is_name(&self.upstream) {
            return Some(format!("upstream in [balancer] cannot be \"{}\": {NAME}", self.upstream));
        }
        if let Some((node, address)) = self.servers.iter().find(|(_, address)| !is_address(address)) {
            return Some(format!(
                "the address \"{address}\" of {node} in [balancer] is not valid: write host:port, for example 10.0.0.1:13000"
            ));
        }
        if !self.status.ip().is_loopback() {
            return Some(format!(
                "status in [balancer] is {}: give it a loopback address, for example 127.0.0.1:8089",
                self.status
            ));
        }
        if self.status == self.page {
            return Some(
                "status and page in [balancer] are the same address: nginx serves one, this agent the other"
                    .into(),
            );
        }
        if self.options.len() > LIST_MAX {
            return Some(format!("options in [balancer] has more than {LIST_MAX} lines"));
        }
        if let Some(problem) = self.options.iter().find_map(|line| option_problem(line)) {
            return Some(problem);
        }
        if self.test.is_empty() || self.reload.is_empty() {
            return Some("test and reload in [balancer] must each name a program".into());
        }
        too_many(&self.servers).or_else(|| shared(&self.servers))
    }
}

/// What names may be made of; HAProxy and nginx would take more, but nobody needs it, and nothing else can break out of a
/// command or a block.
const NAME: &str = "use letters, digits, '-', '_', '.' and ':'";

fn is_name(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    !text.is_empty() && text.len() <= 255 && text.chars().all(good)
}

fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '[' | ']');
    !host.is_empty() && host.chars().all(good) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn option_problem(line: &str) -> Option<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || " -_.:=$/~".contains(c);
    if line.trim().is_empty() || !line.chars().all(good) {
        return Some(format!(
            "the option \"{}\" in [balancer] is not one plain line: write for example \"keepalive 16\", without a semicolon",
            line.escape_debug()
        ));
    }
    let word = line.split_whitespace().next().unwrap_or_default();
    let taken = matches!(word, "server" | "include");
    taken.then(|| {
        format!("options in [balancer] may not have \"{word}\": servers belong into the key servers")
    })
}

fn relative(key: &str, path: &Path) -> Option<String> {
    (!path.is_absolute()).then(|| format!("{key} in [balancer] is not an absolute path: {}", path.display()))
}

fn twice(names: &[String]) -> Option<&String> {
    let mut seen = BTreeSet::new();
    names.iter().find(|name| !seen.insert(*name))
}

fn too_many(servers: &BTreeMap<NodeId, String>) -> Option<String> {
    let many = servers.len() > SERVERS_MAX;
    many.then(|| format!("servers in [balancer] has {} nodes, and {SERVERS_MAX} is the most", servers.len()))
}

fn shared(servers: &BTreeMap<NodeId, String>) -> Option<String> {
    let mut owners = BTreeMap::new();
    servers.iter().find_map(|(node, server)| {
        let other = owners.insert(server, node)?;
        Some(format!("{other} and {node} in [balancer] have the same server \"{server}\": correct one"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HAPROXY: &str =
        "kind = \"haproxy\"\nsocket = \"/run/haproxy/admin.sock\"\nbackends = [\"nocobase\"]\n";
    const NGINX: &str = "kind = \"nginx\"\nupstream = \"nocobase\"\ninclude = \"/etc/nginx/soloist/nocobase.conf\"\n\
                         servers = { node-1 = \"10.0.0.1:13000\", node-2 = \"app.example:13000\" }\n\
                         page = \"127.0.0.1:7410\"\nstatus = \"127.0.0.1:8089\"\n";

    fn read(text: &str) -> Result<BalancerConfig, toml::de::Error> {
        toml::from_str(text)
    }

    fn problem(text: &str) -> String {
        read(text).unwrap().problem().unwrap_or_default()
    }

    #[test]
    fn what_may_be_left_out() {
        let BalancerConfig::Haproxy(haproxy) = read(HAPROXY).unwrap() else { panic!("it is haproxy") };
        assert_eq!(haproxy.server(&NodeId::new("node-1").unwrap()), "node-1");
        let BalancerConfig::Nginx(nginx) = read(NGINX).unwrap() else { panic!("it is nginx") };
        assert_eq!((nginx.test, nginx.pid_file), (test(), pid_file()));
        assert_eq!(problem(HAPROXY) + &problem(NGINX), "");
    }

    #[test]
    fn unknown_keys_are_refused() {
        for text in [HAPROXY, NGINX] {
            let error = read(&format!("{text}sockets = \"/x\"\n")).unwrap_err().to_string();
            assert!(error.contains("sockets"), "{error}");
        }
        assert!(read(&HAPROXY.replace("haproxy\"\n", "envoy\"\n")).is_err());
    }

    #[test]
    fn nothing_breaks_out_of_a_command_or_a_block() {
        assert!(
            problem(&HAPROXY.replace("[\"nocobase\"]", "[\"a; shutdown\"]")).contains("cannot be a name")
        );
        assert!(problem(&HAPROXY.replace("[\"nocobase\"]", "[]")).contains("1 to 32"));
        assert!(problem(&HAPROXY.replace("[\"nocobase\"]", "[\"a\", \"a\"]")).contains("twice"));
        assert!(problem(&format!("{HAPROXY}servers = {{ a = \"x\", b = \"x\" }}\n")).contains("same server"));
        assert!(problem(&HAPROXY.replace("/run/haproxy/", "")).contains("not an absolute path"));
        for bad in [
            "keepalive 16;",
            "}",
            "a { b",
            "server 10.0.0.9:1",
            "include /etc/x",
            "a\\nb",
            "",
            "# a",
            "a 'b'",
        ] {
            let found = problem(&format!("{NGINX}options = [\"{bad}\"]\n"));
            assert!(found.contains("in [balancer]"), "{bad}: {found}");
        }
        assert_eq!(
            problem(&format!("{NGINX}options = [\"hash $cookie_a consistent\", \"keepalive 16\"]\n")),
            ""
        );
        assert!(problem(&NGINX.replace("10.0.0.1:13000", "10.0.0.1:13000; x")).contains("host:port"));
        assert!(problem(&NGINX.replace("10.0.0.1:13000", "10.0.0.1")).contains("host:port"));
        assert!(problem(&NGINX.replace("127.0.0.1:8089", "0.0.0.0:8089")).contains("loopback"));
        assert!(problem(&format!("{NGINX}reload = []\n")).contains("name a program"));
    }
}
