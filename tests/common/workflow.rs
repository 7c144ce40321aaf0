//! What the tests of workflows share: folders with models, golden runs, workflows in code.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use sagittal::Latent;
use sagittal::checkpoint::{Dtype, Manifest};
use sagittal::internals::kernels::Precision;
use sagittal::pipeline::{DeviceContext, ModelOptions};
use sagittal::workflow::{Folders, Graph, Options, Saved, Workflow};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::files::{tensors, write};
use super::{MANIFESTS, gpu};

pub const POS: &str = "a photo of a (red:1.3) cat on a ((mossy)) stone, golden hour";
pub const NEG: &str = "blurry, (ugly:0.6), low quality";

/// ComfyUI's folders in a place of their own.
pub struct Home {
    folder: TempDir,
}

impl Home {
    /// With the checkpoints of these families, as files store them.
    pub fn new(families: &[&str]) -> Self {
        let home = Self { folder: tempfile::tempdir().expect("a folder") };
        for folder in ["models/checkpoints", "models/loras", "models/vae", "models/embeddings", "input"] {
            fs::create_dir_all(home.at(folder)).expect("a folder");
        }
        for family in families {
            home.put(family, &format!("models/checkpoints/{family}.safetensors"));
        }
        home
    }

    /// Writes a family's checkpoint.
    pub fn put(&self, family: &str, name: &str) {
        let manifest = manifest(family);
        let metadata = [("modelspec.prediction_type", manifest.prediction.as_str())];
        write(&self.at(name), &tensors(&manifest), &metadata, |_| Dtype::F16);
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn folders(&self) -> Folders {
        Folders::new(self.at("models"), self.at("input"), self.at("output"))
    }

    /// Runs a workflow in f32; what it saved.
    pub fn run(&self, device_context: &Arc<DeviceContext>, json: &Json) -> sagittal::Result<Vec<Saved>> {
        let workflow = Workflow::parse("test", json.to_string().as_bytes())?;
        let (folders, options) = (self.folders(), options());
        let ready = workflow.check(&folders, &options)?;
        ready.run(device_context.clone(), &mut |_| {}, &AtomicBool::new(false))
    }

    /// The latent that a workflow saves.
    pub fn latent(&self, device_context: &Arc<DeviceContext>, json: &Json) -> Latent {
        let saved = self.run(device_context, json).unwrap_or_else(|e| panic!("{e}"));
        read_latent(first_of(&saved, "latent"))
    }

    /// Puts a latent where LoadLatent finds it.
    pub fn input_latent(&self, name: &str, latent: &Latent) {
        fs::write(
            self.at("input").join(name),
            sagittal::latent::file::encode(&sagittal::VaeLatent::new(latent.clone()), &[]).expect("bytes"),
        )
        .expect("a file");
    }
}

pub fn options() -> Options {
    let model = ModelOptions { precision: Some(Precision::F32), ..Default::default() };
    Options { model, ..Default::default() }
}

pub fn manifest(family: &str) -> Manifest {
    let (_, text) = MANIFESTS.iter().find(|(n, _)| *n == family).expect("a family");
    Manifest::parse(text).expect("a manifest")
}

pub fn device_context() -> Option<Arc<DeviceContext>> {
    Some(DeviceContext::new(gpu()?).expect("a device_context"))
}

/// The first saved file with an extension.
pub fn first_of<'a>(saved: &'a [Saved], extension: &str) -> &'a Path {
    let of_kind = |s: &&Saved| s.path.extension().is_some_and(|e| e == extension);
    &saved.iter().find(of_kind).unwrap_or_else(|| panic!("no {extension} is saved")).path
}

pub fn read_latent(path: &Path) -> Latent {
    sagittal::latent::file::decode(&fs::read(path).expect("the latent")).expect("a latent").into_inner()
}

