//! Yields the last lines of a guest's serial console and the units that failed by it, and passes on all output as it
//! arrives.
//!
//! # Source
//! ECMA-48, 5.3 to 5.6 and 8.3 (escape sequences, control sequences, control strings); systemctl(1), `list-units`.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::process::ChildStdin;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustix::termios::{InputModes, LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Number of lines kept.
const LINES: usize = 25;
/// Number of characters kept per line.
const LENGTH: usize = 200;
/// Number of failed units kept: a guest can print any number of names.
const UNITS: usize = 50;
/// What `systemctl list-units` prints between the name of a failed unit and its description, columns aside.
const FAILED: [&str; 3] = ["loaded", "failed", "failed"];

/// The last lines of a console, without cursor movements.
#[derive(Debug, Default)]
pub struct Lines {
    whole: VecDeque<String>,
    partial: String,
    escape: Escape,
    lossy: Vec<u8>,
    failed: Vec<String>,
}

/// The console's position in an escape sequence of ECMA-48.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    Outside,
    /// After ESC.
    Begun,
    /// After ESC and a byte of 0x20 to 0x2f: more of them, then a final byte.
    Intermediate,
    /// After ESC and `[`: parameters, then a final byte of 0x40 to 0x7e (ECMA-48, 5.4).
    Control,
    /// In a control string, such as the palette that systemd resets by `ESC ]104 BEL`: up to ESC `\`, or BEL as
    /// terminals allow (ECMA-48, 5.6).
    String,
    /// After ESC in a control string.
    StringEnd,
}

impl Escape {
    /// The position after a byte.
    fn next(self, byte: u8) -> Self {
        match (self, byte) {
            // In any state, ESC begins anew and a line feed ends what is broken.
            (Escape::String, 0x1b) => Escape::StringEnd,
            (_, 0x1b) => Escape::Begun,
            (_, b'\n') => Escape::Outside,
            (Escape::Begun, b'[') => Escape::Control,
            (Escape::Begun, b']' | b'P' | b'X' | b'^' | b'_') => Escape::String,
            (Escape::Begun | Escape::Intermediate, 0x20..=0x2f) => Escape::Intermediate,
            (Escape::Control, 0x40..=0x7e) | (Escape::String, 0x07) => Escape::Outside,
            (Escape::Control | Escape::String, _) => self,
            (Escape::Outside | Escape::Begun | Escape::Intermediate | Escape::StringEnd, _) => {
                Escape::Outside
            }
        }
    }
}

/// Returns the unit that a line says failed: `report.service loaded failed failed Report`, after any prefix.
fn failed(line: &str) -> Option<&str> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let found = words.windows(4).find(|words| words.get(1..) == Some(&FAILED[..]))?;
    found.first().copied().filter(|unit| unit.contains('.'))
}

impl Lines {
    /// Adds console output.
    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let before = self.escape;
            self.escape = before.next(byte);
            match (before, byte) {
                (_, b'\n') => self.end_line(),
                (Escape::Outside, b'\t' | 0x20..=0x7e | 0x80..) if self.lossy.len() < LENGTH => {
                    self.lossy.push(if byte == b'\t' { b' ' } else { byte });
                }
                _ => {}
            }
        }
        self.partial = String::from_utf8_lossy(&self.lossy).trim().to_owned();
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.lossy).trim().to_owned();
        self.lossy.clear();
        if line.is_empty() {
            return;
        }
        if let Some(unit) = failed(&line)
            && self.failed.len() < UNITS
            && !self.failed.iter().any(|one| one == unit)
        {
            self.failed.push(unit.to_owned());
        }
        if self.whole.len() == LINES {
            self.whole.pop_front();
        }
        self.whole.push_back(line);
    }

    /// Returns the last line that is not blank.
    pub fn last(&self) -> &str {
        if self.partial.is_empty() { self.whole.back().map_or("", String::as_str) } else { &self.partial }
    }

    /// Returns the last lines, oldest first.
    pub fn all(&self) -> Vec<String> {
        let partial = Some(&self.partial).filter(|line| !line.is_empty());
        self.whole.iter().chain(partial).cloned().collect()
    }

    /// Returns the units that failed, in the order in which the console named them.
    pub fn failed(&self) -> &[String] {
        &self.failed
    }
}

/// A sink for all console output.
pub type Sink = Box<dyn Write + Send>;

/// A console that is being read.
#[derive(Debug)]
pub struct Console {
    lines: Arc<Mutex<Lines>>,
    reader: Option<JoinHandle<io::Result<()>>>,
}

