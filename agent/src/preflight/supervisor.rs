//! Second supervisors: what else on this host would start the same app.
//!
//! Looked for in files, which also tell what would happen after a reboot: systemd's enabled units, and the lists that pm2 brings
//! back. Processes that run already are found as foreign ones (see [`scan`](crate::host::scan)).

use std::fs;
use std::path::{Path, PathBuf};

use crate::host::disk::DiskReader;

/// Where enabled units are linked.
const UNIT_FOLDERS: [&str; 3] = ["etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system"];
/// What stands in a unit of Soloist's own.
const SELF: &str = "soloist-agent";
/// Programs that start an app of Node.js.
const LAUNCHERS: [&str; 7] = ["node", "npm", "npx", "pm2", "pm2-runtime", "pnpm", "yarn"];
/// Largest unit or list that is read, in bytes.
const FILE_MAX: usize = 4 * 1024 * 1024;
/// Most that are told; one is enough to be a problem.
const FOUND_MAX: usize = 8;

/// What else would start the app of this folder, in words. What cannot be read is not found.
pub(super) async fn find(disk: &DiskReader, root: &Path, app_folder: &Path) -> Vec<String> {
    let root = root.to_owned();
    let work = move |folder: PathBuf| {
        let real = folder.canonicalize().unwrap_or_else(|_| folder.clone());
        let folders = [folder.display().to_string(), real.display().to_string()];
        let mut found = units(&root, &folders);
        found.extend(pm2_lists(&root, &folders));
        found.truncate(FOUND_MAX);
        Ok(found)
    };
    disk.call(app_folder.to_owned(), work).await.unwrap_or_default()
}

