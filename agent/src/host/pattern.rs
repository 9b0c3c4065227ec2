//! Which processes on the host are the app, whoever started them.

use std::path::{Path, PathBuf};

use super::process::{cwd, env_value};

/// How a node's app is recognised when somebody else started it.
#[derive(Debug, Clone)]
pub enum AppPattern {
    /// NocoBase and its launchers (`nocobase`, `yarn start`, pm2), in a folder of the node's app or on its database.
    NocoBase {
        /// The node's app folder and the folder with its releases, canonical and as people name them.
        app_folders: Vec<PathBuf>,
        /// The node's own database, where it is known.
        database: Option<DatabaseAddress>,
    },
    /// A configured command, in a folder of the node's app.
    Command {
        /// The node's app folder and the folder with its releases, canonical and as people name them.
        app_folders: Vec<PathBuf>,
        /// The configured arguments; a process whose arguments begin with them is the app.
        argv: Vec<String>,
    },
}

/// Where an app finds its database, as its environment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseAddress {
    /// `DB_HOST`.
    pub host: String,
    /// `DB_PORT`.
    pub port: String,
    /// `DB_DATABASE`.
    pub database: String,
}

impl DatabaseAddress {
    fn same(&self, environ: &[Vec<u8>]) -> bool {
        let get = |key| env_value(environ, key).and_then(|value| value.to_str());
        get("DB_HOST").is_some_and(|host| plain_host(host) == plain_host(&self.host))
            && get("DB_PORT").is_none_or(|port| port == self.port)
            && get("DB_DATABASE") == Some(self.database.as_str())
    }
}

fn plain_host(host: &str) -> &str {
    if matches!(host, "localhost" | "::1") { "127.0.0.1" } else { host }
}

impl AppPattern {
    /// Whether a process with these arguments and this environment is the node's app.
    pub(crate) fn is_app(&self, pid: u32, argv: &[String], environ: Option<&[Vec<u8>]>) -> bool {
        match self {
            AppPattern::NocoBase { app_folders, database } => {
                is_nocobase(argv)
                    && (below(pid, app_folders)
                        || argv.iter().any(|arg| inside(Path::new(arg), app_folders))
                        || database.as_ref().zip(environ).is_some_and(|(own, environ)| own.same(environ)))
            }
            AppPattern::Command { app_folders, argv: own } => {
                !own.is_empty() && argv.starts_with(own) && below(pid, app_folders)
            }
        }
    }
}

fn below(pid: u32, folders: &[PathBuf]) -> bool {
    cwd(pid).is_some_and(|cwd| inside(&cwd, folders))
}

fn inside(path: &Path, folders: &[PathBuf]) -> bool {
    folders.iter().any(|folder| path.starts_with(folder))
}

/// Entry points of the app itself, in an installation and in a source checkout.
const ENTRY: [&str; 3] =
    ["@nocobase/app/lib/index.js", "packages/core/app/lib/index.js", "@nocobase/app/src/index.ts"];
/// Launchers that are NocoBase by their own name.
const LAUNCHERS: [&str; 3] = ["nocobase", "nocobase-v1", "nocobase.js"];
/// Script runners that are NocoBase by what they are told to run.
const RUNNERS: [&str; 8] = ["yarn", "yarn.js", "npm", "npm-cli.js", "npx", "pnpm", "pnpm.cjs", "npx-cli.js"];
/// Process managers of the app.
const MANAGERS: [&str; 4] = ["pm2-runtime", "pm2", "pm2-docker", "Daemon.js"];
/// Interpreters that may run the app's entry point.
const INTERPRETERS: [&str; 6] = ["node", "nodejs", "bun", "deno", "tsx", "ts-node"];
/// Commands that run scripts given as text.
const SHELLS: [&str; 4] = ["sh", "bash", "dash", "ash"];

