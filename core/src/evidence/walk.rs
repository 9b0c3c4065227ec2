//! Along a chain: whether it is whole, which part of it an operation needs, and what ran beside the solo node.

use super::{Case, Fact, Grant, Hull, Mark, Record, Run};
use crate::ids::Generation;

/// Where a chain is broken: the record after each place. That hashes are right is for the caller to see.
#[must_use]
pub fn breaks(records: &[Record]) -> Vec<usize> {
    let follows = |pair: &[Record]| match pair {
        [before, after] => {
            after.chain == before.chain && after.seq == before.seq + 1 && after.prev == before.hash
        }
        _ => true,
    };
    records.windows(2).enumerate().filter(|(_, pair)| !follows(pair)).map(|(at, _)| at + 1).collect()
}

/// The part of a node's records that an operation needs: from its stop, or from what ran then, to what was launched after it.
#[must_use]
pub fn excerpt(case: &Case, node: &crate::ids::NodeId, records: &[Record]) -> Vec<Record> {
    let Some(first) = case.grants.first() else { return Vec::new() };
    let about = |record: &Record| match &record.fact {
        Fact::Watched(watch) => watch.token >= case.token,
        Fact::Launching(launching) => launching.generation.0 >= case.token.0,
        Fact::Resting { generation } => generation.0 >= case.token.0,
        Fact::Began(run) => run.generation.is_some_and(|generation| generation.0 >= case.token.0),
        Fact::Opened { .. } | Fact::Unlaunched { .. } | Fact::Ended(_) => false,
    };
    let anchor = match first.nodes.get(node) {
        Some(super::Stood::Stopped(generation)) => anchor(records, *generation),
        _ => None,
    };
    let during = records.iter().position(about).unwrap_or(records.len());
    let upto = anchor.unwrap_or(during).min(during);
    // What ran when it began.
    let before = records.iter().take(upto).rposition(|record| matches!(record.fact, Fact::Began(_)));
    let from = before.unwrap_or(upto);
    let last = case.grants.last().and_then(|grant| grant.until);
    let over = |record: &Record| {
        last.is_some_and(|until| launched_since(&record.fact, until) && !watches(&record.fact, case))
    };
    let to = match records.iter().rposition(|record| watches(&record.fact, case)) {
        // With what comes after it: whose sessions the last looks may have seen.
        Some(last) => records.iter().skip(last).position(over).map(|more| last + more + 1),
        None => records.iter().position(over).map(|at| at + 1),
    };
    let began = |at: usize| {
        // A launch without its beginning would say less than is known.
        records.iter().skip(at).take(2).take_while(|record| matches!(record.fact, Fact::Began(_))).count()
    };
    let to = to.map_or(records.len(), |to| to + began(to));
    records.get(from..to.max(from)).unwrap_or_default().to_vec()
}

fn watches(fact: &Fact, case: &Case) -> bool {
    matches!(fact, Fact::Watched(watch) if watch.token == case.token)
}

/// The record of the stop that was acknowledged with this generation.
pub(super) fn anchor(records: &[Record], stop: Generation) -> Option<usize> {
    records
        .iter()
        .position(|record| matches!(record.fact, Fact::Resting { generation } if generation == stop))
}

/// Whether a fact belongs to an assignment that was made at or after this place of the log.
fn launched_since(fact: &Fact, mark: Mark) -> bool {
    match fact {
        Fact::Launching(launching) => launching.generation.0 >= mark.index,
        Fact::Resting { generation } => generation.0 >= mark.index,
        Fact::Began(run) => run.generation.is_some_and(|generation| generation.0 >= mark.index),
        Fact::Opened { .. } | Fact::Unlaunched { .. } | Fact::Ended(_) | Fact::Watched(_) => false,
    }
}

/// What a stopped node's chain says about an exclusive part.
#[derive(Debug, Default)]
pub(super) struct Walk<'a> {
    /// Trees that ran although they must not, with the moments at which each ran for certain.
    pub(super) ran: Vec<(&'a Run, u64, Option<u64>)>,
    /// Launches of which it is not known what came of them.
    pub(super) maybe: Vec<u64>,
    /// The last record before the end of the exclusive part, if the chain does not reach beyond that.
    pub(super) stops_at: Option<&'a Record>,
    /// Whether there is a hole in the part that counts.
    pub(super) hole: Option<(u64, u64)>,
}

/// Goes from the node's stop to the first sign that the exclusive part was over, and names what ran between them.
pub(super) fn walk<'a>(records: &'a [Record], stop: usize, grant: &Grant, hull: Hull) -> Walk<'a> {
    let mut walk = Walk::default();
    let holes = breaks(records);
    let mut open: Option<usize> = None;
    let mut pending: Vec<u64> = Vec::new();
    for (at, record) in records.iter().enumerate().skip(stop) {
        if at > stop && holes.contains(&at) {
            let before = records.get(at - 1).map_or(0, |record| record.seq);
            walk.hole = Some((before, record.seq));
        }
        if let Some(until) = grant.until
            && ends(record, until, hull)
        {
            walk.maybe = pending;
            return walk;
        }
        match &record.fact {
            Fact::Launching(launching) => pending.push(launching.launch.0),
            Fact::Unlaunched { launch } => pending.retain(|pending| *pending != launch.0),
            Fact::Began(run) => {
                pending.retain(|pending| run.launch.map(|launch| launch.0) != Some(*pending));
                open = Some(walk.ran.len());
                walk.ran.push((run, run.began_ms, None));
            }
            Fact::Ended(ended) => {
                if let Some((_, _, end)) = open.take().and_then(|open| walk.ran.get_mut(open)) {
                    *end = ended.not_after_ms;
                }
            }
            Fact::Opened { .. } | Fact::Resting { .. } | Fact::Watched(_) => {}
        }
    }
    walk.maybe = pending;
    walk.stops_at = records.last().filter(|_| grant.until.is_some());
    walk
}

/// Whether a record, and with it all that follow, belongs to the time after the exclusive part: by its generation, or by a
/// clock that cannot be wrong about it.
fn ends(record: &Record, until: Mark, hull: Hull) -> bool {
    if launched_since(&record.fact, until) {
        return true;
    }
    let moment = match &record.fact {
        // They tell of what was before them.
        Fact::Began(run) => run.began_ms,
        Fact::Ended(_) => return false,
        Fact::Opened { .. }
        | Fact::Launching(_)
        | Fact::Unlaunched { .. }
        | Fact::Resting { .. }
        | Fact::Watched(_) => record.at.boot_ms,
    };
    hull.after(moment, until.wall_ms)
}
