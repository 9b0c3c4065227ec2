//! How things look: [`table`] for people, [`json`] for programs. Pure functions; nothing here writes.

pub mod cluster;
pub mod json;
pub mod plan;
pub mod policy;
pub mod preflight;
pub mod status;
pub mod table;

pub use json::Fresh;

use soloist_core::time::Millis;

/// A length of time for people: `0.3 s`, `12.4 s`, `3 min 12 s`, `2 h 05 min`, `3 d 4 h`.
pub fn length(length: Millis) -> String {
    let (tenths, seconds) = (length.0 / 100, length.0 / 1000);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        0..60 => format!("{}.{} s", tenths / 10, tenths % 10),
        60..3600 => format!("{minutes} min {:02} s", seconds % 60),
        3600..86_400 => format!("{hours} h {:02} min", minutes % 60),
        _ => format!("{} d {} h", hours / 24, hours % 24),
    }
}

/// A running operation without steps, for tests.
#[cfg(test)]
pub(crate) fn example() -> soloist_core::view::OperationView {
    soloist_core::view::OperationView {
        id: "op-1".parse().unwrap(),
        request: "start".into(),
        by: "root@host".into(),
        reason: String::new(),
        status: "running".into(),
        detail: String::new(),
        cause: String::new(),
        choices: Vec::new(),
        waits: Vec::new(),
        steps: Vec::new(),
        outage: None,
        writes_since_wall_ms: None,
        attempt: 1,
        token: None,
        solo: None,
        granted: false,
        holder_lost: false,
        ended: false,
        left_out: std::collections::BTreeMap::new(),
        submitted_wall_ms: 0,
        age: Millis(400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_two_units_at_most() {
        let of = |ms| length(Millis(ms));
        assert_eq!(of(349), "0.3 s");
        assert_eq!(of(59_999), "59.9 s");
        assert_eq!(of(192_000), "3 min 12 s");
        assert_eq!(of(7_500_000), "2 h 05 min");
        assert_eq!(of(273_600_000), "3 d 4 h");
    }
}
