//! Formats × families: each layout that people have reads back as the same tensors, and is
//! recognised as the same network.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::common::files::{
    Tensor, UNET, VAE, diffusers_unet, diffusers_vae, prefixed, rounded, tensors, transformers_text, under,
    write,
};
use crate::common::{Failures, MANIFESTS};
use sagittal::Error;
use sagittal::checkpoint::{Checkpoint, Dtype, Manifest};
use sagittal::internals::model::Prediction;
use sagittal::internals::model::config::{Activation, Heads, ModelConfig};
use sagittal::{Model, ModelOptions};
use serde_json::json;

/// A small family and the prefixes of its text encoders.
struct Family {
    name: &'static str,
    manifest: Manifest,
    tensors: Vec<Tensor>,
    text: &'static [&'static str],
}

const FAMILIES: [(&str, &[&str]); 3] = [
    ("tiny-sd1", &["cond_stage_model.transformer.text_model."]),
    ("tiny-sd2", &["cond_stage_model.model."]),
    ("tiny-sdxl", &["conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model."]),
];

fn families() -> impl Iterator<Item = Family> {
    FAMILIES.into_iter().map(|(name, text)| {
        let (_, json) = MANIFESTS.iter().find(|(n, _)| *n == name).unwrap();
        let manifest = Manifest::parse(json).unwrap();
        Family { name, tensors: tensors(&manifest), manifest, text }
    })
}

impl Family {
    /// Metadata of a single file: a network this small shows its prediction in no other way.
    fn metadata(&self) -> [(&str, &str); 1] {
        [("modelspec.prediction_type", &self.manifest.prediction)]
    }

    fn config(&self) -> ModelConfig {
        ModelConfig::infer(&Checkpoint::synthetic(&self.manifest, 0, Dtype::F32).unwrap()).unwrap()
    }

    /// Holds `model` to the family: every tensor equal after rounding to `dtype`, one configuration.
    fn check(
        &self,
        format: &str,
        model: &Checkpoint,
        dtype: impl Fn(&str) -> Dtype,
        failures: &mut Failures,
    ) {
        for tensor in &self.tensors {
            let expected = rounded(&tensor.values, dtype(&tensor.name));
            match model.read_f32(&tensor.name, &tensor.shape) {
                Ok(found) => {
                    let same = found.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
                    failures.check(same, || format!("{} {format}: {} differs", self.name, tensor.name));
                }
                Err(e) => failures.check(false, || format!("{} {format}: {e}", self.name)),
            }
        }
        match ModelConfig::infer(model) {
            Ok(found) => {
                let expected = self.config();
                failures.check(found == expected, || {
                    format!("{} {format}: expected {expected:?}, found {found:?}", self.name)
                });
            }
            Err(e) => failures.check(false, || format!("{} {format}: {e}", self.name)),
        }
        self.check_rows(format, model, &dtype, failures);
    }

    /// Rows of the token table, which text encoders read one by one.
    fn check_rows(
        &self,
        format: &str,
        model: &Checkpoint,
        dtype: &impl Fn(&str) -> Dtype,
        failures: &mut Failures,
    ) {
        for tensor in self.tensors.iter().filter(|t| t.name.ends_with("token_embedding.weight")) {
            let width = tensor.shape[1];
            let stored = rounded(&tensor.values, dtype(&tensor.name));
            let expected = [&stored[320 * width..321 * width], &stored[..width]].concat();
            let found = model.rows_f32(&tensor.name, &[320, 0]).unwrap_or_default();
            failures.check(found == expected, || format!("{} {format}: rows of {}", self.name, tensor.name));
        }
    }

