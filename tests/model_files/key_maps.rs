//! The key maps, both ways, against the six described families: none missed, no collision, and the
//! same pairs as the conversion scripts of diffusers 0.42.1 make of these families.

use std::collections::BTreeSet;

use crate::common::files::{UNET, VAE};
use crate::common::{Failures, MANIFESTS};
use sagittal::checkpoint::Manifest;
use sagittal::internals::checkpoint::key_maps::{KeyMap, text, unet, vae};

/// Prefix of a text encoder in the original layout, and its folder in diffusers'.
const TEXT: [(&str, &str); 4] = [
    ("cond_stage_model.transformer.text_model.", "text_encoder"),
    ("cond_stage_model.model.", "text_encoder"),
    ("conditioner.embedders.0.transformer.text_model.", "text_encoder"),
    ("conditioner.embedders.1.model.", "text_encoder_2"),
];

/// Number of pairs and the 64-bit FNV-1a of the sorted lines `FOLDER/NAME SHAPE = ORIGINAL[ PART]`,
/// which diffusers' `convert_ldm_unet_checkpoint`, `convert_ldm_vae_checkpoint`,
/// `convert_ldm_clip_checkpoint` and `convert_open_clip_checkpoint` give.
const PAIRS: [(&str, usize, u64); 6] = [
    ("tiny-sd1", 542, 0x0f11_cbb1_7f97_1715),
    ("tiny-sd2", 559, 0xc387_eb11_d35b_468f),
    ("tiny-sdxl", 695, 0xb4e6_b31d_37ac_9af8),
    ("sd15", 1130, 0x964c_9242_6f3a_5cb0),
    ("sd21", 1323, 0xb25e_b959_c48c_0d83),
    ("sdxl", 2641, 0x186e_4f95_018f_9005),
];

/// One tensor, or one part of it, in diffusers' layout.
struct Pair {
    folder: &'static str,
    diffusers: String,
    shape: Vec<usize>,
    original: String,
    /// ` 64:128` for rows of a packed tensor, ` T` for a transposed one.
    part: String,
}

/// The pairs of a text encoder's tensor.
fn text_pairs(prefix: &str, folder: &'static str, rest: &str, shape: &[usize]) -> Vec<Pair> {
    let original = format!("{prefix}{rest}");
    let pair = |diffusers: &str, shape: Vec<usize>, part: String| Pair {
        folder,
        diffusers: diffusers.to_owned(),
        shape,
        original: original.clone(),
        part,
    };
    if prefix.ends_with("text_model.") {
        return vec![pair(&format!("text_model.{rest}"), shape.to_vec(), String::new())];
    }
    if rest == text::PROJECTION.0 {
        let shape = shape.iter().rev().copied().collect();
        return vec![pair(text::PROJECTION.1, shape, " T".into())];
    }
    let names = text::transformers(rest).unwrap_or_else(|| panic!("{original} has no counterpart"));
    let rows = shape[0] / names.len();
    let part =
        |i: usize| if names.len() == 1 { String::new() } else { format!(" {}:{}", i * rows, (i + 1) * rows) };
    let shape = [&[rows], &shape[1..]].concat();
    let pairs = names.iter().enumerate();
    pairs.map(|(i, name)| pair(&format!("text_model.{name}"), shape.clone(), part(i))).collect()
}

fn pairs(manifest: &Manifest) -> Vec<Pair> {
    let all: BTreeSet<&str> = manifest.tensors.iter().map(|(name, _)| name.as_str()).collect();
    let exists = |prefix: &'static str| {
        let all = &all;
        move |name: &str| all.contains(format!("{prefix}{name}").as_str())
    };
    let maps: [(&str, &str, KeyMap); 2] =
        [(UNET, "unet", unet::from_original(exists(UNET))), (VAE, "vae", vae::from_original(exists(VAE)))];
    let mut out = Vec::new();
    for (name, shape) in &manifest.tensors {
        if let Some((prefix, folder, map)) = maps.iter().find(|(prefix, ..)| name.starts_with(prefix)) {
            let diffusers = map.diffusers(&name[prefix.len()..]);
            let diffusers = diffusers.unwrap_or_else(|| panic!("{name} has no counterpart"));
            let matrix = name.contains(".attn_1.") && shape.len() == 4;
            let shape = if matrix { shape[..2].to_vec() } else { shape.clone() };
            out.push(Pair { folder, diffusers, shape, original: name.clone(), part: String::new() });
        } else {
            let (prefix, folder) = TEXT.iter().find(|(prefix, _)| name.starts_with(prefix)).unwrap();
            out.extend(text_pairs(prefix, folder, &name[prefix.len()..], shape));
        }
    }
    out
}

