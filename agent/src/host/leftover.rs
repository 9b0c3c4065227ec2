//! Children of an agent that was killed. They carry a mark in their environment, and end before anything is begun anew: two
//! writers of one backup, two restores of one database, or two fetches of one release must never be.

use std::io;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::process::{self, ProcessId};

/// Name of the environment entry of every child that works on a backup; its value is `<fleet>/<node>`.
pub const BACKUP: &str = "SOLOIST_BACKUP_OF";
/// The same of every other program that a task starts.
pub const TASK: &str = "SOLOIST_TASK_OF";

/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Kills what an earlier run of the node's agent has left behind, and waits until it is gone: all that carries this value in
/// this variable. Blocks for some seconds at most.
///
/// # Errors
/// When the process table cannot be read, or something does not die: a disk or mount hangs.
pub fn end(variable: &str, mark: &str) -> io::Result<()> {
    let entry = format!("{variable}={mark}").into_bytes();
    let began = Instant::now();
    loop {
        let mut left = carriers(&entry)?;
        if left.is_empty() {
            // A process that is just executing a program shows no environment for a moment, so one empty look is no proof.
            left = carriers(&entry)?;
        }
        if left.is_empty() {
            return Ok(());
        }
        if began.elapsed() >= PATIENCE {
            let pids: Vec<u32> = left.iter().map(|process| process.pid).collect();
            return Err(io::Error::other(format!("processes {pids:?} of an earlier task do not end")));
        }
        for process in left {
            process.signal(Signal::KILL)?;
        }
        std::thread::sleep(LOOK);
    }
}

fn carriers(entry: &[u8]) -> io::Result<Vec<ProcessId>> {
    let alive = |pid: u32| process::stat(pid).filter(process::Stat::alive).map(|stat| stat.id);
    let carries = |pid: &u32| {
        process::environ(*pid).is_some_and(|environ| environ.iter().any(|found| found.as_slice() == entry))
    };
    Ok(process::pids()?.into_iter().filter(carries).filter_map(alive).collect())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_was_left_behind_ends() {
        let mark = format!("test/leftover-{}", std::process::id());
        let mut child = Command::new("sleep").arg("60").env(BACKUP, &mark).spawn().unwrap();
        let mut other = Command::new("sleep").arg("60").env(BACKUP, "test/another").spawn().unwrap();
        let mut task = Command::new("sleep").arg("60").env(TASK, &mark).spawn().unwrap();
        end(BACKUP, &mark).unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none(), "another node's child goes on");
        assert!(task.try_wait().unwrap().is_none(), "and so does other work");
        end(TASK, &mark).unwrap();
        assert!(!task.wait().unwrap().success());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
