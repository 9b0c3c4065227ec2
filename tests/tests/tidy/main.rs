//! House rules that no compiler checks: which crate may use which, what the core must not touch, how long a file may be, and
//! whether the documents and the code still say the same.
//!
//! Every message names a file, a line, and what to do.

mod text;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use soloist_core::invariants::INVARIANTS;
use soloist_core::rule::Rule;

use text::{
    dependencies, has_word, headings, is_path, links, mutation_tests, numbered, sections, slug, split,
    without_tests,
};

/// Where the forbidden words stand because they are looked for.
const OWN: &str = "tests/tests/tidy/";

/// Longest Rust file in lines: a longer one is asking for a second noun.
const LINES_MAX: usize = 500;

/// Which crates of this workspace a crate may depend on, in any of its tables of dependencies.
const MAY_USE: [(&str, &[&str]); 7] = [
    ("core", &[]),
    ("proto", &["soloist-core"]),
    ("demo", &[]),
    ("coordinator", &["soloist-core", "soloist-proto"]),
    ("agent", &["soloist-core", "soloist-proto"]),
    ("ctl", &["soloist-core", "soloist-proto", "soloist-demo"]),
    (
        "tests",
        &["soloist-core", "soloist-proto", "soloist-demo", "soloist-coordinator", "soloist-agent", "soloist"],
    ),
];

/// All that the core may depend on.
const CORE_USES: [&str; 2] = ["serde", "thiserror"];

/// What the core's code must not name: clocks, randomness, I/O, async, and whatever differs from one run to the next.
const NOT_IN_CORE: [&str; 14] = [
    "HashMap",
    "HashSet",
    "Instant",
    "SystemTime",
    "f32",
    "f64",
    "async",
    "await",
    "rand",
    "fs",
    "net",
    "thread",
    "env",
    "tokio",
];

/// Words of others for what has a word here (docs/glossary.md), and where they mean something else and may stand.
const SYNONYMS: [(&str, &str, &[&str]); 8] = [
    ("primary node", "solo node", &[]),
    ("master", "leader for coordinators, solo node for nodes", &[]),
    ("slave", "node, or member", &[]),
    (
        "heartbeat",
        "report, or beat",
        &["coordinator/src/raft/", "coordinator/src/store/", "coordinator/src/config/"],
    ),
    ("ttl", "lease", &[]),
    ("lock id", "fencing token", &[]),
    ("nocobase cluster", "fleet; a cluster is the coordinators'", &[]),
    ("cluster of nodes", "fleet; a cluster is the coordinators'", &[]),
];

// ---- the rules ----

#[test]
fn crates_depend_in_one_direction_only() {
    let mut found = Vec::new();
    for (folder, allowed) in MAY_USE {
        let path = format!("{folder}/Cargo.toml");
        for (line, name) in dependencies(&read(&path)) {
            if name.starts_with("soloist") && !allowed.contains(&name.as_str()) {
                let may = if allowed.is_empty() { "none of them".to_owned() } else { allowed.join(", ") };
                found.push(format!(
                    "{path}:{line}: {folder} must not depend on {name}; of this workspace it may use {may}: move what is shared \
                     into core or proto"
                ));
            }
            if folder == "core" && !CORE_USES.contains(&name.as_str()) {
                found.push(format!(
                    "{path}:{line}: the core must not depend on {name}; it uses {} only: do this in the crate that calls it",
                    CORE_USES.join(" and ")
                ));
            }
        }
    }
    clean(found);
}

#[test]
fn the_programs_are_built_without_the_mutations() {
    let mut found = Vec::new();
    for file in files(&["toml"]) {
        let allowed = ["core/Cargo.toml", "tests/Cargo.toml"].contains(&file.as_str());
        for (line, text) in numbered(&read(&file)) {
            let code = text.split('#').next().unwrap_or_default();
            if code.contains("\"mutations\"") && !allowed {
                found.push(format!(
                    "{file}:{line}: only tests may switch on the core's feature \"mutations\": remove it"
                ));
            }
            if code.starts_with("default-members") && code.contains("\"tests\"") {
                found.push(format!(
                    "{file}:{line}: with tests among the default members, cargo build would build the programs with the \
                     feature \"mutations\": take it out"
                ));
            }
        }
    }
    for file in ["check", ".ci/run"] {
        for (line, text) in numbered(&read(file)) {
            let code = text.split('#').next().unwrap_or_default();
            if code.contains("cargo test") && (code.contains("--workspace") || code.contains("--all")) {
                found.push(format!(
                    "{file}:{line}: cargo test --workspace builds the programs with the feature \"mutations\": test the \
                     default members and soloist-tests one after the other"
                ));
            }
        }
    }
    let run = read(".ci/run");
    if !run.lines().any(|line| line.contains("./check")) || run.contains("--fast") {
        found.push(".ci/run:1: it must call ./check without --fast: put that back".to_owned());
    }
    clean(found);
}

