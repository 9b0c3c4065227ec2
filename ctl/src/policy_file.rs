//! A policy as people write it: TOML, or JSON.
//!
//! A mistake is answered with the file, the line, what is wrong, and what was probably meant.

use std::{fmt, path::Path};

use serde::{Deserialize, Deserializer, de};
use soloist_core::{
    check::{Check, Expected, What},
    ids::NodeId,
    policy::{Fencing, Heal, Policy, Traffic, Uploads},
    time::Millis,
};

use crate::{
    error::{CtlError, Kind, Result},
    names::closest,
    render::policy::keys,
};

/// How lengths are written.
const LENGTHS: &str =
    "a length is a text like \"500ms\", \"30s\", \"10m\" or \"2h\", or a bare number of milliseconds";

/// Reads a file's text. JSON by its extension, else TOML.
pub fn read(path: &Path, text: &str) -> Result<Policy> {
    let parsed: Result<File, Mistake> = if path.extension().is_some_and(|extension| extension == "json") {
        serde_json::from_str(text).map_err(|error| from_json(&error))
    } else {
        toml::from_str(text).map_err(|error| from_toml(&error, text))
    };
    let policy = Policy::from(parsed.map_err(|mistake| mistake.at(path))?);
    match policy.problem() {
        None => Ok(policy),
        Some(problem) => Err(Mistake { line: about(&problem, text), problem }.at(path)),
    }
}

/// What is wrong, and on which line if that is known.
struct Mistake {
    line: Option<usize>,
    problem: String,
}

impl Mistake {
    fn at(self, path: &Path) -> CtlError {
        let line = self.line.map(|line| format!(":{line}")).unwrap_or_default();
        let place = format!("{}{line}", path.display());
        let words = backticked(&self.problem);
        match words.split_first().filter(|_| self.problem.starts_with("unknown field")) {
            Some((key, known)) => {
                let error = CtlError::new(Kind::Usage, format!("{place}: there is no key \"{key}\" here"));
                let meant = closest(key, known.iter().copied());
                let error = error.hint(meant.map(|name| format!("did you mean {name}?")).unwrap_or_default());
                error.hint(format!("the keys are {}", known.join(", ")))
            }
            None => CtlError::new(Kind::Usage, format!("{place}: {}", self.problem)),
        }
    }
}

fn from_toml(error: &toml::de::Error, text: &str) -> Mistake {
    let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    Mistake { line, problem: error.message().trim().to_owned() }
}

fn from_json(error: &serde_json::Error) -> Mistake {
    let text = error.to_string();
    // The line has a place of its own.
    let problem = text.rsplit_once(" at line ").map_or(text.as_str(), |(problem, _)| problem).to_owned();
    Mistake { line: Some(error.line()).filter(|line| *line > 0), problem }
}

/// The words between backticks of serde's messages.
fn backticked(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

/// The line of the key, or of the check, that a problem of the whole policy is about.
fn about(problem: &str, text: &str) -> Option<usize> {
    let key = keys().into_iter().find(|key| problem.split(' ').next() == Some(key));
    let named = problem.split('"').nth(1).map(|name| format!("\"{name}\""));
    let needle = key.map(str::to_owned).or(named)?;
    let holds = |line: &str| line.contains(&needle) && !line.trim_start().starts_with('#');
    text.lines().position(holds).map(|at| at + 1)
}

/// A policy with its keys as they are written.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    contact_timeout: Length,
    pre_grant_timeout: Length,
    confirm_timeout: Length,
    accept_timeout: Length,
    lease: Length,
    restore_after: Length,
    gather_timeout: Length,
    start_timeout: Length,
    stop_timeout: Length,
    task_timeout: Length,
    backup_timeout: Length,
    keep_backups: u32,
    traffic: Traffic,
    drain_timeout: Length,
    heal: Heal,
    fence: Fencing,
    fence_after: Length,
    quiet_timeout: Length,
    grace: Option<Length>,
    uploads: Option<Uploads>,
    max_parallel: u32,
    commercial_plugins: bool,
    order: Vec<NodeId>,
    checks: Vec<OneCheck>,
}

