//! A fleet, and an operation, as a page of text.

use soloist_core::{
    state::Desired,
    view::{FleetView, OperationView, StepView},
};

use super::{
    json::Fresh,
    length,
    table::{facts, lock, nodes},
};

/// A fleet: what it is, its lock, its nodes, its operations.
pub fn fleet(view: &FleetView, fresh: &Fresh) -> String {
    let mut text = stale(fresh);
    let desired = match (view.active, view.desired) {
        (false, _) => "never started",
        (true, Desired::Run) => "should run",
        (true, Desired::Stop) => "stopped",
    };
    let database = view.database.as_ref().map_or("unknown".to_owned(), |database| {
        let version = database.version.as_ref().map_or("empty".to_owned(), ToString::to_string);
        format!("{version} ({})", database.identity)
    });
    let request = view.current.as_ref().map(|operation| operation.request.as_str());
    text.push_str(&facts(&[
        ("fleet", format!("{}, {desired}", view.fleet)),
        ("database", database),
        ("lock", lock(&view.lock, request)),
        ("answer", answer(fresh)),
    ]));
    text.push('\n');
    if view.nodes.is_empty() {
        text.push_str("no nodes\n");
    } else {
        text.push_str(&nodes(&view.nodes));
    }
    if let Some(current) = &view.current {
        text.push('\n');
        text.push_str(&operation(current));
    }
    if !view.queue.is_empty() {
        text.push_str("\nwaiting for the lock\n");
    }
    for queued in &view.queue {
        let age = length(queued.age);
        text.push_str(&format!(
            "  {}: {}, {}, by {}, for {age}\n",
            queued.id, queued.request, queued.status, queued.by
        ));
    }
    text
}

/// The line that nobody overlooks; empty for a current answer.
pub fn stale(fresh: &Fresh) -> String {
    if !fresh.stale {
        return String::new();
    }
    let age = fresh.last_contact_ms.map_or_else(
        || "never heard a leader".to_owned(),
        |ms| format!("heard a leader {} ago", length(soloist_core::time::Millis(ms))),
    );
    format!("STALE: this may be out of date. Member {} {age}: {}\n\n", fresh.member, fresh.reason)
}

fn answer(fresh: &Fresh) -> String {
    let leader = fresh.leader.map_or("no leader known".to_owned(), |leader| format!("leader {leader}"));
    format!("by member {}, {leader}, entry {}", fresh.member, fresh.applied)
}

/// An operation: what, who, steps, what it waits for, what can be done.
pub fn operation(operation: &OperationView) -> String {
    let detail = if operation.detail.is_empty() { String::new() } else { format!(": {}", operation.detail) };
    let mut text = format!("operation {}: {}\n", operation.id, operation.request);
    let mut lines = vec![("status", format!("{}{detail}", operation.status))];
    let reason = if operation.reason.is_empty() { String::new() } else { format!(": {}", operation.reason) };
    lines.push(("asked", format!("by {}, {} ago{reason}", operation.by, length(operation.age))));
    if operation.ended {
        lines.pop();
        lines.push(("asked", format!("by {}, took {}{reason}", operation.by, length(operation.age))));
    }
    lines.extend(operation.solo.as_ref().map(|solo| ("solo node", solo.to_string())));
    lines.extend(operation.token.map(|token| ("token", token.to_string())));
    if operation.attempt > 1 {
        lines.push(("attempt", operation.attempt.to_string()));
    }
    if operation.holder_lost {
        lines.push(("holder", "LOST: its lease was not renewed".to_owned()));
    }
    lines.extend(operation.left_out.iter().map(|(node, why)| ("left out", format!("{node}: {why}"))));
    text.push_str(&indented(&facts(&lines)));
    text.push_str(&steps(&operation.steps));
    section(
        &mut text,
        "waits for",
        operation.waits.iter().map(|wait| match &wait.node {
            Some(node) => format!("{node}: {}", wait.what),
            None => wait.what.clone(),
        }),
    );
    section(&mut text, "choices", operation.choices.iter().cloned());
    text
}

fn steps(steps: &[StepView]) -> String {
    if steps.is_empty() {
        return String::new();
    }
    let took = |step: &StepView| step.took.map(length).unwrap_or_default();
    let width = steps.iter().map(|step| took(step).len()).max().unwrap_or(0);
    let mut text = "  steps\n".to_owned();
    for step in steps {
        let mark = match step.state.as_str() {
            "done" => "[x]",
            "now" => "[>]",
            _ => "[ ]",
        };
        text.push_str(&format!("    {mark} {:>width$}  {}\n", took(step), step.step));
    }
    text
}

fn section(text: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    let mut lines = lines.peekable();
    if lines.peek().is_some() {
        text.push_str(&format!("  {title}\n"));
    }
    for line in lines {
        text.push_str(&format!("    {line}\n"));
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
