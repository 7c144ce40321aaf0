//! What files say of a network beside its weights: what it predicts, and the settings of a folder.

use std::fs;
use std::path::Path;

use super::encoders::{all, latent, opened};
use crate::common::Failures;
use crate::common::files::{Tensor, UNET, diffusers_unet, diffusers_vae, transformers_text, write};
use crate::common::warnings::warnings;
use crate::common::workflow::manifest;
use sagittal::checkpoint::{Checkpoint, Dtype};
use sagittal::internals::model::DiffusionConfig;
use sagittal::internals::model::config::{Activation, ModelConfig, Prediction};
use sagittal::sampler::Discrete;
use sagittal::{Error, ErrorKind, Model, ModelOptions};
use serde_json::json;

const FAMILIES: [&str; 3] = ["tiny-sd1", "tiny-sd2", "tiny-sdxl"];
const L: &str = "cond_stage_model.transformer.text_model.";

fn mark(name: &str) -> Tensor {
    Tensor { name: name.into(), shape: vec![0], values: vec![] }
}

/// Marks among the tensors, texts of the header, what they mean, and words of the one warning, if there is one.
type Case =
    (&'static [&'static str], &'static [(&'static str, &'static str)], Prediction, &'static [&'static str]);

const CASES: &[Case] = &[
    (&[], &[], Prediction::Eps, &[]),
    (&["v_pred"], &[], Prediction::V, &[]),
    (&["v_pred", "ztsnr"], &[], Prediction::ZeroSnrV, &[]),
    (&["model.diffusion_model.v_pred"], &[], Prediction::V, &["v_pred"]),
    (&["ztsnr"], &[], Prediction::Eps, &["ztsnr", "pure noise", "left out"]),
    (&[], &[("modelspec.prediction_type", "v")], Prediction::V, &[]),
    (&[], &[("modelspec.prediction_type", "V-Prediction")], Prediction::V, &[]),
    (&[], &[("modelspec.prediction_type", "v_prediction")], Prediction::V, &[]),
    (&[], &[("modelspec.prediction_type", "velocity")], Prediction::V, &[]),
    (&[], &[("modelspec.prediction_type", "v-zsnr")], Prediction::ZeroSnrV, &[]),
    (&[], &[("modelspec.prediction_type", "epsilon")], Prediction::Eps, &[]),
    (&[], &[("modelspec.prediction_type", "eps")], Prediction::Eps, &[]),
    (&[], &[("modelspec.prediction_type", "sample")], Prediction::Picture, &[]),
    (&[], &[("modelspec.prediction_type", "")], Prediction::Eps, &[]),
    (
        &[],
        &[("modelspec.prediction_type", "flow")],
        Prediction::Eps,
        &["not known", "flow", "modelspec.prediction_type"],
    ),
    (&[], &[("modelspec.prediction_type", "edm")], Prediction::Eps, &["not known", "edm"]),
    (&[], &[("prediction_type", "v_prediction")], Prediction::V, &[]),
    (&[], &[("modelspec.architecture", "stable-diffusion-v2-768-v")], Prediction::V, &[]),
    (&[], &[("modelspec.architecture", "stable-diffusion-v2-768-v/vae")], Prediction::V, &[]),
    (&[], &[("modelspec.architecture", "stable-diffusion-v2-512")], Prediction::Eps, &[]),
    (&[], &[("modelspec.architecture", "stable-diffusion-v1")], Prediction::Eps, &[]),
    (&[], &[("ss_v_parameterization", "True")], Prediction::V, &[]),
    (&[], &[("ss_v_parameterization", "False")], Prediction::Eps, &[]),
    (&[], &[("ss_v_parameterization", "true"), ("ss_zero_terminal_snr", "True")], Prediction::ZeroSnrV, &[]),
    (&[], &[("ss_zero_terminal_snr", "False"), ("ss_v_parameterization", "1")], Prediction::V, &[]),
    (&[], &[("ss_zero_terminal_snr", "True")], Prediction::Eps, &["ss_zero_terminal_snr", "left out"]),
    (&[], &[("ss_base_model_version", "sd_v2_v")], Prediction::V, &[]),
    (&[], &[("ss_base_model_version", "sd_v1")], Prediction::Eps, &[]),
    (&["ztsnr"], &[("modelspec.prediction_type", "v")], Prediction::ZeroSnrV, &[]),
    // What the weights carry counts before what the header says.
    (
        &["v_pred"],
        &[("modelspec.prediction_type", "epsilon")],
        Prediction::V,
        &["v_pred", "epsilon", "the first counts"],
    ),
    (
        &[],
        &[("modelspec.prediction_type", "epsilon"), ("ss_v_parameterization", "True")],
        Prediction::Eps,
        &["modelspec.prediction_type", "ss_v_parameterization", "the first counts"],
    ),
];

#[test]
fn prediction_is_read_from_every_place_for_every_family() {
    let folder = tempfile::tempdir().unwrap();
    let mut failures = Failures::default();
    for family in FAMILIES {
        // The UNet alone tells it as well; the rest is large.
        let unet: Vec<Tensor> = all(family).into_iter().filter(|t| t.name.starts_with(UNET)).collect();
        for (marks, metadata, expected, words) in CASES {
            let marks: Vec<Tensor> = marks.iter().map(|name| mark(name)).collect();
            let path = folder.path().join("model.safetensors");
            write(&path, &[unet.clone(), marks.clone()].concat(), metadata, |_| Dtype::F8_E5M2);
            let model = Checkpoint::open(&path).unwrap();
            let (config, warned) = warnings(|| DiffusionConfig::infer(&model));
            let case =
                format!("{family} {:?} {metadata:?}", marks.iter().map(|m| &m.name).collect::<Vec<_>>());
            match config {
                Ok(config) => failures.check(config.prediction == *expected, || {
                    format!("{case}: expected {expected}, found {}", config.prediction)
                }),
                Err(e) => failures.check(false, || format!("{case}: {e}")),
            }
            let right = match (words.is_empty(), warned.as_slice()) {
                (true, []) => true,
                (false, [one]) => words.iter().all(|w| one.contains(w)) && one.contains("model.safetensors"),
                _ => false,
            };
            failures.check(right, || format!("{case}: {warned:?}"));
        }
    }
    failures.finish();
}

/// Noise levels that a single file carries along: those of its kind are not worth a word, an end in pure noise
/// counts, others are reported.
#[test]
fn noise_levels_beside_the_weights() {
    let folder = tempfile::tempdir().unwrap();
    let unet: Vec<Tensor> = all("tiny-sd1").into_iter().filter(|t| t.name.starts_with(UNET)).collect();
    let left =
        |table: &Discrete| -> Vec<f32> { table.sigmas().iter().map(|s| 1.0 / (1.0 + s * s)).collect() };
    let usual = left(&Discrete::stable_diffusion());
    let mut pure = left(&Discrete::zero_terminal_snr());
    pure[999] = 0.0;
    let v = &[("modelspec.prediction_type", "v")][..];
    let mut failures = Failures::default();
    for (what, values, metadata, expected, words) in [
        ("the usual", usual.clone(), v, Prediction::V, &[][..]),
        ("pure noise", pure.clone(), v, Prediction::ZeroSnrV, &[]),
        ("pure noise without v", pure, &[], Prediction::Eps, &["alphas_cumprod", "left out"]),
        (
            "others",
            usual.iter().map(|a| a * 0.9).collect(),
            v,
            Prediction::V,
            &["alphas_cumprod", "noise levels of"],
        ),
        ("fewer", usual[..500].to_vec(), &[], Prediction::Eps, &["alphas_cumprod", "left out"]),
        ("no numbers", vec![f32::NAN; 1000], &[], Prediction::Eps, &["alphas_cumprod", "left out"]),
    ] {
        let tensor = Tensor { name: "alphas_cumprod".into(), shape: vec![values.len()], values };
        let path = folder.path().join("model.safetensors");
        write(&path, &[unet.clone(), vec![tensor]].concat(), metadata, |name| match name {
            "alphas_cumprod" => Dtype::F32,
            _ => Dtype::F8_E5M2,
        });
        let model = Checkpoint::open(&path).unwrap();
        let (config, warned) = warnings(|| DiffusionConfig::infer(&model));
        let found = config.unwrap().prediction;
        failures.check(found == expected, || format!("{what}: {found}"));
        let warned = warned.join("\n");
        failures
            .check(warned.is_empty() == words.is_empty() && words.iter().all(|w| warned.contains(w)), || {
                format!("{what}: {warned}")
            });
    }
    failures.finish();
}

/// A model whose header names its prediction draws what one draws whose prediction is set by hand.
#[test]
fn predictions_in_metadata_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    for family in FAMILIES {
        let all = all(family);
        for (metadata, by_hand) in [
            (&[("modelspec.prediction_type", "v")][..], Prediction::V),
            (&[("ss_v_parameterization", "True"), ("ss_zero_terminal_snr", "True")], Prediction::ZeroSnrV),
        ] {
            let opened_model = opened(folder.path(), &all, metadata).unwrap();
            let Some(found) = latent(opened_model, ModelOptions::default()) else { return };
            let plain = || opened(folder.path(), &all, &[]).unwrap();
            let options = ModelOptions { prediction: Some(by_hand), ..Default::default() };
            assert_eq!(found.data(), latent(plain(), options).unwrap().data(), "{family} {by_hand}");
            let eps = latent(plain(), ModelOptions::default()).unwrap();
            assert_ne!(found.data(), eps.data(), "{family} {by_hand}");
        }
    }
}

