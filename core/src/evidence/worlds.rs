//! Hundreds of small worlds in which it is known what ran: a proof never claims more than was so.

use super::tests::{Book, Chance, case, node, proof_of, text};
use super::*;
use crate::ids::{Generation, Launch};

/// The grant and its end, as in [`case`], by the coordinators' clock.
const GRANTED: u64 = 1_010_000;
const UNTIL: u64 = 1_020_000;

/// What really happened on the second node, and what its agent wrote of it.
struct World {
    book: Book,
    /// Its runs, by the coordinators' clock.
    ran: Vec<(u64, u64)>,
}

/// The second node stops before the grant. Then, at random: somebody starts its app by hand under the old assignment, its agent dies
/// and does not see an end, and it is started again after the end.
fn world(chance: &mut Chance) -> World {
    // Its clock, which nobody knows exactly.
    let ahead = 1_000_000 - 200 + chance.below(400);
    let boot = |wall: u64| wall.saturating_sub(ahead);
    let reading = {
        let ahead = i64::try_from(ahead).unwrap();
        let (less, more) = (chance.below(300), chance.below(300));
        Reading { lo_ms: ahead - i64::try_from(less).unwrap(), hi_ms: ahead + i64::try_from(more).unwrap() }
    };
    let mut ran = Vec::new();
    let mut book = Book::new("node-2");
    let watch = |book: Book, at: u64, ran: &[(u64, u64)]| {
        let mut gather = Gather::new(OperationId::new("op").unwrap(), Token(35), 50, 1000);
        let busy = ran.iter().any(|(from, to)| (*from..*to).contains(&at));
        let seen: &[(&str, u32)] = if busy { &[("soloist-node-2", 1)] } else { &[] };
        let names = seen.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        gather.look(boot(at), &[]);
        gather.sample(boot(at), Ok(Sessions { login: "noco".into(), naming: Naming::Application, names }));
        gather.read(reading);
        book.at(boot(at), Fact::Watched(Box::new(gather.take().unwrap())))
    };
    book = book.resting(boot(GRANTED - 50), 40);
    let (mut now, mut launch) = (GRANTED, 100);
    while now < UNTIL + 4_000 {
        now += 1 + chance.below(1_500);
        match chance.below(8) {
            0 => {
                let to = now + 1 + chance.below(3_000);
                let by = if now > UNTIL && chance.below(2) == 0 { 60 } else { 41 };
                launch += 1;
                let (id, generation) = (Launch(launch), Generation(by));
                book = book.at(boot(now), Fact::Launching(Launching { launch: id, generation, token: None }));
                if chance.below(4) == 0 {
                    book = book.at(boot(now), Fact::Unlaunched { launch: id });
                    continue;
                }
                ran.push((now, to));
                // Sometimes the agent dies before it sees it.
                if chance.below(3) > 0 {
                    let run = Run {
                        launch: Some(id),
                        generation: Some(generation),
                        token: None,
                        pid: 7,
                        start_ticks: boot(now) / 10,
                        began_ms: boot(now),
                    };
                    book = book.at(boot(now), Fact::Began(run));
                }
                now = to;
                if chance.below(3) > 0 {
                    book = book.ended(boot(now), launch);
                }
            }
            _ => book = watch(book, now, &ran),
        }
    }
    World { book, ran }
}

fn overlaps(ran: &[(u64, u64)]) -> bool {
    ran.iter().any(|(from, to)| *from < UNTIL && *to > GRANTED)
}

#[test]
fn what_is_proven_was_so() {
    let (mut proven, mut broken) = (0, 0);
    for seed in 0..2_000 {
        let mut chance = Chance(seed);
        let World { mut book, ran } = world(&mut chance);
        let mut complete = true;
        // The end is lost with the host, or a record in the middle with a bad disk.
        match chance.below(4) {
            0 => {
                let keep = chance.below(book.1.len() as u64);
                book.1.truncate(usize::try_from(keep).unwrap());
                complete = false;
            }
            1 => {
                let gone = chance.below(book.1.len() as u64);
                let _ = book.1.remove(usize::try_from(gone).unwrap());
                complete = false;
            }
            _ => {}
        }
        let solo = Book::new("node-1").ran(1_000, 20).watched(10_010, 20_020, |_| {});
        let proof = proof_of(&case(), &[solo, book]);
        let stopped = proof.grants[0].stopped.contains(&node("node-2"));
        assert!(!(stopped && overlaps(&ran)), "seed {seed}: {ran:?}\n{}", text(&proof));
        assert!(proof.verdict != Verdict::Proven || stopped, "seed {seed}");
        let far = |(from, to): &(u64, u64)| *from > UNTIL + 1_000 || *to + 1_000 < GRANTED;
        if complete && ran.iter().all(far) {
            assert_ne!(proof.verdict, Verdict::Broken, "seed {seed}: {ran:?}\n{}", text(&proof));
        }
        proven += usize::from(proof.verdict == Verdict::Proven);
        broken += usize::from(proof.verdict == Verdict::Broken);
    }
    assert!(proven > 100 && broken > 100, "the worlds are all alike: {proven} proven, {broken} broken");
}
