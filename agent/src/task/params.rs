//! Parameters of tasks, checked before anything is done with them.

use std::collections::BTreeMap;

/// Longest plugin name in bytes.
const PLUGIN_MAX: usize = 128;

/// The one parameter `plugin`: a package name or short name, `^[@a-z0-9][@a-z0-9/._-]{0,127}$`.
pub(super) fn plugin(params: &BTreeMap<String, String>) -> Result<String, String> {
    if let Some(other) = params.keys().find(|key| *key != "plugin") {
        return Err(format!("the parameter \"{other}\" is not known; the only one is \"plugin\""));
    }
    let name = params.get("plugin").ok_or("the parameter \"plugin\" is missing: a plugin's package name")?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'@';
    let head = name.bytes().next().is_some_and(plain);
    let tail = name.bytes().all(|byte| plain(byte) || matches!(byte, b'/' | b'.' | b'_' | b'-'));
    if head && tail && name.len() <= PLUGIN_MAX && !name.contains("..") {
        return Ok(name.clone());
    }
    let shown: String = name.chars().take(40).collect();
    Err(format!("\"{}\" is not a plugin's package name", shown.escape_debug()))
}

/// A package's full name, which becomes the name of a folder: one part, or a scope and one part.
pub(super) fn package(name: &str) -> Result<(), String> {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-');
    let fits = |part: &str| !part.is_empty() && !part.starts_with(['.', '-']) && part.bytes().all(plain);
    let good = match name.strip_prefix('@') {
        Some(rest) => rest.split_once('/').is_some_and(|(scope, part)| fits(scope) && fits(part)),
        None => fits(name),
    };
    if good && name.len() <= PLUGIN_MAX {
        return Ok(());
    }
    let shown: String = name.chars().take(40).collect();
    Err(format!("\"{}\" is not a package name", shown.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str) -> Result<String, String> {
        plugin(&[("plugin".to_owned(), name.to_owned())].into())
    }

    #[test]
    fn names() {
        for good in ["map", "@nocobase/plugin-map", "a", "@x/y.z_1"] {
            assert_eq!(check(good).unwrap(), good);
        }
        for bad in ["", "-x", "Map", "a b", "a;b", "../x", "@a/../b", "a?b=c", "a\n", &"a".repeat(129)] {
            assert!(check(bad).is_err(), "{bad}");
        }
        for good in ["@a/x", "plugin-1", "@a.b/c_d"] {
            package(good).unwrap();
        }
        for bad in ["@a", "@a/x/y", "a/b", "@a/..", "..", "@../x", "@a/.x", "-x", "@a/-x", "A", "a+b", "a b"]
        {
            assert!(package(bad).is_err(), "{bad}");
        }
        assert!(plugin(&BTreeMap::new()).unwrap_err().contains("missing"));
        assert!(plugin(&[("x".to_owned(), String::new())].into()).unwrap_err().contains("\"x\""));
    }
}
