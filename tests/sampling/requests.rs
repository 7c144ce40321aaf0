//! Requests with all features at once: several entries on each side with areas, masks, ranges, strengths and lengths, and
//! a latent mask. For each sampler, what must not change a result does not change a bit of it; first with a formula as
//! network, then with a small network on the device.

use std::sync::atomic::AtomicBool;

use crate::common::{Failures, MANIFESTS, Rng, gpu};
use sagittal::Size;
use sagittal::checkpoint::{Dtype, Manifest};
use sagittal::guidance::{
    Area, Columns, Conditioning, Entry, Guidance, Guided, Network, Row, RowResult, Sag,
};
use sagittal::image::{Mask, Picture};
use sagittal::internals::kernels::Precision;
use sagittal::internals::plan::chunk::ChunkPolicy;
use sagittal::pipeline::{self, Limits, Noise, Progress, Schedule, Start};
use sagittal::sampler::noise::noise;
use sagittal::sampler::{
    Discrete, Inpaint, Predictor, SampleOptions, Sampler, Scheduler, initial, sample_on,
};
use sagittal::{Checkpoint, ErrorKind, Latent, Model, ModelOptions, Request, Result, VaeLatent, embedded};

/// Predicts by a formula of the row alone, in chunks.
struct Toy {
    portion: usize,
    largest: usize,
}

impl Network for Toy {
    fn predict(&mut self, rows: &[Row<'_>]) -> Result<Vec<RowResult>> {
        let one = |row: &Row<'_>| {
            let pull: f32 = row.entry.context.iter().sum::<f32>() / row.entry.tokens as f32;
            let shrink = 1.0 / (1.0 + row.sigma * row.sigma);
            let (height, width) = (row.x.height().div_ceil(4), row.x.width().div_ceil(4));
            // Attention depends on the picture, so that the mask changes during the sampling.
            let raw: Vec<f32> =
                (0..height * width).map(|i| 1.0 + 0.5 * (row.x.data()[i * 3] * 7.0).sin()).collect();
            let mean = raw.iter().sum::<f32>() / raw.len() as f32;
            let columns = Columns { height, width, values: raw.iter().map(|v| v / mean).collect() };
            let predict = |v: f32| v * shrink + (pull - 0.2 * (v * shrink).tanh()) * (1.0 - shrink);
            RowResult {
                denoised: row.x.zip(&row.x, |v, _| predict(v)).expect("one shape"),
                columns: row.record.then_some(columns),
            }
        };
        self.largest = self.largest.max(rows.len());
        Ok(rows.chunks(self.portion).flat_map(|part| part.iter().map(one).collect::<Vec<_>>()).collect())
    }
}

/// Six entries on each side that differ in all their fields; `order` rotates both lists.
fn everything(size: (usize, usize), width: usize, order: usize) -> Conditioning {
    let text = |seed: u64, tokens: usize| {
        let mut rng = Rng(seed);
        Entry::new((0..tokens * width).map(|_| rng.value()).collect(), tokens)
    };
    let side = |seed: u64| {
        let area = Area::of_parts(0.5, 0.0, 0.5, 0.7, Size::new(size.1, size.0));
        let mask: Vec<f32> = (0..size.0 * size.1).map(|i| (i % 5) as f32 / 4.0).collect();
        let mut entries = vec![
            text(seed, 77),
            Entry { strength: 0.7, ..text(seed + 1, 154) },
            Entry { area: Some(area), ..text(seed + 2, 77) },
            Entry { mask: Some(mask.into()), strength: 1.3, ..text(seed + 3, 231) },
            Entry { start: 0.2, end: 0.6, ..text(seed + 4, 77) },
            text(seed, 77).average(&text(seed + 5, 154), 0.3).expect("one width"),
        ];
        entries.rotate_left(order);
        if order % 2 == 1 {
            entries.reverse();
        }
        entries
    };
    Conditioning { positive: side(10), negative: side(20) }
}

const SHAPE: [usize; 4] = [2, 4, 9, 12];

