//! Backups with stand-ins for the database's programs: what fails, and what is left of it.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use soloist_agent::backup::{
    BackupError, Backups, Folder, Installation, Limits, Manifest, Progress, Stage, Tools, Uploads,
    UploadsBack,
};
use soloist_core::ids::BackupId;
use tokio::sync::watch;
use tokio::time::timeout;

/// No wait is longer.
const PATIENCE: Duration = Duration::from_secs(20);
const PASSWORD: &str = "very:secret\\word";
/// Answers what the backup asks of a PostgreSQL 15 with one table.
const PSQL: &str = r#"sql=$(cat)
case $sql in
  *server_version_num*) printf 'server\037150018\037PostgreSQL 15.18\nbytes\0371000\nschema\037public\n'
                        printf 'table\037public\037applicationVersion\n' ;;
  *'value::text'*) echo 2.2.15 ;;
esac
"#;
const PG_DUMP: &str = "case $1 in --version) echo 'pg_dump (PostgreSQL) 15.18'; exit;; esac\necho a dump\n";
const PG_RESTORE: &str = r#"case $1 in
  --list) echo '; a comment'
    echo '218; 1259 16400 TABLE public applicationVersion noco'
    echo '3300; 0 16400 TABLE DATA public applicationVersion noco' ;;
  *) cat >/dev/null ;;
esac
"#;

/// A place with programs, a storage and a folder for backups.
struct Place {
    temp: tempfile::TempDir,
    limits: Limits,
}

impl Place {
    fn new() -> Self {
        let place = Self {
            temp: tempfile::tempdir().unwrap(),
            limits: Limits { deadline: PATIENCE, reserve_bytes: 0 },
        };
        for folder in ["bin", "tmp", "out", "storage/plugins/@a", "storage/uploads", "storage/apps/main"] {
            fs::create_dir_all(place.at(folder)).unwrap();
        }
        fs::write(place.at("storage/apps/main/aes_key.dat"), "key").unwrap();
        fs::write(place.at("storage/uploads/picture.png"), "picture").unwrap();
        place.program("psql", PSQL);
        place.program("pg_dump", PG_DUMP);
        place.program("pg_restore", PG_RESTORE);
        place
    }

    fn at(&self, path: &str) -> PathBuf {
        self.temp.path().join(path)
    }

    /// A shell script; `$OUT` is a folder for its notes. Another process writes it: were it open here, a child that another
    /// test starts at this moment would hold it open, and executing it would fail.
    fn program(&self, name: &str, script: &str) {
        let path = self.at("bin").join(name);
        let text = format!("#!/bin/sh\nOUT='{}'\n{script}", self.at("out").display());
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", "cat >\"$1.new\" && chmod 755 \"$1.new\" && mv \"$1.new\" \"$1\"", "sh"])
            .arg(&path);
        let mut shell = shell.stdin(Stdio::piped()).spawn().unwrap();
        shell.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(shell.wait().unwrap().success());
    }

    fn backups(&self) -> Backups {
        let path = format!("{}:/usr/bin:/bin", self.at("bin").display());
        let tools = Tools {
            path,
            temporary: self.at("tmp"),
            postgres: self.at("versions"),
            mark: "test/node-1".into(),
        };
        Backups::new(Folder::open(&self.at("backups")).unwrap(), tools, "n1", self.limits)
    }

    fn installation(&self, more: &[(&str, &str)]) -> Installation {
        let storage = self.at("storage").display().to_string();
        let base = [
            ("DB_DIALECT", "postgres"),
            ("DB_HOST", "127.0.0.1"),
            ("DB_PORT", "1"),
            ("DB_DATABASE", "noco"),
            ("DB_USER", "u"),
            ("DB_PASSWORD", PASSWORD),
            ("STORAGE_PATH", &storage),
        ];
        let vars = base.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Installation::from_vars(&vars.collect()).unwrap()
    }

    async fn create(&self, name: &str, uploads: Uploads) -> Result<Manifest, BackupError> {
        self.backups().create(&id(name), &self.installation(&[]), uploads, &quiet()).await
    }

    /// Nothing is listed, nothing has a password, and only `left` lies in the folder beside locks.
    fn nothing_but(&self, left: &[&str]) {
        assert!(self.backups().folder().list().unwrap().backups.is_empty());
        assert_eq!(names(&self.at("tmp")), [""; 0], "a password's file stayed");
        let names = names(&self.at("backups"));
        let names: Vec<&str> =
            names.iter().map(String::as_str).filter(|name| !name.starts_with(".lock-")).collect();
        assert_eq!(names, left);
    }
}

