//! `sagittal inspect`: what is in a file, and the memory that a model needs.

pub mod tables;

use std::path::{Path, PathBuf};

use sagittal::Size;
use sagittal::inspect::{Inspected, ModelFacts, inspect};
use sagittal::pipeline::report::Report;
use sagittal::{
    Checkpoint, ErrorKind, Model, Request, Result, embedded,
    guidance::{Guidance, Sag},
};

use crate::support::device;
use crate::support::flags::Flags;
use crate::support::notes;
use crate::support::remedy;
use crate::support::terminal;
use crate::support::value;

const EXAMPLES: &str = "\
Examples:
  What made this picture?
    sagittal inspect out.png
  What is this file, and would it run on this GPU in 4 GiB?
    sagittal inspect v1-5.safetensors --size 768x512 --batch-size 4 --max-memory 4096";

/// Show what is in a file: a model, a LoRA, an embedding, a picture, a latent
///
/// Models: family, prediction, storage, networks, and the device memory for pictures of some sizes
/// with and without SAG, as the planner computes it. Pictures: the settings of sagittal, A1111 and
/// others, the nodes of ComfyUI. Latents: shape and values.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "More with --help.")]
pub struct Args {
    /// File, or folder in the diffusers layout [default: the small built-in emoji model]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Picture size to estimate memory for; may be repeated [default: 512x512, 768x768 and 1024x1024]
    #[arg(long, value_name = "WxH", value_parser = value::size, help_heading = "Memory")]
    size: Vec<(usize, usize)>,
    /// Pictures per batch
    #[arg(long, value_name = "N", default_value = "1", value_parser = value::batch_size)]
    #[arg(allow_negative_numbers = true, help_heading = "Memory")]
    batch_size: usize,
    /// Skip memory estimates, which need a device
    #[arg(long, help_heading = "Memory")]
    no_memory: bool,
    #[command(flatten)]
    compute: device::Compute,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Memory and work for a picture size.
pub struct Need {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// With SAG, and without.
    pub plans: [Result<Report>; 2],
}

/// Memory and work on a device.
pub struct Memory {
    /// The device's name.
    pub device: String,
    /// How weights and activations are stored there.
    pub precision: &'static str,
    /// Pictures per batch.
    pub batch: usize,
    /// For each size.
    pub needs: Vec<Need>,
}

/// Runs the command.
///
/// # Errors
/// Those of [`inspect`]; [`ErrorKind::Usage`](sagittal::ErrorKind::Usage) for an invalid
/// size.
pub fn run(args: &Args) -> Result<()> {
    for (height, width) in &args.size {
        Request::new("", Size::new(*width, *height)).check()?;
    }
    let inspected = match &args.file {
        Some(file) => inspect(file)?,
        None => sagittal::inspect::checkpoint(embedded::checkpoint()?)?,
    };
    let memory = match &inspected {
        Inspected::Model(facts) if facts.obstacle.is_none() && !args.no_memory => memory(args, facts)?,
        _ => {
            warn_of_idle_flags(args, matches!(inspected, Inspected::Model(_)))?;
            None
        }
    };
    if args.json {
        terminal::event("facts", tables::as_json(&inspected, memory.as_ref()));
    } else {
        tables::as_text(&inspected, memory.as_ref()).iter().for_each(terminal::result);
    }
    Ok(())
}

/// Warns of flags for a memory estimate where none is made.
fn warn_of_idle_flags(args: &Args, is_model: bool) -> Result<()> {
    const OF_MEMORY: [&str; 11] = [
        "size",
        "batch_size",
        "device",
        "matrices",
        "no_matrices",
        "table",
        "precision",
        "vae_precision",
        "vae_tile",
        "chunk",
        "max_memory",
    ];
    let why = match is_model {
        true => "no memory is estimated",
        false => "memory is estimated for models alone",
    };
    let idle = OF_MEMORY.map(|id| (id, why.to_owned()));
    notes::warn_of_idle_flags(args.json, &idle, &Flags::typed().given::<Args>()?);
    Ok(())
}

/// The memory estimate, if there is a device, whose kernels decide it. A wrong flag is an error.
fn memory(args: &Args, facts: &ModelFacts) -> Result<Option<Memory>> {
    match planned(args, &facts.file) {
        Ok(memory) => Ok(Some(memory)),
        Err(e) if e.kind() == ErrorKind::Usage => Err(e),
        Err(e) => {
            terminal::say(format!("no memory estimate: {}", remedy::text(&e)));
            Ok(None)
        }
    }
}

fn planned(args: &Args, file: &Path) -> Result<Memory> {
    let checkpoint = match args.file {
        Some(_) => Checkpoint::open(file)?,
        None => embedded::checkpoint()?,
    };
    let model = Model::new(args.compute.device.open()?, checkpoint, args.compute.options(None))?;
    let usual = [(512, 512), (768, 768), (1024, 1024)];
    let sizes = if args.size.is_empty() { &usual[..] } else { &args.size };
    let need = |&(height, width): &(usize, usize)| {
        let plan = |sag: Sag| {
            let request = Request {
                batch: args.batch_size,
                limits: args.compute.limits(),
                guidance: Guidance::new(7.0).with(sag),
                ..Request::new("", Size::new(width, height))
            };
            model.report(&request)
        };
        Need { width, height, plans: [plan(Sag::default()), plan(Sag::off())] }
    };
    Ok(Memory {
        device: model.engine().gpu().device().adapter_info().name,
        precision: model.precision().name(),
        batch: args.batch_size,
        needs: sizes.iter().map(need).collect(),
    })
}
