//! Which processes are the app, and whose.

use std::path::{Path, PathBuf};

/// Says from an argument vector whether a process is (or runs) the app.
pub type Matcher = Box<dyn Fn(&[String]) -> bool + Send>;
/// Names the node of an app process.
pub type Labeller = Box<dyn Fn(&Process) -> String + Send>;

/// What a [`Labeller`] is shown of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// Its process id.
    pub pid: u32,
    /// Its argument vector.
    pub arguments: Vec<String>,
    /// The environment it was started with, as `KEY=VALUE`.
    pub environment: Vec<String>,
    /// Its working folder.
    pub folder: Option<PathBuf>,
}

impl Process {
    /// The value of a variable in its environment, unless it is empty.
    #[must_use]
    pub fn variable(&self, key: &str) -> Option<&str> {
        let set = |pair: &&String| {
            pair.split_once('=').is_some_and(|(name, value)| name == key && !value.is_empty())
        };
        self.environment.iter().find(set).and_then(|pair| pair.split_once('=')).map(|(_, value)| value)
    }
}

/// Matches the stand-in: `PROGRAM stand-in start …`. A parent that carries this command line as arguments of its own (a keeper, a
/// shell) does not match.
#[must_use]
pub fn is_standin(arguments: &[String]) -> bool {
    arguments.get(1).is_some_and(|word| word == "stand-in")
        && arguments.get(2).is_some_and(|word| word == "start")
}

/// The end of the path of NocoBase's app.
const NOCOBASE_APP: &str = "@nocobase/app/lib/index.js";
/// Programs that run NocoBase, or a command of it that boots the whole app.
const NOCOBASE_PROGRAMS: [&str; 3] = ["nocobase", "nocobase-v1", "pm2-runtime"];

/// Matches the real NocoBase: Node.js running the app, or one of NocoBase's command line programs. A wrapper that only carries
/// such a command line (a keeper, a shell, `runuser`) does not match; its child does.
#[must_use]
pub fn is_nocobase(arguments: &[String]) -> bool {
    // A process that rewrote its title (pm2 does) shows everything in one argument.
    let words: Vec<&str> = match arguments {
        [title] => title.split_whitespace().collect(),
        _ => arguments.iter().map(String::as_str).collect(),
    };
    let Some((program, rest)) = words.split_first() else { return false };
    if is_nocobase_program(program) {
        return true;
    }
    let script = rest.iter().find(|word| !word.starts_with('-'));
    file_name(program).starts_with("node")
        && (rest.iter().any(|word| word.ends_with(NOCOBASE_APP))
            || script.is_some_and(|word| is_nocobase_program(word)))
}

fn is_nocobase_program(word: &str) -> bool {
    NOCOBASE_PROGRAMS.contains(&file_name(word).trim_end_matches(".js"))
}

fn file_name(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

/// The node by the process's `SOLOIST_NODE` (of `fleet/node` the node), else by its `APP_PORT`, else by the name of its working
/// folder.
#[must_use]
pub fn label_by_node(process: &Process) -> String {
    if let Some(node) = process.variable("SOLOIST_NODE") {
        return file_name(node).to_owned();
    }
    if let Some(port) = process.variable("APP_PORT") {
        return format!("port {port}");
    }
    let folder = process.folder.as_deref().and_then(Path::file_name);
    folder.map_or_else(|| format!("pid {}", process.pid), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_app_matches_and_what_only_carries_its_command_line_does_not() {
        let app = "node /srv/n1/node_modules/@nocobase/app/lib/index.js start";
        assert!(is_nocobase(&words(app)));
        assert!(is_nocobase(&[app.to_owned()]), "a rewritten title");
        assert!(is_nocobase(&words(
            "/usr/bin/node --max-old-space-size=900 /srv/node_modules/.bin/nocobase-v1 start"
        )));
        assert!(is_nocobase(&words("node /srv/node_modules/.bin/pm2-runtime start --name app")));
        assert!(!is_nocobase(&words(&format!("soloist-agent keep -- {app}"))));
        assert!(!is_nocobase(&words(&format!("sh -c {app}"))));
        assert!(!is_nocobase(&words("vim nocobase")));
        assert!(!is_nocobase(&words("node build.js nocobase")));
        assert!(!is_nocobase(&[]));
        assert!(is_standin(&words("/x/soloist stand-in start --port 1")));
        assert!(!is_standin(&words("soloist stand-in facts")));
        assert!(!is_standin(&words("soloist-agent keep -- /x/soloist stand-in start")));
    }

    #[test]
    fn the_label_falls_back_from_node_to_port_to_folder() {
        let mut process = Process { pid: 7, ..Process::default() };
        assert_eq!(label_by_node(&process), "pid 7");
        process.folder = Some(PathBuf::from("/srv/node-2"));
        assert_eq!(label_by_node(&process), "node-2");
        process.environment = vec!["APP_PORT=13001".to_owned(), "SOLOIST_NODE=".to_owned()];
        assert_eq!(label_by_node(&process), "port 13001");
        process.environment.push("SOLOIST_NODE=fleet/alpha".to_owned());
        assert_eq!(label_by_node(&process), "alpha");
    }
}
