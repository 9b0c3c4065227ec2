//! Just enough of Rust, TOML and Markdown to look for words where they count.

use std::collections::BTreeMap;

/// Lines with their numbers from 1.
pub(crate) fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(at, line)| (at + 1, line))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

pub(crate) fn is_path(c: char) -> bool {
    is_word(c) || matches!(c, '/' | '.' | '-')
}

pub(crate) fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let after = &line[at + word.len()..];
        !line[..at].ends_with(is_word) && !after.starts_with(is_word)
    })
}

/// A file's code and its comments. Texts in quotes are in neither.
pub(crate) fn split(text: &str) -> (String, String) {
    let chars: Vec<char> = text.chars().collect();
    let (mut code, mut notes, mut at) = (String::new(), String::new(), 0);
    while at < chars.len() {
        let (comment, length) = token(&chars[at..]);
        for c in &chars[at..at + length] {
            match c {
                '\n' => [&mut code, &mut notes].into_iter().for_each(|to| to.push('\n')),
                c if comment == Some(true) => notes.push(*c),
                c if comment.is_none() => code.push(*c),
                _ => {}
            }
        }
        if comment == Some(false) {
            code.push(' ');
        }
        at += length;
    }
    (code, notes)
}

/// What begins here and how long it is: a comment (`Some(true)`), a text (`Some(false)`), or one character of code.
fn token(rest: &[char]) -> (Option<bool>, usize) {
    let is = |at: usize, c: char| rest.get(at) == Some(&c);
    if is(0, '/') && is(1, '/') {
        return (Some(true), rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()));
    }
    if is(0, '/') && is(1, '*') {
        let (mut depth, mut at) = (0_usize, 0);
        while at < rest.len() {
            match (is(at, '/') && is(at + 1, '*'), is(at, '*') && is(at + 1, '/')) {
                (true, _) => depth += 1,
                (_, true) => depth -= 1,
                _ => {
                    at += 1;
                    continue;
                }
            }
            at += 2;
            if depth == 0 {
                break;
            }
        }
        return (Some(true), at.min(rest.len()));
    }
    if is(0, 'r') {
        let hashes = rest.iter().skip(1).take_while(|c| **c == '#').count();
        if is(1 + hashes, '"') {
            let closes = |at: usize| is(at, '"') && (1..=hashes).all(|more| is(at + more, '#'));
            let end = (2 + hashes..rest.len()).find(|at| closes(*at)).unwrap_or(rest.len());
            return (Some(false), (end + 1 + hashes).min(rest.len()));
        }
    }
    let quoted = |quote: char| {
        let mut at = 1;
        while at < rest.len() && !is(at, quote) {
            at += if is(at, '\\') { 2 } else { 1 };
        }
        (Some(false), (at + 1).min(rest.len()))
    };
    match rest[0] {
        '"' => quoted('"'),
        // Else it is a lifetime.
        '\'' if is(1, '\\') || is(2, '\'') => quoted('\''),
        _ => (None, 1),
    }
}

/// Code with everything under `#[cfg(test)]` blanked.
pub(crate) fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        kept.push_str(&rest[..at]);
        let mut depth = 0_usize;
        let end = rest[at..].char_indices().find(|(_, c)| {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && matches!(c, '}' | ';')
        });
        let end = end.map_or(rest.len(), |(length, _)| at + length + 1);
        kept.extend(rest[at..end].chars().filter(|c| *c == '\n'));
        rest = &rest[end..];
    }
    kept + rest
}

/// Names of a manifest's dependencies of every kind, with their lines.
pub(crate) fn dependencies(manifest: &str) -> Vec<(usize, String)> {
    let (mut found, mut inside) = (Vec::new(), false);
    let plain = |name: &str| name.trim().trim_matches('"').to_owned();
    for (line, text) in numbered(manifest) {
        let text = text.split('#').next().unwrap_or_default().trim();
        if let Some(header) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            inside = header.ends_with("dependencies");
            found.extend(header.split_once("dependencies.").map(|(_, name)| (line, plain(name))));
        } else if let Some((key, value)) = text.split_once('=').filter(|_| inside) {
            found.push((line, plain(key.split('.').next().unwrap_or_default())));
            // Under another name it is the same crate.
            let renamed = value.split_once("package").and_then(|(_, rest)| rest.split('"').nth(1));
            found.extend(renamed.map(|name| (line, name.to_owned())));
        }
    }
    found
}

