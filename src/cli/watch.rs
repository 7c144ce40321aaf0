//! What a run shows of itself beside its pictures: attention and masks of each step, a preview that a
//! viewer may keep open, an animation of all previews.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use sagittal::guidance::{Columns, Evaluation};
use sagittal::image::{Picture, overlay, png, preview, resize};
use sagittal::pipeline::{Event, Generated, Request};
use sagittal::{Error, Result};

use super::args::Args;
use super::output::{Series, check_png};

/// Milliseconds of a frame in an animation.
const FRAME: u16 = 120;

/// The files of this kind that a run was asked for; none cost nothing.
pub struct Watch<'a> {
    args: &'a Args,
    animations: Option<Series>,
    batch: usize,
    /// Evaluations seen in this batch: one a step, but several of samplers of a higher order, which tell
    /// of the step between them.
    evaluations: usize,
    /// One pixel a latent cell.
    frames: Vec<Picture>,
    /// The width and height of pictures.
    size: (usize, usize),
    middle: f32,
    previews: usize,
    /// What went wrong in an event, where nobody can be told.
    fault: Option<Error>,
}

impl<'a> Watch<'a> {
    /// For the flags of a run.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](sagittal::ErrorKind::Usage) for a file that cannot be written, or
    /// attention of a run that looks at none.
    pub fn new(args: &'a Args, request: &Request) -> Result<Self> {
        let animations = match &args.animate {
            Some(path) => {
                check_png(path).map_err(|e| e.at("--animate"))?;
                let series = Series::new(path, args.batch_count, args.force);
                series.check()?;
                Some(series)
            }
            None => None,
        };
        if let Some(path) = &args.preview {
            check_png(path).map_err(|e| e.at("--preview"))?;
            Series::new(path, 1, args.force).check()?;
        }
        let names = [&args.animate, &args.preview, &args.output];
        for (i, path) in names.iter().enumerate() {
            if path.is_some() && names[..i].contains(path) {
                return Err(Error::usage("two outputs have the same file name")
                    .found(format!("{:?}", path.as_deref())));
            }
        }
        if let Some(folder) = &args.save_attention {
            if !request.sag.is_on() {
                return Err(Error::usage("SAG is off, so there is no attention to save")
                    .at("--save-attention")
                    .hint("raise --sag-scale, or leave --save-attention out"));
            }
            // What is there already is told of now, not after the first step.
            let first = folder.join(name(args, (0, 1), 0, "heat"));
            if folder.exists() {
                Series::new(first, 1, args.force).check()?;
            }
        }
        Ok(Self {
            args,
            animations,
            batch: 0,
            evaluations: 0,
            frames: Vec::new(),
            size: (request.width, request.height),
            middle: request.sag.threshold,
            previews: 0,
            fault: None,
        })
    }

