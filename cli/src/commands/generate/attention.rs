//! `--save-attention`: SAG's attention and mask in each evaluation, over the picture predicted at the step.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use sagittal::guidance::{Columns, Evaluation};
use sagittal::image::{Picture, overlay, png};
use sagittal::internals::verify::{Tensor, write_all};
use sagittal::pipeline::Request;
use sagittal::{Error, Latent, Model, Result, Size, VaeLatent};

use crate::support::args::Args;
use crate::support::output::Series;

/// The evaluations of a batch. Their predicted pictures are decoded when the sampling is done: before, the UNet
/// fills the memory that the decoder needs.
pub struct Attention<'a> {
    args: &'a Args,
    folder: &'a PathBuf,
    threshold: f32,
    /// How many there were: one per step, or several with samplers of a higher order.
    evaluations: usize,
    seen: Vec<Seen>,
}

/// An evaluation in which SAG acted.
pub struct Seen {
    /// From 1.
    number: usize,
    /// Noise level.
    sigma: f32,
    /// The denoised latent predicted at the step, in the UNet's scale.
    expected: Latent,
    /// One for each picture and recorded entry.
    columns: Vec<Columns>,
    /// `[batch, height, width]`.
    mask: Vec<u8>,
}

/// The overlays of one picture of an evaluation.
pub struct Overlay {
    /// The attention over the predicted picture; None if nothing was recorded.
    pub heat: Option<Picture>,
    /// The mask over it.
    pub mask: Picture,
}

impl Seen {
    /// Of evaluation `number`, from 1, at noise level `sigma`; None if SAG did not act.
    pub fn of(evaluation: &Evaluation, sigma: f32, number: usize) -> Option<Self> {
        let sag = evaluation.sag.as_ref()?;
        let (columns, mask) = (sag.columns.clone(), sag.mask.clone());
        Some(Self { number, sigma, expected: evaluation.result.clone(), columns, mask })
    }

    /// For each picture, over the prediction, which `model` decodes within `memory` bytes.
    ///
    /// # Errors
    /// Those of [`Model::decode`].
    pub fn overlays(
        &self,
        model: &Model,
        memory: Option<u64>,
        threshold: f32,
        cancel: &AtomicBool,
    ) -> Result<Vec<Overlay>> {
        let [pictures, _, height, width] = self.expected.shape();
        let z = VaeLatent::from_unet(&self.expected, model.latent_scale());
        let decoded = model.decode_within(memory, &z, &mut |_| {}, cancel)?;
        let overlay = |(i, picture): (usize, &Picture)| {
            let heat = mean(&self.columns, pictures, i).map(|c| overlay::heat(picture, &c, threshold));
            let mask = &self.mask[i * height * width..][..height * width];
            Ok(Overlay {
                heat: heat.transpose()?,
                mask: overlay::mask(picture, mask, Size::new(width, height))?,
            })
        };
        decoded.iter().enumerate().map(overlay).collect()
    }
}

impl<'a> Attention<'a> {
    /// None if the flags do not ask for it.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](sagittal::ErrorKind::Usage) if SAG is off or a file exists already.
    pub fn new(args: &'a Args, request: &Request) -> Result<Option<Self>> {
        let Some(folder) = &args.save_attention else { return Ok(None) };
        let sag = request.guidance.sag();
        if !sag.is_on() {
            return Err(Error::usage("SAG is off, so there is no attention to save")
                .at("--save-attention")
                .hint("raise --sag-scale, or leave --save-attention out"));
        }
        let threshold = sag.threshold;
        let attention = Self { args, folder, threshold, evaluations: 0, seen: Vec::new() };
        // An existing file is an error now, not after the last step.
        let first = folder.join(attention.name((0, 1), 0, "heat"));
        Series::new(first, 1, args.force).check()?;
        Ok(Some(attention))
    }

