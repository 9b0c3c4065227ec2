//! The file that nginx includes: the upstream block, and a tiny server that tells which one is in force.
//!
//! Its generation is the digest of everything that matters in it. So the same servers give the same file, byte by byte, and
//! an assignment that changes nothing reloads nothing.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};
use soloist_core::ids::NodeId;

use super::super::config::NginxConfig;
use super::super::error::{BalancerError, list};
use super::super::{Want, Wanted};

/// Digits of a generation: enough to tell any two files of one host apart.
const DIGITS: usize = 16;

/// A file as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Include {
    pub(super) generation: String,
    pub(super) text: String,
}

/// What nginx says is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InForce {
    pub(super) generation: String,
    /// Nodes that get requests.
    pub(super) nodes: BTreeSet<NodeId>,
}

impl Include {
    /// The file for what is wanted. Of the nodes that are not named in `wanted`, those of `others` are in it.
    pub(super) fn render(
        config: &NginxConfig,
        wanted: &Wanted,
        others: &BTreeSet<NodeId>,
    ) -> Result<Self, BalancerError> {
        if let Some(node) = wanted.servers.keys().find(|node| !config.servers.contains_key(*node)) {
            let existing = list(config.servers.keys());
            return Err(BalancerError::NoAddress { node: node.to_string(), existing });
        }
        let is_in = |node: &NodeId| match wanted.servers.get(node) {
            Some(Want::In) => true,
            Some(Want::Out { .. }) => false,
            None => others.contains(node),
        };
        let servers: Vec<_> = config.servers.iter().filter(|(node, _)| is_in(node)).collect();
        let upstream = upstream(config, &servers);
        let digest = Sha256::digest(format!("{upstream}{}{:?}", config.status, servers).as_bytes());
        let mut generation = String::new();
        for byte in digest.iter().take(DIGITS / 2) {
            let _ = write!(generation, "{byte:02x}");
        }
        let mut answer = generation.clone();
        for (node, _) in &servers {
            let _ = write!(answer, " {node}");
        }
        let text = format!(
            "# Written by soloist-agent, and replaced by it at any time: change the table [balancer] of its configuration instead.\n\
             # Which nodes are in here is decided by the coordinators: see soloist status.\n\
             {upstream}\n\
             # Tells the agent which of these files is in force, and its nodes.\n\
             server {{\n    listen {};\n    access_log off;\n    keepalive_timeout 0;\n    location = /generation {{\n        \
             default_type text/plain;\n        return 200 \"{answer}\\n\";\n    }}\n    location / {{\n        return 404;\n    \
             }}\n}}\n",
            config.status
        );
        Ok(Self { generation, text })
    }

    /// The nodes that a file of ours has; none for any other text.
    pub(super) fn nodes(text: &str) -> BTreeSet<NodeId> {
        let answer = text.split_once("return 200 \"").and_then(|(_, rest)| rest.split_once("\\n\";"));
        answer.and_then(|(answer, _)| InForce::read(answer)).map(|said| said.nodes).unwrap_or_default()
    }
}

/// Ways to choose a server must stand before what keeps connections.
fn upstream(config: &NginxConfig, servers: &[(&NodeId, &String)]) -> String {
    let (keep, choose): (Vec<&String>, Vec<&String>) =
        config.options.iter().partition(|line| line.trim_start().starts_with("keepalive"));
    let mut text = format!("upstream {} {{\n", config.upstream);
    for line in choose {
        let _ = writeln!(text, "    {};", line.trim());
    }
    for (node, address) in servers {
        let _ = writeln!(text, "    server {address}; # {node}");
    }
    if servers.is_empty() {
        let _ = writeln!(text, "    server {}; # every node is out: the maintenance page", config.page);
    }
    for line in keep {
        let _ = writeln!(text, "    {};", line.trim());
    }
    text + "}\n"
}

