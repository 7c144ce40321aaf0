//! A step on the device: the bytes moved between it and the host, the number of dispatches, and that it computes the
//! same as the host.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::{Failures, gpu, synthetic};
use sagittal::Size;
use sagittal::guidance::{
    Area, Columns, Conditioning, Entry, Evaluation, Guidance, Guided, HostBackend, Perturbed, Sag,
};
use sagittal::internals::engine::Traffic;
use sagittal::internals::kernels::Precision;
use sagittal::internals::network::{AHEAD, DeviceBackend, DeviceSink, UnetNetwork};
use sagittal::internals::plan::chunk::ChunkPolicy;
use sagittal::latent::Value;
use sagittal::pipeline::report::{Purpose, Work};
use sagittal::pipeline::{Progress, Sampling, Sizes};
use sagittal::sampler::noise::noise;
use sagittal::sampler::{Inpaint, Predictor, SampleOptions, Sampler, Scheduler, initial, sample_on};
use sagittal::{Latent, Model, ModelOptions, Request};

static GO: AtomicBool = AtomicBool::new(false);

fn model(precision: Precision) -> Option<Model> {
    let options = ModelOptions { precision: Some(precision), ..Default::default() };
    Some(Model::new(gpu()?, synthetic("tiny-sd1"), options).expect("a model"))
}

fn request(sampler: Sampler, steps: usize) -> Request {
    let mut request = Request::new("fox", Size::square(64)).with_steps(steps);
    (request.solver.sampler, request.seed) = (sampler, 5);
    request
}

/// Bytes moved so far: scalars, latents uploaded, set-up, flags, other readbacks, and the number of readbacks.
fn moved(traffic: &Traffic) -> [u64; 6] {
    let Traffic { scalars, latents, set_up, flags, read, reads } = traffic;
    [scalars, latents, set_up, flags, read, reads].map(|n| n.load(Ordering::Relaxed))
}

/// The evaluations of a step of the report: each begins with the calls for guidance.
fn evaluations(step: &[Work]) -> usize {
    step.iter().filter(|w| matches!(w, Work::Network(call) if call.purpose == Purpose::Guidance)).count()
}

/// 20 steps with SAG upload scalars and noise, and read back flags only; plus the result, and the error of an adaptive
/// solver.
#[test]
fn a_step_reads_back_only_flags() {
    let Some(m) = model(Precision::F32) else { return };
    let mut failures = Failures::default();
    // A latent of the request, as the device stores it.
    let (latent, steps) = (16 * 64, 20);
    for sampler in Sampler::ALL.iter().copied() {
        let request = request(sampler, steps);
        let mut reported = 0;
        // Bytes of scalars and set-up so far, when each step is reported.
        let mut steps_moved = Vec::new();
        let mut observe = |event: Progress| {
            if let Progress::Sampling { step: 1.., .. } = event {
                reported += 1;
                let [scalars, _, set_up, ..] = moved(m.engine().traffic());
                steps_moved.push(scalars + set_up);
            }
        };
        let text = m.encode("fox", None, Sizes::of(Size::square(64)), &GO).expect("text");
        let conditioning = Conditioning { positive: vec![text.clone()], negative: vec![text] };
        let before = moved(m.engine().traffic());
        sample(&m, &conditioning, &request, &mut observe);
        let after = moved(m.engine().traffic());
        let [scalars, up, _, flags, read, reads] = [0, 1, 2, 3, 4, 5].map(|i| after[i] - before[i]);
        let adaptive = if sampler == Sampler::DpmAdaptive { reported as u64 } else { 0 };
        let what = format!("{sampler}: {scalars} {up} {flags} {read} {reads}, {reported} steps");
        // The result alone.
        failures.check(reads == 1 + adaptive, || format!("{what}: reads"));
        failures.check(read == latent + 4 * adaptive, || format!("{what}: bytes read"));
        failures.check(flags.is_multiple_of(8) && flags <= 8 * (3 * reported as u64 + 1), || {
            format!("{what}: flags")
        });
        failures.check(scalars <= 4096 * reported as u64, || format!("{what}: scalars"));
        // No step uploads more than its share, with the parameters of new bind groups. The steps in flight when one is
        // reported count too. All parameters of the network are uploaded before the first is reported.
        for (i, window) in steps_moved.windows(2).enumerate() {
            let up = window[1] - window[0];
            failures.check(up <= 4096 * (AHEAD + 1), || format!("{what}: {up} bytes in step {}", i + 2));
        }
        let (first, last) = (steps_moved.first().unwrap_or(&0), steps_moved.last().unwrap_or(&0));
        failures.check(last - first <= 4096 * reported as u64, || format!("{what}: {} bytes", last - first));
        // Tables of rows and entries are uploaded once; a step draws noise at most three times.
        let noise = if sampler.adds_noise() { 3 * latent * reported as u64 } else { 0 };
        failures.check(up <= latent + noise + 1024, || format!("{what}: latents up"));
    }
    failures.finish();
}

