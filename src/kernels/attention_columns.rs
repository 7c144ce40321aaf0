//! SAG's record of self-attention: `attention_columns.wgsl`.

use super::attention::{Attention, Params, probabilities};
use super::binding::{input, result};
use super::{Call, Class, DeviceProfile, KernelSpec, Operand, Variant};
use crate::graph::Heads;
use crate::shader::file;

/// The kernel.
pub static SPEC: KernelSpec = KernelSpec::new(
    file!("kernels/attention_columns"),
    Class::Attention,
    Params::FIELDS,
    &[input("q"), input("kv"), input("lse"), result("columns")],
);

/// Whether one dispatch can record the attention of `tokens`.
pub fn fits(heads: Heads, tokens: usize, device: &DeviceProfile) -> bool {
    let pairs = (tokens * heads.heads) as u64;
    pairs.div_ceil(64) * (heads.dim as u64 / 4 + 1) <= device.most_iterations()
}

/// The dispatch that sums, for each key, the attention it receives. `a` describes the recorded
/// self-attention (merged), `lse` is what that attention wrote.
pub fn call(a: &Attention<'_>, qkv: Operand, lse: Operand, columns: Operand) -> Call {
    let params = a.params();
    Call {
        variant: Variant {
            kernel: &SPEC,
            consts: a.layout(),
            core: None,
            precision: a.precision,
            out_f32: true,
        },
        params: bytemuck::bytes_of(&params).to_vec(),
        operands: vec![Operand::Unused, qkv, lse, columns],
        groups: [params.keys, a.rows as u32, 1],
        path: a.path.to_owned(),
        flops: a.score_flops(),
    }
}

/// One row in f64: mean over heads of Σ_i P[i, j], `[key]`, from a merged projection.
pub fn reference(heads: Heads, qkv: &[f64], stride: usize) -> Vec<f64> {
    let p = probabilities(heads, false, (qkv, stride), (qkv, stride));
    let tokens = qkv.len() / stride;
    (0..tokens)
        .map(|j| p.iter().flatten().map(|queries| queries[j]).sum::<f64>() / heads.heads as f64)
        .collect()
}
