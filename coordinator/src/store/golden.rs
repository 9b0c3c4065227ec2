//! What a release of feature level 1 wrote is read by this one, and nothing in it is lost: a member that is upgraded reads its
//! old folder. What this release writes still has all of it, under the same names: a member that goes a version back before
//! `soloist cluster finalize` reads what the newer one wrote, and skips what was added.
//!
//! | file | what it holds |
//! |---|---|
//! | `log.bin` | records of a log as they lie on the disk and travel, each after its length |
//! | `state.snapshot` | a snapshot, as it lies on the disk |
//! | `log.json`, `state.json` | the same in words, as the writing release understood it |
//!
//! The files are never written again: a difference is a mistake in what is written, not in the files. A later level gets a
//! folder of its own, which `SOLOIST_WRITE_GOLDEN=1 cargo test -p soloist-coordinator --lib golden` writes where there is
//! none.

#[allow(dead_code, reason = "the tests of messages use all of it")]
#[path = "../../../proto/tests/samples/mod.rs"]
mod samples;

use std::{env, fs, path::Path};

use openraft::{BasicNode, EntryPayload, Membership, entry::RaftEntry as _};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use soloist_core::{
    Command, Entry, State, apply,
    assignment::{AppState, Observed},
    command::{Registration, Role, Submission, Timer},
    fence::Covers,
    ids::{FleetId, Generation, Incarnation, MachineId, NodeId, OperationId, Token},
    operation::Request,
    policy::Policy,
    time::{Millis, Time},
};

use super::{
    codec::{decode, encode},
    snapshot::{from_file, to_file},
};
use crate::raft::types::{LeaderId, LogEntry, LogId, SnapshotMeta, StoredMembership};

fn fleet() -> FleetId {
    FleetId::new("shop").unwrap()
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn registration(run: u64, role: Role) -> Registration {
    Registration {
        incarnation: Incarnation(run),
        lineage: vec![Incarnation(run)],
        fresh: true,
        machine: MachineId(format!("machine-{run}")),
        boot: soloist_core::ids::BootId("boot-1".into()),
        address: format!("10.0.0.{run}:7411"),
        role,
    }
}

fn report(name: &str, run: u64, sequence: u64, observed: Observed) -> Command {
    let (fleet, node, incarnation) = (fleet(), node(name), Incarnation(run));
    Command::Report { fleet, node, incarnation, sequence, observed: Box::new(observed) }
}

/// Every command of level 1, in an order in which most of them do something.
fn commands() -> Vec<Command> {
    let (by, reason) = ("root@host".to_owned(), "why".to_owned());
    let operation = |name: &str| OperationId::new(name).unwrap();
    let submission = Submission {
        by: by.clone(),
        reason: reason.clone(),
        wait: Some(Millis(60_000)),
        ..samples::submission()
    };
    let submit = |name: &str, request: Request| Command::Submit {
        fleet: fleet(),
        operation: operation(name),
        request,
        submission: submission.clone(),
    };
    let register = |name: &str, run: u64, role: Role| Command::Register {
        fleet: fleet(),
        node: node(name),
        registration: registration(run, role),
        policy: Policy::default(),
        rival: false,
    };
    let stopped = |generation: u64| Observed {
        applied: Generation(generation),
        app: AppState::Stopped,
        ..Observed::default()
    };
    let mut commands = vec![
        Command::Promote { member: 1 },
        register("a", 1, Role::App),
        register("b", 2, Role::App),
        register("lb", 3, Role::Balancer),
        report("a", 1, 1, samples::observed()),
        report("a", 1, 2, stopped(4)),
        report("b", 2, 1, stopped(5)),
        Command::Heard { nodes: vec![(fleet(), node("a")), (fleet(), node("b"))] },
    ];
    commands.extend(
        samples::requests().into_iter().enumerate().map(|(at, request)| submit(&format!("op-{at}"), request)),
    );
    commands.extend(samples::decisions().into_iter().map(|decision| Command::Decide {
        fleet: fleet(),
        operation: operation("op-1"),
        decision,
        by: by.clone(),
        reason: reason.clone(),
    }));
    let timers = [
        Timer::Grant(operation("op-1")),
        Timer::Confirm(operation("op-1")),
        Timer::Lease(operation("op-1"), Token(9)),
        Timer::Restore(operation("op-1"), Token(9)),
        Timer::Gather(operation("op-0")),
        Timer::Step(operation("op-0"), 1, 1),
        Timer::Absent(operation("op-0"), 1, vec![node("b")]),
        Timer::Settled,
        Timer::AutoStart,
        Timer::AutoHeal,
        Timer::Carry(node("b"), Covers::Database, vec![node("a")]),
    ];
    commands.extend(timers.map(|timer| Command::Timer { fleet: fleet(), timer }));
    let (set, changes) = (samples::policy(), vec!["lease: 30 s -> 45 s".to_owned()]);
    commands.extend([
        Command::Confirm { fleet: fleet(), operation: operation("op-1") },
        Command::Renew { fleet: fleet(), operation: operation("op-1"), token: Token(9) },
        Command::Release {
            fleet: fleet(),
            operation: operation("op-1"),
            token: Token(9),
            outcome: "exit status 0".into(),
        },
        Command::Abort {
            fleet: fleet(),
            operation: operation("op-1"),
            by: by.clone(),
            reason: reason.clone(),
        },
        Command::Retry { fleet: fleet(), operation: operation("op-0"), attempt: 1, by: by.clone() },
        Command::ForceRelease { fleet: fleet(), token: Token(9), by: by.clone(), reason: reason.clone() },
        Command::SetPolicy {
            fleet: fleet(),
            policy: set,
            seen: 0,
            by: by.clone(),
            reason: reason.clone(),
            changes,
        },
        Command::Freeze {
            fleet: fleet(),
            length: Some(Millis(1_000)),
            by: by.clone(),
            reason: reason.clone(),
        },
        Command::Drain {
            fleet: fleet(),
            node: node("a"),
            drained: true,
            by: by.clone(),
            reason: reason.clone(),
        },
        Command::AssumeStopped {
            fleet: fleet(),
            node: node("b"),
            heard: false,
            by: by.clone(),
            reason: reason.clone(),
        },
        Command::Fence {
            fleet: fleet(),
            node: node("b"),
            covers: Some(Covers::Machine),
            heard: vec![node("a")],
            by: by.clone(),
            reason,
        },
        Command::Unfence { fleet: fleet(), node: node("b"), heard: vec![node("a")], by },
    ]);
    commands
}

fn log_id(index: u64) -> LogId {
    LogId { leader_id: LeaderId { term: 3, node_id: 2 }, index }
}

fn membership() -> Membership<u64, BasicNode> {
    let nodes = (1..=4).map(|id| (id, BasicNode::new(format!("10.0.1.{id}:7401"))));
    Membership::new(vec![[1, 2, 3].into()], nodes.collect::<std::collections::BTreeMap<_, _>>()).unwrap()
}

/// A log with every kind of entry that a member of this level may find.
fn log(level: u32) -> Vec<LogEntry> {
    let mut log = vec![
        LogEntry::new(log_id(1), EntryPayload::Membership(membership())),
        LogEntry::new_blank(log_id(2)),
    ];
    for (index, command) in (3..).zip(commands()) {
        let time = Time(index * 100);
        let entry = Entry { time, wall_ms: 1_700_000_000_000 + index, feature_level: level, command };
        log.push(LogEntry::new(log_id(index), EntryPayload::Normal(entry)));
    }
    log
}

/// What all members make of that log.
fn state(log: &[LogEntry]) -> State {
    let mut state = State::default();
    for entry in log {
        if let EntryPayload::Normal(command) = &entry.payload {
            apply(&mut state, entry.log_id.index, command);
        }
    }
    state
}

/// The golden file of this name, which is written first where there is none and that is asked for.
fn golden(level: u32, name: &str, now: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/level-{level}/{name}"));
    if env::var_os("SOLOIST_WRITE_GOLDEN").is_some() && !path.exists() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, now()).unwrap();
    }
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn words(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec_pretty(value).unwrap()
}

