//! Tensors that no layer takes: none vanishes without a word.

use super::encoders::{all, opened};
use crate::common::Failures;
use crate::common::files::{
    Tensor, UNET, VAE, diffusers_unet, diffusers_vae, prefixed, transformers_text, under, write,
};
use crate::common::warnings::warnings;
use crate::common::workflow::manifest;
use sagittal::checkpoint::{Checkpoint, Dtype};
use sagittal::internals::model::DiffusionConfig;
use sagittal::internals::model::config::{ModelConfig, VaeConfig};
use sagittal::{ErrorKind, Model, ModelOptions, Result};

fn more(name: &str, shape: &[usize]) -> Tensor {
    Tensor { name: name.into(), shape: shape.to_vec(), values: vec![0.25; shape.iter().product()] }
}

const BLOCK: &str = "input_blocks.1.1.transformer_blocks.0";
const L: &str = "cond_stage_model.transformer.text_model.";

/// Tensors that would change pictures, below a network's prefix.
fn changing() -> Vec<(&'static str, Vec<Tensor>)> {
    let unet = |name: &str, shape: &[usize]| more(&format!("{UNET}{name}"), shape);
    let inside = |name: &str, shape: &[usize]| unet(&format!("{BLOCK}.{name}"), shape);
    let layer = |name: &str, shape: &[usize]| more(&format!("{L}encoder.layers.0.{name}"), shape);
    vec![
        (
            "an IP-Adapter",
            vec![
                inside("attn2.processor.to_k_ip.weight", &[64, 64]),
                inside("attn2.processor.to_v_ip.weight", &[64, 64]),
            ],
        ),
        ("an IP-Adapter's other naming", vec![inside("attn2.to_k_ip.weight", &[64, 64])]),
        (
            "GLIGEN",
            vec![
                inside("fuser.alpha_attn", &[]),
                inside("fuser.attn.to_q.weight", &[64, 64]),
                unet("position_net.linears.0.weight", &[8, 8]),
            ],
        ),
        ("a bias of a layer that has none", vec![inside("attn1.to_q.bias", &[64])]),
        (
            "a LoRA's pair inside",
            vec![
                inside("attn1.to_q.lora_down.weight", &[4, 64]),
                inside("attn1.to_q.lora_up.weight", &[64, 4]),
            ],
        ),
        ("PEFT's wrappers", vec![inside("attn1.to_q.lora_A.default.weight", &[4, 64])]),
        ("norms of queries", vec![inside("attn1.norm_q.weight", &[64])]),
        ("a gate", vec![unet("middle_block.0.gate", &[1])]),
        ("an embedding of classes", vec![unet("class_embedding.weight", &[8, 256])]),
        (
            "a LoRA beside the networks",
            vec![
                more("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", &[4, 256]),
                more("lora_unet_mid_block_attentions_0_proj_in.lora_up.weight", &[256, 4]),
            ],
        ),
        ("a LoRA's pair in the text encoder", vec![layer("mlp.fc1.lora_up.weight", &[256, 4])]),
        ("a gate in the text encoder", vec![layer("gate", &[1])]),
        ("an adapter beside the text encoder", vec![more("cond_stage_model.adapter.weight", &[4, 4])]),
        ("a bias of the VAE", vec![more(&format!("{VAE}decoder.mid.attn_1.q.gate"), &[64])]),
        (
            "a LoRA's pair in the VAE",
            vec![more(&format!("{VAE}decoder.conv_in.lora_up.weight"), &[64, 4, 1, 1])],
        ),
    ]
}

/// The first words that a tensor is reported by: the numbers in its name become N.
fn kind(name: &str) -> String {
    let number = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    name.split('.').map(|part| if number(part) { "N" } else { part }).collect::<Vec<_>>().join(".")
}

