//! Commercial plugins, fetched by NocoBase's own program from a server that the test made.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::world::{NODES, VERSION, World};

const PRO: &str = "@nocobase/plugin-sample-pro";
const GONE: &str = "@nocobase/plugin-sample-gone";

/// A server of packages; it ends with the test.
struct Packages {
    port: u16,
    /// What it has, by path.
    pages: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl Packages {
    fn start(tarball: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let about = format!(
            "{{\"dist-tags\":{{\"latest\":\"{VERSION}\"}},\"versions\":{{\"{VERSION}\":{{\"dist\":{{\"tarball\":\"http://127.0.0.1:{port}/pro.tgz\"}}}}}}}}"
        );
        let list =
            format!("{{\"data\":[\"{PRO}\"],\"meta\":{{\"commercial_plugins\":[\"{PRO}\",\"{GONE}\"]}}}}");
        let pages = BTreeMap::from([
            ("/-/verdaccio/sec/login".to_owned(), b"{\"token\":\"t\"}".to_vec()),
            ("/pro-packages".to_owned(), list.into_bytes()),
            (format!("/{PRO}"), about.into_bytes()),
            ("/pro.tgz".to_owned(), tarball),
        ]);
        let pages = Arc::new(Mutex::new(pages));
        let served = Arc::clone(&pages);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who asks and goes away has lost nothing.
                let _ = answer(stream, &served);
            }
        });
        Self { port, pages }
    }

    /// From now on it has no such page.
    fn lose(&self, path: &str) {
        self.pages.lock().expect("nobody panics with it").remove(path);
    }
}

fn answer(mut stream: TcpStream, pages: &Mutex<BTreeMap<String, Vec<u8>>>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let length = head
        .lines()
        .find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body)?;
    let path = head.split(' ').nth(1).unwrap_or_default().replace("%2F", "/");
    let page = pages.lock().expect("nobody panics with it").get(&path).cloned();
    let (status, page) = page.map_or(("404 Not Found", b"{}".to_vec()), |page| ("200 OK", page));
    let kind = if path.ends_with(".tgz") { "application/octet-stream" } else { "application/json" };
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        page.len()
    )?;
    stream.write_all(&page)
}

fn write_package(folder: &Path, name: &str, version: &str) {
    let text = format!("{{\"name\":\"{name}\",\"version\":\"{version}\",\"main\":\"index.js\"}}");
    std::fs::create_dir_all(folder).expect("the lab can be written");
    std::fs::write(folder.join("package.json"), text).expect("the lab can be written");
    std::fs::write(folder.join("index.js"), "module.exports = class {};\n").expect("the lab can be written");
}

fn version(folder: &Path) -> Option<String> {
    let text = std::fs::read_to_string(folder.join("package.json")).ok()?;
    let package: serde_json::Value = serde_json::from_str(&text).ok()?;
    package["version"].as_str().map(str::to_owned)
}

/// See the module.
pub(crate) fn fetched(world: &mut World) {
    world.ensure_whole();
    let work = world.lab.join("commercial");
    write_package(&work.join("package"), PRO, VERSION);
    let file = work.join("pro.tgz");
    let tar = Command::new("tar").arg("-czf").arg(&file).arg("-C").arg(&work).arg("package").status();
    assert!(tar.expect("tar can be run").success());
    let server = Packages::start(std::fs::read(&file).expect("it was made a moment ago"));

    // An older one lies there, and one that is not licensed any more.
    let plugins = world.lab.join("fleet/storage/plugins");
    let (pro, gone) = (plugins.join(PRO), plugins.join(GONE));
    let older = |pro: &PathBuf, gone: &PathBuf| {
        write_package(pro, PRO, "2.0.0");
        write_package(gone, GONE, "2.0.0");
    };
    older(&pro, &gone);
    world.policy("commercial_plugins = true\n");
    let before = world.app_pids(0);
    let refused = world.cli.run(&["migrate"]).expect(1);
    assert!(
        refused.stderr.contains("no licence") && refused.stderr.contains("NOCOBASE_PKG_USERNAME"),
        "{refused:?}"
    );
    assert_eq!(world.app_pids(0), before, "nothing was stopped");

    let files: Vec<PathBuf> =
        (1..=NODES).map(|node| world.lab.join(format!("nodes/node-{node}/.env"))).collect();
    let saved: Vec<String> =
        files.iter().map(|file| std::fs::read_to_string(file).expect("the node has settings")).collect();
    for (file, text) in files.iter().zip(&saved) {
        let more = format!(
            "\nNOCOBASE_PKG_URL=http://127.0.0.1:{}/\nNOCOBASE_PKG_USERNAME=a\nNOCOBASE_PKG_PASSWORD=b\n",
            server.port
        );
        std::fs::write(file, format!("{text}{more}")).expect("the lab can be written");
    }
    let told = world.cli.run(&["migrate"]).expect(0);
    assert!(told.stderr.contains(&format!("{PRO}: {VERSION}")), "{told:?}");
    assert_eq!(version(&pro).as_deref(), Some(VERSION));
    assert!(!gone.exists(), "it is not licensed");

    // It cannot be fetched: what was removed meanwhile comes back with the backup.
    older(&pro, &gone);
    server.lose("/pro.tgz");
    let failed = world.cli.run(&["migrate"]).expect(1);
    assert!(failed.stderr.contains("Download failed"), "{failed:?}");
    world.until_whole();
    assert_eq!((version(&pro).as_deref(), version(&gone).as_deref()), (Some("2.0.0"), Some("2.0.0")));

    for (file, text) in files.iter().zip(saved) {
        std::fs::write(file, text).expect("the lab can be written");
    }
    std::fs::remove_dir_all(&pro).expect("the lab can be written");
    std::fs::remove_dir_all(&gone).expect("the lab can be written");
    world.policy("");
}
