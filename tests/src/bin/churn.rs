//! Many agents come, report and go at one real cluster of three members, and each member's memory and disk is watched.
//!
//! ```text
//! cargo build --release && cargo run --release -p soloist-tests --bin churn -- --agents 1000 --minutes 60
//! ```
//!
//! The agents are the wire protocol without a host: each says who it is, beats, reports a state that changes, and now and then its
//! connection is cut and it comes back at another member. At the end it says whether the last quarter has grown over the second. It is
//! the median of a quarter that is compared: what grows without a bound lifts it, and a log that was looked at just before its compaction
//! does not. The most of all is printed beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use rand::Rng as _;
use soloist_core::assignment::{AppState, Observed};
use soloist_core::ids::{Generation, Version};
use soloist_proto::v1::agent_service_client::AgentServiceClient;
use soloist_proto::v1::coordinator_message::Message;
use soloist_proto::v1::{AgentMessage, Beat, Hello, Registration, agent_message};
use soloist_tests::harness::{Daemon, bin, free_ports};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// Nodes of one fleet; a fleet takes 32 at most.
const NODES: usize = 25;
/// Between two beats, as agents do.
const BEAT: Duration = Duration::from_secs(1);
/// How long an agent waits before it comes back.
const BACK: Duration = Duration::from_millis(500);
/// By how much the last quarter of a run may lie above the second, in percent, and still count as bounded.
const GROWTH_PERCENT: u64 = 15;

#[derive(Parser)]
#[command(about = "Many agents at one cluster, and what that takes of memory and disk")]
struct Args {
    /// How many agents.
    #[arg(long, default_value_t = 1000)]
    agents: usize,
    /// For how long.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Between two reports of one agent, on average, in seconds.
    #[arg(long, default_value_t = 5.0)]
    report: f64,
    /// Between two reconnections of one agent, on average, in seconds.
    #[arg(long, default_value_t = 60.0)]
    reconnect: f64,
    /// Between two lines, in seconds.
    #[arg(long, default_value_t = 15)]
    every: u64,
}

#[derive(Default)]
struct Counts {
    sessions: AtomicU64,
    acknowledged: AtomicU64,
    reconnected: AtomicU64,
}

/// What a member takes at a moment.
#[derive(Clone, Copy, Default)]
struct Sample {
    resident_kib: u64,
    log_kib: u64,
    snapshots_kib: u64,
    archive_kib: u64,
}

impl Sample {
    fn disk(self) -> u64 {
        self.log_kib + self.snapshots_kib + self.archive_kib
    }
}

#[expect(clippy::print_stdout, reason = "a command line program")]
fn main() -> ExitCode {
    let args = Args::parse();
    let temp = tempfile::tempdir().expect("a temporary folder");
    let ports = free_ports(3);
    let members: Vec<Daemon> = (1..=3).map(|id| member(id, &ports, temp.path())).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let counts = Arc::new(Counts::default());
    let args = Arc::new(args);
    for number in 0..args.agents {
        runtime.spawn(agent(number, ports.clone(), args.clone(), counts.clone()));
    }
    println!(
        "{:>7} {:>8} {:>8} {:>7}   member: resident MiB, log, snapshots, archive KiB",
        "seconds", "sessions", "reports", "again"
    );
    let began = Instant::now();
    let length = Duration::from_secs_f64(args.minutes * 60.0);
    let mut samples = Vec::new();
    while began.elapsed() < length {
        std::thread::sleep(Duration::from_secs(args.every).min(length));
        let now: Vec<Sample> = members
            .iter()
            .zip(1..)
            .map(|(member, id)| sample(member.pid(), &folder(temp.path(), id)))
            .collect();
        let each = now.iter().map(|one| {
            format!(
                "{:.1}, {}, {}, {}",
                one.resident_kib as f64 / 1024.0,
                one.log_kib,
                one.snapshots_kib,
                one.archive_kib
            )
        });
        println!(
            "{:>7} {:>8} {:>8} {:>7}   {}",
            began.elapsed().as_secs(),
            counts.sessions.load(Ordering::Relaxed),
            counts.acknowledged.load(Ordering::Relaxed),
            counts.reconnected.load(Ordering::Relaxed),
            each.collect::<Vec<_>>().join("   ")
        );
        samples.push(now);
    }
    runtime.shutdown_background();
    let mut bounded = true;
    for id in 0..3 {
        let of = |what: fn(Sample) -> u64| {
            samples.iter().filter_map(|now| now.get(id).copied()).map(what).collect::<Vec<u64>>()
        };
        for (name, values) in [("resident", of(|one| one.resident_kib)), ("disk", of(Sample::disk))] {
            let (before, after) = quarters(&values);
            let grows = grows(before, after);
            bounded &= !grows;
            let verdict = if grows { "GROWS" } else { "bounded" };
            let most = values.iter().max().copied().unwrap_or(0);
            println!(
                "member {} {name}: median of the second and the last quarter {before} and {after} KiB, most of all {most} KiB: {verdict}",
                id + 1
            );
        }
    }
    if bounded { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The median of the second quarter, when all caches and files have been filled once, and of the last.
fn quarters(values: &[u64]) -> (u64, u64) {
    let quarter = (values.len() / 4).max(1);
    let median = |part: &[u64]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part.get(part.len() / 2).copied().unwrap_or(0)
    };
    let second = values.get(quarter..2 * quarter).unwrap_or(values);
    (median(second), median(&values[values.len().saturating_sub(quarter)..]))
}

fn grows(before: u64, after: u64) -> bool {
    after * 100 > before * (100 + GROWTH_PERCENT)
}

fn folder(temp: &Path, id: usize) -> PathBuf {
    temp.join(format!("member-{id}"))
}

fn member(id: usize, ports: &[u16], temp: &Path) -> Daemon {
    let data = folder(temp, id);
    let mut flags: Vec<String> =
        ["--id", &id.to_string(), "--http", "none", "--log", "warn,openraft=error", "--cluster", "churn"]
            .map(ToOwned::to_owned)
            .to_vec();
    flags.extend(["--data".to_owned(), data.display().to_string()]);
    for (number, port) in (1..).zip(ports) {
        if number == id {
            flags.extend(["--listen".to_owned(), format!("127.0.0.1:{port}")]);
        }
        flags.extend(["--member".to_owned(), format!("{number}=127.0.0.1:{port}")]);
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    Daemon::start(&bin("soloist-coordinator"), &flags, &temp.join(format!("member-{id}.log")))
}

fn sample(pid: u32, folder: &Path) -> Sample {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let resident =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    Sample {
        resident_kib: resident.unwrap_or(0),
        log_kib: size(&folder.join("log.redb")) / 1024,
        snapshots_kib: size(&folder.join("snapshots")) / 1024,
        archive_kib: size(&folder.join("archive")) / 1024,
    }
}

/// Size of a file, or of all files in a folder, in bytes.
fn size(path: &Path) -> u64 {
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| size(&entry.path())).sum(),
        Err(_) => fs::metadata(path).map_or(0, |file| file.len()),
    }
}

