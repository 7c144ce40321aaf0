//! `sagittal verify`: whether this device and its driver compute correctly.

use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use sagittal::checkpoint::Manifest;
use sagittal::gpu::Gpu;
use sagittal::internals::kernels::Precision;
use sagittal::internals::verify::{
    Finding, Options, Outcome, Report, Set, Tensor, Verifier, compact_sets, write_all,
};
use sagittal::{Error, Result};
use serde_json::json;

use crate::support::args::{F16_NAMES, F32_NAMES, PredictionChoice};
use crate::support::device;
use crate::support::interrupt;
use crate::support::output::Series;
use crate::support::terminal;

const EXAMPLES: &str = "\
Examples:
  Check the GPU:
    sagittal verify
  With f16 storage, on the second adapter:
    sagittal verify --precision f16 --device 1
  A full golden set, saving every computed tensor:
    sagittal verify --set tests/golden/tiny-sd1.json --save computed.safetensors";

/// Check that this GPU and its driver compute correctly.
///
/// Compares results with tensors that ComfyUI computed on a CPU. Prints those that differ by more than
/// their tolerance, then totals; with -v every difference, its tolerance and the share of the tolerance.
/// The exit code is 0 only if all are within their tolerance.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "More with --help.")]
pub struct Args {
    /// Golden set, with its FILE.safetensors beside it; may be repeated [default: a small built-in set]
    #[arg(long = "set", value_name = "FILE.json")]
    pub sets: Vec<PathBuf>,
    /// Checkpoint the sets were made with [default: generated weights for the set's family]
    #[arg(short, long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// What the network predicts [default: read from the checkpoint]
    #[arg(long, value_name = "KIND")]
    pub prediction: Option<PredictionChoice>,
    /// How weights and activations are stored, which sets the tolerances; arithmetic is f32
    #[arg(long, value_name = "KIND", default_value = "f32", ignore_case = true)]
    pub precision: Storage,
    /// Every kind of kernels that the adapter can run, each in its precisions
    #[arg(long, conflicts_with_all = ["precision", "matrices", "save"])]
    pub all_paths: bool,
    /// Tensor names and shapes of a model family that is not built in; may be repeated
    #[arg(long, value_name = "FILE.json")]
    pub manifest: Vec<PathBuf>,
    /// Folder of manifests, all of which are used; may be repeated
    #[arg(long, value_name = "DIR")]
    pub manifests: Vec<PathBuf>,
    /// Do not count tests that this version cannot run as failures
    #[arg(long)]
    pub allow_unsupported: bool,
    #[command(flatten)]
    pub device: device::Flags,
    /// Write every computed tensor, named as in the set
    #[arg(long, value_name = "OUT.safetensors")]
    pub save: Option<PathBuf>,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
    /// Print events on stdout, one JSON object per line; messages stay on stderr
    #[arg(long)]
    pub json: bool,
}

/// `--precision`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Storage {
    /// 4 bytes per value
    #[value(aliases = F32_NAMES)]
    F32,
    /// 2 bytes per value
    #[value(aliases = F16_NAMES)]
    F16,
}

/// Runs the sets; returns whether all results are within their tolerance.
pub fn run(args: &Args) -> Result<bool> {
    let out = args.save.as_ref().map(|path| Series::new(path, 1, args.force || is_empty_file(path)));
    if let Some(out) = &out {
        out.check()?;
    }
    let sets = match args.sets.as_slice() {
        [] => compact_sets()?,
        files => files.iter().map(Set::open).collect::<Result<_>>()?,
    };
    if args.force && args.save.is_none() {
        terminal::warning(args.json, "--force has no effect: it is for --save");
    }
    let cancel = interrupt::impatient_token();
    let mut tensors = Vec::new();
    let holds = if args.all_paths {
        let mut all_hold = true;
        for (precision, gpu) in args.device.open()?.paths() {
            print_path(args, precision, &gpu);
            let open = || Ok(gpu.clone());
            let mut verifier = Verifier::new(&open, options(args, precision)?, cancel.flag());
            all_hold &= verify(args, &sets, precision, &mut verifier, &mut tensors)?;
        }
        all_hold
    } else {
        let (open, precision) = (|| args.device.open(), args.precision.into());
        let mut verifier = Verifier::new(&open, options(args, precision)?, cancel.flag());
        verify(args, &sets, precision, &mut verifier, &mut tensors)?
    };
    if let Some(out) = &out {
        out.write(0, &write_all(&tensors)?)?;
    }
    Ok(holds)
}

/// Runs `sets` and prints what came of them; adds what was computed to `tensors`. Whether all holds.
fn verify(
    args: &Args,
    sets: &[Set],
    precision: Precision,
    verifier: &mut Verifier<'_>,
    tensors: &mut Vec<(String, Tensor)>,
) -> Result<bool> {
    let mut tally = Tally::default();
    for set in sets {
        print_set(args, set, precision);
        let report = verifier.verify(set, &mut |finding| print_finding(args, finding))?;
        tally.count(&report, args.allow_unsupported);
        tensors.extend(report.tensors);
    }
    print_summary(args, &tally, verifier.gpu());
    Ok(tally.holds)
}

impl From<Storage> for Precision {
    fn from(storage: Storage) -> Self {
        match storage {
            Storage::F32 => Precision::F32,
            Storage::F16 => Precision::F16,
        }
    }
}

fn print_path(args: &Args, precision: Precision, gpu: &Gpu) {
    let (path, precision) = (gpu.profile().to_string(), precision.name());
    match args.json {
        true => terminal::event("path", json!({ "kernels": path, "precision": precision })),
        false => terminal::result(format!("kernels: {path}, {precision}")),
    }
}

