//! Disks that are full, and disks that fail.

use std::{
    ffi::CStr,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::program::{Members, eventually};

/// A small file system of its own. Unmounted when dropped.
struct Small(PathBuf);

impl Small {
    fn at(path: &Path, size: &CStr) -> Small {
        fs::create_dir_all(path).unwrap();
        mount("soloist-test", path, "tmpfs", MountFlags::empty(), size).unwrap();
        Small(path.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// Writes a file until there is no room.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for size in [64 * 1024, 4096, 512] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_ends_its_member_only_until_there_is_room() {
    let mut members = Members::of(3);
    let folders: Vec<Small> = vec![Small::at(&members.folder(1), c"size=24m")];
    (1..=3).for_each(|id| members.run(id, &[]));
    members.leader().await;
    members.writes(1, 2).await;
    let filler = members.folder(1).join("filler");
    fill(&filler);

    // It is written to until the file of the log would have to grow.
    let mut confirmed = 0;
    while members.status(1).await.is_some() && confirmed < 2_000 {
        confirmed += u32::from(members.write(2).await);
    }
    let log = members.refused(1).await;
    assert!(log.contains("No space left on device") && log.contains("make room"), "{log}");
    // The others go on, and say that it is away.
    members.leader().await;
    members.writes(2, 2).await;
    let reply = members
        .membership(2)
        .members(soloist_proto::v1::MembersRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(reply.members.iter().any(|info| info.member == 1 && !info.reachable), "{reply:?}");

    // As its supervisor does, again and again: the same, in order, for as long as there is no room.
    for _ in 0..2 {
        members.run(1, &[]);
        let log = members.refused(1).await;
        assert!(log.contains("No space left on device") && log.contains("make room"), "{log}");
    }
    fs::remove_file(&filler).unwrap();
    members.run(1, &[]);
    let last = members.status(2).await.unwrap().last_log;
    eventually("it has what was written meanwhile", async || {
        members.status(1).await.is_some_and(|info| info.applied >= last)
    })
    .await;
    members.leader().await;
    members.writes(1, 1).await;
    drop(members);
    drop(folders);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_ends_the_program_with_the_reason_and_loses_nothing() {
    let mut members = Members::of(1);
    let plain = members.command(1);
    let mut traced = Command::new("strace");
    traced.args([
        "-f",
        "-qq",
        "-e",
        "trace=fdatasync",
        "-e",
        "inject=fdatasync:error=EIO:when=60+",
        "-o",
        "/dev/null",
    ]);
    // Whoever ends it ends the program too.
    traced.args(["setpriv", "--pdeathsig", "KILL"]).arg(plain.get_program()).args(plain.get_args());
    members.spawn(1, &mut traced);
    members.leader().await;
    let mut confirmed = 0;
    while members.write(1).await {
        confirmed += 1;
        assert!(confirmed < 1_000, "no sync has failed");
    }
    let log = members.refused(1).await;
    assert!(log.contains("Input/output error") && log.contains("cannot go on"), "{log}");
    members.run(1, &[]);
    members.leader().await;
    let status = members.status(1).await.unwrap();
    assert!(confirmed > 0 && status.applied >= confirmed, "{confirmed} were confirmed: {status:?}");
}
