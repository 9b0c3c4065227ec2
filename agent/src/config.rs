//! The agent's configuration: one TOML file, with the most common values also from the environment.
//!
//! ```toml
//! fleet = "main"
//! node = "node-1"
//! data_dir = "/var/lib/soloist-agent"
//! coordinators = ["10.0.0.1:7401", "10.0.0.2:7401", "10.0.0.3:7401"]
//! http = "0.0.0.0:7411"
//!
//! [app]
//! profile = "nocobase"
//! app_folder = "/srv/nocobase"
//! credential = "/etc/soloist/nocobase-credential"
//!
//! # For upgrades: versions of the code, and the link through which app_folder then goes.
//! [release]
//! folder = "/opt/nocobase/releases"
//! current = "/opt/nocobase/current"
//! fetch = ["/usr/local/bin/fetch-nocobase"]
//!
//! # What users see while they are kept away.
//! [page]
//! listen = "0.0.0.0:7412"
//!
//! # Programs that the fleet's checks may name.
//! [checks]
//! smoke = ["/usr/local/bin/smoke-test", "--fast"]
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use soloist_core::command::Role;
use soloist_core::ids::{FleetId, NodeId};

use crate::backup::BackupConfig;
use crate::balancer::BalancerConfig;
use crate::fence::config::FencesConfig;
use crate::host::{BOOT_ID_PATH, MACHINE_ID_PATH};
use crate::page::{Face, PageConfig};
use crate::profile::ProfileConfig;
use crate::release::ReleaseConfig;

/// Variables that replace values of the file.
const VARIABLES: [&str; 5] = [
    "SOLOIST_AGENT_FLEET",
    "SOLOIST_AGENT_NODE",
    "SOLOIST_AGENT_DATA_DIR",
    "SOLOIST_AGENT_COORDINATORS",
    "SOLOIST_AGENT_HTTP",
];

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}; name the file with --config", path = path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{path}:{line}: {what}", path = path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Where.
        line: usize,
        /// What is wrong, and what may be meant.
        what: String,
    },
    /// A variable is not what it should be.
    #[error("the environment variable {name} is not valid: {what}")]
    Variable {
        /// Its name.
        name: &'static str,
        /// What is wrong.
        what: String,
    },
}

/// Everything that an agent is told.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The fleet that the node belongs to.
    pub fleet: FleetId,
    /// The node's name, unique in its fleet.
    pub node: NodeId,
    /// Folder for the ledger and the keeper's files; one agent only.
    pub data_dir: PathBuf,
    /// gRPC addresses of the coordinators, `host:port`; any of them will do.
    pub coordinators: Vec<String>,
    /// Where the agent answers HTTP; without it, it does not.
    #[serde(default)]
    pub http: Option<SocketAddr>,
    /// What people are told as the agent's HTTP address; the one above unless given.
    #[serde(default)]
    pub address: Option<String>,
    /// Seconds between SIGTERM and SIGKILL for the app; as the fleet's policy says unless given.
    #[serde(default)]
    pub grace_secs: Option<u64>,
    /// File that holds the kernel's boot id; replaced in tests only.
    #[serde(default = "boot_id_file")]
    pub boot_id_file: PathBuf,
    /// File that holds the machine id.
    #[serde(default = "machine_id_file")]
    pub machine_id_file: PathBuf,
    /// How the app is backed up.
    #[serde(default)]
    pub backup: BackupConfig,
    /// Where versions of the app's code lie; without it, there is only the one that is there.
    #[serde(default)]
    pub release: Option<ReleaseConfig>,
    /// Programs that the fleet's checks may name, each with its arguments; they succeed if the node is good.
    #[serde(default)]
    pub checks: BTreeMap<String, Vec<String>>,
    /// The app; without it, there must be a load balancer.
    #[serde(default)]
    pub app: Option<ProfileConfig>,
    /// The load balancer that this agent steers; then it runs no app.
    #[serde(default)]
    pub balancer: Option<BalancerConfig>,
    /// The fences around other nodes that this agent can put up.
    #[serde(default)]
    pub fences: FencesConfig,
    /// The maintenance page that this agent serves; without it, it serves none.
    #[serde(default)]
    pub page: Option<PageConfig>,
}

fn boot_id_file() -> PathBuf {
    BOOT_ID_PATH.into()
}

fn machine_id_file() -> PathBuf {
    MACHINE_ID_PATH.into()
}

