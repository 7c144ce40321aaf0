//! The catalogue of shaders: WGSL files, and the one text step that makes a variant of them: a
//! generated header in front, `#import shared/name` lines replaced by the files they name, and what
//! stands between `#repeat i COUNT` and `#end` written out COUNT times, for i from 0. `#repeat $i COUNT` writes
//! the number itself for each `$i`, also into names: bindings of which variants have more or fewer. A COUNT that
//! is true or false is 1 or 0.
//!
//! Writing out is for arrays: a driver that does not unroll a loop over them keeps them in memory instead
//! of registers (matrices, measured on an H100: 29 TFLOP/s instead of 113).

mod software_matrices;

use std::str::Lines;

use crate::kernels::{Const, LANES, Precision, Variant, gemm};
use crate::{Error, Result};

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../shaders/", $name, ".wgsl")))),*]
    };
}

/// All shader files by name.
pub const FILES: &[(&str, &str)] = files![
    "activate",
    "add",
    "attention_blocks",
    "attention_columns",
    "attention_deep_lanes",
    "attention_deep_matrices",
    "attention_lanes",
    "attention_matrices",
    "attention_merge",
    "attention_tile",
    "blur",
    "cfg_rescale",
    "channels",
    "combine",
    "concat",
    "conv2d",
    "conv2d_edge",
    "entries_mean",
    "error_norm",
    "geglu",
    "gemm_merge",
    "group_norm_apply",
    "group_norm_lanes",
    "group_norm_merge",
    "group_norm_stats",
    "layer_norm",
    "matmul",
    "network_input",
    "network_output",
    "repack",
    "sag_degrade",
    "shared/activation",
    "shared/attention",
    "shared/attention_quads",
    "shared/elem_f16",
    "shared/elem_f32",
    "shared/elem_half",
    "shared/epilogue",
    "shared/gemm",
    "shared/gemm_few",
    "shared/gemm_lanes",
    "shared/gemm_matrices",
    "shared/gemm_tile",
    "shared/grid",
    "shared/lanes_alone",
    "shared/latents",
    "shared/moments",
    "shared/out_elem",
    "shared/out_f32",
    "shared/rows",
    "shared/scalars",
    "shared/software_matrices",
    "shared/surrounds",
    "shared/weight_half",
    "shared/weight_long_half",
    "shared/weight_wide",
    "shared/wide_eight",
    "shared/wide_elem",
    "shared/wide_long_f16",
    "shared/wide_long_f32",
];

/// What a device has beyond what every device has, as far as shaders are written in another way for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offers {
    /// Cooperative matrices; without, they are written out in plain WGSL.
    pub matrices: bool,
    /// Subgroups of eight or more, and 64-bit integers: lanes of kernels for CPU drivers share what they
    /// load.
    pub lanes: bool,
}

/// The WGSL text of `variant` for a device with `offers`.
pub fn source(variant: &Variant, offers: Offers) -> Result<String> {
    let text = if variant.lanes() { of_lanes(variant, offers.lanes)? } else { plain(variant, "wide_elem")? };
    if variant.matrices() && !offers.matrices { software_matrices::write_out(&text) } else { Ok(text) }
}

/// The text of a variant whose lanes share what they load, if they can.
fn of_lanes(variant: &Variant, shared: bool) -> Result<String> {
    let missing = || Error::internal(format!("{variant} does not say what lanes have in common"));
    let all = constant(variant, "ROWS").or(constant(variant, "KEYS")).ok_or_else(missing)?;
    let lanes = if shared { LANES } else { 1 };
    let mut variant = variant.clone();
    let own = [("LANES", LANES), ("SHARED", lanes), ("HELD", all / lanes)];
    variant.consts.extend(own.map(|(name, v)| Const::U32(name, v)));
    let wide = match variant.precision {
        _ if !shared => "wide_elem",
        Precision::F32 => "wide_long_f32",
        Precision::F16 => "wide_long_f16",
    };
    let mut text = plain(&variant, wide)?;
    if variant.core == Some(gemm::lanes::CORE) {
        let weight = match (gemm::lanes::has_halves(&variant), shared) {
            (false, _) => "weight_wide",
            (true, false) => "weight_half",
            (true, true) => "weight_long_half",
        };
        include(&format!("shared/{weight}"), &mut text)?;
    }
    if shared {
        return Ok(text.replace("of_lane(", "subgroupBroadcast("));
    }
    include("shared/lanes_alone", &mut text)?;
    Ok(text)
}

/// The text as it is in the files. `wide` says what products and attention read at once; those with
/// cooperative matrices say so themselves.
fn plain(variant: &Variant, wide: &str) -> Result<String> {
    let mut text = String::new();
    if variant.matrices() {
        text += "enable f16;\nenable wgpu_cooperative_matrix;\n";
    }
    for c in &variant.consts {
        match c {
            Const::U32(name, v) => text += &format!("const {name} = {v}u;\n"),
            Const::Bool(name, v) => text += &format!("const {name} = {v};\n"),
        }
    }
    let elem = match variant.precision {
        Precision::F32 => "shared/elem_f32",
        Precision::F16 if variant.matrices() => "shared/elem_half",
        Precision::F16 => "shared/elem_f16",
    };
    include(elem, &mut text)?;
    if !variant.matrices() {
        include(&format!("shared/{wide}"), &mut text)?;
    }
    include(if variant.out_f32 { "shared/out_f32" } else { "shared/out_elem" }, &mut text)?;
    include(variant.shader, &mut text)?;
    if let Some(core) = variant.core {
        include(&format!("shared/{core}"), &mut text)?;
    }
    let mut written = String::with_capacity(4 * text.len());
    repeat(&mut text.lines(), variant, &mut written, 0)?;
    Ok(written)
}

/// Copies lines up to the `#end` that belongs to `depth`, or to the end, and writes repetitions out.
fn repeat(lines: &mut Lines<'_>, variant: &Variant, to: &mut String, depth: usize) -> Result<()> {
    while let Some(line) = lines.next() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("#end") if depth > 0 => return Ok(()),
            Some("#repeat") => {
                let bad = || Error::internal(format!("{variant}: `{line}` names no constant of the variant"));
                let name = words.next().ok_or_else(bad)?;
                let count = words.next().and_then(|of| constant(variant, of)).ok_or_else(bad)?;
                let mut after = lines.clone();
                for i in 0..count.max(1) {
                    after = lines.clone();
                    let mut body = String::new();
                    repeat(&mut after, variant, &mut body, depth + 1)?;
                    match name.starts_with('$') {
                        _ if i >= count => {}
                        true => *to += &body.replace(name, &i.to_string()),
                        false => *to += &format!("{{\nconst {name} = {i}u;\n{body}}}\n"),
                    }
                }
                *lines = after;
            }
            _ => {
                to.push_str(line);
                to.push('\n');
            }
        }
    }
    Ok(())
}

fn constant(variant: &Variant, name: &str) -> Option<u32> {
    variant.consts.iter().find_map(|c| match c {
        Const::U32(n, v) if *n == name => Some(*v),
        Const::Bool(n, v) if *n == name => Some(u32::from(*v)),
        _ => None,
    })
}

fn include(name: &str, text: &mut String) -> Result<()> {
    let (_, file) = FILES
        .iter()
        .find(|(n, _)| *n == name)
        .ok_or_else(|| Error::internal(format!("there is no shader file {name}")))?;
    for line in file.lines() {
        match line.strip_prefix("#import ") {
            Some(import) => include(import.trim(), text)?,
            None => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    Ok(())
}
