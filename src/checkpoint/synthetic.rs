//! Weights by formula: any element of any tensor from its name, its index and a seed.
//!
//! Uniform noise of a variance that keeps activations near 1, as trained networks do. A few
//! diagonals are added, so that the UNet's output follows its input and sampling contracts
//! instead of amplifying rounding differences.

use std::ops::Range;

use ::safetensors::Dtype;
use half::f16;

use super::header::TensorInfo;

const FIRST_CONV: &str = "model.diffusion_model.input_blocks.0.0.weight";
const LAST_CONV: &str = "model.diffusion_model.out.2.weight";
const EMBEDDINGS: [&str; 3] = ["token_embedding.weight", "position_embedding.weight", "positional_embedding"];

/// Elements that are worth a thread.
const PORTION: usize = 1 << 18;

/// Appends the elements `range` of a tensor, rounded to its dtype. Each element is computed by itself,
/// so all cores can work at it: benchmarks make models of billions.
pub(super) fn extend(out: &mut Vec<f32>, name: &str, info: &TensorInfo, seed: u64, range: Range<usize>) {
    let formula = Formula::new(name, &info.shape, seed);
    let half = info.dtype == Dtype::F16;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let portion = range.len().div_ceil(threads).max(PORTION);
    let start = out.len();
    out.resize(start + range.len(), 0.0);
    std::thread::scope(|scope| {
        let mut from = range.start;
        for part in out[start..].chunks_mut(portion) {
            let first = from;
            from += part.len();
            // The last part is done here: small tensors need no thread at all.
            if from == range.end {
                formula.fill(part, first, half);
            } else {
                let formula = &formula;
                scope.spawn(move || formula.fill(part, first, half));
            }
        }
    });
}

struct Formula {
    /// State of the generator before element 0.
    state: u64,
    scale: f32,
    offset: f32,
    diagonal: Diagonal,
}

/// Elements that get something added: the centres of 3×3 kernels, or 1×1 kernels.
enum Diagonal {
    None,
    /// `[i, i mod 4]` of `[C, inputs, 3, 3]`: each channel sees one latent channel.
    First {
        inputs: usize,
    },
    /// `[o, I - O + o]` of `[O, I, 1, 1]`: the skip half of the concatenation passes through.
    Skip {
        outputs: usize,
        inputs: usize,
    },
    /// `[i mod 4, i]` of `[4, C, 3, 3]`: the inverse of `First`.
    Last {
        channels: usize,
    },
}

impl Formula {
    fn new(name: &str, shape: &[usize], seed: u64) -> Self {
        let skip = is_up_skip(name);
        let diagonal = match *shape {
            [_, inputs, 3, 3] if name == FIRST_CONV => Diagonal::First { inputs },
            [_, channels, 3, 3] if name == LAST_CONV => Diagonal::Last { channels },
            [outputs, inputs, 1, 1] if skip && inputs > outputs => Diagonal::Skip { outputs, inputs },
            _ => Diagonal::None,
        };
        let (scale, offset) = affine(name, shape, skip);
        Self { state: fnv1a(name.as_bytes()) ^ seed, scale, offset, diagonal }
    }

    /// The elements from `first` on, through `half` precision if asked for.
    fn fill(&self, out: &mut [f32], first: usize, half: bool) {
        for (i, v) in (first..).zip(out) {
            let value = self.value(i);
            *v = if half { f16::from_f32(value).to_f32() } else { value };
        }
    }

    fn value(&self, i: usize) -> f32 {
        // Two roundings: Rust never contracts them to a fused multiply-add.
        let x = uniform(self.state, i) * self.scale + self.offset;
        self.diagonal.at(i).map_or(x, |d| x + d)
    }
}

impl Diagonal {
    /// What is added to flat element `i`.
    fn at(&self, i: usize) -> Option<f32> {
        const CENTRE: usize = 4;
        let sign = |channel: usize| if (channel / 4).is_multiple_of(2) { 1.0 } else { -1.0 };
        match *self {
            Diagonal::None => None,
            Diagonal::First { inputs } => {
                let (channel, input) = (i / 9 / inputs, i / 9 % inputs);
                (i % 9 == CENTRE && input == channel % 4).then(|| 2.0 * sign(channel))
            }
            Diagonal::Skip { outputs, inputs } => {
                let (output, input) = (i / inputs, i % inputs);
                (input == inputs - outputs + output).then_some(0.7)
            }
            Diagonal::Last { channels } => {
                let (output, channel) = (i / 9 / channels, i / 9 % channels);
                let amount = (16.0 / channels as f64) as f32;
                (i % 9 == CENTRE && output == channel % 4).then(|| sign(channel) * amount)
            }
        }
    }
}

/// Scale and offset of the uniform noise. The scale is computed in f64 and rounded once.
fn affine(name: &str, shape: &[usize], skip: bool) -> (f32, f32) {
    if shape.len() < 2 {
        return if name.ends_with(".weight") { (0.1, 1.0) } else { (0.2, 0.0) };
    }
    if EMBEDDINGS.iter().any(|ending| name.ends_with(ending)) {
        return (0.5, 0.0);
    }
    let peaky = name.ends_with(".attn1.to_q.weight") || name.ends_with(".attn1.to_k.weight");
    let gain = if peaky {
        1.6
    } else if skip {
        0.7
    } else {
        1.0
    };
    let fan_in: usize = shape[1..].iter().product();
    ((gain * (3.0 / fan_in as f64).sqrt()) as f32, 0.0)
}

fn is_up_skip(name: &str) -> bool {
    name.starts_with("model.diffusion_model.output_blocks.") && name.ends_with(".0.skip_connection.weight")
}

/// Element `i` of the splitmix64 stream as a uniform number in [-1, 1), exact in f32.
/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
fn uniform(state: u64, i: usize) -> f32 {
    let mut z = state.wrapping_add((i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    let u = (z >> 40) as f32 / (1u32 << 24) as f32;
    2.0 * u - 1.0
}

/// 64-bit FNV-1a hash.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// State and first uniforms as listed with the formula's definition.
    #[test]
    fn generator_check_values() {
        let h = fnv1a(b"first_stage_model.decoder.norm_out.weight");
        assert_eq!(h, 0x979c_bfa2_276d_8463);
        let expected = [-0.949_366_1, 0.480_616_33, -0.553_717_6, 0.374_576_7f32];
        assert_eq!([0, 1, 2, 3].map(|i| uniform(h, i)), expected);
        let seeded = fnv1a(b"model.diffusion_model.time_embed.0.bias") ^ 9_223_372_036_854_788_153;
        assert_eq!(seeded, 0x65b2_67a4_997f_b4ee);
    }
}