fn sample(m: &Model, c: &Conditioning, request: &Request, observe: &mut dyn FnMut(Progress)) {
    let run = Sampling {
        guidance: request.guidance.clone(),
        solver: request.solver,
        seed: request.seed,
        levels: request.schedule.into(),
        ..Sampling::new(noise(request.seed, [1, 4, 8, 8]))
    };
    m.sample(c, &run, observe, &GO).expect("samples");
}

/// SAG takes at most four dispatches between its two network calls, a sampler's update at most two per evaluation, and
/// one more to measure an error.
#[test]
fn a_step_has_few_dispatches() {
    let Some(m) = model(Precision::F32) else { return };
    let mut failures = Failures::default();
    let mut seen = BTreeSet::new();
    for sampler in Sampler::ALL.iter().copied() {
        let step = m.report(&request(sampler, 20)).expect("a plan").step;
        let evaluations = evaluations(&step);
        let is = |work: &Work, name: &str| matches!(work, Work::Latents { path, .. } if path == name);
        let sums = step.iter().filter(|w| is(w, "sum")).count();
        let errors = step.iter().filter(|w| is(w, "error")).count();
        failures.check((1..=3).contains(&evaluations), || format!("{sampler}: {evaluations} evaluations"));
        seen.insert(evaluations);
        // One of them is the sum of guidance.
        let updates = sums.saturating_sub(evaluations);
        failures.check(updates <= 2 * evaluations, || format!("{sampler}: {updates} of {evaluations}"));
        failures
            .check(errors <= usize::from(sampler == Sampler::DpmAdaptive), || format!("{sampler}: errors"));
        let calls: Vec<(usize, Purpose)> = (0..)
            .zip(&step)
            .filter_map(|(i, w)| if let Work::Network(call) = w { Some((i, call.purpose)) } else { None })
            .collect();
        for pair in calls.windows(2) {
            if let [(guidance, Purpose::Guidance), (sag, Purpose::Sag)] = pair {
                failures.check(sag - guidance <= 5, || format!("{sampler}: {} between", sag - guidance - 1));
            }
        }
        failures.check(calls.len() == 2 * evaluations, || format!("{sampler}: {} calls", calls.len()));
    }
    // Steps of one evaluation and of several were counted.
    failures.check(seen.len() > 1, || format!("{seen:?} evaluations"));
    failures.finish();
}

/// Entries of all kinds: an area, a mask, a strength, several negatives.
fn conditioning(width: usize) -> Conditioning {
    let entry = |seed: u64| {
        let context = noise(seed, [1, 1, 77, width]).data().to_vec();
        Entry::new(context, 77)
    };
    let weights = (0..9 * 12).map(|i| [0.2, 1.0, 0.6][i % 3]).collect::<Vec<f32>>();
    Conditioning {
        positive: vec![
            entry(1),
            Entry { area: Some(Area { y: 2, x: 3, height: 6, width: 7 }), strength: 0.7, ..entry(2) },
        ],
        negative: vec![entry(3), Entry { mask: Some(weights.into()), ..entry(4) }],
    }
}

fn guidance() -> Guidance {
    Guidance::new(6.0).with(Sag::default()).with(Perturbed::pag(2.0)).with(Perturbed::seg(1.0, 1.5))
}

/// Largest difference, in standard deviations of `want`.
fn apart(found: &Latent, want: &Latent) -> f64 {
    let n = want.data().len() as f64;
    let mean = want.data().iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let spread = (want.data().iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n).sqrt();
    let differences = found.data().iter().zip(want.data()).map(|(a, b)| f64::from((a - b).abs()));
    differences.fold(0.0, f64::max) / spread
}

