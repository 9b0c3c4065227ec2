//! Single settings in `.env`, with the line where they stand: for messages that people can act on. What a setting
//! really is, NocoBase's own code decides.

/// A setting in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// Line number, from 1.
    pub(super) line: usize,
    /// Value without quotes and comment.
    pub(super) value: String,
}

/// The last line that sets `key`; like in dotenv, a later line wins.
pub(super) fn find_setting(text: &str, key: &str) -> Option<Setting> {
    let mut found = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        let line = line.strip_prefix("export ").map_or(line, str::trim_start);
        let Some(rest) = line.strip_prefix(key) else { continue };
        let Some(value) = rest.trim_start().strip_prefix(['=', ':']) else { continue };
        found = Some(Setting { line: index + 1, value: plain(value.trim()) });
    }
    found
}

fn plain(value: &str) -> String {
    for quote in ['"', '\'', '`'] {
        if let Some((inner, _)) = value.strip_prefix(quote).and_then(|rest| rest.split_once(quote)) {
            return inner.to_owned();
        }
    }
    value.split('#').next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_lines() {
        let text = "# CLUSTER_MODE=9\nAPP_KEY=x\nexport CLUSTER_MODE=\"max\" # all\nCLUSTER_MODE_X=1\nTZ=\n";
        assert_eq!(find_setting(text, "CLUSTER_MODE"), Some(Setting { line: 3, value: "max".into() }));
        assert_eq!(find_setting(text, "TZ"), Some(Setting { line: 5, value: String::new() }));
        assert_eq!(
            find_setting("CLUSTER_MODE=2 # two\nCLUSTER_MODE=#off", "CLUSTER_MODE").unwrap().value,
            ""
        );
        assert_eq!(find_setting(text, "APP"), None);
    }
}
