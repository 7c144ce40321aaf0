//! A checkpoint opened on a device: the text encoders, the UNet and the autoencoder together.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::autoencoder::Autoencoder;
use super::device_context::DeviceContext;
use super::diffusion::DiffusionModel;
use super::options::ModelOptions;
use super::progress::Progress;
use super::request::{Generated, Request};
use super::sampling::Sampling;
use super::sizes::Sizes;
use super::text::TextEncoders;
use crate::Result;
use crate::checkpoint::Checkpoint;
use crate::engine::{Engine, Weights};
use crate::gpu::Gpu;
use crate::guidance::{Conditioning, Entry};
use crate::kernels::Precision;
use crate::latent::VaeLatent;
use crate::lora::Patches;
use crate::model::{DiffusionConfig, Family, ModelConfig, Prediction};
use crate::network::Unet;
use crate::sampler::Discrete;
use crate::text::compose::Part;
use crate::text::syntax;

/// A checkpoint on a device. Weights are uploaded when they are first needed. Clones share them.
#[derive(Clone)]
pub struct Model {
    pub(super) checkpoint: Arc<Checkpoint>,
    pub(super) config: ModelConfig,
    pub(super) text: TextEncoders,
    pub(super) diffusion: DiffusionModel,
    pub(super) vae: Autoencoder,
    /// LoRAs.
    pub(super) patches: Arc<Patches>,
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
    /// Opens `checkpoint` on `gpu`. Reads only names and shapes, and checks that every tensor which
    /// its networks need exists.
    ///
    /// # Errors
    /// [`ErrorKind::Model`](crate::ErrorKind::Model) if the checkpoint contains no supported network.
    pub fn new(gpu: Gpu, checkpoint: Checkpoint, options: ModelOptions) -> Result<Self> {
        // A bad file is an error before anything is made on the device.
        let config = ModelConfig::infer(&checkpoint)?;
        config.runnable(checkpoint.file())?;
        Self::with_config(DeviceContext::new(gpu)?, Arc::new(checkpoint), config, &options)
    }

    /// Opens `checkpoint` beside other models on a device.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn open_in(
        context: Arc<DeviceContext>,
        checkpoint: Arc<Checkpoint>,
        options: &ModelOptions,
    ) -> Result<Self> {
        let config = ModelConfig::infer(&checkpoint)?;
        config.runnable(checkpoint.file())?;
        Self::with_config(context, checkpoint, config, options)
    }

    fn with_config(
        context: Arc<DeviceContext>,
        checkpoint: Arc<Checkpoint>,
        mut config: ModelConfig,
        options: &ModelOptions,
    ) -> Result<Self> {
        config.prediction = options.prediction.unwrap_or(config.prediction);
        let vae_precision = options.vae_precision_on(context.engine().gpu(), Some(config.family));
        let (s, c) = (|| context.clone(), || checkpoint.clone());
        let text = TextEncoders::with_configs(s(), c(), config.text.clone(), options)?;
        let vae = Autoencoder::with_config(s(), c(), config.vae.clone(), vae_precision, options.tiling)?;
        let diffusion = DiffusionModel::with_config(s(), c(), DiffusionConfig::of(&config), options)?;
        Ok(Self { checkpoint, config, text, diffusion, vae, patches: Arc::default() })
    }

    /// The configuration of the checkpoint's networks.
    #[doc(hidden)]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        self.engine().gpu()
    }

    /// The model family.
    pub fn family(&self) -> Family {
        self.config.family
    }

    /// What the UNet's output means.
    pub fn prediction(&self) -> Prediction {
        self.config.prediction
    }

    /// Native width and height of the model, pixels.
    pub fn native_side(&self) -> usize {
        self.config.native_side()
    }

    /// Factor from the VAE's scale of latents to the UNet's: see [`VaeLatent`].
    pub fn latent_scale(&self) -> f32 {
        self.config.latent_scale
    }

    /// The file.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The text encoders, for separate use.
    pub fn text_encoders(&self) -> &TextEncoders {
        &self.text
    }

    /// The denoising network, for separate use.
    pub fn diffusion_model(&self) -> &DiffusionModel {
        &self.diffusion
    }

    /// The autoencoder, for separate use.
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

    /// Turns a prompt into pictures. [`run`](Self::run) does it with progress, previews and cancel.
    ///
    /// # Errors
    /// * [`ErrorKind::Usage`](crate::ErrorKind::Usage): a setting is outside its range, or does not go with the model.
    /// * [`Memory`](crate::ErrorKind::Memory): it does not fit [`Limits::memory`](crate::Limits::memory) or the device,
    ///   also where the driver runs out of memory.
    /// * [`File`](crate::ErrorKind::File), [`Model`](crate::ErrorKind::Model): weights, which are read when they are
    ///   needed, cannot be read.
    /// * [`NonFinite`](crate::ErrorKind::NonFinite): NaN or infinity; the error names the step.
    /// * [`Device`](crate::ErrorKind::Device): the device failed or was lost.
    /// * [`Cancelled`](crate::ErrorKind::Cancelled): only of [`run`](Self::run).
    pub fn generate(&self, request: &Request) -> Result<Generated> {
        self.generate_with(request, &mut |_| {}, &AtomicBool::new(false))
    }

    /// The same; `observe` receives the events, and setting `cancel` ends the work within one submission to the
    /// device.
    pub(crate) fn generate_with(
        &self,
        request: &Request,
        observe: &mut dyn FnMut(Progress),
        cancel: &AtomicBool,
    ) -> Result<Generated> {
        request.check()?;
        for sentence in request.read_otherwise() {
            log::warn!(target: syntax::LOG, "{sentence}");
        }
        let memory = request.limits.memory;
        if memory.is_some() {
            // Too little memory must be an error before the work begins, not after the sampling.
            self.report(request)?;
        }
        observe(Progress::Encoding);
        let sizes = request.sizes.unwrap_or(Sizes::of(request.size));
        let encode = |prompt: &str| self.encode_within(memory, prompt, request.clip_skip, sizes, cancel);
        let prompted = |part: Part| Ok(Entry { strength: part.strength, ..encode(&part.text)? });
        let conditioning = Conditioning {
            positive: request.positive_prompts().into_iter().map(prompted).collect::<Result<_>>()?,
            negative: request.negative_prompts().map(|p| encode(&p)).collect::<Result<_>>()?,
        };
        let start = self.start(request, observe, cancel)?;
        let latent = self.sample(
            &conditioning,
            &request.sampling(start, self.config.family.facts())?,
            observe,
            cancel,
        )?;
        let pictures = self.decode_within(memory, &latent, observe, cancel)?;
        Ok(Generated { pictures, latent })
    }

    /// Samples latents.
    pub fn sample(
        &self,
        conditioning: &Conditioning,
        run: &Sampling,
        observe: &mut dyn FnMut(Progress),
        cancel: &AtomicBool,
    ) -> Result<VaeLatent> {
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