    /// Makes the folder of attention.
    ///
    /// # Errors
    /// [`ErrorKind::File`](sagittal::ErrorKind::File).
    pub fn make_folder(&self) -> Result<()> {
        let Some(folder) = &self.args.save_attention else { return Ok(()) };
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "the folder cannot be made", e))
    }

    /// Begins batch `batch`, from 0.
    pub fn begin(&mut self, batch: usize) {
        (self.batch, self.evaluations) = (batch, 0);
        self.frames.clear();
    }

    /// Looks at an event; sets `cancel` where a file cannot be written.
    pub fn observe(&mut self, event: &Event<'_>, cancel: &AtomicBool) {
        if self.fault.is_some() {
            return;
        }
        let done = match event {
            Event::Evaluated { evaluation, .. } if self.args.save_attention.is_some() => {
                self.evaluations += 1;
                self.attention(evaluation)
            }
            Event::Sampling { step, total, preview, .. } => self.preview(*step, *total, preview),
            _ => Ok(()),
        };
        if let Err(e) = done {
            self.fault = Some(e);
            cancel.store(true, Ordering::Relaxed);
        }
    }

    /// The error that stopped the run, if it was one of ours.
    pub fn fault(&mut self, other: Error) -> Error {
        self.fault.take().unwrap_or(other)
    }

    /// Writes the batch's animation, which ends with its first picture; gives its path.
    ///
    /// # Errors
    /// [`ErrorKind::File`](sagittal::ErrorKind::File).
    pub fn finish(&self, made: &Generated, text: (&str, &str)) -> Result<Option<PathBuf>> {
        let (Some(series), Some(last)) = (&self.animations, made.pictures.first()) else { return Ok(None) };
        let frame = |at: usize| match self.frames.get(at) {
            Some(small) => resize::lanczos(small, last.width, last.height),
            None => last.clone(),
        };
        let bytes = png::animation(self.frames.len() + 1, &mut |at| frame(at), FRAME, &[text])?;
        series.write(self.batch, &bytes).map(Some)
    }

    fn preview(&mut self, step: usize, total: usize, preview: &dyn Fn() -> Picture) -> Result<()> {
        let file = self
            .args
            .preview
            .as_ref()
            .filter(|_| step.is_multiple_of(self.args.preview_every) || step == total);
        if file.is_none() && self.animations.is_none() {
            return Ok(());
        }
        let small = preview();
        if let Some(path) = file {
            let large = resize::lanczos(&small, self.size.0, self.size.1);
            let bytes = png::encode(&large, &[("Step", &format!("{step} of {total}"))])?;
            // The first may not replace what somebody else has left there.
            png::write(path, &bytes, self.args.force || self.previews > 0)?;
            self.previews += 1;
        }
        if self.animations.is_some() {
            self.frames.push(small);
        }
        Ok(())
    }

    /// Writes heat and mask of each picture of the batch.
    fn attention(&self, evaluation: &Evaluation) -> Result<()> {
        let (Some(folder), Some(sag)) = (&self.args.save_attention, &evaluation.sag) else { return Ok(()) };
        let [batch, _, height, width] = evaluation.result.shape();
        for picture in 0..batch {
            let small = preview::preview(&evaluation.result.row(picture), &preview::SD1);
            let large = stretched(&small, self.size);
            let place = (self.batch, self.evaluations);
            let write = |kind: &str, painted: &Picture| {
                let path = folder.join(name(self.args, place, picture, kind));
                let text = format!("evaluation {}, threshold {}", self.evaluations, self.middle);
                png::write(&path, &png::encode(painted, &[("Comment", &text)])?, self.args.force)
            };
            if let Some(columns) = mean(&sag.columns, batch, picture) {
                write("heat", &overlay::heat(&large, &columns, self.middle))?;
            }
            let mask = &sag.mask[picture * height * width..][..height * width];
            write("mask", &overlay::mask(&large, mask, (height, width)))?;
        }
        Ok(())
    }
}

/// `evaluation-01-heat.png`, with numbers of batch and picture where there are several.
fn name(args: &Args, (batch, evaluation): (usize, usize), picture: usize, kind: &str) -> String {
    let digits = args.steps.to_string().len().max(2);
    let mut name = format!("evaluation-{evaluation:0digits$}");
    if args.batch_count > 1 {
        name = format!("batch-{}-{name}", batch + 1);
    }
    if args.batch_size > 1 {
        name.push_str(&format!("-picture-{}", picture + 1));
    }
    format!("{name}-{kind}.png")
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

/// `picture` in whole cells: smoothing would show what is not there.
fn stretched(picture: &Picture, (width, height): (usize, usize)) -> Picture {
    let at = |y: usize, x: usize| {
        let (row, column) = (y * picture.height / height, x * picture.width / width);
        let start = (row * picture.width + column) * 3;
        &picture.rgb[start..start + 3]
    };
    let rgb = (0..height).flat_map(|y| (0..width).flat_map(move |x| at(y, x).iter().copied()));
    Picture { width, height, rgb: rgb.collect() }
}

/// Paths that a run writes beside its pictures, for the check that no model is replaced.
pub fn outputs(args: &Args) -> impl Iterator<Item = PathBuf> {
    args.animate.iter().chain(&args.preview).map(|path: &PathBuf| Path::to_owned(path))
}
