//! The whole road: a checkpoint opened on a device, a request, pictures.
//!
//! [`Model::generate`] does all of it; [`Model::encode`], [`Model::sample`] and
//! [`Model::decode`] are its parts, for those who guide or sample their own way.

mod autoencoder;
mod conditioning;
mod diffusion;
mod extras;
mod memory;
mod parts;
mod pictures;
mod rehearsal;
pub mod report;
mod request;
mod run;
mod settings;
mod studio;
mod text;
mod tiles;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::Result;
use crate::checkpoint::{Checkpoint, Dtype};
use crate::engine::{Engine, WeightSource, Weights};
use crate::gpu::Gpu;
use crate::guidance::{Conditioning, Entry};
use crate::kernels::Precision;
use crate::kernels::repack::Stored;
use crate::latent::Latent;
use crate::lora::Patches;
use crate::model::{DiffusionConfig, Family, ModelConfig, Prediction};
use crate::network::Unet;
use crate::sampler::Discrete;
use crate::text::compose::Part;
use crate::text::syntax;
pub use autoencoder::Autoencoder;
pub use conditioning::Sizes;
pub use diffusion::{DiffusionModel, Sampled};
#[cfg(feature = "workflow")]
pub(crate) use diffusion::{check_prompts, noise_levels};
#[cfg(feature = "workflow")]
pub(crate) use rehearsal::Wish;
pub use request::{Event, Generated, Noise, Request, Start};
pub use run::Run;
pub use settings::{Levels, Limits, Schedule, Solver};
pub use studio::Studio;
pub use text::TextEncoders;
#[cfg(feature = "workflow")]
pub(crate) use text::layer as text_layer;
pub use tiles::{LEAST_SIDE, Tiling};

/// How a model is opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct ModelOptions {
    /// Storage of activations and weights; None is f16 on GPUs and f32 on CPU drivers, where f32 keeps most
    /// weights of a file in f16 as they are.
    pub precision: Option<Precision>,
    /// The same for the autoencoder; None is that of the rest, but f32 for SDXL, whose original
    /// autoencoder overflows f16.
    pub vae_precision: Option<Precision>,
    /// What the UNet's output means, where the file does not tell or tells wrong.
    pub prediction: Option<Prediction>,
    /// Whether pictures go through the autoencoder in tiles.
    pub tiling: Tiling,
}

impl ModelOptions {
    /// The storage on `gpu`.
    fn precision_on(&self, gpu: &Gpu) -> Precision {
        self.precision.unwrap_or(gpu.capabilities().target.usual_precision())
    }

    /// The storage of an autoencoder on `gpu` beside a UNet of `family`; None is one by itself.
    fn vae_precision_on(&self, gpu: &Gpu, family: Option<Family>) -> Precision {
        let rest = self.precision_on(gpu);
        self.vae_precision.unwrap_or(family.map_or(rest, |family| family.facts().vae_precision(rest)))
    }
}

/// A checkpoint on a device. Weights are brought over when they are first needed. Copies share them.
#[derive(Clone)]
pub struct Model {
    checkpoint: Arc<Checkpoint>,
    config: ModelConfig,
    text: TextEncoders,
    diffusion: DiffusionModel,
    vae: Autoencoder,
    /// LoRAs.
    patches: Arc<Patches>,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.checkpoint.file();
        f.debug_struct("Model")
            .field("file", &file)
            .field("family", &self.config.family)
            .finish_non_exhaustive()
    }
}

impl Model {
    /// Opens `checkpoint` on `gpu`. Reads names and shapes only, but looks for every tensor that
    /// any of its networks needs.
    ///
    /// # Errors
    /// [`ErrorKind::Model`](crate::ErrorKind::Model) if the checkpoint holds no network that runs here.
    pub fn new(gpu: Gpu, checkpoint: Checkpoint, options: ModelOptions) -> Result<Self> {
        // A bad file is told of before anything is made on the device.
        let config = ModelConfig::infer(&checkpoint)?;
        config.runnable(checkpoint.file())?;
        Self::with_config(Studio::new(gpu)?, Arc::new(checkpoint), config, &options)
    }

