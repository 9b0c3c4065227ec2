//! Backups of real databases: a private PostgreSQL and a private MariaDB, started by deploy/lab.

#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![expect(clippy::print_stdout, reason = "a failure is easier to place among the cases")]

mod fences;
mod logins;
mod server;
mod work;

use std::fs;
use std::path::Path;

use server::{Kind, PASSWORD, Server, id, quiet, same};
use soloist_agent::backup::{BackupError, Backups, Installation, Progress, Stage, Uploads, UploadsBack};
use tokio::sync::watch;

/// Everything of one kind of database, one case after the other.
async fn round_trip(server: &Server) {
    let database = server.database("trip");
    let source = database.installation(&[]);
    let backups = database.backups(&[]);
    fs::create_dir_all(database.storage.join("apps/main")).unwrap();
    fs::write(database.storage.join("apps/main/aes_key.dat"), "key").unwrap();
    let before = database.dump();

    let made = backups.create(&id("one"), &source, Uploads::Skip, &quiet()).await.unwrap();
    assert_eq!(made.version.as_ref().unwrap().0, "2.2.15");
    assert_eq!(made.tables, server.kind.tables());
    backups.check(&id("one"), &quiet()).await.unwrap();
    assert!(backups.check_deep(&id("one"), &source, &quiet()).await.unwrap().deep);
    assert_eq!(server.scratch_databases(), "", "the scratch database is dropped");
    same(&database.dump(), &before, "checks change nothing");

    println!("{:?}: what came after the backup is gone, and who was connected too", server.kind);
    database.sql(server.kind.newer());
    fs::write(database.storage.join("apps/main/aes_key.dat"), "another").unwrap();
    assert!(database.dump() != before, "the test changes something");
    let mut session = database.session();
    let restored = backups.restore(&id("one"), &source, UploadsBack::Leave, &quiet()).await.unwrap();
    assert_eq!(restored.version.unwrap().0, "2.2.15");
    assert!(!session.wait().unwrap().success(), "its connection was ended");
    same(&database.dump(), &before, "after the restore");
    assert_eq!(fs::read_to_string(database.storage.join("apps/main/aes_key.dat")).unwrap(), "key");
    let note = backups.folder().restore_note(&id("one")).unwrap().unwrap();
    assert!(note.ended_at_ms.is_some());

    println!("{:?}: a load that fails, and the restore done again", server.kind);
    let broken = database.backups(&[server.kind.broken_load()]);
    database.sql(server.kind.newer());
    let error = broken.restore(&id("one"), &source, UploadsBack::Leave, &quiet()).await.unwrap_err();
    assert!(error.to_string().contains("loading the dump failed"), "{error}");
    let note = backups.folder().restore_note(&id("one")).unwrap().unwrap();
    assert_eq!(note.ended_at_ms, None, "the note says that it did not end");
    backups.restore(&id("one"), &source, UploadsBack::Leave, &quiet()).await.unwrap();
    same(&database.dump(), &before, "after the restore");
    let error = broken.check_deep(&id("one"), &source, &quiet()).await.unwrap_err();
    assert!(error.to_string().contains("loading the dump failed"), "{error}");
    assert_eq!(server.scratch_databases(), "", "dropped after a failure, too");

    println!("{:?}: a restore that is given up while it loads, and done again", server.kind);
    let (progress, mut told) = watch::channel(Progress::default());
    let one = id("one");
    tokio::select! {
        ended = backups.restore(&one, &source, UploadsBack::Leave, &progress) => panic!("{ended:?}"),
        seen = told.wait_for(|progress| progress.stage == Stage::Load) => assert!(seen.is_ok()),
    }
    backups.restore(&id("one"), &source, UploadsBack::Leave, &quiet()).await.unwrap();
    same(&database.dump(), &before, "after the second try");

    damaged(&backups, &source, &database.root).await;
    same(&database.dump(), &before, "a refused restore changes nothing");

    println!("{:?}: a wrong password", server.kind);
    let wrong = database.installation(&[("DB_PASSWORD", "wrong-password")]);
    let error = backups.create(&id("two"), &wrong, Uploads::Skip, &quiet()).await.unwrap_err();
    assert!(matches!(error, BackupError::Password { .. }), "{error}");
    assert!(error.to_string().contains("correct DB_USER and DB_PASSWORD"), "{error}");
    let gone = database.installation(&[("DB_DATABASE", "no_such")]);
    let error = backups.create(&id("two"), &gone, Uploads::Skip, &quiet()).await.unwrap_err().to_string();
    assert!(error.contains("no_such") && !error.contains(PASSWORD), "{error}");
}

