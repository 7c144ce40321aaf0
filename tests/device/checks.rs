//! Shaders run without wgpu's checks: what they compute is, bit for bit, what they compute with them.

use crate::common::bench::Bench;
use crate::common::{Failures, Rng, gpu, halves, matrices, synthetic};
use sagittal::internals::engine::Engine;
use sagittal::internals::graph::Graph;
use sagittal::internals::kernels::{DeviceProfile, Precision};
use sagittal::internals::model::{ModelConfig, unet, vae};
use sagittal::internals::text::{CHUNK, clip};

/// Every network of a small model, with a number of rows: among them all kernels.
fn networks() -> Vec<(&'static str, Graph, usize)> {
    let config = ModelConfig::infer(&synthetic("tiny-sd1")).expect("a configuration");
    let options = unet::Options { size: (10, 13), tokens: CHUNK, record: true, ..Default::default() };
    let text = clip::Options { skip: 1, norm: true, pooled: true };
    vec![
        ("text encoder", clip::build(&config.text[0], &text).expect("a graph"), 2),
        ("prompt", unet::conditioning(&config.unet, CHUNK).expect("a graph"), 1),
        ("UNet", unet::build(&config.unet, &options).expect("a graph"), 2),
        ("decoder", vae::decoder(&config.vae, 5, 7).expect("a graph"), 1),
        ("encoder", vae::encoder(&config.vae, 40, 24).expect("a graph"), 1),
    ]
}

/// Largest difference over the largest value where bits may differ: a compiler may contract and
/// reorder the sums of one text otherwise than those of another. Mesa's CPU driver does so in the
/// attention kernel for CPUs, by a unit in the last place.
const ROUNDING: f64 = 1e-5;

#[test]
fn checked_and_unchecked_shaders_agree_bit_for_bit() {
    let Some(gpu) = gpu() else { return };
    let [unchecked, checked] = [Engine::new, Engine::checked].map(|make| make(gpu.clone()).expect("engine"));
    let mut kinds = vec![(DeviceProfile::cpu(), Precision::F32), (DeviceProfile::gpu(), Precision::F16)];
    kinds.extend(matrices(&gpu));
    let same = kinds.into_iter().map(|(profile, precision)| (profile, precision, precision));
    let mut failures = Failures::default();
    for (profile, precision, weights) in same.chain(halves(&gpu)) {
        for (name, graph, rows) in networks() {
            // All of the arena is compared: it holds what is kept on the device, and inner results.
            let run = |engine: &Engine| {
                let bench = Bench { engine, profile: profile.clone(), precision, weights, rows, most: None };
                let mut rng = Rng(5);
                let values: Vec<(String, Vec<f32>)> = graph
                    .inputs()
                    .iter()
                    .map(|(name, t)| (name.clone(), bench.values(&mut rng, graph.shape(*t))))
                    .collect();
                let inputs: Vec<(&str, &[f32])> = values.iter().map(|(n, v)| (n.as_str(), &v[..])).collect();
                let (results, words) = bench.run_for_words(&graph, &inputs);
                (results.concat(), words.concat())
            };
            let (a, b) = (run(&unchecked), run(&checked));
            let words = a.1.iter().zip(&b.1).filter(|(a, b)| a != b).count();
            let pairs = a.0.iter().zip(&b.0).map(|(a, b)| (f64::from(*a), f64::from(*b)));
            let largest = pairs.clone().map(|(a, _)| a.abs()).fold(0.0, f64::max);
            let apart = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / largest.max(1e-30);
            println!(
                "{name} for {profile} in {precision:?} of {weights:?}: {words} words differ, results by {apart:.1e}"
            );
            let rounded = profile.cpu && name == "UNet" && apart <= ROUNDING;
            failures.check(words == 0 || rounded, || {
                format!(
                    "{name} {profile} {precision:?} {weights:?}: {words} of {} words, {apart:e}",
                    a.1.len()
                )
            });
        }
    }
    failures.finish();
}
