//! How much may come in. A list or a word that decisions read is refused when it is too long, with the limit; text for people
//! is cut.
//!
//! Everything that a coordinator takes from an agent ends up in the log and in the state of all members, so one agent gone
//! wild must not fill them. Agents stay far below these limits by themselves.

use super::FieldError;

/// Most entries of a list in a report; agents send 16 at the most.
pub const LIST_MAX: usize = 64;
/// Longest word that is compared and not read by people, in bytes: a machine, a boot, an address, a version.
pub const WORD_MAX: usize = 256;
/// Longest text of a report that people read, in characters.
pub const REPORT_TEXT_MAX: usize = 1000;

/// A list, refused when it is too long.
pub(super) fn at_most<T>(max: usize, field: &str, list: Vec<T>) -> Result<Vec<T>, FieldError> {
    match list.len() {
        count if count > max => {
            Err(FieldError::new(field, format!("has {count} entries, and {max} are the most")))
        }
        _ => Ok(list),
    }
}

/// A word, refused when it is too long.
pub(super) fn word(field: &str, word: String) -> Result<String, FieldError> {
    match word.len() {
        bytes if bytes > WORD_MAX => {
            Err(FieldError::new(field, format!("has {bytes} bytes, and {WORD_MAX} are the most")))
        }
        _ => Ok(word),
    }
}

/// The beginning of a text for people.
pub(super) fn text(text: String) -> String {
    cut(text, REPORT_TEXT_MAX)
}

/// The beginning of a text.
pub(super) fn cut(mut text: String, chars_max: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(chars_max) {
        text.truncate(end);
    }
    text
}
