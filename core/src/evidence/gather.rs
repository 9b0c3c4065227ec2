//! The agent's side: looks and samples of some seconds become one record.

use std::collections::BTreeMap;

use super::{FOREIGN_MAX, NAME_MAX, NAMES_MAX, Reading, Series, Sessions, Span, Watch};
use crate::assignment::Foreign;
use crate::ids::{OperationId, Token};

/// What was looked at since the last record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gather {
    watch: Watch,
    last_look_ms: Option<u64>,
    last_sample_ms: Option<u64>,
}

impl Gather {
    /// For the exclusive part of this operation that was granted at this log index.
    #[must_use]
    pub fn new(operation: OperationId, token: Token, grant: u64, every_ms: u64) -> Gather {
        let watch = Watch {
            operation,
            token,
            grant,
            looks: Series::default(),
            foreign: Vec::new(),
            samples: Series::default(),
            every_ms,
            login: String::new(),
            naming: super::Naming::Application,
            sessions: BTreeMap::new(),
            unsampled: None,
            clock: None,
        };
        Gather { watch, last_look_ms: None, last_sample_ms: None }
    }

    /// Log index of the grant that it is for.
    #[must_use]
    pub fn grant(&self) -> u64 {
        self.watch.grant
    }

    /// A look at the process table.
    pub fn look(&mut self, now_ms: u64, foreign: &[Foreign]) {
        count(&mut self.watch.looks, &mut self.last_look_ms, now_ms);
        for process in foreign {
            let list = &mut self.watch.foreign;
            let room = list.len() < FOREIGN_MAX;
            match list.iter_mut().find(|(known, _)| known == process) {
                Some((_, span)) => span.last_ms = now_ms,
                None if room => list.push((process.clone(), span(now_ms, 1))),
                // One is enough to break the promise; more are for people.
                None => {}
            }
        }
    }

    /// A look at the database's sessions, or why it came to nothing.
    pub fn sample(&mut self, now_ms: u64, sessions: Result<Sessions, String>) {
        let Sessions { login, naming, names } = match sessions {
            Ok(sessions) => sessions,
            Err(why) => {
                self.watch.unsampled = Some(why);
                return;
            }
        };
        count(&mut self.watch.samples, &mut self.last_sample_ms, now_ms);
        (self.watch.login, self.watch.naming) = (login, naming);
        for (name, most) in names {
            let name: String = name.chars().take(NAME_MAX).collect();
            let room = self.watch.sessions.len() < NAMES_MAX;
            match self.watch.sessions.get_mut(&name) {
                Some(span) => (span.last_ms, span.most) = (now_ms, span.most.max(most)),
                None if room => {
                    self.watch.sessions.insert(name, span(now_ms, most));
                }
                None => self.watch.unsampled = Some(format!("more than {NAMES_MAX} names of sessions")),
            }
        }
    }

    /// A reading of the coordinators' clock.
    pub fn read(&mut self, reading: Reading) {
        self.watch.clock = Some(self.watch.clock.map_or(reading, |clock| clock.or(reading)));
    }

    /// Takes out what is to be recorded, and goes on; nothing if nothing was looked at.
    pub fn take(&mut self) -> Option<Watch> {
        let before = &self.watch;
        let fresh = Gather::new(before.operation.clone(), before.token, before.grant, before.every_ms);
        let watch = std::mem::replace(&mut self.watch, fresh.watch);
        // The gap to the next look counts, too.
        let empty = watch.looks.count == 0 && watch.samples.count == 0 && watch.unsampled.is_none();
        (!empty).then_some(watch)
    }
}

fn span(now_ms: u64, most: u32) -> Span {
    Span { first_ms: now_ms, last_ms: now_ms, most }
}

fn count(series: &mut Series, last: &mut Option<u64>, now_ms: u64) {
    if series.count == 0 {
        series.first_ms = now_ms;
    }
    if let Some(before) = last.replace(now_ms) {
        series.gap_ms = series.gap_ms.max(now_ms.saturating_sub(before));
    }
    series.last_ms = now_ms;
    series.count = series.count.saturating_add(1);
}
