//! Samplers: how a latent of noise becomes a picture's, step by step.
//!
//! A sampler sees a model only as a [`Predictor`]: "what is in this noisy latent?" Guidance, chunking and the
//! device are behind it. Its arithmetic is sums of latents ([`Value`](crate::latent::Value)), written down with the coefficients of
//! k-diffusion in f32 and formed where the latents are, so that results agree with ComfyUI's to rounding.
//!
//! A new sampler is one function over a `Drive` and one line in the catalogue.

mod adams;
mod beta;
mod catalogue;
mod deis;
mod discrete;
mod dpm_solver;
mod dpmpp;
mod dpmpp_sde;
mod drive;
mod er_sde;
mod euler;
mod gradient_estimation;
mod heun;
mod inpaint;
mod lookup;
mod model;
mod moments;
pub(crate) mod names;
pub mod noise;
mod options;
mod renoise;
mod res_multistep;
mod sa_solver;
mod sample;
mod schedule;
mod seeds;
mod step;
mod step_noise;
#[cfg(test)]
mod test_model;
mod uni_pc;

pub use catalogue::Sampler;
pub use discrete::Discrete;
pub use drive::{OnStep, Step};
pub use inpaint::Inpaint;
pub use model::{Denoised, Denoiser, Predicted, Predictor};
pub use options::SampleOptions;
pub use sample::{initial, initial_scale, sample, sample_on};
pub use schedule::{Scheduler, exponential_sigmas, karras_sigmas};
