//! Whole runs: noise in, samples out, with the masks of every evaluation.
//!
//! The latents of a run are as ComfyUI returns them, divided by the latent scale.

use super::case::Case;
use super::compare::{Comparison, Yardstick, spread};
use super::context::{self, Context};
use super::tensor::{Tensor, Values};
use super::tolerance;
use crate::Result;
use crate::guidance::Guided;
use crate::latent::{Latent, Latents, Value};
use crate::network::{DeviceBackend, DeviceSink};
use crate::plan::chunk::ChunkPolicy;
use crate::sampler::{self, Predicted, Predictor, SampleOptions, Sampler, Scheduler};

/// Activations of all rows that are computed together.
const BUDGET: Option<u64> = Some(2 << 30);

pub(super) fn verify(context: &mut Context<'_, '_>) -> Result<()> {
    for case in context.set.root().list("run") {
        let name = format!("run.{}", case.name()?);
        let (sampler, scheduler) = (case.text("sampler")?.parse(), case.text("scheduler")?.parse());
        match (sampler, scheduler) {
            (Ok(sampler), Ok(scheduler)) => {
                context.case(&name, |c| verify_run(c, &case, &name, sampler, scheduler))?;
            }
            (Err(e), _) | (_, Err(e)) => context.findings.unsupported(&name, e.to_string()),
        }
    }
    Ok(())
}

/// Schedule, samples and masks of a run.
fn verify_run(
    context: &mut Context<'_, '_>,
    case: &Case<'_>,
    name: &str,
    sampler: Sampler,
    scheduler: Scheduler,
) -> Result<()> {
    let set = context.set;
    let (steps, denoise) = (case.size("steps")?, case.number("denoise").unwrap_or(1.0));
    let sigmas = scheduler.sigmas(context.model.discrete(), steps, denoise, sampler.discard_penultimate())?;
    let sigmas_name = format!("{name}.sigmas");
    if let Some(expected) = set.find(&sigmas_name) {
        let by = Yardstick::relative(tolerance::SIGMAS);
        context.findings.compare(&sigmas_name, Tensor::f32(&[sigmas.len()], sigmas.clone()), expected, by);
    }
    let samples_name = format!("{name}.samples");
    let expected = set.latent(&samples_name)?;
    let masks = given_masks(context, case, name)?;
    let run = sample(context, case, &noise(context, case, name)?, sampler, &sigmas, masks)?;
    compare_samples(context, case, &samples_name, &run.samples, &expected)?;
    compare_masks(context, name, &run);
    Ok(())
}

/// The starting noise: a tensor that the case names, or the case's own.
fn noise(context: &Context<'_, '_>, case: &Case<'_>, name: &str) -> Result<Latent> {
    match case.text("noise") {
        Ok(shared) => context.set.latent(shared),
        Err(_) => context.set.latent(&format!("{name}.noise")),
    }
}

/// The set's own masks of a run, where rounding may flip bits: samples at CFG scale 1 have a limit
/// in f16 too, and a single bit moves them beyond it.
fn given_masks(context: &Context<'_, '_>, case: &Case<'_>, name: &str) -> Result<Option<Masks>> {
    let mask_name = format!("{name}.mask");
    let wanted = context.tolerances.masks_may_flip() && case.number("cfg")? == 1.0;
    let Some(mask) = context.set.find(&mask_name).filter(|_| wanted) else { return Ok(None) };
    let size = case.sizes("mask_size")?;
    let (Values::U8(bits), &[rows, columns], Some(evaluations)) =
        (&mask.values, size.as_slice(), mask.shape.first().filter(|n| **n > 0))
    else {
        return Err(context.set.misshapen(&mask_name, "u8 masks and their size in the case"));
    };
    let each = bits.len() / evaluations;
    if rows * columns == 0 || each == 0 || !each.is_multiple_of(rows * columns) {
        return Err(context.set.misshapen(&mask_name, format!("masks of {rows}x{columns}")));
    }
    Ok(Some(Masks { size: (rows, columns), bits: bits.chunks_exact(each).map(<[u8]>::to_vec).collect() }))
}

/// Masks of an attention map's size, by evaluation with SAG.
struct Masks {
    size: (usize, usize),
    bits: Vec<Vec<u8>>,
}

/// What came of a run.
struct RunResult {
    samples: Latent,
    /// Column sums of every evaluation with SAG, `[evaluation][picture, position]`.
    columns: Vec<Vec<f32>>,
}