impl Default for File {
    fn default() -> File {
        let policy = Policy::default();
        File {
            contact_timeout: Length(policy.contact_timeout),
            pre_grant_timeout: Length(policy.pre_grant_timeout),
            confirm_timeout: Length(policy.confirm_timeout),
            accept_timeout: Length(policy.accept_timeout),
            lease: Length(policy.lease),
            restore_after: Length(policy.restore_after),
            gather_timeout: Length(policy.gather_timeout),
            start_timeout: Length(policy.start_timeout),
            stop_timeout: Length(policy.stop_timeout),
            task_timeout: Length(policy.task_timeout),
            backup_timeout: Length(policy.backup_timeout),
            keep_backups: policy.keep_backups,
            traffic: policy.traffic,
            drain_timeout: Length(policy.drain_timeout),
            heal: policy.heal,
            fence: policy.fence,
            fence_after: Length(policy.fence_after),
            quiet_timeout: Length(policy.quiet_timeout),
            grace: policy.grace.map(Length),
            uploads: policy.uploads,
            max_parallel: policy.max_parallel,
            commercial_plugins: policy.commercial_plugins,
            order: policy.order,
            checks: policy.checks.into_iter().map(OneCheck).collect(),
        }
    }
}

impl From<File> for Policy {
    fn from(file: File) -> Policy {
        Policy {
            contact_timeout: file.contact_timeout.0,
            pre_grant_timeout: file.pre_grant_timeout.0,
            confirm_timeout: file.confirm_timeout.0,
            accept_timeout: file.accept_timeout.0,
            lease: file.lease.0,
            restore_after: file.restore_after.0,
            gather_timeout: file.gather_timeout.0,
            start_timeout: file.start_timeout.0,
            stop_timeout: file.stop_timeout.0,
            task_timeout: file.task_timeout.0,
            backup_timeout: file.backup_timeout.0,
            keep_backups: file.keep_backups,
            traffic: file.traffic,
            drain_timeout: file.drain_timeout.0,
            heal: file.heal,
            fence: file.fence,
            fence_after: file.fence_after.0,
            quiet_timeout: file.quiet_timeout.0,
            grace: file.grace.map(|grace| grace.0),
            uploads: file.uploads,
            checks: file.checks.into_iter().map(|check| check.0).collect(),
            max_parallel: file.max_parallel,
            commercial_plugins: file.commercial_plugins,
            order: file.order,
        }
    }
}

/// A length with its unit, or bare milliseconds.
struct Length(Millis);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Length, D::Error> {
        from.deserialize_any(LengthVisitor)
    }
}

struct LengthVisitor;

impl de::Visitor<'_> for LengthVisitor {
    type Value = Length;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(LENGTHS)
    }

    fn visit_u64<E: de::Error>(self, ms: u64) -> Result<Length, E> {
        Ok(Length(Millis(ms)))
    }

    fn visit_i64<E: de::Error>(self, ms: i64) -> Result<Length, E> {
        let ms = u64::try_from(ms);
        ms.map(|ms| Length(Millis(ms))).map_err(|_| E::custom("a length is not negative"))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Length, E> {
        let wrong = || E::custom(format!("\"{text}\" is not a length: {LENGTHS}"));
        let length = humantime::parse_duration(text).map_err(|_| wrong())?;
        if length.subsec_nanos() % 1_000_000 != 0 {
            return Err(wrong());
        }
        u64::try_from(length.as_millis()).map(|ms| Length(Millis(ms))).map_err(|_| wrong())
    }
}

/// A check that looks at exactly one thing.
#[derive(Deserialize)]
#[serde(try_from = "Keys")]
struct OneCheck(Check);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    name: String,
    http: Option<Http>,
    command: Option<String>,
    plugin: Option<String>,
    timeout: Option<Length>,
    tries: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Http {
    path: String,
    #[serde(default = "ok")]
    status: u16,
    header: Option<Expected>,
    json: Option<Expected>,
}

fn ok() -> u16 {
    200
}

impl TryFrom<Keys> for OneCheck {
    type Error = String;

