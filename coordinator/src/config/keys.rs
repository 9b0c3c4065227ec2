//! The keys as they are written, and what must be true of them.

use std::{collections::BTreeMap, path::PathBuf};

use figment::{Figment, providers::Serialized, value::Value};
use serde::Deserialize;
use soloist_core::{
    command::{FEATURE_LEVEL, FIRST_LEVEL},
    policy::Policy,
};

use super::{Config, ConfigError, LOG, LogFormat, member};

/// The keys as they are written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    id: Option<u64>,
    cluster: Option<String>,
    data: Option<PathBuf>,
    listen: Option<String>,
    advertise: Option<String>,
    http: Option<String>,
    members: Option<Members>,
    #[serde(default)]
    join: bool,
    max_feature_level: Option<u32>,
    log: Option<String>,
    #[serde(default)]
    log_format: LogFormat,
    #[serde(default)]
    fleet_defaults: Policy,
}

/// A table in a file, or `1=host:port,2=host:port` in the environment.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Members {
    Table(BTreeMap<String, String>),
    Text(String),
}

impl Keys {
    /// The configuration, if these keys make one.
    pub(super) fn check(self) -> Result<Config, ConfigError> {
        let listen = address("listen", self.listen.unwrap_or_else(|| "127.0.0.1:7401".to_owned()))?;
        let http = match self.http.unwrap_or_else(|| "127.0.0.1:7501".to_owned()) {
            none if none == "none" => None,
            http => Some(address("http", http)?),
        };
        let mut members = members(self.members)?;
        let id = match self.id {
            Some(0) => return Err(ConfigError::new("id: 0 is not a member id", "use 1 or more")),
            Some(id) => id,
            None if members.is_empty() && !self.join => 1,
            None => return Err(ConfigError::new("id is missing", "say which member this is: --id 1")),
        };
        let Some(data) = self.data else {
            return Err(ConfigError::new(
                "data is missing",
                "name a folder that only this member uses: --data DIR",
            ));
        };
        if self.join && !members.is_empty() {
            let hint = "remove --member to join an existing cluster, or --join to found a new one";
            return Err(ConfigError::new("join and members exclude each other", hint));
        }
        let advertise = match (self.advertise, members.get(&id)) {
            (Some(own), Some(listed)) if own != *listed => {
                let text = format!("advertise is {own}, but member {id} is listed with {listed}");
                return Err(ConfigError::new(
                    text,
                    "give all members the same list, with reachable addresses",
                ));
            }
            (Some(own), _) => address("advertise", own)?,
            (None, Some(listed)) => listed.clone(),
            (None, None) => listen.clone(),
        };
        if advertise.starts_with("0.0.0.0:") || advertise.starts_with("[::]:") {
            let text = format!("no other host can reach this member at {advertise}");
            return Err(ConfigError::new(text, "name a reachable address: --advertise HOST:PORT"));
        }
        if !self.join && members.is_empty() {
            members.insert(id, advertise.clone());
        }
        if !self.join && !members.contains_key(&id) {
            let known = members.keys().map(u64::to_string).collect::<Vec<_>>().join(", ");
            let text = format!("member {id} is not in its own list of members ({known})");
            return Err(ConfigError::new(text, format!("add --member {id}={advertise}, or correct --id")));
        }
        check_policy(&self.fleet_defaults)?;
        let max_feature_level = self.max_feature_level.unwrap_or(FEATURE_LEVEL);
        if !(FIRST_LEVEL..=FEATURE_LEVEL).contains(&max_feature_level) {
            let text =
                format!("max_feature_level: this release knows levels {FIRST_LEVEL} to {FEATURE_LEVEL}");
            return Err(ConfigError::new(text, "leave it out to follow all of them"));
        }
        Ok(Config {
            id,
            cluster: self.cluster.unwrap_or_else(|| "soloist".to_owned()),
            data,
            listen,
            advertise,
            http,
            members,
            fleet_defaults: self.fleet_defaults,
            max_feature_level,
            log: self.log.unwrap_or_else(|| LOG.to_owned()),
            log_format: self.log_format,
        })
    }
}

fn members(found: Option<Members>) -> Result<BTreeMap<u64, String>, ConfigError> {
    let wrong = |text: String| ConfigError::new(text, "write ID=HOST:PORT, for example 1=10.0.0.1:7401");
    let list: Vec<(String, String)> = match found {
        None => Vec::new(),
        Some(Members::Table(table)) => table.into_iter().collect(),
        Some(Members::Text(text)) => {
            let each = text.split(',').filter(|part| !part.trim().is_empty()).map(member);
            each.collect::<Result<_, _>>()
                .map_err(|_| wrong(format!("members: \"{text}\" is not a list of members")))?
        }
    };
    let mut members = BTreeMap::new();
    for (id, at) in list {
        let number = id.parse::<u64>().ok().filter(|number| *number > 0);
        let number = number.ok_or_else(|| wrong(format!("members: \"{id}\" is not a member id")))?;
        let at = address("members", at)?;
        if members.values().any(|other| *other == at) {
            return Err(ConfigError::new(
                format!("members: {at} is listed twice"),
                "give each its own address",
            ));
        }
        members.insert(number, at);
    }
    Ok(members)
}

fn address(key: &str, value: String) -> Result<String, ConfigError> {
    let parts = value.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    if parts.is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        return Ok(value);
    }
    Err(ConfigError::new(
        format!("{key}: \"{value}\" is not an address"),
        "write HOST:PORT, for example 127.0.0.1:7401",
    ))
}

fn check_policy(policy: &Policy) -> Result<(), ConfigError> {
    if !policy.checks.is_empty() {
        let text = "fleet_defaults.checks: checks belong to one fleet";
        return Err(ConfigError::new(text, "set them with soloist fleet apply FILE"));
    }
    let Some(problem) = policy.problem() else { return Ok(()) };
    let keys = Value::serialize(policy).ok().and_then(Value::into_dict).unwrap_or_default();
    let key = problem.split(' ').next().filter(|word| keys.contains_key(*word));
    let hint = if key.is_some_and(is_length) { LENGTHS } else { "" };
    Err(ConfigError::new(format!("fleet_defaults.{problem}"), hint))
}

fn is_length(key: &str) -> bool {
    key.ends_with("_timeout") || ["lease", "restore_after", "grace"].contains(&key)
}

/// How lengths are written.
pub(super) const LENGTHS: &str =
    "a length is a bare number of milliseconds, or a text like \"500ms\", \"30s\" or \"10m\"";

/// Turns lengths like `"30s"` in `[fleet_defaults]` into milliseconds.
pub(super) fn in_millis(mut figment: Figment) -> Figment {
    let Ok(Value::Dict(_, section)) = figment.find_value("fleet_defaults") else { return figment };
    for (key, value) in &section {
        if let Some(length) = value.as_str().and_then(millis) {
            figment = figment.merge(Serialized::default(&format!("fleet_defaults.{key}"), length));
        }
    }
    figment
}

fn millis(text: &str) -> Option<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let factor = match text[at..].trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    text[..at].parse::<u64>().ok()?.checked_mul(factor)
}
