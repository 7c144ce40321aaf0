//! Samplers: numerical methods that turn a latent of noise into that of a picture, step by step.
//!
//! A noisy latent is `x = picture + σ · noise`, with the noise level σ (sigma). A sampler sees a model only as a
//! [`Predictor`], which returns the denoised prediction D(x, σ); guidance, chunking and the device are behind it. Its arithmetic is sums of latents ([`Value`](crate::latent::Value)) with the coefficients of
//! k-diffusion in f32, computed where the latents are, so that results agree with those of ComfyUI up to rounding.
//!
//! To add a sampler, write a file with a function over a `SamplerRun`, add an entry to the catalogue, and add its
//! golden values or a test of its order.

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