#[test]
fn pairs_are_those_of_diffusers() {
    let mut failures = Failures::default();
    for ((name, json), (_, count, hash)) in MANIFESTS.iter().zip(PAIRS) {
        let pairs = pairs(&Manifest::parse(json).unwrap());
        let line =
            |p: &Pair| format!("{}/{} {:?} = {}{}\n", p.folder, p.diffusers, p.shape, p.original, p.part);
        let lines: BTreeSet<String> = pairs.iter().map(line).collect();
        let found = lines
            .iter()
            .flat_map(|l| l.bytes())
            .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        failures.check((lines.len(), found) == (count, hash), || {
            format!("{name}: {} pairs of hash {found:#x}, not {count} of {hash:#x}", lines.len())
        });
    }
    failures.finish();
}

#[test]
fn maps_lead_back_without_collisions() {
    let mut failures = Failures::default();
    for (name, json) in MANIFESTS {
        let pairs = pairs(&Manifest::parse(json).unwrap());
        let mut seen = BTreeSet::new();
        for pair in &pairs {
            failures.check(seen.insert((pair.folder, &pair.diffusers)), || {
                format!("{name}: {} stands for two tensors", pair.diffusers)
            });
        }
        // The maps as a reader of a diffusers folder makes them, from diffusers' names alone.
        let has = |folder: &'static str| {
            let seen = &seen;
            move |name: &str| seen.contains(&(folder, &name.to_owned()))
        };
        let (unet, vae) = (unet::from_diffusers(has("unet")), vae::from_diffusers(has("vae")));
        for pair in &pairs {
            let back = match pair.folder {
                "unet" => unet.original(&pair.diffusers).map(|n| format!("{UNET}{n}")),
                "vae" => vae.original(&pair.diffusers).map(|n| format!("{VAE}{n}")),
                _ => back_to_text(pair),
            };
            failures.check(back.as_deref() == Some(&pair.original), || {
                format!("{name}: {} came from {}, leads to {back:?}", pair.diffusers, pair.original)
            });
        }
    }
    failures.finish();
}

/// Where a text encoder's tensor leads back to.
fn back_to_text(pair: &Pair) -> Option<String> {
    let (prefix, _) = TEXT.iter().find(|(prefix, _)| pair.original.starts_with(prefix))?;
    if pair.diffusers == text::PROJECTION.1 {
        return Some(format!("{prefix}{}", text::PROJECTION.0));
    }
    let rest = pair.diffusers.strip_prefix("text_model.")?;
    let place = text::open_clip(rest)?;
    if prefix.ends_with("text_model.") {
        return Some(format!("{prefix}{rest}"));
    }
    let rows = pair.shape[0];
    let part = place.part.map_or(String::new(), |i| format!(" {}:{}", i * rows, (i + 1) * rows));
    (part == pair.part).then(|| format!("{prefix}{}", place.name))
}

/// What diffusers called the VAE's attention before version 0.17 is understood too.
#[test]
fn old_attention_names() {
    let map = vae::from_diffusers(|_| false);
    for (old, new) in [("query", "q"), ("key", "k"), ("value", "v"), ("proj_attn", "proj_out")] {
        let name = format!("decoder.mid_block.attentions.0.{old}.weight");
        assert_eq!(map.original(&name), Some(format!("decoder.mid.attn_1.{new}.weight")));
    }
    for unknown in ["decoder.mid_block.attentions.1.to_q.weight", "class_embedding.weight", "", "."] {
        assert_eq!(map.original(unknown), None, "{unknown}");
    }
}
