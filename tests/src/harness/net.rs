//! Hosts of their own: network namespaces on one bridge, each with its own address, between which packets can be lost.
//!
//! ```text
//!   m1      m2      n1      c          each a network namespace with its own address
//!   │       │       │       │
//!   └───────┴── bridge ─────┘          in a namespace too: nothing of this machine's own network is touched
//! ```
//!
//! A cut is one way: whatever the one host sends the other is lost without a word, as on a broken wire. It is made by giving the
//! sender a wrong hardware address for the receiver. Needs root and `ip`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Place;
use super::proxy::program;

/// How all namespaces of tests begin; the process id follows, so that no two runs collide.
const PREFIX: &str = "slft";
/// A hardware address that no host has.
const NOBODY: &str = "02:00:00:00:00:01";

/// Numbers the networks of one process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A bridge with hosts. Removed when it is dropped.
#[derive(Debug)]
pub struct Net {
    prefix: String,
    hosts: BTreeMap<String, Ipv4Addr>,
    cuts: Mutex<BTreeSet<(String, String)>>,
}

impl Net {
    /// A network with these hosts. Names are short: they are interfaces' names, too.
    ///
    /// # Panics
    /// When it cannot be made: this needs root.
    #[must_use]
    pub fn new<S: AsRef<str>>(names: &[S]) -> Self {
        sweep();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{}-{number}", std::process::id());
        let address = |at: usize| Ipv4Addr::new(10, 77, 0, u8::try_from(at + 1).expect("a few hosts"));
        let hosts =
            names.iter().enumerate().map(|(at, name)| (name.as_ref().to_owned(), address(at))).collect();
        let net = Self { prefix, hosts, cuts: Mutex::default() };
        let wire = net.namespace("wire");
        ip(&["netns", "add", &wire]);
        ip(&["-n", &wire, "link", "add", "bridge", "type", "bridge", "forward_delay", "0"]);
        ip(&["-n", &wire, "link", "set", "bridge", "up"]);
        for (host, address) in &net.hosts {
            let name = net.namespace(host);
            ip(&["netns", "add", &name]);
            ip(&[
                "link", "add", "eth0", "netns", &name, "type", "veth", "peer", "name", host, "netns", &wire,
            ]);
            ip(&["-n", &wire, "link", "set", host, "master", "bridge", "up"]);
            ip(&["-n", &name, "address", "add", &format!("{address}/24"), "dev", "eth0"]);
            ip(&["-n", &name, "link", "set", "lo", "up"]);
            ip(&["-n", &name, "link", "set", "eth0", "up"]);
        }
        net
    }

    fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// The names of all hosts.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.keys().map(String::as_str)
    }

    /// Where a host's programs run.
    #[must_use]
    pub fn place(&self, host: &str) -> Place {
        Place::namespace(&self.namespace(host))
    }

    /// A host's address.
    ///
    /// # Panics
    /// When there is no such host.
    #[must_use]
    pub fn address(&self, host: &str) -> Ipv4Addr {
        *self.hosts.get(host).unwrap_or_else(|| panic!("there is no host {host}"))
    }

    fn cuts(&self) -> std::sync::MutexGuard<'_, BTreeSet<(String, String)>> {
        // A set of names is whole at any moment.
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loses whatever `from` sends `to`.
    pub fn cut(&self, from: &str, to: &str) {
        if self.cuts().insert((from.to_owned(), to.to_owned())) {
            let (name, address) = (self.namespace(from), self.address(to).to_string());
            ip(&[
                "-n",
                &name,
                "neigh",
                "replace",
                &address,
                "lladdr",
                NOBODY,
                "dev",
                "eth0",
                "nud",
                "permanent",
            ]);
        }
    }

    /// Loses everything between the two.
    pub fn part(&self, one: &str, other: &str) {
        self.cut(one, other);
        self.cut(other, one);
    }

    /// Ends a cut.
    pub fn heal(&self, from: &str, to: &str) {
        if self.cuts().remove(&(from.to_owned(), to.to_owned())) {
            let (name, address) = (self.namespace(from), self.address(to).to_string());
            ip(&["-n", &name, "neigh", "del", &address, "dev", "eth0"]);
        }
    }

    /// Ends all cuts.
    pub fn heal_all(&self) {
        let cuts: Vec<_> = self.cuts().iter().cloned().collect();
        cuts.iter().for_each(|(from, to)| self.heal(from, to));
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for host in self.hosts.keys().map(String::as_str).chain(["wire"]) {
            remove(&self.namespace(host));
        }
    }
}

fn ip(args: &[&str]) {
    let output = Command::new(program("ip")).args(args).output().expect("ip can be started");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {complaint}this test needs root", args.join(" "));
}

fn remove(namespace: &str) {
    // It may be gone already.
    let _ = Command::new(program("ip")).args(["netns", "del", namespace]).output();
}

/// Removes what runs that were killed have left behind.
fn sweep() {
    let Ok(folder) = std::fs::read_dir("/run/netns") else { return };
    for name in folder.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists()) {
            remove(&name);
        }
    }
}
