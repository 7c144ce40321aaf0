//! The last line and column of an upsampled map that is not twice as large as the stored one:
//! `conv2d_edge.wgsl`.

use super::description::{BINDINGS, Gemm, Params, params, product_consts};
use crate::kernels::{Call, Class, Const, KernelSpec, Variant, spread};
use crate::shader::file;

/// The kernel.
pub static SPEC: KernelSpec =
    KernelSpec::new(file!("kernels/conv2d_edge"), Class::Convolution, Params::FIELDS, BINDINGS);

/// Invocations of a workgroup, each for a quad of channels.
const SIZE: u32 = 64;

/// The dispatch that makes them, after the product has made the others; None where there are none. The
/// weights for an upsampled map have taps added up of which one would see what is left out.
pub(super) fn call(g: &Gemm<'_>) -> Option<Call> {
    let (height, width) = g.window?.upsampled?;
    let line = height % 2 == 1 && g.first_lines[1] + g.output.height == height;
    let column = width % 2 == 1;
    let own_lines = if column { g.output.height - usize::from(line) } else { 0 };
    let of_row = own_lines + if line { width } else { 0 };
    if of_row == 0 {
        return None;
    }
    let (e, all) = (&g.epilogue, (g.rows * of_row) as u32);
    let mut params = params(g, 1);
    let [y, z] = spread(all);
    // Here they count positions of the edge.
    (params.m, params.cells, params.groups_y) = (all, of_row as u32, y);
    let own = [Const::Bool("LINE", line), Const::Bool("COLUMN", column)];
    Some(Call {
        variant: Variant {
            kernel: &SPEC,
            consts: [product_consts(g, e).as_slice(), &own].concat(),
            core: None,
            precision: g.precision,
            out_f32: g.out_f32,
        },
        params: bytemuck::bytes_of(&params).to_vec(),
        operands: vec![e.bias, e.vector.operand, e.residual, g.y, g.w, g.x],
        groups: [params.n4.div_ceil(SIZE), y, z],
        path: g.path.to_owned(),
        flops: 2 * u64::from(all) * 6 * g.input.channels as u64 * g.output.channels as u64,
    })
}
