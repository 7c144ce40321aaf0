//! `--save-attention`: what SAG looked at in each evaluation, as heat and as the mask, over the picture
//! that the step expected.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use sagittal::guidance::{Columns, Evaluation};
use sagittal::image::{Picture, overlay, png};
use sagittal::pipeline::Request;
use sagittal::{Error, Latent, Model, Result};

use crate::support::args::Args;
use crate::support::output::Series;

/// The evaluations of a batch. Their expected pictures are decoded when the sampling is done: before, the
/// UNet fills the memory that the decoder needs.
pub struct Attention<'a> {
    args: &'a Args,
    folder: &'a PathBuf,
    threshold: f32,
    /// How many there were: one a step, but several of samplers of a higher order.
    evaluations: usize,
    seen: Vec<Seen>,
}

/// An evaluation in which SAG acted.
struct Seen {
    /// From 1.
    number: usize,
    /// What the step expects of the end, in the UNet's scale.
    expected: Latent,
    /// One for each picture and recorded entry.
    columns: Vec<Columns>,
    /// `[batch, height, width]`.
    mask: Vec<u8>,
}

impl<'a> Attention<'a> {
    /// None if the flags do not ask for it.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](sagittal::ErrorKind::Usage) if SAG is off or files are in the way.
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
        // What is there already is told of now, not after the last step.
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
    pub fn observe(&mut self, evaluation: &Evaluation) {
        self.evaluations += 1;
        let Some(sag) = &evaluation.sag else { return };
        self.seen.push(Seen {
            number: self.evaluations,
            expected: evaluation.result.clone(),
            columns: sag.columns.clone(),
            mask: sag.mask.clone(),
        });
    }

    /// Writes heat and mask of each evaluation and picture of batch `batch`, from 0, and forgets them.
    ///
    /// # Errors
    /// [`ErrorKind::File`](sagittal::ErrorKind::File), or those of [`Model::decode`].
    pub fn write(&mut self, model: &Model, batch: usize, cancel: &AtomicBool) -> Result<()> {
        self.evaluations = 0;
        for seen in std::mem::take(&mut self.seen) {
            let [pictures, _, height, width] = seen.expected.shape();
            let z = seen.expected.scaled(1.0 / model.config().latent_scale);
            let decoded = model.decode_within(self.args.compute.max_memory, &z, &mut |_| {}, cancel)?;
            for (i, picture) in decoded.iter().enumerate() {
                let write = |kind: &str, painted: &Picture| {
                    let path = self.folder.join(self.name((batch, seen.number), i, kind));
                    let text = format!("evaluation {}, threshold {}", seen.number, self.threshold);
                    png::write(&path, &png::encode(painted, &[("Comment", &text)])?, self.args.force)
                };
                if let Some(columns) = mean(&seen.columns, pictures, i) {
                    write("heat", &overlay::heat(picture, &columns, self.threshold)?)?;
                }
                let mask = &seen.mask[i * height * width..][..height * width];
                write("mask", &overlay::mask(picture, mask, (height, width))?)?;
            }
        }
        Ok(())
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

/// The column sums of one picture: the mean over its entries, as far as they are of one size.
fn mean(columns: &[Columns], batch: usize, picture: usize) -> Option<Columns> {
    let own: Vec<&Columns> = columns.iter().skip(picture).step_by(batch.max(1)).collect();
    let first = *own.first()?;
    let alike: Vec<&Columns> =
        own.into_iter().filter(|c| (c.height, c.width) == (first.height, first.width)).collect();
    let at = |i: usize| alike.iter().map(|c| c.values[i]).sum::<f32>() / alike.len() as f32;
    Some(Columns { values: (0..first.values.len()).map(at).collect(), ..*first })
}