#[test]
fn what_would_change_pictures_is_refused_unless_it_is_to_be_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let base = all("tiny-sd1");
    let plain = ModelConfig::infer(&opened(folder.path(), &base, &[]).unwrap()).unwrap();
    let mut failures = Failures::default();
    for (case, extra) in changing() {
        let path = folder.path().join("model.safetensors");
        write(&path, &[base.clone(), extra.clone()].concat(), &[], |_| Dtype::F8_E5M2);
        let open = || Checkpoint::open(&path).unwrap();
        match ModelConfig::infer(&open()) {
            Ok(_) => failures.check(false, || format!("{case}: accepted")),
            Err(e) => {
                let text = e.to_string();
                let named = extra.iter().all(|t| text.contains(&kind(&t.name)) || text.contains(&t.name));
                let found = named
                    && text.contains("no layer takes")
                    && text.contains("allow extra tensors to be ignored");
                failures.check(found && e.kind() == ErrorKind::Model, || format!("{case}: {text}"));
            }
        }
        let model = open().ignoring_extra();
        let (config, warned) = warnings(|| ModelConfig::infer(&model));
        failures
            .check(config.as_ref().is_ok_and(|config| *config == plain), || format!("{case}: {config:?}"));
        let once = warned.len() == 1 && extra.iter().all(|t| warned[0].contains(&kind(&t.name)));
        failures.check(once && warned[0].contains("model.safetensors"), || format!("{case}: {warned:?}"));
    }
    failures.finish();
}

/// Sixteen of one kind are one entry.
#[test]
fn tensors_of_one_kind_are_reported_once() {
    let folder = tempfile::tempdir().unwrap();
    let name = |i| format!("{UNET}{BLOCK}.attn2.processor.{i}.to_k_ip.weight");
    let extra: Vec<Tensor> = (0..16).map(|i| more(&name(i), &[2, 2])).collect();
    let model = opened(folder.path(), &[all("tiny-sd1"), extra].concat(), &[]).unwrap();
    let text = ModelConfig::infer(&model).unwrap_err().to_string();
    assert!(text.contains("attn2.processor.N.to_k_ip.weight (16)"), "{text}");
    assert_eq!(text.matches("to_k_ip").count(), 2, "one example, one kind: {text}");
}

/// What most files carry is not reported; what is unknown is.
#[test]
fn harmless_tensors_are_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let usual = [
        "betas",
        "alphas_cumprod_prev",
        "model_ema.decay",
        "model_ema.diffusion_modelinput_blocks00weight",
        "first_stage_model.loss.logvar",
        "first_stage_model.model_ema.decay",
        "cond_stage_model.transformer.text_model.embeddings.position_ids",
        "cond_stage_model.logit_scale",
        "cond_stage_model.transformer.text_projection.weight",
        "cond_stage_model.transformer.vision_model.embeddings.class_embedding",
    ];
    let base = all("tiny-sd1");
    let with = |names: &[&str]| {
        let extra: Vec<Tensor> = names.iter().map(|name| more(name, &[2, 2])).collect();
        opened(folder.path(), &[base.clone(), extra].concat(), &[]).unwrap()
    };
    let model = with(&usual);
    let (config, warned) = warnings(|| ModelConfig::infer(&model));
    assert!(config.is_ok() && warned.is_empty(), "{config:?} {warned:?}");
    let mark = more(&format!("{UNET}mark"), &[1]);
    let model = opened(folder.path(), &[base.clone(), vec![mark]].concat(), &[]).unwrap();
    let (config, warned) = warnings(|| ModelConfig::infer(&model));
    assert!(config.is_ok() && warned.len() == 1 && warned[0].contains("mark (1)"), "{config:?} {warned:?}");
    let model = with(&["first_stage_model.notes", "cond_stage_model.notes.weight"]);
    let (config, warned) = warnings(|| ModelConfig::infer(&model));
    assert!(config.is_ok() && warned.len() == 2, "{config:?} {warned:?}");
}

