//! A small workflow, and the library's own calls that do the same.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use sagittal::Size;
use sagittal::guidance::{Conditioning, Entry};
use sagittal::image::Picture;
use sagittal::pipeline::{DeviceContext, Model, Sampling, Schedule, Sizes};
use sagittal::sampler::Scheduler;
use sagittal::sampler::noise::noise;
use sagittal::{Checkpoint, Latent, VaeLatent};
use serde_json::{Value as Json, json};

use super::workflow::{Home, device_context, options, set, text_to_image};
use super::{Failures, Rng, safetensors};

pub const SD1: &str = "tiny-sd1.safetensors";
pub const SIZE: [usize; 3] = [64, 72, 1];

/// A small workflow: two steps on a latent of 9×8 cells.
pub fn small(ckpt: &str) -> Json {
    let mut workflow = text_to_image(ckpt, SIZE);
    set(&mut workflow, "3", json!({ "steps": 2, "seed": 7 }));
    workflow
}

/// The same by the library's own calls.
pub fn sampling() -> Sampling {
    Sampling {
        latent: Some(VaeLatent::new(Latent::zeros(1, 4, 9, 8))),
        seed: 7,
        levels: Schedule::new(Scheduler::Normal, 2).into(),
        ..Sampling::new(noise(7, [1, 4, 9, 8]))
    }
}

pub struct Bench {
    pub device_context: Arc<DeviceContext>,
    pub home: Home,
    pub model: Model,
    pub cancel: AtomicBool,
}

impl Bench {
    pub fn new(family: &str) -> Option<Self> {
        let (device_context, home) = (device_context()?, Home::new(&[family]));
        let path = home.at("models/checkpoints").join(format!("{family}.safetensors"));
        let checkpoint = Arc::new(Checkpoint::open(path).expect("a checkpoint"));
        let model = Model::open_in(device_context.clone(), checkpoint, &options().model).expect("a model");
        Some(Self { device_context, home, model, cancel: AtomicBool::new(false) })
    }

    /// Puts a LoRA on UNet and text encoder into its folder: `style/ink.safetensors`.
    pub fn put_style(&self) {
        let shape = |name: &str| self.model.checkpoint().tensor(name).expect(name).shape.clone();
        let unet = shape("model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight");
        let text = shape("cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight");
        let mut rng = Rng(3);
        let mut values = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.value()).collect() };
        let (a, b) = (values(unet[1]), values(unet[0]));
        let (c, d) = (values(text[1]), values(text[0]));
        let attention = "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q";
        let mlp = "lora_te_text_model_encoder_layers_0_mlp_fc1";
        let [down, up] = ["lora_down.weight", "lora_up.weight"];
        let name = |layer: &str, part: &str| format!("{layer}.{part}");
        let file = safetensors([
            (&*name(attention, down), &[1, unet[1]][..], &a[..]),
            (&*name(attention, up), &[unet[0], 1], &b),
            (&*name(mlp, down), &[1, text[1]], &c),
            (&*name(mlp, up), &[text[0], 1], &d),
        ]);
        fs::create_dir_all(self.home.at("models/loras/style")).expect("a folder");
        fs::write(self.home.at("models/loras/style/ink.safetensors"), &file).expect("a file");
    }

    pub fn run(&self, workflow: &Json) -> Latent {
        self.home.latent(&self.device_context, workflow)
    }

    pub fn entry(&self, prompt: &str) -> Entry {
        self.model.encode(prompt, None, Sizes::of(Size::new(64, 72)), &self.cancel).expect("text")
    }

    pub fn sample(&self, positive: Vec<Entry>, negative: Vec<Entry>, run: &Sampling) -> Latent {
        let conditioning = Conditioning { positive, negative }.with_opposites();
        self.model.sample(&conditioning, run, &mut |_| {}, &self.cancel).expect("a latent").into_inner()
    }

    pub fn decode(&self, latent: &Latent) -> Picture {
        self.model
            .decode(&VaeLatent::new(latent.clone()), &mut |_| {}, &self.cancel)
            .expect("a picture")
            .remove(0)
    }
}

pub fn same(failures: &mut Failures, what: &str, a: &Latent, b: &Latent) {
    let far = if a.shape() == b.shape() {
        a.zip(b, |x, y| (x - y).abs()).expect("one shape").data().iter().copied().fold(0.0, f32::max)
    } else {
        f32::INFINITY
    };
    failures.check(a == b, || format!("{what}: {:?} and {:?} differ by {far}", a.shape(), b.shape()));
}
