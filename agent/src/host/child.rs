//! Programs of the operator's own: run in a process group of their own, within a deadline, and never outliving their user.
//!
//! The group is killed when the program ends, when its time is over, and when the future that runs it is dropped. What leaves
//! the group, or outlives an agent that was killed, is found by its mark: see [`leftover`].

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::leftover;

/// Most bytes that are kept of what a program prints, and of the end of what it complains.
const ANSWER_MAX: usize = 64 * 1024;
const COMPLAINT_MAX: usize = 2 * 1024;
/// How long the pipes of a program that has ended are read: something that left its group may hold them open.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// Kills a whole process group unless it has ended.
pub(crate) struct Group(Option<Pid>);

impl Group {
    /// The group of a child that was started as the first of its own group.
    pub(crate) fn of(child: &Child) -> Self {
        Self(child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw))
    }

    /// Kills what is left of it.
    pub(crate) fn kill(&mut self) {
        if let Some(group) = self.0.take() {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One run of a program.
#[derive(Debug)]
pub(crate) struct Program {
    /// The program and its arguments.
    pub(crate) argv: Vec<String>,
    /// Its whole environment, but for the mark.
    pub(crate) env: BTreeMap<String, String>,
    /// The mark's value: `<fleet>/<node>`.
    pub(crate) mark: String,
    /// How long it may take.
    pub(crate) deadline: Duration,
}

/// A program that did not end well; says which and why.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChildError {
    /// None is configured.
    #[error("no program is configured")]
    None,
    /// It could not be started.
    #[error("cannot execute {program}: {source}; correct the agent's configuration, or install it")]
    Execute { program: String, source: std::io::Error },
    /// It took too long.
    #[error("{program} took longer than {} and was ended", seconds(*deadline))]
    Late { program: String, deadline: Duration },
    /// It failed.
    #[error("{program} failed: {why}")]
    Failed {
        program: String,
        /// The last line of what it said, else its exit status.
        why: String,
        /// The end of all that it said on its standard error.
        said: String,
    },
    /// What it started does not end.
    #[error("what {program} started does not end: {source}")]
    Lasting { program: String, source: std::io::Error },
}

fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{} s", time.as_secs())
    }
}

impl Program {
    /// Runs it to its end and gives what it printed; `tell` hears the last line of what it says on its standard error.
    pub(crate) async fn run(self, tell: impl FnMut(&str)) -> Result<String, ChildError> {
        let (program, args) = self.argv.split_first().ok_or(ChildError::None)?;
        let mut command = Command::new(program);
        command
            .args(args)
            .env_clear()
            .envs(&self.env)
            .env(leftover::TASK, &self.mark)
            .current_dir(Path::new("/"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        let program = program.clone();
        let mut child =
            command.spawn().map_err(|source| ChildError::Execute { program: program.clone(), source })?;
        let mut group = Group::of(&child);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (mut answer, mut complaint) = (Vec::new(), Vec::new());
        let ended = timeout(self.deadline, async {
            let reading =
                async { tokio::join!(first(stdout, &mut answer), last(stderr, &mut complaint, tell)) };
            tokio::pin!(reading);
            let mut read = false;
            let status = loop {
                // Cancel-safe: waiting for a child may be begun anew, and reading goes on where it was.
                tokio::select! {
                    status = child.wait() => break status,
                    _ = &mut reading, if !read => read = true,
                }
            };
            group.kill();
            if !read {
                // What is missing afterwards is not of the program itself.
                let _ = timeout(AFTERWARDS, &mut reading).await;
            }
            status
        });
        let ended = ended.await;
        group.kill();
        let why = match ended {
            Ok(Ok(status)) if status.success() => return Ok(String::from_utf8_lossy(&answer).into_owned()),
            Ok(Ok(status)) => Some(status.to_string()),
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => None,
        };
        let mark = self.mark.clone();
        let left = tokio::task::spawn_blocking(move || leftover::end(leftover::TASK, &mark)).await;
        if let Err(source) = left.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            return Err(ChildError::Lasting { program, source });
        }
        let Some(status) = why else { return Err(ChildError::Late { program, deadline: self.deadline }) };
        let line = last_line(&complaint);
        let said = String::from_utf8_lossy(&complaint).into_owned();
        Err(ChildError::Failed { program, why: if line.is_empty() { status } else { line }, said })
    }
}

/// Reads to the end, and keeps the beginning.
async fn first(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut chunk = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        let room = ANSWER_MAX.saturating_sub(kept.len()).min(length);
        kept.extend_from_slice(&chunk[..room]);
    }
}

/// Reads to the end, keeps the end, and tells of it on the way.
async fn last(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>, mut tell: impl FnMut(&str)) {
    let Some(mut from) = from else { return };
    let mut chunk = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        kept.extend_from_slice(&chunk[..length]);
        let surplus = kept.len().saturating_sub(COMPLAINT_MAX);
        kept.drain(..surplus);
        tell(&last_line(kept));
    }
}

/// The last line that is not empty. A line that overwrites itself counts as several.
fn last_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let line = text.split(['\n', '\r']).map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    crate::probe::shorten(line)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::host::ProcessId;

    async fn sh(script: &str, deadline: Duration) -> Result<String, ChildError> {
        let env = BTreeMap::from([("PATH".to_owned(), std::env::var("PATH").unwrap())]);
        // Each run has a mark of its own, so that tests do not end each other's programs.
        let mark = format!("test/{}", uuid::Uuid::new_v4().simple());
        let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        Program { argv, env, mark, deadline }.run(|_| {}).await
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn the_last_line_of_the_complaint_says_why() {
        assert_eq!(sh("echo 1; echo no >&2", LONG).await.unwrap(), "1\n");
        let error = sh("echo one >&2; echo 'two: not there' >&2; exit 3", LONG).await.unwrap_err();
        assert_eq!(error.to_string(), "/bin/sh failed: two: not there");
        let error = sh("exit 3", LONG).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3"), "{error}");
        // What stays in the background does not hold it up.
        let began = Instant::now();
        assert_eq!(sh("sleep 60 & echo 1", LONG).await.unwrap(), "1\n");
        assert!(began.elapsed() < LONG);
    }

    #[tokio::test]
    async fn a_late_program_ends_with_all_that_it_started() {
        let place = tempfile::tempdir().unwrap();
        let note = place.path().join("pids");
        let script =
            format!("sleep 60 & echo $! >{0}; setsid sleep 60 & echo $! >>{0}; wait", note.display());
        let began = Instant::now();
        let error = sh(&script, Duration::from_secs(2)).await.unwrap_err();
        assert!(matches!(error, ChildError::Late { .. }), "{error}");
        let pids = std::fs::read_to_string(note).unwrap();
        assert_eq!(pids.lines().count(), 2);
        for pid in pids.lines() {
            // Without memory it does nothing any more, but for a moment it may still be there.
            while ProcessId::of(pid.parse().unwrap()).is_some_and(ProcessId::alive) {
                assert!(began.elapsed() < LONG, "process {pid} is alive");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    #[test]
    fn lines() {
        assert_eq!(last_line(b"a\n10 %\r20 %\r\n\n"), "20 %");
        assert_eq!(last_line(b""), "");
    }
}