/// Enabled units that name the folder. A unit is enabled if a folder `….wants` or `….requires` links to it.
fn units(root: &Path, folders: &[String; 2]) -> Vec<String> {
    let mut found = Vec::new();
    for place in UNIT_FOLDERS {
        for target in entries(&root.join(place)) {
            let ending = target.extension().and_then(|ending| ending.to_str());
            if !matches!(ending, Some("wants" | "requires")) {
                continue;
            }
            for link in entries(&target) {
                let name = link.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let text = unit_text(root, &link, &name);
                let runs = text.lines().any(|line| starts_app(line.trim(), folders));
                if runs && !text.contains(SELF) {
                    found.push(format!("the enabled systemd unit {name}"));
                }
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Whether a line of a unit works in the folder, or executes something of it. Reading in it, as a backup does, is neither.
fn starts_app(line: &str, folders: &[String; 2]) -> bool {
    let named = |text: &str| folders.iter().any(|folder| names_path(text, folder));
    if let Some(folder) = line.strip_prefix("WorkingDirectory=") {
        return named(folder);
    }
    let Some((_, command)) = line.strip_prefix("ExecStart").and_then(|rest| rest.split_once('=')) else {
        return false;
    };
    let first = command.split_whitespace().next().unwrap_or_default();
    let words = command.split(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | ';' | '&'));
    named(first) || (named(command) && words.into_iter().any(|word| LAUNCHERS.contains(&word)))
}

/// The text of an enabled unit with its overrides; of a template, with the instance's name in place.
fn unit_text(root: &Path, link: &Path, name: &str) -> String {
    let target = fs::read_link(link).map(|target| match target.strip_prefix("/") {
        Ok(inside) => root.join(inside),
        Err(_) => link.parent().unwrap_or(root).join(target),
    });
    let mut text = read(&target.unwrap_or_else(|_| link.to_owned()));
    for place in UNIT_FOLDERS {
        for file in entries(&root.join(place).join(format!("{name}.d"))) {
            text.push('\n');
            text.push_str(&read(&file));
        }
    }
    let instance = name.split_once('@').map(|(_, rest)| rest.trim_end_matches(".service"));
    instance.map_or(text.clone(), |instance| text.replace("%i", instance).replace("%I", instance))
}

/// Lists of pm2 that name the folder: pm2 starts what stands there with `pm2 resurrect`, after a reboot by itself.
fn pm2_lists(root: &Path, folders: &[String; 2]) -> Vec<String> {
    let accounts = read(&root.join("etc/passwd"));
    let mut homes: Vec<&str> = accounts.lines().filter_map(|line| line.split(':').nth(5)).collect();
    homes.sort_unstable();
    homes.dedup();
    let lists = homes.into_iter().map(|home| Path::new(home).join(".pm2/dump.pm2"));
    let named = lists.filter(|list| {
        let text = read(&root.join(list.strip_prefix("/").unwrap_or(list)));
        folders.iter().any(|folder| names_path(&text, folder))
    });
    named.map(|list| format!("pm2's saved list {}", list.display())).collect()
}

/// Whether a text names this path, or something below it.
fn names_path(text: &str, path: &str) -> bool {
    let path = path.trim_end_matches('/');
    let goes_on = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    !path.is_empty() && text.match_indices(path).any(|(at, _)| !text[at + path.len()..].starts_with(goes_on))
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn read(path: &Path) -> String {
    let mut bytes = fs::read(path).unwrap_or_default();
    bytes.truncate(FILE_MAX);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;

    struct Host(tempfile::TempDir);

    impl Host {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn enable(&self, name: &str, target: &str) {
            let folder = self.0.path().join("etc/systemd/system/multi-user.target.wants");
            fs::create_dir_all(&folder).unwrap();
            symlink(target, folder.join(name)).unwrap();
        }

        async fn found(&self) -> Vec<String> {
            let disk = DiskReader::new(Duration::from_secs(3));
            find(&disk, self.0.path(), Path::new("/srv/nocobase")).await
        }
    }

    #[tokio::test]
    async fn an_enabled_unit_that_runs_the_folder() {
        let host = Host::new();
        let unit = "[Service]\nWorkingDirectory=/srv/nocobase\nExecStart=/usr/bin/yarn start\n";
        host.write("etc/systemd/system/nocobase.service", unit);
        assert!(host.found().await.is_empty(), "it is not enabled");
        host.enable("nocobase.service", "/etc/systemd/system/nocobase.service");
        assert_eq!(host.found().await, ["the enabled systemd unit nocobase.service"]);
    }

    #[tokio::test]
    async fn what_is_not_a_second_supervisor() {
        let host = Host::new();
        for (name, text) in [
            (
                "soloist-agent.service",
                "[Service]\nExecStart=/usr/bin/soloist-agent\nWorkingDirectory=/srv/nocobase\n",
            ),
            ("other.service", "[Service]\nWorkingDirectory=/srv/nocobase-old\n"),
            (
                "backup.service",
                "[Unit]\nDescription=copies /srv/nocobase\n[Service]\nExecStart=/usr/bin/true\n",
            ),
        ] {
            host.write(&format!("usr/lib/systemd/system/{name}"), text);
            host.enable(name, &format!("/usr/lib/systemd/system/{name}"));
        }
        assert_eq!(host.found().await, Vec::<String>::new());
    }

    #[tokio::test]
    async fn templates_and_overrides() {
        let host = Host::new();
        host.write(
            "usr/lib/systemd/system/app@.service",
            "[Service]\nExecStart=/usr/bin/node /srv/%i/index.js\n",
        );
        host.enable("app@nocobase.service", "/usr/lib/systemd/system/app@.service");
        host.write("usr/lib/systemd/system/plain.service", "[Service]\nExecStart=/usr/bin/true\n");
        host.write(
            "etc/systemd/system/plain.service.d/own.conf",
            "[Service]\nExecStart=/srv/nocobase/start\n",
        );
        host.enable("plain.service", "/usr/lib/systemd/system/plain.service");
        assert_eq!(
            host.found().await,
            ["the enabled systemd unit app@nocobase.service", "the enabled systemd unit plain.service"]
        );
    }

    #[tokio::test]
    async fn lists_of_pm2() {
        let host = Host::new();
        host.write("etc/passwd", "root:x:0:0::/root:/bin/sh\nweb:x:7:7::/home/web:/bin/sh\n");
        host.write("home/web/.pm2/dump.pm2", r#"[{"name":"index","pm_cwd":"/srv/nocobase"}]"#);
        host.write("root/.pm2/dump.pm2", r#"[{"name":"index","pm_cwd":"/srv/shop"}]"#);
        assert_eq!(host.found().await, ["pm2's saved list /home/web/.pm2/dump.pm2"]);
    }
}
