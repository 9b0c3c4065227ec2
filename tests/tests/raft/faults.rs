//! What goes wrong, and what people do to the cluster meanwhile.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use openraft::{BasicNode, ChangeMembers, async_runtime::WatchReceiver};
use tokio::time::timeout;

use crate::{
    chance::Chance,
    world::{STEP, World},
};

/// How long a change of the members may take, in milliseconds of the leader's time.
const CHANGE_MAX: u64 = 6_000;

/// When what happens next, and what is under way.
#[derive(Debug)]
pub(crate) struct Faults {
    next: u64,
    /// The longest pause between two faults, in milliseconds.
    pause: u64,
    cuts_until: u64,
    slow_until: u64,
    change: Option<Change>,
    /// The highest id that a member ever had.
    last_id: u64,
}

/// A change of the cluster's members.
#[derive(Debug)]
struct Change {
    until: u64,
    leaves: Option<u64>,
    result: Arc<Mutex<Option<bool>>>,
}

impl Faults {
    /// Nothing yet: the cluster is founded first.
    pub(crate) fn new(chance: &mut Chance) -> Faults {
        let pause = chance.pick(&[600, 2_000, 4_000]).unwrap_or(2_000);
        let next = chance.between(500, 2_500);
        Faults { next, pause, cuts_until: 0, slow_until: 0, change: None, last_id: 9 }
    }
}

impl World {
    /// Does what goes wrong at this moment.
    pub(crate) fn mischief(&mut self) {
        self.mend();
        self.follow_change();
        if self.now < self.faults.next {
            return;
        }
        self.faults.next = self.now + self.chance.between(50, self.faults.pause);
        match self.chance.between(0, 99) {
            0..25 => {
                let at = self.someone();
                let down = self.chance.between(20, 2_500);
                self.crash(at, down, "a power cut");
            }
            25..37 => {
                let (at, down) = (self.leader().unwrap_or(0), self.chance.between(20, 1_500));
                self.crash(at, down, "a power cut of the leader");
            }
            37..42 => {
                for at in 0..self.members.len() {
                    let down = self.chance.between(20, 1_500);
                    self.crash(at, down, "a power cut of all");
                }
            }
            42..62 => self.cut(),
            62..70 => self.stall(),
            70..77 => {
                let (at, sync_ms) = (self.someone(), self.chance.between(30, 400));
                self.members[at].disk.platter().mood.sync_ms = sync_ms;
                self.faults.slow_until = (self.now + self.chance.between(500, 4_000)).next_multiple_of(STEP);
                self.note(format!("the disk of member {} takes {sync_ms} ms", self.members[at].id));
            }
            77..82 => {
                let at = self.someone();
                self.members[at].disk.platter().mood.fails = true;
                self.note(format!("the disk of member {} is about to fail", self.members[at].id));
            }
            82..90 => self.transfer(),
            _ => self.change_members(),
        }
    }

    /// A member by chance.
    fn someone(&mut self) -> usize {
        let all: Vec<usize> = (0..self.members.len()).collect();
        self.chance.pick(&all).unwrap_or(0)
    }

    /// Ends what has lasted long enough.
    fn mend(&mut self) {
        if self.faults.cuts_until == self.now {
            self.wire.cables().cuts.clear();
            self.note("all cuts are mended".to_owned());
        }
        if self.faults.slow_until == self.now {
            for member in &self.members {
                member.disk.platter().mood.sync_ms = self.chance.between(1, 15);
            }
        }
    }

    fn cut(&mut self) {
        let ids: Vec<u64> = self.members.iter().map(|member| member.id).collect();
        let one = self.chance.pick(&ids).unwrap_or(1);
        let one = match self.leader() {
            Some(leader) if self.chance.permille(400) => self.members[leader].id,
            _ => one,
        };
        let kind = self.chance.between(0, 4);
        let other = self.chance.pick(&ids).unwrap_or(1);
        let half: BTreeSet<u64> = ids.iter().copied().filter(|_| self.chance.permille(500)).collect();
        let separates = |from: u64, to: u64| match kind {
            0 => from == one || to == one,
            1 => from == one,
            2 => to == one,
            3 => from == one && to == other,
            _ => half.contains(&from) != half.contains(&to),
        };
        let pairs = ids.iter().flat_map(|from| ids.iter().map(|to| (*from, *to)));
        let cuts: Vec<(u64, u64)> = pairs.filter(|(from, to)| from != to && separates(*from, *to)).collect();
        self.note(format!("these directions are cut: {cuts:?}"));
        self.wire.cables().cuts.extend(cuts);
        self.faults.cuts_until = (self.now + self.chance.between(100, 4_000)).next_multiple_of(STEP);
        self.summary.cuts += 1;
    }

