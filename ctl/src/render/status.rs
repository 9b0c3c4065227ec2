//! A fleet, and an operation, as a page of text.

use soloist_core::{
    state::Desired,
    view::{FleetView, OperationView, OutageView, StepView},
};

use super::{
    json::Fresh,
    length,
    table::{balancers, facts, lock, nodes},
};
use crate::clock;

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
    if let Some(restored) = &view.restored {
        let at = clock::local(restored.wall_ms);
        let next = if restored.resumed {
            "resumed, and goes on when every agent has taken note"
        } else {
            "agents are told nothing until: soloist fleet resume"
        };
        let what = format!("from a backup of the coordinators of {at}; {next}");
        text.push_str(&facts(&[("restored", what)]));
    }
    if let Some(freeze) = &view.freeze {
        let until = clock::local(freeze.until_wall_ms);
        text.push_str(&facts(&[("frozen", format!("until {until} by {}: {}", freeze.by, freeze.reason))]));
    }
    text.push('\n');
    if view.nodes.is_empty() {
        text.push_str("no nodes\n");
    } else {
        text.push_str(&nodes(&view.nodes));
    }
    if !view.balancers.is_empty() {
        text.push('\n');
        text.push_str(&balancers(&view.balancers));
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
    lines.extend(operation.writes_since_wall_ms.map(|since| {
        ("writes", format!("users may have written since {}; going back loses that", clock::local(since)))
    }));
    lines.extend(operation.left_out.iter().map(|(node, why)| ("left out", format!("{node}: {why}"))));
    text.push_str(&indented(&facts(&lines)));
    text.push_str(&steps(&operation.steps));
    if let Some((first, rest)) = operation.outage.as_ref().map(outage).as_deref().and_then(<[_]>::split_first)
    {
        section(&mut text, first, rest.iter().map(|line| line.strip_prefix("  ").unwrap_or(line).to_owned()));
    }
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

/// What is proven about an operation.
pub fn evidence(lines: &[String]) -> String {
    let mut text = String::new();
    section(&mut text, "evidence", lines.iter().cloned());
    text
}

/// An outage: how long, on what it went, and what users saw.
pub fn outage(outage: &OutageView) -> Vec<String> {
    let end = if outage.over { "" } else { " so far" };
    let width = outage.parts.iter().map(|(_, took)| length(*took).len()).max().unwrap_or(0);
    let parts = outage.parts.iter().map(|(step, took)| format!("  {:>width$}  {step}", length(*took)));
    let first = format!("outage: no node for users for {}{end}", length(outage.took));
    let saw = (!outage.users_saw.is_empty()).then(|| format!("  users saw: {}", outage.users_saw));
    std::iter::once(first).chain(parts).chain(saw).collect()
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
            "left" => "[-]",
            _ => "[ ]",
        };
        let expected = step.expected.map(|expected| format!(" (about {})", length(expected)));
        text.push_str(&format!(
            "    {mark} {:>width$}  {}{}\n",
            took(step),
            step.step,
            expected.unwrap_or_default()
        ));
        for (node, found) in &step.found {
            text.push_str(&format!("        {:width$}  {node}: {found}\n", ""));
        }
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