/// Whether arguments are those of NocoBase or of something that starts it. Where it runs is asked separately.
pub(crate) fn is_nocobase(argv: &[String]) -> bool {
    let Some(first) = argv.first() else { return false };
    // Programs that rename themselves show one argument with spaces; shells have the command as text.
    let words: Vec<&str> = match argv {
        [title] => title.split_whitespace().collect(),
        [shell, flag, script, ..] if SHELLS.contains(&base(shell)) && flag.ends_with('c') => {
            script.split_whitespace().collect()
        }
        _ => argv.iter().map(String::as_str).collect(),
    };
    if words.first().is_some_and(|word| *word == "PM2") || first.starts_with("PM2 ") {
        return true;
    }
    // The program is the first word, or the first script that an interpreter or `exec` is given.
    let Some(at) = words.iter().position(|word| !skipped(word)) else { return false };
    let program = words[at];
    let rest = words.get(at + 1..).unwrap_or_default();
    LAUNCHERS.contains(&base(program))
        || MANAGERS.contains(&base(program))
        || (words[..at].iter().any(|word| INTERPRETERS.contains(&base(word)))
            && words[at..].iter().any(|word| is_entry(word)))
        || (RUNNERS.contains(&base(program)) && rest.iter().any(|word| starts_app(word)))
}

fn skipped(word: &str) -> bool {
    word.starts_with('-')
        || word == "exec"
        || INTERPRETERS.contains(&base(word))
        || SHELLS.contains(&base(word))
}

fn is_entry(word: &str) -> bool {
    ENTRY.iter().any(|entry| word.ends_with(entry))
}

fn starts_app(word: &str) -> bool {
    matches!(word, "start" | "dev" | "upgrade") || word.starts_with("nocobase")
}

fn base(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nocobase(argv: &[&str]) -> bool {
        is_nocobase(&argv.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn every_way_to_start_it_is_known() {
        assert!(nocobase(&["node", "/srv/app/node_modules/@nocobase/app/lib/index.js", "start"]));
        assert!(nocobase(&[
            "/usr/bin/node",
            "--max-old-space-size=4096",
            "node_modules/@nocobase/app/lib/index.js"
        ]));
        assert!(nocobase(&["node", "/srv/app/node_modules/.bin/nocobase-v1", "start"]));
        assert!(nocobase(&["node", "/usr/lib/node_modules/yarn/bin/yarn.js", "start", "--quickstart"]));
        assert!(nocobase(&["/bin/sh", "-c", "nocobase-v1 start --quickstart"]));
        assert!(nocobase(&["sh", "-c", "exec node ./node_modules/@nocobase/app/lib/index.js start"]));
        assert!(nocobase(&["node", "/srv/app/node_modules/.bin/pm2-runtime", "start", "x"]));
        assert!(nocobase(&["PM2 v5.4.3: God Daemon (/srv/app/storage/.pm2)"]));
        assert!(nocobase(&["node /srv/app/node_modules/@nocobase/app/lib/index.js start"]));
        assert!(nocobase(&["npx", "nocobase", "start"]));
    }

    #[test]
    fn neighbours_are_not_taken_for_it() {
        assert!(!nocobase(&[]));
        assert!(!nocobase(&["vim", "node_modules/@nocobase/app/lib/index.js"]));
        assert!(!nocobase(&["tail", "-f", "storage/logs/nocobase"]));
        assert!(!nocobase(&["node", "-e", "require('node_modules/@nocobase/cli-v1/src/util.js').initEnv()"]));
        assert!(!nocobase(&["node", "server.js"]));
        assert!(!nocobase(&["yarn", "install"]));
        assert!(!nocobase(&["soloist-agent", "keep", "--dir", "/var/lib/soloist"]));
        assert!(!nocobase(&["bash"]));
    }

    #[test]
    fn a_database_is_known_by_its_address() {
        let own = DatabaseAddress { host: "localhost".into(), port: "5432".into(), database: "noco".into() };
        let env = |pairs: &[&str]| pairs.iter().map(|pair| pair.as_bytes().to_vec()).collect::<Vec<_>>();
        assert!(own.same(&env(&["DB_HOST=127.0.0.1", "DB_PORT=5432", "DB_DATABASE=noco"])));
        assert!(!own.same(&env(&["DB_HOST=127.0.0.1", "DB_PORT=5433", "DB_DATABASE=noco"])));
        assert!(!own.same(&env(&["DB_HOST=127.0.0.1", "DB_PORT=5432", "DB_DATABASE=other"])));
        assert!(!own.same(&env(&["DB_DATABASE=noco"])));
    }
}
