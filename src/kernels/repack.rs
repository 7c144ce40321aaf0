//! Weights from a file's layout to the kernels': `repack.wgsl`.

use super::binding::{result, updated, weight};
use super::{Buf, Call, Class, Const, KernelSpec, Operand, Precision, Stretch, Variant, params};
use crate::graph::{Layout, Weight, WeightId};
use crate::shader::file;

params! {
    /// Parameters as `shaders/kernels/repack.wgsl` reads them.
    pub struct Params {
        places: u32,
        taps: u32,
        outs: u32,
        in4: u32,
        out4: u32,
        first4: u32,
        fault: u32,
    }
}

/// The kernel. No plan has it: weights come to the device by it.
pub static SPEC: KernelSpec = KernelSpec::new(
    file!("kernels/repack"),
    Class::Copy,
    Params::FIELDS,
    &[weight("raw"), result("packed"), updated("faults")],
);

/// How a file stores numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stored {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// OCP FP8 E4M3: no infinity.
    F8E4m3,
    /// OCP FP8 E5M2: the upper half of an f16.
    F8E5m2,
}

impl Stored {
    /// All of them, in the order of the shader's numbers.
    pub const ALL: [Self; 5] = [Self::F32, Self::F16, Self::Bf16, Self::F8E4m3, Self::F8E5m2];

    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::F8E4m3 | Self::F8E5m2 => 1,
        }
    }
}

/// The shader for numbers stored as `from`, to be packed in `to` and laid out as `layout`.
pub fn variant(from: Stored, to: Precision, layout: Layout) -> Variant {
    Variant {
        kernel: &SPEC,
        consts: vec![
            Const::U32("TYPE", from as u32),
            Const::Bool("HALF", to == Precision::F16),
            Const::Bool("UPSAMPLED", layout == Layout::Conv3x3Doubled),
        ],
        core: None,
        precision: Precision::F32,
        out_f32: true,
    }
}

/// Numbers of one output feature in the file: inputs × taps.
pub fn places(weight: &Weight) -> usize {
    weight.in_features() * weight.layout.taps()[0]
}

/// Parameters and workgroups for `outs` outputs of `weight` from output `first` on, a multiple of
/// four; `fault` is the weight's place among the faults.
pub fn call(weight: &Weight, first: usize, outs: usize, fault: usize) -> (Params, [u32; 3]) {
    let in4 = match weight.layout {
        Layout::Vector => 1,
        _ => weight.in_features().next_multiple_of(4),
    };
    let params = Params {
        places: places(weight) as u32,
        taps: weight.layout.taps()[1] as u32,
        outs: outs as u32,
        in4: in4 as u32,
        out4: weight.out_features().div_ceil(4) as u32,
        first4: (first / 4) as u32,
        fault: 2 * fault as u32,
    };
    let groups = [(params.in4 * params.taps).div_ceil(8), params.outs.div_ceil(4).div_ceil(8), 1];
    (params, groups)
}

/// A call in every variant.
pub(super) fn samples() -> Vec<Call> {
    let held = |layout| {
        let shape = if layout == Layout::Linear { vec![8, 12] } else { vec![8, 12, 3, 3] };
        Weight { sources: vec!["sample".into()], shapes: vec![shape], layout }
    };
    let stretch = |buf| Stretch { buf: Buf(buf), offset: 0, bytes: 256 };
    let variants = Stored::ALL.iter().flat_map(|from| {
        let to = [Precision::F32, Precision::F16];
        to.into_iter().flat_map(|to| {
            [Layout::Linear, Layout::Conv3x3Doubled].map(|layout| (layout, variant(*from, to, layout)))
        })
    });
    let call = |(layout, variant)| {
        let (params, groups) = call(&held(layout), 0, 8, 0);
        Call {
            variant,
            params: bytemuck::bytes_of(&params).to_vec(),
            operands: vec![
                Operand::Weight(WeightId(0)),
                Operand::Write(stretch(0)),
                Operand::Write(stretch(1)),
            ],
            groups,
            path: "sample".into(),
            flops: 0,
        }
    };
    variants.map(call).collect()
}
