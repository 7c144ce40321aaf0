//! `--compare`: what SAG changes, as one strip: the picture without it, the attention and the mask of a step halfway
//! through the sampling, the picture with it.

use std::path::PathBuf;

use sagittal::guidance::{Evaluation, Sag};
use sagittal::image::{Picture, parameters};
use sagittal::internals::image::sheet::{Sheet, Side};
use sagittal::pipeline::{Generated, Request};
use sagittal::{CancelToken, Error, Model, Result};

use crate::commands::generate::attention::Seen;
use crate::support::args::Args;
use crate::support::output::{Series, check_png};

/// The strip of a run.
pub struct Compare<'a> {
    args: &'a Args,
    strip: Series,
    seen: Vec<Seen>,
}

impl<'a> Compare<'a> {
    /// None if the flags do not ask for it.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](sagittal::ErrorKind::Usage) if SAG is off, there are several pictures, or the file exists.
    pub fn new(args: &'a Args, request: &Request) -> Result<Option<Self>> {
        let Some(path) = &args.compare else { return Ok(None) };
        let wrong = |what: &str| Error::usage(what).at("--compare");
        check_png(path).map_err(|e| e.at("--compare"))?;
        if !request.guidance.sag().is_on() {
            return Err(wrong("SAG is off, so there is nothing to compare").hint("raise --sag-scale"));
        }
        if (request.batch, args.batch_count) != (1, 1) {
            return Err(wrong("a comparison needs a single picture")
                .found(format!("--batch-size {} --batch-count {}", request.batch, args.batch_count)));
        }
        let strip = Series::new(path, 1, args.force);
        strip.check()?;
        Ok(Some(Self { args, strip, seen: Vec::new() }))
    }

    /// Keeps what will be shown of an evaluation.
    pub fn observe(&mut self, evaluation: &Evaluation, sigma: f32) {
        self.seen.extend(Seen::of(evaluation, sigma, self.seen.len() + 1));
    }

    /// Draws the picture without SAG, and writes the strip; returns its path.
    ///
    /// # Errors
    /// [`ErrorKind::File`](sagittal::ErrorKind::File), or those of [`Model::generate`].
    pub fn write(
        &mut self,
        model: &Model,
        request: &Request,
        made: &Generated,
        text: &str,
        cancel: &CancelToken,
    ) -> Result<PathBuf> {
        let seen = std::mem::take(&mut self.seen);
        let without =
            Request { evaluations: false, preview_every: 0, ..request.clone() }.with_sag(Sag::off());
        let mut off = model.run(&without).cancel(cancel).generate()?;
        let middle = seen.get(seen.len() / 2).ok_or_else(|| Error::internal("SAG acted in no step"))?;
        let sag = request.guidance.sag();
        let overlays = middle.overlays(model, self.args.compute.max_memory, sag.threshold, cancel.flag())?;
        let overlay = overlays.into_iter().next().ok_or_else(|| Error::internal("no picture was drawn"))?;
        let heat = overlay.heat.unwrap_or_else(|| overlay.mask.clone());
        let on = made.pictures.first().cloned();
        let on = on.ok_or_else(|| Error::internal("no picture was drawn"))?;
        let cells: [Picture; 4] = [off.pictures.swap_remove(0), heat, overlay.mask, on];
        let names = ["SAG off", "attention", "mask"].map(str::to_owned);
        let values = names.into_iter().chain([format!("SAG {}", sag.scale)]).collect();
        let sheet = Sheet {
            columns: Side { name: String::new(), values },
            cell: (request.size.width, request.size.height),
            ..Sheet::default()
        };
        let bytes = sheet.encode(&[(parameters::KEYWORD, text)], &mut |place| {
            cells
                .get(place.column)
                .cloned()
                .ok_or_else(|| Error::internal("a strip of more than four pictures"))
        })?;
        self.strip.write(0, &bytes)
    }
}