/// Headings of a document: level, line, text.
pub(crate) fn headings(doc: &str) -> Vec<(usize, usize, String)> {
    sections(doc).into_iter().map(|(level, line, text, _)| (level, line, text)).collect()
}

/// Sections of a document: level, line, heading, and the text up to the next heading.
pub(crate) fn sections(doc: &str) -> Vec<(usize, usize, String, String)> {
    let (mut found, mut fenced) = (Vec::<(usize, usize, String, String)>::new(), false);
    for (line, text) in numbered(doc) {
        fenced ^= text.trim_start().starts_with("```");
        let level = text.chars().take_while(|c| *c == '#').count();
        match text.get(level..).and_then(|rest| rest.strip_prefix(' ')) {
            Some(heading) if level > 0 && !fenced => {
                found.push((level, line, heading.trim().to_owned(), String::new()));
            }
            _ => {
                if let Some(last) = found.last_mut() {
                    last.3.push_str(text);
                    last.3.push('\n');
                }
            }
        }
    }
    found
}

/// The mutation tests by the rule that they switch off.
pub(crate) fn mutation_tests(text: &str) -> BTreeMap<String, String> {
    let (mut found, mut test) = (BTreeMap::new(), "");
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("fn ").and_then(|rest| rest.split('(').next()) {
            test = name;
        }
        if let Some((_, rest)) = line.split_once("is_noticed(Rule::") {
            let rule: String = rest.chars().take_while(|c| is_word(*c)).collect();
            found.insert(rule, test.to_owned());
        }
    }
    found
}

/// Targets of a document's links that lead into this repository, with their lines.
pub(crate) fn links(doc: &str) -> Vec<(usize, String)> {
    let (mut found, mut fenced) = (Vec::new(), false);
    for (line, text) in numbered(doc) {
        fenced ^= text.trim_start().starts_with("```");
        // Every second piece stands between backticks.
        let spoken: String = text.split('`').step_by(2).collect::<Vec<_>>().join("` `");
        let inline =
            spoken.match_indices("](").map(|(at, _)| spoken[at + 2..].split(')').next().unwrap_or_default());
        let listed =
            spoken.starts_with('[').then(|| spoken.split_once("]: ").map(|(_, target)| target)).flatten();
        for target in inline.chain(listed).filter(|_| !fenced) {
            let target = target.split_whitespace().next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
                found.push((line, target.to_owned()));
            }
        }
    }
    found
}

/// The name by which a heading is linked.
pub(crate) fn slug(heading: &str) -> String {
    let kept =
        heading.to_lowercase().chars().filter(|c| is_word(*c) || matches!(c, ' ' | '-')).collect::<String>();
    kept.replace(' ', "-")
}

#[test]
fn code_comments_and_texts_are_told_apart() {
    let text = "let a = \"// sled \\\" x\"; // sled\n/* a /* b */ rand */ let c = '\"'; fn f<'a>() {}\nr#\"sled \"# + b\"x\";\n";
    let (code, notes) = split(text);
    assert_eq!(notes, "// sled\n/* a /* b */ rand */\n\n");
    assert!(!code.contains("sled") && !code.contains("rand") && code.contains("fn f<'a>() {}"), "{code}");
    assert_eq!(code.lines().count(), 3);
    assert!(has_word("use std::{fs, io};", "fs") && !has_word("offs fs_ext", "fs"));
    let code = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { rand(); } }\nfn c() { async {} }\n#[cfg(test)]\nuse x;\nfn d() {}\n";
    let kept = without_tests(code);
    assert!(!kept.contains("rand") && kept.contains("async") && kept.contains("fn d()"), "{kept}");
    assert_eq!(kept.lines().count(), code.lines().count());
}

#[test]
fn manifests_and_documents_are_understood() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\nserde.workspace = true\nold = { package = \"soloist-agent\" }\n\
                    [dev-dependencies.soloist-core]\npath = \"..\"\n[lints]\nworkspace = true\n";
    let names: Vec<String> = dependencies(manifest).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["serde", "old", "soloist-agent", "soloist-core"]);
    let doc = "# A\n```\n# no\n[x](no.md)\n```\n## B c\nsee [x](a.md#b-c), `[y](no.md)`, [z](https://example.org)\n";
    assert_eq!(headings(doc).iter().map(|head| head.2.as_str()).collect::<Vec<_>>(), ["A", "B c"]);
    assert_eq!(links(doc), [(7, "a.md#b-c".to_owned())]);
    assert_eq!(slug("What `must` never be, ever"), "what-must-never-be-ever");
}
