//! How often and how fast a crashed app is started again.

use crate::time::Millis;

/// Most restarts of a crashed app before its agent gives up; an app that has served for ten minutes starts counting anew.
pub const RESTARTS_MAX: u32 = 8;

/// Pause before restart number `count` (from 0): doubling from one second to a minute, plus up to half of it by
/// `jitter` (0 to 1000), so that nodes that died of one cause do not come back at one moment. `None`: give up.
pub fn restart_delay(count: u32, jitter: u64) -> Option<Millis> {
    if count >= RESTARTS_MAX {
        return None;
    }
    let base = (1000_u64 << count.min(6)).min(60_000);
    Some(Millis(base + base / 2 * jitter.min(1000) / 1000))
}
