//! What the agents' records prove, and what they do not.

use std::collections::BTreeMap;

use super::*;
use crate::ids::{Generation, Launch};

/// The agents' clocks are all so far behind the coordinators', in milliseconds.
const AHEAD: i64 = 1_000_000;
/// The grant, and its end, by the coordinators' clock.
const GRANTED: u64 = 1_010_000;
const UNTIL: u64 = 1_020_000;

pub(super) fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

pub(super) fn case() -> Case {
    let mark = |index, wall_ms| Mark { index, wall_ms };
    let nodes =
        BTreeMap::from([(node("node-1"), Stood::Solo), (node("node-2"), Stood::Stopped(Generation(40)))]);
    Case {
        fleet: FleetId::new("shop").unwrap(),
        operation: OperationId::new("op").unwrap(),
        request: "plugin enable".into(),
        token: Token(35),
        solo: Some(node("node-1")),
        holder: false,
        grants: vec![Grant { granted: mark(50, GRANTED), until: Some(mark(60, UNTIL)), nodes }],
    }
}

/// A chain as an agent writes it, with its number as the hash.
#[derive(Clone)]
pub(super) struct Book(pub(super) NodeId, pub(super) Vec<Record>);

impl Book {
    pub(super) fn new(name: &str) -> Book {
        Book(node(name), Vec::new())
    }

    pub(super) fn at(mut self, boot_ms: u64, fact: Fact) -> Book {
        let seq = self.1.len() as u64 + 1;
        self.1.push(Record {
            node: self.0.clone(),
            chain: 1,
            seq,
            prev: if seq == 1 { String::new() } else { (seq - 1).to_string() },
            boot: BootId("boot".into()),
            at: Moment { boot_ms, wall_ms: boot_ms },
            fact,
            hash: seq.to_string(),
        });
        self
    }

    pub(super) fn resting(self, boot_ms: u64, generation: u64) -> Book {
        self.at(boot_ms, Fact::Resting { generation: Generation(generation) })
    }

    fn launched(self, boot_ms: u64, generation: u64) -> Book {
        let (launch, generation) = (Launch(generation), Generation(generation));
        self.at(boot_ms, Fact::Launching(Launching { launch, generation, token: None }))
    }

    pub(super) fn ran(self, boot_ms: u64, generation: u64) -> Book {
        let run = run(boot_ms, generation);
        self.launched(boot_ms, generation).at(boot_ms, Fact::Began(run))
    }

    pub(super) fn ended(self, boot_ms: u64, launch: u64) -> Book {
        let ended = Ended {
            launch: Some(Launch(launch)),
            pid: 7,
            boot: BootId("boot".into()),
            not_before_ms: boot_ms,
            not_after_ms: Some(boot_ms),
            known_by: KnownBy::Keeper,
        };
        self.at(boot_ms, Fact::Ended(ended))
    }

    pub(super) fn watched(self, from: u64, to: u64, change: impl FnOnce(&mut Gather)) -> Book {
        let mut gather = Gather::new(OperationId::new("op").unwrap(), Token(35), 50, 1000);
        for at in (from..=to).step_by(500) {
            gather.look(at, &[]);
            gather.sample(at, Ok(sessions(&[("soloist-node-1", 4), ("soloist-agent-node-2", 1)])));
        }
        gather.read(Reading { lo_ms: AHEAD - 5, hi_ms: AHEAD + 5 });
        change(&mut gather);
        self.at(to, Fact::Watched(Box::new(gather.take().unwrap())))
    }
}

fn run(boot_ms: u64, generation: u64) -> Run {
    Run {
        launch: Some(Launch(generation)),
        generation: Some(Generation(generation)),
        token: None,
        pid: 7,
        start_ticks: boot_ms / 10,
        began_ms: boot_ms,
    }
}

fn sessions(names: &[(&str, u32)]) -> Sessions {
    let names = names.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    Sessions { login: "noco".into(), naming: Naming::Application, names }
}

fn solo() -> Book {
    Book::new("node-1").ran(1_000, 20).watched(10_010, 20_020, |_| {})
}

fn stopped() -> Book {
    stopped_and(|book| book)
}

