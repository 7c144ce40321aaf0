//! The whole road: a checkpoint opened on a device, a request, pictures.
//!
//! [`Model::generate`] does all of it; [`Model::encode`], [`Model::sample`] and
//! [`Model::decode`] are its parts, for those who guide or sample their own way.

mod autoencoder;
mod conditioning;
mod extras;
mod memory;
mod parts;
mod rehearsal;
pub mod report;
mod request;
mod tiles;

use std::sync::atomic::AtomicBool;

use crate::checkpoint::{Checkpoint, Dtype};
use crate::engine::{Engine, Source, Weights, device_bytes};
use crate::folder::Folder;
use crate::gpu::Gpu;
use crate::guidance::{Conditioning, Entry, Guided};
use crate::image::preview;
use crate::kernels::Precision;
use crate::kernels::repack::Stored;
use crate::latent::Latent;
use crate::lora::{Patched, Patches};
use crate::model::{Family, ModelConfig, Prediction, unet};
use crate::network::{Planner, Plans, Unet, UnetNetwork};
use crate::sampler::{self, Denoiser, Discrete, Inpaint, SampleOptions};
use crate::text::Tokenizer;
use crate::text::compose::Part;
use crate::{Error, Result};
pub use conditioning::Sizes;
use parts::Parts;
use rehearsal::Wish;
pub use request::{Event, Generated, Noise, Request, Sampling, Start};
pub use tiles::Tiling;

/// How a model is opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct ModelOptions {
    /// Storage of activations and weights; None is f16 on GPUs and f32 on CPU drivers.
    pub precision: Option<Precision>,
    /// The same for the autoencoder; None is that of the rest, but f32 for SDXL, whose original
    /// autoencoder overflows f16.
    pub vae_precision: Option<Precision>,
    /// What the UNet's output means, where the file does not tell or tells wrong.
    pub prediction: Option<Prediction>,
    /// Whether pictures go through the autoencoder in tiles.
    pub tiling: Tiling,
}

/// A checkpoint on a device. Weights are brought over when they are first needed.
pub struct Model {
    engine: Engine,
    checkpoint: Checkpoint,
    config: ModelConfig,
    precision: Precision,
    vae_precision: Precision,
    tiling: Tiling,
    discrete: Discrete,
    tokenizer: Tokenizer,
    parts: Parts,
    /// Of the UNet.
    plans: Plans,
    /// LoRAs.
    patches: Patches,
    /// Where `embedding:name` is looked for.
    embeddings: Option<Folder>,
}

impl Model {
    /// Opens `checkpoint` on `gpu`. Reads names and shapes only, but looks for every tensor that
    /// any of its networks needs.
    ///
    /// # Errors
    /// [`ErrorKind::Model`](crate::ErrorKind::Model) if the checkpoint holds no network that runs here.
    pub fn new(gpu: Gpu, checkpoint: Checkpoint, options: ModelOptions) -> Result<Self> {
        let mut config = ModelConfig::infer(&checkpoint)?;
        config.runnable(checkpoint.file())?;
        config.prediction = options.prediction.unwrap_or(config.prediction);
        let usual = gpu.capabilities().target.usual_precision();
        let precision = options.precision.unwrap_or(usual);
        parts::check(&config, &checkpoint)?;
        let usual = if config.family == Family::Sdxl { Precision::F32 } else { precision };
        let vae_precision = options.vae_precision.unwrap_or(usual);
        let discrete = match config.prediction {
            Prediction::Eps | Prediction::V => Discrete::stable_diffusion(),
            Prediction::ZeroSnrV => Discrete::zero_terminal_snr(),
        };
        Ok(Self {
            engine: Engine::new(gpu)?,
            checkpoint,
            config,
            precision,
            vae_precision,
            tiling: options.tiling,
            discrete,
            tokenizer: Tokenizer::new(),
            parts: Parts::default(),
            plans: Plans::default(),
            patches: Patches::default(),
            embeddings: None,
        })
    }

    /// What the checkpoint holds.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The file.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Storage of activations and weights.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Storage of the autoencoder.
    pub fn vae_precision(&self) -> Precision {
        self.vae_precision
    }

    /// The engine and, through it, the device.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Noise levels and timesteps.
    pub fn discrete(&self) -> &Discrete {
        &self.discrete
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
        if request.memory.is_some() {
            // What does not fit shall be known before the work begins, not after the sampling.
            self.report(request)?;
        }
        observe(Event::Encoding);
        let sizes = request.sizes.unwrap_or(Sizes::of(request.height, request.width));
        let encode =
            |prompt: &str| self.encode_within(request.memory, prompt, request.clip_skip, sizes, cancel);
        let prompted = |part: Part| Ok(Entry { strength: part.strength, ..encode(&part.text)? });
        let conditioning = Conditioning {
            positive: request.positive_prompts().into_iter().map(prompted).collect::<Result<_>>()?,
            negative: request.negative_prompts().map(|p| encode(&p)).collect::<Result<_>>()?,
        };
        let start = self.start(request, observe, cancel)?;
        let latent = self.sample(&conditioning, &request.sampling(start)?, observe, cancel)?;
        let pictures = self.decode_within(request.memory, &latent, observe, cancel)?;
        Ok(Generated { pictures, latent })
    }