    fn stall(&mut self) {
        let at = match self.leader() {
            Some(leader) if self.chance.permille(700) => leader,
            _ => self.someone(),
        };
        let ms = self.chance.between(50, 4_000);
        let member = &mut self.members[at];
        member.stalled_until = self.now + ms;
        self.summary.stalls += 1;
        let id = member.id;
        self.note(format!("member {id} stalls for {ms} ms"));
    }

    fn transfer(&mut self) {
        let to = self.someone();
        let Some(leader) = self.leader() else { return };
        let (to, seed) = (self.members[to].id, self.chance.between(0, u64::MAX));
        let Some(node) = self.members[leader].node().filter(|node| node.id != to) else { return };
        self.note(format!("member {} gives the leadership to {to}", node.id));
        self.summary.transfers += 1;
        self.members[leader].spawn(seed, async move {
            // A member that has stopped meanwhile cannot do it.
            let _ = node.raft.trigger().transfer_leader(to).await;
        });
    }

    /// Takes a member in, under a new id, or out.
    fn change_members(&mut self) {
        let (Some(leader), None) = (self.leader(), &self.faults.change) else { return };
        let Some(node) = self.members[leader].node() else { return };
        let adds = self.members.len() < 4 || self.members.len() < 6 && self.chance.permille(500);
        let id = if adds {
            self.faults.last_id += 1;
            self.add(self.faults.last_id);
            self.faults.last_id
        } else {
            let at = self.someone();
            self.members[at].id
        };
        self.note(format!("member {id} is taken {}", if adds { "in" } else { "out" }));
        let result = Arc::new(Mutex::new(None));
        let (until, leaves) = (self.now + CHANGE_MAX + 1_000, (!adds).then_some(id));
        self.faults.change = Some(Change { until, leaves, result: result.clone() });
        let work = async move {
            let ids = BTreeSet::from([id]);
            if adds && node.raft.add_learner(id, BasicNode::new(id), true).await.is_err() {
                return false;
            }
            // One that was to be taken in may have remained a learner.
            let votes = {
                let metrics = node.raft.metrics();
                let metrics = metrics.borrow_watched();
                metrics.membership_config.voter_ids().any(|voter| voter == id)
            };
            let change = match (adds, votes) {
                (true, _) => ChangeMembers::AddVoterIds(ids),
                (false, true) => ChangeMembers::RemoveVoters(ids),
                (false, false) => ChangeMembers::RemoveNodes(ids),
            };
            node.raft.change_membership(change, false).await.is_ok()
        };
        let seed = self.chance.between(0, u64::MAX);
        self.members[leader].spawn(seed, async move {
            let done = timeout(Duration::from_millis(CHANGE_MAX), work).await.unwrap_or(false);
            *result.lock().expect("nobody panics while noting a result") = Some(done);
        });
    }

    /// A member that was taken out is switched off for good.
    fn follow_change(&mut self) {
        let Some(change) = &self.faults.change else { return };
        let done = *change.result.lock().expect("nobody panics while noting a result");
        if done.is_none() && self.now < change.until {
            return;
        }
        let leaves = change.leaves;
        self.faults.change = None;
        self.note(format!("the change of the members ends: {done:?}"));
        if done != Some(true) {
            return;
        }
        match leaves {
            None => self.summary.joined += 1,
            Some(id) => {
                self.summary.left += 1;
                if let Some(at) = self.members.iter().position(|member| member.id == id) {
                    self.members[at].crash(&self.wire);
                    self.members.remove(at);
                }
            }
        }
    }
}
