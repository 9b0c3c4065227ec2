//! The verdict on a run, from its raw record alone.
//!
//! ```text
//!   events: granted … last step before others start ──► windows ──┐
//!   signs of life of commands under the lock ──────────► windows ──┼──► what of the app ran meanwhile ──► overlaps
//!   the monitor's trees ──────────────────────────────────────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::linear::{Finding, check};
use super::record::{Record, Told, Tree};

/// So many problems are told in words.
const TOLD_MAX: usize = 50;

/// A time in which only the named node's app may run, or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Whose it is: an operation, or a token.
    pub of: String,
    /// When it begins.
    pub from_ms: u64,
    /// When it ends.
    pub to_ms: u64,
    /// How many trees may run.
    pub most: usize,
    /// The node that may run, if it is known.
    pub solo: Option<String>,
}

/// What is said of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether nothing is wrong.
    pub good: bool,
    /// What is wrong, in words.
    pub problems: Vec<String>,
    /// Faults by kind.
    pub faults: BTreeMap<String, usize>,
    /// Exclusive times that were looked at.
    pub windows: usize,
    /// How many of them had more of the app than they may.
    pub overlaps: usize,
    /// The most processes with the right to install or upgrade at once.
    pub migrating_at_once: usize,
    /// Marks of damage in the stand-in's database.
    pub damage: usize,
    /// Breaches that the coordinators told.
    pub breaches: usize,
    /// Commands of clients, by exit code.
    pub commands: BTreeMap<String, usize>,
    /// Operations that ended, by how.
    pub operations: BTreeMap<String, usize>,
    /// The longest time from asking for an operation to its end.
    pub longest_wait_ms: u64,
    /// Which one that was.
    pub longest_wait_of: String,
    /// Calls to the lock in the histories.
    pub lock_calls: usize,
    /// Histories that one lock could have given, of how many.
    pub linearizable: (usize, usize),
    /// Waits for calm, and the longest.
    pub calms: usize,
    /// In milliseconds.
    pub longest_calm_ms: u64,
}

/// Judges.
#[must_use]
pub fn judge(record: &Record) -> Verdict {
    let mut verdict =
        Verdict { damage: record.damage.len(), calms: record.calms.len(), ..Verdict::default() };
    let mut problems = Vec::new();
    let windows = windows(record);
    verdict.windows = windows.len();
    for window in &windows {
        if let Some(found) = overlap(window, &record.trees) {
            verdict.overlaps += 1;
            problems.push(found);
        }
    }
    let migrating: Vec<&Tree> = record.trees.iter().filter(|tree| tree.migrates).collect();
    verdict.migrating_at_once = most(&migrating, 0, u64::MAX);
    if verdict.migrating_at_once > 1 {
        problems.push(format!("{} processes had the right to migrate at once", verdict.migrating_at_once));
    }
    problems.extend(record.damage.iter().map(|line| format!("damage: {line}")));
    for (fleet, calls) in &record.calls {
        verdict.lock_calls += calls.len();
        verdict.linearizable.1 += 1;
        match check(calls) {
            Finding::Linearizable => verdict.linearizable.0 += 1,
            other => problems.push(format!("the lock of {fleet}: {other:?}")),
        }
    }
    for calm in &record.calms {
        verdict.longest_calm_ms = verdict.longest_calm_ms.max(calm.took_ms);
        if !calm.reached {
            problems.push(format!("not well again after {} ms: {}", calm.took_ms, calm.state));
        }
    }
    problems.extend(record.failures.iter().cloned());
    if record.dropped > 0 {
        problems.push(format!("the monitor had no room for {}: nothing is proven", record.dropped));
    }
    for trouble in &record.troubles {
        *verdict.faults.entry(trouble.kind.clone()).or_default() += 1;
    }
    for work in &record.works {
        *verdict.commands.entry(format!("{}: {}", work.what, work.code)).or_default() += 1;
    }
    waits(record, &mut verdict);
    verdict.breaches = record.events.iter().filter(|event| event.kind == "breach").count();
    problems.truncate(TOLD_MAX);
    verdict.good = problems.is_empty();
    verdict.problems = problems;
    verdict
}

