//! What runs inside the app by itself: workflow executions and async tasks. Where it is waited for, and what a stop cuts off.
//!
//! The database says what is unfinished in the whole fleet, and no column says on which node. The app's own log, which its keeper
//! writes on that node, says what began there:
//!
//! | the database says | counts for a node when its log, since the launch, |
//! |---|---|
//! | a process is inside a step (no pending job, or only frames around it) | says that the execution began or went on there, and not that it ended |
//! | a job waits for an answer in memory (`request`, `mailer`, `llm`, `ai-employee`, a claimed `script`) | names the execution |
//! | an async task runs | says that it was made there, or that its worker was |
//! | a job waits for a person or a timer | never: it survives a stop |
//!
//! Where the log cannot tell (it has no such lines by the app's settings, or does not reach back to the launch), everything counts
//! that began since the node's launch: rather a wait too long, which has its deadline, than work cut off in silence.

mod log;

pub use log::WorkLog;
pub(crate) use log::mark;

/// A launch begun by a clock that differs this much from another node's is still before what it began.
const CLOCKS_DIFFER_MS: i64 = 5_000;

/// How an execution of a workflow is unfinished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A process is inside a step, or was when it was cut off.
    Inside,
    /// A job waits in the memory of a process for an answer. Even a stop in order loses it.
    Memory,
}

/// An execution that is unfinished and does not wait for a person or a timer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execution {
    /// Its id.
    pub id: String,
    /// Title of its workflow.
    pub title: String,
    /// When it began, in milliseconds since 1970.
    pub started_ms: Option<i64>,
    /// Where it stands.
    pub stage: Stage,
}

/// An async task that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsyncTask {
    /// Its id.
    pub id: String,
    /// Its title, or its type.
    pub title: String,
    /// When it began, in milliseconds since 1970.
    pub started_ms: Option<i64>,
}

/// What the database says is unfinished, on whichever node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unfinished {
    /// Executions of workflows.
    pub executions: Vec<Execution>,
    /// Async tasks.
    pub tasks: Vec<AsyncTask>,
    /// What is of this node for certain, because its app says so itself.
    pub own: Vec<Work>,
}

/// One thing that runs inside a node's app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// Its id, unlike every other's.
    pub id: String,
    /// In words.
    pub text: String,
}

impl Work {
    /// In the app's own words.
    pub(crate) fn said(text: &str) -> Self {
        Self { id: text.to_owned(), text: text.to_owned() }
    }
}

impl From<&Execution> for Work {
    fn from(execution: &Execution) -> Self {
        let Execution { id, title, .. } = execution;
        Self { id: id.clone(), text: format!("workflow \"{title}\" (execution {id})") }
    }
}

impl From<&AsyncTask> for Work {
    fn from(task: &AsyncTask) -> Self {
        let AsyncTask { id, title, .. } = task;
        Self { id: id.clone(), text: format!("async task \"{title}\" (id {id})") }
    }
}

impl Unfinished {
    /// What of it runs in the app with this log, launched at this time by the wall clock.
    pub fn here(&self, log: &WorkLog, launched_unix_ms: u64) -> Vec<Work> {
        let launched = i64::try_from(launched_unix_ms).unwrap_or(i64::MAX).saturating_sub(CLOCKS_DIFFER_MS);
        let since = |started: Option<i64>| !log.tells() && started.is_none_or(|started| started >= launched);
        let runs = |execution: &&Execution| match (log.execution(&execution.id), execution.stage) {
            (Some(open), Stage::Inside) => open,
            (Some(_), Stage::Memory) => true,
            (None, _) => since(execution.started_ms),
        };
        let works = |task: &&AsyncTask| log.made(&task.id) || since(task.started_ms);
        let executions = self.executions.iter().filter(runs).map(Work::from);
        let tasks = self.tasks.iter().filter(works).map(Work::from);
        executions.chain(tasks).chain(self.own.iter().cloned()).collect()
    }

