//! Runs this test binary under `strace` and reads the trace.

use super::*;

pub(super) fn begin(what: &str) {
    say(&format!("BEGIN {what};"));
}

pub(super) fn acknowledge(what: &str) {
    say(&format!("ACK {what};"));
}

/// One write to standard output, for the trace.
pub(super) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()).unwrap();
}

/// What a child process did, in order.
#[derive(Debug)]
pub(super) struct Trace {
    pub(super) events: Vec<Event>,
}

/// A system call of interest, when it was complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    Began(String),
    Acknowledged(String),
    /// A write to this file.
    Wrote(String),
    /// A sync of this file or folder that began after every write above.
    Synced(String),
    /// A sync that failed.
    Failed,
    Renamed,
}

impl Event {
    pub(super) fn wrote(file: &str) -> Event {
        Event::Wrote(short(file))
    }

    pub(super) fn synced(file: &str) -> Event {
        Event::Synced(short(file))
    }
}

/// Names a file by what matters here.
pub(super) fn short(path: &str) -> String {
    let known = ["log.redb", "marker", "snapshots", ".tmp"];
    let name = known.into_iter().find(|name| path.ends_with(name));
    name.unwrap_or(path).to_owned()
}

impl Trace {
    /// Runs one test of this binary in a process of its own.
    pub(super) fn of_child(test: &str, folder: &Path, options: &[&str]) -> Trace {
        let output = tempfile::NamedTempFile::new().unwrap();
        let calls = "trace=write,pwrite64,pwritev,pwritev2,fsync,fdatasync,rename,renameat,renameat2";
        let status = Process::new("strace")
            .args(["-f", "-y", "-s", "64", "-e", calls, "-o"])
            .arg(output.path())
            .args(options)
            .arg(env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(CHILD_FOLDER, folder)
            .output()
            .expect("this test needs strace");
        let text = fs::read_to_string(output.path()).unwrap();
        assert!(status.status.success(), "{}\n{text}", String::from_utf8_lossy(&status.stderr));
        Trace::parse(&text)
    }

    pub(super) fn parse(text: &str) -> Trace {
        let mut events = Vec::new();
        // Calls that another thread's interrupted in the listing, with how many events there were at their beginning.
        let mut open = std::collections::BTreeMap::<&str, (&str, usize)>::new();
        for line in text.lines() {
            let (thread, call) = line.split_once(' ').unwrap_or((line, ""));
            let call = call.trim_start();
            if call.ends_with("<unfinished ...>") {
                open.insert(thread, (call, events.len()));
                // What is written is visible to others from now on, and the acknowledgement counts from its beginning.
                if let Some(event @ (Event::Wrote(_) | Event::Began(_) | Event::Acknowledged(_))) =
                    event(call, "= 0")
                {
                    events.push(event);
                }
            } else if call.starts_with("<...") {
                let Some((begun, at)) = open.remove(thread) else { continue };
                match event(begun, call) {
                    // A sync covers only what was written before it began: unless nothing was written meanwhile, it is
                    // noted where it began.
                    Some(Event::Synced(file)) => {
                        let covers = !events[at..].contains(&Event::Wrote(file.clone()));
                        if covers {
                            events.push(Event::Synced(file));
                        }
                    }
                    Some(event @ (Event::Failed | Event::Renamed)) => events.push(event),
                    _ => {}
                }
            } else if let Some(event) = event(call, call) {
                events.push(event);
            }
        }
        Trace { events }
    }

    /// The events from the beginning of something up to its acknowledgement.
    pub(super) fn between(&self, what: &str) -> &[Event] {
        let position = |wanted: Event| self.events.iter().position(|event| *event == wanted);
        let begin = position(Event::Began(what.to_owned())).unwrap_or_else(|| panic!("no {what}: {self:#?}"));
        let end =
            position(Event::Acknowledged(what.to_owned())).unwrap_or_else(|| panic!("no {what}: {self:#?}"));
        &self.events[begin..end]
    }
}

/// The event that a call is, given its text and the end of its result.
pub(super) fn event(call: &str, result: &str) -> Option<Event> {
    let (name, arguments) = call.split_once('(')?;
    let file = || Some(short(arguments.split_once('<')?.1.split_once('>')?.0));
    match name {
        "fsync" | "fdatasync" if result.contains("EIO") => Some(Event::Failed),
        "fsync" | "fdatasync" => file().map(Event::Synced),
        "rename" | "renameat" | "renameat2" => Some(Event::Renamed),
        "write" | "pwrite64" | "pwritev" | "pwritev2" => {
            let marked = |mark: &str| Some(call.split_once(mark)?.1.split_once(';')?.0.to_owned());
            let began = marked("\"BEGIN ").map(Event::Began);
            began.or_else(|| marked("\"ACK ").map(Event::Acknowledged)).or_else(|| file().map(Event::Wrote))
        }
        _ => None,
    }
}

/// The place behind the first such event from a place on.
pub(super) fn after(events: &[Event], from: usize, wanted: &Event, what: &str) -> usize {
    let found = events[from..].iter().position(|event| event == wanted);
    from + 1 + found.unwrap_or_else(|| panic!("{what}: no {wanted:?} where it should be: {events:#?}"))
}

/// Every write to the file is followed by a sync of it.
pub(super) fn nothing_unsynced(events: &[Event], file: &str, what: &str) {
    let last = |wanted: Event| events.iter().rposition(|event| *event == wanted);
    assert!(
        last(Event::wrote(file)) < last(Event::synced(file)),
        "{what}: {file} was not synced: {events:#?}"
    );
}
