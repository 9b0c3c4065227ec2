//! Tables for people: columns without borders, wide as their content.

use std::collections::BTreeMap;

use comfy_table::{Table, presets::NOTHING};
use soloist_core::traffic::ServerSeen;
use soloist_core::view::{BalancerView, FenceView, LockView, NodeView, OperationView};

use super::{
    json::{Backup, Event, Fleet, NodePlugins},
    length,
};
use crate::clock;

/// Columns under a header.
pub fn columns<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).force_no_tty().set_header(header);
    for row in rows {
        table.add_row(row);
    }
    finish(table)
}

/// A fleet's nodes.
pub fn nodes(nodes: &[NodeView]) -> String {
    let row = |node: &NodeView| {
        let heard = node.heard.map_or("?".to_owned(), length);
        let code = node.code.clone().unwrap_or_else(|| "?".to_owned());
        [node.node.to_string(), node.app.clone(), node.wanted.clone(), code, heard, remarks(node)]
    };
    columns(["NODE", "APP", "WANTED", "CODE", "HEARD", "REMARKS"], nodes.iter().map(row))
}

/// A fleet's load balancers.
pub fn balancers(balancers: &[BalancerView]) -> String {
    let row = |balancer: &BalancerView| {
        let heard = balancer.heard.map_or("?".to_owned(), length);
        let servers = balancer.servers.iter().map(|(node, seen)| match seen {
            ServerSeen::In => node.to_string(),
            ServerSeen::Draining => format!("{node} (draining)"),
            ServerSeen::Out { .. } => format!("{node} (out)"),
        });
        let mut remarks = Vec::new();
        if balancer.lost {
            remarks.push("OUT OF CONTACT".to_owned());
        }
        remarks.extend(balancer.assumed.as_ref().map(|who| format!("ASSUMED off by {who}")));
        remarks.extend(balancer.unsteered.clone());
        if !balancer.acknowledged {
            remarks.push("not acknowledged yet".to_owned());
        }
        let servers = servers.collect::<Vec<_>>().join(", ");
        [balancer.node.to_string(), servers, heard, remarks.join("; ")]
    };
    columns(["BALANCER", "SENDS USERS TO", "HEARD", "REMARKS"], balancers.iter().map(row))
}

fn remarks(node: &NodeView) -> String {
    let mut remarks = Vec::new();
    if node.lost {
        remarks.push("OUT OF CONTACT".to_owned());
    }
    remarks.extend(node.foreign.iter().map(|found| format!("FOREIGN {found}")));
    if !node.detail.is_empty() {
        remarks.push(node.detail.clone());
    }
    remarks.extend(node.assumed.as_ref().map(|who| format!("ASSUMED stopped by {who}")));
    remarks.extend(node.fences.iter().filter_map(fence));
    remarks.extend(node.drained.then(|| "DRAINED by a person".to_owned()));
    remarks.extend(stale(node));
    if node.proven_stopped {
        remarks.push("proven stopped".to_owned());
    }
    if !node.acknowledged {
        remarks.push("not acknowledged yet".to_owned());
    }
    remarks.join("; ")
}

/// A fence that was asked for.
fn fence(fence: &FenceView) -> Option<String> {
    let FenceView { covers, detail, .. } = fence;
    match fence.state.as_str() {
        "wanted" => Some(format!("being FENCED from the {covers}: {detail}")),
        "holds" => Some(format!("FENCED from the {covers} {detail}")),
        "lifting" => Some(format!("its fence of the {covers} is being lifted: {detail}")),
        _ => None,
    }
}

/// What its app has not loaded, and since when.
fn stale(node: &NodeView) -> Option<String> {
    let since = node.stale_wall_ms.map(|since| format!(" since {}", clock::local(since))).unwrap_or_default();
    (!node.stale.is_empty()).then(|| format!("STALE{since}: {}", node.stale.join("; ")))
}

/// One node in full.
pub fn node(node: &NodeView) -> String {
    let heard = node.heard.map_or("unknown".to_owned(), |heard| format!("{} ago", length(heard)));
    let lost = if node.lost { ", OUT OF CONTACT" } else { "" };
    let detail = if node.detail.is_empty() { String::new() } else { format!(": {}", node.detail) };
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let mut lines = vec![
        ("node", node.node.to_string()),
        ("machine", node.machine.to_string()),
        ("agent", if node.address.is_empty() { "no HTTP address".into() } else { node.address.clone() }),
        ("heard", format!("{heard}{lost}")),
        ("wanted", node.wanted.clone()),
        ("acknowledged", yes(node.acknowledged)),
        ("app", format!("{}{detail}", node.app)),
        ("proven stopped", yes(node.proven_stopped)),
        ("code", node.code.clone().unwrap_or_else(|| "unknown".to_owned())),
    ];
    lines.extend(node.assumed.clone().map(|who| ("assumed stopped", format!("by {who}"))));
    let fences = node.fences.iter();
    lines.extend(fences.map(|fence| {
        ("fence", format!("{} by {}: {} {}", fence.covers, fence.carrier, fence.state, fence.detail))
    }));
    lines.extend(node.foreign.iter().map(|found| ("foreign", found.clone())));
    lines.extend(node.drained.then(|| ("users", "kept away by a person: soloist node undrain".to_owned())));
    lines.extend(stale(node).map(|stale| ("plugins", stale)));
    facts(&lines)
}