/// A stopped node on which something else was recorded before its watch.
fn stopped_and(more: impl FnOnce(Book) -> Book) -> Book {
    let book = Book::new("node-2").ran(1_000, 20).ended(9_000, 20).resting(9_010, 40);
    more(book).watched(10_010, 20_020, |_| {})
}

fn back(book: Book) -> Book {
    book.ran(20_100, 60)
}

fn proof(books: &[Book]) -> Proof {
    proof_of(&case(), books)
}

pub(super) fn proof_of(case: &Case, books: &[Book]) -> Proof {
    let chains = books.iter().map(|book| (book.0.clone(), book.1.clone())).collect();
    prove(case, &chains)
}

pub(super) fn text(proof: &Proof) -> String {
    proof.lines(|ms| format!("{}.{:03}", ms / 1000, ms % 1000)).join("\n")
}

#[test]
fn one_that_ran_alone_is_proven_in_a_sentence() {
    let proof = proof(&[solo(), back(stopped())]);
    assert_eq!(
        text(&proof),
        "from 1010.000 to 1020.000 only node-1 ran, only node-1 was connected (20 samples, every 1 s; longest gap 0.5 s); \
         processes: 20 looks, longest gap 0.5 s; clocks to within 5 ms"
    );
    assert_eq!(proof.verdict, Verdict::Proven);
    let mut open = case();
    open.grants[0].until = None;
    assert_eq!(proof_of(&open, &[solo(), stopped()]).verdict, Verdict::SoFar);
}

#[test]
fn a_tree_beside_the_solo_node_breaks_it_whenever_it_is_not_shown_to_be_later() {
    let with = |more: fn(Book) -> Book| proof(&[solo(), back(stopped_and(more))]);
    let ran = with(|book| book.ran(15_000, 41).ended(16_000, 41));
    assert_eq!(ran.verdict, Verdict::Broken);
    let expected =
        "BROKEN: node-2: process 7 of its app ran, launched by generation 41, from 1014.995 to 1016.005";
    assert!(text(&ran).contains(expected), "{}", text(&ran));
    // A launch is as good as a run until it is known that nothing came of it.
    let launched = with(|book| book.launched(15_000, 41));
    assert_eq!(launched.verdict, Verdict::Unproven);
    assert!(text(&launched).contains("what came of its launch 41 is not recorded"), "{}", text(&launched));
    let undone = with(|book| book.launched(15_000, 41).at(15_001, Fact::Unlaunched { launch: Launch(41) }));
    assert_eq!(undone.verdict, Verdict::Proven);
    // By hand, long after the end and without a new generation: a clock is enough.
    assert_eq!(proof(&[solo(), stopped().ran(25_000, 41)]).verdict, Verdict::Proven);
    // So close to the end that no clock can tell.
    assert_eq!(with(|book| book.ran(20_004, 41)).verdict, Verdict::Broken);
}

#[test]
fn what_is_not_recorded_is_not_claimed() {
    let none = proof(&[solo()]);
    assert_eq!(none.verdict, Verdict::Unproven);
    assert!(
        text(&none).contains("not proven: node-2: no record; it was proven stopped (generation 40)"),
        "{}",
        text(&none)
    );
    let mut early = stopped();
    early.1.truncate(4);
    let early = proof(&[solo(), early]);
    assert!(
        text(&early).contains("node-2: no record; it was proven stopped (generation 40) before, from"),
        "{}",
        text(&early)
    );
    assert!(text(&early).contains("node-2: was not watched"), "{}", text(&early));
    let mut hole = back(stopped());
    hole.1.remove(4);
    let hole = proof(&[solo(), hole]);
    assert!(text(&hole).contains("its record has a hole between 4 and 6"), "{}", text(&hole));
    assert_eq!(hole.verdict, Verdict::Unproven);
    let mut late = back(stopped());
    late.1.drain(..4);
    assert!(text(&proof(&[solo(), late])).contains("does not go back to its stop"));
    let paused = stopped()
        .1
        .drain(..4)
        .fold(Book::new("node-2"), |book, record| book.at(record.at.boot_ms, record.fact));
    let paused = paused.watched(10_010, 12_000, |_| {}).watched(19_000, 20_020, |_| {});
    let paused = proof(&[solo(), back(paused)]);
    assert!(text(&paused).contains("node-2: was not watched for 7490 ms"), "{}", text(&paused));
}