/// A mask with kept, drawn and mixed cells, another for each picture.
fn mask() -> Latent {
    let weights = (0..2 * 9 * 12).map(|i| [0.0, 1.0, 1.0, 0.25][(i / 3 + i / 108) % 4]).collect();
    Latent::from_vec([2, 1, 9, 12], weights).expect("the shape")
}

fn flat(value: f32) -> Latent {
    Latent::from_vec([1, 1, 9, 12], vec![value; 9 * 12]).expect("the shape")
}

struct Run<'a> {
    sampler: Sampler,
    order: usize,
    portion: usize,
    mask: Option<&'a Latent>,
    /// One picture of the batch alone, under its own noise.
    only: Option<usize>,
    options: SampleOptions,
    table: Discrete,
}

impl Run<'_> {
    fn of(sampler: Sampler) -> Self {
        let options = SampleOptions { seed: 3, ..Default::default() };
        let table = Discrete::stable_diffusion();
        Run { sampler, order: 0, portion: usize::MAX, mask: None, only: None, options, table }
    }

    /// The start, and the result.
    fn sample(&self) -> (Latent, Latent) {
        let pick = |x: Latent| self.only.map_or_else(|| x.clone(), |i| x.row(i));
        let (noise, start) = (pick(noise(3, SHAPE)), pick(noise(4, SHAPE)));
        let steps = Scheduler::Normal
            .sigmas(&self.table, 4, 0.7, self.sampler.discard_penultimate())
            .expect("sigmas");
        let x = initial(&noise, &start, steps[0], self.table.sigma_max()).expect("one shape");
        let conditioning = everything((9, 12), 8, self.order);
        let mut toy = Toy { portion: self.portion, largest: 0 };
        let mut guided =
            Guided::new(&mut toy, &conditioning, &self.table, Guidance::new(3.0).with(Sag::default()))
                .expect("settings");
        let mut inpaint: Option<Inpaint<'_>> = None;
        let x = guided.latents().bring(&x).expect("a latent");
        let model: &mut dyn Predictor = match self.mask {
            Some(mask) => {
                let mask = if mask.batch() == 2 { pick(mask.clone()) } else { mask.clone() };
                let noise = self.sampler.inpaint_noise(&noise, 3).expect("a seed");
                inpaint.insert(Inpaint::new(&mut guided, &mask, &start, &noise).expect("one shape"))
            }
            None => &mut guided,
        };
        let end = sample_on(self.sampler, model, x, &steps, &self.options, &mut |_| Ok(())).expect("samples");
        let end = model.latents().read(&end).expect("a latent");
        drop(inpaint);
        drop(guided);
        assert!(end.is_finite());
        assert!(toy.largest >= 10, "several entries a side, {} rows", toy.largest);
        (start, end)
    }

    fn end(&self) -> Latent {
        self.sample().1
    }
}

fn same_bits(a: &Latent, b: &Latent) -> bool {
    a.shape() == b.shape() && a.data().iter().zip(b.data()).all(|(a, b)| a.to_bits() == b.to_bits())
}

fn farthest(a: &Latent, b: &Latent) -> f32 {
    a.zip(b, |a, b| (a - b).abs()).expect("one shape").data().iter().copied().fold(0.0, f32::max)
}

/// Runs `holds` for every sampler, and lists those for which it is false.
fn for_all(what: &str, holds: impl Fn(Sampler) -> bool) {
    let failures: Vec<_> = Sampler::ALL.iter().copied().filter(|s| !holds(*s)).map(Sampler::name).collect();
    assert!(failures.is_empty(), "{what} does not hold for {failures:?}");
}

#[test]
fn neither_order_nor_chunks_change_a_bit() {
    let mask = mask();
    for_all("orders and portions", |s| {
        [None, Some(&mask)].into_iter().all(|mask| {
            let want = Run { mask, ..Run::of(s) }.end();
            (1..6).all(|n| same_bits(&want, &Run { mask, order: n, portion: n, ..Run::of(s) }.end()))
        })
    });
}

