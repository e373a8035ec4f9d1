//! The control flow of a script: lists of commands, negation and `if`, as far as the text shows
//! which commands succeed.

use super::reason::Invalid;
use super::shell::{End, Simple, commands};

/// Whether a command ended with success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Status {
    Success,
    Failure,
    #[default]
    Unknown,
}

impl Status {
    pub(super) fn of(success: bool) -> Self {
        if success { Self::Success } else { Self::Failure }
    }

    fn negated(self) -> Self {
        match self {
            Self::Success => Self::Failure,
            Self::Failure => Self::Success,
            Self::Unknown => Self::Unknown,
        }
    }
}

/// Words of a shell before a command that change nothing here: the commands of a loop or a function
/// run once.
const KEYWORDS: [&str; 8] = ["while", "until", "do", "done", "{", "}", "time", "exec"];

/// The state of a script between two commands.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// The status of the last command, and what joins the next one to it.
    last: (Status, End),
    /// The open `if`s.
    branches: Vec<Branch>,
}

/// An `if` up to its `fi`.
#[derive(Debug, Default)]
struct Branch {
    /// Whether a branch of it has run.
    is_taken: bool,
    /// Whether the commands here run; those of a condition may.
    runs: Status,
}

impl Script {
    /// Runs the commands of a line that a shell would run, or may run; whether it skips one.
    pub(super) fn run(
        &mut self,
        line: &str,
        mut run: impl FnMut(&Simple<'_>) -> Status,
    ) -> Result<bool, Invalid> {
        let mut has_skipped = false;
        for command in commands(line)? {
            let (last, joint) = self.last;
            let is_joined = match joint {
                End::And => last != Status::Failure,
                End::Or => last != Status::Success,
                End::List | End::Pipe => true,
            };
            let end = command.end;
            let status = if is_joined { self.command(command, &mut run) } else { None };
            has_skipped |= status.is_none();
            self.last = (status.unwrap_or(last), end);
        }
        Ok(has_skipped)
    }

    /// A command after words like `if`, `then` and `!`; `None` if its branch does not run.
    fn command(
        &mut self,
        mut command: Simple<'_>,
        run: &mut impl FnMut(&Simple<'_>) -> Status,
    ) -> Option<Status> {
        let (mut is_negated, last) = (false, self.last.0);
        let mut is_word = |word: &str| match word {
            "!" => {
                is_negated = !is_negated;
                true
            }
            word => KEYWORDS.contains(&word) || self.branch(word, last),
        };
        let count = command.words.iter().take_while(|word| is_word(word)).count();
        command.words.drain(..count);
        if command.words.is_empty() {
            return Some(last);
        }
        if self.branches.iter().any(|branch| branch.runs == Status::Failure) {
            return None;
        }
        let status = run(&command);
        Some(if is_negated { status.negated() } else { status })
    }

    /// Follows a word of an `if`; `last` is the status of its condition. Whether it is one.
    fn branch(&mut self, word: &str, last: Status) -> bool {
        match word {
            "if" => self.branches.push(Branch::default()),
            "fi" => drop(self.branches.pop()),
            "then" | "elif" | "else" => {
                let Some(branch) = self.branches.last_mut() else { return true };
                branch.runs = match word {
                    _ if branch.is_taken => Status::Failure,
                    "then" => last,
                    "else" => branch.runs.negated(),
                    _ => Status::Unknown,
                };
                branch.is_taken |= branch.runs == Status::Success;
            }
            _ => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands that run, where `t` succeeds, `f` fails, and nobody knows of others.
    fn run(lines: &[&str]) -> String {
        let (mut script, mut ran) = (Script::default(), String::new());
        for line in lines {
            let status = |command: &Simple<'_>| {
                ran.push_str(&command.words.join(" "));
                match command.words[0].as_ref() {
                    "t" => Status::Success,
                    "f" => Status::Failure,
                    _ => Status::Unknown,
                }
            };
            script.run(line, status).unwrap();
        }
        ran
    }

    #[test]
    fn lists_and_branches_run_as_in_a_shell() {
        assert_eq!(run(&["t && a || b"]), "tab");
        assert_eq!(run(&["f && a; b"]), "fb");
        assert_eq!(run(&["t || a", "f || b"]), "tfb");
        assert_eq!(run(&["f ||", "a"]), "fa");
        assert_eq!(run(&["! t && a; ! f && b"]), "tfb");
        assert_eq!(run(&["if t; then a; else b; fi; c"]), "tac");
        assert_eq!(run(&["if ! t", "then a", "else b", "fi", "c"]), "tbc");
        assert_eq!(run(&["if f; then", "if t; then a; fi; b", "fi; c"]), "fc");
        assert_eq!(run(&["if x; then a; else b; fi"]), "xab");
        assert_eq!(run(&["if t; then a; elif b; then c; else d; fi"]), "ta");
        assert_eq!(run(&["if f; then a; elif t; then c; else d; fi"]), "ftc");
        assert_eq!(run(&["if f; then a; elif f; then c; else d; fi"]), "ffd");
        assert_eq!(run(&["while t; do a; done", "g() { b; }"]), "tagb");
    }
}
