//! Who opens connections to a port of this host, as the kernel's table of TCP connections tells.
//!
//! The table is read again and again: a connection that begins and ends between two looks is not seen. Whoever sends users keeps
//! connections open, or comes again.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use std::{fs, io};

use tokio::time::{Instant, sleep};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// Most addresses that are told.
const TOLD_MAX: usize = 8;
/// Established, in the kernel's words.
const ESTABLISHED: &str = "01";

/// The other end of a connection.
type Remote = (IpAddr, u16);

/// Addresses from which connections to `port` were opened in this time, other than by this process; at most eight.
///
/// # Errors
/// When the kernel's tables cannot be read.
pub(crate) async fn comers(port: u16, within: Duration) -> io::Result<BTreeSet<IpAddr>> {
    let end = Instant::now() + within;
    let known = remotes(port)?;
    let mut come = BTreeSet::new();
    while Instant::now() < end && come.len() < TOLD_MAX {
        sleep(LOOK).await;
        come.extend(remotes(port)?.difference(&known).map(|(address, _)| *address).take(TOLD_MAX));
    }
    Ok(come)
}

/// The other ends of connections to `port` that are open and not of this process.
fn remotes(port: u16) -> io::Result<BTreeSet<Remote>> {
    let before = own()?;
    let (v4, v6) = (fs::read_to_string("/proc/self/net/tcp")?, fs::read_to_string("/proc/self/net/tcp6"));
    let table: Vec<Connection> = [v4, v6.unwrap_or_default()].iter().flat_map(|text| parse(text)).collect();
    // What this process has closed or opened meanwhile.
    let own: BTreeSet<String> = before.into_iter().chain(own()?).collect();
    let mine = |entry: &&Connection| own.contains(&entry.inode);
    let mine: BTreeSet<u16> = table.iter().filter(mine).map(|entry| entry.local.1).collect();
    let to = |entry: &Connection| entry.local.1 == port && !mine.contains(&entry.remote.1);
    Ok(table.into_iter().filter(to).map(|entry| entry.remote).collect())
}

/// Numbers of this process's sockets.
fn own() -> io::Result<BTreeSet<String>> {
    let links = fs::read_dir("/proc/self/fd")?.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let number = |link: std::path::PathBuf| {
        Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    };
    Ok(links.filter_map(number).collect())
}

#[derive(Debug, PartialEq, Eq)]
struct Connection {
    local: Remote,
    remote: Remote,
    inode: String,
}

/// Established connections in a table of the kernel.
fn parse(table: &str) -> Vec<Connection> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, remote, state, _, _, _, _, _, inode, ..] = fields.as_slice() else { return None };
        let connection = Connection { local: end(local)?, remote: end(remote)?, inode: (*inode).to_owned() };
        (*state == ESTABLISHED).then_some(connection)
    };
    table.lines().skip(1).filter_map(line).collect()
}

/// An end of a connection: an address in hexadecimal words as the processor keeps them, and a port.
fn end(text: &str) -> Option<Remote> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok();
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?.to_ne_bytes())),
        _ => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let mut bytes = [0; 16];
            bytes.chunks_mut(4).zip(words).for_each(|(to, word)| to.copy_from_slice(&word.to_ne_bytes()));
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        }
    };
    Some((ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use tokio::net::{TcpListener, TcpStream};
    use tokio::process::Command;

    use super::*;

    #[test]
    fn what_the_kernel_writes() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n   \
                     1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0\n";
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let expected = Connection { local: (local, 8080), remote: (local, 50000), inode: "4711".into() };
        assert_eq!(parse(table), [expected], "one that listens has no other end");
        let mapped = end("0000000000000000FFFF00000100007F:0050");
        assert_eq!(mapped, Some((local, 80)));
        assert_eq!(end("nothing"), None);
    }

    #[tokio::test]
    async fn others_are_seen_and_this_process_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let port = address.port();
        let long = Duration::from_secs(30);
        let short = Duration::from_millis(400);
        let own = async {
            sleep(LOOK).await;
            TcpStream::connect(address).await.unwrap()
        };
        let (come, _kept) = tokio::join!(comers(port, short), own);
        assert_eq!(come.unwrap(), BTreeSet::new());
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; read -t 30 -u 3");
        let other = async {
            sleep(LOOK).await;
            let mut bash = Command::new("bash");
            bash.args(["-c", &script]).stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap()
        };
        let watch = tokio::time::timeout(long, async {
            loop {
                let come = comers(port, Duration::from_secs(1)).await.unwrap();
                if !come.is_empty() {
                    return come;
                }
            }
        });
        let (watched, _child) = tokio::join!(watch, other);
        assert_eq!(watched.unwrap(), BTreeSet::from([IpAddr::V4(Ipv4Addr::LOCALHOST)]));
    }
}