#[test]
fn entries_and_masks_matter() {
    let mask = mask();
    for_all("a difference", |s| {
        let want = Run::of(s).end();
        !same_bits(&want, &Run { mask: Some(&mask), ..Run::of(s) }.end())
    });
}

#[test]
fn a_white_mask_is_image_to_image_bit_for_bit() {
    let white = flat(1.0);
    for_all("white", |s| same_bits(&Run::of(s).end(), &Run { mask: Some(&white), ..Run::of(s) }.end()));
}

/// How far a kept value may be from the start: some samplers end at a sigma above 0 and leave that much noise, which is
/// below 4.5 deviations here; the others round.
fn left_over(sampler: Sampler) -> f32 {
    let last = match sampler {
        Sampler::UniPc | Sampler::UniPcBh2 => 0.001,
        Sampler::DpmFast | Sampler::DpmAdaptive => Discrete::stable_diffusion().sigma_min(),
        _ => 0.0,
    };
    4.5 * last + 1e-5
}

#[test]
fn a_black_mask_gives_the_start_back() {
    let black = flat(0.0);
    for_all("black", |s| {
        let (start, end) = Run { mask: Some(&black), ..Run::of(s) }.sample();
        farthest(&start, &end) <= left_over(s)
    });
}

#[test]
fn kept_cells_come_back_and_others_are_drawn() {
    let mask = mask();
    for_all("kept cells", |s| {
        let (start, end) = Run { mask: Some(&mask), ..Run::of(s) }.sample();
        let cell = |i: usize| mask.image(i / (4 * 108))[i % 108];
        let moved = start.zip(&end, |a, b| (a - b).abs()).expect("one shape");
        let (mut kept, mut drawn) = (0.0f32, 0.0f32);
        for (i, d) in moved.data().iter().enumerate() {
            match cell(i) {
                0.0 => kept = kept.max(*d),
                _ => drawn = drawn.max(*d),
            }
        }
        kept <= left_over(s) && drawn > 0.1
    });
}

#[test]
fn pictures_of_a_masked_batch_do_not_depend_on_each_other() {
    let mask = mask();
    // Noise is drawn for all of the batch; without noise the pictures are independent.
    let options = SampleOptions { s_noise: 0.0, ..Default::default() };
    for_all("a picture alone", |s| {
        let run = |only| Run { mask: Some(&mask), only, options, ..Run::of(s) }.end();
        let both = run(None);
        // DDIM draws new noise for the kept part, and the adaptive sampler has the same steps for all pictures.
        let shares = matches!(s, Sampler::Ddim | Sampler::DpmAdaptive);
        same_bits(&both.row(0), &run(Some(0))) && same_bits(&both.row(1), &run(Some(1))) || shares
    });
}

#[test]
fn zero_terminal_snr_stays_finite() {
    let table = Discrete::zero_terminal_snr();
    for scheduler in Scheduler::ALL.iter().copied() {
        for steps in [1, 2, 5, 20, 50, 1000] {
            for discard in [false, true] {
                let sigmas = scheduler.sigmas(&table, steps, 1.0, discard).expect("sigmas");
                let falls = sigmas.windows(2).all(|w| w[0] >= w[1]) && sigmas.last() == Some(&0.0);
                assert!(falls && sigmas[0].is_finite(), "{scheduler} {steps}: {sigmas:?}");
            }
        }
        let first = scheduler.sigmas(&table, 20, 1.0, false).expect("sigmas")[0];
        let (most, skips_the_last) = (table.sigma_max(), scheduler == Scheduler::DdimUniform);
        // Near π/2 an angle in f32 is that coarse, as in PyTorch.
        let near = if scheduler == Scheduler::KlOptimal { 2e-4 } else { 1e-5 };
        assert!(skips_the_last || (first / most - 1.0).abs() < near, "{scheduler} begins at {first}");
    }
    for_all("zero terminal SNR", |s| {
        Run { table: Discrete::zero_terminal_snr(), ..Run::of(s) }.end().is_finite()
    });
}

