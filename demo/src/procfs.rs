//! The few facts about processes that this crate reads from `/proc`.

use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;

/// More than any `/proc/PID/cmdline` or `environ` that matters here; what is longer is cut.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// What `/proc/PID/stat` says about one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// The parent's process id.
    pub(crate) parent: u32,
    /// Start time in clock ticks since boot: with the process id it names one process for ever (within one boot).
    pub(crate) start_ticks: u64,
    /// Whether the process is dead and only waits to be collected by its parent.
    pub(crate) dead: bool,
}

/// Reads `/proc/PID/stat`; `None` when there is no such process.
pub(crate) fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name (field 2) may hold spaces and parentheses, so fields are counted after the last `)`.
fn parse_stat(text: &str) -> Option<Stat> {
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let start_ticks = fields.nth(17)?.parse().ok()?;
    Some(Stat { parent, start_ticks, dead: matches!(state, "Z" | "X" | "x") })
}

/// Whether the process that had this id and start time still runs.
pub(crate) fn runs(pid: u32, start_ticks: u64) -> bool {
    stat(pid).is_some_and(|stat| !stat.dead && stat.start_ticks == start_ticks)
}

/// The argument vector; empty for a kernel thread, a zombie, or a process that is gone.
pub(crate) fn arguments(pid: u32) -> Vec<String> {
    zero_separated(&read(pid, "cmdline").unwrap_or_default())
}

/// The environment with which the process was started, as `KEY=VALUE`; empty when it may not be read.
pub(crate) fn environment(pid: u32) -> Vec<String> {
    zero_separated(&read(pid, "environ").unwrap_or_default())
}

/// The working folder, when it may be read.
pub(crate) fn working_folder(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

fn read(pid: u32, file: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(format!("/proc/{pid}/{file}"))?.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn zero_separated(bytes: &[u8]) -> Vec<String> {
    let mut parts: Vec<String> =
        bytes.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect();
    // A process that rewrote its title leaves trailing zeros behind.
    while parts.last().is_some_and(String::is_empty) {
        parts.pop();
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let text = "42 (a) b (c)) Z 7 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 0 0";
        assert_eq!(parse_stat(text), Some(Stat { parent: 7, start_ticks: 987_654, dead: true }));
        assert_eq!(parse_stat("42 (short) R 1"), None);
    }

    #[test]
    fn this_process_runs_and_a_reused_id_does_not() {
        let own = stat(std::process::id()).unwrap();
        assert!(runs(std::process::id(), own.start_ticks));
        assert!(!runs(std::process::id(), own.start_ticks + 1));
        assert!(!arguments(std::process::id()).is_empty());
    }
}