/// Samples from `noise`, with an eye on the attention: what [`crate::pipeline::Model::sample`] does,
/// which keeps no record.
fn sample(
    context: &Context<'_, '_>,
    case: &Case<'_>,
    noise: &Latent,
    sampler: Sampler,
    sigmas: &[f32],
    masks: Option<Masks>,
) -> Result<RunResult> {
    let model = context.model;
    let scale = model.config().latent_scale;
    // Without a latent the start is empty: all zeros, of the noise's shape.
    let start = match case.text("latent") {
        Ok(name) => context.set.latent(name)?.scaled(scale),
        Err(_) => noise.scaled(0.0),
    };
    let x = match sigmas.first() {
        Some(first) => sampler::initial(noise, &start, *first, model.discrete().sigma_max())?,
        None => start,
    };
    let conditioning = context.conditioning(case)?;
    let weights = model.unet_weights(context.cancel)?;
    let sink = DeviceSink::new(model.unet(&weights), ChunkPolicy::Auto, BUDGET, context.cancel);
    let backend = Box::new(DeviceBackend::new(sink, &model.unet(&weights)));
    let mut guided = Guided::on(backend, &conditioning, model.discrete(), context::guidance(case)?)?;
    let x = guided.latents().bring(&x)?;
    let mut recorder = Recorder { guided: &mut guided, columns: Vec::new(), masks };
    let options = SampleOptions { seed: case.integer("seed").unwrap_or(0), ..Default::default() };
    let end = sampler::sample_on(sampler, &mut recorder, x, sigmas, &options, &mut |_| Ok(()))?;
    let samples = recorder.latents().read(&end.scaled(1.0 / f64::from(scale)))?;
    Ok(RunResult { samples, columns: recorder.columns })
}

/// Guidance that keeps the column sums it goes by.
struct Recorder<'r, 'a> {
    guided: &'r mut Guided<'a>,
    columns: Vec<Vec<f32>>,
    masks: Option<Masks>,
}

impl Recorder<'_, '_> {
    /// The mask that the set has for this evaluation.
    fn mask(&self, [batch, _, height, width]: [usize; 4]) -> Option<Vec<u8>> {
        let masks = self.masks.as_ref()?;
        let bits = masks.bits.get(self.columns.len())?;
        let fits = bits.len() == batch * masks.size.0 * masks.size.1;
        fits.then(|| super::step::enlarged(bits, masks.size, (batch, height, width)))
    }
}

impl Predictor for Recorder<'_, '_> {
    fn latents(&mut self) -> &mut dyn Latents {
        self.guided.latents()
    }

    fn predict(&mut self, x: &Value, sigma: f32) -> Result<Predicted> {
        let mask = self.mask(x.shape());
        let evaluated = self.guided.evaluate_value(x, sigma, mask.as_deref())?;
        if let Some(columns) = self.guided.read_columns(&evaluated)? {
            self.columns.push(columns.into_iter().flat_map(|c| c.values).collect());
        }
        Ok(evaluated.into())
    }

    fn keep_uncond(&mut self) {
        self.guided.keep_uncond();
    }
}

/// Holds samples against the set's, by the limit for the run's CFG scale.
pub(super) fn compare_samples(
    context: &mut Context<'_, '_>,
    case: &Case<'_>,
    name: &str,
    found: &Latent,
    expected: &Latent,
) -> Result<()> {
    let s = spread(expected.data());
    let sensitivity = case.number("sensitivity_1e6").unwrap_or(0.0);
    match context.tolerances.run(case.number("cfg")?, s, sensitivity) {
        Some(tolerance) => {
            let by = Yardstick::spread_of(s, tolerance);
            context.findings.compare(name, found.into(), &expected.into(), by);
        }
        None => {
            let faults = found.data().iter().filter(|v| !v.is_finite()).count();
            context.findings.compared(&format!("{name} (finite)"), Comparison::of_faults(faults));
            context.findings.keep(name, found.into());
        }
    }
    Ok(())
}

/// Masks of the attention map's own size, one for each evaluation with SAG.
fn compare_masks(context: &mut Context<'_, '_>, name: &str, run: &RunResult) {
    let name = format!("{name}.mask");
    let Some(expected) = context.set.find(&name) else { return };
    // SAG of no effect computes no masks. In f16 bits flip, and the sets do not say which may.
    if run.columns.is_empty() || context.tolerances.masks_may_flip() {
        return;
    }
    let bits: Vec<u8> = run.columns.iter().flatten().map(|c| u8::from(*c > 1.0)).collect();
    let shape = [run.columns.len(), bits.len() / run.columns.len()];
    context.findings.compare(&name, Tensor::u8(&shape, bits), expected, Yardstick::equal());
}
