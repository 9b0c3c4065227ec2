//! Disks that are full, and mounts that hang.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

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