    /// Makes the folder.
    ///
    /// # Errors
    /// [`ErrorKind::File`](sagittal::ErrorKind::File).
    pub fn make_folder(&self) -> Result<()> {
        let folder = self.folder;
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "the folder cannot be made", e))
    }

    /// Keeps what will be shown of an evaluation.
    pub fn observe(&mut self, evaluation: &Evaluation, sigma: f32) {
        self.evaluations += 1;
        self.seen.extend(Seen::of(evaluation, sigma, self.evaluations));
    }

    /// Writes heat and mask of each evaluation and picture of batch `batch`, from 0, and all of them as data, and forgets
    /// them.
    ///
    /// # Errors
    /// [`ErrorKind::File`](sagittal::ErrorKind::File), or those of [`Model::decode`].
    pub fn write(&mut self, model: &Model, batch: usize, cancel: &AtomicBool) -> Result<()> {
        self.evaluations = 0;
        let all = std::mem::take(&mut self.seen);
        let data = write_all(&tensors(&all))?;
        png::write(&self.folder.join(self.data_name(batch)), &data, self.args.force)?;
        for seen in all {
            let memory = self.args.compute.max_memory;
            for (i, shown) in seen.overlays(model, memory, self.threshold, cancel)?.iter().enumerate() {
                let write = |kind: &str, painted: &Picture| {
                    let path = self.folder.join(self.name((batch, seen.number), i, kind));
                    let text = format!("evaluation {}, threshold {}", seen.number, self.threshold);
                    png::write(&path, &png::encode(painted, &[("Comment", &text)])?, self.args.force)
                };
                if let Some(heat) = &shown.heat {
                    write("heat", heat)?;
                }
                write("mask", &shown.mask)?;
            }
        }
        Ok(())
    }

    /// `maps.safetensors`, with the number of the batch where there are several.
    fn data_name(&self, batch: usize) -> String {
        match self.args.batch_count {
            1 => "maps.safetensors".to_owned(),
            _ => format!("batch-{}-maps.safetensors", batch + 1),
        }
    }

    /// `evaluation-01-heat.png`, with numbers of batch and picture where there are several.
    fn name(&self, (batch, evaluation): (usize, usize), picture: usize, kind: &str) -> String {
        let digits = self.args.steps.to_string().len().max(2);
        let mut name = format!("evaluation-{evaluation:0digits$}");
        if self.args.batch_count > 1 {
            name = format!("batch-{}-{name}", batch + 1);
        }
        if self.args.batch_size > 1 {
            name.push_str(&format!("-picture-{}", picture + 1));
        }
        format!("{name}-{kind}.png")
    }
}

/// The data of evaluations: `NUMBER.attention` `[pictures, height, width]`, which is 1 on average, `NUMBER.mask` of the
/// latent's height and width, `NUMBER.denoised` `[pictures, channels, height, width]` in the UNet's scale; and the noise
/// level of each, in their order.
fn tensors(all: &[Seen]) -> Vec<(String, Tensor)> {
    let mut tensors = Vec::new();
    for seen in all {
        let (shape, number) = (seen.expected.shape(), seen.number);
        let [pictures, _, height, width] = shape;
        let maps: Option<Vec<Columns>> = (0..pictures).map(|i| mean(&seen.columns, pictures, i)).collect();
        if let Some((first, maps)) = maps.as_ref().and_then(|maps| Some((maps.first()?, maps))) {
            let values = maps.iter().flat_map(|map| map.values.iter().copied()).collect();
            let tensor = Tensor::f32(&[pictures, first.height, first.width], values);
            tensors.push((format!("{number}.attention"), tensor));
        }
        tensors.push((format!("{number}.mask"), Tensor::u8(&[pictures, height, width], seen.mask.clone())));
        tensors.push((format!("{number}.denoised"), Tensor::f32(&shape, seen.expected.data().to_vec())));
    }
    let sigmas: Vec<f32> = all.iter().map(|seen| seen.sigma).collect();
    tensors.push(("sigmas".to_owned(), Tensor::f32(&[sigmas.len()], sigmas)));
    tensors
}

/// The column sums of one picture: the mean over its entries, as far as they are of one size.
fn mean(columns: &[Columns], batch: usize, picture: usize) -> Option<Columns> {
    let own: Vec<&Columns> = columns.iter().skip(picture).step_by(batch.max(1)).collect();
    let first = *own.first()?;
    let alike: Vec<&Columns> =
        own.into_iter().filter(|c| (c.height, c.width) == (first.height, first.width)).collect();
    let at = |i: usize| alike.iter().map(|c| c.values[i]).sum::<f32>() / alike.len() as f32;
    Some(Columns { values: (0..first.values.len()).map(at).collect(), ..*first })
}
