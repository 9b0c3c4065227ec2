//! nginx's worker processes. A reload starts new ones and lets the earlier ones finish what they have.
//!
//! A worker is a child of nginx's first process whose title says so; one that finishes says that, too. It is remembered by its
//! id and start time, and looked at again before it is ended: nothing else is ever signalled.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use rustix::process::Signal;

use super::super::error::BalancerError;
use crate::host::ProcessId;
use crate::host::process::{Stat, cmdline, pids, stat};

/// How the title of every worker begins.
const WORKER: &str = "nginx: worker process";
/// The title of one that takes no new connections.
const FINISHING: &str = "nginx: worker process is shutting down";
/// How the title of the first process begins.
const FIRST: &str = "nginx: master process";
/// A pid file has one number.
const PID_FILE_MAX: usize = 64;

/// The workers of the nginx with this pid file, each with whether it takes new connections. Reads the process table.
pub(super) fn find(pid_file: &Path) -> Result<BTreeMap<ProcessId, bool>, BalancerError> {
    let first = first(pid_file)?;
    let all = pids().map_err(|source| BalancerError::File { what: "read", path: "/proc".into(), source })?;
    let children = all.into_iter().filter_map(stat).filter(|stat| stat.parent == first.pid && stat.alive());
    let worker = |stat: Stat| {
        let title = cmdline(stat.id.pid).into_iter().next().unwrap_or_default();
        title.starts_with(WORKER).then(|| (stat.id, !title.starts_with(FINISHING)))
    };
    Ok(children.filter_map(worker).collect())
}

/// nginx's first process.
fn first(pid_file: &Path) -> Result<ProcessId, BalancerError> {
    let bad = |why: String| BalancerError::Pid { path: pid_file.to_owned(), why };
    let text = std::fs::read_to_string(pid_file).map_err(|error| bad(error.to_string()))?;
    let pid: u32 = text
        .get(..PID_FILE_MAX.min(text.len()))
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| bad("it does not hold a process id".into()))?;
    let process = ProcessId::of(pid).filter(|process| process.alive());
    let process = process.ok_or_else(|| bad(format!("process {pid} does not run")))?;
    let title = cmdline(pid).into_iter().next().unwrap_or_default();
    if title.starts_with(FIRST) {
        Ok(process)
    } else {
        Err(bad(format!(
            "process {pid} is not nginx's first one, it is \"{}\"",
            crate::probe::shorten(&title)
        )))
    }
}

/// Ends a worker and all its connections. `false` if it has ended by itself, or is no worker of this nginx.
pub(super) fn end(pid_file: &Path, worker: ProcessId) -> Result<bool, BalancerError> {
    if !find(pid_file)?.contains_key(&worker) {
        return Ok(false);
    }
    let ended: io::Result<bool> = worker.signal(Signal::TERM);
    ended.map_err(|source| BalancerError::Signal { pid: worker.pid, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_must_name_nginx() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nginx.pid");
        let error = find(&path).unwrap_err().to_string();
        assert!(error.contains("correct pid_file in [balancer]"), "{error}");
        std::fs::write(&path, "what\n").unwrap();
        assert!(find(&path).unwrap_err().to_string().contains("process id"));
        std::fs::write(&path, format!("{}\n", std::process::id())).unwrap();
        let error = find(&path).unwrap_err().to_string();
        assert!(error.contains("is not nginx's first one"), "{error}");
        let own = ProcessId::own().unwrap();
        assert!(end(&path, own).is_err(), "and nothing is signalled");
    }
}
