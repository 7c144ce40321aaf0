//! The UNet of a model with the meaning of its output, and runs of a sampler on it.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::device_context::{DeviceContext, Stock};
use super::options::ModelOptions;
use super::progress::Progress;
use super::sampling::Sampling;
use super::workload::Workload;
use super::{memory, parts};
use crate::checkpoint::Checkpoint;
use crate::engine::{Engine, Weights};
use crate::graph::Weight;
use crate::guidance::{Conditioning, Guided};
use crate::image::preview;
use crate::latent::{Latent, VaeLatent, Value};
use crate::lora::Patches;
use crate::model::config::NoiseLevels;
use crate::model::{DiffusionConfig, Prediction};
use crate::network::{DenoisingNetwork, DeviceBackend, DeviceSink, NetworkFacts, Planner, Plans, Unet};
use crate::plan::Storage;
use crate::sampler::{self, Discrete, Inpaint, Predictor};
use crate::{Error, Result, embedded};

/// A denoising network: a UNet and what it was trained to predict. Copies share the weights.
#[derive(Clone)]
pub struct DiffusionModel {
    pub(super) stock: Arc<Stock>,
    pub(super) config: Arc<DiffusionConfig>,
    /// The UNet's weights, in the order of upload.
    pub(super) wanted: Arc<Vec<Weight>>,
    prediction: Prediction,
    pub(super) discrete: Arc<Discrete>,
    /// Plans contain neither weights nor noise levels: all copies whose weights are stored in the same way share
    /// them.
    plans: Arc<Plans>,
}

/// The result of sampling.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Sampled {
    /// The latent at the last noise level.
    pub latent: VaeLatent,
    /// What the network saw in the last step's latent, where [`Sampling::denoised`] asks for it.
    pub denoised: Option<VaeLatent>,
}

impl fmt::Debug for DiffusionModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiffusionModel").field("file", &self.checkpoint().file()).finish_non_exhaustive()
    }
}

impl DiffusionModel {
    /// The UNet in `checkpoint`, which may contain other networks or none. Names and shapes are
    /// checked, weights are uploaded when they are first needed.
    ///
    /// # Errors
    /// [`ErrorKind::Model`](crate::ErrorKind::Model) if there is no UNet that runs here.
    pub fn new(
        context: Arc<DeviceContext>,
        checkpoint: Arc<Checkpoint>,
        options: &ModelOptions,
    ) -> Result<Self> {
        let config = DiffusionConfig::infer(&checkpoint)?;
        config.runnable(checkpoint.file())?;
        Self::with_config(context, checkpoint, config, options)
    }

    pub(super) fn with_config(
        context: Arc<DeviceContext>,
        checkpoint: Arc<Checkpoint>,
        mut config: DiffusionConfig,
        options: &ModelOptions,
    ) -> Result<Self> {
        let wanted = Arc::new(config.unet.weights()?);
        let precision = options.precision_on(context.engine().gpu());
        let prediction = options.prediction.unwrap_or(config.prediction);
        config.prediction = prediction;
        let discrete = Arc::new(noise_levels(prediction, config.noise.as_ref())?);
        let stock = Arc::new(Stock::new(context, checkpoint, Arc::default()));
        let plans = Arc::new(Plans::new(stock.storage(&wanted, precision)));
        Ok(Self { stock, config: Arc::new(config), wanted, prediction, discrete, plans })
    }

    /// The same network with `patches` in place of its own; weights are uploaded again.
    #[doc(hidden)]
    pub fn with_patches(&self, patches: Arc<Patches>) -> Self {
        let Stock { context, checkpoint, .. } = &*self.stock;
        let stock = Arc::new(Stock::new(context.clone(), checkpoint.clone(), patches));
        let storage = stock.storage(&self.wanted, self.storage().precision());
        let plans = match storage == *self.storage() {
            true => self.plans.clone(),
            false => Arc::new(Plans::new(storage)),
        };
        Self { stock, plans, ..self.clone() }
    }

    /// The same weights with another meaning of the output and other noise levels.
    pub fn with_sampling(&self, prediction: Prediction, discrete: Discrete) -> Self {
        Self { prediction, discrete: Arc::new(discrete), ..self.clone() }
    }

    /// The network's configuration.
    #[doc(hidden)]
    pub fn config(&self) -> &DiffusionConfig {
        &self.config
    }