impl Config {
    /// Reads the file, then what the environment replaces.
    pub fn load(path: &Path, env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let mut config = Self::parse(path, &text)?;
        config.replace(env)?;
        if config.coordinators.is_empty() {
            let what =
                "coordinators is empty: name at least one, for example [\"127.0.0.1:7401\"]".to_owned();
            return Err(malformed(path, line_of(&text, "coordinators"), what));
        }
        if let Some(what) = config.release.as_ref().and_then(ReleaseConfig::problem) {
            return Err(malformed(path, line_of(&text, "[release]"), what));
        }
        if let Some(what) = config.fences.problem(&config.node) {
            return Err(malformed(path, line_of(&text, "[fences"), what));
        }
        if let Some(page) = &config.page {
            check_page(path, &text, page)?;
            if config.http == Some(page.listen) {
                let what = "[page] listens where http does: users must not see the agent's status, so give the page another port";
                return Err(malformed(path, line_of(&text, "[page]"), what.to_owned()));
            }
        }
        let both = "an agent runs an app or steers a load balancer: keep [app] or [balancer], and give the other an agent of its own";
        match (&config.app, &config.balancer) {
            (Some(_), None) => {}
            (None, Some(balancer)) => {
                if let Some(what) = balancer.problem() {
                    return Err(malformed(path, line_of(&text, "[balancer]"), what));
                }
            }
            (Some(_), Some(_)) => return Err(malformed(path, line_of(&text, "[balancer]"), both.to_owned())),
            (None, None) => {
                let what = "there is no table [app]; an agent beside a load balancer has [balancer] instead"
                    .to_owned();
                return Err(malformed(path, 1, what));
            }
        }
        if let Some((name, _)) = config.checks.iter().find(|(_, argv)| argv.is_empty()) {
            let what = format!("the check \"{name}\" names no program");
            return Err(malformed(path, line_of(&text, name), what));
        }
        Ok(config)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let message = error.message().trim().to_owned();
            // Errors inside a tagged table point at the table: an unknown key is looked for by its name.
            let unknown = quoted(&message).first().filter(|_| message.starts_with("unknown field")).copied();
            let line = match (unknown, error.span()) {
                (Some(key), _) => line_of(text, key),
                (None, Some(span)) => text[..span.start.min(text.len())].matches('\n').count() + 1,
                (None, None) => 1,
            };
            ConfigError::Malformed { path: path.to_owned(), line, what: with_suggestion(&message) }
        })
    }

    fn replace(&mut self, env: impl Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        for name in VARIABLES {
            let Some(value) = env(name).filter(|value| !value.is_empty()) else { continue };
            let bad = |error: &dyn std::fmt::Display| ConfigError::Variable { name, what: error.to_string() };
            match name {
                "SOLOIST_AGENT_FLEET" => self.fleet = FleetId::new(value).map_err(|error| bad(&error))?,
                "SOLOIST_AGENT_NODE" => self.node = NodeId::new(value).map_err(|error| bad(&error))?,
                "SOLOIST_AGENT_DATA_DIR" => self.data_dir = value.into(),
                "SOLOIST_AGENT_COORDINATORS" => {
                    self.coordinators = value.split(',').map(|part| part.trim().to_owned()).collect();
                }
                _ => self.http = Some(value.parse().map_err(|error: std::net::AddrParseError| bad(&error))?),
            }
        }
        Ok(())
    }

    /// What this agent does for its fleet.
    pub fn role(&self) -> Role {
        if self.balancer.is_some() { Role::Balancer } else { Role::App }
    }

    /// The node's own time between SIGTERM and SIGKILL.
    pub fn grace(&self) -> Option<Duration> {
        self.grace_secs.map(Duration::from_secs)
    }

    /// The agent's HTTP address as people are told.
    pub fn shown_address(&self) -> String {
        self.address.clone().or_else(|| self.http.map(|address| address.to_string())).unwrap_or_default()
    }
}

/// A broken template is known before users see it.
fn check_page(path: &Path, text: &str, page: &PageConfig) -> Result<(), ConfigError> {
    if let Some(what) = page.problem() {
        return Err(malformed(path, line_of(text, "[page]"), what));
    }
    Face::new(page).map(drop).map_err(|error| {
        let file = page.template.as_deref().unwrap_or(path);
        malformed(file, error.line(), error.to_string())
    })
}

fn malformed(path: &Path, line: usize, what: String) -> ConfigError {
    ConfigError::Malformed { path: path.to_owned(), line, what }
}

fn line_of(text: &str, key: &str) -> usize {
    let found = text.lines().position(|line| line.split('=').next().is_some_and(|left| left.trim() == key));
    found.map_or(1, |at| at + 1)
}

