//! Versions of the programs that a NocoBase node needs.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use soloist_core::preflight::Release;

use crate::profile::{Launcher, find_program, output};

/// How long a program may take to say its version.
const DEADLINE: Duration = Duration::from_secs(3);

/// The Node.js that runs the app.
pub(super) async fn node(launcher: &Launcher) -> Result<Release, String> {
    let program = launcher.node.clone()?;
    version("node", &program, &launcher.path).await
}

/// The program that dumps the database; `None` if there is none for this dialect.
pub(super) async fn dump(launcher: &Launcher, dialect: &str) -> Result<Option<Release>, String> {
    let names: &[&'static str] = match dialect {
        "postgres" => &["pg_dump"],
        "mysql" | "mariadb" => &["mysqldump", "mariadb-dump"],
        _ => return Ok(None),
    };
    for name in names {
        if let Some(program) = find_program(name, &launcher.path) {
            return version(name, &program, &launcher.path).await.map(Some);
        }
    }
    Err(format!("no program {} in {}", names.join(" or "), launcher.path))
}

async fn version(product: &'static str, program: &str, path: &str) -> Result<Release, String> {
    let argv = [program.to_owned(), "--version".to_owned()];
    let env = BTreeMap::from([("PATH".to_owned(), path.to_owned())]);
    let text =
        output(product, &argv, &env, Path::new("/"), DEADLINE).await.map_err(|error| error.to_string())?;
    let found = parse(&text).ok_or_else(|| format!("{program} --version says no version"))?;
    Ok(Release { product: product.to_owned(), major: found.1, text: found.0 })
}

/// The first word that is a version, and its first number.
fn parse(text: &str) -> Option<(String, u32)> {
    let words = text.split_whitespace().map(|word| word.trim_start_matches('v').trim_end_matches(','));
    words.filter_map(|word| Some((word.to_owned(), word.split('.').next()?.parse().ok()?))).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let of = |text: &str| parse(text).unwrap();
        assert_eq!(of("v20.11.1\n"), ("20.11.1".into(), 20));
        assert_eq!(of("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), ("15.18".into(), 15));
        assert_eq!(of("pg_dump (PostgreSQL) 18beta1 17.2").1, 17);
        assert_eq!(of("mysqldump  Ver 10.13 Distrib 8.0.36, for Linux").1, 10);
        assert_eq!(parse("no version"), None);
    }

    #[tokio::test]
    async fn a_missing_dump_client_is_named() {
        let launcher = Launcher {
            environment: Err(String::new()),
            set: std::collections::BTreeSet::new(),
            downloads: false,
            node: Err("no node".into()),
            path: "/nonexistent".into(),
        };
        assert_eq!(dump(&launcher, "postgres").await.unwrap_err(), "no program pg_dump in /nonexistent");
        assert!(dump(&launcher, "mysql").await.unwrap_err().contains("mysqldump or mariadb-dump"));
        assert_eq!(dump(&launcher, "sqlite").await.unwrap(), None);
        assert_eq!(node(&launcher).await.unwrap_err(), "no node");
    }
}
