//! Fingerprints of settings: what is compared in place of values.
//!
//! A fingerprint is the first 12 hexadecimal digits of SHA-256 over the fleet's name, the setting's name and its value, with a
//! zero byte between them. So equal values of two fleets, or of two settings, have different fingerprints, and no table made
//! elsewhere helps to find a value. 48 bits are too few to be mistaken for a proof and enough to tell values apart. It does not
//! hide a value that can be guessed: whoever may ask for a preflight can try guesses. A secret is drawn at random.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};
use soloist_core::ids::FleetId;
use soloist_core::preflight::{Demand, demand};

/// Digits of a fingerprint.
const DIGITS: usize = 12;
/// Most settings that are compared; NocoBase has about 60. Bounds what travels.
const SETTINGS_MAX: usize = 200;
/// Longest name of a setting that is compared, in bytes.
const NAME_MAX: usize = 64;

/// The fingerprints of what must be the same on all nodes, and of what else people have set and should be. Empty values are left
/// out: to NocoBase they are unset.
pub(super) fn fingerprints(
    fleet: &FleetId,
    vars: &BTreeMap<String, String>,
    set: &BTreeSet<String>,
) -> BTreeMap<String, String> {
    let compared = vars.iter().filter(|(key, value)| {
        !value.is_empty()
            && key.len() <= NAME_MAX
            && match demand(key) {
                Demand::Same => true,
                Demand::Alike => set.contains(*key),
                Demand::Free => false,
            }
    });
    let each = compared.map(|(key, value)| (key.clone(), fingerprint(fleet, key, value)));
    each.take(SETTINGS_MAX).collect()
}

fn fingerprint(fleet: &FleetId, key: &str, value: &str) -> String {
    let mut hash = Sha256::new();
    for part in [fleet.as_str(), key, value] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let mut text = String::new();
    for byte in hash.finalize().iter().take(DIGITS / 2) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(name: &str) -> FleetId {
        FleetId::new(name).unwrap()
    }

    fn vars(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn salted_by_fleet_and_name() {
        let of = |fleet_name: &str, key: &str| fingerprint(&fleet(fleet_name), key, "s3cret");
        assert_eq!(of("a", "APP_KEY").len(), DIGITS);
        assert_eq!(of("a", "APP_KEY"), of("a", "APP_KEY"));
        assert_ne!(of("a", "APP_KEY"), of("b", "APP_KEY"));
        assert_ne!(of("a", "APP_KEY"), of("a", "APP_AES_SECRET_KEY"));
        assert_ne!(fingerprint(&fleet("a"), "bc", "d"), fingerprint(&fleet("ab"), "c", "d"));
    }

    #[test]
    fn only_what_is_compared_leaves_the_node() {
        let vars = vars(&[
            ("APP_KEY", "k"),
            ("DB_SCHEMA", ""),
            ("DB_PASSWORD", "p"),
            ("CACHE_REDIS_URL", "r"),
            ("WS_PATH", "/ws"),
            ("ESM_CDN_BASE_URL", "a default"),
        ]);
        let set = BTreeSet::from(["CACHE_REDIS_URL".to_owned(), "DB_PASSWORD".to_owned()]);
        let found = fingerprints(&fleet("a"), &vars, &set);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["APP_KEY", "CACHE_REDIS_URL"]);
    }
}