/// The words between backticks of serde's messages.
fn quoted(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

/// Adds the key that was probably meant to serde's list of keys.
fn with_suggestion(message: &str) -> String {
    let words = quoted(message);
    let Some((given, known)) = words.split_first().filter(|_| message.starts_with("unknown field")) else {
        return message.to_owned();
    };
    let near = known.iter().map(|key| (strsim::jaro_winkler(given, key), key));
    match near.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((score, key)) if score > 0.75 => {
            format!("unknown key \"{given}\"; did you mean \"{key}\"? The keys are {}", known.join(", "))
        }
        _ => format!("unknown key \"{given}\"; the keys are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "fleet = \"main\"\nnode = \"node-1\"\ndata_dir = \"/tmp/x\"\ncoordinators = [\"127.0.0.1:7401\"]\n\n\
                        [app]\nprofile = \"generic\"\ncommand = [\"true\"]\ncwd = \"/\"\n";

    fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        std::fs::write(&path, text).unwrap();
        let find =
            |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Config::load(&path, find)
    }

    #[test]
    fn the_environment_replaces_values() {
        let env = [("SOLOIST_AGENT_NODE", "node-9"), ("SOLOIST_AGENT_COORDINATORS", "a:1, b:2")];
        let config = load(GOOD, &env).unwrap();
        assert_eq!((config.node.as_str(), config.coordinators.len()), ("node-9", 2));
        let error = load(GOOD, &[("SOLOIST_AGENT_HTTP", "nowhere")]).unwrap_err().to_string();
        assert!(error.contains("SOLOIST_AGENT_HTTP"), "{error}");
    }

    #[test]
    fn a_wrong_key_is_named_with_its_line_and_what_was_meant() {
        let error = load(&GOOD.replace("coordinators", "cordinators"), &[]).unwrap_err().to_string();
        assert!(
            error.contains("agent.toml:4: unknown key \"cordinators\"; did you mean \"coordinators\"?"),
            "{error}"
        );
        let error = load(&GOOD.replace("command", "comand"), &[]).unwrap_err().to_string();
        assert!(error.contains("agent.toml:8:") && error.contains("did you mean \"command\"?"), "{error}");
    }

    #[test]
    fn other_mistakes_have_a_line_too() {
        let error = load(&GOOD.replace("\"node-1\"", "\"Node 1\""), &[]).unwrap_err().to_string();
        assert!(error.contains("agent.toml:2:") && error.contains("Node 1"), "{error}");
        let error = load(&GOOD.replace("[\"127.0.0.1:7401\"]", "[]"), &[]).unwrap_err().to_string();
        assert!(error.contains("agent.toml:4: coordinators is empty"), "{error}");
        let release = format!("{GOOD}[release]\nfolder = \"/r\"\n");
        let error = load(&release, &[]).unwrap_err().to_string();
        assert!(error.contains("agent.toml:10: [release] needs folder and current"), "{error}");
        let error = load(&format!("{GOOD}[checks]\nsmoke = []\n"), &[]).unwrap_err().to_string();
        assert!(error.contains("agent.toml:11: the check \"smoke\" names no program"), "{error}");
        let page = format!("{GOOD}[page]\nlisten = \"127.0.0.1:7412\"\n");
        assert_eq!(load(&page, &[]).unwrap().page.unwrap().retry_after_secs, 30);
        let error = load(&format!("{page}retry_after_secs = 1\n"), &[]).unwrap_err().to_string();
        assert!(error.contains("agent.toml:10: retry_after_secs in [page] is 1"), "{error}");
        let error = load(&format!("{page}tempalte = \"/t\"\n"), &[]).unwrap_err().to_string();
        assert!(error.contains("agent.toml:12:") && error.contains("did you mean \"template\"?"), "{error}");
        let error = load(&page, &[("SOLOIST_AGENT_HTTP", "127.0.0.1:7412")]).unwrap_err().to_string();
        assert!(error.contains("agent.toml:10: [page] listens where http does"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let template = folder.path().join("own.html");
        std::fs::write(&template, "<html>\n{{ reson }}\n").unwrap();
        let error = load(&format!("{page}template = {template:?}\n"), &[]).unwrap_err().to_string();
        assert!(error.contains("own.html:2: the template does not work: undefined value"), "{error}");
        let error = load("fleet = \n", &[]).unwrap_err().to_string();
        assert!(error.contains("agent.toml:1:"), "{error}");
    }
}
