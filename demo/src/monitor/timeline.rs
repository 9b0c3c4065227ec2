//! A recording as text: one bar per node, with the marks below.
//!
//! ```text
//! node-1 |████████████████████      ████████████|
//! node-2 |████                            ██████|
//! at once|222211111111111111111·····111111122222|
//!             A               B
//!          0.0 s                          14.0 s
//! A  4.2 s  granted
//! B  9.0 s  released
//! ```

use std::fmt::Write as _;
use std::time::Duration;

use super::recording::{Recording, Window, max_concurrent};

/// Bars narrower than this say nothing.
const MIN_WIDTH: usize = 20;
/// Wider than any terminal.
const MAX_WIDTH: usize = 400;
const SUM: &str = "at once";
/// Marks are lettered; more than this many are only listed.
const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";

impl Recording {
    /// Draws the window with bars of `width` characters. A cell shows the most trees at one moment of it: `█` for one, a digit for
    /// more.
    #[must_use]
    pub fn timeline(&self, window: Window, width: usize) -> String {
        let width = width.clamp(MIN_WIDTH, MAX_WIDTH);
        let labels = self.labels(window);
        let name_width = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0).max(SUM.len());
        let mut text = String::new();
        for label in &labels {
            let bar = self.bar(window, width, Some(label), '█');
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{label:<name_width$}|{bar}|");
        }
        let _ = writeln!(text, "{SUM:<name_width$}|{}|", self.bar(window, width, None, '1'));
        self.draw_marks(&mut text, window, width, name_width);
        text
    }

    fn bar(&self, window: Window, width: usize, label: Option<&str>, one: char) -> String {
        let cell = |index: usize| {
            let part = Window { from: edge(window, width, index), to: edge(window, width, index + 1) };
            let chosen =
                self.within(part).filter(|interval| label.is_none_or(|label| interval.label == label));
            match max_concurrent(chosen.map(|interval| (interval.start, interval.end)), part) {
                0 => '·',
                1 => one,
                more => u32::try_from(more).ok().and_then(|more| char::from_digit(more, 10)).unwrap_or('+'),
            }
        };
        (0..width).map(cell).collect()
    }

    fn draw_marks(&self, text: &mut String, window: Window, width: usize, name_width: usize) {
        let marks: Vec<_> =
            self.marks.iter().filter(|mark| mark.at >= window.from && mark.at <= window.to).collect();
        if !marks.is_empty() {
            let mut row = vec![' '; width];
            for (mark, letter) in marks.iter().zip(LETTERS) {
                let at = (0..width).rev().find(|index| edge(window, width, *index) <= mark.at).unwrap_or(0);
                // Two marks in one cell: the first is drawn, both are listed.
                if let Some(cell) = row.get_mut(at).filter(|cell| **cell == ' ') {
                    *cell = char::from(*letter);
                }
            }
            let row: String = row.into_iter().collect();
            let _ = writeln!(text, "{:name_width$} {}", "", row.trim_end());
        }
        let (from, to) = (seconds(window.from), seconds(window.to));
        let _ = writeln!(text, "{:name_width$} {from}{to:>rest$}", "", rest = width - from.len());
        for (index, mark) in marks.iter().enumerate() {
            let letter = LETTERS.get(index).map_or(' ', |letter| char::from(*letter));
            let _ = writeln!(text, "{letter} {:>8}  {}", seconds(mark.at), mark.text);
        }
    }
}

/// Where cell `index` of `width` begins.
fn edge(window: Window, width: usize, index: usize) -> Duration {
    let length = window.to.saturating_sub(window.from).as_nanos();
    let part = length.saturating_mul(index as u128) / (width.max(1) as u128);
    window.from + Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX))
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::super::recording::tests::recording;

    #[test]
    fn a_timeline_shows_bars_overlaps_and_marks() {
        let marks = [(3100, "granted"), (6100, "released")];
        let seen =
            recording(&[("node-1", 0, 7900), ("node-2", 0, 2900), ("node-2", 7100, 9900)], &marks, 10_000);
        let expected = "\
node-1 |████████████████····|
node-2 |██████········██████|
at once|22222211111111221111|
              A     B
        0.0 s         10.0 s
A    3.1 s  granted
B    6.1 s  released
";
        assert_eq!(seen.timeline(seen.whole(), 20), expected);
    }
}