impl InForce {
    /// Reads what the tiny server answers; `None` if something else answered.
    pub(super) fn read(body: &str) -> Option<Self> {
        let mut words = body.split_whitespace();
        let generation = words.next()?.to_owned();
        let good = generation.len() == DIGITS && generation.bytes().all(|byte| byte.is_ascii_hexdigit());
        let nodes = words.map(NodeId::new).collect::<Result<_, _>>().ok()?;
        good.then_some(Self { generation, nodes })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::super::super::config::BalancerConfig;
    use super::*;

    fn config(options: &str) -> NginxConfig {
        let text = format!(
            "kind = \"nginx\"\nupstream = \"nocobase\"\ninclude = \"/x\"\npage = \"127.0.0.1:7410\"\nstatus = \"127.0.0.1:8089\"\n\
             servers = {{ node-1 = \"10.0.0.1:13000\", node-2 = \"10.0.0.2:13000\" }}\noptions = {options}\n"
        );
        let BalancerConfig::Nginx(config) = toml::from_str(&text).unwrap() else { panic!("it is nginx") };
        config
    }

    fn wanted(number: u64, servers: &[(&str, Want)]) -> Wanted {
        let servers = servers.iter().map(|(node, want)| (NodeId::new(*node).unwrap(), *want));
        Wanted { number, servers: servers.collect::<BTreeMap<_, _>>() }
    }

    fn render(config: &NginxConfig, wanted: &Wanted) -> Result<Include, BalancerError> {
        Include::render(config, wanted, &BTreeSet::new())
    }

    const OUT: Want = Want::Out { within: Duration::from_secs(1) };

    #[test]
    fn the_same_servers_give_the_same_file() {
        let config = config("[\"keepalive 16\", \"ip_hash\"]");
        let one = render(&config, &wanted(1, &[("node-1", Want::In), ("node-2", OUT)])).unwrap();
        let two = render(&config, &wanted(2, &[("node-1", Want::In)])).unwrap();
        assert_eq!(one, two);
        let start =
            "upstream nocobase {\n    ip_hash;\n    server 10.0.0.1:13000; # node-1\n    keepalive 16;\n}\n";
        assert!(one.text.contains(start), "{}", one.text);
        assert!(one.text.starts_with("# Written by soloist-agent"));
        let said = InForce::read(&format!("{} node-1\n", one.generation)).unwrap();
        assert!(one.text.contains(&format!("return 200 \"{} node-1\\n\";", said.generation)), "{}", one.text);
        assert_eq!(said.nodes.len(), 1);
        let both = wanted(3, &[("node-1", Want::In), ("node-2", Want::In)]);
        let both = render(&config, &both).unwrap();
        assert_ne!(both.generation, one.generation);
        // One that nobody speaks of stays as it is.
        let others = Include::nodes(&both.text);
        assert_eq!(others.len(), 2);
        let left = Include::render(&config, &wanted(4, &[("node-1", Want::In)]), &others).unwrap();
        assert_eq!(left, both);
        assert!(Include::nodes("upstream x {}\n").is_empty());
    }

    #[test]
    fn the_page_stands_in_for_all() {
        let include = render(&config("[]"), &wanted(1, &[("node-1", OUT), ("node-2", OUT)])).unwrap();
        assert!(include.text.contains("    server 127.0.0.1:7410; # every node"), "{}", include.text);
        assert!(!include.text.contains("10.0.0"), "{}", include.text);
        let error = render(&config("[]"), &wanted(1, &[("node-9", OUT)])).unwrap_err().to_string();
        assert!(error.contains("node-9") && error.contains("it has node-1, node-2"), "{error}");
    }

    #[test]
    fn strangers_are_not_believed() {
        for body in ["", "<html>", "0123456789abcdef <x>", "0123", "0123456789abcdeg node-1"] {
            assert_eq!(InForce::read(body), None, "{body}");
        }
        assert!(InForce::read("0123456789abcdef\n").unwrap().nodes.is_empty());
    }
}
