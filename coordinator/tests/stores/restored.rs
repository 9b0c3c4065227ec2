//! A cluster that is made again from a backup.

use std::{fs, path::Path};

use soloist_proto::v1::{self, backup_part::Part};

use super::program::{Members, eventually};

/// Takes a backup through a member into a file, and returns its header.
async fn backup(
    members: &Members,
    id: u64,
    stale: bool,
    file: &Path,
) -> Result<v1::BackupHeader, tonic::Status> {
    let mut parts = members.membership(id).backup(v1::BackupRequest { stale }).await?.into_inner();
    let (mut header, mut bytes) = (None, Vec::new());
    while let Some(part) = parts.message().await? {
        match part.part.unwrap() {
            Part::Header(found) => header = Some(found),
            Part::Data(data) => bytes.extend(data),
        }
    }
    fs::write(file, bytes).unwrap();
    Ok(header.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_made_again_from_a_backup_and_the_old_one_has_no_say() {
    let mut old = Members::start(3).await;
    let leader = old.leader().await;
    let follower = if leader == 1 { 2 } else { 1 };
    old.writes(leader, 3).await;
    let file = old.temp.path().join("backup");
    let header = backup(&old, follower, false, &file).await.unwrap();
    assert_eq!((header.cluster.as_str(), header.stale, header.members.len()), ("test", false, 3));
    assert_eq!(header.bytes, fs::metadata(&file).unwrap().len());
    assert!(header.index >= 3, "a follower's backup has what the leader has confirmed: {}", header.index);

    // It does not begin beside the cluster that it comes from.
    let mut new = Members::of(1);
    let restore = |members: &Members| {
        let run = members.command(1).arg("restore").arg(&file).output().unwrap();
        (run.status.code(), String::from_utf8(run.stderr).unwrap())
    };
    let (code, said) = restore(&new);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("soloist fleet resume") && said.contains(&header.index.to_string()), "{said}");
    let (code, said) = restore(&new);
    assert!(code == Some(1) && said.contains("is not empty"), "{said}");
    new.run(1, &[]);
    let log = new.refused(1).await;
    assert!(log.contains("is alive") && log.contains(&old.addresses[&leader]), "{log}");

    // Without a majority a backup is refused, or says that it is old.
    old.kill(leader);
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    old.kill(others[1]);
    let later = old.temp.path().join("later");
    let mut refusal = None;
    eventually("the last one knows that it is alone", async || {
        refusal = backup(&old, others[0], false, &later).await.err();
        refusal.is_some()
    })
    .await;
    let problem = soloist_proto::errors::Problem::from(&refusal.unwrap());
    assert!(problem.hint.contains("--stale"), "{problem:?}");
    assert!(backup(&old, others[0], true, &later).await.unwrap().stale);
    old.kill(others[0]);

    // It goes on far above, and takes others in.
    new.run(1, &[]);
    new.leader().await;
    new.writes(1, 1).await;
    let status = new.status(1).await.unwrap();
    assert!(status.last_log > header.wall_ms * soloist_core::restore::INDEXES_PER_MS, "{status:?}");
    new.run(2, &["--join"]);
    new.take_in(1, 2).await;

    // Members of before that come back with their data do not get a word in.
    new.kill(2);
    old.addresses.insert(2, new.addresses[&2].clone());
    old.run(2, &["--join"]);
    eventually("it is asked", async || old.status(2).await.is_some()).await;
    assert!(!new.write(1).await, "one of two, and a member of another cluster, are no majority");
    old.kill(2);
    new.run(2, &["--join"]);
    new.writes(1, 1).await;
}