/// Events of each operation, in order.
fn by_operation(record: &Record) -> BTreeMap<&str, Vec<&Told>> {
    let mut found: BTreeMap<&str, Vec<&Told>> = BTreeMap::new();
    for event in &record.events {
        if let Some(operation) = &event.operation {
            found.entry(operation).or_default().push(event);
        }
    }
    found
}

fn waits(record: &Record, verdict: &mut Verdict) {
    for (operation, events) in by_operation(record) {
        let at = |kind: &str| events.iter().find(|event| event.kind == kind);
        let (Some(asked), Some(ended)) = (at("submitted"), at("ended")) else { continue };
        let how = ended.text.split([':', ';']).nth(1).unwrap_or_default().trim();
        *verdict.operations.entry(how.split(' ').next().unwrap_or_default().to_owned()).or_default() += 1;
        let took = ended.wall_ms.saturating_sub(asked.wall_ms);
        if took > verdict.longest_wait_ms {
            verdict.longest_wait_ms = took;
            verdict.longest_wait_of = format!("{operation}, {}", asked.text);
        }
    }
}

/// The exclusive times of a run.
#[must_use]
pub fn windows(record: &Record) -> Vec<Window> {
    let mut found = Vec::new();
    for (operation, events) in by_operation(record) {
        let solo = record.solo.get(operation).map(String::as_str);
        found.extend(of_operation(operation, &events, solo));
    }
    let mut tokens: BTreeMap<u64, Window> = BTreeMap::new();
    for alive in &record.alive {
        let most = usize::from(alive.mode == "solo");
        let window = tokens.entry(alive.token).or_insert_with(|| Window {
            of: format!("token {} ({})", alive.token, alive.mode),
            from_ms: alive.at_ms,
            to_ms: alive.at_ms,
            most,
            solo: Some(alive.solo.clone()).filter(|_| most == 1),
        });
        window.from_ms = window.from_ms.min(alive.at_ms);
        window.to_ms = window.to_ms.max(alive.at_ms);
    }
    found.extend(tokens.into_values());
    found
}

/// From a grant to the last step that was done before another node was started, or before the operation took another way. The
/// leader stamps an entry before it is applied, so nothing that follows from it can have happened earlier.
fn of_operation(operation: &str, events: &[&Told], solo: Option<&str>) -> Option<Window> {
    let granted = events.iter().position(|event| event.kind == "granted")?;
    let mut window = Window {
        of: operation.to_owned(),
        from_ms: events[granted].wall_ms,
        to_ms: events[granted].wall_ms,
        most: 1,
        solo: solo.map(str::to_owned),
    };
    for event in &events[granted + 1..] {
        let starts = event.text.strip_prefix("done: start ").filter(|_| event.kind == "step_done");
        let nodes: BTreeSet<&str> = starts.map(|text| text.split(", ").collect()).unwrap_or_default();
        let others = nodes.iter().any(|text| Some(text.split(' ').next().unwrap_or_default()) != solo);
        match event.kind.as_str() {
            "step_done" if !nodes.is_empty() && others => break,
            "step_done" => window.to_ms = event.wall_ms,
            "aborting" | "force_released" | "ended" | "left_out" => {
                window.to_ms = event.wall_ms;
                break;
            }
            _ => {}
        }
    }
    Some(window)
}

fn runs(tree: &Tree, from: u64, to: u64) -> bool {
    tree.from_ms <= to && tree.to_ms >= from
}

/// The most trees at one moment.
fn most(trees: &[&Tree], from: u64, to: u64) -> usize {
    let inside: Vec<&&Tree> = trees.iter().filter(|tree| runs(tree, from, to)).collect();
    let at = |moment: u64| inside.iter().filter(|tree| runs(tree, moment, moment)).count();
    inside.iter().map(|tree| at(tree.from_ms.max(from))).max().unwrap_or(0)
}