    /// Whether something is unfinished of which the log says nothing.
    pub fn unsaid(&self, log: &WorkLog) -> bool {
        self.executions.iter().any(|execution| log.execution(&execution.id).is_none())
            || self.tasks.iter().any(|task| !log.made(&task.id))
    }

    /// Which of these are still unfinished.
    pub fn left(&self, works: &[Work]) -> Vec<Work> {
        let there = |work: &&Work| {
            self.executions.iter().any(|execution| execution.id == work.id)
                || self.tasks.iter().any(|task| task.id == work.id)
                || self.own.contains(work)
        };
        works.iter().filter(there).cloned().collect()
    }
}

/// Whether the app's log has a line for each execution that begins, by the app's settings.
pub(crate) fn log_has_lines(transport: &str, level: &str) -> bool {
    let console = transport.is_empty() || transport.split(',').any(|one| one.trim() == "console");
    console && matches!(level, "" | "info" | "debug" | "trace")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn execution(id: &str, stage: Stage, started_ms: i64) -> Execution {
        Execution { id: id.into(), title: "Import".into(), started_ms: Some(started_ms), stage }
    }

    fn unfinished() -> Unfinished {
        let executions = vec![
            execution("1", Stage::Inside, 1),
            execution("2", Stage::Inside, 1),
            execution("3", Stage::Memory, 1),
            execution("4", Stage::Inside, 100_000),
            execution("5", Stage::Memory, 100_000),
        ];
        let task = |id: &str| AsyncTask { id: id.into(), title: "export".into(), started_ms: Some(100_000) };
        let (made, other) = ("11111111-2222-4333-8444-555555555555", "99999999-2222-4333-8444-555555555555");
        Unfinished { executions, tasks: vec![task(made), task(other)], own: Vec::new() }
    }

    fn ids(works: &[Work]) -> Vec<&str> {
        works.iter().map(|work| work.id.get(..1).unwrap()).collect()
    }

    const TEXT: &str = "soloist: launch 7\n\
        2026-11-23 [info] execution (1) starting...\n\
        {\"message\":\"execution (2) resuming...\"}\n{\"message\":\"execution (2) finished with status: 0\"}\n\
        {\"message\":\"execution (3) starting...\"}\n{\"message\":\"execution (3) finished with status: 0\"}\n\
        {\"message\":\"New task of type: export created as 11111111-2222-4333-8444-555555555555\"}\n";

    #[test]
    fn the_log_says_what_runs_here() {
        let here = unfinished().here(&WorkLog::of(TEXT, 7, true), 50_000);
        assert_eq!(ids(&here), ["1", "3", "1"]);
        assert_eq!(here[0].text, "workflow \"Import\" (execution 1)");
        assert_eq!(here[2].text, "async task \"export\" (id 11111111-2222-4333-8444-555555555555)");
    }

    #[test]
    fn a_log_that_cannot_tell_excludes_nothing_that_began_since_the_launch() {
        for log in [WorkLog::of(TEXT, 7, false), WorkLog::of(TEXT, 8, true)] {
            assert_eq!(ids(&unfinished().here(&log, 50_000)), ["1", "3", "4", "5", "1", "9"]);
        }
        let log = WorkLog::of("", 7, false);
        assert!(unfinished().here(&log, 200_000).is_empty(), "cut off before this launch");
    }

    #[test]
    fn what_ended_by_itself_is_not_left() {
        let works = unfinished().here(&WorkLog::of(TEXT, 7, true), 50_000);
        let mut later = unfinished();
        later.executions.remove(0);
        assert_eq!(ids(&later.left(&works)), ["3", "1"]);
    }

    #[test]
    fn settings_of_the_log() {
        assert!(log_has_lines("", "") && log_has_lines("dailyRotateFile, console", "debug"));
        assert!(!log_has_lines("file", "info") && !log_has_lines("console", "warn"));
    }
}
