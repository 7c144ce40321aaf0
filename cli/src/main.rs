//! The command line of sagittal: text to pictures with Self-Attention Guidance.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable))]

mod commands;
mod support;

use std::collections::HashSet;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use clap::{Parser, Subcommand};
use sagittal::{Error, ErrorKind};

use commands::{bench, devices, generate, grid, inspect, run, verify};
use support::{args, terminal};

const LONG_ABOUT: &str = "\
Stable Diffusion with exact Self-Attention Guidance, on any GPU.

Start with
  sagittal generate -p \"fox, 3d style\"
which draws with the small model inside the program. With a checkpoint of your own:
  sagittal generate -m v1-5-pruned-emaonly.safetensors -p \"a fox in the snow\"";

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  2    a flag or its value is wrong
  3    an input file is missing or bad
  4    the device failed, memory ran out, or a result is not finite
  130  cancelled with Ctrl-C

Environment:
  SAGITTAL_LOG    what to log on stderr, such as `debug` or `sagittal=trace`
  SAGITTAL_CACHE  folder of compiled kernels [default: in the system's folder of caches]
  WGPU_BACKEND    which graphics API to use: vulkan, metal or dx12";

/// Stable Diffusion with exact Self-Attention Guidance, on any GPU
#[derive(Parser)]
#[command(version, long_about = LONG_ABOUT, after_help = EXIT_CODES, max_term_width = 110)]
#[command(arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print long lists too, and log to stderr; repeat it for more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    Generate(Box<args::Args>),
    Grid(Box<grid::Args>),
    Run(Box<run::Args>),
    Inspect(Box<inspect::Args>),
    Bench(bench::Args),
    /// Check that this GPU and its driver compute correctly
    Verify(verify::Args),
    /// List the GPUs and what they can do
    Devices(devices::Args),
}

impl Command {
    /// Whether events are printed as JSON.
    fn json(&self) -> bool {
        match self {
            Self::Generate(args) => args.json,
            Self::Grid(args) => args.generate.json,
            Self::Run(args) => args.json,
            Self::Inspect(args) => args.json,
            Self::Bench(args) => args.json,
            Self::Verify(args) => args.json,
            Self::Devices(args) => args.json,
        }
    }
}

/// Parses, runs, and turns the outcome into an exit code: the only place that ends the program.
fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // A closed pipe is not an error.
            let _ = e.print();
            if e.use_stderr() && std::env::args_os().any(|arg| arg == "--json") {
                terminal::usage_event(&e);
            }
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2));
        }
    };
    let json = cli.command.json();
    log_to_stderr(cli.verbose, json);
    if cli.verbose > 0 {
        terminal::set_verbose();
    }
    let done = match &cli.command {
        Command::Generate(args) => generate::run(args).map(|()| true),
        Command::Grid(args) => grid::run(args).map(|()| true),
        Command::Run(args) => run::run(args).map(|()| true),
        Command::Inspect(args) => inspect::run(args).map(|()| true),
        Command::Bench(args) => bench::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Devices(args) => devices::run(args).map(|()| true),
    };
    match terminal::with_error_event(json, done) {
        Ok(_) if terminal::lost() => {
            terminal::say("error: a part of the result could not be written to standard output");
            ExitCode::from(3)
        }
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(4),
        Err(e) => {
            terminal::error(&e);
            ExitCode::from(exit_code(&e))
        }
    }
}

/// The exit code of an error.
fn exit_code(error: &Error) -> u8 {
    match error.kind() {
        ErrorKind::Usage => 2,
        ErrorKind::File | ErrorKind::Model => 3,
        ErrorKind::Cancelled => 130,
        _ => 4,
    }
}

/// Logs of this crate and of wgpu: our warnings, each once, all errors, more if asked for. The commands themselves
/// warn of prompt syntax that other programs read differently.
fn log_to_stderr(verbose: u8, json: bool) {
    let filter = match verbose {
        0 => "sagittal=warn,sagittal::prompts=off,error",
        1 => "sagittal=info,sagittal::prompts=off,warn",
        _ => "sagittal=debug,sagittal::prompts=off,info",
    };
    let mut logger = env_logger::Builder::from_env(env_logger::Env::new().filter_or("SAGITTAL_LOG", filter));
    // A file that is opened for several purposes warns each time.
    let printed = Mutex::new(HashSet::new());
    logger.format(move |out, record| {
        let text = record.args().to_string();
        if record.level() != log::Level::Warn || !record.target().starts_with("sagittal") {
            return writeln!(out, "[{} {}] {text}", record.level(), record.target());
        }
        if !printed.lock().unwrap_or_else(PoisonError::into_inner).insert(text.clone()) {
            return Ok(());
        }
        // A program that reads events must not miss what a person sees.
        if json {
            terminal::warning_event(&text);
        }
        writeln!(out, "warning: {text}")
    });
    // It fails only if a logger is set already, which is fine.
    let _ = logger.try_init();
}