/// One evaluation with all kinds of guidance at once, with its inner values.
#[test]
fn an_evaluation_equals_that_of_the_host() {
    let Some(m) = model(Precision::F32) else { return };
    let (weights, c) = (m.unet_weights(&GO).expect("weights"), conditioning(m.config().unet.context_dim));
    let x = noise(9, [2, 4, 9, 12]).scaled(8.0);
    for rescale in [None, Some(0.7)] {
        let guidance = Guidance { rescale, ..guidance() };
        let mut network = UnetNetwork::new(m.unet(&weights), ChunkPolicy::Auto, None, &GO);
        let host = Box::new(HostBackend::new(&mut network));
        let mut host = Guided::on(host, &c, m.discrete(), guidance.clone()).expect("settings");
        let want = host.evaluate(&x, 5.0).expect("an evaluation");
        let sink = DeviceSink::new(m.unet(&weights), ChunkPolicy::Rows(3), None, &GO);
        let device = Box::new(DeviceBackend::new(sink, &m.unet(&weights)));
        let mut device = Guided::on(device, &c, m.discrete(), guidance).expect("settings");
        let found = device.evaluate(&x, 5.0).expect("an evaluation");
        let of = |e: &Evaluation| {
            let sag = e.sag.clone().expect("SAG");
            let uncond = e.uncond.clone().expect("a negative");
            let mut all = vec![e.cond.clone(), uncond, e.cfg.clone(), sag.degraded, sag.input, sag.sag];
            all.extend(e.perturbed.iter().cloned());
            all.push(e.result.clone());
            (all, sag.columns, sag.mask)
        };
        let ((found, columns, mask), (want, want_columns, want_mask)) = (of(&found), of(&want));
        for (i, (found, want)) in found.iter().zip(&want).enumerate() {
            assert!(apart(found, want) < 1e-4, "{i}, rescaled {rescale:?}: {}", apart(found, want));
        }
        // The input of the network differs by rounding, and so do its column sums: a cell of the mask may differ where
        // they are about 1. The masks of rows with areas and weights are means of several.
        let off = |(a, b): (&Columns, &Columns)| {
            assert_eq!((a.height, a.width), (b.height, b.width));
            a.values.iter().zip(&b.values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        let farthest = columns.iter().zip(&want_columns).map(off).fold(0.0, f32::max);
        assert!(columns.len() == want_columns.len() && farthest < 1e-4, "column sums: {farthest}");
        assert!(mask.contains(&1) && mask.contains(&0));
        // Cells differ only next to a boundary: the mask is made of weighted and resized maps.
        let near_one =
            want_columns.iter().flat_map(|c| &c.values).filter(|c| (**c - 1.0).abs() < 1e-4).count();
        let others = mask.iter().zip(&want_mask).filter(|(a, b)| a != b).count();
        assert!(
            mask.len() == want_mask.len() && near_one < 3,
            "the inputs are chosen to be clear: {near_one}"
        );
        assert!(others == 0 || near_one > 0, "{others} of the mask differ");
    }
}

/// Complete runs of every sampler with inpainting: those of the device and of the host differ by rounding.
#[test]
fn every_sampler_on_the_device_equals_that_of_the_host() {
    let Some(m) = model(Precision::F32) else { return };
    let (weights, c) = (m.unet_weights(&GO).expect("weights"), conditioning(m.config().unet.context_dim));
    let c = Conditioning { positive: c.positive[..1].to_vec(), negative: c.negative[..1].to_vec() };
    let shape = [1, 4, 9, 12];
    let mask = (0..9 * 12).map(|i| [0.0, 1.0, 1.0, 0.25][i % 4]).collect();
    let mask = Latent::from_vec([1, 1, 9, 12], mask).expect("the shape");
    let (start, noise) = (noise(4, shape), noise(3, shape));
    let options = SampleOptions { seed: 3, ..Default::default() };
    let mut failures = Failures::default();
    for sampler in Sampler::ALL.iter().copied() {
        let discard = sampler.discard_penultimate();
        let sigmas = Scheduler::Karras.sigmas(m.discrete(), 4, 0.8, discard).expect("sigmas");
        let x = initial(&noise, &start, sigmas[0], m.discrete().sigma_max()).expect("one shape");
        let run = |mut guided: Guided<'_>| {
            let x: Value = guided.latents().bring(&x).expect("a latent");
            let mut model = Inpaint::new(&mut guided, &mask, &start, &noise).expect("one shape");
            let end = sample_on(sampler, &mut model, x, &sigmas, &options, &mut |_| Ok(())).expect("samples");
            model.latents().read(&end).expect("a latent")
        };
        // A cell of SAG's mask may flip by rounding; the effect of a mask is tested above.
        let guidance = Guidance::new(5.0);
        let mut network = UnetNetwork::new(m.unet(&weights), ChunkPolicy::Auto, None, &GO);
        let host = Box::new(HostBackend::new(&mut network));
        let want = run(Guided::on(host, &c, m.discrete(), guidance.clone()).expect("settings"));
        let sink = DeviceSink::new(m.unet(&weights), ChunkPolicy::Auto, None, &GO);
        let device = Box::new(DeviceBackend::new(sink, &m.unet(&weights)));
        let found = run(Guided::on(device, &c, m.discrete(), guidance).expect("settings"));
        let apart = apart(&found, &want);
        println!("{sampler}: {apart:.1e}");
        failures.check(apart < 1e-3, || format!("{sampler}: {apart:.1e}"));
    }
    failures.finish();
}