fn records(log: &[LogEntry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in log.iter().map(|entry| encode(entry).unwrap()) {
        bytes.extend_from_slice(&u32::try_from(record.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(&record);
    }
    bytes
}

fn read_records(mut bytes: &[u8]) -> Vec<LogEntry> {
    let mut log = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let (record, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        log.push(decode(record).unwrap());
        bytes = rest;
    }
    log
}

fn snapshot(log: &[LogEntry]) -> Vec<u8> {
    let stored = StoredMembership::new(Some(log_id(1)), membership());
    let meta = SnapshotMeta { last_log_id: log.last().map(|entry| entry.log_id), last_membership: stored };
    to_file(&meta, &encode(&state(log)).unwrap()).unwrap()
}

/// Everything that the older value says is said by the newer one, which may say more.
fn keeps(newer: &Value, older: &Value, at: &str) {
    match (newer, older) {
        (Value::Object(newer), Value::Object(older)) => {
            for (name, older) in older {
                let at = format!("{at}.{name}");
                keeps(newer.get(name).unwrap_or_else(|| panic!("{at} is lost")), older, &at);
            }
        }
        (Value::Array(newer), Value::Array(older)) => {
            assert_eq!(newer.len(), older.len(), "{at}");
            for (index, (newer, older)) in newer.iter().zip(older).enumerate() {
                keeps(newer, older, &format!("{at}[{index}]"));
            }
        }
        (newer, older) => assert_eq!(newer, older, "{at} says something else"),
    }
}

/// As read from the golden bytes, and again after this release has written it.
fn check<T: Serialize + DeserializeOwned>(value: &T, golden: &[u8], name: &str) {
    let older: Value = serde_json::from_slice(golden).unwrap();
    keeps(&serde_json::to_value(value).unwrap(), &older, name);
    let again: T = decode(&encode(value).unwrap()).unwrap();
    keeps(&serde_json::to_value(&again).unwrap(), &older, name);
}

fn check_level(level: u32) {
    let found = read_records(&golden(level, "log.bin", || records(&log(level))));
    check(&found, &golden(level, "log.json", || words(&log(level))), "log");

    let file = from_file(&golden(level, "state.snapshot", || snapshot(&log(level)))).unwrap();
    assert_eq!(file.meta.last_log_id, found.last().map(|entry| entry.log_id));
    assert_eq!(file.meta.last_membership.membership(), &membership());
    let mut read: State = decode(&file.snapshot).unwrap();
    check(&read, &golden(level, "state.json", || words(&state(&log(level)))), "state");

    // It goes on from there; the debug build checks the invariants.
    for (index, entry) in (1_000..).zip(&found) {
        if let EntryPayload::Normal(command) = &entry.payload {
            apply(&mut read, index, command);
        }
    }
}

#[test]
fn what_a_member_of_level_1_wrote_is_read_and_kept() {
    check_level(1);
}
