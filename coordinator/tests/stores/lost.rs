//! A folder that is empty, old or damaged.

use std::{
    fs::{self, File},
    time::Duration,
};

use soloist_proto::v1::RemoveMemberRequest;
use tokio::time::{Instant, sleep};

use super::program::{Members, copy_all, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_folder_under_a_used_id_never_votes_and_comes_back_under_a_new_id() {
    let mut members = Members::start(3).await;
    let leader = members.leader().await;
    let (lost, other) = match leader {
        1 => (3, 2),
        2 => (3, 1),
        _ => (2, 1),
    };
    members.writes(leader, 3).await;
    members.kill(lost);
    fs::remove_dir_all(members.folder(lost)).unwrap();

    // As if it founded the cluster with the others.
    members.run(lost, &[]);
    let log = members.refused(lost).await;
    for part in
        ["known with another data folder", &format!("cluster remove {lost}"), "join = true", "cluster add"]
    {
        assert!(log.contains(part), "{part:?} is missing from: {log}");
    }

    // Also when nobody is left who has counted its word: it waits, and what it would have voted for does not lead.
    members.kill(leader);
    members.run(lost, &[]);
    let told = |members: &Members| members.log(lost).contains("another data folder");
    eventually("it has asked", async || told(&members) || members.status(lost).await.is_some()).await;
    // Longer than any election takes.
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until && !told(&members) {
        let status = members.status(other).await.unwrap();
        assert_ne!(status.role, "leader", "an empty folder has voted");
        sleep(Duration::from_millis(200)).await;
    }
    members.run(leader, &[]);
    members.refused(lost).await;
    members.leader().await;

    // As if it waited to be taken in, under its old id.
    fs::remove_dir_all(members.folder(lost)).unwrap();
    members.run(lost, &["--join"]);
    let log = members.refused(lost).await;
    assert!(log.contains("another data folder"), "{log}");

    // The way that it was told.
    let remove = RemoveMemberRequest { member: lost, forwarded: false };
    members.membership(other).remove_member(remove).await.unwrap();
    members.run(4, &["--join"]);
    members.take_in(other, 4).await;
    members.writes(4, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_and_a_damaged_folder_are_refused() {
    let mut members = Members::start(3).await;
    let leader = members.leader().await;
    let follower = if leader == 3 { 2 } else { 3 };
    members.writes(leader, 2).await;
    members.stop(follower).await;
    let copy = members.temp.path().join("copy");
    copy_all(&members.folder(follower), &copy);

    // What it acknowledges from now on is missing from the copy, and nothing in the copy tells.
    members.run(follower, &[]);
    members.leader().await;
    members.writes(leader, 2).await;
    members.stop(follower).await;
    let newest = members.temp.path().join("newest");
    fs::rename(members.folder(follower), &newest).unwrap();
    copy_all(&copy, &members.folder(follower));
    members.run(follower, &[]);
    let log = members.refused(follower).await;
    assert!(log.contains("older copy") && log.contains("join = true"), "{log}");

    // Cut short.
    fs::remove_dir_all(members.folder(follower)).unwrap();
    copy_all(&newest, &members.folder(follower));
    let log_file = members.folder(follower).join("log.redb");
    let length = fs::metadata(&log_file).unwrap().len();
    File::options().write(true).open(&log_file).unwrap().set_len(length / 2).unwrap();
    members.run(follower, &[]);
    let log = members.refused(follower).await;
    assert!(log.contains("is damaged") && log.contains("new member id"), "{log}");

    // The right one is taken back, and the others went on all the time.
    members.writes(leader, 1).await;
    fs::remove_dir_all(members.folder(follower)).unwrap();
    fs::rename(&newest, members.folder(follower)).unwrap();
    members.run(follower, &[]);
    members.leader().await;
    members.writes(follower, 1).await;
}
