//! A fleet's policy: as a file that can be edited and applied again, as a table, and as what changes between two of them.

use serde_json::{Map, json};
use soloist_core::{
    check::{Check, Expected, What},
    ids::FleetId,
    policy::Policy,
    time::Millis,
};

use super::table::columns;

/// One key of a policy, without its checks.
struct Line {
    key: &'static str,
    what: &'static str,
    value: Value,
}

#[derive(PartialEq)]
enum Value {
    Length(Millis),
    Count(u32),
    Word(&'static str),
    Names(Vec<String>),
    Flag(bool),
    /// Nothing is said, with a value as an example.
    Unset(&'static str),
}

fn line(key: &'static str, value: Value, what: &'static str) -> Line {
    Line { key, what, value }
}

fn lines(policy: &Policy) -> Vec<Line> {
    // Every field by name: a new one is not forgotten here.
    let Policy {
        contact_timeout,
        pre_grant_timeout,
        confirm_timeout,
        accept_timeout,
        lease,
        restore_after,
        gather_timeout,
        start_timeout,
        stop_timeout,
        task_timeout,
        backup_timeout,
        keep_backups,
        traffic,
        drain_timeout,
        heal,
        fence,
        fence_after,
        quiet_timeout,
        grace,
        uploads,
        checks: _,
        max_parallel,
        commercial_plugins,
        order,
    } = policy;
    let length = |length: &Millis| Value::Length(*length);
    let grace = grace.map_or(Value::Unset("\"60s\""), Value::Length);
    let uploads = uploads.map_or(Value::Unset("\"presync\""), |uploads| Value::Word(uploads.word()));
    vec![
        line("contact_timeout", length(contact_timeout), "an agent not heard for so long is out of contact"),
        line(
            "pre_grant_timeout",
            length(pre_grant_timeout),
            "to stop what must be stopped, from the lock on",
        ),
        line("confirm_timeout", length(confirm_timeout), "for a client to say that it still wants the lock"),
        line("accept_timeout", length(accept_timeout), "for the command of `run` to begin"),
        line("lease", length(lease), "a command of `run` that was not heard for so long has lost the lock"),
        line("restore_after", length(restore_after), "until a fleet is restored whose command was lost"),
        line("gather_timeout", length(gather_timeout), "that a start waits for nodes not heard yet"),
        line("start_timeout", length(start_timeout), "for a node to serve"),
        line("stop_timeout", length(stop_timeout), "for a node to stop"),
        line("task_timeout", length(task_timeout), "for a task, such as a plugin change"),
        line("backup_timeout", length(backup_timeout), "for a backup or a restore"),
        line("keep_backups", Value::Count(*keep_backups), "backups that are kept"),
        line(
            "traffic",
            Value::Word(traffic.word()),
            "how users come: direct, ready (a balancer asks /ready), or balancer (with an agent beside it)",
        ),
        line("drain_timeout", length(drain_timeout), "for requests under way to a node that is taken out"),
        line(
            "heal",
            Value::Word(heal.word()),
            "of nodes that have not loaded what they should: manual (soloist heal) or automatic",
        ),
        line(
            "fence",
            Value::Word(fence.word()),
            "of a node that an operation waits for in vain: manual (soloist node fence) or automatic",
        ),
        line("fence_after", length(fence_after), "out of contact before the fleet fences a node by itself"),
        line(
            "quiet_timeout",
            length(quiet_timeout),
            "for workflows and tasks on a node before its stop; 0: no wait",
        ),
        line("grace", grace, "between SIGTERM and SIGKILL; what a node says itself counts first"),
        line("uploads", uploads, "in backups: skip, presync or include; not set: each node's own"),
        line("max_parallel", Value::Count(*max_parallel), "nodes that start at once, after the first"),
        line(
            "commercial_plugins",
            Value::Flag(*commercial_plugins),
            "are fetched by upgrade and migrate, as they fit the code",
        ),
        line(
            "order",
            Value::Names(order.iter().map(ToString::to_string).collect()),
            "nodes that run alone, start and restart before others",
        ),
    ]
}

/// The keys of a policy.
pub fn keys() -> Vec<&'static str> {
    let keys = lines(&Policy::default()).into_iter().map(|line| line.key);
    keys.chain(["checks"]).collect()
}

/// A length as a file has it: `30s`, `10m`, `2h`, `1500ms`.
fn compact(length: Millis) -> String {
    let (count, unit) = unit(length);
    format!("{count}{}", if unit == "min" { "m" } else { unit })
}

/// A length as people read it: `30 s`, `10 min`, `2 h`, `1500 ms`.
fn words(length: Millis) -> String {
    let (count, unit) = unit(length);
    format!("{count} {unit}")
}

/// The largest unit that needs no fraction.
fn unit(length: Millis) -> (u64, &'static str) {
    let units = [(3_600_000, "h"), (60_000, "min"), (1000, "s")];
    let fits = units.into_iter().find(|(unit, _)| length.0 > 0 && length.0.is_multiple_of(*unit));
    fits.map_or((length.0, "ms"), |(unit, name)| (length.0 / unit, name))
}

fn listed(names: &[String]) -> String {
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// The policy as a TOML file.
pub fn file(fleet: &FleetId, policy: &Policy, version: u64) -> String {
    let mut text = format!(
        "# The policy of fleet {fleet}, version {version}. To change it, edit this and: soloist fleet apply FILE\n\
         # A key that is missing takes its default. A length is \"500ms\", \"30s\", \"10m\", \"2h\", or bare milliseconds.\n\n"
    );
    let written: Vec<(String, &str)> = lines(policy)
        .into_iter()
        .map(|line| match line.value {
            Value::Length(length) => (format!("{} = \"{}\"", line.key, compact(length)), line.what),
            Value::Count(count) => (format!("{} = {count}", line.key), line.what),
            Value::Word(word) => (format!("{} = \"{word}\"", line.key), line.what),
            Value::Flag(flag) => (format!("{} = {flag}", line.key), line.what),
            Value::Names(names) => (format!("{} = [{}]", line.key, listed(&names)), line.what),
            Value::Unset(example) => (format!("# {} = {example}", line.key), line.what),
        })
        .collect();
    let width = written.iter().map(|(line, _)| line.len()).max().unwrap_or(0);
    for (line, what) in written {
        text.push_str(&format!("{line:<width$}  # {what}\n"));
    }
    if policy.checks.is_empty() {
        text.push_str(
            "\n# What must be true of a node before users come back to it, for example:\n# [[checks]]\n# name = \"info\"\n\
             # http = { path = \"/api/app:getInfo\", status = 200 }  # or command = \"NAME\", or plugin = \"PACKAGE\"\n",
        );
    }
    for check in &policy.checks {
        text.push_str(&format!("\n[[checks]]\nname = {}\n", quoted(&check.name)));
        text.push_str(&match &check.what {
            What::Http { path, status, header, json } => {
                let pair = |name: &str, expected: &Option<Expected>| {
                    let pair = expected.as_ref();
                    pair.map(|pair| {
                        format!(", {name} = {{ at = {}, is = {} }}", quoted(&pair.at), quoted(&pair.is))
                    })
                    .unwrap_or_default()
                };
                let (header, json) = (pair("header", header), pair("json", json));
                format!("http = {{ path = {}, status = {status}{header}{json} }}\n", quoted(path))
            }
            What::Command { command } => format!("command = {}\n", quoted(command)),
            What::Plugin { plugin } => format!("plugin = {}\n", quoted(plugin)),
        });
        text.push_str(&format!("timeout = \"{}\"\ntries = {}\n", compact(check.timeout), check.tries));
    }
    text
}

/// The policy for programs: what a file has, with lengths in milliseconds.
pub fn value(policy: &Policy) -> serde_json::Value {
    let mut map = Map::new();
    for line in lines(policy) {
        let value = match line.value {
            Value::Length(length) => json!(length.0),
            Value::Count(count) => json!(count),
            Value::Word(word) => json!(word),
            Value::Names(names) => json!(names),
            Value::Flag(flag) => json!(flag),
            Value::Unset(_) => continue,
        };
        map.insert(line.key.to_owned(), value);
    }
    let checks = policy.checks.iter().map(|check| {
        let (key, what) = match &check.what {
            What::Http { path, status, header, json } => {
                let mut http = json!({ "path": path, "status": status });
                for (name, pair) in [("header", header), ("json", json)] {
                    if let Some(pair) = pair {
                        http[name] = json!({ "at": pair.at, "is": pair.is });
                    }
                }
                ("http", http)
            }
            What::Command { command } => ("command", json!(command)),
            What::Plugin { plugin } => ("plugin", json!(plugin)),
        };
        json!({ "name": check.name, key: what, "timeout": check.timeout.0, "tries": check.tries })
    });
    map.insert("checks".to_owned(), checks.collect());
    serde_json::Value::Object(map)
}

fn shown(value: &Value) -> String {
    match value {
        Value::Length(length) => words(*length),
        Value::Count(count) => count.to_string(),
        Value::Word(word) => (*word).to_owned(),
        Value::Flag(flag) => flag.to_string(),
        Value::Names(names) if names.is_empty() => "none".to_owned(),
        Value::Names(names) => names.join(", "),
        Value::Unset(_) => "not set".to_owned(),
    }
}

/// A check in one line, without its name.
fn described(check: &Check) -> String {
    let what = match &check.what {
        What::Http { path, status, header, json } => {
            let header = header.as_ref().map(|pair| format!(", header {} is {}", pair.at, pair.is));
            let json = json.as_ref().map(|pair| format!(", JSON at {} is {}", pair.at, pair.is));
            format!("GET {path} gives {status}{}{}", header.unwrap_or_default(), json.unwrap_or_default())
        }
        What::Command { command } => format!("command {command} ends with 0"),
        What::Plugin { plugin } => format!("plugin {plugin} is loaded"),
    };
    let tries = if check.tries == 1 { "1 try".to_owned() } else { format!("{} tries", check.tries) };
    format!("{what} ({} each, {tries})", words(check.timeout))
}

/// The policy as a table.
pub fn table(policy: &Policy) -> String {
    let keys = lines(policy).into_iter().map(|line| {
        let value = shown(&line.value);
        [line.key.to_owned(), value, line.what.to_owned()]
    });
    let checks =
        policy.checks.iter().map(|check| [format!("check {}", check.name), described(check), String::new()]);
    columns(["KEY", "VALUE", "WHAT"], keys.chain(checks))
}

/// What changes from one policy to another, a line each; none if they are equal.
pub fn changes(from: &Policy, to: &Policy) -> Vec<String> {
    let pairs = lines(from).into_iter().zip(lines(to)).filter(|(before, after)| before.value != after.value);
    let mut changes: Vec<String> = pairs
        .map(|(before, after)| format!("{}: {} -> {}", before.key, shown(&before.value), shown(&after.value)))
        .collect();
    let named = |checks: &[Check], name: &str| checks.iter().find(|check| check.name == name).map(described);
    for check in &from.checks {
        let (name, before) = (&check.name, described(check));
        match named(&to.checks, name) {
            None => changes.push(format!("check {name}: {before} -> removed")),
            Some(after) if after != before => changes.push(format!("check {name}: {before} -> {after}")),
            Some(_) => {}
        }
    }
    let new = to.checks.iter().filter(|check| named(&from.checks, &check.name).is_none());
    changes.extend(new.map(|check| format!("check {}: none -> {}", check.name, described(check))));
    if changes.is_empty() && from != to {
        changes.push("checks: in another order".to_owned());
    }
    changes
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use soloist_core::ids::NodeId;

    use super::*;
    use crate::policy_file::read;

    fn full() -> Policy {
        let pair = |at: &str, is: &str| Some(Expected { at: at.into(), is: is.into() });
        let check = |name: &str, what| Check { name: name.into(), what, timeout: Millis(1_500), tries: 4 };
        let (path, header) = ("/api/app:getInfo?a=\"b\"".into(), pair("content-type", "a\\b"));
        Policy {
            start_timeout: Millis::from_secs(7_200),
            lease: Millis(30_500),
            traffic: soloist_core::policy::Traffic::Balancer,
            grace: Some(Millis::from_secs(45)),
            uploads: Some(soloist_core::policy::Uploads::Include),
            commercial_plugins: true,
            order: ["node-2", "node-1"].map(|name| NodeId::new(name).unwrap()).into(),
            checks: vec![
                check(
                    "info",
                    What::Http { path, status: 201, header, json: pair("/data/version", "2.2.16") },
                ),
                check("smoke", What::Command { command: "smoke".into() }),
                check("map", What::Plugin { plugin: "@nocobase/plugin-map".into() }),
            ],
            ..Policy::default()
        }
    }

    #[test]
    fn what_is_written_can_be_read_again() {
        let fleet = FleetId::new("shop").unwrap();
        for policy in [Policy::default(), full()] {
            let text = file(&fleet, &policy, 3);
            assert!(text.starts_with("# The policy of fleet shop, version 3."), "{text}");
            assert_eq!(read(Path::new("a.toml"), &text).unwrap(), policy, "{text}");
            let text = serde_json::to_string_pretty(&value(&policy)).unwrap();
            assert_eq!(read(Path::new("a.json"), &text).unwrap(), policy, "{text}");
        }
    }

    #[test]
    fn a_file_has_a_line_for_each_key() {
        let text = file(&FleetId::new("shop").unwrap(), &full(), 0);
        for line in [
            "start_timeout = \"2h\"",
            "lease = \"30500ms\"",
            "grace = \"45s\"",
            "keep_backups = 7",
            "commercial_plugins = true",
            "order = [\"node-2\", \"node-1\"]",
            "traffic = \"balancer\"",
            "command = \"smoke\"\ntimeout = \"1500ms\"\ntries = 4\n",
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
        let text = file(&FleetId::new("shop").unwrap(), &Policy::default(), 0);
        assert!(text.contains("\n# grace = \"60s\"") && text.contains("# [[checks]]"), "{text}");
        for key in keys() {
            assert!(text.contains(key), "{key} is not in:\n{text}");
        }
    }

    #[test]
    fn changes_are_told_line_by_line() {
        let before = Policy::default();
        assert!(changes(&before, &before).is_empty() && changes(&full(), &full()).is_empty());
        let after =
            Policy { start_timeout: Millis::from_secs(300), grace: Some(Millis(2_000)), ..before.clone() };
        assert_eq!(changes(&before, &after), ["start_timeout: 10 min -> 5 min", "grace: not set -> 2 s"]);

        let mut after = full();
        after.checks.swap(0, 2);
        assert_eq!(changes(&full(), &after), ["checks: in another order"]);
        after.checks.remove(1);
        after.checks[0].tries = 1;
        after.checks[1].name = "information".into();
        let told = changes(&full(), &after);
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(told[0].starts_with("check info: GET /api/app:getInfo") && told[0].ends_with("-> removed"));
        assert_eq!(told[1], "check smoke: command smoke ends with 0 (1500 ms each, 4 tries) -> removed");
        assert!(
            told[2].ends_with("-> plugin @nocobase/plugin-map is loaded (1500 ms each, 1 try)"),
            "{told:?}"
        );
        assert!(told[3].starts_with("check information: none -> GET "), "{told:?}");
    }

    #[test]
    fn a_table_has_checks_too() {
        let text = table(&full());
        let has = |key: &str, value: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.is_some_and(|line| line.trim_start().starts_with(value))
        };
        assert!(has("start_timeout ", "2 h"), "{text}");
        assert!(has("check smoke ", "command smoke ends with 0"), "{text}");
    }
}
