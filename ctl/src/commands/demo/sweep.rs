//! Ending every process of a demo: also those that an agent started and that outlive it on purpose.

use std::{
    fs,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// Killed processes are gone within moments.
const WITHIN: Duration = Duration::from_secs(5);
/// Between two looks. In a destructor there is nothing to await.
const LOOK: Duration = Duration::from_millis(30);

/// Kills what carries the demo's folder in its arguments or its environment, until nothing does. `false` if something stays.
pub(super) fn sweep(folder: &Path) -> bool {
    let deadline = Instant::now() + WITHIN;
    let own = std::process::id();
    let mut gone = false;
    loop {
        let found = processes(folder, own);
        // A process that is just executing a program has neither arguments nor environment for a moment.
        if found.is_empty() && gone {
            return true;
        }
        gone = found.is_empty();
        if Instant::now() > deadline {
            return false;
        }
        for pid in found {
            // Who is gone already needs no signal.
            let _ = kill_process(pid, Signal::KILL);
        }
        thread::sleep(LOOK);
    }
}

fn processes(folder: &Path, own: u32) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let ours = pids.filter(|pid| *pid != own && carries(*pid, folder));
    ours.filter_map(|pid| i32::try_from(pid).ok().and_then(Pid::from_raw)).collect()
}

/// Whether the folder, which has a random name, occurs. A dead process has neither arguments nor environment.
fn carries(pid: u32, folder: &Path) -> bool {
    let needle = folder.as_os_str().as_bytes();
    ["cmdline", "environ"].into_iter().any(|file| {
        let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        text.windows(needle.len()).any(|part| part == needle)
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_that_left_its_parent_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let script = "setsid sleep 60 <&- >&- 2>&- &";
        Command::new("sh").args(["-c", script]).env("DEMO", folder.path()).output().unwrap();
        let deadline = Instant::now() + WITHIN;
        while processes(folder.path(), 0).is_empty() {
            assert!(Instant::now() < deadline, "the process is not seen");
            thread::sleep(LOOK);
        }
        assert!(sweep(folder.path()));
        assert!(processes(folder.path(), 0).is_empty());
    }
}