    /// The scheduler's settings and the index of a diffusers folder.
    fn settings(&self, folder: &Path) {
        let prediction = if self.manifest.prediction == "v" { "v_prediction" } else { "epsilon" };
        fs::create_dir_all(folder.join("scheduler")).unwrap();
        let scheduler = json!({ "_class_name": "DDIMScheduler", "prediction_type": prediction });
        fs::write(folder.join("scheduler/scheduler_config.json"), scheduler.to_string()).unwrap();
        let index = json!({ "_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"] });
        fs::write(folder.join("model_index.json"), index.to_string()).unwrap();
    }

    /// The parts of a diffusers folder: folder, base name of the weights, tensors.
    fn parts(&self, old: bool) -> Vec<(&'static str, &'static str, Vec<Tensor>)> {
        let text = ["text_encoder", "text_encoder_2"].into_iter().zip(self.text);
        let text = text.map(|(folder, prefix)| (folder, "model", transformers_text(&self.tensors, prefix)));
        let mut parts: Vec<_> = text.collect();
        parts.push(("unet", "diffusion_pytorch_model", diffusers_unet(&self.tensors)));
        parts.push(("vae", "diffusion_pytorch_model", diffusers_vae(&self.tensors, old)));
        parts
    }
}

#[test]
fn single_files() {
    let mut failures = Failures::default();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let dtypes = [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F8_E4M3, Dtype::F8_E5M2];
    for family in families() {
        for dtype in dtypes {
            write(&path, &family.tensors, &family.metadata(), |_| dtype);
            let model = Checkpoint::open(&path).unwrap();
            family.check(&dtype.to_string(), &model, |_| dtype, &mut failures);
        }
        let mixed = |name: &str| dtypes[name.len() % dtypes.len()];
        write(&path, &family.tensors, &family.metadata(), mixed);
        family.check("mixed", &Checkpoint::open(&path).unwrap(), mixed, &mut failures);
    }
    failures.finish();
}

#[test]
fn diffusers_folders() {
    let mut failures = Failures::default();
    for family in families() {
        for (format, variant, old, dtype) in [
            ("folder", "", false, Dtype::F32),
            ("folder with old names", "", true, Dtype::BF16),
            ("folder of a variant", ".fp16", false, Dtype::F16),
            ("folder of another variant", ".non_ema", false, Dtype::F16),
        ] {
            let folder = tempfile::tempdir().unwrap();
            family.settings(folder.path());
            for (part, base, tensors) in family.parts(old) {
                let path = folder.path().join(part).join(format!("{base}{variant}.safetensors"));
                write(&path, &tensors, &[("format", "pt")], |_| dtype);
            }
            let model = Checkpoint::open(folder.path()).unwrap();
            family.check(format, &model, |_| dtype, &mut failures);
        }
    }
    failures.finish();
}

/// Writes `tensors` as shards with an index.
fn write_shards(folder: &Path, base: &str, variant: &str, count: usize, tensors: &[Tensor], dtype: Dtype) {
    let mut map = serde_json::Map::new();
    let size = tensors.len().div_ceil(count);
    for (i, part) in tensors.chunks(size).enumerate() {
        let shard = format!("{base}{variant}-{:05}-of-{count:05}.safetensors", i + 1);
        write(&folder.join(&shard), part, &[], |_| dtype);
        map.extend(part.iter().map(|t| (t.name.clone(), json!(shard))));
    }
    let index = json!({ "metadata": { "total_size": 1 }, "weight_map": map });
    fs::write(folder.join(format!("{base}.safetensors.index{variant}.json")), index.to_string()).unwrap();
}

#[test]
fn sharded_folders() {
    let mut failures = Failures::default();
    for family in families() {
        for (format, variant, dtype) in
            [("sharded", "", Dtype::F16), ("sharded variant", ".fp16", Dtype::F8_E4M3)]
        {
            let folder = tempfile::tempdir().unwrap();
            family.settings(folder.path());
            for (part, base, tensors) in family.parts(false) {
                write_shards(&folder.path().join(part), base, variant, 3, &tensors, dtype);
            }
            let model = Checkpoint::open(folder.path()).unwrap();
            family.check(format, &model, |_| dtype, &mut failures);
        }
    }
    failures.finish();
}