fn id(text: &str) -> BackupId {
    text.parse().unwrap()
}

fn quiet() -> watch::Sender<Progress> {
    watch::channel(Progress::default()).0
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Waits until a file is there, and gives its text.
async fn file(path: &Path) -> String {
    let begun = Instant::now();
    loop {
        match fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
            _ => assert!(begun.elapsed() < PATIENCE, "{} did not come", path.display()),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn gone(pid: u32) {
    let begun = Instant::now();
    while soloist_agent::host::ProcessId::of(pid).is_some_and(soloist_agent::host::ProcessId::alive) {
        assert!(begun.elapsed() < PATIENCE, "process {pid} outlives its user");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn made_checked_listed_removed() {
    let place = Place::new();
    let backups = place.backups();
    let (progress, told) = watch::channel(Progress::default());
    let manifest =
        backups.create(&id("a"), &place.installation(&[]), Uploads::Include, &progress).await.unwrap();
    assert_eq!(told.borrow().stage, Stage::Done);
    assert_eq!(manifest.version.as_ref().unwrap().0, "2.2.15");
    assert_eq!((manifest.tables, manifest.kept["apps"], manifest.kept[".license"]), (1, true, false));
    assert_eq!(manifest.uploads.unwrap().bytes, 7);
    let names: Vec<&str> = manifest.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["database.dump", "storage.tar", "uploads.jsonl"]);
    let target = place.installation(&[]);
    let restored = backups.restore(&id("a"), &target, UploadsBack::Leave, &quiet()).await;
    assert!(matches!(restored, Err(BackupError::Unchecked(_))), "{restored:?}");
    let checked = backups.check(&id("a"), &quiet()).await.unwrap();
    assert!(!checked.deep);
    assert_eq!(backups.folder().show(&id("a")).unwrap().checked, Some(checked), "it is written down");
    assert!(matches!(place.create("a", Uploads::Skip).await, Err(BackupError::Exists(_))));

    fs::write(place.at("storage/apps/main/aes_key.dat"), "another").unwrap();
    fs::write(place.at("storage/.upgrading"), "").unwrap();
    fs::remove_file(place.at("storage/uploads/picture.png")).unwrap();
    backups.restore(&id("a"), &target, UploadsBack::Complete, &quiet()).await.unwrap();
    assert_eq!(fs::read_to_string(place.at("storage/apps/main/aes_key.dat")).unwrap(), "key");
    assert_eq!(fs::read_to_string(place.at("storage/uploads/picture.png")).unwrap(), "picture");
    assert_eq!(crate::names(&place.at("storage")), ["apps", "plugins", "uploads"]);
    assert!(backups.folder().restore_note(&id("a")).unwrap().unwrap().ended_at_ms.is_some());

    place.create("b", Uploads::Skip).await.unwrap();
    assert!(backups.folder().prune(0).unwrap().is_empty(), "the only checked one stays, and so does b");
    backups.check(&id("b"), &quiet()).await.unwrap();
    assert_eq!(backups.folder().prune(1).unwrap(), [id("a")]);
    let error = backups.folder().remove(&id("a")).unwrap_err().to_string();
    assert_eq!(error, "there is no backup a; there are: b");
    backups.folder().remove(&id("b")).unwrap();
    place.nothing_but(&[]);
}

#[tokio::test]
async fn a_dump_that_fails_leaves_nothing() {
    let place = Place::new();
    place.program("pg_dump", &format!("{PG_DUMP}echo 'error: {PASSWORD} is no table' >&2; kill -9 $$\n"));
    let error = place.create("a", Uploads::Include).await.unwrap_err().to_string();
    assert!(
        error.contains("pg_dump") && error.contains("is no table") && !error.contains(PASSWORD),
        "{error}"
    );
    place.nothing_but(&[]);
    place.program("pg_dump", PG_DUMP);
    place.create("a", Uploads::Include).await.unwrap();
}

#[tokio::test]
async fn a_partial_backup_is_never_listed_and_is_begun_anew() {
    let place = Place::new();
    place.program(
        "pg_dump",
        &format!("{PG_DUMP}echo $$ >$OUT/pid; sleep 1000 & echo $! >$OUT/grandchild; wait\n"),
    );
    let (one, target) = (id("a"), place.installation(&[]));
    let backups = place.backups();
    let progress = quiet();
    let making = backups.create(&one, &target, Uploads::Skip, &progress);
    let mut pids = Vec::new();
    tokio::select! {
        ended = making => panic!("{ended:?}"),
        () = async {
            for name in ["pid", "grandchild"] {
                pids.push(file(&place.at("out").join(name)).await.parse().unwrap());
            }
        } => {}
    }
    // The future is dropped by now: whatever it started goes with it.
    for pid in pids {
        gone(pid).await;
    }
    place.nothing_but(&[".partial-a"]);
    assert!(matches!(backups.folder().show(&one), Err(BackupError::Unknown { .. })));
    fs::write(place.at("backups/.partial-a/rubbish"), "x").unwrap();
    place.program("pg_dump", PG_DUMP);
    // A thread that has not seen its end yet may hold the lock for a moment.
    timeout(PATIENCE, async {
        while let Err(BackupError::Busy(_)) = place.create("a", Uploads::Skip).await {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(names(&place.at("backups/a")), ["database.dump", "manifest.json", "storage.tar"]);
}

#[tokio::test]
async fn one_id_is_written_by_one() {
    let place = Place::new();
    place.program("pg_dump", &format!("{PG_DUMP}echo 1 >$OUT/runs; sleep 1000\n"));
    let making = place.create("a", Uploads::Skip);
    tokio::select! {
        ended = making => panic!("{ended:?}"),
        () = async {
            file(&place.at("out/runs")).await;
            let error = place.create("a", Uploads::Skip).await.unwrap_err();
            assert!(matches!(error, BackupError::Busy(_)), "{error}");
        } => {}
    }
}

#[tokio::test]
async fn the_deadline_kills_the_children() {
    let mut place = Place::new();
    place.limits.deadline = Duration::from_secs(1);
    place.program("pg_dump", &format!("{PG_DUMP}echo $$ >$OUT/pid; sleep 1000\n"));
    let error = place.create("a", Uploads::Skip).await.unwrap_err();
    assert!(matches!(error, BackupError::Deadline { secs: 1, .. }), "{error}");
    gone(file(&place.at("out/pid")).await.parse().unwrap()).await;
}

#[tokio::test]
async fn what_was_never_finished_goes_when_the_next_begins() {
    let place = Place::new();
    let left = place.at("backups/.partial-left");
    for folder in [&left, &place.at("backups/.partial-busy"), &place.at("backups/.partial-next/uploads")] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(left.join("database.dump"), "half").unwrap();
    // Somebody works on that one.
    let lock = fs::File::create(place.at("backups/.lock-busy")).unwrap();
    lock.lock().unwrap();
    place.backups().presync(&id("next"), &place.installation(&[]), &quiet()).await.unwrap();
    place.nothing_but(&[".partial-busy", ".partial-next"]);
    place.create("next", Uploads::Presync).await.unwrap();
    drop(lock);
    place.create("last", Uploads::Skip).await.unwrap();
    let names = names(&place.at("backups"));
    let there: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| !name.starts_with(".lock-")).collect();
    assert_eq!(there, ["last", "next"]);
}

#[tokio::test]
async fn passwords_are_in_no_argument_and_in_no_environment() {
    let place = Place::new();
    // Each program notes how it was called, and what others could see of it.
    let spy = r#"tr '\0' '\n' </proc/$$/cmdline >>$OUT/seen; tr '\0' '\n' </proc/$$/environ >>$OUT/seen
[ -z "$PGPASSFILE" ] || stat -c '%a' "$PGPASSFILE" >>$OUT/mode; [ -z "$PGPASSFILE" ] || cat "$PGPASSFILE" >$OUT/file
"#;
    for (name, script) in [("psql", PSQL), ("pg_dump", PG_DUMP), ("pg_restore", PG_RESTORE)] {
        place.program(name, &format!("{spy}{script}"));
    }
    place.create("a", Uploads::Skip).await.unwrap();
    place.backups().check(&id("a"), &quiet()).await.unwrap();
    place.backups().restore(&id("a"), &place.installation(&[]), UploadsBack::Leave, &quiet()).await.unwrap();
    let seen = fs::read_to_string(place.at("out/seen")).unwrap();
    assert!(seen.contains("pg_dump") && seen.contains("PGAPPNAME=soloist-backup-n1"), "{seen}");
    assert!(!seen.contains("secret") && !seen.contains("HOME="), "{seen}");
    let modes = fs::read_to_string(place.at("out/mode")).unwrap();
    assert!(modes.lines().all(|mode| mode == "600"), "{modes}");
    assert!(fs::read_to_string(place.at("out/file")).unwrap().contains("secret"), "the programs do get it");
    let manifest = fs::read_to_string(place.at("backups/a/manifest.json")).unwrap();
    assert!(!manifest.contains("secret"), "{manifest}");
    assert_eq!(names(&place.at("tmp")), [""; 0]);
}

#[tokio::test]
async fn damage_is_named_and_remembered() {
    let place = Place::new();
    let backups = place.backups();
    place.create("a", Uploads::Include).await.unwrap();
    backups.check(&id("a"), &quiet()).await.unwrap();
    let (dump, upload) = (place.at("backups/a/database.dump"), place.at("backups/a/uploads/picture.png"));
    for (path, bad, text) in [
        (&dump, "b dump\n", "database.dump: its SHA-256"),
        (&dump, "a", "database.dump: it has 1 bytes instead of 7"),
        (&upload, "pictura", "uploads/picture.png: its content"),
    ] {
        let good = fs::read(path).unwrap();
        fs::write(path, bad).unwrap();
        // A restore looks for itself, also when the last check was fine.
        let target = place.installation(&[]);
        for error in [
            backups.restore(&id("a"), &target, UploadsBack::Leave, &quiet()).await.map(|_| ()).unwrap_err(),
            backups.check(&id("a"), &quiet()).await.map(|_| ()).unwrap_err(),
            backups.restore(&id("a"), &target, UploadsBack::Leave, &quiet()).await.map(|_| ()).unwrap_err(),
        ] {
            assert!(error.to_string().starts_with(&format!("the backup a is damaged: {text}")), "{error}");
        }
        assert!(backups.folder().show(&id("a")).unwrap().checked.is_none());
        assert!(backups.folder().restore_note(&id("a")).unwrap().is_none(), "no restore began");
        fs::write(path, good).unwrap();
        backups.check(&id("a"), &quiet()).await.unwrap();
    }
    place.program("pg_restore", "echo 'pg_restore: error: input file is too short' >&2; exit 1\n");
    let error = backups.check(&id("a"), &quiet()).await.unwrap_err().to_string();
    assert!(error.contains("database.dump: pg_restore: error: input file is too short"), "{error}");
    place.program("pg_restore", "echo '218; 1259 16400 TABLE public other noco'\n");
    let error = backups.check(&id("a"), &quiet()).await.unwrap_err().to_string();
    assert!(error.contains("it lists no rows of the table applicationVersion"), "{error}");
    fs::write(place.at("backups/a/manifest.json"), "{").unwrap();
    let listing = backups.folder().list().unwrap();
    assert_eq!((listing.backups.len(), &listing.unreadable[0].0), (0, &id("a")));
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let mut place = Place::new();
    place.program("pg_dump", "echo 'pg_dump (PostgreSQL) 14.9'\n");
    let error = place.create("a", Uploads::Skip).await.unwrap_err().to_string();
    assert_eq!(error, "pg_dump 14 cannot dump a server 15: install postgresql-client-15");
    place.program("pg_dump", "echo 'pg_dump (PostgreSQL) 17.2'\n");
    let error = place.create("a", Uploads::Skip).await.unwrap_err().to_string();
    assert!(error.starts_with("pg_restore 17 cannot load into a server 15"), "{error}");
    // The fitting ones are taken where they lie beside others.
    fs::create_dir_all(place.at("versions/15/bin")).unwrap();
    place.program("../versions/15/bin/pg_dump", PG_DUMP);
    place.program("../versions/15/bin/pg_restore", PG_RESTORE);
    place.program("pg_restore", "exit 1\n");
    place.create("fit", Uploads::Skip).await.unwrap();
    place.backups().check(&id("fit"), &quiet()).await.unwrap();
    place.backups().folder().remove(&id("fit")).unwrap();
    fs::remove_dir_all(place.at("versions")).unwrap();
    place.program("pg_dump", PG_DUMP);
    place.program(
        "psql",
        "echo 'psql: error: FATAL:  password authentication failed for user \"u\"' >&2; exit 2\n",
    );
    let error = place.create("a", Uploads::Skip).await.unwrap_err().to_string();
    assert!(
        error.starts_with("the database 127.0.0.1:1/noco does not take the password of user u"),
        "{error}"
    );
    place.program("psql", PSQL);
    place.limits.reserve_bytes = 1 << 60;
    let error = place.create("a", Uploads::Skip).await.unwrap_err().to_string();
    assert!(error.contains("needs about 1048576 TiB, has ") && error.contains("/backups"), "{error}");
    place.nothing_but(&[]);
    fs::remove_dir_all(place.at("bin")).unwrap();
    let path = place.at("bin").display().to_string();
    let tools = Tools {
        path,
        temporary: place.at("tmp"),
        postgres: place.at("versions"),
        mark: "test/node-1".into(),
    };
    let folder = Folder::open(&place.at("backups")).unwrap();
    let backups = Backups::new(folder, tools, "n1", place.limits);
    for (dialect, text) in [
        ("postgres", "pg_dump is not installed on this node: install the Debian package postgresql-client"),
        (
            "mysql",
            "mysql or mariadb is not installed on this node: install the Debian package default-mysql-client",
        ),
        (
            "mariadb",
            "mariadb or mysql is not installed on this node: install the Debian package mariadb-client",
        ),
    ] {
        let source = place.installation(&[("DB_DIALECT", dialect)]);
        let error = backups.create(&id("a"), &source, Uploads::Skip, &quiet()).await.unwrap_err();
        assert_eq!(error.to_string(), text);
    }
}

#[tokio::test]
async fn a_dump_of_mysql_must_be_whole() {
    let place = Place::new();
    let spy = "tr '\\0' '\\n' </proc/$$/cmdline >>$OUT/seen\n";
    let ask = "case $(cat) in *'version()'*) printf 'server\\t8.0.36\\tMySQL 8.0.36\\nbytes\\t10\\ntable\\tnoco\\tapplicationVersion\\n' ;; \
               *) echo 2.2.15 ;; esac\n";
    let version = "case $1 in --version) echo 'mysqldump  Ver 8.0.36 for Linux'; exit;; esac\n";
    let table =
        "printf 'CREATE TABLE `applicationVersion` (\\n'; head -c 2000 /dev/zero | tr '\\0' x; echo\n";
    place.program("mysql", &format!("{spy}{ask}"));
    let source = place.installation(&[("DB_DIALECT", "mysql")]);
    let backups = place.backups();
    for (name, rest, text) in [
        ("whole", "echo '-- Dump completed on 2026-01-01'\n", None),
        ("short", "", Some("it was cut off")),
        (
            "other",
            "printf 'CREATE TABLE `b` (\\n'; echo '-- Dump completed'\n",
            Some("2 tables instead of 1"),
        ),
    ] {
        place.program("mysqldump", &format!("{spy}{version}{table}{rest}"));
        backups.create(&id(name), &source, Uploads::Skip, &quiet()).await.unwrap();
        let checked = backups.check(&id(name), &quiet()).await;
        match text {
            None => assert!(checked.is_ok(), "{checked:?}"),
            Some(text) => assert!(checked.unwrap_err().to_string().contains(text)),
        }
    }
    let seen = fs::read_to_string(place.at("out/seen")).unwrap();
    assert!(seen.contains("--single-transaction") && !seen.contains("secret"), "{seen}");
}

#[tokio::test]
async fn a_presync_saves_the_copy_and_survives_a_failure() {
    let place = Place::new();
    let backups = place.backups();
    let source = place.installation(&[]);
    backups.presync(&id("a"), &source, &quiet()).await.unwrap();
    place.nothing_but(&[".partial-a"]);
    let changed = |path: &str| fs::metadata(place.at(path)).unwrap().modified().unwrap();
    let before = changed("backups/.partial-a/uploads/picture.png");
    place.program("pg_dump", "case $1 in --version) echo 15;; *) exit 1;; esac\n");
    place.create("a", Uploads::Presync).await.unwrap_err();
    place.program("pg_dump", PG_DUMP);
    fs::write(place.at("storage/uploads/new.png"), "new").unwrap();
    let manifest = place.create("a", Uploads::Presync).await.unwrap();
    assert_eq!(manifest.uploads.unwrap().entries, 2);
    assert_eq!(changed("backups/a/uploads/picture.png"), before, "not copied again");
    backups.check(&id("a"), &quiet()).await.unwrap();
    assert!(matches!(backups.presync(&id("a"), &source, &quiet()).await, Err(BackupError::Exists(_))));
}
