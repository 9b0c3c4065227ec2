//! The disk as a mounted file system, with a power switch.
//!
//! Files are opened for direct I/O and nothing is cached, so every write arrives here before the program goes on.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fuser::{
    BackgroundSession, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, Session, TimeOrNow, WriteFlags,
};
use rustix::mount::{UnmountFlags, unmount};

use super::{
    disk::{Disk, Node, Number},
    file::FileData,
};

/// What makes a machine able to run these tests.
const NEEDS: &str = "the power cut tests mount a file system through /dev/fuse, as root. Load the kernel module with `modprobe \
    fuse`; in a container, give it `--device /dev/fuse --cap-add SYS_ADMIN`";

/// Nothing is remembered by the kernel.
const NOT_CACHED: Duration = Duration::ZERO;

/// A disk with the power on, or off.
#[derive(Debug)]
pub(crate) struct Machine {
    disk: Disk,
    /// How many more operations that change or sync something there will be; at 0 the power is off.
    left: u64,
    done: u64,
    lies: bool,
}

impl Machine {
    /// A machine that runs. One that lies acknowledges syncs and does nothing.
    pub(crate) fn new(disk: Disk, lies: bool) -> Machine {
        Machine { disk, left: u64::MAX, done: 0, lies }
    }

    fn on(&self) -> bool {
        self.left > 0
    }

    /// Does something that counts. If the power goes off in it, it was begun and is not answered.
    fn change<T>(&mut self, change: impl FnOnce(&mut Disk) -> Result<T, Errno>) -> Result<T, Errno> {
        self.powered()?;
        self.left -= 1;
        self.done += 1;
        let result = change(&mut self.disk)?;
        self.powered().map(|_| result)
    }

    fn sync(&mut self, number: Number) -> Result<(), Errno> {
        self.powered()?;
        self.left -= 1;
        self.done += 1;
        self.powered()?;
        if self.lies { Ok(()) } else { self.disk.sync(number) }
    }

    fn powered(&mut self) -> Result<&mut Disk, Errno> {
        if self.on() { Ok(&mut self.disk) } else { Err(Errno::EIO) }
    }

