//! Whatever bytes are passed as a model: an error or a network that can be built, never a panic.
//!
//! The first byte says what the rest is: a file as it stands, a header to which length and data are
//! added so that changes of the JSON reach further, a list of names and shapes, or changes of such a
//! list that is sound.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sagittal::checkpoint::{Dtype, Manifest};
use sagittal::internals::model::{ModelConfig, unet, vae};
use sagittal::lora::Lora;
use sagittal::{Checkpoint, latent};

/// Tensors up to this size are read.
const SMALL: usize = 1 << 16;

static FAMILIES: LazyLock<[Manifest; 3]> = LazyLock::new(|| {
    [
        include_str!("../../tests/golden/manifests/tiny-sd1.json"),
        include_str!("../../tests/golden/manifests/tiny-sd2.json"),
        include_str!("../../tests/golden/manifests/tiny-sdxl.json"),
    ]
    .map(|text| Manifest::parse(text).unwrap())
});

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 4 {
        0 => {
            let _ = latent::file::decode(rest);
            file(rest);
        }
        1 => file(&framed(rest)),
        2 => {
            let manifest = std::str::from_utf8(rest).ok().and_then(|text| Manifest::parse(text).ok());
            if let Some(manifest) = manifest {
                synthetic(&manifest);
            }
        }
        _ => synthetic(&changed(rest)),
    }
});

/// A file with `json` as its header and as many bytes of data as that asks for.
fn framed(json: &[u8]) -> Vec<u8> {
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json);
    let header = serde_json::from_slice::<serde_json::Value>(json).unwrap_or_default();
    let ends = header.as_object().into_iter().flatten().filter_map(|(_, t)| t["data_offsets"][1].as_u64());
    let end = ends.max().unwrap_or(0).min(SMALL as u64) as usize;
    bytes.extend((0..end).map(|i| i as u8));
    bytes
}

/// A family with tensors left out, renamed, reshaped or added: four bytes a change.
fn changed(data: &[u8]) -> Manifest {
    let Some((family, data)) = data.split_first() else { return FAMILIES[0].clone() };
    let mut manifest = FAMILIES[usize::from(*family) % 3].clone();
    for change in data.as_chunks::<4>().0.iter().take(16) {
        let [what, at, above, value] = *change;
        let count = manifest.tensors.len();
        if count == 0 {
            break;
        }
        let at = usize::from(u16::from_le_bytes([at, above])) % count;
        let value = usize::from(value);
        let (name, shape) = &mut manifest.tensors[at];
        match what % 8 {
            0 => drop(manifest.tensors.remove(at)),
            1 => {
                // The whole module.
                let stem = name.rsplit_once('.').map_or("", |(stem, _)| stem).to_owned();
                manifest.tensors.retain(|(n, _)| !n.starts_with(&stem));
            }
            2 => *name = name.replace(char::is_numeric, &value.to_string()),
            3 => name.push_str(".x"),
            4 => {
                let rank = shape.len().max(1);
                if let Some(size) = shape.get_mut(value % rank) {
                    *size = [0, 1, 2, 4, 8, 9, 320, 1 << 20][value / 4 % 8];
                }
            }
            5 => shape.push(value),
            6 => drop(shape.pop()),
            _ => {
                let other = manifest.tensors[value * 4 % count].clone();
                manifest.tensors[at].1 = other.1;
            }
        }
    }
    manifest
}

fn synthetic(manifest: &Manifest) {
    if let Ok(model) = Checkpoint::synthetic(manifest, 0, Dtype::F16) {
        look(&model);
    }
}

fn file(bytes: &[u8]) {
    // SAFETY: what is opened here is dropped before the function returns, and so before the bytes are.
    let bytes: &'static [u8] = unsafe { std::mem::transmute(bytes) };
    if let Ok(model) = Checkpoint::from_bytes("fuzz", bytes) {
        look(&model);
        for name in model.names() {
            let info = model.tensor(name).unwrap();
            if info.elements() <= SMALL {
                let read = model.read_f32(name, &info.shape);
                assert!(read.map_or(true, |v| v.len() == info.elements() && v.iter().all(|v| v.is_finite())));
                let _ = model.rows_f32(name, &[0]);
            }
        }
        let _ = Lora::from_tensors(model);
    }
    if let Ok(vae) = Checkpoint::from_bytes("vae", bytes) {
        let _ = Checkpoint::synthetic(&FAMILIES[0], 0, Dtype::F16).unwrap().with_vae(vae);
    }
    if let Ok(text) = Checkpoint::from_bytes("text", bytes) {
        let _ = Checkpoint::text_encoders(vec![text]);
    }
}

/// What is accepted can be built.
fn look(model: &Checkpoint) {
    let Ok(config) = ModelConfig::infer(model) else { return };
    if config.runnable(model.file()).is_err() {
        return;
    }
    unet::weights(&config.unet).unwrap();
    vae::decoder(&config.vae, 8, 8).unwrap();
    vae::encoder(&config.vae, 64, 64).unwrap();
}
