//! The life of one disk: a member writes to it, the power goes off, and what is left is opened again, many times over.

use std::{
    env,
    io::{BufRead, BufReader, Read},
    ops::AddAssign,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::{
    disk::Disk,
    event::Event,
    mount::{Machine, Mounted},
    promises::Promises,
};

/// Which folder a member's process writes to, and the seed of what it writes.
pub(crate) const FOLDER: &str = "SOLOIST_POWER_FOLDER";
pub(crate) const SEED: &str = "SOLOIST_POWER_MEMBER";

/// The test that is a member's process.
const MEMBER: &str = "member_in_a_process_of_its_own";

/// How long a member may say nothing while the power is on.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How long a member may take to end after the power went off. Its disk is gone; what hangs is ended.
const ENDING_MAX: Duration = Duration::from_secs(5);

/// How often it is looked whether the power is off.
const LOOK: Duration = Duration::from_millis(200);

/// What became of many cuts.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    /// Cuts, and those of them that came while the folder was being opened.
    pub(crate) cuts: u64,
    pub(crate) while_opening: u64,
    /// How often a member opened what a cut had left, and how often what the end of its process alone had left.
    pub(crate) reopened: u64,
    pub(crate) restarted: u64,
    /// Operations of the file system.
    pub(crate) operations: u64,
    /// Refusals, losses, and whatever is neither of these nor a member that works, with their seeds.
    pub(crate) refused: Vec<String>,
    pub(crate) lost: Vec<String>,
    pub(crate) broken: Vec<String>,
}

impl Summary {
    /// Whether all cuts went well.
    pub(crate) fn is_good(&self) -> bool {
        self.refused.is_empty() && self.lost.is_empty() && self.broken.is_empty()
    }

    fn failures(&self) -> usize {
        self.refused.len() + self.lost.len() + self.broken.len()
    }
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Summary) {
        self.cuts += other.cuts;
        self.while_opening += other.while_opening;
        self.reopened += other.reopened;
        self.restarted += other.restarted;
        self.operations += other.operations;
        self.refused.extend(other.refused);
        self.lost.extend(other.lost);
        self.broken.extend(other.broken);
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{} cuts ({} while a folder was opened), {} operations: {} reopened, {} refused, {} lost, {} broken; {} restarts \
             without a cut",
            self.cuts,
            self.while_opening,
            self.operations,
            self.reopened,
            self.refused.len(),
            self.lost.len(),
            self.broken.len(),
            self.restarted
        )?;
        for (what, list) in [("refused", &self.refused), ("lost", &self.lost), ("broken", &self.broken)] {
            for text in list {
                writeln!(f, "{what}: {text}")?;
            }
        }
        Ok(())
    }
}

/// Cuts the power of one member this often, or until something goes wrong.
pub(crate) fn live(seed: u64, cuts: u64, lies: bool) -> Summary {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut promises = Promises::default();
    let mut summary = Summary::default();
    let mut disk = Disk::new();
    let mut before = "a new disk".to_owned();
    let mut to_open = 50;
    while summary.failures() == 0 {
        let number = summary.cuts;
        let last = number == cuts;
        let folder = tempfile::tempdir().unwrap();
        let mounted = Mounted::new(Machine::new(disk, lies), folder.path());
        let while_opening = !last && rng.random_bool(0.3);
        if while_opening {
            mounted.cut_in(rng.random_range(1..=to_open));
        }
        let mut opened = 0;
        let end = loop {
            let patience =
                if last { Some(0) } else { rng.random_bool(0.2).then(|| rng.random_range(1..200)) };
            let mut process = Process::start(&folder.path().join("data"), rng.random());
            let first = opened == 0;
            let working = operations_of_work(&mut rng);
            let when_open = || {
                if first && !last && !while_opening {
                    to_open = mounted.operations();
                    mounted.cut_in(working);
                }
            };
            match process.listen(&mounted, &mut promises, patience, when_open) {
                End::Killed if !last => opened += 1,
                end => break end,
            }
        };
        let operations = mounted.operations();
        summary.operations += operations;
        let cut = mounted.is_cut();
        disk = mounted.into_disk();
        let at = format!("seed {seed}, after cut {number} with {before}");
        match end {
            End::Lost(text) => summary.lost.push(format!("{at}: {text}")),
            End::Killed => {}
            End::Ended { opened: now, .. } if cut => {
                opened += u64::from(now);
                summary.while_opening += u64::from(opened == 0);
            }
            End::Ended { refused: Some(text), .. } => summary.refused.push(format!("{at}: {text}")),
            End::Ended { words, .. } => summary.broken.push(format!("{at}: {words}")),
        }
        summary.reopened += u64::from(number > 0 && (opened > 0 || last));
        summary.restarted += opened.saturating_sub(1);
        if last {
            break;
        }
        summary.cuts += u64::from(cut);
        let loss;
        (disk, loss) = disk.after_a_cut(&mut rng);
        before = format!("{loss:?} of {operations} operations");
    }
    summary
}