/// A diffusers folder of the smallest family.
fn pipeline(folder: &Path) {
    let all = all("tiny-sd1");
    let parts = [
        ("unet", "diffusion_pytorch_model", diffusers_unet(&all)),
        ("vae", "diffusion_pytorch_model", diffusers_vae(&all, false)),
        ("text_encoder", "model", transformers_text(&all, L)),
    ];
    for (part, base, tensors) in parts {
        write(&folder.join(part).join(format!("{base}.safetensors")), &tensors, &[], |_| Dtype::F32);
    }
    fs::create_dir_all(folder.join("scheduler")).unwrap();
    fs::write(folder.join("model_index.json"), "{}").unwrap();
}

fn put(folder: &Path, file: &str, text: &serde_json::Value) {
    fs::write(folder.join(file), text.to_string()).unwrap();
}

fn whole() -> Checkpoint {
    Checkpoint::synthetic(&manifest("tiny-sd1"), 0, Dtype::F32).unwrap()
}

const SCHEDULER: &str = "scheduler/scheduler_config.json";

#[test]
fn a_folders_settings_count_wherever_it_is_passed() {
    let folder = tempfile::tempdir().unwrap();
    pipeline(folder.path());
    let at = |part: &str| folder.path().join(part);
    put(
        folder.path(),
        "vae/config.json",
        &json!({ "scaling_factor": 0.5, "shift_factor": null, "force_upcast": true }),
    );
    put(folder.path(), "text_encoder/config.json", &json!({ "hidden_act": "gelu", "num_hidden_layers": 1 }));
    put(folder.path(), "unet/config.json", &json!({ "attention_head_dim": 4 }));
    put(
        folder.path(),
        SCHEDULER,
        &json!({ "prediction_type": "v_prediction", "rescale_betas_zero_snr": true }),
    );
    let open = |part: &str| Checkpoint::open(at(part)).unwrap();
    let infer = |model: Checkpoint| ModelConfig::infer(&model).unwrap();
    let of_settings = |c: &ModelConfig| (c.latent_scale, c.text[0].activation, c.text[0].layers);
    // The whole folder.
    let config = infer(open(""));
    assert_eq!(of_settings(&config), (0.5, Activation::Gelu, 1));
    assert_eq!(config.prediction, Prediction::ZeroSnrV);
    // Its parts laid over another model, by themselves and out of the whole folder.
    for part in ["vae", ""] {
        let config = infer(whole().with_vae(open(part)).unwrap());
        assert_eq!(of_settings(&config), (0.5, Activation::QuickGelu, 2), "{part}");
    }
    for part in ["text_encoder", ""] {
        let config = infer(whole().with_text_encoder(open(part)).unwrap());
        assert_eq!(of_settings(&config), (0.182_15, Activation::Gelu, 1), "{part}");
    }
    let alone = Checkpoint::text_encoders(vec![open("text_encoder")]).unwrap();
    let text = sagittal::internals::model::config::TextConfig::infer_all(&alone).unwrap();
    assert_eq!((text[0].activation, text[0].layers), (Activation::Gelu, 1));
    // The UNet's folder by itself: its heads, and the scheduler beside it.
    let unet = DiffusionConfig::infer(&open("unet")).unwrap();
    assert_eq!(unet.prediction, Prediction::ZeroSnrV);
    assert_eq!(unet.unet.heads, config.unet.heads);
    let whole_unet = DiffusionConfig::infer(&open("")).unwrap();
    assert_eq!((whole_unet.latent_scale, whole_unet.prediction), (0.5, Prediction::ZeroSnrV));
    // A VAE without settings leaves nothing of the one before.
    let config = infer(open("").with_vae(whole()).unwrap());
    assert_eq!(config.latent_scale, 0.182_15);
}