#[test]
fn a_foreign_process_and_a_strangers_session_break_it_and_are_named() {
    let foreign = Foreign { pid: 99, owner: "root".into(), command: "node index.js start".into() };
    let with = |at: u64| {
        let foreign = foreign.clone();
        let book = Book::new("node-1").ran(1_000, 20);
        book.watched(10_010, 20_020, move |gather| gather.look(at, &[foreign]))
    };
    let found = proof(&[with(20_000), back(stopped())]);
    assert_eq!(found.verdict, Verdict::Broken);
    let expected = "BROKEN: node-1: process 99 of root: node index.js start, which no agent started, from 1019.995 to 1020.005";
    assert!(text(&found).contains(expected), "{}", text(&found));
    let late = proof(&[with(20_600), back(stopped())]);
    assert_eq!(late.verdict, Verdict::Proven, "it came after the end: {}", text(&late));

    let with = |name: &str, at: u64, count: u32| {
        let seen = sessions(&[("soloist-node-1", 4), (name, count)]);
        let book = Book::new("node-1").ran(1_000, 20);
        book.watched(10_010, 20_020, move |gather| gather.sample(at, Ok(seen)))
    };
    let stranger = proof(&[with("psql", 20_000, 1), back(stopped())]);
    assert!(text(&stranger).contains("a session of no node was connected to the database (psql)"));
    assert_eq!(stranger.verdict, Verdict::Broken);
    let mut held = case();
    held.holder = true;
    assert_eq!(proof_of(&held, &[with("psql", 20_000, 1), back(stopped())]).verdict, Verdict::Proven);
    let other = proof(&[with("soloist-node-2", 15_000, 1), back(stopped())]);
    assert_eq!(other.verdict, Verdict::Broken, "{}", text(&other));
    assert!(text(&other).contains("node-2: its app was connected to the database, as node-1 saw"));
    // Just at the end, and the node was launched again: it may have been just after.
    assert_eq!(proof(&[with("soloist-node-2", 20_001, 1), back(stopped())]).verdict, Verdict::Proven);
    assert_eq!(
        proof(&[with("soloist-node-2", 20_001, 1), stopped().resting(20_500, 60)]).verdict,
        Verdict::Broken
    );
}

#[test]
fn sessions_are_claimed_only_of_nodes_whose_login_is_seen() {
    let login = |book: Book, login: &str, naming: Naming| {
        let seen = Sessions { login: login.into(), naming, names: BTreeMap::new() };
        book.watched(10_010, 20_020, move |gather| gather.sample(20_020, Ok(seen)))
    };
    let one = |login_1: &str, login_2: &str, naming: Naming| {
        let node_1 = login(Book::new("node-1").ran(1_000, 20), login_1, naming);
        let node_2 = Book::new("node-2").ran(1_000, 20).ended(9_000, 20).resting(9_010, 40);
        proof(&[node_1, back(login(node_2, login_2, naming))]).grants.remove(0).samples.is_some()
    };
    assert!(one("noco", "noco", Naming::Application));
    assert!(one("noco_1", "noco_2", Naming::Application), "each sees its own");
    assert!(one("noco_1", "noco_2", Naming::Login));
    assert!(!one("noco", "noco", Naming::Login), "nobody can tell whose they are");
}

#[test]
fn a_persons_word_is_named_and_may_be_contradicted() {
    let mut assumed = case();
    assumed.grants[0].nodes.insert(node("node-2"), Stood::Assumed("ann: unplugged".into()));
    let silent = proof_of(&assumed, &[solo()]);
    assert_eq!(silent.verdict, Verdict::Proven);
    assert!(
        text(&silent).contains("note: node-2: taken to be stopped by the word of ann: unplugged"),
        "{}",
        text(&silent)
    );
    let ran = Book::new("node-2").ran(1_000, 20).watched(10_010, 20_020, |_| {}).ended(15_000, 20);
    assert_eq!(proof_of(&assumed, &[solo(), ran]).verdict, Verdict::Broken);
    assumed.grants[0].nodes.insert(node("node-2"), Stood::Unproven);
    assert_eq!(proof_of(&assumed, &[solo(), stopped()]).verdict, Verdict::Unproven);
}

