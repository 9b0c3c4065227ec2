//! Giving a member what it does not have of the record: one message at a time, and the next once that was acknowledged.

use std::time::Duration;

use soloist_proto::v1;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{RecordPlace, Recorder};

/// What is not acknowledged is sent again after this long.
const AGAIN: Duration = Duration::from_secs(5);

/// How far one session is.
#[derive(Debug)]
pub struct Upload<'a> {
    recorder: Option<&'a Recorder>,
    grown: Option<watch::Receiver<RecordPlace>>,
    registered: bool,
    given: Option<RecordPlace>,
    under_way: Option<Instant>,
}

impl<'a> Upload<'a> {
    /// Of this record; an agent beside a load balancer has none.
    #[must_use]
    pub fn new(recorder: Option<&'a Recorder>) -> Self {
        Self {
            recorder,
            grown: recorder.map(Recorder::grown),
            registered: false,
            given: None,
            under_way: None,
        }
    }

    /// The member says what it has.
    pub fn begin(&mut self, last: Option<v1::EvidenceAck>) {
        self.registered = true;
        self.given = last.map(|last| (last.chain, last.seq));
    }

    /// It says what it has now.
    pub fn given(&mut self, ack: &v1::EvidenceAck) {
        self.given = self.given.max(Some((ack.chain, ack.seq)));
        self.under_way = None;
    }

    /// Ends when there is more. Cancel-safe.
    pub async fn grown(&mut self) {
        match &mut self.grown {
            // Its sender lives as long as the record.
            Some(grown) => drop(grown.changed().await),
            None => std::future::pending().await,
        }
    }

    /// What is to be sent now, if anything.
    pub fn due(&mut self) -> Option<v1::Evidence> {
        let waits = self.under_way.is_some_and(|since| since.elapsed() < AGAIN);
        let recorder = self.recorder.filter(|_| self.registered && !waits)?;
        let records = recorder.after(self.given);
        if records.is_empty() {
            return None;
        }
        self.under_way = Some(Instant::now());
        Some(v1::Evidence { records })
    }
}
