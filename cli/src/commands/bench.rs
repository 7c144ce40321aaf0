//! `sagittal bench`: measures the speed of the device, and where the time goes.

pub mod report;
pub mod tables;
mod tune;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use sagittal::gpu::Gpu;
use sagittal::internals::bench::profile::{self, Ceiling, Network};
use sagittal::internals::bench::rows::{self, Choice};
use sagittal::internals::bench::sweep::Axis;
use sagittal::internals::bench::{Bench, Effort, shapes, sweep};
use sagittal::{Error, ErrorKind, Result};

use crate::support::args::PrecisionChoice;
use crate::support::device;
use crate::support::interrupt;
use crate::support::terminal;
use report::Files;
use tune::Table;

const EXAMPLES: &str = "\
Examples:
  Measurements to compare with other programs:
    sagittal bench --rows
  Only the UNet's, with more samples:
    sagittal bench --rows --only UNet --n 50
  Where the time of a UNet call of two rows goes, by kernel class and layer:
    sagittal bench --profile
  The same for the VAE, with the peak rates of another card:
    sagittal bench --profile --model vae --rows-per-call 1 --tflops 165 --gbps 1008
  Single products, convolutions and attentions:
    sagittal bench --shapes
  Rows and sweep into a folder, with plots:
    sagittal bench --report speed
  Which kernels are quickest on this adapter, for all commands from now on; or in a file to share:
    sagittal bench --tune
    sagittal bench --tune --table my-card.json";

/// Measure how fast this device is.
///
/// Networks have their real shapes and generated weights: no model file is needed. Lines of --rows
/// are `ROW name | ms | min | max | n | MiB`: ms is the median, MiB the peak memory of all buffers.
/// Names that end in GPU are GPU time from timestamp queries, all others are wall time.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "More with --help.")]
#[command(group(clap::ArgGroup::new("what").required(true)))]
pub struct Args {
    /// Network calls, steps, and complete generations with text encoder and VAE
    #[arg(long, group = "what", help_heading = "What to measure")]
    pub rows: bool,
    /// Time by kernel class and by layer, with TFLOP/s, GB/s and share of the peak
    #[arg(long, group = "what", help_heading = "What to measure")]
    pub profile: bool,
    /// Single matrix products, convolutions and attentions in SD 1.5's shapes
    #[arg(long, group = "what", help_heading = "What to measure")]
    pub shapes: bool,
    /// Cost by batch size, picture size and rows per chunk
    #[arg(long, group = "what", help_heading = "What to measure")]
    pub sweep: bool,
    /// Which kernels are quickest here: writes a table that other commands choose by, and prints what it gains
    #[arg(long, group = "what", help_heading = "What to measure")]
    pub tune: bool,
    /// Write --rows and --sweep to a folder: report.md, batch.svg and size.svg
    #[arg(long, value_name = "DIR", group = "what", help_heading = "What to measure")]
    pub report: Option<PathBuf>,

    /// Only rows, shapes or axes of the sweep (batch, size, chunk rows) whose names contain this text; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub only: Vec<String>,
    /// Samples of a network call [default: 20; fewer if they take over 10 s]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub n: Option<u32>,
    /// Samples of a complete generation [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub runs: Option<u32>,
    /// Skip measurements that would start later than this
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    pub deadline: Option<f64>,
    /// Small networks and pictures: a check in seconds that everything runs; its times mean nothing
    #[arg(long)]
    pub tiny: bool,

    /// Network of --profile [default: sd15]
    #[arg(long, value_name = "NAME")]
    pub model: Option<NetworkChoice>,
    /// Rows of the call of --profile [default: 2, the VAE's 1]
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub rows_per_call: Option<u32>,
    /// Layers that --profile lists, longest first [default: 12; with -v all]
    #[arg(long, value_name = "N")]
    pub layers: Option<usize>,
    /// Peak arithmetic rate of the device [default: 790, that of an H100 in f16: pass your card's]
    #[arg(long, value_name = "TFLOP/S", value_parser = positive)]
    pub tflops: Option<f64>,
    /// Peak memory bandwidth of the device [default: 3000, that of an H100: pass your card's]
    #[arg(long, value_name = "GB/S", value_parser = positive)]
    pub gbps: Option<f64>,

    #[command(flatten)]
    pub device: device::Flags,
    /// How weights and activations are stored
    #[arg(long, value_name = "KIND", default_value = "auto", ignore_case = true)]
    pub precision: PrecisionChoice,
    /// Replace existing files
    #[arg(long)]
    pub force: bool,
    /// Print events on stdout, one JSON object per line; messages stay on stderr
    #[arg(long)]
    pub json: bool,
}

