//! A generation request: prompts, size, guidance, sampler; and the pictures that it gives.

use std::borrow::Cow;

use super::sampling::Sampling;
use super::settings::{Limits, Schedule, Solver, check_number};
use super::sizes::Sizes;
use crate::families::{Facts, LATENT_CELL};
use crate::guidance::{Guidance, Sag};
use crate::image::Picture;
use crate::latent::{Latent, VaeLatent};
use crate::sampler::Scheduler;
use crate::sampler::noise::{MOST_PICTURES, noise, noise_for};
use crate::text::compose::{self, Part};
use crate::text::syntax::{self, Kind, Note};
use crate::{Error, Result, Size};

/// The longest side, pixels.
const MOST_SIDE: usize = 16_384;

/// The source of the initial noise.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Noise {
    /// One stream for the whole batch.
    Seed,
    /// These pictures of the batch's stream: each is the same as in the whole batch.
    Pictures(Vec<usize>),
    /// Given, `[batch, 4, height / 8, width / 8]`.
    Given(Latent),
}

/// The start of image to image: one for all pictures of the batch, or one for each.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Start {
    /// `[1 or batch, 4, height / 8, width / 8]`.
    Latent(VaeLatent),
    /// A picture for the VAE encoder, of the size of the request: see
    /// [`image::resize`](crate::image::resize).
    Picture(Picture),
}

impl From<Picture> for Start {
    fn from(picture: Picture) -> Self {
        Self::Picture(picture)
    }
}

impl From<VaeLatent> for Start {
    fn from(latent: VaeLatent) -> Self {
        Self::Latent(latent)
    }
}

/// A generation request. Start from [`Request::new`] and change its fields, directly or by its methods `with_…`:
///
/// ```
/// use sagittal::{Request, Sag, Sampler, Size};
///
/// let request = Request::new("a lighthouse in a storm", Size::square(768))
///     .with_negative("blurry")
///     .with_seed(7)
///     .with_solver(Sampler::Dpmpp2m)
///     .with_sag(Sag { scale: 0.75, ..Sag::default() });
/// assert_eq!(request.schedule.steps, 20);
/// ```
///
/// With the feature `serde` it is written whole, [`start`](Self::start) and [`Noise::Given`] with their values. Reading
/// takes defaults for what is missing; an unknown name is an error. [`Term::Own`](crate::guidance::Term::Own) cannot be
/// written.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct Request {
    /// The prompt.
    pub prompt: String,
    /// Whether prompts have A1111's syntax: `AND` separates prompts that are predicted separately and
    /// averaged (only in [`prompt`](Self::prompt)), `BREAK` begins a chunk. Otherwise both are plain
    /// words, as in ComfyUI.
    pub compose: bool,
    /// Negative prompts. Several are averaged, an empty list is the empty prompt.
    pub negative: Vec<String>,
    /// Width and height of the pictures in pixels; both are multiples of 8.
    pub size: Size,
    /// Pictures made together; [`Noise::Pictures`] and [`Noise::Given`] have their own number.
    pub batch: usize,
    /// Seed of the initial noise and of the noise that samplers add.
    pub seed: u64,
    /// Source of the initial noise.
    pub noise: Noise,
    /// Guidance: classifier-free guidance and any number of terms, such as SAG, PAG, SEG and your own.
    pub guidance: Guidance,
    /// Numerical method.
    pub solver: Solver,
    /// Noise levels.
    pub schedule: Schedule,
    /// Text encoder layer counted from the end, 1 the last; None is the default of the family.
    pub clip_skip: Option<usize>,
    /// SDXL's size conditioning; None is the picture's size.
    pub sizes: Option<Sizes>,
    /// Start of image to image, with a strength in [`Schedule::denoise`].
    pub start: Option<Start>,
    /// Where `start` is redrawn (1) and where it is kept (0), for inpainting: `[1 or batch, 1,
    /// height / 8, width / 8]`, see [`Mask::to_latent`](crate::image::Mask::to_latent). Kept cells come
    /// back as they were; pixels near the edge change, since the VAE decodes all of it.
    pub mask: Option<Latent>,
    /// Limits of memory and of rows per call.
    pub limits: Limits,
    /// Steps between previews, also at step 0 and the last step, in [`Progress::Sampling`](crate::Progress::Sampling); 0 for none. A preview
    /// is read from the device, so its step waits for it.
    pub preview_every: usize,
    /// Whether every evaluation is reported with all its latents, in [`Progress::Evaluated`](crate::Progress::Evaluated).
    /// They are read from the device, so each step waits for it.
    pub evaluations: bool,
}

