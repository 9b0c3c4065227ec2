//! All coordinators are lost, and restored from an older backup of their state.

use soloist_core::operation::Request;
use soloist_core::restore::restored;
use soloist_core::rule::Rule;
use soloist_core::state::Fleet;
use soloist_core::time::LeaderClock;
use soloist_core::{Command, State};

use super::super::agent::Host;
use super::super::chance::Chance;
use super::World;
use super::network::Message;

/// The true wall clock when the world begins.
const TRUE_WALL_MS: u64 = 1_700_000_000_000;
/// Of a thousand steps, in how many a backup is made, and in how many the members are lost, in a world where that happens.
const BACKED_UP: u64 = 2;
const LOST: u64 = 1;

/// What there is of the coordinators' backups. Its choices are its own, so that worlds without it stay as they were.
#[derive(Debug)]
pub(super) struct Restores {
    chance: Chance,
    happens: bool,
    backup: Option<(State, u64)>,
    /// Log index before the first entry of the log, and the state there.
    pub(super) base: u64,
    pub(super) origin: State,
}

impl Restores {
    pub(super) fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed ^ 0x7265_7374_6f72_6531);
        // A rule that is switched off is noticed by the seeds that always noticed it.
        let happens = chance.permille(300) && Rule::ALL.into_iter().all(Rule::holds);
        Self { chance, happens, backup: None, base: 0, origin: State::default() }
    }
}

impl World {
    /// Log index of the last entry.
    pub(super) fn last_index(&self) -> u64 {
        self.restores_of.base + self.log.len() as u64
    }

    pub(super) fn lose_members(&mut self) {
        if !self.restores_of.happens {
            return;
        }
        if self.restores_of.chance.permille(BACKED_UP) {
            let index = self.last_index();
            self.restores_of.backup = Some((self.master.clone(), index));
            self.note(format!("the coordinators are backed up at #{index}"));
        }
        if self.restores_of.chance.permille(LOST)
            && self.can_be_settled_by_hand()
            && let Some((state, index)) = self.restores_of.backup.clone()
        {
            self.restore_members(&state, index);
        }
    }

    /// A person can tell how far a hold, a start or a change of one plugin came. What exchanges code, packages or the database is settled
    /// by hand before the coordinators are restored, which is not in this world.
    fn can_be_settled_by_hand(&self) -> bool {
        let exchanges = |request: &Request| {
            request.goes_back() || matches!(request, Request::Restore { .. } | Request::Backup { .. })
        };
        let current = self.fleet_now().and_then(Fleet::current);
        !current.is_some_and(|operation| exchanges(&operation.request))
            && !self.database.half
            && self.hosts.iter().all(|host| host.child.is_none())
    }

    fn restore_members(&mut self, state: &State, index: u64) {
        let (state, at) =
            restored(state, index, TRUE_WALL_MS + self.now).expect("a person has seen to the clock");
        self.note(format!("---- all coordinators are lost at #{}, and restored from a backup of #{index}: they go on after #{at}", self.last_index()));
        self.log.clear();
        self.restores_of.base = at;
        self.restores_of.origin = state.clone();
        self.leader = None;
        self.no_leader_until = self.now + self.restores_of.chance.between(200, 6_000);
        for member in &mut self.members {
            member.state = state.clone();
            member.applied = 0;
            member.sessions.clear();
            member.contact.clear();
            member.clock = LeaderClock::new();
        }
        self.master = state;
        for host in &mut self.hosts {
            host.session = None;
            host.registered = false;
            host.acked = 0;
        }
        // Connections to the members that are gone are cut; what had left them may still come.
        self.bodies.retain(|_, message| matches!(message, Message::Assign { .. }));
        self.oracle.members_are_lost();
    }

    /// Somebody looks at the fleet after a restore, and lets it go on when nothing of what was under way goes on.
    pub(super) fn look(&mut self) -> Result<(), String> {
        // The list of the nodes is part of what is looked at: one that came after the backup is not in it.
        let listed = |fleet: &Fleet| {
            self.hosts
                .iter()
                .all(|host| fleet.agent(&host.name).is_some() || fleet.removed.contains_key(&host.name))
        };
        let restored = self.fleet_now().is_some_and(|fleet| fleet.restored.is_some() && listed(fleet));
        let ended = self.clients.iter().all(|client| client.work.as_ref().is_none_or(|work| work.ended));
        let works = |host: &Host| {
            host.busy.is_some()
                || host.child.is_some()
                || !host.holders.is_empty()
                || !host.keepers.is_empty()
                || host.own().is_some_and(|app| app.change.is_some())
        };
        if !restored || !ended || self.hosts.iter().any(works) {
            return Ok(());
        }
        let (fleet, by, reason) = (self.fleet.clone(), "operator".to_owned(), "looked at".to_owned());
        self.propose(Command::Resume { fleet, by, reason }).map(|_| ())
    }
}
