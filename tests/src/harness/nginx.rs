//! nginx with `deploy`'s configuration.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use super::balancer::{Behind, Place, servers};
use super::proxy::{Group, changed, deploy, program};
use super::until;

/// The file that its agent writes, in nginx's folder.
const INCLUDE: &str = "soloist/nocobase.conf";

/// Writes `nginx.conf` and the site's file into a folder. The agent's file goes into `soloist` below it.
///
/// # Panics
/// When the folder cannot be written.
pub fn write(folder: &Path, port: u16) {
    let path = |name: &str| folder.join(name).display().to_string();
    fs::create_dir_all(path("soloist")).expect("a folder can be made");
    // The workers need not be able to enter the test's folder.
    let user = if rustix::process::getuid().is_root() { "user root;" } else { "" };
    let text = changed(
        "nginx/nginx.conf",
        &[
            ("user www-data;", user),
            ("worker_processes auto;", "worker_processes 2;"),
            ("/run/nginx.pid", &path("nginx.pid")),
            ("/var/log/nginx/error.log", &path("error.log")),
            ("/var/log/nginx/access.log", &path("access.log")),
            ("    include /etc/nginx/soloist/*.conf;", &format!("    include {};", path("soloist/*.conf"))),
            (
                "include /etc/nginx/nginx-soloist.conf;",
                &format!("include {};\n{}", path("site.conf"), temporary(folder)),
            ),
        ],
    );
    fs::write(path("nginx.conf"), text).expect("a configuration can be written");
    let site = changed(
        "nginx/nginx-soloist.conf",
        &[
            ("    listen 80;", &format!("    listen 127.0.0.1:{port};")),
            (
                "/usr/share/soloist/maintenance.html",
                &deploy("maintenance/maintenance.html").display().to_string(),
            ),
        ],
    );
    fs::write(path("site.conf"), site).expect("a configuration can be written");
}

/// How nginx is called with what lies in the folder, and with more arguments.
#[must_use]
pub fn call(folder: &Path, more: &[&str]) -> Vec<String> {
    let path = |name: &str| folder.join(name).display().to_string();
    let program = program("nginx").display().to_string();
    let own = [program, "-e".into(), path("error.log"), "-c".into(), path("nginx.conf")];
    own.into_iter().chain(more.iter().map(|arg| (*arg).to_owned())).collect()
}

/// Starts nginx with what lies in the folder.
///
/// # Panics
/// When it cannot be started.
#[must_use]
pub fn launch(folder: &Path) -> Group {
    let args = call(folder, &["-g", "daemon off;"]);
    let args: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    Group::start(&program("nginx"), &args, &folder.join("nginx.log"))
}

/// Folders for bodies that are too large for the memory, where an account without rights may write.
fn temporary(folder: &Path) -> String {
    let folder = folder.display();
    ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("    {kind}_temp_path {folder}/{kind};\n"))
        .collect()
}

/// Writes its configuration. Gives what stands in its agent's table `[balancer]`.
pub(super) fn configure(place: &Place, behind: &Behind) -> String {
    write(place.folder(), place.port);
    // One of an earlier run names ports of that run.
    let _ = fs::remove_file(place.file(INCLUDE));
    let list = |more: &[&str]| {
        let call = call(place.folder(), more);
        format!("[{}]", call.iter().map(|arg| format!("\"{arg}\"")).collect::<Vec<_>>().join(", "))
    };
    format!(
        "kind = \"nginx\"\nupstream = \"nocobase\"\ninclude = \"{}\"\nservers = {}\noptions = [\"ip_hash\", \"keepalive 16\"]\n\
         page = \"127.0.0.1:{}\"\nstatus = \"127.0.0.1:{}\"\ntest = {}\nreload = {}\npid_file = \"{}\"\n",
        place.path(INCLUDE),
        servers(behind, |_, app| format!("127.0.0.1:{app}")),
        place.page,
        place.status,
        list(&["-t"]),
        list(&["-s", "reload"]),
        place.path("nginx.pid"),
    )
}

/// Starts it when its agent has written the file that it needs.
pub(super) fn start(place: &Place, agent: impl Fn() -> String) -> Group {
    let written = || place.file(INCLUDE).exists().then_some(());
    until("the agent's file for nginx", Duration::from_secs(20), agent, written);
    launch(place.folder())
}

/// Reloads it as a service does, until it has a worker that it did not have before.
pub(super) fn reload(group: &Group) {
    let before = children(group);
    group.signal(Signal::HUP);
    let another = || (!children(group).is_subset(&before)).then_some(());
    until("a reload of nginx", Duration::from_secs(10), || group.daemon.log(), another);
}

/// Process ids of the children of its first process.
fn children(group: &Group) -> BTreeSet<u32> {
    let pid = group.daemon.pid();
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
