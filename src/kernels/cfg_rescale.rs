//! Classifier-free guidance with its contrast taken back: `cfg_rescale.wgsl`.
//!
//! Lin et al. 2023, arXiv 2305.08891, section 3.4, as ComfyUI's *RescaleCFG* does it.

use super::binding::{input, result, scalars, updated};
use super::latents::{Latents, OperandAt, SAMPLE, SAMPLE_PLACE, variant};
use super::{Call, Class, KernelSpec, Operand, params};
use crate::shader::file;

params! {
    /// Parameters as `shaders/kernels/cfg_rescale.wgsl` reads them.
    pub struct Params {
        size4: u32,
        c4: u32,
        channels: u32,
        values: f32,
        zero: u32,
        cond_first: u32,
        uncond_first: u32,
        x_first: u32,
        y_first: u32,
        scalars: u32,
    }
}

/// The kernel.
pub static SPEC: KernelSpec = KernelSpec::new(
    file!("kernels/cfg_rescale"),
    Class::Latent,
    Params::FIELDS,
    &[scalars(), input("cond"), input("uncond"), input("x"), result("y"), updated("flags")],
);

/// Everything about one guided prediction.
#[derive(Debug, Clone, Copy)]
pub struct CfgRescale<'a> {
    /// What profiles call it.
    pub path: &'a str,
    /// The latents.
    pub latents: Latents,
    /// The first of two vec4s of the scalars: (σ² + 1, its root, σ, cfg), (multiplier, number of the step as
    /// bits, -, -).
    pub scalars: usize,
}

/// The dispatch of `r`, from the predictions with and without the prompt for `x`.
pub fn call(
    r: &CfgRescale<'_>,
    [cond, uncond]: [OperandAt; 2],
    x: OperandAt,
    y: OperandAt,
    flags: Operand,
) -> Call {
    let shape = r.latents.shape;
    let size4 = shape.positions() * shape.quads();
    let params = Params {
        size4: size4 as u32,
        c4: shape.quads() as u32,
        channels: shape.channels as u32,
        values: (shape.positions() * shape.channels) as f32,
        zero: 0,
        cond_first: cond.first as u32,
        uncond_first: uncond.first as u32,
        x_first: x.first as u32,
        y_first: y.first as u32,
        scalars: r.scalars as u32,
    };
    Call {
        variant: variant(&SPEC, vec![]),
        params: bytemuck::bytes_of(&params).to_vec(),
        operands: vec![Operand::Scalars, cond.operand, uncond.operand, x.operand, y.operand, flags],
        groups: [r.latents.images as u32, 1, 1],
        path: r.path.to_owned(),
        flops: 4 * 60 * r.latents.quads() as u64,
    }
}

/// Its one variant.
pub(super) fn samples() -> Vec<Call> {
    let (at, r) = (SAMPLE_PLACE, CfgRescale { path: "sample", latents: SAMPLE, scalars: 0 });
    vec![call(&r, [at; 2], at, at, at.operand)]
}

/// One image in f64, in any order of values without padding. Where predictions go in and out as x - D it rounds
/// to f32, as the device does.
pub fn reference(
    (cond, uncond): (&[f64], &[f64]),
    x: &[f64],
    sigma: f64,
    (cfg, multiplier): (f64, f64),
) -> Vec<f64> {
    let squared = sigma * sigma + 1.0;
    let root = squared.sqrt();
    let rounded = |x: f64, d: f64| f64::from(x as f32 - (x as f32 - d as f32));
    let velocity = |denoised: &[f64]| -> Vec<f64> {
        x.iter().zip(denoised).map(|(x, d)| (x / squared - rounded(*x, *d)) * root / sigma).collect()
    };
    let (with, without) = (velocity(cond), velocity(uncond));
    let guided: Vec<f64> = with.iter().zip(&without).map(|(c, u)| u + cfg * (c - u)).collect();
    let deviation = |v: &[f64]| {
        let n = v.len() as f64;
        let mean = v.iter().sum::<f64>() / n;
        (v.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0)).sqrt()
    };
    let ratio = deviation(&with) / deviation(&guided);
    let result = |(g, x): (&f64, &f64)| {
        let v = multiplier * g * ratio + (1.0 - multiplier) * g;
        rounded(*x, x / squared - v * sigma / root)
    };
    guided.iter().zip(x).map(result).collect()
}