    /// Where the weights come from.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.stock.checkpoint
    }

    /// Noise levels and timesteps.
    pub fn discrete(&self) -> &Discrete {
        &self.discrete
    }

    /// Storage of activations and weights.
    pub(super) fn storage(&self) -> &Storage {
        self.plans.storage()
    }

    pub(super) fn engine(&self) -> &Engine {
        self.stock.engine()
    }

    /// Whether the network fits the memory for `workload`.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory), as [`run`](Self::run) would give it.
    pub(crate) fn fits(&self, workload: &Workload<'_>) -> Result<()> {
        self.fit(workload).map(drop)
    }

    /// Samples as `run` says. Latents in and out are in the VAE's scale, as
    /// ComfyUI stores them.
    ///
    /// # Errors
    /// As [`Model::sample`](super::Model::sample).
    pub fn run(
        &self,
        conditioning: &Conditioning,
        run: &Sampling,
        observe: &mut dyn FnMut(Progress),
        cancel: &AtomicBool,
    ) -> Result<Sampled> {
        let Sampling { solver, limits, .. } = run;
        let sigmas = run.levels.sigmas(&self.discrete, solver.sampler)?;
        let shape = run.noise.shape();
        let [batch, channels, height, width] = shape;
        if channels != self.config.unet.out_channels || batch * height * width == 0 {
            return Err(Error::usage("the noise does not fit the model")
                .expected(format!("[batch, {}, height, width]", self.config.unet.out_channels))
                .found(format!("{shape:?}")));
        }
        check_prompts(&self.config, conditioning)?;
        let start = match &run.latent {
            Some(latent) if latent.batch() == 1 => VaeLatent::new(latent.repeated(batch)),
            Some(latent) => latent.clone(),
            None => VaeLatent::new(Latent::zeros(batch, channels, height, width)),
        };
        let Some(&first) = sigmas.first() else {
            return Ok(Sampled { denoised: run.denoised.then(|| start.clone()), latent: start });
        };
        if start.shape() != shape {
            return Err(Error::usage("the noise does not fit the latent")
                .expected(format!("{:?}", start.shape()))
                .found(format!("{shape:?}")));
        }
        let scale = self.config.latent_scale;
        let start = start.to_unet(scale);
        observe(Progress::Loading { part: "UNet" });
        let workload = Workload {
            conditioning,
            shape,
            guidance: &run.guidance,
            solver: *solver,
            steps: sigmas.len() - 1,
            masked: run.mask.is_some(),
            limits: *limits,
        };
        let (fit, counted) = self.fit(&workload)?;
        let how = (self.wanted.as_slice(), self.storage(), fit.most_weights);
        let weights = self.stock.weights(parts::Network::Unet, how, fit.need, limits.memory, cancel)?;
        self.engine().compile(counted.plans.values().map(|plan| &**plan), &counted.kernels)?;
        let factors = embedded::preview_factors(self.checkpoint(), self.config.family);
        // Evaluations and steps are reported one after the other.
        let observe = RefCell::new(observe);
        let sink = DeviceSink::new(self.unet(&weights), fit.chunk, fit.budget, cancel);
        let backend = Box::new(DeviceBackend::new(sink, &self.unet(&weights)));
        let mut guided = Guided::on(backend, conditioning, &self.discrete, run.guidance.clone())?;
        if run.evaluations {
            guided = guided.watched(Box::new(|evaluation, sigma| {
                let preview = preview::preview(&evaluation.result, &factors);
                let evaluation = Arc::new(evaluation.clone());
                observe.borrow_mut()(Progress::Evaluated { sigma, evaluation, preview });
                Ok(())
            }));
        }
        let noise = guided.latents().bring(&run.noise)?;
        let scale0 = sampler::initial_scale(first, self.discrete.sigma_max());
        let mut x = noise.scaled(scale0);
        if run.latent.is_some() {
            x = x.plus(1.0, &guided.latents().bring(&start)?);
        }
        let x = guided.latents().store(&x)?;
        let mut inpaint;
        let model: &mut dyn Predictor = match &run.mask {
            Some(mask) => {
                let noise = solver.sampler.inpaint_noise(&run.noise, run.seed)?;
                inpaint = Inpaint::new(&mut guided, mask, &start, &noise)?;
                &mut inpaint
            }
            None => &mut guided,
        };
        let options = solver.options(run.seed, &self.discrete);
        let total = sigmas.len() - 1;
        let previewed =
            |step: usize| run.preview_every > 0 && (step.is_multiple_of(run.preview_every) || step == total);
        observe.borrow_mut()(Progress::Sampling {
            step: 0,
            total,
            sigma: first,
            preview: previewed(0).then(|| preview::preview(&run.noise.scaled(scale0), &factors)),
        });
        let mut denoised = None;
        let end = sampler::sample_on(solver.sampler, model, x, &sigmas, &options, &mut |s| {
            if cancel.load(Ordering::Relaxed) {
                return Err(Error::cancelled());
            }
            let (step, total, sigma) = (s.index + 1, s.total, s.sigma);
            let preview = match previewed(step) {
                true => Some(preview::preview(&s.denoised()?, &factors)),
                false => None,
            };
            observe.borrow_mut()(Progress::Sampling { step, total, sigma, preview });
            denoised = run.denoised.then(|| s.denoised_value().clone());
            Ok(())
        })?;
        let mut read =
            |value: &Value| model.latents().read(&value.scaled(1.0 / f64::from(scale))).map(VaeLatent::new);
        let latent = read(&end)?;
        let denoised = denoised.as_ref().map(&mut read).transpose()?;
        Ok(Sampled { latent, denoised })
    }

    /// The UNet's weights on the device.
    #[doc(hidden)]
    pub fn weights(&self, cancel: &AtomicBool) -> Result<Arc<Weights>> {
        let how = (self.wanted.as_slice(), self.storage(), None);
        let need = memory::Need::new(self.stock.weight_bytes(how)?, 0, 0);
        self.stock.weights(parts::Network::Unet, how, need, None, cancel)
    }

    /// The UNet with `weights`, for a [`DeviceBackend`] or a [`UnetNetwork`](crate::network::UnetNetwork).
    #[doc(hidden)]
    pub fn unet<'a>(&'a self, weights: &'a Weights) -> Unet<'a> {
        Unet {
            planner: self.planner(),
            engine: self.engine(),
            weights,
            source: self.stock.source(),
            prediction: self.prediction,
            discrete: &self.discrete,
        }
    }

    pub(super) fn meanings(&self) -> NetworkFacts<'_> {
        NetworkFacts::of(&self.planner(), self.prediction, &self.discrete)
    }

    pub(super) fn planner(&self) -> Planner<'_> {
        let device = self.engine().gpu().profile();
        Planner { network: &self.config.unet, device, plans: &self.plans }
    }
}

