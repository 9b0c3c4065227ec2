//! Each safety rule exists because the simulated world fails without it: with the rule switched off, some seed must
//! end in a failure, and for the right reason.

use soloist_core::rule::Rule;
use soloist_tests::sim;

/// Most seeds that a broken rule may hide from.
const SEEDS: u64 = 4000;

/// Where rules that hide for long were noticed last. Those seeds come first; when the world has changed since, all others follow.
const LAST: [(Rule, u64); 7] = [
    (Rule::CrashIsNoEvidence, 138),
    (Rule::FenceIsProven, 181),
    (Rule::HalfRestoreStops, 198),
    (Rule::HandEndsWhenAsked, 214),
    (Rule::EndIsAwaited, 678),
    (Rule::PromoteExtends, 681),
    (Rule::FencedUntilStopped, 1036),
];

#[expect(clippy::print_stdout, reason = "the seed that noticed, for whoever wants to see it")]
/// Runs seeds with the rule broken until one fails with one of the `expected` words in its message.
fn is_noticed(rule: Rule, expected: &[&str]) {
    rule.broken(|| {
        let last = LAST.into_iter().filter(|(of, _)| *of == rule).map(|(_, seed)| seed);
        for seed in last.chain(0..SEEDS) {
            if let Err(failure) = sim::run(seed) {
                let right = expected.iter().any(|word| failure.what.contains(word));
                if right {
                    println!("{rule:?}: seed {seed}: {}", failure.what);
                    return;
                }
            }
        }
        panic!("{SEEDS} seeds pass, or fail for another reason, although {rule:?} is switched off");
    });
}

#[test]
fn a_crash_counted_as_stop_evidence() {
    is_noticed(Rule::CrashIsNoEvidence, &["while", "is alone"]);
}

#[test]
fn evidence_not_withdrawn_by_a_contradicting_report() {
    is_noticed(Rule::EvidenceIsWithdrawn, &["foreign process", "while"]);
}

#[test]
fn an_older_report_accepted() {
    is_noticed(Rule::ReportsInOrder, &["foreign process", "while", "before the first node"]);
}

#[test]
fn a_lower_generation_accepted() {
    is_noticed(Rule::GenerationsRise, &["while", "is alone"]);
}

#[test]
fn registration_skipped_after_a_lost_ledger() {
    is_noticed(Rule::RegisterFirst, &["while", "is alone", "second time", "no operation asked"]);
}

#[test]
fn the_lock_freed_at_abort() {
    is_noticed(Rule::AbortKeepsLock, &["while"]);
}

#[test]
fn an_abort_over_a_lost_holders_work() {
    is_noticed(Rule::EndIsAwaited, &["while the holder"]);
}

#[test]
fn an_attempt_begun_while_the_last_one_may_run() {
    is_noticed(Rule::OneAttempt, &["second attempt"]);
}

#[test]
fn migrate_kept_after_use() {
    is_noticed(Rule::MigrateIsSpent, &["a second time"]);
}

#[test]
fn migrate_given_to_two_nodes() {
    is_noticed(Rule::OneMigrate, &["one-migrate", "a second time", "installs while"]);
}

#[test]
fn a_node_started_migrate_without_install_intent() {
    is_noticed(Rule::MigrateNeedsIntent, &["no operation asked", "migrate-with-intent"]);
}

#[test]
fn a_plain_start_on_a_version_difference() {
    is_noticed(Rule::PlainNeedsSameVersion, &["starts plainly"]);
}

#[test]
fn a_grant_beside_a_foreign_process() {
    is_noticed(Rule::ForeignBlocks, &["foreign process"]);
}

#[test]
fn a_grant_beside_a_strangers_database_session() {
    is_noticed(Rule::SessionBlocks, &["database session"]);
}

#[test]
fn a_start_after_half_a_restore() {
    is_noticed(Rule::HalfRestoreStops, &["half-restored"]);
}

#[test]
fn an_upgrade_taken_back_over_what_users_wrote() {
    is_noticed(Rule::WritesAreKept, &["rows that users wrote are lost"]);
}

#[test]
fn an_exchange_taken_back_without_its_packages() {
    is_noticed(Rule::PackagesGoBack, &["was taken back, and its packages are still on"]);
}

#[test]
fn a_second_node_started_before_the_first_serves() {
    is_noticed(Rule::FirstServes, &["before the first node"]);
}

#[test]
fn a_lease_expired_by_a_clock_jump() {
    is_noticed(Rule::ElapsedTime, &["a lease was lost"]);
}

#[test]
fn a_lease_expired_by_a_new_leader() {
    is_noticed(Rule::PromoteExtends, &["a lease was lost"]);
}

#[test]
fn a_node_stopped_over_what_is_under_way_there() {
    is_noticed(Rule::QuietIsAwaited, &["counts as quiet"]);
}

#[test]
fn a_plugin_changed_in_one_of_several_processes() {
    is_noticed(Rule::OneProcess, &["a plugin changes in one of the"]);
}

#[test]
fn a_start_by_hand_that_outlives_the_silence() {
    is_noticed(Rule::HandEndsWhenAsked, &["while", "is alone", "a plugin changes in one of the"]);
}

#[test]
fn an_old_fence_order_carried_out() {
    // A late "put up" shuts out a node that serves, a late "lift" lets one in.
    is_noticed(Rule::FenceHasNumbers, &["while", "is alone", "nothing has converged"]);
}

#[test]
fn a_fence_with_somebody_inside() {
    is_noticed(Rule::FenceIsProven, &["while", "is alone"]);
}

#[test]
fn a_fence_that_is_not_wide_enough() {
    is_noticed(Rule::FenceCovers, &["while", "is alone"]);
}

#[test]
fn a_fence_lifted_too_early() {
    is_noticed(Rule::FencedUntilStopped, &["while", "is alone"]);
}

#[test]
fn users_counted_as_away_unproven() {
    is_noticed(Rule::DrainIsProven, &["counts as drained"]);
}
