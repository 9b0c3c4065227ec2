//! Fleets whose coordinators were restored from a backup.

use soloist_core::assignment::{AppState, Run};
use soloist_core::operation::{HoldMode, Request, Status};
use soloist_core::restore::{INDEXES_PER_MS, restored};
use soloist_core::state::Lock;
use soloist_core::{Command, Rejection, Reply};

use super::log::{Log, fleet, name, running};

/// What a backup of this state becomes at that time.
fn restore(backup: &Log, wall_ms: u64) -> Log {
    let (state, index) = restored(&backup.state, backup.index, wall_ms).expect("the clock is right");
    Log { state, index }
}

fn resume(log: &mut Log, reason: &str) -> Result<Reply, Rejection> {
    log.push(Command::Resume { fleet: fleet(), by: "kim".into(), reason: reason.into() })
}

fn hold(log: &mut Log) -> Result<Reply, Rejection> {
    let operation = soloist_core::ids::OperationId::new("again").expect("a plain name");
    let request = Request::Hold { mode: HoldMode::Solo, on: Some(name("node-1")) };
    let submission = soloist_core::command::Submission::default();
    log.push(Command::Submit { fleet: fleet(), operation, request, submission })
}

#[test]
fn numbers_go_on_with_the_time_and_never_below_the_backup() {
    let backup = running();
    let (first, second) = (restore(&backup, 5_000), restore(&backup, 5_001));
    assert!(first.index > backup.index);
    assert_eq!(
        second.index - first.index,
        INDEXES_PER_MS,
        "what was numbered after the first is not given again"
    );
    assert!(
        restored(&backup.state, 5_000 * INDEXES_PER_MS, 5_000).is_none(),
        "a clock that is behind is wrong"
    );
    // A restored cluster is backed up and restored like any other.
    assert!(restore(&second, 5_002).index > second.index);
}

#[test]
fn nothing_begins_before_somebody_has_looked_and_every_agent_has_taken_note() {
    let mut before = running();
    let going = before.submit("hold", Request::Hold { mode: HoldMode::Solo, on: Some(name("node-1")) });
    let mut log = restore(&before, 5_000);
    assert_eq!(log.state.fleets[&fleet()].lock, Lock::Free);
    assert!(matches!(log.operation(&going).status, Status::Aborted(_)));

    assert!(matches!(hold(&mut log), Err(Rejection::Restored { silent, .. }) if silent.len() == 2));
    assert!(
        matches!(resume(&mut log, "looked"), Err(Rejection::Restored { silent, .. }) if silent.len() == 2)
    );
    for (node, run) in [("node-1", 1), ("node-2", 2)] {
        assert!(log.register(node, run, &[run], node, false).is_ok());
    }
    // They still do what they were told by the coordinators that are gone.
    log.report_seen_late("node-1", AppState::Serving);
    log.report_seen_late("node-2", AppState::Starting);
    assert!(matches!(resume(&mut log, " "), Err(Rejection::NoReason)));
    assert!(
        matches!(resume(&mut log, "looked"), Err(Rejection::StillWorks { node, .. }) if node == name("node-2"))
    );
    log.report_seen_late("node-2", AppState::Stopped);
    assert_eq!(resume(&mut log, "looked"), Ok(Reply::Done));
    assert_eq!(resume(&mut log, "looked"), Ok(Reply::Unchanged));

    assert!(matches!(hold(&mut log), Err(Rejection::Resuming { nodes, .. }) if nodes.len() == 2));
    let run = |log: &Log, node: &str| log.state.fleets[&fleet()].nodes[&name(node)].assignment.spec.run;
    assert_eq!((run(&log, "node-1"), run(&log, "node-2")), (Run::Plain, Run::Stop));
    log.report("node-1", AppState::Serving);
    assert!(matches!(hold(&mut log), Err(Rejection::Resuming { nodes, .. }) if nodes == [name("node-2")]));
    log.report("node-2", AppState::Stopped);
    assert!(hold(&mut log).is_ok());
}

#[test]
fn a_fleet_that_the_backup_does_not_know_waits_too() {
    let mut log = restore(&Log::default(), 5_000);
    assert!(log.register("node-1", 1, &[1], "node-1", false).is_ok());
    log.report_seen_late("node-1", AppState::Serving);
    assert!(matches!(hold(&mut log), Err(Rejection::Restored { .. })));
    assert_eq!(resume(&mut log, "all its nodes are there"), Ok(Reply::Done));
    log.report("node-1", AppState::Serving);
    assert!(hold(&mut log).is_ok());
}
