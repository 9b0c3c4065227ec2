//! Starting HAProxy and nginx with the configurations of `deploy`, their addresses and paths replaced.

use std::fs;
use std::path::{Path, PathBuf};

use super::Daemon;
use rustix::process::{Pid, Signal, kill_process_group};

/// A program of the system; services' programs are often not in the `PATH`.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{name} is missing: install it, as ./check does"))
}

/// A file of `deploy`.
///
/// # Panics
/// Never: the tests lie in the repository.
#[must_use]
pub fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests lie in the repository")
        .join("deploy")
        .join(file)
}

/// A file of `deploy` with replacements, each of which must be found.
///
/// # Panics
/// When one is not.
#[must_use]
pub fn changed(file: &str, changes: &[(&str, &str)]) -> String {
    let mut text = fs::read_to_string(deploy(file)).expect("a file of deploy can be read");
    for (from, to) in changes {
        assert!(text.contains(from), "{file} has no \"{from}\" any more: change the test with it");
        text = text.replace(from, to);
    }
    text
}

/// Processes of a balancer. They all end when this is dropped.
#[derive(Debug)]
pub struct Group {
    /// The first of them.
    pub daemon: Daemon,
}

impl Group {
    /// Starts a balancer's first process.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(program: &Path, args: &[&str], log: &Path) -> Self {
        Self { daemon: Daemon::start(program, args, log) }
    }

    /// Signals its first process alone.
    pub fn signal(&self, signal: Signal) {
        self.daemon.signal(signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let pid = i32::try_from(self.daemon.pid()).ok().and_then(Pid::from_raw);
        // The first process leads a group of its own, and its workers stay in it.
        let _ = pid.map(|pid| kill_process_group(pid, Signal::KILL));
    }
}
