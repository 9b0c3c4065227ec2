//! An operation's state as lines: what is new since the last look.

use std::{collections::BTreeMap, time::Duration};

use soloist_core::view::{NodeView, OperationView};

use super::node;
use crate::render::length;

/// The app's own progress (`load plugin 9/77`) makes a line of its own at most so often.
const DETAIL_EVERY: Duration = Duration::from_secs(5);

/// What was told of an operation.
#[derive(Debug, Default)]
pub(super) struct Story {
    done: usize,
    left: usize,
    doing: String,
    status: String,
    waits: BTreeMap<String, (String, Duration)>,
    left_out: usize,
}

/// A line, and whether it stays or is only true for the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// Something has happened.
    Happened(String),
    /// Something is waited for.
    Waits(String),
}

impl Story {
    /// The lines that are new. `elapsed` is the time since it is followed.
    pub(super) fn news(
        &mut self,
        operation: &OperationView,
        nodes: &[NodeView],
        elapsed: Duration,
    ) -> Vec<Line> {
        let mut lines = Vec::new();
        let done: Vec<_> = operation.steps.iter().filter(|step| step.state == "done").collect();
        // An abort may make the plan shorter than what was told.
        for step in done.iter().skip(self.done) {
            let took = step.took.map(|took| format!(" ({})", length(took))).unwrap_or_default();
            lines.push(Line::Happened(format!("done: {}{took}", step.step)));
            lines.extend(step.found.iter().map(|(node, found)| Line::Happened(format!("  {node}: {found}"))));
        }
        self.done = self.done.max(done.len());
        let left: Vec<_> = operation.steps.iter().filter(|step| step.state == "left").collect();
        for step in left.iter().skip(self.left) {
            lines.push(Line::Happened(format!("not done: {}: the operation takes another way", step.step)));
        }
        self.left = self.left.max(left.len());
        for (node, why) in operation.left_out.iter().skip(self.left_out) {
            lines.push(Line::Happened(format!("left out: {node}: {why}")));
        }
        self.left_out = self.left_out.max(operation.left_out.len());
        let status = match operation.status.as_str() {
            // The end is told by the summary, and the rest by steps.
            "running" | "confirming" | "succeeded" | "aborted" | "rolled_back" => String::new(),
            _ if operation.detail.is_empty() => operation.status.clone(),
            status => format!("{status}: {}", operation.detail),
        };
        if status != self.status {
            if !status.is_empty() {
                lines.push(Line::Happened(status.clone()));
                let blocked = operation.status == "blocked";
                let choices = operation.choices.iter().filter(|_| blocked);
                lines.extend(choices.map(|choice| Line::Happened(format!("  choice: {choice}"))));
            } else if self.status.starts_with("blocked") && !operation.ended {
                lines.push(Line::Happened("goes on".to_owned()));
            }
            self.status = status;
        }
        let now = operation.steps.iter().find(|step| step.state == "now");
        let doing = now.map(|step| step.step.clone()).unwrap_or_default();
        if doing != self.doing {
            self.waits.clear();
            if !doing.is_empty() {
                lines.push(Line::Waits(doing.clone()));
            }
            self.doing = doing;
        }
        lines.extend(self.new_waits(operation, nodes, elapsed));
        lines
    }

    fn new_waits(&mut self, operation: &OperationView, nodes: &[NodeView], elapsed: Duration) -> Vec<Line> {
        let mut lines = Vec::new();
        for (who, what, detail) in waits(operation, nodes) {
            let before = self.waits.get(&who);
            let same = before.is_some_and(|(told, _)| *told == what);
            let recent = before.is_some_and(|(_, at)| elapsed.saturating_sub(*at) < DETAIL_EVERY);
            // Without progress of its own, the same wait is told once.
            if same && (recent || detail.is_empty()) {
                continue;
            }
            let detail = if detail.is_empty() { detail } else { format!(" ({detail})") };
            lines.push(Line::Waits(format!("  waits for {who}{what}{detail}")));
            self.waits.insert(who, (what, elapsed));
        }
        lines
    }
}

/// What it waits for: who with a colon, what, and the app's own progress.
fn waits(operation: &OperationView, nodes: &[NodeView]) -> Vec<(String, String, String)> {
    let each = operation.waits.iter().map(|wait| {
        let who = wait.node.as_ref().map(|node| format!("{node}: ")).unwrap_or_default();
        let detail = node(nodes, wait.node.as_ref()).map(|node| node.detail.clone()).unwrap_or_default();
        // A detail that the wait itself says already adds nothing.
        let detail = if wait.what.contains(&detail) { String::new() } else { detail };
        (who, wait.what.clone(), detail)
    });
    each.collect()
}

/// The moment on one line, for a terminal.
pub(super) fn moment(operation: &OperationView, nodes: &[NodeView]) -> String {
    let count = operation.steps.len();
    let at = operation.steps.iter().position(|step| step.state == "now");
    let step = at.and_then(|at| operation.steps.get(at).map(|step| (at + 1, &step.step)));
    let head = match (operation.status.as_str(), step) {
        ("running", Some((at, step))) => format!("[{at}/{count}] {step}"),
        (status, Some((at, step))) => format!("{status}: [{at}/{count}] {step}"),
        (status, None) => status.to_owned(),
    };
    let waits: Vec<String> = waits(operation, nodes)
        .into_iter()
        .map(
            |(who, what, detail)| {
                if detail.is_empty() { format!("{who}{what}") } else { format!("{who}{what} ({detail})") }
            },
        )
        .collect();
    if waits.is_empty() { head } else { format!("{head}, waits for {}", waits.join("; ")) }
}

#[cfg(test)]
mod tests {
    use soloist_core::{condition::Wait, ids::NodeId, time::Millis, view::StepView};

    use super::*;
    use crate::render::example;

    fn operation() -> OperationView {
        let step = |step: &str, state: &str, took| StepView {
            step: step.into(),
            state: state.into(),
            took: Some(Millis(took)),
            expected: None,
            found: std::collections::BTreeMap::new(),
        };
        OperationView {
            waits: vec![Wait { node: Some(NodeId::new("node-1").unwrap()), what: "to serve".into() }],
            steps: vec![step("reach node-1", "done", 300), step("start node-1", "now", 100)],
            ..example()
        }
    }

    #[test]
    fn each_change_is_told_once() {
        let mut story = Story::default();
        let mut operation = operation();
        let second = Duration::from_secs(1);
        let told = story.news(&operation, &[], second);
        assert_eq!(
            told,
            [
                Line::Happened("done: reach node-1 (0.3 s)".into()),
                Line::Waits("start node-1".into()),
                Line::Waits("  waits for node-1: to serve".into()),
            ]
        );
        assert_eq!(story.news(&operation, &[], second * 9), []);
        operation.status = "blocked".into();
        operation.detail = "no contact with node-1".into();
        operation.choices = vec!["wait".into()];
        let told = story.news(&operation, &[], second * 10);
        assert_eq!(
            told,
            [
                Line::Happened("blocked: no contact with node-1".into()),
                Line::Happened("  choice: wait".into())
            ]
        );
        operation.status = "running".into();
        assert_eq!(story.news(&operation, &[], second * 11), [Line::Happened("goes on".into())]);
        operation.steps[1].state = "left".into();
        operation.waits.clear();
        let told = story.news(&operation, &[], second * 12);
        let text = "not done: start node-1: the operation takes another way";
        assert_eq!(told, [Line::Happened(text.into())]);
    }

    #[test]
    fn the_moment_fits_on_one_line() {
        assert_eq!(moment(&operation(), &[]), "[2/2] start node-1, waits for node-1: to serve");
    }
}
