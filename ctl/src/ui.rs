//! Where everything is written: data to stdout, everything else to stderr.
//!
//! Architecture invariant: no other file writes to stdout, except the stand-in app, which is another program in the same file.

use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use serde::Serialize;

use crate::error::{CtlError, Result};

/// How data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs: one JSON document; one per line where it goes on.
    Json,
    /// For `fleet show`: a file that can be edited and applied again.
    Toml,
}

/// The two outputs of the program.
#[derive(Debug, Clone, Copy)]
pub struct Ui {
    format: Format,
}

impl Ui {
    /// Output in this format.
    pub fn new(format: Format) -> Ui {
        Ui { format }
    }

    /// Whether data is written for programs.
    pub fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Whether data is written as a file for people to edit.
    pub fn is_toml(self) -> bool {
        self.format == Format::Toml
    }

    /// Whether people watch stderr as it is written.
    pub fn is_live(self) -> bool {
        io::stderr().is_terminal()
    }

    /// Whether stdout is a terminal.
    pub fn is_screen(self) -> bool {
        io::stdout().is_terminal()
    }

    /// Writes data: the text for people, or the value for programs.
    pub fn data<T: Serialize>(self, value: &T, text: impl FnOnce() -> String) -> Result<()> {
        match self.format {
            Format::Table | Format::Toml => self.text(&text()),
            Format::Json => {
                let json = serde_json::to_string_pretty(value).map_err(broken)?;
                self.text(&json)
            }
        }
    }

    /// The same for one of many that follow each other: a program gets each on a line of its own.
    pub fn item<T: Serialize>(self, value: &T, text: impl FnOnce() -> String) -> Result<()> {
        match self.format {
            Format::Table | Format::Toml => self.text(&text()),
            Format::Json => self.text(&serde_json::to_string(value).map_err(broken)?),
        }
    }

    /// Writes text to stdout, with a line break if it has none.
    pub fn text(self, text: &str) -> Result<()> {
        let mut out = io::stdout().lock();
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        match out
            .write_all(text.as_bytes())
            .and_then(|()| out.write_all(end.as_bytes()))
            .and_then(|()| out.flush())
        {
            Ok(()) => Ok(()),
            // Whoever read (`| head`) has seen enough: nobody is left to tell.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            Err(error) => Err(CtlError::failed(format!("cannot write to stdout: {error}"))),
        }
    }

    /// Clears the screen before a new picture, if stdout is a terminal.
    pub fn clear(self) -> Result<()> {
        if self.is_screen() && !self.is_json() { self.text("\x1b[H\x1b[2J\x1b[3J") } else { Ok(()) }
    }

    /// A line for people. What cannot be written is lost.
    pub fn note(self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// What to do next, for people.
    pub fn hint(self, text: &str) {
        self.note(&format!("hint: {text}"));
    }

    /// An error with its hints.
    pub fn error(self, error: &CtlError) {
        self.note(&format!("error: {}", error.message));
        for hint in &error.hints {
            self.hint(hint);
        }
    }
}

fn broken(error: serde_json::Error) -> CtlError {
    CtlError::failed(format!("cannot write JSON: {error}"))
}
