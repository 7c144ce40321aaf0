//! Properties of all samplers, with a model that is a formula. `tests/sampling/golden.rs` compares their results with
//! those of ComfyUI.

use std::collections::BTreeSet;

use sagittal::sampler::noise::noise;
use sagittal::sampler::{Denoised, Denoiser, Discrete, SampleOptions, Sampler, Scheduler, initial, sample};
use sagittal::{ErrorKind, Latent, Result};
use serde_json::Value;

const SHAPE: [usize; 4] = [1, 4, 8, 8];

/// A smooth model that treats each value separately.
#[derive(Default)]
struct Model {
    calls: usize,
    asked_for_uncond: bool,
}

impl Denoiser for Model {
    fn denoise(&mut self, x: &Latent, sigma: f32) -> Result<Denoised> {
        self.calls += 1;
        let predict = |target: f32| {
            let shrink = 1.0 / (1.0 + sigma * sigma);
            x.zip(x, |v, _| v * shrink + (target - 0.2 * (v * shrink).tanh()) * (1.0 - shrink))
                .expect("one shape")
        };
        let uncond = self.asked_for_uncond.then(|| predict(-0.1));
        Ok(Denoised { denoised: predict(0.3), uncond })
    }

    fn keep_uncond(&mut self) {
        self.asked_for_uncond = true;
    }
}

fn sigmas(sampler: Sampler, steps: usize) -> Vec<f32> {
    let table = Discrete::stable_diffusion();
    Scheduler::Karras.sigmas(&table, steps, 1.0, sampler.discard_penultimate()).unwrap()
}

fn start(noise: &Latent, sigmas: &[f32]) -> Latent {
    initial(noise, &noise.scaled(0.0), sigmas[0], Discrete::stable_diffusion().sigma_max()).unwrap()
}

/// A run of `steps` from the noise of seed 1.
fn run(sampler: Sampler, steps: usize, options: &SampleOptions) -> Latent {
    run_from(sampler, steps, options, &noise(1, SHAPE))
}

fn run_from(sampler: Sampler, steps: usize, options: &SampleOptions, noise: &Latent) -> Latent {
    let sigmas = sigmas(sampler, steps);
    let x = start(noise, &sigmas);
    sample(sampler, &mut Model::default(), x, &sigmas, options, &mut |_| Ok(())).unwrap()
}

/// Runs `holds` for every sampler, and lists those for which it is false.
fn for_all(what: &str, holds: impl Fn(Sampler) -> bool) {
    let failures: Vec<_> = Sampler::ALL.iter().copied().filter(|&s| !holds(s)).map(Sampler::name).collect();
    assert!(failures.is_empty(), "{what} does not hold for {failures:?}");
}

fn farthest(a: &Latent, b: &Latent) -> f32 {
    a.zip(b, |a, b| (a - b).abs()).expect("one shape").data().iter().copied().fold(0.0, f32::max)
}

/// The golden runs of every sampler, by name.
fn golden_runs() -> Vec<Value> {
    let golden: Value = serde_json::from_str(include_str!("../golden/tiny-sd1.json")).unwrap();
    let runs = golden["run"].as_array().unwrap();
    runs.iter().filter(|r| r["name"].as_str().unwrap().starts_with("all_")).cloned().collect()
}

#[test]
fn all_forty_of_comfyui_are_here() {
    let runs = golden_runs();
    let theirs: BTreeSet<_> = runs.iter().map(|r| r["sampler"].as_str().unwrap()).collect();
    assert_eq!(theirs, Sampler::ALL.iter().copied().map(Sampler::name).collect());
    for (name, twin) in [
        ("dpmpp_sde_gpu", Sampler::DpmppSde),
        ("dpmpp_2m_sde_gpu", Sampler::Dpmpp2mSde),
        ("dpmpp_2m_sde_heun_gpu", Sampler::Dpmpp2mSdeHeun),
        ("dpmpp_3m_sde_gpu", Sampler::Dpmpp3mSde),
    ] {
        assert_eq!(name.parse::<Sampler>().unwrap(), twin);
    }
}