impl Console {
    /// Reads a console to its end on another thread, and passes every byte to the sinks.
    pub fn read(mut stream: impl Read + Send + 'static, mut sinks: Vec<Sink>) -> Self {
        let lines = Arc::new(Mutex::new(Lines::default()));
        let kept = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            let mut outcome = Ok(());
            let mut buffer = [0; 4 << 10];
            loop {
                let count = match stream.read(&mut buffer) {
                    Ok(0) => return outcome,
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return outcome.and(Err(error)),
                };
                let bytes = buffer.get(..count).unwrap_or_default();
                if let Ok(mut lines) = kept.lock() {
                    lines.feed(bytes);
                }
                // A failing sink must not stop the guest: drop it, and report its error.
                sinks.retain_mut(|sink| match sink.write_all(bytes).and_then(|()| sink.flush()) {
                    Ok(()) => true,
                    Err(error) => {
                        if outcome.is_ok() {
                            outcome = Err(error);
                        }
                        false
                    }
                });
            }
        });
        Console { lines, reader: Some(reader) }
    }

    /// Returns the last line that is not blank.
    pub fn last(&self) -> String {
        self.lines.lock().map_or(String::new(), |lines| lines.last().to_owned())
    }

    /// Returns the last lines, oldest first.
    pub fn all(&self) -> Vec<String> {
        self.lines.lock().map_or(Vec::new(), |lines| lines.all())
    }

    /// Returns the units that failed, in the order in which the console named them.
    pub fn failed(&self) -> Vec<String> {
        self.lines.lock().map_or(Vec::new(), |lines| lines.failed().to_vec())
    }

    /// Waits until the console is closed.
    ///
    /// # Errors
    /// The error of the first sink that failed.
    pub fn finish(&mut self) -> io::Result<()> {
        let Some(reader) = self.reader.take() else { return Ok(()) };
        reader.join().unwrap_or_else(|_| Err(io::Error::other("the reader of the console panicked")))
    }
}

/// The terminal's keys, passed to the guest; drop restores the terminal.
#[derive(Debug)]
pub struct Keys {
    before: Termios,
}

impl Keys {
    /// Passes each key to a guest at once, without echo, except those for interrupt (Ctrl-C) and stop
    /// (Ctrl-Z).
    ///
    /// # Errors
    /// When standard input is not a terminal.
    pub fn pass_to(mut guest: ChildStdin) -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut while_passing = before.clone();
        while_passing.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        while_passing.input_modes.remove(InputModes::ICRNL | InputModes::IXON);
        tcsetattr(io::stdin(), OptionalActions::Now, &while_passing)?;
        thread::spawn(move || {
            let mut buffer = [0; 256];
            while let Ok(count @ 1..) = io::stdin().read(&mut buffer) {
                let bytes = buffer.get(..count).unwrap_or_default();
                if guest.write_all(bytes).and_then(|()| guest.flush()).is_err() {
                    return;
                }
            }
        });
        Ok(Keys { before })
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // Nobody is left to report an error to.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_and_empty_lines_are_left_out() {
        let mut lines = Lines::default();
        for byte in b"\x1b[2J\x1b[01;01HBdsDxe: loading\r\n\r\n\x1b[0m[  OK  ] Started\x1b[K\r\nlogin: " {
            lines.feed(&[*byte]);
        }
        assert_eq!(lines.all(), ["BdsDxe: loading", "[  OK  ] Started", "login:"]);
        assert_eq!(lines.last(), "login:");
        lines.feed(b"\n");
        assert_eq!(lines.last(), "login:");
    }

    #[test]
    fn control_strings_leave_nothing_behind() {
        let mut lines = Lines::default();
        for bytes in [
            &b"\x1b]104\x07\x1b]0;title\x1b\\\x1b(B\x1bP1$r\x1b\\one\n"[..],
            b"\x1b]8;;never ended\ntwo\n",
            b"\x1b[1\x1b[0mthree\n",
        ] {
            lines.feed(bytes);
        }
        assert_eq!(lines.all(), ["one", "two", "three"]);
    }

    #[test]
    fn units_that_fail_are_named_once() {
        let mut lines = Lines::default();
        lines.feed(b"[    9.123456] systemctl[210]:   hello.service  loaded failed failed Say hello\r\n");
        lines.feed(b"hello.service loaded failed failed Say hello\na.mount loaded failed failed /a\n");
        lines.feed(b"b.service loaded active exited B\nnone loaded failed failed\nloaded failed failed\n");
        assert_eq!(lines.failed(), ["hello.service", "a.mount"]);
        for number in 0..100 {
            lines.feed(format!("{number}.service loaded failed failed\n").as_bytes());
        }
        assert_eq!(lines.failed().len(), UNITS);
    }

    #[test]
    fn only_so_many_lines_and_characters_are_kept() {
        let mut lines = Lines::default();
        for number in 0..100 {
            lines.feed(format!("line {number} {}\n", "x".repeat(1 << 10)).as_bytes());
        }
        lines.feed(&vec![0xff; 1 << 20]);
        let all = lines.all();
        assert_eq!(all.len(), LINES + 1);
        assert!(all.iter().all(|line| line.chars().count() <= LENGTH));
        assert!(all.first().is_some_and(|line| line.starts_with("line 75 ")));
    }

    #[test]
    fn a_sink_that_fails_does_not_keep_the_rest_from_the_others() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console");
        let file = std::fs::File::create(&path).unwrap();
        let mut console = Console::read(&b"one\ntwo\n"[..], vec![Box::new(Full), Box::new(file)]);
        assert_eq!(console.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\n");
        assert_eq!(console.all(), ["one", "two"]);
    }
}