/// Lines of a name and what it is.
pub(super) fn facts(lines: &[(&str, String)]) -> String {
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    lines.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect()
}

/// The lock in one sentence.
pub fn lock(lock: &LockView, request: Option<&str>) -> String {
    let Some(operation) = lock.operation.as_ref().filter(|_| lock.held) else { return "free".to_owned() };
    let token = lock.token.map(|token| format!(", token {token}")).unwrap_or_default();
    let age = lock.age.map(|age| format!(", for {}", length(age))).unwrap_or_default();
    let by =
        lock.by.as_deref().filter(|by| !by.is_empty()).map(|by| format!(", by {by}")).unwrap_or_default();
    let reason = lock.reason.as_deref().filter(|reason| !reason.is_empty());
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    let request = request.map(|request| format!(" ({request})")).unwrap_or_default();
    format!("held by {operation}{request}{token}{age}{by}{reason}")
}

/// Operations in a list.
pub fn operations(operations: &[OperationView]) -> String {
    let row = |operation: &OperationView| {
        [
            operation.id.to_string(),
            operation.request.clone(),
            operation.status.clone(),
            clock::local(operation.submitted_wall_ms),
            length(operation.age),
            operation.by.clone(),
            operation.detail.clone(),
        ]
    };
    columns(["ID", "REQUEST", "STATUS", "SINCE", "AGE", "BY", "DETAIL"], operations.iter().map(row))
}

/// Backups in a list.
pub fn backups(backups: &[Backup]) -> String {
    let row = |backup: &Backup| {
        let fact = |name: &str| backup.facts.get(name).cloned().unwrap_or_default();
        [
            backup.backup.clone(),
            backup.node.clone(),
            clock::local(backup.wall_ms),
            backup.version.clone().unwrap_or_else(|| "?".to_owned()),
            fact("size"),
            fact("duration"),
        ]
    };
    columns(["BACKUP", "NODE", "MADE", "VERSION", "SIZE", "TOOK"], backups.iter().map(row))
}

/// One backup in full.
pub fn backup(backup: &Backup) -> String {
    let mut lines = vec![
        ("backup", backup.backup.clone()),
        ("node", backup.node.clone()),
        ("made", clock::local(backup.wall_ms)),
        ("version", backup.version.clone().unwrap_or_else(|| "unknown".to_owned())),
    ];
    lines.extend(backup.facts.iter().map(|(name, value)| (name.as_str(), value.clone())));
    facts(&lines)
}

/// Fleets in a list.
pub fn fleets(fleets: &[Fleet]) -> String {
    let row = |fleet: &Fleet| {
        [
            fleet.fleet.clone(),
            if fleet.active { "yes" } else { "never started" }.to_owned(),
            format!("{} of {}", fleet.serving, fleet.nodes),
            fleet.operation.clone().unwrap_or_else(|| "free".to_owned()),
        ]
    };
    columns(["FLEET", "ACTIVE", "SERVING", "LOCK"], fleets.iter().map(row))
}

/// An event on one line.
pub fn event(event: &Event) -> String {
    let who = [&event.operation, &event.node].into_iter().flatten().cloned().collect::<Vec<_>>().join(" ");
    let gap = if who.is_empty() { "" } else { "  " };
    format!("{}  {who}{gap}{}", clock::local(event.wall_ms), event.text)
}

/// Plugins by name, with a column per node.
pub fn plugins(nodes: &[NodePlugins]) -> String {
    let mut rows: BTreeMap<(&str, &str), Vec<Option<bool>>> = BTreeMap::new();
    for (at, node) in nodes.iter().enumerate() {
        for plugin in node.plugins.iter().flatten() {
            let states =
                rows.entry((&plugin.name, &plugin.package)).or_insert_with(|| vec![None; nodes.len()]);
            if let Some(state) = states.get_mut(at) {
                *state = Some(plugin.enabled);
            }
        }
    }
    let mut table = vec![
        ["NAME", "PACKAGE"]
            .into_iter()
            .map(str::to_owned)
            .chain(nodes.iter().map(|node| node.node.clone()))
            .collect(),
    ];
    for ((name, package), states) in rows {
        let word = |(state, node): (&Option<bool>, &NodePlugins)| match (state, &node.plugins) {
            (Some(true), _) => "enabled",
            (Some(false), _) => "-",
            (None, Some(_)) => "missing",
            (None, None) => "?",
        };
        let states = states.iter().zip(nodes).map(word).map(str::to_owned);
        table.push([name.to_owned(), package.to_owned()].into_iter().chain(states).collect::<Vec<String>>());
    }
    aligned(&table)
}

/// Rows of any length, the first one as header.
fn aligned(rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).force_no_tty();
    let mut rows = rows.iter();
    if let Some(header) = rows.next() {
        table.set_header(header);
    }
    for row in rows {
        table.add_row(row);
    }
    finish(table)
}

fn finish(mut table: Table) -> String {
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((u16::from(index > 0), 1));
    }
    // The rightmost cells are padded too.
    table.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