/// The time of a run is that of its predictions.
#[test]
fn a_run_has_as_many_predictions_as_comfyuis() {
    for case in golden_runs() {
        let sampler: Sampler = case["sampler"].as_str().unwrap().parse().unwrap();
        // Its steps depend on the model.
        if sampler == Sampler::DpmAdaptive {
            continue;
        }
        let steps = usize::try_from(case["steps"].as_u64().unwrap()).unwrap();
        let (sigmas, mut model) = (sigmas(sampler, steps), Model::default());
        let x = start(&noise(1, SHAPE), &sigmas);
        sample(sampler, &mut model, x, &sigmas, &SampleOptions::default(), &mut |_| Ok(())).unwrap();
        assert_eq!(Some(model.calls as u64), case["evaluations"].as_u64(), "{sampler}");
    }
}

#[test]
fn the_seed_matters_where_noise_is_added() {
    let with = |sampler, seed| run(sampler, 6, &SampleOptions { seed, ..Default::default() });
    for_all("adds_noise", |s| (with(s, 1) != with(s, 2)) == s.adds_noise());
    for_all("the same seed, the same bytes", |s| with(s, 1) == with(s, 1));
}

#[test]
fn without_noise_the_seed_does_not_matter() {
    let quiet = |sampler, seed| run(sampler, 6, &SampleOptions { seed, s_noise: 0.0, ..Default::default() });
    for_all("s_noise 0", |s| quiet(s, 1) == quiet(s, u64::MAX));
}

#[test]
fn pictures_of_a_batch_do_not_depend_on_each_other() {
    let batch = noise(1, [3, 4, 8, 8]);
    let options = SampleOptions { s_noise: 0.0, ..Default::default() };
    for_all("a batch of one", |sampler| {
        let together = run_from(sampler, 6, &options, &batch);
        let alone = |i| run_from(sampler, 6, &options, &batch.row(i));
        // The adaptive one measures its error over the batch.
        sampler == Sampler::DpmAdaptive || (0..3).all(|i| together.row(i) == alone(i))
    });
}

#[test]
fn cfg_plus_plus_requests_the_prediction_without_the_prompt() {
    for_all("asking", |sampler| {
        let (sigmas, mut model) = (sigmas(sampler, 4), Model::default());
        let x = start(&noise(1, SHAPE), &sigmas);
        sample(sampler, &mut model, x, &sigmas, &SampleOptions::default(), &mut |_| Ok(())).unwrap();
        model.asked_for_uncond == sampler.needs_uncond()
            && sampler.needs_uncond() == sampler.name().ends_with("cfg_pp")
    });
}

/// A custom model that never predicts without the prompt.
struct Prompted;

impl Denoiser for Prompted {
    fn denoise(&mut self, x: &Latent, _: f32) -> Result<Denoised> {
        Ok(Denoised { denoised: x.scaled(0.5), uncond: None })
    }
}

#[test]
fn a_missing_prediction_without_the_prompt_is_an_error() {
    for_all("the error", |sampler| {
        let sigmas = sigmas(sampler, 4);
        let x = start(&noise(1, SHAPE), &sigmas);
        let end = sample(sampler, &mut Prompted, x, &sigmas, &SampleOptions::default(), &mut |_| Ok(()));
        match end {
            Ok(_) => !sampler.needs_uncond(),
            Err(e) => sampler.needs_uncond() && e.kind() == ErrorKind::Usage,
        }
    });
}

#[test]
fn one_step_goes_to_the_prediction() {
    for_all("a single step", |sampler| {
        let (sigmas, options) = (sigmas(sampler, 1), SampleOptions::default());
        let x = start(&noise(1, SHAPE), &sigmas);
        let expected = Model::default().denoise(&x, sigmas[0]).unwrap().denoised;
        let found = sample(sampler, &mut Model::default(), x, &sigmas, &options, &mut |_| Ok(())).unwrap();
        // UniPC stops at a sigma of 0.001.
        farthest(&found, &expected) < 5e-3
    });
}

#[test]
fn any_number_of_steps_runs() {
    for steps in [2, 3, 4, 5, 30] {
        for_all(&format!("{steps} steps"), |s| run(s, steps, &SampleOptions::default()).is_finite());
    }
}

#[test]
fn a_run_may_stop_at_noise() {
    for_all("a last sigma above 0", |sampler| {
        let mut sigmas = sigmas(sampler, 8);
        sigmas.truncate(5);
        let x = start(&noise(1, SHAPE), &sigmas);
        sample(sampler, &mut Model::default(), x, &sigmas, &SampleOptions::default(), &mut |_| Ok(()))
            .unwrap()
            .is_finite()
    });
}
