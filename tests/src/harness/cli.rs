//! The command line, as a person or a job runs it.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::Place;

/// What a run of the command line gave.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit code; -1 when it was killed.
    pub code: i32,
    /// What it printed as data.
    pub stdout: String,
    /// What it said to people.
    pub stderr: String,
}

impl Output {
    /// # Panics
    /// When the run did not end with this code.
    #[must_use]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Its data as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.stderr))
    }
}

/// How to call the command line.
#[derive(Debug, Clone)]
pub struct Cli {
    /// Its program.
    pub program: PathBuf,
    /// The coordinators.
    pub endpoints: String,
    /// The fleet.
    pub fleet: String,
    /// Where it runs.
    pub place: Place,
}

impl Cli {
    /// A command with endpoints and fleet in its environment.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command(&self.program);
        command
            .args(args)
            .env("SOLOIST_ENDPOINTS", &self.endpoints)
            .env("SOLOIST_FLEET", &self.fleet)
            .env_remove("SOLOIST_FENCING_TOKEN")
            .env_remove("SOLOIST_OPERATION")
            .stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Output {
        let output = self.command(args).output().expect("the command line can be started");
        Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The fleet's status, if any coordinator answers.
    #[must_use]
    pub fn status(&self) -> Option<Value> {
        let output = self.run(&["status", "-o", "json"]);
        if output.code == 0 { serde_json::from_str(&output.stdout).ok() } else { None }
    }
}
