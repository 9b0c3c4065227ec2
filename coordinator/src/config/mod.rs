//! What a coordinator is started with: flags over environment over a TOML file over defaults.
//!
//! A mistake is answered with where it is, what is wrong, and what was probably meant.

mod explain;
mod keys;

use std::{collections::BTreeMap, fmt, path::PathBuf};

use clap::Parser;
use explain::explain;
use figment::{
    Figment,
    providers::{Env, Format as _, Serialized, Toml},
};
use keys::{Keys, in_millis};
use serde::{Deserialize, Serialize};
use soloist_core::policy::Policy;

/// Prefix of the environment variables: `SOLOIST_COORDINATOR_LISTEN` is the key `listen`, and a section's key follows two
/// underscores, as in `SOLOIST_COORDINATOR_FLEET_DEFAULTS__LEASE`.
pub const ENV_PREFIX: &str = "SOLOIST_COORDINATOR_";

/// What is logged by default. The consensus library warns at every heartbeat that fails, which `notice` says once; and that of HTTP/2 at whatever a
/// hostile client does, as often as it does it.
const LOG: &str = "info,openraft=error,h2=error";

/// Soloist's coordinator: keeps a NocoBase fleet safe while it is being changed.
///
/// Every flag is also a key of the configuration file and, as `SOLOIST_COORDINATOR_KEY`, an environment variable.
#[derive(Debug, Clone, Default, Parser, Serialize)]
#[command(name = "soloist-coordinator", version)]
pub struct Flags {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "SOLOIST_COORDINATOR_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// This member's id, never used twice [default: 1, if it is alone]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// Name of the cluster of coordinators [default: soloist]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Folder for everything this member must not forget
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Address for agents, clients and the other members [default: 127.0.0.1:7401]
    #[arg(long, value_name = "HOST:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// Where the other members reach this one [default: its --member entry, else --listen]
    #[arg(long, value_name = "HOST:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// Address for probes and metrics, or "none" [default: 127.0.0.1:7501]
    #[arg(long, value_name = "HOST:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// A member of a new cluster, this one included; once for each
    #[arg(long = "member", value_name = "ID=HOST:PORT", value_parser = member)]
    #[serde(rename = "members", serialize_with = "as_map", skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<(String, String)>,
    /// Wait to be taken in by an existing cluster
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub join: bool,
    /// Hold this member back to a feature level below its own, so that the cluster cannot be finalized for a release that may have
    /// to be taken back; it then acts as the release of that level. The member stops at whatever is of a higher level
    #[arg(long, value_name = "LEVEL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_feature_level: Option<u32>,
    /// What to log, for example "info" or "soloist_coordinator=debug" [default: info,openraft=error,h2=error]
    #[arg(long, value_name = "FILTER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// How to log: human or json [default: human]
    #[arg(long, value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<String>,
    /// What to do instead of running
    #[command(subcommand)]
    #[serde(skip)]
    pub command: Option<Command>,
}

/// What the program does besides running a member.
#[derive(Debug, Clone, PartialEq, Eq, clap::Subcommand)]
pub enum Command {
    /// Make a new data folder from a backup: the only member of a cluster that goes on from there
    ///
    /// All members of before must be stopped and stay so. Start this one, take new members in, and have somebody look at each fleet.
    Restore {
        /// What soloist cluster backup has written
        file: PathBuf,
    },
}

fn member(text: &str) -> Result<(String, String), String> {
    let (id, address) = text.split_once('=').ok_or("write ID=HOST:PORT, for example 1=10.0.0.1:7401")?;
    Ok((id.trim().to_owned(), address.trim().to_owned()))
}

