//! The autoencoder by itself: latents to pictures and pictures to the mean of their latents.

use super::compare::Yardstick;
use super::context::Context;
use super::tensor::Tensor;
use super::unet::{planes, positions};
use crate::Result;

pub(super) fn verify(context: &mut Context<'_, '_>) -> Result<()> {
    for name in context.set.cases_with("vae", "z") {
        let name = format!("vae.{name}");
        context.case(&name, |c| decode(c, &name))?;
    }
    for name in context.set.cases_with("vae", "image") {
        let name = format!("vae.{name}");
        context.case(&name, |c| encode(c, &name))?;
    }
    Ok(())
}

/// Latents, already divided by the latent scale, to pictures of about -1..1, one by one.
fn decode(context: &mut Context<'_, '_>, name: &str) -> Result<()> {
    let z = context.set.latent(&format!("{name}.z"))?;
    if z.shape()[1] != context.model.config().vae.latent_channels {
        return Err(context
            .set
            .misshapen(&format!("{name}.z"), "the autoencoder's number of latent channels"));
    }
    let cell = context.model.config().latent_cell();
    let (height, width) = (z.height() * cell, z.width() * cell);
    let mut values = Vec::new();
    for i in 0..z.batch() {
        values.extend(context.model.decode_values(&z.row(i), context.cancel)?);
    }
    compare(context, &format!("{name}.decoded"), planes(&values, z.batch(), (height, width)))
}

/// Pictures of -1..1 to the mean of their latents, without the latent scale.
fn encode(context: &mut Context<'_, '_>, name: &str) -> Result<()> {
    let image = context.set.latent(&format!("{name}.image"))?;
    if image.shape()[1] != context.model.config().vae.image_channels {
        return Err(context
            .set
            .misshapen(&format!("{name}.image"), "the autoencoder's number of picture channels"));
    }
    let (height, width) = (image.height(), image.width());
    let mut values = Vec::new();
    let mut shape = [0; 4];
    for i in 0..image.batch() {
        let mean = context.model.encode_values(height, width, &positions(&image.row(i)), context.cancel)?;
        shape = mean.shape();
        values.extend_from_slice(mean.data());
    }
    shape[0] = image.batch();
    compare(context, &format!("{name}.encoded_mean"), Tensor::f32(&shape, values))
}

fn compare(context: &mut Context<'_, '_>, name: &str, found: Tensor) -> Result<()> {
    let expected = context.set.tensor(name)?;
    let by = Yardstick::spread(&expected.numbers(), context.tolerances.text_and_vae);
    context.findings.compare(name, found, expected, by);
    Ok(())
}
