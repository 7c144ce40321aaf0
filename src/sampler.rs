//! Samplers: how a latent of noise becomes a picture's, step by step.
//!
//! A sampler sees a model only as a [`Predictor`]: "what is in this noisy latent?" Guidance, chunking and the
//! device are behind it. Its arithmetic is sums of latents ([`Value`](crate::latent::Value)), written down with the coefficients of
//! k-diffusion in f32 and formed where the latents are, so that results agree with ComfyUI's to rounding.
//!
//! A new sampler is one function over a `SamplerRun` and one line in the catalogue.

mod adams;
mod beta_distribution;
mod catalogue;
mod deis;
mod discrete;
mod dpm_solver;
mod dpmpp;
mod dpmpp_sde;
mod er_sde;
mod euler;
mod gradient_estimation;
mod heun;
mod inpaint;
mod lookup;
mod model;
pub(crate) mod names;
pub mod noise;
mod options;
mod quadrature;
mod renoise;
mod res_multistep;
mod sa_solver;
mod sample;
mod sampler_run;
mod schedule;
mod seeds;
mod step;
mod step_noise;
#[cfg(test)]
mod test_model;
mod uni_pc;

pub use catalogue::Sampler;
pub use discrete::Discrete;
pub use inpaint::Inpaint;
pub use model::{Denoised, Denoiser, Predicted, Predictor};
pub use options::SampleOptions;
pub use sample::{initial, initial_scale, sample, sample_on};
pub use sampler_run::{OnStep, Step};
pub use schedule::{Scheduler, exponential_sigmas, karras_sigmas};
