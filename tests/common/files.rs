//! Writes model files in the layouts that people have, from the tensors of a checkpoint.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use half::{bf16, f16};
use sagittal::internals::checkpoint::{Checkpoint, Dtype, Manifest, key_maps};
use serde_json::json;

pub const UNET: &str = "model.diffusion_model.";
pub const VAE: &str = "first_stage_model.";

/// A tensor to be written.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// All tensors of a family, weights by formula.
pub fn tensors(manifest: &Manifest) -> Vec<Tensor> {
    let model = Checkpoint::synthetic(manifest, 0, Dtype::F32).unwrap();
    let read = |(name, shape): &(String, Vec<usize>)| Tensor {
        name: name.clone(),
        shape: shape.clone(),
        values: model.read_f32(name, shape).unwrap(),
    };
    manifest.tensors.iter().map(read).collect()
}

/// Values of a float format of 8 bits with `e` exponent bits, by the format's definition.
fn f8_value(code: u8, e: i32) -> f32 {
    let m = 7 - e;
    let (exponent, mantissa) = (i32::from(code >> m) & ((1 << e) - 1), i32::from(code) & ((1 << m) - 1));
    let size = match exponent {
        0 => mantissa as f32 * 2f32.powi(2 - (1 << (e - 1)) - m),
        _ => (mantissa + (1 << m)) as f32 * 2f32.powi(exponent + 1 - (1 << (e - 1)) - m),
    };
    if code & 0x80 == 0 { size } else { -size }
}

/// The finite values of such a format without a sign, by code.
fn f8_table(e: i32) -> Vec<f32> {
    let last = if e == 4 { 0x7e } else { 0x7b };
    (0..=last).map(|code| f8_value(code, e)).collect()
}

fn to_f8(table: &[f32], value: f32) -> u8 {
    let size = value.abs();
    let above = table.partition_point(|v| *v < size).min(table.len() - 1);
    let below = above.saturating_sub(1);
    let nearest = if size - table[below] < table[above] - size { below } else { above };
    nearest as u8 | if value.is_sign_negative() { 0x80 } else { 0 }
}

/// `values` as a file stores them in `dtype`.
pub fn encode(values: &[f32], dtype: Dtype) -> Vec<u8> {
    let f8 = |e| {
        let table = f8_table(e);
        values.iter().map(|v| to_f8(&table, *v)).collect()
    };
    match dtype {
        Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Dtype::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        Dtype::BF16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        Dtype::F8_E4M3 => f8(4),
        Dtype::F8_E5M2 => f8(5),
        other => panic!("{other} is not written"),
    }
}

/// `values` after they were stored in `dtype`.
pub fn rounded(values: &[f32], dtype: Dtype) -> Vec<f32> {
    let f8 = |e| {
        let table = f8_table(e);
        values.iter().map(|v| f8_value(to_f8(&table, *v), e)).collect()
    };
    match dtype {
        Dtype::F32 => values.to_vec(),
        Dtype::F16 => values.iter().map(|v| f16::from_f32(*v).to_f32()).collect(),
        Dtype::BF16 => values.iter().map(|v| bf16::from_f32(*v).to_f32()).collect(),
        Dtype::F8_E4M3 => f8(4),
        Dtype::F8_E5M2 => f8(5),
        other => panic!("{other} is not written"),
    }
}

/// Writes a safetensors file; `dtype` chooses for each name.
pub fn write(path: &Path, tensors: &[Tensor], metadata: &[(&str, &str)], dtype: impl Fn(&str) -> Dtype) {
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        let texts: BTreeMap<_, _> = metadata.iter().copied().collect();
        header.insert("__metadata__".into(), json!(texts));
    }
    let mut data = Vec::new();
    for tensor in tensors {
        let start = data.len();
        data.extend(encode(&tensor.values, dtype(&tensor.name)));
        let entry = json!({
            "dtype": dtype(&tensor.name).to_string(), "shape": tensor.shape, "data_offsets": [start, data.len()],
        });
        header.insert(tensor.name.clone(), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend(data);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// The tensors below `prefix`, without it.
pub fn under(tensors: &[Tensor], prefix: &str) -> Vec<Tensor> {
    let strip = |t: &Tensor| Some(Tensor { name: t.name.strip_prefix(prefix)?.to_owned(), ..t.clone() });
    tensors.iter().filter_map(strip).collect()
}

/// `tensors` with something before their names.
pub fn prefixed(tensors: &[Tensor], prefix: &str) -> Vec<Tensor> {
    tensors.iter().map(|t| Tensor { name: format!("{prefix}{}", t.name), ..t.clone() }).collect()
}

/// The UNet as diffusers has it.
pub fn diffusers_unet(all: &[Tensor]) -> Vec<Tensor> {
    let own = under(all, UNET);
    let map = key_maps::unet::from_original(|name| own.iter().any(|t| t.name == name));
    own.iter().map(|t| Tensor { name: map.diffusers(&t.name).unwrap(), ..t.clone() }).collect()
}

/// The VAE as diffusers has it, `old` with the attention's names before version 0.17.
pub fn diffusers_vae(all: &[Tensor], old: bool) -> Vec<Tensor> {
    let own = under(all, VAE);
    let map = key_maps::vae::from_original(|name| own.iter().any(|t| t.name == name));
    let convert = |t: &Tensor| {
        let mut name = map.diffusers(&t.name).unwrap();
        if old {
            for (new, old) in
                [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")]
            {
                name = name.replace(new, old);
            }
        }
        let attention = name.contains("attentions") && t.shape.len() == 4;
        let shape = if attention { t.shape[..2].to_vec() } else { t.shape.clone() };
        Tensor { name, shape, ..t.clone() }
    };
    own.iter().map(convert).collect()
}

/// The text encoder below `prefix` as transformers has it, with `text_model.`.
pub fn transformers_text(all: &[Tensor], prefix: &str) -> Vec<Tensor> {
    let mut out = Vec::new();
    for tensor in under(all, prefix) {
        if prefix.ends_with("text_model.") {
            out.push(Tensor { name: format!("text_model.{}", tensor.name), ..tensor });
        } else if tensor.name == "text_projection" {
            let [rows, columns] = tensor.shape[..] else { panic!("a matrix") };
            let values = (0..columns).flat_map(|c| (0..rows).map(move |r| (r, c)));
            let values = values.map(|(r, c)| tensor.values[r * columns + c]).collect();
            out.push(Tensor { name: "text_projection.weight".into(), shape: vec![columns, rows], values });
        } else {
            let names = key_maps::text::transformers(&tensor.name).unwrap();
            let mut shape = tensor.shape.clone();
            shape[0] /= names.len();
            let values = tensor.values.chunks(tensor.values.len() / names.len());
            for (name, values) in names.into_iter().zip(values) {
                let name = format!("text_model.{name}");
                out.push(Tensor { name, shape: shape.clone(), values: values.to_vec() });
            }
        }
    }
    // What real files carry and nobody needs.
    out.push(Tensor { name: "logit_scale".into(), shape: vec![], values: vec![4.6] });
    out
}
