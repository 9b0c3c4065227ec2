//! Short-lived helper programs: their output, within a deadline and a bound.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

use super::ProfileError;
use crate::probe::shorten;

/// Most bytes that are read of a helper's output.
const OUTPUT_MAX: u64 = 4 * 1024 * 1024;
/// Variables that a helper and an app take from the agent. Everything else comes from the node's own settings.
const BASE: [&str; 8] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// The clean environment that everything starts from.
pub(crate) fn base_env() -> BTreeMap<String, String> {
    let own = |key: &&str| std::env::var(key).ok().map(|value| ((*key).to_owned(), value));
    BASE.iter().filter_map(own).collect()
}

/// The full path of a program in a `PATH`.
pub(crate) fn find_program(name: &str, path: &str) -> Option<String> {
    if name.contains('/') {
        return Some(name.to_owned());
    }
    let found = std::env::split_paths(&OsString::from(path))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    found.and_then(|file| file.into_os_string().into_string().ok())
}

/// Runs a helper and returns its standard output. It is killed when the deadline is over or the caller gives up.
pub(crate) async fn output(
    what: &'static str,
    argv: &[String],
    env: &BTreeMap<String, String>,
    cwd: &Path,
    deadline: Duration,
) -> Result<String, ProfileError> {
    let failed = |why: String| ProfileError::Helper { what, why };
    let (program, args) = argv.split_first().ok_or_else(|| failed("no program is configured".into()))?;
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(env).current_dir(cwd);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| failed(format!("cannot execute {program}: {error}")))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let all = async { tokio::join!(read(stdout), read(stderr), child.wait()) };
    let late = |_| failed(format!("no end after {} s (does its disk or mount hang?)", deadline.as_secs()));
    let (stdout, stderr, status) = timeout(deadline, all).await.map_err(late)?;
    match status {
        Ok(status) if status.success() => Ok(stdout),
        Ok(status) => Err(failed(format!("{status}: {}", shorten(&last_lines(&stderr))))),
        Err(error) => Err(failed(error.to_string())),
    }
}

async fn read(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        // What was read until an error is as much as there is.
        let _ = stream.take(OUTPUT_MAX).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Node prints the message of an uncaught error as the first line that names one.
fn last_lines(stderr: &str) -> String {
    let error = stderr.lines().find(|line| line.contains("Error"));
    error.or_else(|| stderr.lines().rev().find(|line| !line.trim().is_empty())).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str) -> Result<String, String> {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned);
        let deadline = Duration::from_millis(500);
        output("test", &argv, &base_env(), Path::new("/"), deadline).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn helpers_are_bounded() {
        assert_eq!(sh("echo hi").await.unwrap(), "hi\n");
        assert!(sh("echo 'Error: no' >&2; exit 3").await.unwrap_err().contains("Error: no"));
        assert!(sh("exec sleep 60").await.unwrap_err().contains("no end"));
    }

    #[test]
    fn programs() {
        assert_eq!(find_program("sh", "/nonexistent:/bin"), Some("/bin/sh".into()));
        assert_eq!(find_program("no-such-program", "/bin"), None);
        assert_eq!(find_program("/x/node", ""), Some("/x/node".into()));
    }
}
