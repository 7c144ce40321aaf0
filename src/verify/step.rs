//! One guided evaluation: predictions, column sums, mask, degraded prediction, result.
//!
//! The latents of a step are in the UNet's scale, unlike those of a run.

use super::case::Case;
use super::compare::{Yardstick, spread};
use super::context::{self, Context};
use super::tensor::{Tensor, Values};
use super::unet::compare_mask;
use crate::guidance::{Evaluation, Guided, SagEvaluation, Term, sag::nearest};
use crate::latent::Latent;
use crate::network::{DeviceBackend, DeviceSink};
use crate::plan::chunk::ChunkPolicy;
use crate::{Error, Result};

pub(super) fn verify(context: &mut Context<'_, '_>) -> Result<()> {
    for case in context.set.root().list("step") {
        let name = format!("step.{}", case.name()?);
        context.case(&name, |c| verify_step(c, &case, &name))?;
    }
    Ok(())
}

/// The predictions of a step, and what SAG made of them.
fn verify_step(context: &mut Context<'_, '_>, case: &Case<'_>, name: &str) -> Result<()> {
    let x = context.set.latent(&format!("{name}.x"))?;
    let mask = given_mask(context, case, name, &x)?;
    let e = evaluate(context, case, &x, mask.as_deref())?;
    let predictions = [
        ("cond", Some(&e.cond)),
        ("uncond", e.uncond.as_ref()),
        ("cfg", Some(&e.cfg)),
        ("result", Some(&e.result)),
    ];
    for (what, found) in predictions {
        if let Some(found) = found {
            compare(context, name, what, found, what, &x)?;
        }
    }
    for (i, found) in e.perturbed.iter().enumerate() {
        let what = format!("perturbed.{i}");
        compare(context, name, &what, found, &what, &x)?;
    }
    match &e.sag {
        Some(sag) => verify_sag(context, name, sag, &x),
        // Latents of four cells and less, and SAG of no effect, have no third row.
        None => {
            let expected = case.flag("skipped") || !context::sag(case)?.is_on();
            if !expected {
                context.findings.failed(&format!("{name}.sag"), "no third row was computed");
            }
            Ok(())
        }
    }
}

/// Column sums, mask, and the third row from its input to its prediction.
fn verify_sag(context: &mut Context<'_, '_>, name: &str, sag: &SagEvaluation, x: &Latent) -> Result<()> {
    let set = context.set;
    let columns: Vec<f32> = sag.columns.iter().flat_map(|c| c.values.iter().copied()).collect();
    let shape = [x.batch(), columns.len() / x.batch()];
    let mask = columns.iter().map(|c| u8::from(*c > 1.0)).collect();
    let columns_name = format!("{name}.colsum");
    if let Some(expected) = set.find(&columns_name) {
        let by = Yardstick::absolute(context.tolerances.columns);
        context.findings.compare(&columns_name, Tensor::f32(&shape, columns), expected, by);
    }
    let mask_name = format!("{name}.mask");
    if let Some(expected) = set.find(&mask_name) {
        let columns = set.find(&columns_name).map(Tensor::numbers);
        compare_mask(context, &mask_name, Tensor::u8(&shape, mask), expected, columns.as_deref());
    }
    for (what, found) in [("degraded", &sag.degraded), ("sag_input", &sag.input)] {
        compare(context, name, what, found, "uncond", x)?;
    }
    compare(context, name, "sag", &sag.sag, "sag", x)
}

/// Compares on the scale of sigma·eps: s is the standard deviation of `x - scale`, the difference
/// to one of the step's predictions.
fn compare(
    context: &mut Context<'_, '_>,
    name: &str,
    what: &str,
    found: &Latent,
    scale: &str,
    x: &Latent,
) -> Result<()> {
    let tensor = format!("{name}.{what}");
    let Some(expected) = context.set.find(&tensor) else { return Ok(()) };
    let prediction = context.set.numbers(&format!("{name}.{scale}"))?;
    let noise: Vec<f32> = x.data().iter().zip(&prediction).map(|(x, p)| x - p).collect();
    let by = Yardstick::spread_of(spread(&noise), context.tolerances.step);
    context.findings.compare(&tensor, found.into(), expected, by);
    Ok(())
}

/// The step as samplers would have it evaluated.
fn evaluate(
    context: &Context<'_, '_>,
    case: &Case<'_>,
    x: &Latent,
    mask: Option<&[u8]>,
) -> Result<Evaluation> {
    let model = context.model;
    if x.shape()[1] != model.config().unet.in_channels {
        return Err(
            Error::usage("the step's latent does not fit the model").found(format!("{:?}", x.shape()))
        );
    }
    let conditioning = context.conditioning(case)?;
    let weights = model.unet_weights(context.cancel)?;
    let sink = DeviceSink::new(model.unet(&weights), ChunkPolicy::Auto, None, context.cancel);
    let backend = Box::new(DeviceBackend::new(sink, &model.unet(&weights)));
    let mut guidance = context::guidance(case)?;
    guidance.terms.extend(context::perturbed(case)?.into_iter().map(Term::from));
    let mut guided = Guided::on(backend, &conditioning, model.discrete(), guidance)?;
    guided.evaluate_with(x, case.number("sigma")? as f32, mask)
}

/// The set's own mask at the latent's size, where rounding may flip bits: a single one moves all
/// that follows from the mask by far more than any tolerance.
fn given_mask(context: &Context<'_, '_>, case: &Case<'_>, name: &str, x: &Latent) -> Result<Option<Vec<u8>>> {
    let mask_name = format!("{name}.mask");
    let Some(mask) = context.set.find(&mask_name).filter(|_| context.tolerances.masks_may_flip()) else {
        return Ok(None);
    };
    let size = case.sizes("mask_size")?;
    let (Values::U8(bits), &[rows, columns]) = (&mask.values, size.as_slice()) else {
        return Err(context.set.misshapen(&mask_name, "a u8 mask and its size in the case"));
    };
    let cells = rows.saturating_mul(columns);
    if cells == 0 || bits.len() != cells.saturating_mul(x.batch()) {
        return Err(context.set.misshapen(&mask_name, format!("{} masks of {rows}x{columns}", x.batch())));
    }
    Ok(Some(enlarged(bits, (rows, columns), (x.batch(), x.height(), x.width()))))
}

/// Masks of an attention map's size, one a picture, at the size of latents.
pub(super) fn enlarged(
    bits: &[u8],
    (rows, columns): (usize, usize),
    (batch, height, width): (usize, usize, usize),
) -> Vec<u8> {
    let bit = |at: usize| {
        let (image, y, x) = (at / (height * width), at / width % height, at % width);
        bits[(image * rows + nearest(y, rows, height)) * columns + nearest(x, columns, width)]
    };
    (0..batch * height * width).map(bit).collect()
}