#[test]
fn storage_and_consensus_stay_behind_their_modules() {
    let fences: [(&str, &[&str], &str); 3] = [
        ("redb", &["coordinator/src/store/"], "only coordinator/src/store names it: ask the store instead"),
        ("sled", &["coordinator/src/store/"], "only coordinator/src/store names it: ask the store instead"),
        (
            "openraft",
            &["coordinator/src/store/", "coordinator/src/raft/", "coordinator/tests/", "tests/tests/raft/"],
            "only coordinator/src/raft and coordinator/src/store name it: ask RaftNode instead",
        ),
    ];
    let mut found = Vec::new();
    for source in sources() {
        for (word, places, advice) in fences {
            if places.iter().any(|place| source.path.starts_with(place)) {
                continue;
            }
            for (line, text) in numbered(&source.code) {
                if has_word(text, word) {
                    found.push(format!("{}:{line}: names {word}; {advice}", source.path));
                }
            }
        }
    }
    clean(found);
}

#[test]
fn the_core_is_pure() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| source.path.starts_with("core/src/")) {
        for (line, text) in numbered(&without_tests(&source.code)) {
            for word in NOT_IN_CORE {
                if has_word(text, word) {
                    found.push(format!(
                        "{}:{line}: names {word}; the core is a pure function of its arguments: pass it in as a value, or do it \
                         in the crate that calls",
                        source.path
                    ));
                }
            }
        }
    }
    clean(found);
}

#[test]
fn files_are_short() {
    let mut found = Vec::new();
    for file in files(&["rs"]) {
        let lines = read(&file).lines().count();
        if lines > LINES_MAX {
            found.push(format!(
                "{file}:{lines}: {lines} lines, and {LINES_MAX} is the most: give its second noun a file of its own"
            ));
        }
    }
    clean(found);
}

/// Linux gives the ports from 32768 to 60999 to connections, and a connection's port cannot be listened on for a minute after its end: a
/// server with a fixed one of these starts, or does not, by chance. Ports are written without `_`, lengths with it.
#[test]
fn no_server_has_a_port_that_is_given_to_connections() {
    let mut found = Vec::new();
    let ours = |file: &String| file.starts_with("deploy/") || file.starts_with("tests/tests/");
    for file in files(&["rs", "sh", "toml"]).into_iter().filter(ours) {
        if file.starts_with(OWN) {
            continue;
        }
        for (line, text) in numbered(&read(&file)) {
            for number in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
                if number.parse().is_ok_and(|port: u32| (32_768..=60_999).contains(&port)) {
                    found.push(format!(
                        "{file}:{line}: Linux gives port {number} to connections: take one below 32768, or free_ports in a test"
                    ));
                }
            }
        }
    }
    clean(found);
}

#[test]
fn nothing_is_left_for_later() {
    let mut found = Vec::new();
    for source in sources() {
        for (line, text) in numbered(&source.code) {
            let tight: String = text.split_whitespace().collect();
            if tight.contains("#[ignore") || tight.contains(",ignore") && tight.contains("#[cfg_attr") {
                found.push(format!(
                    "{}:{line}: an ignored test shows nothing: mend it or remove it",
                    source.path
                ));
            }
            for word in ["todo", "unimplemented"] {
                if has_word(text, word) && tight.contains(&format!("{word}!")) {
                    found.push(format!(
                        "{}:{line}: {word}! is a crash to come: write it, or refuse it",
                        source.path
                    ));
                }
            }
        }
    }
    clean(found);
}

#[test]
fn every_invariant_and_rule_has_its_paragraph() {
    const DOC: &str = "docs/invariants.md";
    /// The heading over the rules.
    const RULES: &str = "The safety rules";
    let doc = read(DOC);
    let mut found = Vec::new();
    let heads = headings(&doc);
    let known: Vec<String> = INVARIANTS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let rules: Vec<String> = Rule::ALL.iter().map(|rule| format!("{rule:?}")).collect();
    for (level, what, names, home) in
        [(2, "invariant", &known, "core/src/invariants.rs"), (3, "rule", &rules, "core/src/rule.rs")]
    {
        let mut written = BTreeSet::new();
        for (line, text) in heads.iter().filter(|head| head.0 == level).map(|head| (head.1, &head.2)) {
            if text == RULES {
                continue;
            }
            if !names.contains(text) {
                found.push(format!(
                    "{DOC}:{line}: there is no {what} \"{text}\" in {home}: remove or rename the heading"
                ));
            } else if !written.insert(text.clone()) {
                found.push(format!("{DOC}:{line}: the {what} \"{text}\" is here twice: keep one"));
            }
        }
        for name in names.iter().filter(|name| !written.contains(*name)) {
            let mark = "#".repeat(level);
            found.push(format!(
                "{DOC}:1: the {what} \"{name}\" of {home} is missing: add \"{mark} {name}\" and why it holds"
            ));
        }
    }
    // Where the simulation is not likely to come upon it, the model check is.
    let mut tests = mutation_tests(&read("tests/tests/model/main.rs"));
    tests.extend(mutation_tests(&read("tests/tests/sim_mutations.rs")));
    for (_, line, rule, body) in sections(&doc).iter().filter(|section| section.0 == 3) {
        match tests.get(rule) {
            None => found.push(format!(
                "{DOC}:{line}: no test of tests/tests/sim_mutations.rs or tests/tests/model switches {rule} off: add one that shows the failure"
            )),
            Some(test) if !body.contains(&format!("`{test}`")) => {
                found.push(format!("{DOC}:{line}: {rule} is shown by the test `{test}`: name it in this section"));
            }
            Some(_) => {}
        }
    }
    clean(found);
}

