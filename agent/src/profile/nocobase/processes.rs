//! In how many processes the app runs on its node: `CLUSTER_MODE`, which NocoBase's launcher hands to pm2.
//!
//! | `CLUSTER_MODE` | processes |
//! |---|---|
//! | empty, 1 | one, executed directly |
//! | 2 and more | so many |
//! | `max`, 0 | one for each processor |
//! | negative | so many less than processors, and at least one |
//!
//! Several processes run under `pm2-runtime`, which is executed directly as well: it is the app's main process, and they are its
//! children. They share one port, and each new connection goes to the next one. What pm2 would do otherwise, and may not here:
//!
//! | pm2 by itself | here |
//! |---|---|
//! | a stop is SIGINT, and SIGKILL after 1.6 s | SIGTERM, as to an app that runs alone, and nothing more: the keeper has the grace |
//! | a second signal when it finds no process at work for some seconds, which ends a process that still drains at once | none |
//! | a stopped process stays, held by its connection to pm2, until it is killed | it ends when it has finished |
//! | a process that has ended is started again, whatever lies on the storage | it waits while the storage says that the next start upgrades |
//! | the app's `nocobase pm2-restart` restarts all processes | it finds none: pm2 has a home of its own |
//! | asks for newer versions of itself, talks to a monitoring service if keys are set | off |
//! | writes files with the app's output, without bound | none: the output goes on to the keeper's log, line by line as it is |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::environment::Environment;
use super::settings::find_setting;
use super::{MARKER, NocoBaseProfile, ProfileError};
use crate::host::durable;

/// The setting.
const SETTING: &str = "CLUSTER_MODE";
/// Most processes on one node: a fleet of NocoBase has numbers for 32.
const PROCESSES_MAX: u32 = 32;
/// How long pm2 waits before it kills a process by itself, in milliseconds. Longer than every grace: the keeper is to do that.
const KILL_TIMEOUT_MS: u32 = 24 * 60 * 60 * 1000;
/// First pause before a process that has ended is started again, in milliseconds; it grows up to 15 s.
const RESTART_DELAY_MS: u32 = 1000;
/// Where pm2 is; older installations have it below the launcher's package.
const PROGRAMS: [&str; 3] = [
    "node_modules/pm2/bin/pm2-runtime",
    "node_modules/@nocobase/cli-v1/node_modules/pm2/bin/pm2-runtime",
    "node_modules/@nocobase/cli/node_modules/pm2/bin/pm2-runtime",
];
/// What each process runs before the app. A thread or a program that it starts has the same arguments, and is none.
const PRELOAD: &str = r#""use strict";
const cluster = require("cluster"), fs = require("fs"), path = require("path");
if (cluster.isWorker && require("worker_threads").isMainThread) {
  const marker = path.join(process.env.STORAGE_PATH || "", "MARKER");
  if (fs.existsSync(marker)) fs.writeSync(2, `soloist: a process of the app waits while ${marker} exists\n`);
  const pause = new Int32Array(new SharedArrayBuffer(4));
  while (fs.existsSync(marker)) Atomics.wait(pause, 0, 0, 1000);
  process.once("SIGTERM", () => {
    // Nobody else listens yet: it ends at once, as without this.
    if (process.listenerCount("SIGTERM") === 0) process.kill(process.pid, "SIGTERM");
    else if (process.channel) process.channel.unref();
  });
  setImmediate(() => { process.env.PM2_HOME = path.join(__dirname, "pm2"); });
}
"#;

/// How many processes a value asks for; the reason of an error is for people.
fn parse(value: &str, processors: u32) -> Result<u32, String> {
    let value = value.trim();
    if value.is_empty() {
        return Ok(1);
    }
    let processors = i64::from(processors.max(1));
    let asked =
        if value == "max" { 0 } else { value.parse::<i64>().map_err(|_| not_a_number(processors))? };
    let number = if asked > 0 { asked } else { processors.saturating_add(asked).max(1) };
    match u32::try_from(number) {
        Ok(number) if number <= PROCESSES_MAX => Ok(number),
        _ => Err(format!(
            "asks for {number} processes, and a node may have {PROCESSES_MAX}: a fleet has numbers for so many; write a smaller number"
        )),
    }
}

fn not_a_number(processors: i64) -> String {
    format!(
        "is neither a number nor \"max\", and pm2 would take it for one process for each of {processors} processors; write how many \
         processes the app shall have, or remove it for one"
    )
}

/// Processors of this host, as Node.js counts them: all that are online, also those that the agent may not use.
fn processors() -> u32 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let each = text
        .lines()
        .filter_map(|line| line.strip_prefix("cpu"))
        .filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    u32::try_from(each.count()).unwrap_or(1).max(1)
}

