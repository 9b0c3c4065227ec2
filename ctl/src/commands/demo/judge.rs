//! The verdict: what the monitor saw, held against what the coordinators say about when the lock was granted.
//!
//! The monitor knows nothing of Soloist, and the coordinators know nothing of the monitor. They share a machine and so a wall
//! clock, by which the events are laid over the recording.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use soloist_core::ids::OperationId;
use soloist_demo::{
    monitor::{Mark, Recording, Window},
    standin::Database,
};

use super::stage::Stage;
use crate::{
    error::{CtlError, Result},
    render::json::Event,
};

/// Width of the timeline's bars.
const WIDTH: usize = 72;
/// A longer look away than this proves too little. The monitor looks every 20 ms, but a busy machine may let it wait; a stand-in that
/// ran for less than this never came to serve, and what it did to the database before is written down there.
const GAP_MAX: Duration = Duration::from_secs(2);

/// When what happened, by the coordinators, in the monitor's time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Times {
    /// From the grant of the install until the first node served plainly.
    install: Option<Window>,
    /// From the grant of the plugin change until the solo node had proved it.
    plugin: Option<Window>,
}

/// What is said in the end.
pub(super) struct Judgement {
    pub(super) text: String,
    pub(super) clean: bool,
}

impl Times {
    /// Reads the events; `seen_from` is the wall clock's time at the beginning of the recording.
    pub(super) fn new(
        events: &[Event],
        install: &OperationId,
        plugin: &OperationId,
        seen_from: SystemTime,
    ) -> Times {
        let from = seen_from.duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = |event: &Event| Duration::from_millis(event.wall_ms).saturating_sub(from);
        let window = |id: &OperationId, last: &dyn Fn(&str) -> bool| {
            let mut own = events.iter().filter(|event| event.operation.as_deref() == Some(id.as_str()));
            let granted = own.clone().find(|event| event.kind == "granted")?;
            let end = own.find(|event| event.kind == "step_done" && last(&event.text))?;
            Some(Window { from: at(granted), to: at(end) })
        };
        Times {
            install: window(install, &|text| text.contains("into a plain run")),
            plugin: window(plugin, &|text| text.contains("prove ") && text.ends_with(" on node-1")),
        }
    }
}

/// Judges.
pub(super) fn judge(recording: &Recording, times: &Times, stage: &Stage) -> Result<Judgement> {
    let damage = Database::new(stage.database())
        .damage()
        .map_err(|error| CtlError::failed(format!("cannot read the stand-in's database: {error:#}")))?;
    let folder = stage.path().display().to_string();
    // Apps of others on this machine are none of the demo's business.
    let own = recording.only(|interval| interval.command.contains(&folder));
    Ok(judgement(own, times, &damage))
}

fn judgement(mut recording: Recording, times: &Times, damage: &[String]) -> Judgement {
    let mut text = String::from("\n");
    let mut wrong = Vec::new();
    let mut verdicts = Vec::new();
    let windows = [
        ("during the first start, until the first node served", "first start", times.install),
        ("while the lock was held for the plugin change", "plugin change", times.plugin),
    ];
    let mut marks = Vec::new();
    for (title, name, window) in windows {
        let Some(window) = window else {
            wrong.push(format!("the events do not say when the lock was held for the {name}"));
            continue;
        };
        marks.push(Mark { at: window.from, text: format!("{name}: granted") });
        marks.push(Mark { at: window.to, text: format!("{name}: the other nodes may start") });
        let verdict = recording.verdict(title, window);
        if verdict.max_concurrent > 1 || verdict.shares.iter().any(|share| share.label != "node-1") {
            wrong.push(format!("{title}, more than node-1 ran"));
        }
        if verdict.max_concurrent == 0 {
            wrong.push(format!("{title}, nothing ran"));
        }
        verdicts.push(verdict.to_string());
    }
    wrong.extend(damage.iter().map(|damage| format!("the database was damaged: {damage}")));
    if recording.longest_gap > GAP_MAX || recording.dropped > 0 {
        wrong.push(format!("the monitor did not look closely enough: {}", recording.resolution()));
    }
    marks.extend(std::mem::take(&mut recording.marks));
    marks.sort_by_key(|mark| mark.at);
    recording.marks = marks;
    // Writing to a String cannot fail.
    let _ =
        writeln!(text, "app processes, as an independent monitor saw them ({}):\n", recording.resolution());
    text.push_str(&recording.timeline(recording.whole(), WIDTH));
    text.push('\n');
    for verdict in &verdicts {
        let _ = writeln!(text, "{verdict}");
    }
    if wrong.is_empty() {
        text.push_str("the database is undamaged\nverdict: clean\n");
    } else {
        for wrong in &wrong {
            let _ = writeln!(text, "WRONG: {wrong}");
        }
        text.push_str("verdict: NOT clean\n");
    }
    Judgement { text, clean: wrong.is_empty() }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use soloist_demo::monitor::Interval;

    use super::*;

    fn event(operation: &str, wall_ms: u64, kind: &str, text: &str) -> Event {
        Event {
            index: 1,
            time_ms: 0,
            wall_ms,
            operation: Some(operation.into()),
            node: None,
            kind: kind.into(),
            text: text.into(),
        }
    }

    fn times() -> Times {
        let events = [
            event("start-1", 11_000, "granted", "granted, token 3"),
            event("start-1", 12_000, "step_done", "done: turn the right of node-1 into a plain run"),
            event("plugin-1", 14_000, "granted", "granted, token 9"),
            event("plugin-1", 15_000, "step_done", "done: prove map loaded on node-1"),
            event("plugin-1", 16_000, "step_done", "done: prove map loaded on node-2, node-3"),
        ];
        let id = |name: &str| OperationId::new(name).unwrap();
        let from = UNIX_EPOCH + Duration::from_secs(10);
        Times::new(&events, &id("start-1"), &id("plugin-1"), from)
    }

    fn recording(intervals: &[(&str, u64, u64)]) -> Recording {
        let each = intervals.iter().map(|(label, start, end)| Interval {
            label: (*label).into(),
            pid: 7,
            start_ticks: *start,
            command: "app".into(),
            start: Duration::from_millis(*start),
            end: Duration::from_millis(*end),
            ended: true,
        });
        Recording {
            epoch: Instant::now(),
            duration: Duration::from_secs(7),
            intervals: each.collect(),
            marks: Vec::new(),
            samples: 350,
            longest_gap: Duration::from_millis(25),
            dropped: 0,
        }
    }

    #[test]
    fn one_process_while_the_lock_was_held_is_clean() {
        let judged = judgement(recording(&[("node-1", 1100, 7000), ("node-2", 2100, 3900)]), &times(), &[]);
        assert!(judged.clean, "{}", judged.text);
        assert!(
            judged
                .text
                .contains("while the lock was held for the plugin change: 1 app process, node-1, 1.0 s")
        );
        assert!(judged.text.contains("A    1.0 s  first start: granted"), "{}", judged.text);
    }

    #[test]
    fn a_second_process_damage_or_silence_is_not_clean() {
        let two = [("node-1", 1100, 7000), ("node-2", 4500, 4600)];
        assert!(!judgement(recording(&two), &times(), &[]).clean);
        let one = [("node-1", 1100, 7000)];
        assert!(judgement(recording(&one), &times(), &[]).clean);
        assert!(!judgement(recording(&one), &times(), &["two installs".into()]).clean);
        assert!(!judgement(recording(&one), &Times::default(), &[]).clean);
        assert!(!judgement(recording(&[]), &times(), &[]).clean);
    }
}