fn as_map<S: serde::Serializer>(members: &[(String, String)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(members.iter().map(|(id, address)| (id, address)))
}

/// How to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This member's id.
    pub id: u64,
    /// The cluster's name.
    pub cluster: String,
    /// The data folder.
    pub data: PathBuf,
    /// Address for gRPC.
    pub listen: String,
    /// Where the others reach this member.
    pub advertise: String,
    /// Address for HTTP, if any.
    pub http: Option<String>,
    /// Members of a new cluster, this one included; empty if it waits to be taken in.
    pub members: BTreeMap<u64, String>,
    /// Timeouts of fleets that agents make by enrolling.
    pub fleet_defaults: Policy,
    /// The highest feature level that this member follows.
    pub max_feature_level: u32,
    /// What to log.
    pub log: String,
    /// How to log.
    pub log_format: LogFormat,
}

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}{}", place(.at), suggestion(.hint))]
pub struct ConfigError {
    /// Where: a file with its line, an environment variable, a flag; may be empty.
    pub at: String,
    /// What is wrong.
    pub problem: String,
    /// What to do; may be empty.
    pub hint: String,
}

fn place(at: &str) -> String {
    if at.is_empty() { String::new() } else { format!("{at}: ") }
}

fn suggestion(hint: &str) -> String {
    if hint.is_empty() { String::new() } else { format!("\nhint: {hint}") }
}

impl ConfigError {
    fn new(problem: impl fmt::Display, hint: impl fmt::Display) -> ConfigError {
        ConfigError { at: String::new(), problem: problem.to_string(), hint: hint.to_string() }
    }
}

impl Config {
    /// Reads the file that the flags name, the environment, and the flags.
    ///
    /// # Errors
    ///
    /// With the place of the first mistake.
    pub fn load(flags: &Flags) -> Result<Config, ConfigError> {
        let mut figment = Figment::new();
        let mut text = None;
        if let Some(path) = &flags.config {
            let found = std::fs::read_to_string(path).map_err(|error| {
                ConfigError::new(format!("cannot read {}: {error}", path.display()), "correct --config")
            })?;
            figment = figment.merge(Toml::string(&found));
            text = Some((path.as_path(), found));
        }
        figment = figment.merge(Env::prefixed(ENV_PREFIX).ignore(&["config"]).split("__"));
        figment = figment.merge(Serialized::defaults(flags));
        let text = text.as_ref().map(|(path, text)| (*path, text.as_str()));
        let keys: Keys = in_millis(figment).extract().map_err(|error| explain(error, text))?;
        keys.check()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use soloist_core::time::Millis;

    use super::*;

    fn load(arguments: &[&str]) -> Result<Config, ConfigError> {
        let arguments = [&["soloist-coordinator"], arguments].concat();
        Config::load(&Flags::try_parse_from(arguments).unwrap())
    }

    fn load_file(text: &str) -> Result<Config, ConfigError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        load(&["--config", file.path().to_str().unwrap()])
    }

    #[test]
    fn plain_flags_suffice() {
        let config = load(&[
            "--id",
            "1",
            "--data",
            "d",
            "--listen",
            "127.0.0.1:7401",
            "--http",
            "127.0.0.1:7501",
            "--member",
            "1=127.0.0.1:7401",
            "--member",
            "2=127.0.0.1:7402",
        ])
        .unwrap();
        assert_eq!(config.members.len(), 2);
        assert_eq!(config.advertise, "127.0.0.1:7401");
        assert_eq!(config.fleet_defaults, Policy::default());
    }