impl NocoBaseProfile {
    /// In how many processes an app with this environment runs plainly; `settings` is the text of `file`.
    pub(super) fn processes(
        &self,
        vars: &BTreeMap<String, String>,
        settings: &str,
        file: &Path,
    ) -> Result<u32, ProfileError> {
        let value = vars.get(SETTING).map_or("", String::as_str);
        parse(value, processors()).map_err(|why| {
            let own =
                self.config.env.get(SETTING).map(|_| "the agent's configuration of this node".to_owned());
            let found = || find_setting(settings, SETTING);
            let place =
                own.or_else(|| found().map(|found| format!("{}, line {}", file.display(), found.line)));
            let place = place.unwrap_or_else(|| "the app's environment".into());
            ProfileError::Refused(format!("{SETTING}={value} in {place} {why}"))
        })
    }

    /// Makes what pm2 needs to run `entry` in several processes; gives what node is to execute, and adds to `vars`.
    pub(super) async fn several(
        &self,
        environment: &Environment,
        entry: &Path,
        vars: &mut BTreeMap<String, String>,
    ) -> Result<Vec<String>, ProfileError> {
        let program = self.pm2(environment).await?;
        let folder = self.node.data_folder.join("nocobase");
        // As long as the path of the app's own socket, which fits.
        let home = folder.join("run");
        let (preload, list) = (folder.join("worker.js"), folder.join("processes.json"));
        let arguments = environment.get("NODE_ARGS").split_whitespace();
        let node_args: Vec<String> = ["--require".to_owned(), preload.display().to_string()]
            .into_iter()
            .chain(arguments.map(str::to_owned))
            .collect();
        let apps = json!({ "apps": [{
            "name": "index",
            "script": entry,
            "args": ["start"],
            "cwd": environment.folder,
            "instances": environment.processes,
            "exec_mode": "cluster",
            "node_args": node_args,
            "kill_timeout": KILL_TIMEOUT_MS,
            "min_uptime": 0,
            "exp_backoff_restart_delay": RESTART_DELAY_MS,
            "out_file": "/dev/null",
            "error_file": "/dev/null",
            "treekill": false,
            "pmx": false,
            "vizion": false,
        }] });
        let files = [(preload, PRELOAD.replace("MARKER", MARKER)), (list.clone(), apps.to_string())];
        let write = {
            let home = home.clone();
            move || {
                std::fs::create_dir_all(home)?;
                files.iter().try_for_each(|(path, text)| durable::write(path, text.as_bytes()))
            }
        };
        let written = tokio::task::spawn_blocking(write)
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)));
        written.map_err(|error| {
            ProfileError::Refused(format!(
                "what pm2 needs cannot be written to {}: {error}",
                folder.display()
            ))
        })?;
        for (key, value) in [
            ("PM2_HOME", home.display().to_string()),
            ("PM2_KILL_SIGNAL", "SIGTERM".to_owned()),
            ("PM2_DISABLE_VERSION_CHECK", "true".to_owned()),
            ("PM2_NO_INTERACTION", "true".to_owned()),
        ] {
            vars.insert(key.into(), value);
        }
        Ok(vec![
            program.display().to_string(),
            "start".into(),
            "--no-auto-exit".into(),
            list.display().to_string(),
        ])
    }

    /// Where pm2 is.
    pub(super) async fn pm2(&self, environment: &Environment) -> Result<PathBuf, ProfileError> {
        for name in PROGRAMS {
            let path = environment.folder.join(name);
            if self.code.exists(path.clone()).await.unwrap_or(false) {
                return Ok(path);
            }
        }
        Err(ProfileError::Refused(format!(
            "{SETTING}={} needs pm2, and {} does not exist: the app is not installed completely (run yarn install there), or remove {SETTING}",
            environment.get(SETTING),
            environment.folder.join(PROGRAMS[0]).display()
        )))
    }
}

/// Takes the setting away from an app that is to run as one process.
pub(super) fn alone(vars: &mut BTreeMap<String, String>) {
    if let Some(value) = vars.get_mut(SETTING) {
        // Not removed: what is not set would be read from the file again.
        value.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_pm2_counts_them() {
        for (value, processes) in [
            ("", 1),
            (" ", 1),
            ("1", 1),
            ("2", 2),
            (" 3 ", 3),
            ("32", 32),
            ("max", 4),
            ("0", 4),
            ("-1", 3),
            ("-4", 1),
            ("-9", 1),
        ] {
            assert_eq!(parse(value, 4), Ok(processes), "{value}");
        }
        for value in ["true", "MAX", "2 processes", "1.5", "max # all"] {
            assert!(parse(value, 4).unwrap_err().contains("neither a number nor \"max\""), "{value}");
        }
        assert!(parse("33", 4).unwrap_err().contains("33 processes"));
        assert!(parse("max", 64).unwrap_err().contains("64 processes"));
        assert!(processors() >= 1);
    }
}