impl Default for Request {
    /// A picture of 512x512 without a prompt.
    fn default() -> Self {
        Self::new("", Size::square(512))
    }
}

impl Request {
    /// A picture of `prompt` with default settings: 20 steps of euler with the normal scheduler, CFG 7,
    /// SAG with the defaults of ComfyUI's node.
    pub fn new(prompt: impl Into<String>, size: Size) -> Self {
        Self {
            prompt: prompt.into(),
            compose: false,
            negative: Vec::new(),
            size,
            batch: 1,
            seed: 0,
            noise: Noise::Seed,
            guidance: Guidance::default(),
            solver: Solver::default(),
            schedule: Schedule::default(),
            clip_skip: None,
            sizes: None,
            start: None,
            mask: None,
            limits: Limits::default(),
            preview_every: 0,
            evaluations: false,
        }
    }

    /// With one more negative prompt.
    pub fn with_negative(mut self, prompt: impl Into<String>) -> Self {
        self.negative.push(prompt.into());
        self
    }

    /// With this number of pictures.
    pub fn with_batch(self, batch: usize) -> Self {
        Self { batch, ..self }
    }

    /// With this seed.
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// With this scale of classifier-free guidance.
    pub fn with_cfg(mut self, cfg: f32) -> Self {
        self.guidance.cfg = cfg;
        self
    }

    /// With this Self-Attention Guidance; [`Sag::off`] turns it off.
    pub fn with_sag(mut self, sag: Sag) -> Self {
        self.guidance.set_sag(sag);
        self
    }

    /// With this guidance, which replaces all settings of guidance.
    pub fn with_guidance(self, guidance: Guidance) -> Self {
        Self { guidance, ..self }
    }

    /// With this number of steps.
    pub fn with_steps(mut self, steps: usize) -> Self {
        self.schedule.steps = steps;
        self
    }

    /// With this numerical method: a [`Sampler`](crate::Sampler), or a [`Solver`] with its noise.
    pub fn with_solver(self, solver: impl Into<Solver>) -> Self {
        Self { solver: solver.into(), ..self }
    }

    /// With the noise levels of this scheduler.
    pub fn with_scheduler(mut self, scheduler: Scheduler) -> Self {
        self.schedule.scheduler = scheduler;
        self
    }

    /// Starting from this picture or latent with the strength `denoise`, 0 (keep) to 1 (redraw).
    pub fn with_start(mut self, start: impl Into<Start>, denoise: f64) -> Self {
        (self.start, self.schedule.denoise) = (Some(start.into()), denoise);
        self
    }

    /// With this mask for inpainting: see [`mask`](Self::mask).
    pub fn with_mask(self, mask: Latent) -> Self {
        Self { mask: Some(mask), ..self }
    }

    /// Within these limits.
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The prompts to average, ready for the tokenizer.
    pub(super) fn positive_prompts(&self) -> Vec<Part> {
        if !self.compose {
            return vec![Part::new(&self.prompt)];
        }
        let marked = |part: Part| Part { text: compose::breaks(&part.text), ..part };
        compose::parts(&self.prompt).into_iter().map(marked).collect()
    }

    pub(super) fn negative_prompts(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let none = self.negative.is_empty().then_some("");
        let marked = |text| if self.compose { compose::breaks(text).into() } else { Cow::from(text) };
        self.negative.iter().map(String::as_str).chain(none).map(marked)
    }