/// One agent: session after session, at one member after the other.
async fn agent(number: usize, ports: Vec<u16>, args: Arc<Args>, counts: Arc<Counts>) {
    let incarnation = rand::rng().random();
    let mut sequence = 0;
    for session in 0_usize.. {
        let port = ports[(number + session) % ports.len()];
        let length = around(args.reconnect);
        // Its end by time is the cut connection.
        let _ = timeout(length, talk(number, incarnation, port, &mut sequence, &args, &counts)).await;
        counts.reconnected.fetch_add(1, Ordering::Relaxed);
        sleep(BACK).await;
    }
}

fn around(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds * rand::rng().random_range(0.5..1.5))
}

/// Counts a session for as long as it is open.
struct Open<'a>(&'a Counts);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn talk(
    number: usize,
    incarnation: u64,
    port: u16,
    sequence: &mut u64,
    args: &Args,
    counts: &Counts,
) -> Option<()> {
    let channel = Channel::from_shared(format!("http://127.0.0.1:{port}")).ok()?.connect().await.ok()?;
    let (to, messages) = mpsc::channel::<AgentMessage>(8);
    let hello = Hello {
        cluster: String::new(),
        fleet: format!("fleet-{}", number / NODES),
        node: format!("node-{}", number % NODES),
        registration: Some(Registration {
            incarnation,
            lineage: vec![incarnation],
            machine: format!("machine-{number}"),
            boot: format!("boot-{number}"),
            ..Registration::default()
        }),
        version: "churn".to_owned(),
    };
    to.send(agent_message::Message::Hello(hello).into()).await.ok()?;
    let mut from =
        AgentServiceClient::new(channel).session(ReceiverStream::new(messages)).await.ok()?.into_inner();
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reports = interval(around(args.report));
    reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut open, mut applied) = (None, 0);
    loop {
        // Cancel-safe: a stream and intervals lose nothing when another arm wins.
        tokio::select! {
            message = from.message() => match message.ok()??.message? {
                Message::Registered(_) => {
                    counts.sessions.fetch_add(1, Ordering::Relaxed);
                    open = Some(Open(counts));
                }
                Message::Assignment(assignment) => applied = assignment.generation,
                Message::ReportAck(_) => drop(counts.acknowledged.fetch_add(1, Ordering::Relaxed)),
                Message::Contact(_) | Message::Clock(_) | Message::EvidenceAck(_) => {}
                Message::Refused(_) => return None,
            },
            _ = beats.tick(), if open.is_some() => to.send(Beat::default().into()).await.ok()?,
            _ = reports.tick(), if open.is_some() => {
                *sequence += 1;
                let observed = Observed {
                    applied: Generation(applied),
                    app: AppState::Stopped,
                    code: Some(Version(format!("2.2.{}", *sequence % 50))),
                    ..Observed::default()
                };
                to.send(AgentMessage::report(*sequence, observed)).await.ok()?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(at: impl Fn(u64) -> u64) -> bool {
        let (before, after) = quarters(&(0..240).map(at).collect::<Vec<_>>());
        grows(before, after)
    }

    #[test]
    fn what_grows_on_and_on_is_told_from_what_comes_back() {
        assert!(judged(|at| 1000 + 2 * at), "a leak");
        assert!(judged(|at| if at < 180 { 1000 } else { 1200 }), "a jump that stays");
        assert!(!judged(|at| if at < 20 { 50 * at } else { 1000 }), "what is filled once");
        assert!(!judged(|at| 1000 + 40 * (at % 20)), "a log and its compaction");
        assert!(!judged(|at| if at == 230 { 5000 } else { 1000 }), "one peak");
    }
}