#[test]
fn one_word_for_one_thing() {
    let mut found = Vec::new();
    let mut look = |path: &str, text: &str| {
        for (line, text) in numbered(text) {
            let lower = text.to_lowercase();
            for (word, instead, places) in SYNONYMS {
                if has_word(&lower, word) && !places.iter().any(|place| path.starts_with(place)) {
                    found.push(format!(
                        "{path}:{line}: says \"{word}\"; the word here is {instead} (docs/glossary.md)"
                    ));
                }
            }
        }
    };
    for source in sources().iter().filter(|source| !source.path.starts_with(OWN)) {
        look(&source.path, &source.notes);
    }
    for file in files(&["proto"]) {
        look(&file, &split(&read(&file)).1);
    }
    // The glossary names the words that are not used.
    for file in files(&["md"]).iter().filter(|file| *file != "docs/glossary.md") {
        look(file, &read(file));
    }
    clean(found);
}

#[test]
fn links_lead_somewhere() {
    let mut found = Vec::new();
    for file in files(&["md"]) {
        let folder = Path::new(&file).parent().map_or_else(PathBuf::new, Path::to_owned);
        for (line, target) in links(&read(&file)) {
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let to = if path.is_empty() { PathBuf::from(&file) } else { folder.join(path) };
            let Ok(full) = root().join(&to).canonicalize() else {
                found.push(format!(
                    "{file}:{line}: the link to {target} leads nowhere: correct it, or write the file"
                ));
                continue;
            };
            let there = || fs::read_to_string(&full).unwrap_or_default();
            let known = || headings(&there()).iter().any(|head| slug(&head.2) == anchor);
            if !anchor.is_empty() && full.extension().is_some_and(|kind| kind == "md") && !known() {
                found.push(format!(
                    "{file}:{line}: {target} names a heading that is not there: correct the part after #"
                ));
            }
        }
    }
    // Code and manifests name documents in plain text, sometimes by the beginning of their name.
    let documents = files(&["md"]);
    for file in files(&["rs", "toml", "sh", "proto"]) {
        for (line, text) in numbered(&read(&file)).filter(|_| !file.starts_with(OWN)) {
            for (at, _) in text.match_indices("docs/").filter(|(at, _)| !text[..*at].ends_with(is_path)) {
                let name = text[at..].split(|c| !is_path(c)).next().unwrap_or_default().trim_end_matches('.');
                if !documents.iter().any(|document| document.starts_with(name)) {
                    found.push(format!(
                        "{file}:{line}: there is no {name}: correct it, or write the document"
                    ));
                }
            }
        }
    }
    clean(found);
}

// ---- the repository ----

/// A Rust file, with its code and its comments apart; both have the lines of the file.
struct Source {
    path: String,
    code: String,
    notes: String,
}

fn clean(found: Vec<String>) {
    assert!(found.is_empty(), "{} to mend:\n{}", found.len(), found.join("\n"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the repository").to_owned()
}

fn read(file: &str) -> String {
    let path = root().join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}:1: cannot be read: {error}; write it"))
}

fn sources() -> Vec<Source> {
    let source = |path: String| {
        let (code, notes) = split(&read(&path));
        Source { path, code, notes }
    };
    files(&["rs"]).into_iter().map(source).collect()
}

/// Files with one of these endings, by their path in the repository; what is built or downloaded is left out.
fn files(endings: &[&str]) -> Vec<String> {
    let (root, mut found) = (root(), Vec::new());
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the repository can be read").flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let built = name.starts_with("target") || name == "node_modules";
            let hidden = name.starts_with('.') && name != ".ci";
            if path.is_dir() && !path.is_symlink() && !built && !hidden {
                folders.push(path);
            } else if path.is_file()
                && path.extension().is_some_and(|kind| endings.iter().any(|one| kind == *one))
            {
                let inside = path.strip_prefix(&root).expect("it was found in there");
                found.push(inside.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}
