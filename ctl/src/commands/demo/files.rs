//! What the demo's processes are configured with. Paths and times are written as TOML strings and numbers.

use std::path::Path;

use crate::error::{CtlError, Result};

/// How long enabling a plugin takes: long enough to lose a leader meanwhile.
const TASK_MS: u64 = 4000;
/// How long the stand-in takes to start, and an install on top of that.
const START_MS: u64 = 1200;
const INSTALL_MS: u64 = 1500;

/// Coordinators notice a silent agent or holder quickly. In milliseconds.
pub(super) const COORDINATOR: &str = "\
[fleet_defaults]
contact_timeout = 5000
pre_grant_timeout = 60000
confirm_timeout = 10000
accept_timeout = 5000
lease = 9000
gather_timeout = 5000
start_timeout = 30000
stop_timeout = 20000
task_timeout = 30000
";

/// The account that every fresh stand-in has; it listens on the loopback only.
pub(super) const CREDENTIAL: &str = "account = \"admin@nocobase.com\"\npassword = \"admin123\"\n";

/// What an agent's configuration is made of.
pub(super) struct AgentFile<'a> {
    pub(super) fleet: &'a str,
    pub(super) node: &'a str,
    pub(super) program: &'a Path,
    pub(super) folder: &'a Path,
    pub(super) coordinators: &'a [String],
    pub(super) http: u16,
    pub(super) app: u16,
}

impl AgentFile<'_> {
    /// The configuration as TOML.
    pub(super) fn toml(&self) -> Result<String> {
        let program = text(self.program)?;
        let (database, storage) =
            (text(&self.folder.join("database.json"))?, text(&self.folder.join("storage"))?);
        let (port, node) = (self.app.to_string(), self.node);
        let files = ["--database", &database, "--storage", &storage];
        let numbers = [TASK_MS, START_MS, INSTALL_MS].map(|number| number.to_string());
        let delays = [
            "--task-delay-ms",
            &numbers[0],
            "--start-delay-ms",
            &numbers[1],
            "--migrate-delay-ms",
            &numbers[2],
        ];
        let start =
            [&[program.as_str(), "stand-in", "start", "--port", &port], &files[..], &delays[..]].concat();
        let install = [&start[..], &["--quickstart"]].concat();
        let facts = [&[program.as_str(), "stand-in", "facts"], &files[..]].concat();
        let data = text(&self.folder.join(node))?;
        let credential = text(&self.folder.join("credential"))?;
        Ok(format!(
            "fleet = {}\nnode = {}\ndata_dir = {}\ncoordinators = {}\nhttp = {}\ngrace_secs = 5\n\n\
             [app]\nprofile = \"generic\"\ncommand = {}\nmigrate_command = {}\nfacts_command = {}\n\
             cwd = {}\napi_url = {}\ncredential = {}\n",
            quoted(self.fleet),
            quoted(node),
            quoted(&data),
            list(self.coordinators),
            quoted(&format!("127.0.0.1:{}", self.http)),
            list(&start),
            list(&install),
            list(&facts),
            quoted(&text(&self.folder.join(format!("{node}-app")))?),
            quoted(&format!("http://127.0.0.1:{port}/api/")),
            quoted(&credential),
        ))
    }
}

fn text(path: &Path) -> Result<String> {
    let found = path.to_str().map(str::to_owned);
    found.ok_or_else(|| CtlError::failed(format!("{} is not a path in UTF-8", path.display())))
}

/// A TOML string: its escapes are those of JSON for everything a path can hold.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn list<T: AsRef<str>>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(item.as_ref())).collect();
    format!("[{}]", items.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_carry_the_folder_by_which_they_are_found() {
        let coordinators = ["127.0.0.1:1".to_owned()];
        let file = AgentFile {
            fleet: "demo",
            node: "node-1",
            program: Path::new("/bin/so\"loist"),
            folder: Path::new("/tmp/demo-x"),
            coordinators: &coordinators,
            http: 2,
            app: 3,
        };
        let toml = file.toml().unwrap();
        assert!(
            toml.contains("command = [\"/bin/so\\\"loist\", \"stand-in\", \"start\", \"--port\", \"3\""),
            "{toml}"
        );
        assert!(toml.contains("\"--database\", \"/tmp/demo-x/database.json\""), "{toml}");
        assert!(toml.contains("coordinators = [\"127.0.0.1:1\"]"), "{toml}");
    }
}
