//! The catalogue of shaders: WGSL files, and the one text step that makes a variant of them, a
//! generated header in front and `#import shared/name` lines replaced by the files they name.

use crate::kernels::{Const, Precision, Variant};
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
    "attention_columns",
    "attention_lanes",
    "attention_matrices",
    "attention_merge",
    "attention_tile",
    "concat",
    "conv2d",
    "geglu",
    "group_norm_apply",
    "group_norm_merge",
    "group_norm_stats",
    "layer_norm",
    "matmul",
    "repack",
    "upsample",
    "shared/activation",
    "shared/attention",
    "shared/elem_f16",
    "shared/elem_f32",
    "shared/elem_half",
    "shared/gemm",
    "shared/gemm_lanes",
    "shared/gemm_matrices",
    "shared/gemm_tile",
    "shared/grid",
    "shared/moments",
    "shared/out_elem",
    "shared/out_f32",
];

/// The WGSL text of `variant`.
pub fn source(variant: &Variant) -> Result<String> {
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
    include(if variant.out_f32 { "shared/out_f32" } else { "shared/out_elem" }, &mut text)?;
    include(variant.shader, &mut text)?;
    if let Some(core) = variant.core {
        include(&format!("shared/{core}"), &mut text)?;
    }
    Ok(text)
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