/// A part passed by itself is looked at like one in a checkpoint.
#[test]
fn parts_of_their_own_are_looked_at_alike() {
    let folder = tempfile::tempdir().unwrap();
    let base = all("tiny-sd1");
    let whole = || Checkpoint::synthetic(&manifest("tiny-sd1"), 0, Dtype::F16).unwrap();
    let path = folder.path().join("part.safetensors");
    let part = |tensors: Vec<Tensor>, extra: Tensor| {
        write(&path, &[tensors, vec![extra]].concat(), &[], |_| Dtype::F16);
        Checkpoint::open(&path).unwrap()
    };
    let infer = |model: Checkpoint| ModelConfig::infer(&model).map(drop);
    let text = transformers_text(&base, L);
    type Case<'a> = (&'a str, &'a str, Box<dyn Fn() -> Result<Checkpoint> + 'a>);
    let cases: Vec<Case<'_>> = vec![
        (
            "a VAE",
            "decoder.conv_in.gate",
            Box::new(|| whole().with_vae(part(under(&base, VAE), more("decoder.conv_in.gate", &[4])))),
        ),
        (
            "a VAE of diffusers",
            "decoder.conv_in.gate",
            Box::new(|| {
                whole().with_vae(part(diffusers_vae(&base, false), more("decoder.conv_in.gate", &[4])))
            }),
        ),
        (
            "a text encoder",
            "text_model.encoder.layers.0.gate",
            Box::new(|| {
                whole().with_text_encoder(part(text.clone(), more("text_model.encoder.layers.0.gate", &[4])))
            }),
        ),
        (
            "a UNet",
            "input_blocks.1.0.gate",
            Box::new(|| {
                part(under(&base, UNET), more("input_blocks.1.0.gate", &[4]))
                    .with_vae(whole())?
                    .with_text_encoder(whole())
            }),
        ),
        (
            "a UNet of diffusers",
            "down_blocks.0.attentions.0.gate",
            Box::new(|| {
                part(diffusers_unet(&base), more("down_blocks.0.attentions.0.gate", &[4]))
                    .with_vae(whole())?
                    .with_text_encoder(whole())
            }),
        ),
        (
            "diffusers' IP-Adapter",
            "encoder_hid_proj.image_projection_layers.0.weight",
            Box::new(|| {
                part(diffusers_unet(&base), more("encoder_hid_proj.image_projection_layers.0.weight", &[4]))
                    .with_vae(whole())?
                    .with_text_encoder(whole())
            }),
        ),
    ];
    let mut failures = Failures::default();
    for (case, name, open) in &cases {
        match open().and_then(infer) {
            Ok(()) => failures.check(false, || format!("{case}: accepted")),
            Err(e) => {
                let text = e.to_string();
                let words = [name, "no layer takes"];
                failures.check(words.iter().all(|w| text.contains(*w)), || format!("{case}: {text}"));
            }
        }
        let ignored = open().map(Checkpoint::ignoring_extra).and_then(infer);
        failures.check(ignored.is_ok(), || format!("{case}: {ignored:?}"));
    }
    // The loaders of workflows look at a part alone.
    let vae = part(under(&base, VAE), more("decoder.conv_in.gate", &[4]));
    failures.check(VaeConfig::infer(&vae).is_err(), || "a VAE alone".into());
    failures.check(VaeConfig::infer(&vae.ignoring_extra()).is_ok(), || "a VAE alone, ignored".into());
    let unet = part(under(&base, UNET), more("input_blocks.1.0.gate", &[4]));
    failures.check(DiffusionConfig::infer(&unet).is_err(), || "a UNet alone".into());
    failures.check(DiffusionConfig::infer(&unet.ignoring_extra()).is_ok(), || "a UNet alone, ignored".into());
    failures.finish();
}

/// A tensor that a layer takes and that is not there is an error when the network is inferred.
#[test]
fn a_missing_bias_is_found_by_inference() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["out.2.bias", "encoder.layers.1.mlp.fc2.bias", "decoder.mid.block_2.norm1.bias"] {
        let cut: Vec<Tensor> = all("tiny-sd1").into_iter().filter(|t| !t.name.ends_with(name)).collect();
        let error = ModelConfig::infer(&opened(folder.path(), &cut, &[]).unwrap()).unwrap_err().to_string();
        assert!(error.contains("missing") && error.contains(name), "{error}");
    }
}

/// The model itself looks too, whatever was looked at before.
#[test]
fn the_model_refuses_what_inference_refuses() {
    let Some(gpu) = crate::common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let extra = prefixed(&[more("attn1.to_q.bias", &[64])], &format!("{UNET}{BLOCK}."));
    let open = || opened(folder.path(), &[all("tiny-sd1"), extra.clone()].concat(), &[]).unwrap();
    let error = Model::new(gpu.clone(), open(), ModelOptions::default()).expect_err("refused");
    assert!(error.to_string().contains("attn1.to_q.bias"), "{error}");
    let found = super::encoders::latent(open().ignoring_extra(), ModelOptions::default()).unwrap();
    let plain = opened(folder.path(), &all("tiny-sd1"), &[]).unwrap();
    assert_eq!(found.data(), super::encoders::latent(plain, ModelOptions::default()).unwrap().data());
}