    /// Warnings about prompt syntax that other programs read differently.
    pub fn read_otherwise(&self) -> Vec<String> {
        let of = |text: &str, composed: bool| {
            let warning = move |note: Note| match note.kind {
                Kind::And if composed => None,
                Kind::And => Some("AND is a plain word unless `Request::compose` is set".to_owned()),
                _ => Some(note.to_string()),
            };
            syntax::notes(text).into_iter().filter_map(warning).collect::<Vec<_>>()
        };
        let mut all = of(&self.prompt, self.compose);
        all.extend(self.negative.iter().flat_map(|text| of(text, true)));
        all.sort();
        all.dedup();
        all
    }

    /// Checks what can be checked without a model.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage), naming the setting and its range.
    pub fn check(&self) -> Result<()> {
        for (name, value) in [("width", self.size.width), ("height", self.size.height)] {
            if value == 0 || !value.is_multiple_of(LATENT_CELL) || value > MOST_SIDE {
                let what = match value {
                    0 => "is zero",
                    _ if value > MOST_SIDE => "is too large",
                    _ => "does not fit the latent grid",
                };
                return Err(Error::usage(format!("the {name} {what}"))
                    .expected(format!("a multiple of {LATENT_CELL} from {LATENT_CELL} to {MOST_SIDE}"))
                    .found(value.to_string())
                    .hint(format!("try {}", nearest_side(value))));
            }
        }
        self.schedule.check()?;
        check_number("pictures", self.batch, MOST_PICTURES)?;
        self.solver.check()?;
        let strength: f32 = self.positive_prompts().iter().map(|p| p.strength).sum();
        if !(strength > 0.0 && strength.is_finite()) {
            return Err(Error::usage("the prompts' strengths do not add up to a weight")
                .expected("a sum above 0: the prompts around AND are averaged")
                .found(strength.to_string()));
        }
        self.check_start()?;
        self.guidance.check()
    }

    fn check_start(&self) -> Result<()> {
        match &self.start {
            Some(Start::Picture(p)) if (p.width, p.height) != (self.size.width, self.size.height) => {
                Err(Error::usage("the picture to start from has another size")
                    .expected(self.size.to_string())
                    .found(format!("{}x{}", p.width, p.height)))
            }
            Some(Start::Picture(picture)) => picture.check(),
            None if self.mask.is_some() => Err(Error::usage("a mask without a picture to start from")
                .hint("set a start picture, from which the unmasked area is kept")),
            _ => Ok(()),
        }
    }

    /// The sampling, with `start` as a latent.
    pub(super) fn sampling(&self, start: Option<VaeLatent>, facts: &Facts) -> Result<Sampling> {
        let (height, width) = (self.size.height / facts.latent_cell, self.size.width / facts.latent_cell);
        let channels = facts.latent_channels;
        let noise = match &self.noise {
            Noise::Seed => noise(self.seed, [self.batch, channels, height, width]),
            Noise::Pictures(indices) => {
                noise_for(self.seed, indices, [indices.len(), channels, height, width])?
            }
            Noise::Given(latent) if latent.shape()[1..] == [channels, height, width] => latent.clone(),
            Noise::Given(latent) => {
                return Err(Error::usage("the noise does not fit the picture's size")
                    .expected(format!("[batch, {channels}, {height}, {width}]"))
                    .found(format!("{:?}", latent.shape())));
            }
        };
        Ok(Sampling {
            noise,
            latent: start,
            mask: self.mask.clone(),
            guidance: self.guidance.clone(),
            solver: self.solver,
            seed: self.seed,
            levels: self.schedule.into(),
            limits: self.limits,
            denoised: false,
            preview_every: self.preview_every,
            evaluations: self.evaluations,
        })
    }
}

/// The side, in pixels, that fits the latent grid and is near `side`.
fn nearest_side(side: usize) -> usize {
    (side.clamp(LATENT_CELL, MOST_SIDE) + LATENT_CELL / 2) / LATENT_CELL * LATENT_CELL
}

/// The pictures of a request.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Generated {
    /// The pictures.
    pub pictures: Vec<Picture>,
    /// Their latents.
    pub latent: VaeLatent,
}