    fn attributes(&self, number: Number) -> Result<FileAttr, Errno> {
        let (kind, size) = match self.disk.node(number)? {
            Node::File(file) => (FileType::RegularFile, file.size()),
            Node::Folder(_) => (FileType::Directory, 0),
        };
        let never: SystemTime = UNIX_EPOCH;
        Ok(FileAttr {
            ino: INodeNo(number),
            size,
            blocks: size.div_ceil(512),
            atime: never,
            mtime: never,
            ctime: never,
            crtime: never,
            kind,
            perm: 0o755,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

/// A mounted machine. It is unmounted when this goes.
#[derive(Debug)]
pub(crate) struct Mounted {
    machine: Arc<Mutex<Machine>>,
    session: Option<BackgroundSession>,
    path: PathBuf,
}

impl Mounted {
    /// Mounts a machine's disk on an empty folder.
    pub(crate) fn new(machine: Machine, path: &Path) -> Mounted {
        let machine = Arc::new(Mutex::new(machine));
        let mut config = fuser::Config::default();
        config.mount_options = vec![MountOption::FSName("power".to_owned())];
        let session = Session::new(Served(machine.clone()), path, &config)
            .and_then(Session::spawn)
            .unwrap_or_else(|error| panic!("{NEEDS}: {error}"));
        Mounted { machine, session: Some(session), path: path.to_owned() }
    }

    /// Lets the power go off in this operation from now on, counted from 1.
    pub(crate) fn cut_in(&self, operations: u64) {
        let mut machine = lock(&self.machine);
        if machine.on() {
            machine.left = operations;
        }
    }

    /// Whether the power is off.
    pub(crate) fn is_cut(&self) -> bool {
        !lock(&self.machine).on()
    }

    /// How many operations changed or synced something.
    pub(crate) fn operations(&self) -> u64 {
        lock(&self.machine).done
    }

    /// Unmounts it and takes the disk out. No process may use it any more.
    pub(crate) fn into_disk(mut self) -> Disk {
        self.end();
        std::mem::replace(&mut lock(&self.machine).disk, Disk::new())
    }

    fn end(&mut self) {
        let Some(session) = self.session.take() else { return };
        // Detached, so that it goes even if a process still has a file open.
        match unmount(&self.path, UnmountFlags::DETACH) {
            Ok(()) => drop(session.join()),
            Err(error) => eprintln!("cannot unmount {}: {error}", self.path.display()),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.end();
    }
}

fn lock(machine: &Mutex<Machine>) -> MutexGuard<'_, Machine> {
    machine.lock().expect("no request panics")
}

/// What the kernel's requests are answered by.
struct Served(Arc<Mutex<Machine>>);

impl Served {
    fn make(&self, folder: INodeNo, name: &OsStr, node: Node) -> Result<FileAttr, Errno> {
        let mut machine = lock(&self.0);
        let number = machine.change(|disk| disk.make(folder.0, name, node))?;
        machine.attributes(number)
    }

    fn change(&self, reply: ReplyEmpty, change: impl FnOnce(&mut Disk) -> Result<(), Errno>) {
        answer(reply, lock(&self.0).change(change));
    }
}

fn answer(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn entry(reply: ReplyEntry, result: Result<FileAttr, Errno>) {
    match result {
        Ok(attributes) => reply.entry(&NOT_CACHED, &attributes, Generation(0)),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut machine = lock(&self.0);
        let found = machine.powered().and_then(|disk| disk.find(parent.0, name));
        entry(reply, found.and_then(|number| machine.attributes(number)));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let mut machine = lock(&self.0);
        match machine.powered().map(drop).and_then(|()| machine.attributes(ino.0)) {
            Ok(attributes) => reply.attr(&NOT_CACHED, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut machine = lock(&self.0);
        let resized = match size {
            Some(size) => machine.change(|disk| disk.resize(ino.0, size)),
            None => machine.powered().map(drop),
        };
        match resized.and_then(|()| machine.attributes(ino.0)) {
            Ok(attributes) => reply.attr(&NOT_CACHED, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        entry(reply, self.make(parent, name, Node::Folder(super::disk::Folder::default())));
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        match self.make(parent, name, Node::File(FileData::default())) {
            Ok(attributes) => reply.created(
                &NOT_CACHED,
                &attributes,
                Generation(0),
                FileHandle(0),
                FopenFlags::FOPEN_DIRECT_IO,
            ),
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.change(reply, |disk| disk.remove(parent.0, name));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.change(reply, |disk| disk.remove(parent.0, name));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if parent != newparent || !flags.is_empty() {
            return reply.error(Errno::EXDEV);
        }
        self.change(reply, |disk| disk.rename(parent.0, name, newname));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match lock(&self.0).powered() {
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match lock(&self.0).powered().and_then(|disk| disk.file(ino.0)) {
            Ok(file) => reply.data(file.read(offset, size.into())),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match lock(&self.0).change(|disk| disk.write(ino.0, offset, data)) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        answer(reply, lock(&self.0).powered().map(drop));
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(reply, lock(&self.0).sync(ino.0));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(reply, lock(&self.0).sync(ino.0));
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut machine = lock(&self.0);
        let disk = match machine.powered() {
            Ok(disk) => disk,
            Err(error) => return reply.error(error),
        };
        let names = match disk.names(ino.0) {
            Ok(names) => names.enumerate().skip(offset as usize),
            Err(error) => return reply.error(error),
        };
        for (at, (name, number)) in names {
            let kind = match disk.node(number) {
                Ok(Node::Folder(_)) => FileType::Directory,
                _ => FileType::RegularFile,
            };
            if reply.add(INodeNo(number), at as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }
}
