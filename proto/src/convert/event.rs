//! What happened.

use soloist_core::event::{Event, EventKind};

use crate::v1;

impl From<Event> for v1::Event {
    fn from(event: Event) -> Self {
        Self {
            index: event.index,
            time_ms: event.time.0,
            wall_ms: event.wall_ms,
            operation: event.operation.map(Into::into),
            node: event.node.map(Into::into),
            kind: kind(&event.kind).to_owned(),
            text: event.kind.to_string(),
        }
    }
}

/// One word for programs. Part of the interface: a word is never changed.
fn kind(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::Enrolled => "enrolled",
        EventKind::Returned { .. } => "returned",
        EventKind::App(_) => "app",
        EventKind::Submitted(_) => "submitted",
        EventKind::LockTaken(_) => "lock_taken",
        EventKind::StepDone(_) => "step_done",
        EventKind::Granted(_) => "granted",
        EventKind::Released(_) => "released",
        EventKind::HolderLost => "holder_lost",
        EventKind::Blocked(_) => "blocked",
        EventKind::Unblocked => "unblocked",
        EventKind::Attempt(_) => "attempt",
        EventKind::Breach(_) => "breach",
        EventKind::Aborting(_) => "aborting",
        EventKind::LeftOut(_) => "left_out",
        EventKind::ForceReleased { .. } => "force_released",
        EventKind::Ended(_) => "ended",
        EventKind::Database(_) => "database",
        EventKind::Exposed => "exposed",
        EventKind::Decided(_) => "decided",
        EventKind::Policy(_) => "policy",
        EventKind::Backup(_) => "backup",
        EventKind::Traffic(_) => "traffic",
        EventKind::Freeze(_) => "freeze",
        EventKind::Stale(_) => "stale",
        EventKind::Restored(_) => "restored",
        EventKind::CutOff(_) => "cut_off",
        EventKind::Assumed(_) => "assumed",
        EventKind::Fence(_) => "fence",
        EventKind::Removed(_) => "removed",
    }
}