fn model(manifest: Option<&str>, options: ModelOptions) -> Option<Model> {
    let checkpoint = match manifest {
        None => embedded::checkpoint(),
        Some(name) => {
            let (_, text) = MANIFESTS.iter().find(|(n, _)| *n == name).expect("a family");
            Checkpoint::synthetic(&Manifest::parse(text).expect("manifest"), 0, Dtype::F16)
        }
    };
    let options = ModelOptions { precision: Some(Precision::F32), ..options };
    Some(Model::new(gpu()?, checkpoint.expect("a checkpoint"), options).expect("a model"))
}

fn sampling(sampler: Sampler, steps: usize, denoise: f64, shape: [usize; 4]) -> pipeline::Sampling {
    let [_, _, height, width] = shape;
    let weights = (0..height * width).map(|i| [0.0, 1.0, 0.5][i % 3]).collect();
    pipeline::Sampling {
        latent: Some(VaeLatent::new(noise(4, [1, 4, height, width]))),
        mask: Some(Latent::from_vec([1, 1, height, width], weights).expect("the shape")),
        guidance: Guidance::new(4.0).with(Sag::default()),
        solver: sampler.into(),
        seed: 3,
        levels: Schedule { scheduler: Scheduler::Karras, steps, denoise }.into(),
        ..pipeline::Sampling::new(noise(3, shape))
    }
}

/// The least memory in MiB with which a sampling is possible: the weights of the UNet are streamed. A run that is
/// cancelled from the start still checks its memory.
fn least_memory(m: &Model, conditioning: &Conditioning, sampling: &pipeline::Sampling) -> u64 {
    let suffices = |memory: &u64| {
        let limits = Limits { memory: Some(*memory), ..Limits::default() };
        let sampling = pipeline::Sampling { limits, ..sampling.clone() };
        let error = m.sample(conditioning, &sampling, &mut |_| {}, &AtomicBool::new(true));
        error.expect_err("cancelled").kind() == ErrorKind::Cancelled
    };
    (1..1000).map(|mib| mib << 20).find(suffices).expect("it runs in less than a GiB")
}

/// The network, for samplers of three kinds: rows do not depend on the sampler.
#[test]
fn on_the_device_neither_order_nor_chunks_nor_memory_change_a_bit() {
    let Some(m) = model(Some("tiny-sd1"), ModelOptions::default()) else { return };
    let width = m.config().unet.context_dim;
    let run = |order: usize, sampling: &pipeline::Sampling| {
        let conditioning = everything((9, 10), width, order);
        m.sample(&conditioning, sampling, &mut |_| {}, &AtomicBool::new(false)).expect("samples")
    };
    let of = |sampler| sampling(sampler, 2, 0.8, [1, 4, 9, 10]);
    let tight = Some(least_memory(&m, &everything((9, 10), width, 0), &of(Sampler::Euler)));
    let changes =
        [(3, ChunkPolicy::Rows(1), None), (2, ChunkPolicy::Rows(3), None), (1, ChunkPolicy::Auto, tight)];
    let mut failures = Failures::default();
    for sampler in [Sampler::Euler, Sampler::Dpmpp2mSde, Sampler::EulerCfgPp] {
        let want = run(0, &of(sampler));
        for (order, chunk, memory) in changes {
            let other = pipeline::Sampling { limits: Limits { chunk, memory }, ..of(sampler) };
            failures
                .check(same_bits(&want, &run(order, &other)), || format!("{sampler}: {chunk:?}, {memory:?}"));
        }
    }
    failures.finish();
}