    fn try_from(keys: Keys) -> Result<OneCheck, String> {
        let Keys { name, http, command, plugin, timeout, tries } = keys;
        let http = http.map(|Http { path, status, header, json }| What::Http { path, status, header, json });
        let command = command.map(|command| What::Command { command });
        let plugin = plugin.map(|plugin| What::Plugin { plugin });
        let mut given = [http, command, plugin].into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(what), None) => {
                let timeout = timeout.map_or(Millis::from_secs(10), |timeout| timeout.0);
                Ok(OneCheck(Check { name, what, timeout, tries: tries.unwrap_or(3) }))
            }
            _ => Err(format!("check \"{name}\" needs exactly one of http, command and plugin")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toml(text: &str) -> Result<Policy> {
        read(Path::new("policy.toml"), text)
    }

    fn wrong(text: &str) -> String {
        toml(text).unwrap_err().message
    }

    #[test]
    fn what_is_missing_takes_its_default() {
        assert_eq!(toml("").unwrap(), Policy::default());
        assert_eq!(read(Path::new("policy.json"), "{}").unwrap(), Policy::default());
        let policy =
            toml("lease = 45000\nstart_timeout = \"2h\"\n[[checks]]\nname = \"a\"\nplugin = \"b\"\n");
        let policy = policy.unwrap();
        assert_eq!((policy.lease, policy.start_timeout), (Millis(45_000), Millis(7_200_000)));
        let core: Check = serde_json::from_str(r#"{"name":"a","what":{"plugin":{"plugin":"b"}}}"#).unwrap();
        assert_eq!(policy.checks, [core], "the core has the same defaults");
        let policy = toml("checks = [{ name = \"a\", http = { path = \"/\" } }]").unwrap();
        let core = r#"{"name":"a","what":{"http":{"path":"/"}}}"#;
        assert_eq!(policy.checks, [serde_json::from_str(core).unwrap()]);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_what_was_meant() {
        let error = toml("lease = \"30s\"\nstart_timeot = \"1m\"\n").unwrap_err();
        assert_eq!(error.message, "policy.toml:2: there is no key \"start_timeot\" here");
        assert_eq!((error.hints[0].as_str(), error.kind), ("did you mean start_timeout?", Kind::Usage));
        let error = toml("[[checks]]\nname = \"a\"\nhttp = { path = \"/\" }\ntrys = 4\n").unwrap_err();
        assert_eq!(error.message, "policy.toml:4: there is no key \"trys\" here");
        assert_eq!(error.hints[0], "did you mean tries?");
        let error = read(Path::new("policy.json"), "{\n  \"lease\": 1000,\n  \"leese\": 1\n}").unwrap_err();
        assert_eq!(error.message, "policy.json:3: there is no key \"leese\" here");
        assert_eq!(error.hints[0], "did you mean lease?");
    }

    #[test]
    fn other_mistakes_have_their_line_too() {
        assert!(
            wrong("lease = \"soon\"").starts_with("policy.toml:1: \"soon\" is not a length: a length is")
        );
        assert!(wrong("\nlease = -1").starts_with("policy.toml:2: a length is not negative"));
        assert!(wrong("lease = true").contains("a length is a text like"));
        assert!(wrong("\n\ntraffic = \"indirect\"").starts_with("policy.toml:3: unknown variant `indirect`"));
        assert_eq!(wrong("# lease\nlease = 5"), "policy.toml:2: lease is shorter than a second");
        let two = "lease = \"30s\"\n[[checks]]\nname = \"a\"\ncommand = \"b\"\nplugin = \"c\"\n";
        let text = wrong(two);
        assert!(text.ends_with(": check \"a\" needs exactly one of http, command and plugin"), "{text}");
        assert!(text.starts_with("policy.toml:2:"), "{text}");
        let tries = "[[checks]]\nname = \"b\"\nplugin = \"c\"\n\n[[checks]]\nname = \"a\"\ncommand = \"b\"\ntries = 0\n";
        assert!(wrong(tries).starts_with("policy.toml:6: the tries of check \"a\""), "{}", wrong(tries));
        assert!(wrong("lease = \n").starts_with("policy.toml:1:"));
    }
}