/// After how many operations of work the power goes off.
fn operations_of_work(rng: &mut SmallRng) -> u64 {
    match rng.random_range(0..5) {
        0 => rng.random_range(1..20),
        1..4 => rng.random_range(20..400),
        _ => rng.random_range(400..1500),
    }
}

/// How a member's process ended.
enum End {
    /// By itself: whether the folder was open, the words with which it was refused, and all its last words.
    Ended { opened: bool, refused: Option<String>, words: String },
    /// Here.
    Killed,
    /// Something is missing.
    Lost(String),
}

/// A member's process. It is killed when this goes.
struct Process {
    child: Child,
}

impl Process {
    fn start(folder: &Path, seed: u64) -> Process {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", MEMBER, "--nocapture"])
            .env(FOLDER, folder)
            .env(SEED, seed.to_string())
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Process { child }
    }

    /// Hears what it tells until it ends. It is killed after this many more events once the folder is open.
    fn listen(
        &mut self,
        mounted: &Mounted,
        promises: &mut Promises,
        patience: Option<usize>,
        when_open: impl FnOnce(),
    ) -> End {
        let (out, errors) = (self.child.stdout.take().unwrap(), self.child.stderr.take().unwrap());
        let (told, events) = mpsc::sync_channel(1024);
        let reader = thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let Some(event) = Event::heard(&line)
                    && told.send(event).is_err()
                {
                    return;
                }
            }
        });
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            BufReader::new(errors).read_to_string(&mut text).map(|_| text).unwrap_or_default()
        });
        let mut end = self.follow(&events, mounted, promises, patience, when_open);
        self.end();
        // What it told until then was acknowledged until then.
        for event in events {
            if let Err(text) = promises.hear(&event) {
                end = End::Lost(text);
            }
        }
        drop(reader.join());
        let said = stderr.join().unwrap_or_default();
        if let End::Ended { words, .. } = &mut end {
            *words += &said;
        }
        end
    }

    fn follow(
        &mut self,
        events: &mpsc::Receiver<Event>,
        mounted: &Mounted,
        promises: &mut Promises,
        mut patience: Option<usize>,
        when_open: impl FnOnce(),
    ) -> End {
        let mut when_open = Some(when_open);
        let (mut opened, mut refused, mut words) = (false, None, String::new());
        let mut silence = Duration::ZERO;
        loop {
            match events.recv_timeout(LOOK) {
                Ok(event) => {
                    silence = Duration::ZERO;
                    if let Err(text) = promises.hear(&event) {
                        return End::Lost(text);
                    }
                    match event {
                        Event::Opened(_) => {
                            opened = true;
                            when_open.take().into_iter().for_each(|when_open| when_open());
                        }
                        Event::Refused(text) => refused = Some(text),
                        Event::Failed(text) => words += &text,
                        Event::Began(_) | Event::Acknowledged(_) => {}
                    }
                    match &mut patience {
                        Some(0) if opened => return End::Killed,
                        Some(more) if opened => *more -= 1,
                        _ => {}
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    silence += LOOK;
                    if silence >= if mounted.is_cut() { ENDING_MAX } else { SILENCE_MAX } {
                        words += &format!("it said nothing for {} s. ", silence.as_secs());
                        break;
                    }
                }
            }
        }
        End::Ended { opened, refused, words }
    }

    fn end(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
