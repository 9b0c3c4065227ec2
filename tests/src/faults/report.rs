//! The report folder: the raw record, the verdict for programs, and a page for people with a picture of what happened when.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::record::Record;
use super::verdict::{Verdict, judge, windows};

/// The names of the files.
const VERDICT: &str = "verdict.json";
const PAGE: &str = "report.md";
const PICTURE: &str = "timeline.svg";

/// Width of the picture and of the names at its left, the height of a row.
const WIDTH: f64 = 1600.0;
const NAMES: f64 = 130.0;
const ROW: f64 = 22.0;

/// Judges a record and writes all of it into a folder.
///
/// # Errors
/// When the folder cannot be written.
pub fn write(folder: &Path, record: &Record) -> anyhow::Result<Verdict> {
    record.save(folder)?;
    let verdict = judge(record);
    let save = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    save(VERDICT, serde_json::to_string_pretty(&verdict)? + "\n")?;
    save(PICTURE, picture(record))?;
    save(PAGE, page(record, &verdict))?;
    Ok(verdict)
}

/// Judges the raw record in a folder again; also says whether the verdict that lies there is the same.
///
/// # Errors
/// When there is no record, or no verdict.
pub fn check(folder: &Path) -> anyhow::Result<(Verdict, bool)> {
    let verdict = judge(&Record::load(folder)?);
    let path = folder.join(VERDICT);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let written: Verdict = serde_json::from_str(&text).context("the verdict is none")?;
    let same = written == verdict;
    Ok((verdict, same))
}

/// The verdict in a few lines.
#[must_use]
pub fn summary(verdict: &Verdict) -> String {
    let Verdict { windows, overlaps, migrating_at_once, damage, breaches, lock_calls, .. } = verdict;
    let list = |map: &BTreeMap<String, usize>| {
        let items: Vec<String> = map.iter().map(|(name, count)| format!("{name} {count}")).collect();
        if items.is_empty() { "none".to_owned() } else { items.join(", ") }
    };
    let mut text = format!(
        "verdict: {}\n\
         faults: {} ({})\n\
         exclusive times: {windows}, with overlaps: {overlaps}\n\
         most with the right to migrate at once: {migrating_at_once}\n\
         damage of the database: {damage}; breaches told: {breaches}\n\
         calls to the lock: {lock_calls}; histories that one lock could have given: {} of {}\n\
         operations: {}\n\
         longest wait of an operation: {:.1} s ({})\n\
         calm again: {} times, the longest after {:.1} s\n",
        if verdict.good { "good" } else { "BAD" },
        verdict.faults.values().sum::<usize>(),
        list(&verdict.faults),
        verdict.linearizable.0,
        verdict.linearizable.1,
        list(&verdict.operations),
        seconds(verdict.longest_wait_ms),
        verdict.longest_wait_of,
        verdict.calms,
        seconds(verdict.longest_calm_ms),
    );
    for problem in &verdict.problems {
        let _ = writeln!(text, "- {problem}");
    }
    text
}

fn page(record: &Record, verdict: &Verdict) -> String {
    let mut text = format!("# {}\n\n", record.title);
    if let Some(seed) = record.seed {
        let _ = writeln!(text, "Seed {seed}.\n");
    }
    let _ = writeln!(text, "```text\n{}```\n\n![what happened when]({PICTURE})\n", summary(verdict));
    let _ = writeln!(
        text,
        "The monitor looked {} times; the longest time between two looks was {} ms.\n",
        record.samples, record.longest_gap_ms
    );
    text.push_str("## Faults\n\n| from | to | kind | whom |\n|---|---|---|---|\n");
    for trouble in &record.troubles {
        let at = |ms: u64| seconds(ms.saturating_sub(record.from_ms));
        let (from, to) = (at(trouble.from_ms), at(trouble.to_ms));
        let _ = writeln!(text, "| {from:.1} s | {to:.1} s | {} | {} |", trouble.kind, trouble.what);
    }
    text.push_str(
        "\n## Commands of clients\n\n| at | took | what | exit code | said last |\n|---|---|---|---|---|\n",
    );
    for work in &record.works {
        let at = seconds(work.from_ms.saturating_sub(record.from_ms));
        let took = seconds(work.to_ms.saturating_sub(work.from_ms));
        let said = work.said.replace('|', "/");
        let _ = writeln!(text, "| {at:.1} s | {took:.1} s | {} | {} | {said} |", work.what, work.code);
    }
    text
}

fn seconds(ms: u64) -> f64 {
    Duration::from_millis(ms).as_secs_f64()
}

/// From when to when, and in which colour.
type Bar = (u64, u64, &'static str);

/// Rows of bars over time: the app on each node, exclusive times, faults by kind.
fn picture(record: &Record) -> String {
    let mut rows: BTreeMap<(u8, String), Vec<Bar>> = BTreeMap::new();
    for tree in &record.trees {
        let colour = if tree.migrates { "#c60" } else { "#2a7" };
        rows.entry((0, tree.node.clone())).or_default().push((tree.from_ms, tree.to_ms, colour));
    }
    for window in windows(record) {
        let colour = if window.most == 1 { "#36c" } else { "#639" };
        rows.entry((1, "exclusive".to_owned())).or_default().push((window.from_ms, window.to_ms, colour));
    }
    for trouble in &record.troubles {
        let place = (2, trouble.kind.clone());
        rows.entry(place).or_default().push((trouble.from_ms, trouble.to_ms, "#b22"));
    }
    for calm in &record.calms {
        let colour = if calm.reached { "#999" } else { "#000" };
        let bar = (calm.from_ms, calm.from_ms + calm.took_ms, colour);
        rows.entry((3, "becomes calm".to_owned())).or_default().push(bar);
    }
    let length = seconds(record.to_ms.saturating_sub(record.from_ms)).max(0.001);
    let x =
        |ms: u64| NAMES + seconds(ms.saturating_sub(record.from_ms)).min(length) / length * (WIDTH - NAMES);
    let height = rows.iter().fold(2.0 * ROW, |height, _| height + ROW);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\"><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let mut top = ROW / 2.0;
    for ((_, name), bars) in &rows {
        let _ = writeln!(svg, "<text x=\"4\" y=\"{:.1}\">{name}</text>", top + ROW * 0.6);
        for (from, to, colour) in bars {
            let (left, width) = (x(*from), (x(*to) - x(*from)).max(1.0));
            let (title_from, title_to) =
                (from.saturating_sub(record.from_ms), to.saturating_sub(record.from_ms));
            let _ = writeln!(
                svg,
                "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{colour}\">\
                 <title>{name} {:.1}..{:.1} s</title></rect>",
                ROW * 0.8,
                seconds(title_from),
                seconds(title_to),
            );
        }
        top += ROW;
    }
    for tenth in 0..=10_u32 {
        let at = f64::from(tenth) / 10.0;
        let left = NAMES + at * (WIDTH - NAMES);
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#666\">{:.0} s</text>",
            left,
            top + ROW * 0.7,
            at * length
        );
    }
    svg.push_str("</svg>\n");
    svg
}