/// A workflow of the repository, in either format.
pub fn stored(name: &str) -> Json {
    let path = crate::common::root().join("tests/workflows").join(name);
    serde_json::from_str(&fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {e}"))).expect("JSON")
}

/// The default workflow with SAG in the API format, its latent saved.
pub fn text_to_image(ckpt: &str, [width, height, batch]: [usize; 3]) -> Json {
    json!({
        "3": {"class_type": "KSampler", "inputs": {
            "seed": 42, "steps": 6, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
            "model": ["10", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": ckpt}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": width, "height": height, "batch_size": batch}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": POS, "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": NEG, "clip": ["4", 1]}},
        "10": {"class_type": "SelfAttentionGuidance", "inputs": {"scale": 0.5, "blur_sigma": 2.0, "model": ["4", 0]}},
        "90": {"class_type": "SaveLatent", "inputs": {"samples": ["3", 0], "filename_prefix": "latents/x"}},
    })
}

/// Adds a node.
pub fn add(workflow: &mut Json, id: &str, class: &str, inputs: Json) {
    workflow[id] = json!({ "class_type": class, "inputs": inputs });
}

/// Sets some inputs of a node.
pub fn set(workflow: &mut Json, id: &str, inputs: Json) {
    let node = &mut workflow[id]["inputs"];
    for (name, value) in inputs.as_object().expect("an object") {
        node[name] = value.clone();
    }
}

/// A family's golden runs.
pub struct Golden {
    json: Json,
    tensors: BTreeMap<String, Latent>,
}

impl Golden {
    pub fn of(family: &str) -> Self {
        let base = crate::common::root().join("tests/golden");
        let json = fs::read_to_string(base.join(format!("{family}.json"))).expect("the set");
        let bytes = fs::read(base.join(format!("{family}.safetensors"))).expect("the tensors");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        let mut tensors = BTreeMap::new();
        for (name, view) in file.tensors() {
            if let Ok(shape) = <[usize; 4]>::try_from(view.shape())
                && view.dtype() == safetensors::Dtype::F32
            {
                let values = bytemuck::pod_collect_to_vec::<u8, f32>(view.data());
                tensors.insert(name, Latent::from_vec(shape, values).expect("a latent"));
            }
        }
        Self { json: serde_json::from_str(&json).expect("JSON"), tensors }
    }

    /// A run's settings.
    pub fn run(&self, name: &str) -> &Json {
        let runs = self.json["run"].as_array().expect("runs");
        runs.iter().find(|r| r["name"] == name).unwrap_or_else(|| panic!("no run {name}"))
    }

    pub fn names(&self) -> Vec<String> {
        let runs = self.json["run"].as_array().expect("runs");
        runs.iter().map(|r| r["name"].as_str().expect("a name").to_owned()).collect()
    }

    pub fn tensor(&self, name: &str) -> &Latent {
        self.tensors.get(name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    pub fn prompt(&self, name: &str) -> &str {
        let prompts = self.json.pointer("/text/prompts").or(self.json.get("prompts"));
        prompts.and_then(|p| p[name].as_str()).unwrap_or_else(|| panic!("no prompt {name}"))
    }

    /// How `found` differs from a run's samples, as a share of what `sagittal verify` allows in f32.
    pub fn share(&self, name: &str, found: &Latent) -> f64 {
        let (run, want) = (self.run(name), self.tensor(&format!("run.{name}.samples")));
        assert_eq!(found.shape(), want.shape(), "{name}");
        let table = if run["cfg"] == 1.0 { 3e-4 } else { 1e-3 };
        let (d, s) = difference(found, want);
        d / (table * s).max(100.0 * run["sensitivity_1e6"].as_f64().unwrap_or(0.0))
    }

    /// The workflow in the API format that does what a run did.
    pub fn workflow(&self, ckpt: &str, name: &str) -> Json {
        let run = self.run(name);
        let number = |key: &str| run[key].as_u64().expect(key) as usize;
        let size = [8 * number("width"), 8 * number("height"), number("batch")];
        let mut workflow = text_to_image(ckpt, size);
        let keys = [("seed", "seed"), ("steps", "steps"), ("cfg", "cfg"), ("sampler", "sampler_name")];
        for (from, to) in keys.into_iter().chain([("scheduler", "scheduler"), ("denoise", "denoise")]) {
            set(&mut workflow, "3", json!({ to: run[from] }));
        }
        match &run["sag"] {
            Json::Null => set(&mut workflow, "3", json!({ "model": ["4", 0] })),
            sag => set(&mut workflow, "10", sag.clone()),
        }
        for (side, id) in [("pos", "6"), ("neg", "7")] {
            let name = run[side].as_str().unwrap_or(side);
            set(&mut workflow, id, json!({ "text": self.prompt(name) }));
        }
        if let Some(latent) = run["latent"].as_str() {
            add(&mut workflow, "5", "LoadLatent", json!({ "latent": format!("{latent}.latent") }));
        }
        workflow
    }
}

/// The largest difference, and the standard deviation of what was expected.
pub fn difference(found: &Latent, want: &Latent) -> (f64, f64) {
    assert_eq!(found.shape(), want.shape());
    let n = want.data().len() as f64;
    let mean = want.data().iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let s = (want.data().iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n).sqrt();
    let both = found.data().iter().zip(want.data());
    (both.map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max), s)
}

/// The graph of a workflow in whatever format it is.
pub fn read(json: &Json) -> Graph {
    Workflow::parse("test", json.to_string().as_bytes()).unwrap_or_else(|e| panic!("{e}")).graph().clone()
}

/// What a graph does: class and inputs of each node, by id.
fn meaning(graph: &Graph) -> Json {
    let mut api = graph.to_api();
    for (_, node) in api.as_object_mut().expect("nodes") {
        node.as_object_mut().expect("a node").remove("_meta");
        // 7 and 7.0 are one number.
        for (_, value) in node["inputs"].as_object_mut().expect("inputs") {
            if let Some(number) = value.as_f64() {
                *value = json!(number);
            }
        }
    }
    api
}

/// The meaning of each node, in the order of their ids.
pub fn sorted(graph: &Graph) -> Vec<(String, Json)> {
    let meaning = meaning(graph);
    let mut nodes: Vec<(String, Json)> =
        meaning.as_object().expect("nodes").iter().map(|(id, n)| (id.clone(), n.clone())).collect();
    nodes.sort_by(|a, b| a.0.cmp(&b.0));
    nodes
}

/// How many nodes of a workflow will run, or what is wrong with it.
pub fn steps(json: &Json) -> Result<usize, String> {
    let workflow = Workflow::parse("test", json.to_string().as_bytes()).expect("a workflow");
    let (folders, options) = (Home::new(&[]).folders(), options());
    workflow.check(&folders, &options).map(|ready| ready.nodes().count()).map_err(|e| e.to_string())
}