/// `--model`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum NetworkChoice {
    /// SD 1.5's UNet
    Sd15,
    /// SDXL's UNet
    Sdxl,
    /// SD 1.5's VAE decoder
    Vae,
    /// SD 1.5's text encoder
    Clip,
}

/// Layers in the table of a profile.
const LAYERS: usize = 12;

impl Args {
    /// Rejects flags without effect. clap's own `requires` is ignored if the required flag conflicts with one that
    /// was given.
    fn check(&self) -> Result<()> {
        let of_profile = [
            ("--model", self.model.is_some()),
            ("--rows-per-call", self.rows_per_call.is_some()),
            ("--layers", self.layers.is_some()),
            ("--tflops", self.tflops.is_some()),
            ("--gbps", self.gbps.is_some()),
        ];
        let of_profile = of_profile.map(|(flag, given)| (flag, given, self.profile, "--profile"));
        let rows = self.rows || self.report.is_some();
        let others = [
            (
                "--force",
                self.force,
                self.report.is_some() || self.tune && self.device.table.is_some(),
                "--report",
            ),
            (
                "--only",
                !self.only.is_empty(),
                rows || self.shapes || self.sweep,
                "--rows, --report, --shapes or --sweep",
            ),
            ("--runs", self.runs.is_some(), rows, "--rows or --report"),
            ("--deadline", self.deadline.is_some(), rows || self.sweep, "--rows, --report or --sweep"),
        ];
        match of_profile.into_iter().chain(others).find(|(_, given, fits, _)| *given && !*fits) {
            None => Ok(()),
            Some((flag, .., with)) => {
                Err(Error::usage(format!("{flag} has no effect here")).expected(format!("it with {with}")))
            }
        }
    }
}

/// A number above 0.
fn positive(text: &str) -> Result<f64> {
    let value = text.parse().ok().filter(|v: &f64| v.is_finite() && *v > 0.0);
    value.ok_or_else(|| Error::usage("not a number above 0"))
}

/// Measures; returns whether everything succeeded.
///
/// # Errors
/// [`ErrorKind::Usage`] for unknown names; [`ErrorKind::Device`] if timestamps are needed
/// and the device has none.
pub fn run(args: &Args) -> Result<bool> {
    args.check()?;
    let begun = Instant::now();
    let files = args.report.as_ref().map(|folder| Files::new(folder, args.force)).transpose()?;
    let cancel = interrupt::impatient_token();
    let table = args.tune.then(|| Table::new(args)).transpose()?;
    // The table is written, not read.
    let gpu = args.device.open_with(args.device.table.as_deref().filter(|_| !args.tune))?;
    let bench = bench(args, &gpu, cancel.flag());
    print_device(args, &bench);
    if let Some(table) = table {
        return tune::run(args, &bench, &table);
    }
    let deadline = args
        .deadline
        .and_then(|s| Duration::try_from_secs_f64(s).ok())
        .and_then(|after| begun.checked_add(after));
    let (axes, other): (Vec<_>, Vec<_>) = args.only.iter().cloned().partition(|o| names_axis(o));
    if args.sweep && !other.is_empty() {
        return Err(Error::usage("the sweep has no such axis")
            .expected(format!("a part of one of: {}", Axis::ALL.map(Axis::name).join(", ")))
            .found(other.join(", ")));
    }
    // A report has both.
    let only = if args.report.is_some() { other } else { [axes, other].concat() };
    let choice = Choice { only, deadline };
    if let Some(files) = files {
        return report::run(args, &bench, &choice, &files);
    }
    if args.profile {
        return run_profile(args, &bench);
    }
    if args.shapes {
        return run_shapes(args, &bench);
    }
    if args.sweep {
        return run_sweep(args, &bench, deadline).map(|(_, good)| good);
    }
    run_rows(args, &bench, &choice).map(|(_, good)| good)
}

fn bench<'a>(args: &Args, gpu: &'a Gpu, cancel: &'a AtomicBool) -> Bench<'a> {
    let usual = if args.tiny { Effort::least() } else { Effort::default() };
    let effort = Effort {
        calls: args.n.map_or(usual.calls, |n| n as usize),
        runs: args.runs.map_or(usual.runs, |n| n as usize),
        ..usual
    };
    Bench { gpu, precision: args.precision.precision(), tiny: args.tiny, effort, cancel }
}

/// Times are meaningless without the device.
fn print_device(args: &Args, bench: &Bench<'_>) {
    let info = bench.gpu.device().adapter_info();
    let precision = bench.precision().name();
    if args.json {
        terminal::event("device", tables::device_as_json(&info, precision));
    } else {
        terminal::say(format!("{}, {}", tables::device(&info), precision));
    }
}