/// The noise levels that the network was trained on: those that its file gives, or those that all of its
/// kind share.
///
/// # Errors
/// As [`Discrete::from_alphas_cumprod`].
pub(crate) fn noise_levels(prediction: Prediction, given: Option<&NoiseLevels>) -> Result<Discrete> {
    if let Some(NoiseLevels { alphas_cumprod }) = given {
        let table = Discrete::from_alphas_cumprod(alphas_cumprod)?;
        return Ok(match prediction {
            Prediction::ZeroSnrV => table.with_zero_terminal_snr(),
            _ => table,
        });
    }
    Ok(match prediction {
        Prediction::Eps | Prediction::V | Prediction::Picture => Discrete::stable_diffusion(),
        Prediction::Consistency => Discrete::distilled(),
        Prediction::ZeroSnrV => Discrete::zero_terminal_snr(),
    })
}

/// Checks that a network can read every prompt.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for prompts of another family's text encoders.
pub(crate) fn check_prompts(network: &DiffusionConfig, conditioning: &Conditioning) -> Result<()> {
    let wants = (network.unet.context_dim, network.unet.adm_in_channels);
    for entry in conditioning.positive.iter().chain(&conditioning.negative) {
        let has = (entry.context.len() / entry.tokens.max(1), entry.vector.as_ref().map(|v| v.len()));
        if has.0 != wants.0 || has.1 != wants.1 {
            let words = |(channels, vector): (usize, Option<usize>)| match vector {
                Some(values) => format!("{channels} values a token and a vector of {values}"),
                None => format!("{channels} values a token and no vector"),
            };
            return Err(Error::usage("the prompts do not fit the model")
                .expected(format!("{}, as {} has", words(wants), network.family))
                .found(words(has))
                .hint("take them from the text encoders of the model's family"));
        }
    }
    Ok(())
}