    /// Samples a latent. Latents in and out are in the VAE's scale, as ComfyUI stores them.
    pub fn sample(
        &self,
        conditioning: &Conditioning,
        sampling: &Sampling,
        observe: &mut dyn FnMut(Event<'_>),
        cancel: &AtomicBool,
    ) -> Result<Latent> {
        let sigmas = sampling.scheduler.sigmas(
            &self.discrete,
            sampling.steps,
            sampling.denoise,
            sampling.sampler.discard_penultimate(),
        )?;
        let shape = sampling.noise.shape();
        let [batch, channels, height, width] = shape;
        if channels != self.config.unet.out_channels || batch * height * width == 0 {
            return Err(Error::usage("the noise does not fit the model")
                .expected(format!("[batch, {}, height, width]", self.config.unet.out_channels))
                .found(format!("{shape:?}")));
        }
        let start = match &sampling.latent {
            Some(latent) if latent.batch() == 1 => latent.repeated(batch),
            Some(latent) => latent.clone(),
            None => Latent::zeros(shape[0], channels, height, width),
        };
        let Some(&first) = sigmas.first() else {
            return Ok(start);
        };
        let scale = self.config.latent_scale;
        let start = start.scaled(scale);
        observe(Event::Loading { part: "UNet" });
        let wish = Wish {
            conditioning,
            shape,
            cfg: sampling.cfg,
            sag: sampling.sag,
            chunk: sampling.chunk,
            limit: sampling.memory,
        };
        let (fit, _) = self.fit_unet(&wish)?;
        let wanted = unet::weights(&self.config.unet)?;
        let load = || self.upload(&wanted, self.precision, fit.most_weights, cancel);
        let weights = self.parts.get(parts::Network::Unet, fit.need, sampling.memory, load)?;
        let mut network = UnetNetwork::new(self.unet(&weights), fit.chunk, fit.budget, cancel);
        let x = sampler::initial(&sampling.noise, &start, first, self.discrete.sigma_max())?;
        let mut guided = Guided::new(&mut network, conditioning, &self.discrete, sampling.cfg, sampling.sag)?;
        let mut inpaint;
        let model: &mut dyn Denoiser = match &sampling.mask {
            Some(mask) => {
                let noise = sampling.sampler.inpaint_noise(&sampling.noise, sampling.seed)?;
                inpaint = Inpaint::new(&mut guided, mask, &start, noise)?;
                &mut inpaint
            }
            None => &mut guided,
        };
        let options = SampleOptions {
            seed: sampling.seed,
            eta: sampling.eta,
            s_noise: sampling.s_noise,
            noise_window: (self.discrete.percent_to_sigma(0.2), self.discrete.percent_to_sigma(0.8)),
        };
        let factors = preview::SD1;
        let total = sigmas.len() - 1;
        observe(Event::Sampling {
            step: 0,
            total,
            sigma: first,
            preview: &|| preview::preview(&x, &factors),
        });
        let samples = sampler::sample(sampling.sampler, model, x.clone(), &sigmas, &options, &mut |s| {
            if cancel.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(Error::cancelled());
            }
            let preview = || preview::preview(s.denoised, &factors);
            observe(Event::Sampling { step: s.index + 1, total: s.total, sigma: s.sigma, preview: &preview });
            Ok(())
        })?;
        Ok(samples.scaled(1.0 / scale))
    }

    /// The UNet's weights on the device.
    pub fn unet_weights(&self, cancel: &AtomicBool) -> Result<std::sync::Arc<Weights>> {
        let wanted = unet::weights(&self.config.unet)?;
        let alignment = self.engine.gpu().capabilities().alignment;
        let bytes = device_bytes(&wanted, self.precision, alignment, None)?;
        let load = || self.upload(&wanted, self.precision, None, cancel);
        self.parts.get(parts::Network::Unet, memory::Need::new(bytes, 0), None, load)
    }

    /// The UNet with `weights`, for a [`UnetNetwork`].
    pub fn unet<'a>(&'a self, weights: &'a Weights) -> Unet<'a> {
        Unet {
            planner: self.planner(),
            engine: &self.engine,
            weights,
            source: self.source(),
            prediction: self.config.prediction,
            discrete: &self.discrete,
        }
    }

    fn planner(&self) -> Planner<'_> {
        Planner {
            config: &self.config.unet,
            precision: self.precision,
            device: self.engine.gpu().capabilities(),
            plans: &self.plans,
        }
    }

    /// The checkpoint's weights with the LoRAs added.
    fn source(&self) -> Patched<'_> {
        Patched { checkpoint: &self.checkpoint, patches: &self.patches }
    }

    fn upload(
        &self,
        weights: &[crate::graph::Weight],
        precision: Precision,
        most: Option<u64>,
        cancel: &AtomicBool,
    ) -> Result<Weights> {
        self.engine.upload(weights, &self.source(), precision, most, cancel)
    }
}

impl Source for Checkpoint {
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
}