/// Measures rows; returns them and whether none failed.
pub fn run_rows(args: &Args, bench: &Bench<'_>, choice: &Choice) -> Result<(Vec<rows::Row>, bool)> {
    let (mut measured, mut good) = (Vec::new(), true);
    rows::measure(bench, choice, &mut |outcome| match outcome {
        rows::Outcome::Measured(row) => {
            match args.json {
                true => terminal::event("row", tables::row_as_json(&row)),
                false => terminal::result_now(tables::row(&row)),
            }
            measured.push(row);
        }
        rows::Outcome::Skipped { name, why } => terminal::say(format!("SKIP ({why}) {name}")),
        rows::Outcome::Failed { name, error } => {
            good = false;
            terminal::say(format!("FAIL {name}: {error}"));
        }
        // The enum is non-exhaustive.
        _ => {}
    })?;
    Ok((measured, good))
}

/// Whether the name of an axis of the sweep contains `text`.
fn names_axis(text: &str) -> bool {
    Axis::ALL.iter().any(|a| a.name().contains(text))
}

/// Measures the named axes of the sweep, or all; returns its points and whether none failed.
pub fn run_sweep(
    args: &Args,
    bench: &Bench<'_>,
    deadline: Option<Instant>,
) -> Result<(Vec<sweep::Point>, bool)> {
    let (mut points, mut good) = (Vec::new(), true);
    let mut axis = None;
    let all = !args.only.iter().any(|o| names_axis(o));
    let named = |axis: Axis| args.only.iter().any(|o| axis.name().contains(o.as_str()));
    let mut steps = sweep::steps(bench.tiny);
    steps.retain(|s| all || named(s.axis));
    sweep::measure(bench, &steps, deadline, &mut |step, point| match point {
        Ok(point) => {
            if args.json {
                terminal::event("point", tables::point_as_json(&point));
            } else {
                if axis.replace(step.axis) != Some(step.axis) {
                    terminal::result_now(tables::sweep_head(step.axis));
                }
                terminal::result_now(tables::point(&point));
            }
            points.push(point);
        }
        Err(error) => {
            // Running out of memory or time is an expected outcome, not a failure.
            good &= matches!(error.kind(), ErrorKind::Memory | ErrorKind::Usage);
            terminal::say(format!("SKIP {} {}: {error}", step.axis.name(), step.value()));
        }
    })?;
    Ok((points, good))
}

fn run_profile(args: &Args, bench: &Bench<'_>) -> Result<bool> {
    let network = match args.model.unwrap_or(NetworkChoice::Sd15) {
        NetworkChoice::Sd15 => Network::Sd15,
        NetworkChoice::Sdxl => Network::Sdxl,
        NetworkChoice::Vae => Network::Vae,
        NetworkChoice::Clip => Network::Clip,
    };
    let usual = if network == Network::Vae { 1 } else { 2 };
    let rows = args.rows_per_call.map_or(usual, |n| n as usize);
    let default = Ceiling::default();
    let ceiling = Ceiling {
        flops: args.tflops.map_or(default.flops, |t| t * 1e12),
        bytes: args.gbps.map_or(default.bytes, |g| g * 1e9),
    };
    let profile = profile::profile(bench, network, rows)?;
    if args.json {
        tables::profile_as_json(&profile, &ceiling)
            .into_iter()
            .for_each(|(name, e)| terminal::event(name, e));
    } else {
        let usual = if terminal::verbose() { usize::MAX } else { LAYERS };
        tables::profile(&profile, &ceiling, args.layers.unwrap_or(usual)).iter().for_each(terminal::result);
    }
    Ok(true)
}

fn run_shapes(args: &Args, bench: &Bench<'_>) -> Result<bool> {
    let wanted = |s: &shapes::Shape| {
        args.only.is_empty() || args.only.iter().any(|o| s.to_string().contains(o.as_str()))
    };
    let all: Vec<shapes::Shape> = shapes::all(bench.tiny).into_iter().filter(wanted).collect();
    if all.is_empty() {
        let names: Vec<String> = shapes::all(bench.tiny).iter().map(ToString::to_string).collect();
        return Err(Error::usage("no shape has such a name")
            .expected(format!("a part of one of: {}", names.join("; ")))
            .found(args.only.join(", ")));
    }
    let mut good = true;
    if !args.json {
        terminal::result_now(tables::shapes_head());
    }
    shapes::measure_all(bench, &all, &mut |shape, measured| match measured {
        Ok(m) if args.json => terminal::event("shape", tables::shape_as_json(&m)),
        Ok(m) => terminal::result_now(tables::shape(&m)),
        Err(error) => {
            good = false;
            terminal::say(format!("FAIL {shape}: {error}"));
        }
    })?;
    // Failures after Ctrl-C are caused by it.
    match bench.cancel.load(std::sync::atomic::Ordering::Relaxed) {
        true => Err(Error::cancelled()),
        false => Ok(good),
    }
}