/// An empty file, with which a program may have reserved the name, may be replaced.
fn is_empty_file(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() == 0)
}

fn manifest(path: &PathBuf) -> Result<Manifest> {
    let text = fs::read_to_string(path).map_err(|e| Error::io(path, "cannot read the manifest", e))?;
    Manifest::parse(&text).map_err(|e| e.file(path))
}

/// Every FILE.json of a folder. Those of networks that are not a complete model are skipped with a warning.
fn manifests_in(folder: &Path) -> Result<Vec<Manifest>> {
    let cannot = |e| Error::io(folder, "cannot read the folder of manifests", e);
    let mut files = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<PathBuf>>>())
        .map_err(cannot)?;
    files.retain(|path| path.extension().is_some_and(|e| e == "json") && path.is_file());
    files.sort();
    if files.is_empty() {
        return Err(Error::usage("the folder of manifests contains none").file(folder).expected("FILE.json"));
    }
    let mut manifests = Vec::new();
    for file in &files {
        match manifest(file) {
            Ok(manifest) => manifests.push(manifest),
            Err(e) => log::warn!("skipped: {e}"),
        }
    }
    Ok(manifests)
}

fn options(args: &Args, precision: Precision) -> Result<Options> {
    let mut manifests: Vec<Manifest> = args.manifest.iter().map(manifest).collect::<Result<_>>()?;
    for folder in &args.manifests {
        manifests.extend(manifests_in(folder)?);
    }
    Ok(Options {
        precision,
        model: args.model.clone(),
        prediction: args.prediction.map(Into::into),
        manifests,
    })
}

/// Totals of all sets.
#[derive(Default)]
struct Tally {
    compared: usize,
    failed: usize,
    unsupported: usize,
    /// The largest share of a tolerance, and the tensor it belongs to.
    worst: Option<(f64, String)>,
    holds: bool,
    sets: usize,
}

impl Tally {
    fn count(&mut self, report: &Report, allow_unsupported: bool) {
        let holds = report.holds(allow_unsupported);
        self.holds = holds && (self.holds || self.sets == 0);
        self.sets += 1;
        for finding in &report.findings {
            match &finding.outcome {
                Outcome::Unsupported(_) => self.unsupported += 1,
                Outcome::Failed(_) => self.failed += 1,
                Outcome::Compared(comparison) => {
                    self.compared += 1;
                    self.failed += usize::from(!comparison.holds());
                    if self.worst.as_ref().is_none_or(|(share, _)| comparison.share() > *share) {
                        self.worst = Some((comparison.share(), finding.name.clone()));
                    }
                }
            }
        }
    }
}

fn print_set(args: &Args, set: &Set, precision: Precision) {
    let file = set.file().display();
    if args.json {
        terminal::event("set", json!({ "set": file.to_string() }));
    } else {
        terminal::result(format!("{file}, {}", precision.name()));
    }
}

fn print_finding(args: &Args, finding: &Finding) {
    if args.json {
        terminal::event("finding", finding_as_json(finding));
        return;
    }
    let name = &finding.name;
    let fine = match &finding.outcome {
        Outcome::Compared(c) => c.holds(),
        Outcome::Unsupported(_) => args.allow_unsupported,
        Outcome::Failed(_) => false,
    };
    if fine && !terminal::verbose() {
        return;
    }
    terminal::result(match &finding.outcome {
        Outcome::Compared(c) => format!(
            "  {name:<48} {:<5} {:>8.1e} of {:>7.1e} {:>7}  {}",
            c.measure.name(),
            c.difference,
            c.tolerance,
            percent(c.share()),
            if c.holds() { "ok" } else { "FAIL" }
        ),
        Outcome::Failed(why) => format!("  {name:<48} FAIL: {why}"),
        Outcome::Unsupported(why) => format!("  {name:<48} unsupported: {why}"),
    });
}

fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1} %", 100.0 * share) } else { "over".into() }
}

fn finding_as_json(finding: &Finding) -> serde_json::Value {
    // JSON has no infinity: it becomes null.
    match &finding.outcome {
        Outcome::Compared(c) => json!({
            "name": finding.name, "outcome": if c.holds() { "ok" } else { "fail" },
            "measure": c.measure.name(), "difference": c.difference, "tolerance": c.tolerance, "share": c.share(),
        }),
        Outcome::Failed(why) => json!({ "name": finding.name, "outcome": "fail", "reason": why }),
        Outcome::Unsupported(why) => json!({ "name": finding.name, "outcome": "unsupported", "reason": why }),
    }
}

fn print_summary(args: &Args, tally: &Tally, gpu: Option<&Gpu>) {
    let device = gpu.map(|gpu| gpu.device().adapter_info());
    let (worst, worst_name) = tally.worst.clone().unzip();
    if args.json {
        terminal::event(
            "verified",
            json!({
                "holds": tally.holds, "compared": tally.compared, "failed": tally.failed,
                "unsupported": tally.unsupported, "worst_share": worst, "worst": worst_name,
                "device": device.as_ref().map(|d| d.name.clone()), "driver": device.map(|d| d.driver_info),
            }),
        );
        return;
    }
    if let Some(device) = device {
        terminal::result(format!("{} ({} {})", device.name, device.driver, device.driver_info));
    }
    let verdict = if tally.holds { "passed" } else { "FAILED" };
    let worst = tally
        .worst
        .as_ref()
        .map(|(share, name)| format!("; largest share of a tolerance {}, by {name}", percent(*share)));
    terminal::result(format!(
        "{verdict}: {} compared, {} failed, {} unsupported{}",
        tally.compared,
        tally.failed,
        tally.unsupported,
        worst.unwrap_or_default()
    ));
}
