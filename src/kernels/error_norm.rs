//! The error of an adaptive step: `error_norm.wgsl`.
//!
//! DPM-Solver (Lu et al. 2022, arXiv 2206.00927), as k-diffusion's `dpm_solver_adaptive` measures it.

use super::binding::{input, result};
use super::latents::{Latents, OperandAt, SAMPLE, SAMPLE_PLACE, variant};
use super::{Call, Class, KernelSpec, params};
use crate::shader::file;

params! {
    /// Parameters as `shaders/kernels/error_norm.wgsl` reads them.
    pub struct Params {
        total: u32,
        c4: u32,
        channels: u32,
        values: f32,
        low_first: u32,
        high_first: u32,
        before_first: u32,
        to_first: u32,
        absolute: f32,
        relative: f32,
    }
}

/// The kernel.
pub static SPEC: KernelSpec = KernelSpec::new(
    file!("kernels/error_norm"),
    Class::Latent,
    Params::FIELDS,
    &[input("low"), input("high"), input("before"), result("to")],
);

/// Everything about one error.
#[derive(Debug, Clone, Copy)]
pub struct ErrorNorm<'a> {
    /// What profiles call it.
    pub path: &'a str,
    /// The latents; the error is one for all images.
    pub latents: Latents,
    /// What is tolerated at each value: at the least, and as a share of it.
    pub tolerance: (f32, f32),
}

/// The dispatch of `e`: the error between the results of second and third order after those of the step before;
/// `to` is one f32.
pub fn call(e: &ErrorNorm<'_>, [low, high, before]: [OperandAt; 3], to: OperandAt) -> Call {
    let shape = e.latents.shape;
    let params = Params {
        total: e.latents.quads() as u32,
        c4: shape.quads() as u32,
        channels: shape.channels as u32,
        values: (e.latents.cells() * shape.channels) as f32,
        low_first: low.first as u32,
        high_first: high.first as u32,
        before_first: before.first as u32,
        to_first: to.first as u32,
        absolute: e.tolerance.0,
        relative: e.tolerance.1,
    };
    Call {
        variant: variant(&SPEC, vec![]),
        params: bytemuck::bytes_of(&params).to_vec(),
        operands: [low, high, before, to].map(|p| p.operand).to_vec(),
        groups: [1, 1, 1],
        path: e.path.to_owned(),
        flops: 4 * 10 * e.latents.quads() as u64,
    }
}

/// Its one variant.
pub(super) fn samples() -> Vec<Call> {
    let e = ErrorNorm { path: "sample", latents: SAMPLE, tolerance: (0.0078, 0.05) };
    vec![call(&e, [SAMPLE_PLACE; 3], SAMPLE_PLACE)]
}

/// The same in f64, in any order of values without padding.
pub fn reference((absolute, relative): (f64, f64), low: &[f64], high: &[f64], before: &[f64]) -> f64 {
    let off = |((l, h), b): ((&f64, &f64), &f64)| (l - h) / (relative * l.abs().max(b.abs())).max(absolute);
    let squares: f64 = low.iter().zip(high).zip(before).map(|v| off(v).powi(2)).sum();
    (squares / low.len().max(1) as f64).sqrt()
}