/// What ran within a window although it must not, in words.
fn overlap(window: &Window, trees: &[Tree]) -> Option<String> {
    let all: Vec<&Tree> = trees.iter().collect();
    let count = most(&all, window.from_ms, window.to_ms);
    let inside = all.iter().filter(|tree| runs(tree, window.from_ms, window.to_ms));
    let wrong =
        inside.clone().filter(|tree| window.solo.as_ref().is_some_and(|solo| *solo != tree.node)).count();
    if count <= window.most && wrong == 0 {
        return None;
    }
    let names: Vec<String> = inside
        .map(|tree| format!("{} (pid {}, {}..{})", tree.node, tree.pid, tree.from_ms, tree.to_ms))
        .collect();
    let Window { of, from_ms, to_ms, most, .. } = window;
    Some(format!(
        "OVERLAP: {of}, {from_ms}..{to_ms}: {count} processes of the app where {most} may run, solo node {}: {}",
        window.solo.as_deref().unwrap_or("unknown"),
        names.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::record::{Alive, Calm, STRAY};

    fn told(index: u64, kind: &str, text: &str) -> Told {
        Told {
            index,
            wall_ms: index * 100,
            operation: Some("op".into()),
            node: None,
            kind: kind.into(),
            text: text.into(),
        }
    }

    fn tree(node: &str, from_ms: u64, to_ms: u64) -> Tree {
        Tree { node: node.into(), pid: 1, from_ms, to_ms, migrates: false }
    }

    /// A plugin change on node-1, which is alone from 300 to 500.
    fn record() -> Record {
        let events = vec![
            told(1, "submitted", "asked for: enable map"),
            told(3, "granted", "granted, token 2"),
            told(4, "step_done", "done: plugin-enable on node-1"),
            told(5, "step_done", "done: prove map loaded on node-1"),
            told(8, "step_done", "done: start node-2"),
            told(9, "ended", "ended: succeeded"),
        ];
        let trees = vec![tree("node-1", 0, 2000), tree("node-2", 0, 290), tree("node-2", 510, 2000)];
        let solo = BTreeMap::from([("op".to_owned(), "node-1".to_owned())]);
        Record { events, trees, solo, ..Record::default() }
    }

    #[test]
    fn what_is_alone_is_good() {
        let verdict = judge(&record());
        assert!(verdict.good, "{verdict:?}");
        assert_eq!((verdict.windows, verdict.longest_wait_ms, verdict.operations["succeeded"]), (1, 800, 1));
        let window = windows(&record()).remove(0);
        assert_eq!((window.from_ms, window.to_ms), (300, 500));
    }

    #[test]
    fn what_ran_beside_it_is_an_overlap() {
        for (node, from, to) in [(STRAY, 350, 360), ("node-2", 100, 300), ("node-3", 500, 900)] {
            let mut wrong = record();
            wrong.trees.push(tree(node, from, to));
            let verdict = judge(&wrong);
            assert!(!verdict.good && verdict.overlaps == 1, "{node}: {verdict:?}");
        }
        // Alone, but the wrong one.
        let mut wrong = record();
        wrong.trees = vec![tree("node-2", 0, 2000)];
        assert_eq!(judge(&wrong).overlaps, 1);
    }

    #[test]
    fn a_command_under_the_lock_has_its_own_word() {
        let alive = |mode: &str, at_ms| Alive { mode: mode.into(), token: 7, solo: "node-1".into(), at_ms };
        let mut held = record();
        held.alive = vec![alive("solo", 600), alive("solo", 700)];
        assert_eq!(judge(&held).overlaps, 1, "node-2 is back at 510");
        held.alive = vec![alive("all-stopped", 400), alive("all-stopped", 450)];
        assert_eq!(judge(&held).overlaps, 1, "node-1 runs");
        held.alive = vec![alive("solo", 400), alive("solo", 450)];
        assert_eq!(judge(&held).overlaps, 0);
    }

    #[test]
    fn damage_migrations_at_once_and_what_does_not_calm_down_are_bad() {
        let bad = |change: fn(&mut Record)| {
            let mut record = record();
            change(&mut record);
            !judge(&record).good
        };
        assert!(bad(|record| record.damage.push("two installs".into())));
        assert!(bad(|record| record.failures.push("a harmed store was not refused".into())));
        assert!(bad(|record| record.dropped = 1));
        assert!(bad(|record| {
            record.calms.push(Calm { from_ms: 0, took_ms: 9, reached: false, state: "lock held".into() });
        }));
        assert!(bad(|record| {
            let migrates = |node: &str| Tree { migrates: true, ..tree(node, 2100, 2200) };
            record.trees.extend([migrates("node-1"), migrates("node-2")]);
        }));
    }
}
