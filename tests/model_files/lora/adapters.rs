//! Adapters of every kind against weights that ComfyUI has merged, and against the formats' own definitions where
//! ComfyUI departs from them: see tests/golden/README.md.

use std::sync::Arc;

use super::{Tensor, checkpoint, lora};
use crate::common::{Failures, MANIFESTS};
use sagittal::checkpoint::Manifest;
use sagittal::engine::Source;
use sagittal::lora::{Networks, Patched, Patches};
use sagittal::model::ModelConfig;
use sagittal::{Checkpoint, LoraUse};

/// Agreement of merged weights, in f32.
const TOLERANCE: f32 = 2e-6;
/// Before the names of the set's weights.
const PREFIX: &str = "model.";

struct Set {
    list: serde_json::Value,
    tensors: Checkpoint,
}

impl Set {
    fn open() -> Self {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let text = std::fs::read_to_string(folder.join("adapters.json")).expect("the list");
        let tensors = Checkpoint::open(folder.join("adapters.safetensors")).expect("the tensors");
        Self { list: serde_json::from_str(&text).expect("JSON"), tensors }
    }

    fn read(&self, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        let shape = self.tensors.tensor(name)?.shape.clone();
        let values = self.tensors.read_f32(name, &shape).expect("values");
        Some((shape, values))
    }

    /// The small SD 1 family by its names, with the set's weights in it.
    fn model(&self) -> Checkpoint {
        let (_, text) = MANIFESTS.iter().find(|(name, _)| *name == "tiny-sd1").expect("a family");
        let manifest = Manifest::parse(text).expect("a manifest");
        let synthetic =
            Checkpoint::synthetic(&manifest, 0, sagittal::checkpoint::Dtype::F16).expect("tensors");
        let own = self.list["model_keys"].as_object().expect("keys");
        let mut tensors: Vec<Tensor> = own
            .values()
            .flat_map(|key| {
                let name = format!("{PREFIX}{}", key.as_str().expect("a name"));
                let of = match () {
                    _ if name.contains("in_layers") => "weight.conv",
                    _ if name.contains("norm1") => "weight.norm",
                    _ => "weight.linear",
                };
                let bias = (name.replace(".weight", ".bias"), format!("{of}_bias"));
                [(name, of.to_owned()), bias]
            })
            .filter_map(|(name, of)| self.read(&of).map(|(shape, values)| (name, shape, values)))
            .collect();
        let others = synthetic.names().filter(|name| !tensors.iter().any(|(own, ..)| own == name));
        let others: Vec<Tensor> = others.map(|name| (name.to_owned(), vec![1], vec![0.0])).collect();
        tensors.extend(others);
        checkpoint("model", &tensors)
    }
}

#[test]
fn adapters_of_every_kind_merge_as_their_definitions_say() {
    let set = Set::open();
    let model = set.model();
    let config = ModelConfig::infer(&crate::common::synthetic("tiny-sd1")).expect("a family");
    let networks = Networks { family: config.family, model: &model, unet: true, text: &[] };
    let mut failures = Failures::default();
    let (mut compared, mut worst) = (0, 0.0f32);
    for case in set.list["cases"].as_array().expect("cases") {
        let name = case["name"].as_str().expect("a name");
        let module = case["module"].as_str().expect("a module");
        let keys = case["tensors"].as_object().expect("tensors").keys();
        let tensors: Vec<Tensor> = keys
            .map(|key| {
                let (shape, values) = set
                    .read(&format!("{name}.{module}.{key}"))
                    .or_else(|| set.read(&format!("{name}.{key}")))
                    .unwrap_or_else(|| panic!("{name}.{key}"));
                (format!("{module}.{key}"), shape, values)
            })
            .collect();
        let lora = lora("adapter", &tensors);
        let weight = format!("{PREFIX}{}", set.list["model_keys"][module].as_str().expect("a key"));
        for strength in set.list["strengths"].as_array().expect("strengths") {
            let number = strength.as_f64().expect("a number");
            let uses = [LoraUse::new(Arc::clone(&lora), number as f32)];
            let patches = match Patches::of_part(&networks, &uses) {
                Ok(patches) => patches,
                Err(e) => {
                    failures.check(false, || format!("{name}: {e}"));
                    continue;
                }
            };
            for (leaf, merged) in [("weight", "merged"), ("bias", "merged_bias")] {
                let tensor = weight.replace(".weight", &format!(".{leaf}"));
                let of = |kind: &str| {
                    let plain = format!("{name}.{kind}.{number}");
                    set.read(&plain).or_else(|| set.read(&plain.replace(".0", "")))
                };
                let truth = (leaf == "weight").then(|| of("truth")).flatten();
                let Some((_, want)) = truth.or_else(|| of(merged)) else { continue };
                let shape = model.tensor(&tensor).expect("the tensor").shape.clone();
                let found =
                    Patched { checkpoint: &model, patches: &patches }.read(&tensor, &shape).expect("merged");
                let apart = found.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                compared += 1;
                worst = worst.max(apart);
                failures
                    .check(apart <= TOLERANCE, || format!("{name} {leaf} at {number}: off by {apart:.1e}"));
            }
        }
    }
    println!("{compared} weights, at most {worst:.1e} apart");
    failures.check(compared > 100, || format!("{compared} compared"));
    failures.finish();
}
