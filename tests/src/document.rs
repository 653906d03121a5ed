//! Yields the code blocks of Markdown documents, and the commands in them.
//!
//! # Shape
//! ```text
//! sh        one script
//! console   `$ command`, continued after `\`, then what it prints; `...` stands for lines that are left out
//! ```

/// A fenced code block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Line of the opening fence, counted from 1.
    pub line: usize,
    /// The word after the fence.
    pub language: String,
    /// The lines between the fences, without the fence's indentation.
    pub text: String,
}

/// A command of a `console` block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What is typed.
    pub typed: String,
    /// The lines that the document shows below it.
    pub printed: Vec<String>,
}

/// Returns the blocks of a document, in order.
///
/// # Panics
/// When a block is not closed.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, Block)> = None;
    for (index, line) in text.lines().enumerate() {
        let indentation = line.len() - line.trim_start().len();
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(language)) => {
                let block =
                    Block { line: index + 1, language: language.trim().to_owned(), text: String::new() };
                open = Some((indentation, block));
            }
            (Some(_), Some(_)) => blocks.extend(open.take().map(|(_, block)| block)),
            (Some((indentation, block)), None) => {
                block.text.push_str(line.get(*indentation..).unwrap_or_default());
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed: {open:?}");
    blocks
}

impl Block {
    /// The commands of a `console` block, with what they print.
    pub fn commands(&self) -> Vec<Command> {
        let mut commands: Vec<Command> = Vec::new();
        let mut continues = false;
        for line in self.text.lines() {
            let typed = line.strip_prefix("$ ").or(continues.then_some(line));
            match (typed, commands.last_mut()) {
                (Some(typed), Some(command)) if continues => {
                    command.typed.push('\n');
                    command.typed.push_str(typed);
                }
                (Some(typed), _) => {
                    commands.push(Command { typed: typed.to_owned(), printed: Vec::new() });
                }
                (None, Some(command)) => command.printed.push(line.to_owned()),
                (None, None) => panic!("line {}: the block begins without a command", self.line),
            }
            continues = typed.is_some() && line.ends_with('\\');
        }
        commands
    }
}

/// Replaces what changes from run to run: digests by `D`, versions and numbers by `N`. Blanks count as one.
pub fn steady(line: &str) -> String {
    line.split_whitespace().map(steady_word).collect::<Vec<_>>().join(" ")
}

fn steady_word(word: &str) -> String {
    if word.len() >= 16 && word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return "D".into();
    }
    // A version stands alone or after `=`.
    let (before, value) = word.rsplit_once('=').map_or(("", word), |(before, value)| (before, value));
    if value.starts_with(|c: char| c.is_ascii_digit()) && value.contains(['-', '+', '~']) {
        return format!("{before}N");
    }
    let mut steady = String::new();
    for character in word.chars() {
        match character {
            '0'..='9' | '.' if steady.ends_with('N') => {}
            '0'..='9' => steady.push('N'),
            other => steady.push(other),
        }
    }
    steady
}

/// The first line that a document shows and a run did not print, in this order; `...` skips lines.
pub fn missing<'a>(shown: &'a [String], printed: &str) -> Option<&'a str> {
    let mut printed = printed.lines().map(steady);
    shown
        .iter()
        .filter(|line| *line != "...")
        .find(|line| {
            let line = steady(line);
            !printed.any(|one| one == line)
        })
        .map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_their_commands_are_read() {
        let text = "a\n```console\n$ one \\\n    two\nout 1.2 s\n...\n$ three\n```\n   ```sh\n   x\n     y\n   ```\n";
        let [console, script] = &blocks(text)[..] else { panic!() };
        assert_eq!((console.line, console.language.as_str()), (2, "console"));
        let commands = console.commands();
        assert_eq!(commands[0].typed, "one \\\n    two");
        assert_eq!(commands[0].printed, ["out 1.2 s", "..."]);
        assert_eq!(commands[1].typed, "three");
        assert_eq!(script.text, "x\n  y\n");
    }

    #[test]
    #[should_panic(expected = "not closed")]
    fn an_open_block_is_refused() {
        blocks("```sh\nx\n");
    }

    #[test]
    fn what_is_shown_must_be_printed_in_order() {
        let shown = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let printed =
            "built in 1.9 s\n  disk.raw   62.0 MiB  sha256 00112233445566778899\n  lib=2.41-1+deb13u4\n";
        assert_eq!(missing(&shown(&["built in 2.00 s", "...", "  lib=2.42-12+deb13u5"]), printed), None);
        assert_eq!(missing(&shown(&["  disk.raw 7.5 MiB sha256 ffeeddccbbaa99887766"]), printed), None);
        let wrong = shown(&["  lib=2.41-1+deb13u4", "built in 2.00 s"]);
        assert_eq!(missing(&wrong, printed), Some("built in 2.00 s"));
        assert_eq!(missing(&shown(&["built with 1.9 s"]), printed), Some("built with 1.9 s"));
    }
}
