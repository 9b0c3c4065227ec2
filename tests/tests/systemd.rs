//! The units of `deploy/systemd` under a real systemd: whatever happens to the agent's service, the app goes on.
//!
//! systemd is PID 1 of namespaces of its own. Its root is an overlay over the machine's, with everything that it writes
//! in memory, so that nothing of it reaches the machine; the network is the machine's loopback. Only the fleet's folder
//! is shared. Needs root, systemd, and a cgroup2 mount (the machine itself may be hybrid).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use soloist_tests::harness::load::Load;
use soloist_tests::harness::{Fleet, FleetOptions, bin, get, marked, until};

/// Becomes PID 1 of fresh namespaces: `MACHINE FLEET PROGRAMS UNITS`, all of them absolute folders, and
/// `scope`, or `no-scope` to have a `systemd-run` that fails.
const BOOT: &str = r#"
set -euo pipefail
machine=$1 fleet=$2 programs=$3 units=$4 scope=$5
# This /proc is still the machine's: the process id is the one by which the test knows the coming systemd.
read -r pid _ </proc/self/stat
mount -t tmpfs -o mode=755 tmpfs "$machine"
mkdir "$machine"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$machine/upper,workdir=$machine/work" "$machine/root"
cd "$machine/root"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
for device in null zero full random urandom tty; do
  : >"dev/$device"
  mount --bind "/dev/$device" "dev/$device"
done
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for folder in tmp var/tmp; do mount -t tmpfs -o mode=1777 tmpfs "$folder"; done
# Of the machine's own services and mounts, none is wanted: they set clocks and sysctls, and clean up folders.
for folder in run var/log etc/systemd/system lib/systemd/system/{sysinit,local-fs,timers}.target.wants; do
  mount -t tmpfs -o mode=755 tmpfs "$folder"
done
: >etc/fstab
for name in coordinator agent; do
  : >"usr/bin/soloist-$name"
  mount --bind "$programs/soloist-$name" "usr/bin/soloist-$name"
  cp "$units/soloist-$name.service" etc/systemd/system/
done
if [ "$scope" = no-scope ]; then mount --bind /bin/false usr/bin/systemd-run; fi
mkdir etc/soloist
cp "$fleet"/{coordinator,agent}.toml etc/soloist/
mkdir -p ".$fleet" ".$programs"
mount --bind "$fleet" ".$fleet"
mount --bind -o ro "$programs" ".$programs"
mkdir -p old
pivot_root . old
printf '%s\n' "$pid" >"$fleet/systemd.pid"
umount -l /old
exec env -i container=unshare PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --unit=basic.target
"#;

/// How long anything in here may take that should take a second or two.
const SOON: Duration = Duration::from_secs(20);

/// A running systemd; it ends with all its processes when this is dropped.
struct Machine {
    unshare: Child,
    pid: i32,
    cgroup: PathBuf,
    console: PathBuf,
}

impl Machine {
    /// Boots with the units installed, and the fleet's folder shared.
    fn boot(fleet: &Fleet, scope: &str) -> Self {
        assert!(
            Path::new("/lib/systemd/systemd").exists(),
            "this test runs a real systemd: install it first with apt-get install systemd"
        );
        assert!(
            rustix::process::geteuid().is_root(),
            "this test makes namespaces and cgroups: run it as root"
        );
        let cgroup = cgroup2().join(format!("soloist-test-{}", fleet.name));
        fs::create_dir(&cgroup).unwrap_or_else(|error| panic!("cannot make {}: {error}", cgroup.display()));
        let programs = bin("soloist-agent");
        assert_eq!(programs.parent(), bin("soloist-coordinator").parent());
        let units = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("deploy").join("systemd");
        let root = fleet.folder.join("machine");
        fs::create_dir(&root).expect("a folder can be made");
        let console = fleet.folder.join("console.log");
        let out = fs::File::create(&console).expect("a file can be made");
        let err = out.try_clone().expect("a file can be cloned");
        // Should the test itself be killed, the kernel ends `unshare`, and with it systemd and all below.
        let enter = "echo 0 >\"$0/cgroup.procs\" && exec setpriv --pdeathsig KILL unshare --pid --fork --kill-child \
                     --mount --cgroup --uts --ipc --propagation private bash -c \"$@\"";
        let unshare = Command::new("bash")
            .args(["-c", enter])
            .arg(&cgroup)
            .args([BOOT, "boot"])
            .args([&root, &fleet.folder])
            .arg(programs.parent().expect("a program lies in a folder"))
            .arg(units)
            .arg(scope)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .expect("bash can be started");
        let mut machine = Self { unshare, pid: 0, cgroup, console };
        let pid = fleet.folder.join("systemd.pid");
        machine.pid = machine.until("systemd", || fs::read_to_string(&pid).ok()?.trim().parse().ok());
        machine.until("the end of the boot", || {
            (machine.run(&["systemctl", "is-system-running"]).1.trim() == "running").then_some(())
        });
        machine
    }

