//! Soloist with the real thing: NocoBase, PostgreSQL or MariaDB, Redis, three coordinators, three agents.
//!
//! Scenarios share a fleet and run in order, two fleets at a time, so this test has a `main` of its own; it prints
//! what cargo's own harness would. `cargo test -p soloist-tests --test nocobase -- k l` runs those whose names begin with k or
//! l, after what they need.

mod api;
mod backups;
mod cluster;
mod commercial;
mod evidence;
mod fences;
mod mariadb;
mod marker;
mod packages;
mod preflight;
mod quiet;
mod releases;
mod scenarios;
mod server;
mod strangers;
mod traffic;
mod upgrade_faults;
mod upgrades;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use server::Server;
use world::World;

type Scenario = (&'static str, fn(&mut World));

/// On PostgreSQL.
const ON_POSTGRES: [Scenario; 17] = [
    ("a_first_start_installs_once_then_starts_the_others", scenarios::first_start),
    ("c_plugin_change_under_load_with_the_leader_killed", scenarios::plugin_under_load),
    ("d_external_holders_solo_and_all_stopped", scenarios::holders),
    ("d_external_holders_killed_in_the_middle", scenarios::holders_killed),
    ("e_agent_of_the_solo_node_killed", scenarios::agent_killed),
    ("g_a_node_started_by_hand_blocks_the_grant", strangers::by_hand),
    ("g_a_strangers_database_session_blocks_the_grant", strangers::session),
    ("i_preflight_names_a_setting_that_differs", preflight::settings),
    ("j_backup_and_restore_with_the_agent_killed_in_the_middle", backups::backup_and_restore),
    ("v_plugin_packages_come_and_go", packages::come_and_go),
    ("v_a_plugin_uploaded_in_the_app_is_migrated_in_order", marker::migrated),
    ("v_commercial_plugins_are_fetched_in_order", commercial::fetched),
    ("z_a_node_that_hangs_is_kept_from_the_database", fences::kept_out),
    ("w_stale_nodes_are_named_and_healed", packages::healed),
    ("b_power_cut_and_missing_quorum", scenarios::power_cut),
    ("f_empty_or_older_database_starts_nothing", scenarios::wrong_database),
    ("h_without_soloist_the_first_start_fails", scenarios::counter_example),
];

/// On PostgreSQL too: what has to do with upgrades, and what makes both lanes equally long.
const UPGRADES: [Scenario; 12] = [
    ("x_a_long_workflow_is_awaited_or_named", quiet::workflows),
    ("y_one_node_runs_in_several_processes", cluster::several),
    ("k_a_broken_release_goes_back_by_itself", upgrades::broken),
    ("l_a_failed_check_or_a_refusal_goes_back", upgrades::refused),
    ("m_a_good_upgrade_with_the_leader_killed", upgrades::good),
    ("n_rollback_by_hand", upgrades::rollback),
    ("o_a_damaged_backup_ends_an_upgrade", upgrade_faults::damaged_backup),
    ("o_an_upgrade_without_a_backup_touches_nothing", upgrade_faults::no_backup),
    ("u_users_behind_haproxy_get_the_app_or_the_page", traffic::haproxy),
    ("u_users_behind_nginx_get_the_app_or_the_page", traffic::nginx),
    ("p_power_cut_in_the_middle_of_an_upgrade", upgrade_faults::power_cut),
    ("q_writes_at_stake_wait_for_a_person", upgrade_faults::writes_at_stake),
];

/// On MariaDB.
const ON_MARIADB: [Scenario; 4] = [
    ("r_mariadb_first_start", scenarios::first_start),
    ("r_mariadb_refuses_a_wrong_password_before_anything_is_stopped", mariadb::wrong_password),
    ("s_mariadb_a_broken_release_goes_back_by_itself", mariadb::broken),
    ("t_mariadb_upgrade", upgrades::plain),
];

/// What one fleet after the other goes through.
type Lane = &'static [(Server, &'static [Scenario])];

/// Lanes run at the same time, each with fleets of its own: a NocoBase that starts keeps one processor busy.
const LANES: [Lane; 2] = [
    &[(Server::POSTGRES, &ON_POSTGRES)],
    &[(Server::MARIADB, &ON_MARIADB), (Server::SECOND_POSTGRES, &UPGRADES)],
];

/// How the scenarios of a lane went.
#[derive(Default)]
struct Count {
    passed: usize,
    failed: usize,
}

#[expect(clippy::print_stdout, reason = "this is the test's own harness")]
fn main() -> ExitCode {
    let filters: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let all = || LANES.iter().copied().flatten().flat_map(|(_, scenarios)| *scenarios);
    if std::env::args().any(|arg| arg == "--list") {
        all().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let chosen =
        |name: &str| filters.is_empty() || filters.iter().any(|filter| name.starts_with(filter.as_str()));
    println!("\nrunning {} tests", all().filter(|(name, _)| chosen(name)).count());
    let began = Instant::now();
    // Nothing new begins in any lane once a scenario has failed.
    let ended = AtomicBool::new(false);
    // What is fetched and installed is shared: one after the other.
    let prepared = Mutex::new(());
    let counts: Vec<Count> = thread::scope(|scope| {
        let (ended, prepared, chosen) = (&ended, &prepared, &chosen);
        let lanes = LANES.map(|lane| scope.spawn(move || run_lane(lane, chosen, prepared, ended)));
        lanes.map(|lane| lane.join().unwrap_or(Count { passed: 0, failed: 1 })).into()
    });
    let passed: usize = counts.iter().map(|count| count.passed).sum();
    let failed: usize = counts.iter().map(|count| count.failed).sum();
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; finished in {:.2}s\n",
        began.elapsed().as_secs_f32()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the chosen scenarios of a lane, up to the first failure in any lane.
fn run_lane(
    lane: Lane,
    chosen: &(dyn Fn(&str) -> bool + Sync),
    prepared: &Mutex<()>,
    ended: &AtomicBool,
) -> Count {
    let mut count = Count::default();
    for (server, scenarios) in lane {
        let scenarios: Vec<&Scenario> = scenarios.iter().filter(|(name, _)| chosen(name)).collect();
        if scenarios.is_empty() || ended.load(Ordering::Relaxed) {
            continue;
        }
        let mut world = {
            let _turn = prepared.lock().unwrap_or_else(PoisonError::into_inner);
            World::new(*server)
        };
        for (name, scenario) in scenarios {
            if ended.load(Ordering::Relaxed) {
                break;
            }
            if run(&mut world, name, *scenario) {
                count.passed += 1;
            } else {
                count.failed += 1;
                ended.store(true, Ordering::Relaxed);
            }
        }
    }
    count
}

/// Runs one scenario and tells how it went.
#[expect(clippy::print_stdout, reason = "this is the test's own harness")]
fn run(world: &mut World, name: &str, scenario: fn(&mut World)) -> bool {
    let at = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| {
        world.begin();
        scenario(world);
    }));
    world.end();
    let secs = at.elapsed().as_secs_f32();
    if result.is_ok() {
        println!("test {name} ... ok ({secs:.1} s)");
    } else {
        println!("test {name} ... FAILED ({secs:.1} s)\n{}", world.logs());
    }
    result.is_ok()
}
