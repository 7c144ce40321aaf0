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

/// Where the noise comes from that a picture is made of.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Noise {
    /// One stream for the whole batch.
    Seed,
    /// These pictures of the batch's stream: each is what it would be in the whole batch.
    Pictures(Vec<usize>),
    /// Given, `[batch, 4, height / 8, width / 8]`.
    Given(Latent),
}

/// What image to image starts from: one for all pictures of the batch, or one for each.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Start {
    /// `[1 or batch, 4, height / 8, width / 8]`.
    Latent(VaeLatent),
    /// Goes through the VAE's encoder first. Of the size of the request: see
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

/// A generation request. Start from [`Request::new`] and change what you like, by its fields or by its methods `with_…`:
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
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct Request {
    /// What the pictures show.
    pub prompt: String,
    /// Whether prompts are read as A1111 reads them: `AND` sets apart what is predicted by itself
    /// and averaged (in [`prompt`](Self::prompt) alone), `BREAK` begins a chunk.
    /// If not, both are words like others, as in ComfyUI.
    pub compose: bool,
    /// Negative prompts: what the pictures are led away from. Several are averaged, none is the empty prompt.
    pub negative: Vec<String>,
    /// Width and height of the pictures in pixels; both are multiples of 8.
    pub size: Size,
    /// Pictures made together; [`Noise::Pictures`] and [`Noise::Given`] bring their own number.
    pub batch: usize,
    /// Seed of the noise, also of that which samplers add.
    pub seed: u64,
    /// Where the noise comes from.
    pub noise: Noise,
    /// What guides the sampling: classifier-free guidance and any number of terms, such as SAG, PAG, SEG and
    /// one's own.
    pub guidance: Guidance,
    /// Numerical method.
    pub solver: Solver,
    /// Noise levels.
    pub schedule: Schedule,
    /// Text encoder layer counted from the end, 1 the last; None is the family's habit.
    pub clip_skip: Option<usize>,
    /// SDXL's size conditioning; None is the size itself.
    pub sizes: Option<Sizes>,
    /// What to start from, for image to image; it shows through where [`Schedule::denoise`] is below 1.
    pub start: Option<Start>,
    /// Where `start` is drawn over (1) and where it is kept (0), for inpainting: `[1 or batch, 1,
    /// height / 8, width / 8]`, see [`Mask::to_latent`](crate::image::Mask::to_latent). Kept cells come
    /// back as they were; pixels near the edge change, since the VAE decodes all of it.
    pub mask: Option<Latent>,
    /// Memory and rows at a time.
    pub limits: Limits,
    /// A preview comes with step 0, every so many steps, and the last one, in [`Progress::Sampling`](crate::Progress::Sampling); 0 is none. It
    /// is read from the device, so such a step waits for it.
    pub preview_every: usize,
    /// Whether [`Progress::Evaluated`](crate::Progress::Evaluated) brings every evaluation with all its latents, which are read from the device
    /// for that: each step then waits for it.
    pub evaluations: bool,
}

impl Default for Request {
    /// A picture of 512x512 without a prompt.
    fn default() -> Self {
        Self::new("", Size::square(512))
    }
}

impl Request {
    /// A picture of `prompt` with the usual settings: 20 steps of euler on the normal schedule,
    /// CFG 7, SAG as ComfyUI's node has it.
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

    /// With so many pictures made together.
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

    /// With this Self-Attention Guidance; [`Sag::off`] is none.
    pub fn with_sag(mut self, sag: Sag) -> Self {
        self.guidance.set_sag(sag);
        self
    }

    /// With this guidance in place of all that was set before.
    pub fn with_guidance(self, guidance: Guidance) -> Self {
        Self { guidance, ..self }
    }

    /// In so many steps.
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

    /// From this picture or latent, of which more shows through the lower `denoise` is, 0 to 1.
    pub fn with_start(mut self, start: impl Into<Start>, denoise: f64) -> Self {
        (self.start, self.schedule.denoise) = (Some(start.into()), denoise);
        self
    }

    /// Where [`start`](Self::start) is drawn over: see [`mask`](Self::mask).
    pub fn with_mask(self, mask: Latent) -> Self {
        Self { mask: Some(mask), ..self }
    }

    /// Within these limits.
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The prompts that are averaged, ready for the tokenizer.
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

    /// Sentences about what the prompts hold that other programs read otherwise.
    pub fn read_otherwise(&self) -> Vec<String> {
        let of = |text: &str, composed: bool| {
            let told = move |note: Note| match note.kind {
                Kind::And if composed => None,
                Kind::And => Some("AND is a word like others unless `Request::compose` is set".to_owned()),
                _ => Some(note.to_string()),
            };
            syntax::notes(text).into_iter().filter_map(told).collect::<Vec<_>>()
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
                return Err(Error::usage(format!("the {name} does not fit the latent grid"))
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
                .hint("what is not drawn over must be there already")),
            _ => Ok(()),
        }
    }

    /// The sampling, from a `start` that is a latent by now.
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
