//! Collects the events of one entry.

use crate::event::{Event, EventKind};
use crate::ids::{NodeId, OperationId};
use crate::time::Time;

/// Events of one entry, in order.
#[derive(Debug)]
pub(crate) struct Journal {
    index: u64,
    time: Time,
    wall_ms: u64,
    events: Vec<Event>,
}

impl Journal {
    pub(crate) fn new(index: u64, time: Time, wall_ms: u64) -> Self {
        Self { index, time, wall_ms, events: Vec::new() }
    }

    pub(crate) fn fleet(&mut self, kind: EventKind) {
        self.push(None, None, kind);
    }

    pub(crate) fn operation(&mut self, id: &OperationId, kind: EventKind) {
        self.push(Some(id.clone()), None, kind);
    }

    pub(crate) fn node(&mut self, id: Option<&OperationId>, node: &NodeId, kind: EventKind) {
        self.push(id.cloned(), Some(node.clone()), kind);
    }

    pub(crate) fn into_events(self) -> Vec<Event> {
        self.events
    }

    fn push(&mut self, operation: Option<OperationId>, node: Option<NodeId>, kind: EventKind) {
        self.events.push(Event {
            index: self.index,
            time: self.time,
            wall_ms: self.wall_ms,
            operation,
            node,
            kind,
        });
    }
}