/// All samplers, with negative prompts of different lengths, in another order and with one row per call; for every fourth
/// sampler also with streamed weights, which no sampler depends on.
#[test]
fn no_sampler_draws_another_picture_in_less_memory() {
    let Some(m) = model(Some("tiny-sd1"), ModelOptions::default()) else { return };
    let width = m.config().unet.context_dim;
    let entry = |tokens: usize, seed: u64| {
        let mut rng = crate::common::Rng(seed);
        Entry::new((0..tokens * width).map(|_| rng.value()).collect(), tokens)
    };
    let mut c = Conditioning { positive: vec![entry(77, 1)], negative: vec![entry(77, 2), entry(154, 3)] };
    let run = |c: &Conditioning, sampling: &pipeline::Sampling| {
        m.sample(c, sampling, &mut |_| {}, &AtomicBool::new(false)).expect("samples")
    };
    // The adaptive sampler takes hundreds of calls for a full sampling, and a few for its end.
    let part = |sampler| if sampler == Sampler::DpmAdaptive { 0.1 } else { 0.8 };
    let full = |s| sampling(s, 2, part(s), [1, 4, 5, 5]);
    let wanted: Vec<_> = Sampler::ALL.iter().map(|sampler| run(&c, &full(*sampler))).collect();
    c.negative.reverse();
    let least = least_memory(&m, &c, &full(Sampler::Euler));
    let mut failures = Failures::default();
    let mut check = |sampler: Sampler, want: &Latent, memory: Option<u64>| {
        let limits = Limits { memory, chunk: ChunkPolicy::Rows(1) };
        let single = pipeline::Sampling { limits, ..full(sampler) };
        failures.check(same_bits(want, &run(&c, &single)), || format!("{sampler}, {memory:?}"));
    };
    // First all of them in one way, then in the other: weights are uploaded once for each.
    for (sampler, want) in Sampler::ALL.iter().copied().zip(&wanted) {
        check(sampler, want, None);
    }
    for (sampler, want) in Sampler::ALL.iter().copied().zip(&wanted).step_by(4) {
        check(sampler, want, Some(least));
    }
    failures.finish();
}

#[test]
fn pictures_are_encoded_and_kept() {
    let Some(m) = model(None, ModelOptions::default()) else { return };
    let cancel = AtomicBool::new(false);
    let mut request = Request::new("owl, 3d style", Size::new(64, 72));
    (request.schedule.steps, request.guidance.cfg, request.seed) = (2, 3.5, 5);
    let picture = m.generate(&request).expect("a picture").pictures.remove(0);
    let encoded = m.encode_picture(&picture, &cancel).expect("a latent");
    request.start = Some(Start::Picture(picture));
    request.seed = 6;
    let with = |change: &dyn Fn(&mut Request)| {
        let mut request = request.clone();
        change(&mut request);
        let mut steps = 0;
        let mut watch = |e: Progress| {
            if let Progress::Sampling { step, .. } = e {
                steps = steps.max(step);
            }
        };
        let made = m.run(&request).on_event(&mut watch).generate().expect("a picture");
        (made.latent, steps)
    };
    let mask =
        |value: f32| Mask::new(Size::square(1), vec![value]).expect("a mask").to_latent(Size::new(8, 9));

    assert_eq!(
        with(&|r| r.schedule.denoise = 0.0),
        (encoded.clone(), 0),
        "strength 0 returns the encoded picture"
    );
    let (half, steps) = with(&|r| r.schedule.denoise = 0.5);
    assert_eq!(steps, 2, "all steps are done");
    let (white, _) = with(&|r| (r.schedule.denoise, r.mask) = (0.5, Some(mask(1.0))));
    assert!(same_bits(&half, &white), "a white mask is image to image");
    let (black, _) = with(&|r| (r.schedule.denoise, r.mask) = (0.5, Some(mask(0.0))));
    assert!(farthest(&black, &encoded) < 1e-4, "a black mask keeps everything");
    let (full, _) = with(&|r| r.schedule.denoise = 1.0);
    assert!(farthest(&full, &encoded) > farthest(&half, &encoded));
    // One start for a batch; its first picture equals that of a batch of one.
    let (batch, _) = with(&|r| (r.schedule.denoise, r.mask, r.batch) = (0.5, Some(mask(0.5)), 3));
    let (alone, _) =
        with(&|r| (r.schedule.denoise, r.mask, r.noise) = (0.5, Some(mask(0.5)), Noise::Pictures(vec![2])));
    assert!(same_bits(&batch.row(2), &alone), "a masked picture does not depend on its batch");
}

