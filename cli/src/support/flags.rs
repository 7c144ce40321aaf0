//! The flags of a command as they were typed, to be parsed again with others before or after them: a value from a
//! picture or a grid's axis then goes through the same checks as one from the command line.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Command};
use sagittal::{Error, Result};

/// The arguments after a command's name.
#[derive(Debug, Clone)]
pub struct Flags(Vec<OsString>);

impl Flags {
    /// Of the running program.
    pub fn typed() -> Self {
        // Arguments before the command's name are flags without values.
        let mut typed = std::env::args_os().skip(1).skip_while(|a| a.to_string_lossy().starts_with('-'));
        typed.next();
        Self(typed.collect())
    }

    /// These flags with `before` in front of them and `behind` after them. The last value of a
    /// single-valued flag counts; of a repeatable flag all do.
    pub fn with(&self, before: &[OsString], behind: &[OsString]) -> Self {
        Self([before, &self.0, behind].concat())
    }

    /// Parses the flags as those of `A`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](sagittal::ErrorKind::Usage) with the first paragraph of clap's message.
    pub fn parse<A: clap::Args>(&self) -> Result<A> {
        let matches = self.matches::<A>()?;
        A::from_arg_matches(&matches).map_err(|e| wrong(&e))
    }

    /// Names of the flags that were typed.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn given<A: clap::Args>(&self) -> Result<BTreeSet<String>> {
        let matches = self.matches::<A>()?;
        let typed = |id: &&str| matches.value_source(id) == Some(ValueSource::CommandLine);
        Ok(matches.ids().map(clap::Id::as_str).filter(typed).map(str::to_owned).collect())
    }

    fn matches<A: clap::Args>(&self) -> Result<ArgMatches> {
        command::<A>().try_get_matches_from(&self.0).map_err(|e| wrong(&e))
    }
}

/// A clap command with the flags of `A` alone.
pub fn command<A: clap::Args>() -> Command {
    // The program's own flag may be given after the command.
    let verbose = clap::Arg::new("verbose").short('v').long("verbose").action(ArgAction::Count);
    A::augment_args(Command::new("sagittal").no_binary_name(true).args_override_self(true)).arg(verbose)
}

/// The parser's message without its word "error", tips and usage.
fn wrong(error: &clap::Error) -> Error {
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim).take_while(|l| !l.starts_with("Usage")).collect();
    let kept: Vec<&str> = lines.into_iter().filter(|l| !l.is_empty() && !l.starts_with("For more")).collect();
    Error::usage(kept.join(" ").trim_start_matches("error: ").to_owned())
}
