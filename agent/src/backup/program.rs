//! The database's own programs: found in a `PATH`, run in a process group of their own, and never outliving their user.
//!
//! A child gets nothing of the agent's environment but the `PATH`. Its group is killed when the future that runs it is
//! dropped; should the agent itself die, the pipes break, and a dump or load that is cut off fails by itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::error::BackupError;
use super::manifest::FileEntry;
use super::progress::Meter;
use super::stream::{copy, offload, write};
use crate::host::child::Group;
use crate::host::leftover;

/// Most bytes that are kept of a program's answer: a list of everything in a large dump has some megabytes.
const ANSWER_MAX: u64 = 64 * 1024 * 1024;
/// Most bytes that are kept of what a program says of its failure.
const COMPLAINT_MAX: usize = 2 * 1024;

/// Where programs are found, and where passwords lie for them while they run.
#[derive(Debug, Clone)]
pub struct Tools {
    /// Folders of programs, as in `PATH`.
    pub path: String,
    /// Folder for private temporary files; better not a shared one.
    pub temporary: PathBuf,
    /// Where PostgreSQL's programs of several versions lie, as `<major>/bin`; Debian has `/usr/lib/postgresql`.
    pub postgres: PathBuf,
    /// Mark of every child, `<fleet>/<node>`: see [`leftover`].
    pub mark: String,
}

impl Tools {
    /// With the `PATH` and the temporary folder of this process.
    #[must_use]
    pub fn of_process(mark: String) -> Self {
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".into());
        Self { path, temporary: std::env::temp_dir(), postgres: "/usr/lib/postgresql".into(), mark }
    }

    /// A program of PostgreSQL of exactly this version, if it is there.
    pub(super) fn postgres_of(&self, major: u32, name: &str) -> Option<PathBuf> {
        let file = self.postgres.join(major.to_string()).join("bin").join(name);
        runs(&file).then_some(file)
    }

    /// The first of these programs that there is.
    pub(super) fn find(&self, names: &[&str], package: &str) -> Result<PathBuf, BackupError> {
        let folders: Vec<PathBuf> = std::env::split_paths(&OsString::from(&self.path)).collect();
        let mut files = names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
        files.find(|file| runs(file)).ok_or_else(|| BackupError::NoProgram {
            program: names.join(" or "),
            package: package.to_owned(),
        })
    }
}

fn runs(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}

/// What a program reads.
pub(super) enum Input {
    Nothing,
    Text(String),
    File(PathBuf),
}

/// Where its output goes.
pub(super) enum Sink {
    Text,
    /// A new file of this name in this folder.
    File(PathBuf, &'static str),
}

/// One run of a program.
pub(super) struct Call<'a> {
    pub(super) program: &'a Path,
    pub(super) args: Vec<String>,
    /// Everything but the `PATH`.
    pub(super) env: BTreeMap<String, String>,
    pub(super) input: Input,
    pub(super) sink: Sink,
}

/// What came of a run.
#[derive(Debug)]
pub(super) enum Outcome {
    Text(String),
    File(FileEntry),
    /// It failed, and this is what it said.
    Failed(String),
}

/// Runs a program to its end.
pub(super) async fn run(tools: &Tools, call: Call<'_>, meter: &Meter) -> Result<Outcome, BackupError> {
    let started = BackupError::io("execute", call.program);
    let (mut child, pipes) = spawn(tools, &call).map_err(started)?;
    let mut group = Group::of(&child);
    let Pipes { stdin, stdout, stderr } = pipes;
    let feeding = offload(meter, move |ticket| {
        let fed = match call.input {
            Input::Nothing => Ok(()),
            Input::Text(text) => (&stdin).write_all(text.as_bytes()),
            Input::File(path) => {
                let mut from = std::fs::File::open(&path).map_err(BackupError::io("read", &path))?;
                copy(&mut from, &mut super::stream::Hashing::new(&stdin, ticket))
            }
        };
        // A program that has ended reads no more; its own words say why.
        match fed {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(BackupError::io("feed", Path::new("a program"))(error))
            }
            _ => Ok(()),
        }
    });
    let sink = call.sink;
    let taking = offload(meter, move |ticket| match sink {
        Sink::Text => {
            let mut bytes = Vec::new();
            let read = (&stdout).take(ANSWER_MAX).read_to_end(&mut bytes);
            read.map_err(BackupError::io("read", Path::new("a program's answer")))?;
            Ok(Outcome::Text(String::from_utf8_lossy(&bytes).into_owned()))
        }
        Sink::File(folder, name) => {
            write(&folder, name, ticket, |to| copy(&mut &stdout, to)).map(Outcome::File)
        }
    });
    let complaint = offload(meter, move |_| Ok(last_of(stderr)));
    let ending = async {
        let status = child.wait().await.map_err(BackupError::io("wait for", call.program));
        // What it started itself would keep the pipes open.
        group.kill();
        status
    };
    let (fed, taken, complaint, status) = tokio::join!(feeding, taking, complaint, ending);
    let (status, complaint) = (status?, complaint?);
    // A full disk breaks the pipe, and the program only knows of the pipe.
    let taken = taken?;
    if !status.success() {
        let why = if complaint.is_empty() { status.to_string() } else { complaint };
        return Ok(Outcome::Failed(why));
    }
    fed?;
    Ok(taken)
}

/// Our ends of the pipes.
struct Pipes {
    stdin: PipeWriter,
    stdout: PipeReader,
    stderr: PipeReader,
}

fn spawn(tools: &Tools, call: &Call<'_>) -> io::Result<(tokio::process::Child, Pipes)> {
    let ((child_in, stdin), (stdout, child_out), (stderr, child_err)) =
        (io::pipe()?, io::pipe()?, io::pipe()?);
    let mut command = Command::new(call.program);
    command.args(&call.args).env_clear().envs(&call.env).env("PATH", &tools.path).current_dir("/");
    // Messages are understood in English only.
    command.env(leftover::BACKUP, &tools.mark);
    command.env("LC_ALL", "C").process_group(0).kill_on_drop(true);
    command.stdin(Stdio::from(child_in)).stdout(Stdio::from(child_out)).stderr(Stdio::from(child_err));
    // The command holds the child's ends, and is dropped here: a pipe ends with the child.
    Ok((command.spawn()?, Pipes { stdin, stdout, stderr }))
}

/// The end of a text of any length.
fn last_of(mut from: impl Read) -> String {
    let (mut kept, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = from.read(&mut chunk) {
        kept.extend_from_slice(&chunk[..length]);
        let surplus = kept.len().saturating_sub(COMPLAINT_MAX);
        kept.drain(..surplus);
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}

/// The first number in what a program says of its version, and that line.
pub(super) fn version(text: &str) -> (u32, String) {
    let line = text.lines().next().unwrap_or_default().trim().to_owned();
    let digits = line.split(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty());
    (digits.and_then(|digits| digits.parse().ok()).unwrap_or(0), line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(version("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n").0, 15);
        assert_eq!(version("").0, 0);
    }

    #[test]
    fn only_the_end_of_a_complaint_is_kept() {
        let text = "x".repeat(100_000) + " the end\n";
        let kept = last_of(text.as_bytes());
        assert!(kept.ends_with("the end") && kept.len() < COMPLAINT_MAX);
    }
}
