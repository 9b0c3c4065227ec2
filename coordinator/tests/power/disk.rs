//! A whole disk in two layers: files and folders, what is durable of them, and what was done since.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
};

use fuser::Errno;
use rand::rngs::SmallRng;

use super::{file::FileData, loss::Loss};

/// The number of a file or folder. The root is 1, as FUSE wants it.
pub(crate) type Number = u64;

pub(crate) const ROOT: Number = 1;

type Answer<T> = Result<T, Errno>;

/// Files and folders.
#[derive(Debug)]
pub(crate) struct Disk {
    nodes: BTreeMap<Number, Node>,
    next: Number,
    /// How many operations there were.
    operations: u64,
}

/// A file or a folder.
#[derive(Debug)]
pub(crate) enum Node {
    File(FileData),
    Folder(Folder),
}

/// Names in a folder.
#[derive(Debug, Default)]
pub(crate) struct Folder {
    live: BTreeMap<OsString, Number>,
    durable: BTreeMap<OsString, Number>,
    unsynced: Vec<(u64, Names)>,
}

/// What one operation changes in a folder, all or nothing: names, and what they stand for from then on.
type Names = Vec<(OsString, Option<Number>)>;

impl Disk {
    /// An empty disk.
    pub(crate) fn new() -> Disk {
        let root = Node::Folder(Folder::default());
        Disk { nodes: BTreeMap::from([(ROOT, root)]), next: ROOT + 1, operations: 0 }
    }

    /// A file or folder.
    pub(crate) fn node(&self, number: Number) -> Answer<&Node> {
        self.nodes.get(&number).ok_or(Errno::ENOENT)
    }

    /// What a name in a folder stands for.
    pub(crate) fn find(&self, folder: Number, name: &OsStr) -> Answer<Number> {
        match self.node(folder)? {
            Node::Folder(folder) => folder.live.get(name).copied().ok_or(Errno::ENOENT),
            Node::File(_) => Err(Errno::ENOTDIR),
        }
    }

    /// What is in a folder.
    pub(crate) fn names(&self, folder: Number) -> Answer<impl Iterator<Item = (&OsString, Number)>> {
        match self.node(folder)? {
            Node::Folder(folder) => Ok(folder.live.iter().map(|(name, number)| (name, *number))),
            Node::File(_) => Err(Errno::ENOTDIR),
        }
    }

    /// A file.
    pub(crate) fn file(&mut self, number: Number) -> Answer<&mut FileData> {
        match self.nodes.get_mut(&number).ok_or(Errno::ENOENT)? {
            Node::File(file) => Ok(file),
            Node::Folder(_) => Err(Errno::EISDIR),
        }
    }

    /// Writes to a file.
    pub(crate) fn write(&mut self, number: Number, offset: u64, bytes: &[u8]) -> Answer<()> {
        let at = self.step();
        self.file(number)?.write(at, offset, bytes);
        Ok(())
    }

    /// Changes a file's size.
    pub(crate) fn resize(&mut self, number: Number, size: u64) -> Answer<()> {
        let at = self.step();
        self.file(number)?.resize(at, size);
        Ok(())
    }

    /// Puts an empty file or folder under a name.
    pub(crate) fn make(&mut self, folder: Number, name: &OsStr, node: Node) -> Answer<Number> {
        if self.find(folder, name).is_ok() {
            return Err(Errno::EEXIST);
        }
        let number = self.next;
        self.next += 1;
        self.nodes.insert(number, node);
        self.change(folder, vec![(name.to_owned(), Some(number))])?;
        Ok(number)
    }

    /// Takes a name out of a folder.
    pub(crate) fn remove(&mut self, folder: Number, name: &OsStr) -> Answer<()> {
        let number = self.find(folder, name)?;
        if matches!(self.node(number)?, Node::Folder(inner) if !inner.live.is_empty()) {
            return Err(Errno::ENOTEMPTY);
        }
        self.change(folder, vec![(name.to_owned(), None)])
    }

    /// Gives a file or folder another name in the same folder; what had that name loses it.
    pub(crate) fn rename(&mut self, folder: Number, from: &OsStr, to: &OsStr) -> Answer<()> {
        let number = self.find(folder, from)?;
        self.change(folder, vec![(from.to_owned(), None), (to.to_owned(), Some(number))])
    }

    /// Makes a file's data and size durable, or a folder's names.
    pub(crate) fn sync(&mut self, number: Number) -> Answer<()> {
        match self.nodes.get_mut(&number).ok_or(Errno::ENOENT)? {
            Node::File(file) => file.sync(),
            Node::Folder(folder) => {
                folder.unsynced.clear();
                folder.durable.clone_from(&folder.live);
            }
        }
        Ok(())
    }

    /// The disk after a power cut: what is durable, and what a random loss has left of the rest.
    pub(crate) fn after_a_cut(&self, rng: &mut SmallRng) -> (Disk, Loss) {
        let loss = Loss::draw(rng, 0..=self.operations);
        let mut left = Disk { nodes: BTreeMap::new(), next: self.next, operations: 0 };
        let mut wanted = vec![ROOT];
        while let Some(number) = wanted.pop() {
            let node = match &self.nodes[&number] {
                Node::File(file) => Node::File(FileData::durable(file.after_a_cut(&loss, rng))),
                Node::Folder(folder) => {
                    let names = folder.after_a_cut(&loss, rng);
                    wanted.extend(names.values());
                    Node::Folder(Folder { live: names.clone(), durable: names, unsynced: Vec::new() })
                }
            };
            left.nodes.insert(number, node);
        }
        (left, loss)
    }

    fn change(&mut self, folder: Number, names: Names) -> Answer<()> {
        let at = self.step();
        let Some(Node::Folder(folder)) = self.nodes.get_mut(&folder) else { return Err(Errno::ENOTDIR) };
        apply(&mut folder.live, &names);
        folder.unsynced.push((at, names));
        Ok(())
    }

    fn step(&mut self) -> u64 {
        self.operations += 1;
        self.operations
    }
}

impl Folder {
    fn after_a_cut(&self, loss: &Loss, rng: &mut SmallRng) -> BTreeMap<OsString, Number> {
        let mut names = self.durable.clone();
        for (at, change) in &self.unsynced {
            if loss.keeps(*at, rng) {
                apply(&mut names, change);
            }
        }
        names
    }
}

fn apply(names: &mut BTreeMap<OsString, Number>, change: &Names) {
    for (name, number) in change {
        match number {
            Some(number) => names.insert(name.clone(), *number),
            None => names.remove(name),
        };
    }
}