/// A UNet alone, a VAE alone, text encoders alone, each in every layout, put together.
#[test]
fn separate_parts() {
    let mut failures = Failures::default();
    for family in families() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, tensors: &[Tensor]| -> PathBuf {
            let path = folder.path().join(name).join("model.safetensors");
            write(&path, tensors, &family.metadata(), |_| Dtype::F16);
            path
        };
        let all = &family.tensors;
        let unet = under(all, UNET);
        let unets = [
            file("unet-prefixed", &prefixed(&unet, UNET)),
            file("unet-bare", &unet),
            file("unet-diffusers", &diffusers_unet(all)),
        ];
        let whole = file("whole", all);
        let vaes = [
            file("vae-prefixed", &prefixed(&under(all, VAE), VAE)),
            file("vae-bare", &under(all, VAE)),
            file("vae-diffusers", &diffusers_vae(all, false)),
            file("vae-old", &diffusers_vae(all, true)).parent().unwrap().to_owned(),
            whole.clone(),
        ];
        // SDXL's encoders in either order.
        let texts = |kind: &str, layout: &dyn Fn(&str) -> Vec<Tensor>| -> Vec<PathBuf> {
            family.text.iter().enumerate().map(|(i, p)| file(&format!("{kind}-{i}"), &layout(p))).collect()
        };
        let mut reversed = texts("text-transformers", &|prefix| transformers_text(all, prefix));
        reversed.reverse();
        let texts = [
            texts("text-prefixed", &|prefix| prefixed(&under(all, prefix), prefix)),
            texts("text-own", &|prefix| {
                let bare = if prefix.ends_with("text_model.") { "text_model." } else { "" };
                prefixed(&under(all, prefix), bare)
            }),
            reversed,
            texts("text-comfy", &|prefix| prefixed(&transformers_text(all, prefix), "clip_l.transformer.")),
            vec![whole],
        ];
        for i in 0..unets.len().max(vaes.len()).max(texts.len()) {
            let (unet, vae, text) = (&unets[i % unets.len()], &vaes[i % vaes.len()], &texts[i % texts.len()]);
            let format = format!("{unet:?} + {vae:?} + {text:?}");
            let open = || -> Result<Checkpoint, Error> {
                let mut model = Checkpoint::open(unet)?.with_vae(Checkpoint::open(vae)?)?;
                for text in text {
                    model = model.with_text_encoder(Checkpoint::open(text)?)?;
                }
                Ok(model)
            };
            match open() {
                Ok(model) => family.check(&format, &model, |_| Dtype::F16, &mut failures),
                Err(e) => failures.check(false, || format!("{} {format}: {e}", family.name)),
            }
        }
    }
    failures.finish();
}

/// Parts laid over a full checkpoint replace its own and leave the rest.
#[test]
fn overlays_replace() {
    let mut failures = Failures::default();
    for family in families() {
        let other = Checkpoint::synthetic(&family.manifest, 7, Dtype::F32).unwrap();
        let model = Checkpoint::synthetic(&family.manifest, 0, Dtype::F32).unwrap();
        let model = model.with_vae(Checkpoint::synthetic(&family.manifest, 7, Dtype::F32).unwrap()).unwrap();
        let model =
            model.with_text_encoder(Checkpoint::synthetic(&family.manifest, 7, Dtype::F32).unwrap()).unwrap();
        failures.check(model.names().len() == family.tensors.len(), || format!("{}: names", family.name));
        for tensor in &family.tensors {
            let found = model.read_f32(&tensor.name, &tensor.shape).unwrap();
            let expected = match tensor.name.starts_with(UNET) {
                true => tensor.values.clone(),
                false => other.read_f32(&tensor.name, &tensor.shape).unwrap(),
            };
            failures.check(found == expected, || format!("{}: {}", family.name, tensor.name));
        }
    }
    failures.finish();
}