#[test]
fn an_excerpt_proves_what_the_whole_chain_does() {
    // Operations before and after are left out.
    let before = |name: &str| {
        let book = Book::new(name);
        (1..30).fold(book, |book, at| book.ran(at * 10, at).ended(at * 10 + 5, at).resting(at * 10 + 6, at))
    };
    let extend = |book: Book, more: Book| {
        more.1.into_iter().fold(book, |book, record| book.at(record.at.boot_ms, record.fact))
    };
    let after = |book: Book| (70..90).fold(book, |book, at| book.ran(at * 1000, at).ended(at * 1000 + 5, at));
    let books = [after(extend(before("node-1"), solo())), after(extend(before("node-2"), back(stopped())))];
    let whole = proof(&books);
    let cut = books.map(|book| Book(book.0.clone(), excerpt(&case(), &book.0, &book.1)));
    assert!(cut.iter().all(|book| book.1.len() < 12), "{:?}", cut.each_ref().map(|book| book.1.len()));
    assert_eq!(proof(&cut), whole);
    assert_eq!(whole.verdict, Verdict::Proven, "{}", text(&whole));
}

/// A small generator of numbers that look random.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// Whatever is seen when, and however often the agent dies: the facts make a sound story, and every run that was there is in it.
#[test]
fn a_tracker_misses_nothing_that_it_launched() {
    for seed in 0..300 {
        let mut chance = Chance(seed);
        let (mut tracker, mut book, boot) = (Tracker::default(), Book::new("node-1"), BootId("boot".into()));
        let (mut running, mut last, mut launching): (Option<u64>, Option<Exit>, Option<u64>) =
            (None, None, None);
        let (mut ran, mut now) = (Vec::new(), 1_000);
        for step in 1..60 {
            now += 1 + chance.below(500);
            match chance.below(5) {
                0 if running.is_none() && launching.is_none() => {
                    let launch =
                        Launching { launch: Launch(step), generation: Generation(step), token: None };
                    book = book.at(now, tracker.launching(launch, &boot, now));
                    launching = Some(step);
                }
                1 if launching.is_some() => {
                    running = launching.take();
                    ran.extend(running);
                }
                2 if running.is_some() => {
                    let launch = Launch(running.take().unwrap());
                    last = Some(Exit { launch, boot: boot.clone(), ended_ms: Some(now) });
                }
                3 => {
                    // The agent dies. What was on its way has ended or runs by the time it looks again.
                    tracker = Tracker::recall(&book.1);
                    if let Some(launch) = launching.take().filter(|_| chance.below(2) == 0) {
                        running = Some(launch);
                        ran.push(launch);
                    }
                }
                _ => {}
            }
            if chance.below(3) > 0 {
                let sight = match running {
                    Some(launch) => Sight::Runs(run(now, launch)),
                    None => Sight::Gone { exit: last.clone(), launching: launching.is_some() },
                };
                for fact in tracker.look(sight, &boot, now) {
                    book = book.at(now, fact);
                }
            }
            if let Some(fact) = tracker.resting(Generation(step)).filter(|_| running.is_none()) {
                book = book.at(now, fact);
            }
        }
        let mut open: Option<Launch> = None;
        let mut told = Vec::new();
        for record in &book.1 {
            match &record.fact {
                Fact::Began(run) => {
                    assert_eq!(open, None, "seed {seed}: two at once");
                    open = run.launch;
                    told.extend(run.launch.map(|launch| launch.0));
                }
                Fact::Ended(ended) => {
                    assert_eq!(open.take(), ended.launch, "seed {seed}");
                    assert!(
                        ended.not_after_ms.is_none_or(|after| after >= ended.not_before_ms),
                        "seed {seed}"
                    );
                }
                Fact::Resting { .. } => assert_eq!(open, None, "seed {seed}: it says that nothing runs"),
                _ => {}
            }
        }
        let launched = |launch: &u64| {
            book.1
                .iter()
                .any(|record| matches!(&record.fact, Fact::Launching(one) if one.launch.0 == *launch))
        };
        assert!(ran.iter().all(launched), "seed {seed}: something ran without a record before it");
        assert!(told.iter().all(|launch| ran.contains(launch)), "seed {seed}: {told:?} and {ran:?}");
    }
}
