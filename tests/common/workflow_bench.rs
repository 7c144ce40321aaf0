//! A small workflow, and the library's own calls that do the same.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use sagittal::guidance::{Conditioning, Entry};
use sagittal::image::Picture;
use sagittal::pipeline::{Model, Sampling, Sizes, Studio};
use sagittal::plan::chunk::ChunkPolicy;
use sagittal::sampler::noise::noise;
use sagittal::sampler::{Sampler, Scheduler};
use sagittal::{Checkpoint, Latent, Sag};
use serde_json::{Value as Json, json};

use super::Failures;
use super::workflow::{Home, options, set, studio, text_to_image};

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
        noise: noise(7, [1, 4, 9, 8]),
        latent: Some(Latent::zeros(1, 4, 9, 8)),
        mask: None,
        sampler: Sampler::Euler,
        scheduler: Scheduler::Normal,
        steps: 2,
        denoise: 1.0,
        cfg: 7.0,
        sag: Sag::default(),
        perturbed: Vec::new(),
        seed: 7,
        eta: 1.0,
        s_noise: 1.0,
        chunk: ChunkPolicy::Auto,
        memory: None,
    }
}

pub struct Bench {
    pub studio: Arc<Studio>,
    pub home: Home,
    pub model: Model,
    pub cancel: AtomicBool,
}

impl Bench {
    pub fn new(family: &str) -> Option<Self> {
        let (studio, home) = (studio()?, Home::new(&[family]));
        let path = home.at("models/checkpoints").join(format!("{family}.safetensors"));
        let checkpoint = Arc::new(Checkpoint::open(path).expect("a checkpoint"));
        let model = Model::open_in(studio.clone(), checkpoint, &options().model).expect("a model");
        Some(Self { studio, home, model, cancel: AtomicBool::new(false) })
    }

    pub fn run(&self, workflow: &Json) -> Latent {
        self.home.latent(&self.studio, workflow)
    }

    pub fn entry(&self, prompt: &str) -> Entry {
        self.model.encode(prompt, None, Sizes::of(72, 64), &self.cancel).expect("text")
    }

    pub fn sample(&self, positive: Vec<Entry>, negative: Vec<Entry>, sampling: &Sampling) -> Latent {
        let conditioning = Conditioning { positive, negative }.with_opposites();
        self.model.sample(&conditioning, sampling, &mut |_| {}, &self.cancel).expect("a latent")
    }

    pub fn decode(&self, latent: &Latent) -> Picture {
        self.model.decode(latent, &mut |_| {}, &self.cancel).expect("a picture").remove(0)
    }
}

pub fn same(failures: &mut Failures, what: &str, a: &Latent, b: &Latent) {
    let far = if a.shape() == b.shape() {
        a.zip(b, |x, y| (x - y).abs()).data().iter().copied().fold(0.0, f32::max)
    } else {
        f32::INFINITY
    };
    failures.check(a == b, || format!("{what}: {:?} and {:?} differ by {far}", a.shape(), b.shape()));
}
