//! What the tests share: the adapter, random data, the error measure.
#![allow(dead_code)]

pub mod any_argument;
pub mod bench;
pub mod dispatch;
pub mod files;
pub mod warnings;
pub mod workflow;
pub mod workflow_bench;

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use sagittal::checkpoint::{Checkpoint, Dtype, Manifest};
use sagittal::gpu::Gpu;
use sagittal::internals::engine::{Engine, KeptTensors, Prepared};
use sagittal::internals::kernels::{DeviceProfile, LEAST_MEMORY, Matrices, Precision};

/// The repository's root, from any of its crates.
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().find(|folder| folder.join("with-vulkan").is_file()).expect("the repository")
}

/// The six families by name: what a checkpoint of each holds.
pub const MANIFESTS: [(&str, &str); 6] = [
    ("tiny-sd1", include_str!("../golden/manifests/tiny-sd1.json")),
    ("tiny-sd2", include_str!("../golden/manifests/tiny-sd2.json")),
    ("tiny-sdxl", include_str!("../golden/manifests/tiny-sdxl.json")),
    ("sd15", include_str!("../golden/manifests/sd15.json")),
    ("sd21", include_str!("../golden/manifests/sd21.json")),
    ("sdxl", include_str!("../golden/manifests/sdxl.json")),
];

/// A family's checkpoint with weights by formula.
pub fn synthetic(family: &str) -> Checkpoint {
    let (_, text) = MANIFESTS.iter().find(|(n, _)| *n == family).expect("a family");
    Checkpoint::synthetic(&Manifest::parse(text).expect("a manifest"), 0, Dtype::F32).expect("a checkpoint")
}

/// The bytes of a safetensors file of F32 tensors.
pub fn safetensors<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a [usize], &'a [f32])>) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape, values) in tensors {
        let from = data.len();
        data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [from, data.len()]});
        header.insert(name.to_owned(), entry);
    }
    let mut head = serde_json::to_vec(&header).expect("json");
    head.resize(head.len().next_multiple_of(8), b' ');
    let mut file = (head.len() as u64).to_le_bytes().to_vec();
    file.extend(head);
    file.extend(data);
    file
}

/// How many devices the tests of a program share. A CPU driver works on one submission of a device at a
/// time, and small ones leave half of two cores idle.
const DEVICES: usize = 3;

/// A device of the adapter under test, the same one all through a test, or None with a note when
/// `SAGITTAL_TEST_GPU=off`. Without an adapter a test fails unless it is off: a test that runs nowhere
/// shows nothing.
pub fn gpu() -> Option<Gpu> {
    static OPEN: [OnceLock<Gpu>; DEVICES] = [const { OnceLock::new() }; DEVICES];
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    // Each test has a thread of its own.
    thread_local!(static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % DEVICES);
    is_on().then(|| MINE.with(|mine| OPEN[*mine].get_or_init(open).clone()))
}

/// A device of the same adapter that no other test uses: others' buffers and losses are not its own.
pub fn own_gpu() -> Option<Gpu> {
    is_on().then(open)
}

/// Whether tests run without an adapter.
pub fn gpu_is_off() -> bool {
    std::env::var("SAGITTAL_TEST_GPU").is_ok_and(|v| v == "off")
}

fn is_on() -> bool {
    let off = gpu_is_off();
    if off {
        eprintln!("SAGITTAL_TEST_GPU=off: tests that need an adapter are not run");
    }
    !off
}

fn open() -> Gpu {
    let device = std::env::var("SAGITTAL_DEVICE").ok();
    Gpu::open(device.as_deref()).expect("these tests need a GPU adapter, or SAGITTAL_TEST_GPU=off")
}

/// A device of the same adapter as an app makes it: the limits that every device has, and no feature.
pub fn default_device() -> Option<(wgpu::Device, wgpu::Queue)> {
    let name = gpu()?.device().adapter_info().name;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let adapter = adapters.iter().find(|a| a.get_info().name == name).expect("the adapter again");
    let descriptor = wgpu::DeviceDescriptor::default();
    Some(pollster::block_on(adapter.request_device(&descriptor)).expect("a device"))
}

