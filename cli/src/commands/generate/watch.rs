//! What a run writes beside its pictures: a preview that a viewer may keep open, an animation of all previews, and
//! the [`Attention`] of each step.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use sagittal::image::{Picture, png, resize};
use sagittal::pipeline::{Generated, Request};
use sagittal::{CancelToken, Error, Model, Progress, Result};

use crate::commands::generate::attention::Attention;
use crate::commands::generate::compare::Compare;
use crate::support::args::Args;
use crate::support::output::{self, Series, check_png};

/// Milliseconds of a frame in an animation.
const FRAME: u16 = 120;

/// Those of these files that a run writes.
pub struct Watch<'a> {
    args: &'a Args,
    animations: Option<Series>,
    attention: Option<Attention<'a>>,
    compare: Option<Compare<'a>>,
    batch: usize,
    /// One pixel per latent cell.
    frames: Vec<Picture>,
    /// The width and height of pictures.
    size: (usize, usize),
    previews: usize,
    /// An error met in an event, where it cannot be returned.
    fault: Option<Error>,
}

impl<'a> Watch<'a> {
    /// For the flags of a run.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](sagittal::ErrorKind::Usage) for a file that cannot be written, or
    /// attention of a run without SAG.
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
        let named = [
            ("-o", &args.output),
            ("--animate", &args.animate),
            ("--preview", &args.preview),
            ("--compare", &args.compare),
        ];
        for (i, (flag, path)) in named.iter().enumerate() {
            let Some(path) = path else { continue };
            if let Some((other, _)) = named[..i].iter().find(|(_, earlier)| earlier.as_ref() == Some(path)) {
                return Err(Error::usage("two outputs have the same file name")
                    .found(format!("{} for {other} and {flag}", path.display())));
            }
        }
        Ok(Self {
            args,
            animations,
            attention: Attention::new(args, request)?,
            compare: Compare::new(args, request)?,
            batch: 0,
            frames: Vec::new(),
            size: (request.size.width, request.size.height),
            previews: 0,
            fault: None,
        })
    }

    /// Creates the folders of attention and previews.
    ///
    /// # Errors
    /// [`ErrorKind::File`](sagittal::ErrorKind::File).
    pub fn make_folders(&self) -> Result<()> {
        self.args.preview.as_deref().map_or(Ok(()), output::make_folder)?;
        self.attention.as_ref().map_or(Ok(()), Attention::make_folder)
    }

    /// Steps between the previews that are needed; 0 for none.
    pub fn preview_every(&self) -> usize {
        match (&self.animations, &self.args.preview) {
            (Some(_), _) => 1,
            (None, Some(_)) => self.args.preview_every,
            (None, None) => 0,
        }
    }

    /// Begins batch `batch`, from 0.
    pub fn begin(&mut self, batch: usize) {
        self.batch = batch;
        self.frames.clear();
    }

    /// Handles an event; cancels `cancel` if a file cannot be written.
    pub fn observe(&mut self, event: &Progress, cancel: &CancelToken) {
        if self.fault.is_some() {
            return;
        }
        let done = match event {
            Progress::Evaluated { evaluation, sigma, .. } => {
                if let Some(attention) = &mut self.attention {
                    attention.observe(evaluation, *sigma);
                }
                if let Some(compare) = &mut self.compare {
                    compare.observe(evaluation, *sigma);
                }
                Ok(())
            }
            Progress::Sampling { step, total, preview: Some(small), .. } => {
                self.preview(*step, *total, small)
            }
            _ => Ok(()),
        };
        if let Err(e) = done {
            self.fault = Some(e);
            cancel.cancel();
        }
    }

    /// The error met in an event, if there was one, else `other`.
    pub fn fault(&mut self, other: Error) -> Error {
        self.fault.take().unwrap_or(other)
    }

    /// Writes the attention seen in this batch, of which `model` drew the pictures.
    ///
    /// # Errors
    /// Those of [`Attention::write`].
    pub fn attention(&mut self, model: &Model, cancel: &AtomicBool) -> Result<()> {
        self.attention.as_mut().map_or(Ok(()), |attention| attention.write(model, self.batch, cancel))
    }

    /// Writes the comparison of `made`, the picture of `request`, with one without SAG; returns its path.
    ///
    /// # Errors
    /// Those of [`Compare::write`].
    pub fn compare(
        &mut self,
        model: &Model,
        request: &Request,
        made: &Generated,
        text: &str,
        cancel: &CancelToken,
    ) -> Result<Option<PathBuf>> {
        let Some(compare) = &mut self.compare else { return Ok(None) };
        compare.write(model, request, made, text, cancel).map(Some)
    }

    /// Writes the batch's animation, which ends with its first picture; returns its path.
    ///
    /// # Errors
    /// [`ErrorKind::File`](sagittal::ErrorKind::File).
    pub fn finish(&self, made: &Generated, text: (&str, &str)) -> Result<Option<PathBuf>> {
        let (Some(series), Some(last)) = (&self.animations, made.pictures.first()) else { return Ok(None) };
        let frame = |at: usize| match self.frames.get(at) {
            Some(small) => resize::lanczos(small, last.width, last.height),
            None => Ok(last.clone()),
        };
        let bytes = png::animation(self.frames.len() + 1, &mut |at| frame(at), FRAME, &[text])?;
        series.write(self.batch, &bytes).map(Some)
    }

    fn preview(&mut self, step: usize, total: usize, small: &Picture) -> Result<()> {
        let file = self
            .args
            .preview
            .as_ref()
            .filter(|_| step.is_multiple_of(self.args.preview_every) || step == total);
        if let Some(path) = file {
            let large = resize::lanczos(small, self.size.0, self.size.1)?;
            let bytes = png::encode(&large, &[("Step", &format!("{step} of {total}"))])?;
            // The first preview must not replace a file that was there before.
            png::write(path, &bytes, self.args.force || self.previews > 0)?;
            self.previews += 1;
        }
        if self.animations.is_some() {
            self.frames.push(small.clone());
        }
        Ok(())
    }
}

/// Paths that a run writes beside its pictures, for the check that no model is replaced.
pub fn outputs(args: &Args) -> impl Iterator<Item = PathBuf> {
    args.animate.iter().chain(&args.preview).chain(&args.compare).map(|path: &PathBuf| Path::to_owned(path))
}