    #[test]
    fn one_alone_needs_a_folder_only() {
        let config = load(&["--data", "d"]).unwrap();
        assert_eq!((config.id, config.members), (1, BTreeMap::from([(1, "127.0.0.1:7401".to_owned())])));
        assert_eq!(load(&[]).unwrap_err().problem, "data is missing");
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest() {
        let error = load_file("data = \"d\"\nlisen = \"127.0.0.1:1\"\n").unwrap_err();
        assert!(error.at.ends_with("line 2"), "{error}");
        assert_eq!(error.problem, "there is no key \"lisen\"");
        assert_eq!(error.hint, "did you mean \"listen\"?");
        let error = load_file("data = \"d\"\n[fleet_defaults]\nleese = 1\n").unwrap_err();
        assert!(error.at.ends_with("line 3"), "{error}");
        assert_eq!(error.problem, "there is no key \"fleet_defaults.leese\"");
    }

    #[test]
    fn a_malformed_value_is_named_with_its_line() {
        let error = load_file("id = \"one\"\ndata = \"d\"\n").unwrap_err();
        assert!(error.at.ends_with("line 1"), "{error}");
        assert!(error.problem.contains("id"), "{error}");
        let error = load_file("data = \n").unwrap_err();
        assert!(error.to_string().contains("line 1"), "{error}");
    }

    #[test]
    fn lengths_may_have_units() {
        let config =
            load_file("data = \"d\"\n[fleet_defaults]\nlease = \"45s\"\ntask_timeout = 5000\n").unwrap();
        assert_eq!(config.fleet_defaults.lease, Millis::from_secs(45));
        assert_eq!(config.fleet_defaults.task_timeout, Millis::from_secs(5));
        assert!(load_file("data = \"d\"\n[fleet_defaults]\nlease = 30\n").is_err());
    }

    #[test]
    fn what_is_wrong_with_the_defaults_is_named() {
        let wrong = |section: &str| {
            let text = format!("data = \"d\"\n[fleet_defaults]\n{section}\n");
            let error = load_file(&text).unwrap_err();
            (error.problem, error.hint.starts_with("a length is"))
        };
        let shorter = ("fleet_defaults.lease is shorter than a second".to_owned(), true);
        assert_eq!(wrong("lease = 30"), shorter);
        let (problem, length) = wrong("max_parallel = 0");
        assert!(problem.starts_with("fleet_defaults.max_parallel is 0") && !length, "{problem}");
        let (problem, length) = wrong("checks = [{ name = \"\", what = { plugin = { plugin = \"a\" } } }]");
        assert!(
            problem.starts_with("fleet_defaults.checks: checks belong to one fleet") && !length,
            "{problem}"
        );
    }

    #[test]
    fn whatever_the_file_says_is_a_configuration_or_an_error_with_its_place() {
        let seeds = [
            "id = 1\ndata = \"d\"\nlisten = \"127.0.0.1:7401\"\nhttp = \"none\"\n[members]\n1 = \"127.0.0.1:7401\"\n",
            "data = \"d\"\njoin = true\nid = 3\nmax_feature_level = 1\nlog_format = \"json\"\n",
            "data = \"d\"\n[fleet_defaults]\nlease = \"45s\"\ntask_timeout = 5000\nheal = \"automatic\"\n",
            "data = \"d\"\nadvertise = \"10.0.0.1:1\"\nmembers = \"1=10.0.0.1:1,2=10.0.0.2:1\"\n",
        ];
        let file = tempfile::NamedTempFile::new().unwrap();
        let name = file.path().to_str().unwrap();
        let keys: Vec<String> =
            "id cluster data listen advertise http members join max_feature_level log log_format fleet_defaults key"
                .split(' ')
                .map(str::to_owned)
                .collect();
        crate::hell::harm_texts(&seeds, |text| {
            std::fs::write(name, text).unwrap();
            let Err(error) = load(&["--config", name]) else { return };
            assert!(!error.problem.is_empty() && error.to_string().chars().count() < 3000, "{error}");
            // A mistake in TOML has a line; a value that cannot be says of which key it is.
            let named = |key: &String| error.problem.contains(key) || error.at.contains(key);
            assert!(error.at.contains(name) || keys.iter().any(named), "{error:?} of {text:?}");
        });
    }

    #[test]
    fn members_that_cannot_be_are_refused() {
        let with =
            |member: &str| load(&["--id", "1", "--data", "d", "--member", member]).unwrap_err().problem;
        assert!(with("2=127.0.0.1:7402").contains("not in its own list"));
        assert!(with("x=127.0.0.1:7402").contains("not a member id"));
        assert!(with("1=somewhere").contains("not an address"));
        assert!(load(&["--data", "d", "--listen", "0.0.0.0:7401"]).is_err());
    }
}
