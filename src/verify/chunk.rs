//! Batches in portions: each picture must come out as if it were alone, however the rows of a step
//! are split into network calls.

use super::behaviour;
use super::case::Case;
use super::compare::Comparison;
use super::context::{self, Context};
use super::run::compare_samples;
use crate::Result;
use crate::guidance::Conditioning;
use crate::latent::{Latent, VaeLatent};
use crate::pipeline::{Limits, Sampling, Schedule};
use crate::plan::chunk::ChunkPolicy;
use crate::sampler::Sampler;

/// Portions that are tried besides a batch in one call.
const ROWS: [usize; 3] = [1, 2, 3];

/// Steps in which they are: every step calls the networks alike.
const STEPS: usize = 2;

pub(super) fn verify(context: &mut Context<'_, '_>) -> Result<()> {
    for case in context.set.root().list("truth") {
        let name = format!("truth.{}", case.name()?);
        context.case(&name, |c| verify_truth(c, &case, &name))?;
    }
    for case in context.set.root().list("comfyui_behaviour") {
        behaviour::verify(context, &case)?;
    }
    Ok(())
}

/// Samples of a batch whose pictures the reference made one by one, each from its row of the noise.
fn verify_truth(context: &mut Context<'_, '_>, case: &Case<'_>, name: &str) -> Result<()> {
    let set = context.set;
    let noise = set.latent(&format!("{name}.noise"))?;
    let samples = format!("{name}.samples");
    let expected = set.latent(&samples)?;
    let conditioning = context.conditioning(case)?;
    let steps = case.size("steps")?;
    let whole = sample(context, case, &conditioning, (noise.clone(), steps), ChunkPolicy::Auto)?;
    compare_samples(context, case, &samples, &whole, &expected)?;
    // To the bit: a difference between portions would be a difference between machines.
    let steps = steps.min(STEPS);
    let whole = sample(context, case, &conditioning, (noise.clone(), steps), ChunkPolicy::Auto)?;
    for rows in ROWS {
        let split = sample(context, case, &conditioning, (noise.clone(), steps), ChunkPolicy::Rows(rows))?;
        let faults = differing(&whole, split.data());
        context.findings.compared(&format!("{samples} ({rows} rows a call)"), Comparison::of_faults(faults));
    }
    // A picture of a batch is the picture of its row of the noise, to the bit as well.
    let mut alone = Vec::new();
    for image in 0..noise.batch() {
        let picture = sample(context, case, &conditioning, (noise.row(image), steps), ChunkPolicy::Auto)?;
        alone.extend_from_slice(picture.data());
    }
    let faults = differing(&whole, &alone);
    context.findings.compared(&format!("{samples} (each picture alone)"), Comparison::of_faults(faults));
    Ok(())
}

fn sample(
    context: &Context<'_, '_>,
    case: &Case<'_>,
    conditioning: &Conditioning,
    (noise, steps): (Latent, usize),
    chunk: ChunkPolicy,
) -> Result<Latent> {
    let schedule = Schedule::new(case.text("scheduler")?.parse()?, steps);
    let run = Sampling {
        guidance: context::guidance(case)?,
        solver: case.text("sampler")?.parse::<Sampler>()?.into(),
        seed: case.integer("seed")?,
        levels: schedule.into(),
        limits: Limits { chunk, memory: None },
        ..Sampling::new(noise)
    };
    context.model.sample(conditioning, &run, &mut |_| {}, context.cancel).map(VaeLatent::into_inner)
}

/// How many values differ in any bit.
fn differing(a: &Latent, b: &[f32]) -> usize {
    a.data().iter().zip(b).filter(|(a, b)| a.to_bits() != b.to_bits()).count()
        + a.data().len().abs_diff(b.len())
}
