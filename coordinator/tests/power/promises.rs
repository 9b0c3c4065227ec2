//! What a member has promised, from its own words, and whether its disk has kept it.

use std::collections::BTreeMap;

use super::event::{Contents, Event, Id, Step, Vote};

/// All that was acknowledged, and what else may be on the disk because it was begun.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    vote: Choice<Vote>,
    purged: Choice<Id>,
    snapshot: Choice<(Id, u64)>,
    /// Every entry that may be there, by its index.
    log: BTreeMap<u64, (Id, u64)>,
    /// The last entry that must be there, if it was not purged.
    last: Option<u64>,
    /// A truncation that was begun: what is behind this index may be there or not.
    keep: Option<u64>,
}

/// A value that only grows: the one that was acknowledged last, and those begun since.
#[derive(Debug)]
struct Choice<T> {
    acknowledged: Option<T>,
    begun: Vec<T>,
}

impl<T> Default for Choice<T> {
    fn default() -> Self {
        Choice { acknowledged: None, begun: Vec::new() }
    }
}

impl<T: Clone + PartialEq + PartialOrd + std::fmt::Debug> Choice<T> {
    fn acknowledge(&mut self, value: &T) {
        if self.acknowledged.as_ref().is_none_or(|known| known < value) {
            self.acknowledged = Some(value.clone());
        }
    }

    fn check(&self, what: &str, found: &Option<T>) -> Result<(), String> {
        if *found == self.acknowledged {
            return Ok(());
        }
        let newer = |value: &T| self.acknowledged.as_ref().is_none_or(|known| known <= value);
        match found {
            Some(value) if self.begun.contains(value) && newer(value) => Ok(()),
            _ => Err(format!(
                "{what} {:?} was acknowledged, {found:?} is there, and {:?} had been begun",
                self.acknowledged, self.begun
            )),
        }
    }
}

impl Promises {
    /// Takes note of what the member tells. An error says what its disk has lost.
    pub(crate) fn hear(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Opened(contents) => self.check(contents).map(|()| self.adopt(contents)),
            Event::Began(step) => {
                self.begin(step);
                Ok(())
            }
            Event::Acknowledged(step) => {
                self.acknowledge(step);
                Ok(())
            }
            Event::Refused(_) | Event::Failed(_) => Ok(()),
        }
    }

    fn begin(&mut self, step: &Step) {
        match step {
            Step::Vote(vote) => self.vote.begun.push(*vote),
            Step::Append(entries) => self.log.extend(entries.iter().map(|entry| (entry.0.index, *entry))),
            Step::Truncate(keep) => {
                self.last = self.last.min(Some(keep.index));
                self.keep = Some(keep.index);
            }
            Step::Purge(to) => self.purged.begun.push(*to),
            Step::Snapshot(last, digest) => self.snapshot.begun.push((*last, *digest)),
        }
    }

    fn acknowledge(&mut self, step: &Step) {
        match step {
            Step::Vote(vote) => self.vote.acknowledge(vote),
            // It may have been truncated before this was told.
            Step::Append(entries) => {
                let there = entries.iter().filter(|entry| self.log.get(&entry.0.index) == Some(entry));
                let last = there.map(|entry| entry.0.index).max();
                self.last = self.last.max(match self.keep {
                    Some(keep) => last.min(Some(keep)),
                    None => last,
                });
            }
            Step::Truncate(keep) => {
                self.log.split_off(&(keep.index + 1));
                self.keep = None;
            }
            Step::Purge(to) => {
                self.purged.acknowledge(to);
                self.log = self.log.split_off(&(to.index + 1));
                self.last = self.last.max(Some(to.index));
            }
            Step::Snapshot(last, digest) => self.snapshot.acknowledge(&(*last, *digest)),
        }
    }

    fn check(&self, found: &Contents) -> Result<(), String> {
        self.vote.check("the vote", &found.vote)?;
        self.purged.check("a purge up to", &found.purged)?;
        self.snapshot.check("the snapshot", &found.snapshot)?;
        let mut next = found.purged.map_or(0, |purged| purged.index + 1);
        for entry in &found.entries {
            if entry.0.index != next {
                return Err(format!("entry {next} is missing before entry {}", entry.0.index));
            }
            match self.log.get(&next) {
                Some(written) if written == entry => {}
                written => return Err(format!("entry {entry:?} is there, and {written:?} was written")),
            }
            next += 1;
        }
        match self.last {
            Some(last) if next <= last => {
                Err(format!("the log was acknowledged up to {last}, and ends before {next}"))
            }
            _ => Ok(()),
        }
    }

    /// What was found is answered for from now on.
    fn adopt(&mut self, found: &Contents) {
        *self = Promises {
            vote: Choice { acknowledged: found.vote, begun: Vec::new() },
            purged: Choice { acknowledged: found.purged, begun: Vec::new() },
            snapshot: Choice { acknowledged: found.snapshot, begun: Vec::new() },
            log: found.entries.iter().map(|entry| (entry.0.index, *entry)).collect(),
            last: found
                .entries
                .last()
                .map(|entry| entry.0.index)
                .max(found.purged.map(|purged| purged.index)),
            keep: None,
        };
    }
}