    /// Runs a command in there; its exit code, and all that it said.
    fn run(&self, command: &[&str]) -> (i32, String) {
        let output = Command::new("nsenter")
            .args(["-t", &self.pid.to_string(), "-m", "-p", "-u", "-i", "-C", "--"])
            .args(command)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("SYSTEMD_PAGER", "")
            .stdin(Stdio::null())
            .output()
            .expect("nsenter can be started");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
    }

    /// Runs `systemctl`, which must succeed.
    fn systemctl(&self, args: &[&str]) -> String {
        let (code, said) = self.run(&[&["systemctl"], args].concat());
        assert_eq!(code, 0, "systemctl {}: {said}", args.join(" "));
        said.trim().to_owned()
    }

    /// A property of the agent's service.
    fn agent(&self, property: &str) -> String {
        self.systemctl(&["show", "--value", "-p", property, "soloist-agent"])
    }

    /// The scopes of app keepers.
    fn scopes(&self) -> Vec<String> {
        let list = self.systemctl(&["list-units", "--all", "--plain", "--no-legend", "soloist-app-*"]);
        list.lines().filter_map(|line| line.split_whitespace().next().map(ToOwned::to_owned)).collect()
    }

    fn until<T>(&self, what: &str, condition: impl FnMut() -> Option<T>) -> T {
        until(what, SOON, || self.logs(), condition)
    }

    fn logs(&self) -> String {
        let console = fs::read_to_string(&self.console).unwrap_or_default();
        let journal =
            if self.pid == 0 { String::new() } else { self.run(&["journalctl", "--no-pager", "-n", "60"]).1 };
        format!("--- console\n{console}\n--- journal\n{journal}")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        // While `unshare` runs, it waits for systemd, and the process id is no other's.
        if let (Ok(None), Some(pid)) = (self.unshare.try_wait(), Pid::from_raw(self.pid)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        let began = Instant::now();
        while !remove_cgroup(&self.cgroup) && began.elapsed() < SOON {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Where the machine has its cgroup2 hierarchy.
fn cgroup2() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mounts can be read");
    let found =
        mounts.lines().find(|line| line.split(" - ").nth(1).is_some_and(|end| end.starts_with("cgroup2 ")));
    let at = found.and_then(|line| line.split(' ').nth(4));
    at.expect("this test needs cgroup2: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified").into()
}

/// Removes what is empty, from the leaves; says whether nothing is left.
fn remove_cgroup(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return true };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_cgroup(&entry.path());
    }
    fs::remove_dir(folder).is_ok()
}

/// A process for ever: id and start time, as the machine outside sees them.
#[derive(Debug, PartialEq, Eq)]
struct App {
    pid: u32,
    started: u64,
}

impl App {
    /// The one process of the node's app.
    fn of(fleet: &Fleet) -> Self {
        let pids = marked(&fleet.marker(0));
        assert_eq!(pids.len(), 1, "one app process, not {pids:?}");
        let stat = fs::read_to_string(format!("/proc/{}/stat", pids[0])).expect("the app runs");
        let after_name = &stat[stat.rfind(')').expect("a name ends") + 1..];
        let started = after_name.split_whitespace().nth(19).and_then(|field| field.parse().ok());
        Self { pid: pids[0], started: started.expect("a start time") }
    }

