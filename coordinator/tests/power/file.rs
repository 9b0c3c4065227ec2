//! A file in two layers: what is durable, and what was written since.

use std::collections::HashMap;

use rand::rngs::SmallRng;

use super::loss::Loss;

/// What a disk writes whole or not at all, in bytes.
const SECTOR: u64 = 512;

/// The content of a file.
#[derive(Debug, Default)]
pub(crate) struct FileData {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// What happened since the last sync, in order.
    unsynced: Vec<(u64, Change)>,
}

#[derive(Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Resize { size: u64 },
}

impl Change {
    /// The file's size after it.
    fn size_after(&self, before: u64) -> u64 {
        match self {
            Change::Write { offset, bytes } => before.max(offset + bytes.len() as u64),
            Change::Resize { size } => *size,
        }
    }
}

impl FileData {
    /// A file after a reboot: all that is there is durable.
    pub(crate) fn durable(content: Vec<u8>) -> FileData {
        FileData { live: content.clone(), durable: content, unsynced: Vec::new() }
    }

    /// The size that programs see, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.live.len() as u64
    }

    /// What a read gives.
    pub(crate) fn read(&self, offset: u64, size: u64) -> &[u8] {
        let end = (offset + size).min(self.size());
        &self.live[offset.min(end) as usize..end as usize]
    }

    /// Writes, with the operation's place in the order of all.
    pub(crate) fn write(&mut self, at: u64, offset: u64, bytes: &[u8]) {
        put(&mut self.live, offset, bytes);
        self.unsynced.push((at, Change::Write { offset, bytes: bytes.to_vec() }));
    }

    /// Cuts the file, or extends it with zeros.
    pub(crate) fn resize(&mut self, at: u64, size: u64) {
        set_size(&mut self.live, size);
        self.unsynced.push((at, Change::Resize { size }));
    }

    /// Makes the data and the size durable.
    pub(crate) fn sync(&mut self) {
        for (_, change) in self.unsynced.drain(..) {
            match change {
                Change::Write { offset, bytes } => put(&mut self.durable, offset, &bytes),
                Change::Resize { size } => set_size(&mut self.durable, size),
            }
        }
    }

    /// What is left of it after a power cut.
    ///
    /// The size is one that the file had since the last sync. A sector within it has a content that it had since then, zeros
    /// if none of its writes is left. A cut of the file that is left takes what it cut off with it; one that is not left
    /// keeps later writes from the blocks behind it.
    pub(crate) fn after_a_cut(&self, loss: &Loss, rng: &mut SmallRng) -> Vec<u8> {
        let kept = self.kept_sectors(loss, rng);
        let sized = loss.sizes(self.unsynced.iter().map(|(at, _)| *at), rng);
        let mut content = self.durable.clone();
        let (mut live_size, mut size) = (content.len() as u64, content.len() as u64);
        // Behind this, blocks still belong to what a lost cut should have removed.
        let mut barrier = u64::MAX;
        for (number, (_, change)) in self.unsynced.iter().enumerate() {
            match change {
                Change::Write { offset, bytes } => {
                    for (start, part) in sectors(*offset, bytes) {
                        if kept.get(&(start / SECTOR)).is_some_and(|last| number <= *last) && start < barrier
                        {
                            put(&mut content, start, part);
                        }
                    }
                }
                Change::Resize { size } if *size < live_size && number < sized => {
                    content.truncate(*size as usize);
                }
                Change::Resize { size } if *size < live_size => barrier = barrier.min(*size),
                Change::Resize { .. } => {}
            }
            live_size = change.size_after(live_size);
            if number < sized {
                size = live_size;
            }
        }
        set_size(&mut content, size);
        content
    }

    /// For each sector the last of its writes that is left. The ones before it in the same sector are left with it: neither
    /// a page cache nor a disk writes an older content over a newer one.
    fn kept_sectors(&self, loss: &Loss, rng: &mut SmallRng) -> HashMap<u64, usize> {
        let mut kept = HashMap::new();
        for (number, (at, change)) in self.unsynced.iter().enumerate() {
            let Change::Write { offset, bytes } = change else { continue };
            let mut choice = loss.choice(*at);
            for (start, _) in sectors(*offset, bytes) {
                if choice.keeps(start / SECTOR, rng) {
                    kept.insert(start / SECTOR, number);
                }
            }
        }
        kept
    }
}

/// The parts of a write by the sector they lie in, with their offsets.
fn sectors(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let start = offset + done as u64;
        let length = (SECTOR - start % SECTOR).min((bytes.len() - done) as u64) as usize;
        let part = &bytes[done..done + length];
        done += length;
        (length > 0).then_some((start, part))
    })
}

fn put(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let (start, end) = (offset as usize, offset as usize + bytes.len());
    if content.len() < end {
        set_size(content, end as u64);
    }
    content[start..end].copy_from_slice(bytes);
}

/// `resize` takes a quarter of these tests' time when it is not optimised.
fn set_size(content: &mut Vec<u8>, size: u64) {
    let missing = (size as usize).saturating_sub(content.len());
    content.extend_from_slice(&vec![0; missing]);
    content.truncate(size as usize);
}
