//! HAProxy with `deploy`'s configuration.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::process::Signal;

use super::balancer::{Behind, Place, servers};
use super::proxy::{Group, changed, deploy, program};
use super::until;

/// Writes its configuration. Gives what stands in its agent's table `[balancer]`.
pub(super) fn configure(place: &Place, behind: &Behind) -> String {
    let mut lines = behind.nodes.iter().enumerate().map(|(at, (app, agent))| {
        let number = at + 1;
        format!("server app{number} 127.0.0.1:{app} cookie app{number} port {agent}")
    });
    let first = lines.next().expect("a fleet has a node");
    let others = lines.collect::<Vec<_>>().join("\n    ");
    let text = changed(
        "haproxy/haproxy.cfg",
        &[
            ("bind :80", &format!("bind 127.0.0.1:{}", place.port)),
            ("server app1 10.0.0.1:13000 cookie app1 port 7411", &first),
            ("server app2 10.0.0.2:13000 cookie app2 port 7411", &others),
            ("127.0.0.1:7410", &format!("127.0.0.1:{}", place.page)),
            (
                "/run/haproxy/admin.sock mode 660 group haproxy",
                &format!("{} mode 660", place.path("admin.sock")),
            ),
            ("/var/lib/haproxy/soloist.state", &place.path("soloist.state")),
            (
                "/usr/share/soloist/maintenance.http",
                &deploy("maintenance/maintenance.http").display().to_string(),
            ),
            // Only root can change these.
            ("    chroot /var/lib/haproxy\n    user haproxy\n    group haproxy\n", ""),
        ],
    );
    fs::write(place.file("haproxy.cfg"), text).expect("a configuration can be written");
    format!(
        "kind = \"haproxy\"\nsocket = \"{}\"\nworkers = \"{}\"\nbackends = [\"nocobase\"]\nservers = {}\nstate_file = \"{}\"\n",
        place.path("admin.sock"),
        place.path("workers.sock"),
        servers(behind, |number, _| format!("app{number}")),
        place.path("soloist.state"),
    )
}

/// Starts it as a service does: one process that starts workers.
pub(super) fn start(place: &Place) -> Group {
    let (workers, config) = (place.path("workers.sock"), place.path("haproxy.cfg"));
    let args = ["-W", "-S", &*workers, "-f", &*config];
    Group::start(&program("haproxy"), &args, &place.file("haproxy.log"))
}

/// Reloads it as a service does, until another worker answers.
pub(super) fn reload(place: &Place, group: &Group) {
    let before = worker(place);
    group.signal(Signal::USR2);
    let changed = || worker(place).filter(|now| Some(now) != before.as_ref());
    until("a reload of HAProxy", Duration::from_secs(10), || group.daemon.log(), changed);
}

/// Process id of the worker that answers at its management socket.
fn worker(place: &Place) -> Option<u32> {
    let mut stream = UnixStream::connect(place.file("admin.sock")).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(b"show info\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pid: ")?.parse().ok())
}
