//! Noise compared with PyTorch's CPU generator, as ComfyUI uses it.

use safetensors::SafeTensors;
use sagittal::ErrorKind;
use sagittal::sampler::noise::{AncestralNoise, BrownianNoise, noise, noise_for};
use serde_json::Value;

/// Absolute: PyTorch's f32 functions differ by an ulp between machines.
const TOLERANCE: f32 = 2e-6;
/// A Brownian increment is a sum over tens of draws.
const BROWNIAN: f32 = 1e-5;

const TENSORS: &[u8] = include_bytes!("../golden/noise.safetensors");

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/noise.json")).unwrap()
}

fn tensor(name: &str) -> Vec<f32> {
    let tensors = SafeTensors::deserialize(TENSORS).unwrap();
    let bytes = tensors.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}")).data().to_vec();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn name(case: &Value) -> &str {
    case["name"].as_str().unwrap()
}

fn integers(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|v| usize::try_from(v.as_u64().unwrap()).unwrap()).collect()
}

fn shape(case: &Value) -> [usize; 4] {
    integers(&case["shape"]).try_into().unwrap()
}

/// Collects differences, and the largest of them.
struct Report {
    tolerance: f32,
    failures: Vec<String>,
    worst: f32,
    equal: usize,
    compared: usize,
}

impl Report {
    fn new(tolerance: f32) -> Self {
        Self { tolerance, failures: Vec::new(), worst: 0.0, equal: 0, compared: 0 }
    }

    fn compare(&mut self, name: &str, got: &[f32], want: &[f32]) {
        if got.len() != want.len() {
            self.failures.push(format!("{name}: {} values for {}", got.len(), want.len()));
            return;
        }
        let differences = got.iter().zip(want).map(|(g, w)| (g - w).abs());
        let worst = differences.fold(0.0, f32::max);
        self.worst = self.worst.max(worst);
        self.equal += got.iter().zip(want).filter(|(g, w)| g == w).count();
        self.compared += got.len();
        self.expect(worst <= self.tolerance, || format!("{name}: off by {worst:.1e}"));
    }

    fn expect(&mut self, right: bool, what: impl FnOnce() -> String) {
        if !right {
            self.failures.push(what());
        }
    }

    fn finish(self) {
        println!("{} of {} equal, largest difference {:.1e}", self.equal, self.compared, self.worst);
        let failures = self.failures;
        assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    }
}

#[test]
fn initial_noise_equals_that_of_pytorch() {
    let golden = golden();
    let mut report = Report::new(TOLERANCE);
    for case in golden["cases"].as_array().unwrap() {
        let got = noise(case["seed"].as_u64().unwrap(), shape(case));
        let got = got.data();
        if case["stored"] == "all" {
            report.compare(name(case), got, &tensor(name(case)));
        } else {
            for (end, values) in [("first", &got[..64]), ("last", &got[got.len() - 64..])] {
                let name = format!("{}.{end}", name(case));
                report.compare(&name, values, &tensor(&name));
            }
        }
        compare_sums(&mut report, case, got);
    }
    report.finish();
    assert_eq!(golden["cases"].as_array().unwrap().len(), 65);
}

/// The golden file holds sums over all values, also over those that it does not hold.
fn compare_sums(report: &mut Report, case: &Value, got: &[f32]) {
    // Errors of single values have either sign and cancel: far fewer than `count` tolerances.
    let allowed = 3.0 * f64::from(TOLERANCE) * (got.len() as f64).sqrt();
    for (key, power) in [("sum_f64", 1), ("sum_squares_f64", 2)] {
        let sum: f64 = got.iter().map(|&v| f64::from(v).powi(power)).sum();
        let off = (sum - case[key].as_f64().unwrap()).abs();
        report.expect(off <= allowed, || format!("{} {key}: off by {off:.1e}", name(case)));
    }
}

#[test]
fn batch_indices_choose_pictures_of_the_stream() {
    let mut report = Report::new(TOLERANCE);
    for case in golden()["noise_inds"].as_array().unwrap() {
        let seed = case["seed"].as_u64().unwrap();
        let got = noise_for(seed, &integers(&case["noise_inds"]), shape(case)).unwrap();
        report.compare(name(case), got.data(), &tensor(name(case)));
    }
    report.finish();
}

#[test]
fn ancestral_noise_is_that_of_the_next_seed() {
    let mut report = Report::new(TOLERANCE);
    for case in golden()["ancestral"].as_array().unwrap() {
        let mut stream = AncestralNoise::new(case["seed"].as_u64().unwrap()).unwrap();
        let draws = (0..case["draws"].as_u64().unwrap()).map(|_| stream.draw(shape(case)));
        let got: Vec<f32> = draws.flat_map(|latent| latent.data().to_vec()).collect();
        report.compare(name(case), &got, &tensor(name(case)));
    }
    report.finish();
    let error = AncestralNoise::new(u64::MAX).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Usage);
}

#[test]
fn brownian_noise_equals_that_of_torchsde() {
    let mut report = Report::new(BROWNIAN);
    for case in golden()["brownian"].as_array().unwrap() {
        let sigma = |value: &Value| value.as_f64().unwrap() as f32;
        let mut path = BrownianNoise::new(
            case["seed"].as_u64().unwrap(),
            shape(case),
            sigma(&case["sigma_min"]),
            sigma(&case["sigma_max"]),
        );
        let pairs = case["pairs_in_call_order"].as_array().unwrap();
        let steps = pairs.iter().map(|pair| path.between(sigma(&pair[0]), sigma(&pair[1])));
        let got: Vec<f32> = steps.flat_map(|latent| latent.data().to_vec()).collect();
        report.compare(name(case), &got, &tensor(name(case)));
    }
    report.finish();
}

#[test]
fn only_the_low_half_of_a_seed_counts() {
    let shape = [1, 4, 8, 8];
    assert_eq!(noise(5, shape), noise((1 << 32) + 5, shape));
    assert_ne!(noise(5, shape), noise(6, shape));
}