/// Pictures follow the settings: a scaling_factor beside `--vae` is that of a folder that has it.
#[test]
fn a_vaes_scaling_factor_changes_the_latent() {
    let folder = tempfile::tempdir().unwrap();
    pipeline(folder.path());
    let draw = |model| latent(model, ModelOptions::default());
    let vae = || Checkpoint::open(folder.path().join("vae")).unwrap();
    let Some(usual) = draw(whole().with_vae(vae()).unwrap()) else { return };
    put(folder.path(), "vae/config.json", &json!({ "scaling_factor": 0.3643 }));
    let half = draw(whole().with_vae(vae()).unwrap()).unwrap();
    assert_eq!(half.data(), draw(Checkpoint::open(folder.path()).unwrap()).unwrap().data());
    // The UNet sees the same; what it gives is divided by another number.
    for (a, b) in usual.data().iter().zip(half.data()) {
        assert!((a - 2.0 * b).abs() < 1e-4 * a.abs().max(1.0), "{a} {b}");
    }
}

/// A layer less than the file has: what is read is that of the file cut there.
#[test]
fn num_hidden_layers_cuts_the_text_encoder() {
    let folder = tempfile::tempdir().unwrap();
    pipeline(folder.path());
    put(folder.path(), "text_encoder/config.json", &json!({ "num_hidden_layers": 1 }));
    let model = Checkpoint::open(folder.path()).unwrap();
    let (config, warned) = warnings(|| ModelConfig::infer(&model).unwrap());
    assert_eq!(config.text[0].layers, 1);
    assert!(warned.len() == 1 && warned[0].contains("no layer takes"), "{warned:?}");
    let cut: Vec<Tensor> =
        all("tiny-sd1").into_iter().filter(|t| !t.name.contains("encoder.layers.1.")).collect();
    let cut = opened(folder.path(), &cut, &[]).unwrap();
    let Some(found) = latent(model, ModelOptions::default()) else { return };
    assert_eq!(found.data(), latent(cut, ModelOptions::default()).unwrap().data());
    assert_ne!(found.data(), latent(whole(), ModelOptions::default()).unwrap().data());
    put(folder.path(), "text_encoder/config.json", &json!({ "num_hidden_layers": 3 }));
    let error = ModelConfig::infer(&Checkpoint::open(folder.path()).unwrap()).unwrap_err().to_string();
    assert!(error.contains("another number of layers") && error.contains("expected 3, found 2"), "{error}");
}

