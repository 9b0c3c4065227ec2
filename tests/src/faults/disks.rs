//! Disks that are full or slow, and mounts that hang.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::until;

/// How the sources of all mounts of tests begin; the process id follows.
const SOURCE: &str = "slft";

/// Something mounted over a folder; taken away when it is dropped.
#[derive(Debug)]
pub struct Mount {
    at: PathBuf,
    /// Whose end breaks a mount that hangs: whoever waits for it gets an error then.
    fuse: Option<File>,
}

impl Mount {
    /// An empty file system of this size in memory.
    ///
    /// # Panics
    /// When it cannot be mounted: this needs root.
    #[must_use]
    pub fn small(at: &Path, mib: u32) -> Self {
        fs::create_dir_all(at).expect("a folder in a temporary folder can be made");
        new_mount(at, "tmpfs", &format!("size={mib}m"));
        Self { at: at.to_owned(), fuse: None }
    }

    /// One that never answers, like that of a file server which is gone.
    ///
    /// # Panics
    /// When it cannot be mounted: this needs root and `/dev/fuse`.
    #[must_use]
    pub fn hanging(at: &Path) -> Self {
        let fuse = File::options().read(true).write(true).open("/dev/fuse").expect("/dev/fuse can be opened");
        let fd = fuse.as_raw_fd();
        new_mount(at, "fuse", &format!("fd={fd},rootmode=40000,user_id=0,group_id=0"));
        Self { at: at.to_owned(), fuse: Some(fuse) }
    }
}

fn new_mount(at: &Path, kind: &str, data: &str) {
    sweep();
    let source = format!("{SOURCE}{}", std::process::id());
    let data = CString::new(data).expect("a text without a zero byte");
    mount(source.as_str(), at, kind, MountFlags::empty(), data.as_c_str())
        .unwrap_or_else(|error| panic!("{kind} cannot be mounted at {}: {error}", at.display()));
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(self.fuse.take());
        // Also while somebody still works there.
        let _ = unmount(&self.at, UnmountFlags::DETACH);
    }
}

/// Takes away what runs that were killed have left mounted.
fn sweep() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let pid = words.next().and_then(|source| source.strip_prefix(SOURCE));
        let gone = pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists());
        if let Some(at) = words.next().filter(|_| gone) {
            let _ = unmount(at, UnmountFlags::DETACH);
        }
    }
}

/// A file that takes all the room there is, until it is dropped.
#[derive(Debug)]
pub struct Filler(PathBuf);

impl Filler {
    /// Fills the disk of this folder.
    ///
    /// # Panics
    /// When there is nothing to be written to.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let path = folder.join("filler");
        let mut file = File::create(&path).expect("a file can be made while there is room");
        for size in [1 << 20, 1 << 12, 1] {
            let piece = vec![0x5a; size];
            while file.write(&piece).is_ok_and(|written| written > 0) {}
        }
        Self(path)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// How much longer a sync takes on a slow disk: as on one that is worn out, or shared with a backup.
const SLOWER_BY: Duration = Duration::from_millis(400);
/// How long it may take to get hold of a process.
const ATTACH_MAX: Duration = Duration::from_secs(10);

/// A process whose syncs take long, until it is dropped. It is traced meanwhile.
#[derive(Debug)]
pub struct SlowSync {
    tracer: Child,
    trace: PathBuf,
}

impl SlowSync {
    /// Slows the syncs of a process down, and notes them in a file. `None` when it has ended.
    ///
    /// # Panics
    /// When strace is missing, or may not trace it.
    #[must_use]
    pub fn new(pid: u32, trace: &Path) -> Option<Self> {
        let delay = format!("inject=fsync,fdatasync:delay_enter={}", SLOWER_BY.as_micros());
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-e", "trace=fsync,fdatasync", "-e", &delay, "-o"]).arg(trace);
        command.args(["-p", &pid.to_string()]).stdin(Stdio::null());
        let mut tracer = command.spawn().expect("this test needs strace");
        let traced = || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let held = status.contains(&format!("TracerPid:\t{}\n", tracer.id()));
            let over = matches!(tracer.try_wait(), Ok(Some(_)));
            (held || over).then_some(held)
        };
        let held = until("the tracer", ATTACH_MAX, || format!("process {pid}"), traced);
        held.then(|| Self { tracer, trace: trace.to_owned() })
    }

    /// How many syncs have been slowed down.
    #[must_use]
    pub fn count(&self) -> usize {
        fs::read_to_string(&self.trace).unwrap_or_default().matches("(DELAYED)").count()
    }
}

impl Drop for SlowSync {
    fn drop(&mut self) {
        // It lets go of the process; one that it killed would take the process along.
        if let Some(pid) = i32::try_from(self.tracer.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::INT);
        }
        let _ = self.tracer.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_disk_has_no_room_until_the_filler_is_gone() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let at = place.path().join("disk");
        let _disk = Mount::small(&at, 1);
        let filler = Filler::new(&at);
        assert!(fs::write(at.join("more"), [1; 8192]).is_err(), "it has room");
        drop(filler);
        fs::write(at.join("more"), [1; 8192]).expect("there is room again");
    }
}