    /// Opens `checkpoint` beside other models on a device.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn open_in(studio: Arc<Studio>, checkpoint: Arc<Checkpoint>, options: &ModelOptions) -> Result<Self> {
        let config = ModelConfig::infer(&checkpoint)?;
        config.runnable(checkpoint.file())?;
        Self::with_config(studio, checkpoint, config, options)
    }

    fn with_config(
        studio: Arc<Studio>,
        checkpoint: Arc<Checkpoint>,
        mut config: ModelConfig,
        options: &ModelOptions,
    ) -> Result<Self> {
        config.prediction = options.prediction.unwrap_or(config.prediction);
        let vae_precision = options.vae_precision_on(studio.engine().gpu(), Some(config.family));
        let (s, c) = (|| studio.clone(), || checkpoint.clone());
        let text = TextEncoders::with_configs(s(), c(), config.text.clone(), options)?;
        let vae = Autoencoder::with_config(s(), c(), config.vae.clone(), vae_precision, options.tiling)?;
        let diffusion = DiffusionModel::with_config(s(), c(), DiffusionConfig::of(&config), options)?;
        Ok(Self { checkpoint, config, text, diffusion, vae, patches: Arc::default() })
    }

    /// What the checkpoint holds.
    #[doc(hidden)]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        self.engine().gpu()
    }

    /// What it descends from.
    pub fn family(&self) -> Family {
        self.config.family
    }

    /// What the UNet's output means.
    pub fn prediction(&self) -> Prediction {
        self.config.prediction
    }

    /// Width and height that the model draws best, pixels.
    pub fn native_side(&self) -> usize {
        self.config.native_side()
    }

    /// The file.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The text encoders, for use by themselves.
    pub fn text_encoders(&self) -> &TextEncoders {
        &self.text
    }

    /// The denoising network, for use by itself.
    pub fn diffusion_model(&self) -> &DiffusionModel {
        &self.diffusion
    }

    /// The autoencoder, for use by itself.
    pub fn autoencoder(&self) -> &Autoencoder {
        &self.vae
    }

    /// Storage of activations and weights.
    pub fn precision(&self) -> Precision {
        self.diffusion.storage().precision()
    }

    /// Storage of the autoencoder.
    pub fn vae_precision(&self) -> Precision {
        self.vae.precision
    }

    /// The engine and, through it, the device.
    #[doc(hidden)]
    pub fn engine(&self) -> &Engine {
        self.diffusion.engine()
    }

    /// Noise levels and timesteps.
    #[doc(hidden)]
    pub fn discrete(&self) -> &Discrete {
        self.diffusion.discrete()
    }

    /// Turns a prompt into pictures. `observe` hears of progress; setting `cancel` ends the work
    /// within one submission to the device.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for settings outside their range,
    /// [`Cancelled`](crate::ErrorKind::Cancelled), [`NonFinite`](crate::ErrorKind::NonFinite) naming the
    /// step, or the device's.
    pub fn generate(
        &self,
        request: &Request,
        observe: &mut dyn FnMut(Event<'_>),
        cancel: &AtomicBool,
    ) -> Result<Generated> {
        request.check()?;
        for sentence in request.read_otherwise() {
            log::warn!(target: syntax::LOG, "{sentence}");
        }
        let memory = request.limits.memory;
        if memory.is_some() {
            // What does not fit shall be known before the work begins, not after the sampling.
            self.report(request)?;
        }
        observe(Event::Encoding);
        let sizes = request.sizes.unwrap_or(Sizes::of(request.size));
        let encode = |prompt: &str| self.encode_within(memory, prompt, request.clip_skip, sizes, cancel);
        let prompted = |part: Part| Ok(Entry { strength: part.strength, ..encode(&part.text)? });
        let conditioning = Conditioning {
            positive: request.positive_prompts().into_iter().map(prompted).collect::<Result<_>>()?,
            negative: request.negative_prompts().map(|p| encode(&p)).collect::<Result<_>>()?,
        };
        let start = self.start(request, observe, cancel)?;
        let latent =
            self.sample(&conditioning, &request.run(start, self.config.family.facts())?, observe, cancel)?;
        let pictures = self.decode_within(memory, &latent, observe, cancel)?;
        Ok(Generated { pictures, latent })
    }

    /// Samples a latent. Latents in and out are in the VAE's scale, as ComfyUI stores them.
    pub fn sample(
        &self,
        conditioning: &Conditioning,
        run: &Run,
        observe: &mut dyn FnMut(Event<'_>),
        cancel: &AtomicBool,
    ) -> Result<Latent> {
        Ok(self.diffusion.run(conditioning, run, observe, cancel)?.latent)
    }

    /// The UNet's weights on the device.
    #[doc(hidden)]
    pub fn unet_weights(&self, cancel: &AtomicBool) -> Result<Arc<Weights>> {
        self.diffusion.weights(cancel)
    }

    /// The UNet with `weights`, for a [`UnetNetwork`](crate::network::UnetNetwork).
    #[doc(hidden)]
    pub fn unet<'a>(&'a self, weights: &'a Weights) -> Unet<'a> {
        self.diffusion.unet(weights)
    }
}

impl WeightSource for Checkpoint {
    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.read_f32(name, shape)
    }

    fn raw(&self, name: &str, shape: &[usize]) -> Result<Option<(Stored, &[u8])>> {
        let (dtype, bytes) = self.raw(name, shape)?;
        let stored = match dtype {
            Dtype::F32 => Stored::F32,
            Dtype::F16 => Stored::F16,
            Dtype::BF16 => Stored::Bf16,
            Dtype::F8_E4M3 => Stored::F8E4m3,
            Dtype::F8_E5M2 => Stored::F8E5m2,
            _ => return Ok(None),
        };
        Ok(bytes.map(|b| (stored, b)))
    }

    fn fits_f16(&self, name: &str) -> bool {
        self.fits_f16(name)
    }
}
