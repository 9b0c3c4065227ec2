//! A random run: a seed decides what is broken, when, and for how long; people and jobs go on all the time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::load::Load;
use super::locks::Lockers;
use super::nemesis::{Fault, Nemesis};
use super::record::Record;
use super::scene::{CROWD, Scene};
use super::swarm::Swarm;
use super::targets::Clients;
use crate::harness::{CLIENT, FleetOptions};

/// After so many rounds everything must become well again.
const ROUNDS: u32 = 7;
/// How long the people and jobs may take to end what they have begun once nothing is broken any more.
const REST_MAX: Duration = Duration::from_secs(200);
/// How long everything may take to be well after that.
const CALM_MAX: Duration = Duration::from_secs(120);
/// How many who work at once.
const WORKERS: u8 = 3;
/// How many who want the lock of the fleet that has nothing else.
const LOCKERS: usize = 3;

/// How a random run is made.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Decides everything but the speed of the machine.
    pub seed: u64,
    /// How long things are broken.
    pub length: Duration,
    /// How many agents without hosts there are.
    pub swarm: usize,
    /// What may be broken.
    pub faults: Vec<Fault>,
}

/// Runs it, and gives what was written down.
///
/// # Panics
/// When the fleet does not come up before anything is broken.
#[must_use]
pub fn run(plan: &Plan, mut tell: impl FnMut(&str)) -> Record {
    let mut rng = SmallRng::seed_from_u64(plan.seed);
    let title = format!("Random faults for {} s", plan.length.as_secs());
    let mut scene = Scene::start(&title, Some(plan.seed), FleetOptions::default());
    let members: Vec<_> = (0..3).map(|at| scene.fleet.member_address(at)).collect();
    let swarm = Swarm::start(scene.fleet.place(CROWD), members.clone(), "swarm", plan.swarm.max(1));
    swarm.until_all(Duration::from_secs(60));
    let book = scene.book.clone();
    let lockers = Lockers::start(scene.fleet.place(CLIENT), &members, LOCKERS, plan.seed, book);
    let load = Load::start(&scene, plan.seed, WORKERS, Clients::default());
    let mut nemesis = Nemesis::new(load.clients());
    let (began, mut round) = (Instant::now(), 0);
    tell("everything serves; things begin to break");
    while began.elapsed() < plan.length {
        round += 1;
        let count = if rng.random_range(0..10) < 3 { 2 } else { 1 };
        for fault in plan.faults.choose_multiple(&mut rng, count) {
            let strike = AssertUnwindSafe(|| nemesis.strike(*fault, &mut scene, &mut rng));
            let how = match catch_unwind(strike) {
                Ok(true) => "",
                Ok(false) => " (there is nothing to break)",
                Err(why) => {
                    let why = why.downcast_ref::<String>().map_or("it went wrong", String::as_str);
                    scene.book.open().failures.push(format!("{fault}: {why}"));
                    " (it went wrong)"
                }
            };
            tell(&format!("{:.1} s: {fault}{how}", began.elapsed().as_secs_f64()));
        }
        std::thread::sleep(Duration::from_millis(rng.random_range(1500..9000)));
        nemesis.mend(&mut scene);
        std::thread::sleep(Duration::from_millis(rng.random_range(500..4000)));
        if round % ROUNDS == 0 && !settle(&scene, &load, &mut tell) {
            break;
        }
    }
    settle(&scene, &load, &mut tell);
    swarm.until_all(Duration::from_secs(60));
    drop(lockers);
    drop(load);
    drop(swarm);
    scene.end()
}

/// Lets everybody end what was begun, and waits until all is well.
fn settle(scene: &Scene, load: &Load, tell: &mut impl FnMut(&str)) -> bool {
    let rested = load.rest(REST_MAX);
    let calm = scene.calm(CALM_MAX);
    tell(match (rested, calm) {
        (true, true) => "all is well",
        (false, true) => "all is well, but somebody still waits for a command",
        (_, false) => "it does NOT become well again",
    });
    load.resume();
    calm
}