/// An OpenAI encoder under OpenCLIP's names: queries, keys and values are cut out of one tensor.
#[test]
fn packed_encoders_are_cut_apart() {
    let mut failures = Failures::default();
    let family = families().next().unwrap();
    let packed = |name: &str| {
        let names = sagittal::internals::checkpoint::key_maps::text::transformers(name).unwrap();
        let parts = names.iter().map(|n| {
            let name = format!("{}{n}", family.text[0]);
            family.tensors.iter().find(|t| t.name == name).unwrap().clone()
        });
        let parts: Vec<Tensor> = parts.collect();
        let mut shape = parts[0].shape.clone();
        shape[0] *= parts.len();
        Tensor { name: name.into(), shape, values: parts.into_iter().flat_map(|t| t.values).collect() }
    };
    let mut names: Vec<String> =
        ["token_embedding.weight", "positional_embedding", "ln_final.weight", "ln_final.bias"]
            .map(String::from)
            .into();
    for layer in 0..2 {
        for inside in ["ln_1", "ln_2", "attn.out_proj", "mlp.c_fc", "mlp.c_proj"] {
            names.extend(["weight", "bias"].map(|l| format!("transformer.resblocks.{layer}.{inside}.{l}")));
        }
        names.extend(["weight", "bias"].map(|l| format!("transformer.resblocks.{layer}.attn.in_proj_{l}")));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.safetensors");
    write(&path, &names.iter().map(|n| packed(n)).collect::<Vec<_>>(), &[], |_| Dtype::F16);
    let model = Checkpoint::synthetic(&family.manifest, 0, Dtype::F32).unwrap();
    let model = model.with_text_encoder(Checkpoint::open(&path).unwrap()).unwrap();
    let dtype = |name: &str| if name.starts_with("cond_stage_model.") { Dtype::F16 } else { Dtype::F32 };
    family.check("packed", &model, dtype, &mut failures);
    failures.finish();
}

/// What the settings beside the weights tell: heads, nonlinearity, latent scale.
#[test]
fn settings_are_heeded() {
    let family = families().next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    family.settings(folder.path());
    for (part, base, tensors) in family.parts(false) {
        write(&folder.path().join(part).join(format!("{base}.safetensors")), &tensors, &[], |_| Dtype::F16);
    }
    let open = || ModelConfig::infer(&Checkpoint::open(folder.path()).unwrap()).unwrap();
    let put = |part: &str, text: serde_json::Value| {
        fs::write(folder.path().join(part).join("config.json"), text.to_string()).unwrap();
    };
    // What diffusers writes for a network of this kind changes nothing.
    put("unet", json!({ "attention_head_dim": 8, "num_attention_heads": null }));
    put("vae", json!({ "scaling_factor": 0.18215 }));
    put("text_encoder", json!({ "hidden_act": "quick_gelu", "num_attention_heads": 1 }));
    assert_eq!(open(), family.config());
    put("unet", json!({ "attention_head_dim": [2, 4, 8] }));
    put("vae", json!({ "scaling_factor": 0.5 }));
    put("text_encoder", json!({ "hidden_act": "gelu", "num_attention_heads": 4 }));
    let scheduler = json!({ "prediction_type": "v_prediction" });
    fs::write(folder.path().join("scheduler/scheduler_config.json"), scheduler.to_string()).unwrap();
    let found = open();
    assert_eq!((found.unet.heads, found.latent_scale), (Heads::Width(32), 0.5));
    assert_eq!((found.text[0].activation, found.text[0].heads), (Activation::Gelu, 4));
    assert_eq!(found.prediction, Prediction::V);
    // They go with the parts that they belong to.
    let model = Checkpoint::open(folder.path()).unwrap();
    let other = || Checkpoint::synthetic(&family.manifest, 0, Dtype::F16).unwrap();
    let found =
        ModelConfig::infer(&model.with_vae(other()).unwrap().with_text_encoder(other()).unwrap()).unwrap();
    assert_eq!((found.vae, found.latent_scale), (family.config().vae, 0.18215));
    assert_eq!(found.text, family.config().text);
}

/// SD 2 reads the last layer but one, and its files in the diffusers layout end there.
#[test]
fn the_last_layer_of_sd2_may_be_absent() {
    let (_, json) = MANIFESTS.iter().find(|(name, _)| *name == "sd21").unwrap();
    let mut manifest = Manifest::parse(json).unwrap();
    manifest.tensors.retain(|(name, _)| !name.contains("resblocks.23."));
    let checkpoint = Checkpoint::synthetic(&manifest, 0, Dtype::F16).unwrap();
    let config = ModelConfig::infer(&checkpoint).unwrap();
    assert_eq!((config.text[0].layers, config.text[0].absent), (23, 1));
    let Some(gpu) = crate::common::gpu() else { return };
    let model = Model::new(gpu, checkpoint, ModelOptions::default()).unwrap();
    for skip in [1, 25] {
        let error = model.encode_text("", Some(skip), false, &AtomicBool::new(false)).err().unwrap();
        assert!(error.to_string().contains("expected 2 to 24"), "{error}");
    }
}
