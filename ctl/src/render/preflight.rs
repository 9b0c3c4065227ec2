//! How nodes differ, as a page of text.

use soloist_core::{
    ids::NodeId,
    preflight::{Finding, Severity},
};

use super::{json::Preflight, status::stale, table::columns};

/// The findings, each with its remedy on a line of its own, and their sum; or that all nodes agree.
pub fn page(found: &Preflight) -> String {
    let mut text = stale(&found.freshness);
    if !found.findings.is_empty() {
        text.push_str(&columns(["SEVERITY", "CHECK", "NODES", "WHAT"], found.findings.iter().map(row)));
        text.push('\n');
    }
    text.push_str(&sum(found));
    text
}

fn row(finding: &Finding) -> [String; 4] {
    let severity = match finding.severity {
        Severity::Problem => "PROBLEM",
        Severity::Warning => "warning",
    };
    let nodes = finding.nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ");
    let what = format!("{}\n  -> {}", finding.text, finding.remedy);
    [severity.to_owned(), finding.check.clone(), nodes, what]
}

fn sum(found: &Preflight) -> String {
    let (nodes, checks) = (found.nodes.len(), found.checks.len());
    let of = |severity| found.findings.iter().filter(|finding| finding.severity == severity).count();
    match (nodes, of(Severity::Problem), of(Severity::Warning)) {
        (0, ..) => "no nodes\n".to_owned(),
        (1, 0, 0) => format!("the only node passes {checks} checks\n"),
        (_, 0, 0) => format!("all {nodes} nodes agree on {checks} checks\n"),
        (_, problems, warnings) => format!(
            "{}, {}: {}, {}\n",
            counted(nodes, "node"),
            counted(checks, "check"),
            counted(problems, "problem"),
            counted(warnings, "warning")
        ),
    }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