#[test]
fn starts_and_masks_that_do_not_fit_are_refused() {
    let Some(m) = model(None, ModelOptions::default()) else { return };
    let picture = |width, height| Start::Picture(Picture { width, height, rgb: vec![9; width * height * 3] });
    let mask = |shape: [usize; 4], value: f32| {
        Some(Latent::from_vec(shape, vec![value; shape.iter().product()]).expect("the shape"))
    };
    type Case = (Option<Start>, Option<Latent>);
    let cases: [Case; 8] = [
        (Some(picture(64, 72)), None),
        (Some(Start::Latent(VaeLatent::new(Latent::zeros(1, 4, 8, 9)))), None),
        (Some(Start::Latent(VaeLatent::new(Latent::zeros(3, 4, 8, 8)))), None),
        (Some(Start::Latent(VaeLatent::new(Latent::zeros(0, 4, 8, 8)))), None),
        (None, mask([1, 1, 8, 8], 1.0)),
        (Some(picture(64, 64)), mask([1, 1, 8, 9], 1.0)),
        (Some(picture(64, 64)), mask([1, 1, 8, 8], 1.5)),
        (Some(picture(64, 64)), mask([1, 1, 8, 8], f32::NAN)),
    ];
    for (i, (start, mask)) in cases.into_iter().enumerate() {
        let request = Request { start, mask, batch: 2, ..Request::new("x", Size::square(64)).with_steps(1) };
        let error = m.generate(&request).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Usage, "case {i}: {error}");
    }
}

#[test]
fn composed_prompts_are_entries() {
    let Some(m) = model(None, ModelOptions::default()) else { return };
    let cancel = AtomicBool::new(false);
    let with = |prompt: &str, compose: bool| {
        let mut request = Request::new(prompt, Size::square(64)).with_steps(1).with_cfg(3.5);
        request.compose = compose;
        request.negative = vec!["red".into(), "blurry".into()];
        m.generate(&request).map(|g| g.latent)
    };
    let one = |prompt: &str, compose: bool| with(prompt, compose).expect("a latent");
    assert!(same_bits(&one("fox AND owl", true), &one("owl AND fox", true)), "order");
    assert!(same_bits(&one("fox", true), &one("fox", false)), "nothing to read");
    assert!(same_bits(&one("fox AND fox", true).scaled(0.0), &one("fox", true).scaled(0.0)));
    for (prompt, other) in [("fox AND owl", "fox AND owl:2"), ("fox BREAK owl", "fox owl")] {
        assert!(!same_bits(&one(prompt, true), &one(other, true)), "{prompt} and {other}");
    }
    assert!(!same_bits(&one("fox AND owl", true), &one("fox AND owl", false)));
    for prompt in ["a:0 AND b:0", "a AND b:-1", "a AND b:-2"] {
        assert_eq!(with(prompt, true).expect_err("refused").kind(), ErrorKind::Usage, "{prompt}");
    }
    let broken = m.encode(
        &sagittal::internals::text::compose::breaks("fox BREAK owl"),
        None,
        Default::default(),
        &cancel,
    );
    let [fox, owl] = ["fox", "owl"].map(|p| m.encode(p, None, Default::default(), &cancel).expect("text"));
    // BREAK is ComfyUI's concat.
    assert_eq!(broken.expect("text").context, fox.concat(&owl).expect("one width").context);
}

#[test]
fn v_prediction_with_zero_terminal_snr_runs() {
    use sagittal::internals::model::Prediction;
    let options = ModelOptions { prediction: Some(Prediction::ZeroSnrV), ..Default::default() };
    let Some(m) = model(Some("tiny-sd2"), options) else { return };
    assert!(m.discrete().sigma_max() > 4518.0);
    for scheduler in [Scheduler::Normal, Scheduler::Karras, Scheduler::Exponential] {
        let request =
            Request { schedule: Schedule::new(scheduler, 4), ..Request::new("a fox", Size::new(72, 80)) };
        let made = m.generate(&request).expect("a picture");
        assert!(made.latent.is_finite(), "{scheduler}");
    }
}