/// The noise schedule of a scheduler: its levels by the definition.
#[test]
fn a_schedulers_betas_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    pipeline(folder.path());
    let noise = |scheduler: serde_json::Value| {
        put(folder.path(), SCHEDULER, &scheduler);
        Ok::<_, Error>(ModelConfig::infer(&Checkpoint::open(folder.path())?)?.noise)
    };
    let usual = json!({
        "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
        "trained_betas": null, "steps_offset": 1, "clip_sample": false,
    });
    assert_eq!(noise(usual).unwrap(), None);
    let levels = |scheduler: serde_json::Value| noise(scheduler).unwrap().unwrap().alphas_cumprod;
    let linear = levels(json!({ "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear" }));
    assert_eq!(linear.len(), 1000);
    // Π (1 - β) with β from 0.0001 to 0.02, in steps of 0.0199 / 999.
    let product = |n: usize| (0..n).map(|i| 1.0 - (0.0001 + 0.0199 / 999.0 * i as f64)).product::<f64>();
    for n in [1, 2, 500, 1000] {
        assert!((linear[n - 1] / product(n) - 1.0).abs() < 1e-12, "{n}");
    }
    let cosine = levels(json!({ "beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 100 }));
    let alpha = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
    assert!((cosine[49] / (alpha(0.5) / alpha(0.0)) - 1.0).abs() < 1e-9 && cosine.len() == 100);
    assert_eq!(levels(json!({ "trained_betas": [0.5, 0.5] })), [0.5, 0.25]);
    for (scheduler, word) in [
        (json!({ "beta_schedule": "sigmoid" }), "beta_schedule"),
        (json!({ "beta_start": 2.0 }), "beta_start"),
        (json!({ "beta_end": "0.02" }), "beta_end"),
        (json!({ "num_train_timesteps": 0 }), "num_train_timesteps"),
        (json!({ "num_train_timesteps": 1e12 }), "num_train_timesteps"),
        (json!({ "trained_betas": [0.1, null] }), "trained_betas"),
        (json!({ "trained_betas": "many" }), "trained_betas"),
        (json!({ "prediction_type": "flow_prediction" }), "prediction_type"),
        (json!({ "_class_name": "EDMEulerScheduler" }), "_class_name"),
        (json!({ "_class_name": "FlowMatchEulerDiscreteScheduler" }), "_class_name"),
    ] {
        let error = noise(scheduler).unwrap_err();
        let text = error.to_string();
        let named = text.contains(word) && text.contains("scheduler_config.json");
        assert!(error.kind() == ErrorKind::Model && named, "{word}: {text}");
    }
    // And they are what a run samples on.
    let Some(gpu) = crate::common::gpu() else { return };
    put(
        folder.path(),
        SCHEDULER,
        &json!({ "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear" }),
    );
    let model = Model::new(gpu, Checkpoint::open(folder.path()).unwrap(), ModelOptions::default()).unwrap();
    let sigma = ((1.0 - product(1000)) / product(1000)).sqrt();
    assert!((f64::from(model.discrete().sigma_max()) / sigma - 1.0).abs() < 1e-6);
}

/// Settings with which a network computes something else are refused by name, wherever they stand.
#[test]
fn settings_that_cannot_be_followed_are_refused_by_name() {
    let cases = [
        ("vae", json!({ "shift_factor": 0.1159 }), "shift_factor"),
        ("vae", json!({ "latents_mean": [-1.6, 1.1, -0.9, 0.4] }), "latents_mean"),
        ("vae", json!({ "latents_std": [8.4, 5.3, 4.2, 3.6] }), "latents_std"),
        ("vae", json!({ "scaling_factor": "large" }), "scaling_factor"),
        ("vae", json!({ "scaling_factor": 0.0 }), "scaling_factor"),
        ("vae", json!({ "scaling_factor": -1.0 }), "scaling_factor"),
        ("vae", json!({ "scaling_factor": 1e300 }), "scaling_factor"),
        ("vae", json!({ "act_fn": "relu" }), "act_fn"),
        ("vae", json!({ "norm_num_groups": 16 }), "norm_num_groups"),
        ("vae", json!({ "use_post_quant_conv": false }), "use_post_quant_conv"),
        ("unet", json!({ "act_fn": "gelu" }), "act_fn"),
        ("unet", json!({ "norm_eps": 1e-6 }), "norm_eps"),
        ("unet", json!({ "freq_shift": 1 }), "freq_shift"),
        ("unet", json!({ "flip_sin_to_cos": false }), "flip_sin_to_cos"),
        ("unet", json!({ "resnet_time_scale_shift": "scale_shift" }), "resnet_time_scale_shift"),
        ("unet", json!({ "mid_block_scale_factor": 1.414 }), "mid_block_scale_factor"),
        ("unet", json!({ "attention_type": "gated" }), "attention_type"),
        ("text_encoder", json!({ "layer_norm_eps": 1e-3 }), "layer_norm_eps"),
        ("text_encoder", json!({ "hidden_act": "relu" }), "relu"),
        ("text_encoder", json!({ "num_hidden_layers": 0 }), "layers"),
    ];
    let folder = tempfile::tempdir().unwrap();
    pipeline(folder.path());
    let mut failures = Failures::default();
    for (part, config, word) in cases {
        let file = format!("{part}/config.json");
        put(folder.path(), &file, &config);
        let infer = |model: sagittal::Result<Checkpoint>| model.and_then(|m| ModelConfig::infer(&m)).err();
        let part_alone = || match part {
            "vae" => whole().with_vae(Checkpoint::open(folder.path().join(part))?),
            "text_encoder" => whole().with_text_encoder(Checkpoint::open(folder.path().join(part))?),
            _ => Checkpoint::open(folder.path().join(part))?.with_vae(whole())?.with_text_encoder(whole()),
        };
        for (how, error) in
            [("whole", infer(Checkpoint::open(folder.path()))), ("alone", infer(part_alone()))]
        {
            match error {
                None => failures.check(false, || format!("{how} {part} {config}: accepted")),
                Some(e) => failures
                    .check(e.kind() == ErrorKind::Model && e.to_string().contains(word), || {
                        format!("{how} {part} {config}: {e}")
                    }),
            }
        }
        fs::remove_file(folder.path().join(&file)).unwrap();
    }
    // What diffusers writes for these networks.
    put(
        folder.path(),
        "unet/config.json",
        &json!({
            "_class_name": "UNet2DConditionModel", "act_fn": "silu", "attention_head_dim": 8, "block_out_channels": [64],
            "center_input_sample": false, "class_embed_type": null, "dual_cross_attention": false, "flip_sin_to_cos": true,
            "freq_shift": 0, "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32,
            "only_cross_attention": false, "resnet_time_scale_shift": "default", "resnet_out_scale_factor": 1.0,
            "resnet_skip_time_act": false, "time_embedding_type": "positional", "timestep_post_act": null,
            "time_cond_proj_dim": null, "upcast_attention": true, "use_linear_projection": false, "attention_type": "default",
        }),
    );
    put(
        folder.path(),
        "vae/config.json",
        &json!({
            "act_fn": "silu", "norm_num_groups": 32, "latents_mean": null, "latents_std": null, "shift_factor": null,
            "scaling_factor": 0.18215, "force_upcast": false, "use_quant_conv": true, "use_post_quant_conv": true,
            "mid_block_add_attention": true, "sample_size": 512,
        }),
    );
    put(
        folder.path(),
        "text_encoder/config.json",
        &json!({
            "hidden_act": "quick_gelu", "layer_norm_eps": 1e-05, "num_hidden_layers": 2, "num_attention_heads": 1,
            "eos_token_id": 2, "projection_dim": 768, "max_position_embeddings": 77,
        }),
    );
    let sound = Checkpoint::open(folder.path()).and_then(|model| ModelConfig::infer(&model));
    let expected = ModelConfig::infer(&whole()).unwrap();
    failures.check(sound.as_ref().is_ok_and(|found| *found == expected), || format!("sound: {sound:?}"));
    failures.finish();
}
