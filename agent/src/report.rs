//! Reports that fit: coordinators refuse what is too long, and would be sent the same report again for ever.
//!
//! What comes from the app, the database or a person may be of any length. Texts for people are shortened, the longer the
//! report the more; lists and words are cut where coordinators would refuse them. A word that is cut is equal to no other.

use soloist_core::assignment::{AppState, OUTPUT_MAX, OUTPUT_TEXT_MAX, Observed, TaskResult};
use soloist_proto::convert::WORD_MAX;

/// Longest report as JSON, in bytes. In the log it is shorter, and a command of the log may have 64 KiB.
const REPORT_BYTES_MAX: usize = 56 * 1024;
/// How many characters the texts of a report keep, tried one after the other until it fits.
const TEXT_STEPS: [usize; 4] = [1000, 200, 40, 0];
/// Most entries of a list; coordinators take more, and whoever looks for them stops there already.
const ENTRIES_MAX: usize = 16;

/// What is said when reports begin to be shortened.
pub const CUT: &str = "what this agent reports is too long for the coordinators: texts are shortened, and some entries are left out";

/// A report that coordinators take, and whether something was cut for that.
#[must_use]
pub fn fitted(observed: Observed) -> (Observed, bool) {
    let mut fitted = observed.clone();
    limit(&mut fitted);
    for chars_max in TEXT_STEPS {
        if bytes(&fitted) <= REPORT_BYTES_MAX {
            break;
        }
        shorten(&mut fitted, chars_max);
    }
    let cut = fitted != observed;
    (fitted, cut)
}

/// Its length as JSON. In MessagePack, which the log has, nothing is longer.
fn bytes(observed: &Observed) -> usize {
    serde_json::to_vec(observed).map_or(usize::MAX, |bytes| bytes.len())
}

/// Cuts the lists and words that would be refused.
fn limit(observed: &mut Observed) {
    observed.foreign.truncate(ENTRIES_MAX);
    observed.sessions.truncate(ENTRIES_MAX);
    observed.holders.truncate(ENTRIES_MAX);
    while observed.output.len() > OUTPUT_MAX {
        observed.output.pop_last();
    }
    for value in observed.output.values_mut() {
        cut(value, OUTPUT_TEXT_MAX);
    }
    cut_bytes(&mut observed.boot.0);
    if let Some(code) = &mut observed.code {
        cut_bytes(&mut code.0);
    }
    if let Some(database) = &mut observed.database {
        cut_bytes(&mut database.identity);
        if let Some(version) = &mut database.version {
            cut_bytes(&mut version.0);
        }
    }
}

/// Shortens every text for people.
fn shorten(observed: &mut Observed, chars_max: usize) {
    if let AppState::Refused(why) | AppState::Failed(why) | AppState::Crashed(why) = &mut observed.app {
        cut(why, chars_max);
    }
    if let Some((_, _, TaskResult::Failed(why))) = &mut observed.task {
        cut(why, chars_max);
    }
    let foreign = observed.foreign.iter_mut().flat_map(|one| [&mut one.owner, &mut one.command]);
    let sessions =
        observed.sessions.iter_mut().flat_map(|one| [&mut one.role, &mut one.client, &mut one.application]);
    let fences = observed.fences.iter_mut().filter_map(|one| one.unarmed.as_mut());
    let fenced = observed.fenced.iter_mut().filter_map(|one| one.trouble.as_mut());
    let works = observed.under_way.iter_mut().flatten().chain(&mut observed.cut).chain(&mut observed.stale);
    let single = [&mut observed.unproved, &mut observed.by_hand, &mut observed.unsteered];
    let texts = foreign.chain(sessions).chain(fences).chain(fenced).chain(works);
    for text in texts.chain(single.into_iter().flatten()) {
        cut(text, chars_max);
    }
}

fn cut(text: &mut String, chars_max: usize) {
    if let Some((end, _)) = text.char_indices().nth(chars_max) {
        text.truncate(end);
    }
}

/// At most [`WORD_MAX`] bytes.
fn cut_bytes(word: &mut String) {
    if word.len() > WORD_MAX {
        let end = (0..=WORD_MAX).rev().find(|end| word.is_char_boundary(*end));
        word.truncate(end.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use soloist_core::assignment::{DatabaseFacts, DbSession, Foreign};
    use soloist_core::ids::{BootId, Version};
    use soloist_proto::v1;

    use super::*;

    /// As bad as it gets: every text is a megabyte of letters of four bytes.
    fn huge() -> Observed {
        let long = || "🦀".repeat(1 << 18);
        let session = || DbSession { pid: 1, role: long(), client: long(), application: long() };
        Observed {
            boot: BootId(long()),
            app: AppState::Failed(long()),
            code: Some(Version(long())),
            database: Some(DatabaseFacts {
                identity: long(),
                version: Some(Version(long())),
                ..DatabaseFacts::default()
            }),
            foreign: (0..3).map(|pid| Foreign { pid, owner: long(), command: long() }).collect(),
            sessions: (0..3).map(|_| session()).collect(),
            output: (0..16).map(|at| (format!("output-{at}"), long())).collect(),
            unproved: Some(long()),
            by_hand: Some(long()),
            unsteered: Some(long()),
            stale: (0..8).map(|_| long()).collect(),
            cut: (0..16).map(|_| long()).collect(),
            ..Observed::default()
        }
    }

    #[test]
    fn whatever_is_reported_fits_and_is_taken() {
        let (report, cut) = fitted(huge());
        assert!(cut && bytes(&report) <= REPORT_BYTES_MAX, "{} bytes", bytes(&report));
        let taken = Observed::try_from(v1::Observed::from(report.clone())).unwrap();
        assert_eq!(taken, report, "coordinators cut nothing more");
        let many = Foreign { pid: 1, owner: "o".repeat(900), command: "c".repeat(900) };
        let (report, cut) = fitted(Observed { foreign: vec![many; 5000], ..Observed::default() });
        assert!(cut && bytes(&report) <= REPORT_BYTES_MAX);
        assert_eq!(report.foreign.len(), ENTRIES_MAX);
        Observed::try_from(v1::Observed::from(report)).unwrap();
    }

    #[test]
    fn what_fits_is_left_as_it_is() {
        let small = Observed { app: AppState::Failed("no database".into()), ..Observed::default() };
        assert_eq!(fitted(small.clone()), (small, false));
    }
}
