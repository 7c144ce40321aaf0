//! `sagittal bench --tune`: a table of what kernels cost on the adapter at hand.

use std::path::PathBuf;

use sagittal::gpu::Gpu;
use sagittal::internals::bench::Bench;
use sagittal::internals::bench::tune::{self, Change, Progress, Whole};
use sagittal::internals::kernels::CostTable;
use sagittal::{Error, Result};
use serde_json::json;

use super::Args;
use crate::support::output::Series;
use crate::support::{device, terminal};

/// Where the table goes.
pub enum Table {
    /// The adapter's file in the folder of what is kept, which is replaced.
    Kept(PathBuf),
    /// A file of the caller.
    File(Series),
}

impl Table {
    /// By the flags.
    ///
    /// # Errors
    /// If the file exists and is not to be replaced, or if there is no folder.
    pub fn new(args: &Args) -> Result<Self> {
        if let Some(path) = &args.device.table {
            let file = Series::new(path, 1, args.force);
            file.check()?;
            return Ok(Self::File(file));
        }
        match device::cache_folder() {
            Some(folder) if !args.device.no_pipeline_cache => Ok(Self::Kept(folder)),
            _ => {
                Err(Error::usage("there is no folder to keep the table in").hint("name a file with --table"))
            }
        }
    }

    fn write(&self, gpu: &Gpu, costs: &CostTable) -> Result<PathBuf> {
        match self {
            Self::Kept(folder) => gpu.keep_costs_in(folder, costs),
            Self::File(file) => file.write(0, costs.to_text().as_bytes()),
        }
    }
}

/// Measures, and writes the table.
///
/// # Errors
/// If the device has no timestamps.
pub fn run(args: &Args, bench: &Bench<'_>, table: &Table) -> Result<bool> {
    let costs = tune::tune(bench, &mut |progress| match progress {
        Progress::Change(change) => print_change(args, &change),
        Progress::Whole(whole) => print_whole(args, &whole),
        // The enum is non-exhaustive.
        _ => {}
    })?;
    let path = table.write(bench.gpu, &costs)?;
    let (path, hash) = (path.display().to_string(), costs.hash());
    match args.json {
        true => terminal::event(
            "table",
            json!({ "file": path, "hash": hash, "operations": costs.measured.len() }),
        ),
        false => terminal::result(format!("{path}: {} operations, table {hash}", costs.measured.len())),
    }
    Ok(true)
}

fn print_change(args: &Args, Change { network, operation, layers, ways, .. }: &Change) {
    let [(old, before), (new, after)] = ways;
    if args.json {
        let way = |name: &str, us: f64| json!({ "kernel": name, "us": us });
        let event = json!({
            "network": network, "operation": operation, "layers": layers,
            "old": way(old, *before), "new": way(new, *after),
        });
        return terminal::event("quicker", event);
    }
    terminal::result_now(format!(
        "  {operation} ({layers} in {network}): {new} {after:.1} us, where {old} took {before:.1}"
    ));
}

fn print_whole(args: &Args, Whole { network, rows, times: [old, new], kept, .. }: &Whole) {
    if args.json {
        let event = json!({
            "network": network, "rows": rows, "old_ms": old.ms, "new_ms": new.ms, "kept": kept,
        });
        return terminal::event("tuned", event);
    }
    let fate = if *kept { "" } else { "; not used" };
    terminal::result_now(format!(
        "{network} b{rows}: {:.3} ms, before {:.3} ({:.3}){fate}",
        new.ms,
        old.ms,
        new.ms / old.ms
    ));
}