    /// Its control group, as the machine outside sees it.
    fn cgroup(&self) -> String {
        fs::read_to_string(format!("/proc/{}/cgroup", self.pid)).expect("the app runs")
    }
}

/// One node and one coordinator, with their configurations where the units look for them.
fn prepare() -> Fleet {
    // The fleet's folder must be visible in there, where /tmp is another one. Another test of this program may have been first.
    let _ = tempfile::env::override_temp_dir(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let fleet = Fleet::prepare(&FleetOptions { members: 1, nodes: 1, ..FleetOptions::default() });
    for (from, to, old, new) in [
        ("coordinator-1.toml", "coordinator.toml", "member-1", "/var/lib/soloist-coordinator"),
        ("agent-1.toml", "agent.toml", "agent-1", "/var/lib/soloist"),
    ] {
        let text = fs::read_to_string(fleet.folder.join(from)).expect("the harness wrote it");
        let old = format!("\"{}\"", fleet.folder.join(old).display());
        assert!(text.contains(&old), "{old} is not in {text}");
        fs::write(fleet.folder.join(to), text.replace(&old, &format!("\"{new}\"")))
            .expect("a file can be written");
    }
    fleet
}

/// What the agent says of itself, once it serves again with its coordinator.
fn serving(machine: &Machine, fleet: &Fleet) -> Value {
    machine.until("the agent seeing its app serve", || {
        let status = fleet.agent_status(0)?;
        let well = status["observed"]["app"] == "serving"
            && status["registered"] == true
            && status["member"].is_u64();
        well.then_some(status)
    })
}

/// Does something to the agent's service. Whatever it is, the same app must serve all the time.
fn undisturbed(fleet: &Fleet, what: &str, act: impl FnOnce()) {
    let app = App::of(fleet);
    let load = Load::start(&fleet.apps, "/api/__health_check");
    act();
    for seen in load.stop() {
        assert!(seen.sent > 0 && seen.failed == 0, "{what}: {seen:?}");
    }
    assert_eq!(App::of(fleet), app, "{what}");
}

/// Starts both units and installs the app; the ids of its processes, as the agent sees them.
fn bring_up(machine: &Machine, fleet: &Fleet) -> Value {
    for unit in ["soloist-coordinator", "soloist-agent"] {
        let file = format!("/etc/systemd/system/{unit}.service");
        let (code, said) = machine.run(&["systemd-analyze", "verify", "--man=no", &file]);
        // It looks at the units around, too.
        assert!(code == 0 && !said.contains("soloist"), "{said}");
        machine.systemctl(&["start", unit]);
    }
    machine.until("the enrolment of the agent", || {
        let status = fleet.cli().status()?;
        status["nodes"].as_array().is_some_and(|nodes| nodes.len() == 1).then_some(())
    });
    let _ = fleet.cli().run(&["start", "--install"]).expect(0);
    serving(machine, fleet)["pids"].clone()
}

/// Restarts the agent's service, and later stops it for a while.
fn restart_and_stop(machine: &Machine, fleet: &Fleet, pids: &Value) {
    undisturbed(fleet, "systemctl restart", || {
        let old = machine.agent("MainPID");
        machine.systemctl(&["restart", "soloist-agent"]);
        assert_ne!(machine.agent("MainPID"), old);
        assert_eq!(serving(machine, fleet)["pids"], *pids);
    });
    undisturbed(fleet, "systemctl stop and start", || {
        machine.systemctl(&["stop", "soloist-agent"]);
        assert_eq!(machine.agent("ActiveState"), "inactive");
        assert_eq!(machine.agent("Result"), "success");
        assert_eq!(fleet.agent_status(0), None);
        assert_eq!(get(fleet.apps[0], "/api/__health_check").map(|(status, _)| status), Some(200));
        machine.systemctl(&["start", "soloist-agent"]);
        assert_eq!(serving(machine, fleet)["pids"], *pids);
    });
}

/// The agent, which never started this app, stops it; and nothing of it stays.
fn stop_for_good(machine: &Machine, fleet: &Fleet) {
    let _ = fleet.cli().run(&["stop"]).expect(0);
    assert_eq!(marked(&fleet.marker(0)), Vec::<u32>::new());
    machine.until("the end of the scope", || machine.scopes().is_empty().then_some(()));
    assert_eq!(machine.agent("ActiveState"), "active");
}

#[test]
fn the_app_outlives_whatever_happens_to_the_agents_service() {
    let fleet = prepare();
    let machine = Machine::boot(&fleet, "scope");
    let pids = bring_up(&machine, &fleet);

    // The app lies in a scope of its own, outside of the service.
    let scopes = machine.scopes();
    assert_eq!(scopes.len(), 1, "{scopes:?}");
    assert!(scopes[0].starts_with(&format!("soloist-app-{}-node-1-", fleet.name)), "{scopes:?}");
    assert!(App::of(&fleet).cgroup().contains(&scopes[0]), "{}", App::of(&fleet).cgroup());

    restart_and_stop(&machine, &fleet, &pids);
    undisturbed(&fleet, "SIGKILL", || {
        let old = machine.agent("MainPID");
        machine.systemctl(&["kill", "-s", "KILL", "soloist-agent"]);
        machine.until("the automatic restart", || {
            let again = machine.agent("NRestarts") == "1" && machine.agent("ActiveState") == "active";
            again.then_some(())
        });
        assert_ne!(machine.agent("MainPID"), old);
        assert_eq!(serving(&machine, &fleet)["pids"], pids);
    });
    undisturbed(&fleet, "a restart of the coordinator", || {
        machine.systemctl(&["restart", "soloist-coordinator"]);
        machine.until("the coordinator", || fleet.cli().status());
        serving(&machine, &fleet);
    });
    assert_eq!(machine.scopes(), scopes);

    stop_for_good(&machine, &fleet);
}

/// Without a scope the app lies in the service's own group, where only `KillMode=process` protects it.
#[test]
fn without_a_scope_the_app_outlives_a_stop_of_the_agents_service_too() {
    let fleet = prepare();
    let machine = Machine::boot(&fleet, "no-scope");
    let pids = bring_up(&machine, &fleet);
    assert_eq!(machine.scopes(), Vec::<String>::new());
    assert!(App::of(&fleet).cgroup().contains("/soloist-agent.service"), "{}", App::of(&fleet).cgroup());
    restart_and_stop(&machine, &fleet, &pids);
    stop_for_good(&machine, &fleet);
}
