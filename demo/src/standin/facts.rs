//! What is known about a node that does not run: the version on its disk, the database, the marker on the storage.

use serde_json::{Value, json};

use super::database::Database;
use super::options::StandinFiles;

/// The facts as JSON: `{"code": "1.0.0", "database": {"identity": …, "version": … or null, "empty": bool}, "upgrading": bool}`.
///
/// # Errors
/// When the code's version or the database cannot be read.
pub fn facts(files: &StandinFiles) -> anyhow::Result<Value> {
    let content = Database::new(&files.database).read()?;
    Ok(json!({
        "code": files.code()?,
        "database": {"identity": content.identity, "version": content.version, "empty": content.is_empty()},
        "upgrading": files.upgrading(),
    }))
}

/// Prints the facts on one line of stdout, for an agent that asks with a command.
///
/// # Errors
/// As for [`facts`].
#[allow(clippy::print_stdout, reason = "whoever runs this command reads its stdout")]
pub fn facts_text(files: &StandinFiles) -> anyhow::Result<()> {
    println!("{}", facts(files)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::options::StandinOptions;
    use super::*;

    #[test]
    fn an_empty_database_has_a_lasting_identity() {
        let folder = tempfile::tempdir().unwrap();
        let files = StandinOptions::for_test(folder.path(), "node-1").files;
        let first = facts(&files).unwrap();
        assert_eq!(first["database"]["version"], Value::Null);
        assert_eq!(first["database"]["empty"], true);
        assert_eq!((&first["code"], &first["upgrading"]), (&json!("1.0.0"), &json!(false)));
        assert_eq!(facts(&files).unwrap(), first);
        std::fs::remove_file(&files.database).unwrap();
        assert_ne!(facts(&files).unwrap()["database"]["identity"], first["database"]["identity"]);
    }

    #[test]
    fn a_code_file_wins_and_a_database_that_is_down_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = StandinOptions::for_test(folder.path(), "node-1").files;
        files.code_file = Some(folder.path().join("version"));
        assert!(facts(&files).is_err());
        std::fs::write(folder.path().join("version"), "3.1.4\n").unwrap();
        assert_eq!(facts(&files).unwrap()["code"], "3.1.4");
        std::fs::write(folder.path().join("database.json.down"), "").unwrap();
        assert!(facts(&files).is_err());
    }
}