async fn damaged(backups: &Backups, source: &Installation, root: &Path) {
    let path = root.join("backups/one/database.dump");
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    fs::write(&path, bad).unwrap();
    let error = backups.restore(&id("one"), source, UploadsBack::Leave, &quiet()).await.unwrap_err();
    assert!(error.to_string().contains("database.dump: its SHA-256"), "{error}");
    fs::write(&path, &good[..middle]).unwrap();
    assert!(matches!(backups.check(&id("one"), &quiet()).await, Err(BackupError::Damaged { .. })));
    fs::write(&path, good).unwrap();
}

/// One schema of several: the others are neither dumped nor touched.
async fn one_schema(server: &Server) {
    let database = server.database("schema");
    database.sql(
        "create schema \"No co\"; create table \"No co\".\"n_applicationVersion\" (value text); \
         insert into \"No co\".\"n_applicationVersion\" values ('2.2.15');",
    );
    let source = database.installation(&[("DB_SCHEMA", "No co"), ("DB_TABLE_PREFIX", "n_")]);
    let backups = database.backups(&[]);
    let made = backups.create(&id("one"), &source, Uploads::Skip, &quiet()).await.unwrap();
    assert_eq!((made.tables, made.schemas), (1, vec!["No co".to_owned()]));
    backups.check_deep(&id("one"), &source, &quiet()).await.unwrap();
    database.sql(
        "create table \"No co\".later (); update \"No co\".\"n_applicationVersion\" set value = '3'; \
         create table public.others (); insert into public.others default values;",
    );
    backups.restore(&id("one"), &source, UploadsBack::Leave, &quiet()).await.unwrap();
    let state = "select (select count(*) from public.others), (select value from \"No co\".\"n_applicationVersion\"), \
                 to_regclass('\"No co\".later') is null";
    assert_eq!(database.sql(state), "1|2.2.15|t");

    // The schema need not belong to the role. What it may not drop is found before anything is gone.
    server.superuser(
        "schema",
        "alter schema \"No co\" owner to postgres; grant all on schema \"No co\" to public",
    );
    backups.restore(&id("one"), &source, UploadsBack::Leave, &quiet()).await.unwrap();
    database.sql("update \"No co\".\"n_applicationVersion\" set value = '3'");
    server.superuser("schema", "create table \"No co\".\"zz of another\" ()");
    let error = backups.restore(&id("one"), &source, UploadsBack::Leave, &quiet()).await.unwrap_err();
    assert!(error.to_string().contains("must be owner of table zz of another"), "{error}");
    assert_eq!(database.sql("select value from \"No co\".\"n_applicationVersion\""), "3");

    let whole = database.installation(&[]);
    let error = backups.restore(&id("one"), &whole, UploadsBack::Leave, &quiet()).await.unwrap_err();
    assert!(matches!(error, BackupError::Elsewhere { .. }), "{error}");
}

#[tokio::test]
async fn postgres() {
    let server = Server::start(Kind::Postgres);
    round_trip(&server).await;
    one_schema(&server).await;
    work::is_found(&server).await;
    work::sessions(&server).await;
    fences::keep_out(&server).await;
}

#[tokio::test]
async fn mariadb() {
    let server = Server::start(Kind::Mariadb);
    round_trip(&server).await;
    work::is_found(&server).await;
    fences::keep_out(&server).await;
}
