//! Yields how a run of the program ended: its exit code, and its output.

use std::process::Command;

/// A run that has ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Outcome {
    /// Runs a command to its end.
    ///
    /// # Panics
    /// When the command cannot be started.
    #[track_caller]
    pub fn of(command: &mut Command) -> Outcome {
        let output = command.output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Returns the outcome if the run succeeded.
    ///
    /// # Panics
    /// When the run failed.
    #[track_caller]
    pub fn succeeded(self) -> Outcome {
        assert_eq!(self.code, Some(0), "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// Asserts that the program refused with this exit code, printed `error:` and `hint:`, and named each of `parts`.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn refused(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        let says = |begin: &str| self.stderr.lines().filter(|line| line.starts_with(begin)).count();
        assert_eq!(says("error: "), 1, "one error: {}", self.stderr);
        assert_eq!(says("hint: "), 1, "one hint: {}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in: {}", self.stderr);
        }
    }
}