/// What kernels with cooperative matrices are tested on, if the device has such matrices.
pub fn matrices(gpu: &Gpu) -> Option<(DeviceProfile, Precision)> {
    let own = gpu.profile();
    own.uses_matrices().then(|| (own.clone(), Precision::F16))
}

/// Whether tests take what is too long for every change: `.ci/full` sets it.
pub fn thorough() -> bool {
    std::env::var_os("SAGITTAL_TEST_THOROUGH").is_some()
}

/// All kinds of matrices with the least workgroup memory; those that a device has not are written out.
pub fn matrices_of_little_memory(gpu: &Gpu) -> Vec<(DeviceProfile, Precision)> {
    let features = wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP;
    let least = |matrices| (DeviceProfile::with_matrices(matrices, LEAST_MEMORY), Precision::F16);
    let all = Matrices::ALL.into_iter().map(least);
    all.filter(|_| gpu.device().features().contains(features)).collect()
}

/// Values in f32 with weights in f16, which a CPU driver alone has: profile, precision, that of the weights.
pub fn halves(gpu: &Gpu) -> Option<(DeviceProfile, Precision, Precision)> {
    let own = gpu.profile();
    own.has_simd().then(|| (own.clone(), Precision::F32, Precision::F16))
}

/// SplitMix64: reproducible data for tests.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In -1..1.
    pub fn value(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// In `from..=to`.
    pub fn range(&mut self, from: usize, to: usize) -> usize {
        from + (self.next() % (to - from + 1) as u64) as usize
    }

    /// `n` values as the device will hold them in `precision`.
    pub fn values(&mut self, n: usize, precision: Precision) -> Vec<f32> {
        (0..n).map(|_| stored(self.value(), precision)).collect()
    }
}

/// `v` rounded to what `precision` can hold.
pub fn stored(v: f32, precision: Precision) -> f32 {
    match precision {
        Precision::F32 => v,
        Precision::F16 => half::f16::from_f32(v).to_f32(),
        other => panic!("{other} has no reference"),
    }
}

pub fn to_f64(v: &[f32]) -> Vec<f64> {
    v.iter().map(|v| f64::from(*v)).collect()
}

/// Squared error over squared expectation.
pub fn nmse(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len(), "number of values");
    let error: f64 = got.iter().zip(want).map(|(g, w)| (f64::from(*g) - w).powi(2)).sum();
    let size: f64 = want.iter().map(|w| w * w).sum();
    if error.is_finite() { error / size.max(1e-30) } else { f64::INFINITY }
}

/// Largest difference over the standard deviation of the expectation.
pub fn d_over_s(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len(), "number of values");
    let n = want.len() as f64;
    let mean = want.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let s = (want.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n).sqrt();
    let d = got.iter().zip(want).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
    if got.iter().all(|v| v.is_finite()) { d / s } else { f64::INFINITY }
}

/// Collects failures so that one run shows all of them.
#[derive(Default)]
pub struct Failures(Vec<String>);

impl Failures {
    pub fn check(&mut self, ok: bool, what: impl FnOnce() -> String) {
        if !ok {
            self.0.push(what());
        }
    }

    pub fn finish(self) {
        assert!(self.0.is_empty(), "{} failures:\n{}", self.0.len(), self.0.join("\n"));
    }
}

/// What another plan would have kept for each row of this one, from values of all rows by name.
pub fn kept_rows(engine: &Engine, prepared: &Prepared, inputs: &[(&str, &[f32])]) -> Vec<KeptTensors> {
    let plan = prepared.plan();
    let is_kept = |name: &str| plan.inputs.iter().any(|slot| slot.kept && slot.name == name);
    if !inputs.iter().any(|(name, _)| is_kept(name)) {
        return Vec::new();
    }
    let of_row = |row: usize| {
        let each = |values: &'_ [f32]| values.len() / plan.rows;
        let values: Vec<(&str, &[f32])> = inputs
            .iter()
            .filter(|(name, _)| is_kept(name))
            .map(|(name, values)| (*name, &values[row * each(values)..][..each(values)]))
            .collect();
        engine.keep(prepared, &values).expect("kept")
    };
    (0..plan.rows).map(of_row).collect()
}
