//! Kernels of guidance against their f64 references, on odd shapes, with a pattern around everything that must
//! survive.

use super::latent_kernels::{later, shapes};
use crate::common::dispatch::{Memory, Runner, bits, is_padded, random};
use crate::common::{Rng, nmse, to_f64};
use sagittal::Latent;
use sagittal::guidance::sag;
use sagittal::internals::graph::Shape;
use sagittal::internals::kernels::cfg_rescale::{self, CfgRescale};
use sagittal::internals::kernels::entries_mean::{self, EntriesMean};
use sagittal::internals::kernels::error_norm::{self, ErrorNorm};
use sagittal::internals::kernels::latents::{EntryPlace, FLAG_LATENT, Latents, MapPlace, NO_STEP, OperandAt};
use sagittal::internals::kernels::sag_degrade::{self, MaskSource, Places, SagDegrade};

/// Of what arithmetic in f32 is off.
const TIGHT: f64 = 1e-12;

/// Entries of one side with their weights, predictions and column sums.
struct Entries {
    places: Vec<(EntryPlace, MapPlace)>,
    weights: Vec<f32>,
    predictions: Vec<f32>,
    columns: Vec<f32>,
}

impl Entries {
    /// `count` rectangles; the first is the whole if `single`, with one weight.
    fn new(rng: &mut Rng, l: &Latents, count: usize, single: bool) -> Self {
        let Shape { height, width, .. } = l.shape;
        let mut e = Self { places: vec![], weights: vec![], predictions: vec![], columns: vec![] };
        for _ in 0..count {
            let [y, x] = if single { [0, 0] } else { [height, width].map(|n| rng.range(0, n / 2)) };
            let most = [height - y, width - x];
            let [h, w] = if single { most } else { most.map(|n| rng.range(1.max(n / 2), n)) };
            let of_area = Latents { images: 1, shape: Shape { height: h, width: w, ..l.shape } };
            let [map_height, map_width] = [h, w].map(|n| n.div_ceil(rng.range(2, 8)));
            // Between images there is something else.
            let (stride, map_stride) = (of_area.quads() + 2, map_height * map_width + 3);
            let entry = EntryPlace {
                y: y as u32,
                x: x as u32,
                height: h as u32,
                width: w as u32,
                prediction: (e.predictions.len() / 4) as u32,
                prediction_stride: stride as u32,
                weights: e.weights.len() as u32,
            };
            let map = MapPlace {
                height: map_height as u32,
                width: map_width as u32,
                columns: e.columns.len() as u32,
                stride: map_stride as u32,
            };
            e.places.push((entry, map));
            // As masks have them, some are zeros.
            let weight = |rng: &mut Rng| if single { 0.7 } else { rng.value().max(0.0) };
            e.weights.extend((0..h * w).map(|_| weight(rng)));
            for _ in 0..l.images {
                e.predictions.extend(random(rng, &of_area, 3.0));
                e.predictions.extend([f32::NAN; 8]);
                e.columns.extend((0..map_stride).map(|_| 1.0 + 0.5 * rng.value()));
            }
        }
        e
    }

    fn words(&self) -> Vec<u32> {
        self.places.iter().flat_map(|(entry, _)| entry.words()).collect()
    }

    /// With maps, as seen from image `first` on.
    fn words_with_maps(&self, first: u32) -> Vec<u32> {
        let of = |(entry, map): &(EntryPlace, MapPlace)| {
            MapPlace { columns: map.columns + first * map.stride, ..*map }.words(entry)
        };
        self.places.iter().flat_map(of).collect()
    }
}

/// `[image, channel, cell]` without padding.
fn host(values: &[f32], l: &Latents) -> Latent {
    let (Shape { height, width, channels }, stored) = (l.shape, 4 * l.shape.quads());
    let images = values.chunks(l.shape.positions() * stored);
    let plane =
        |image: &[f32], c: usize| -> Vec<f32> { image.iter().skip(c).step_by(stored).copied().collect() };
    let data = images.flat_map(|image| (0..channels).flat_map(move |c| plane(image, c))).collect();
    Latent::from_vec([l.images, channels, height, width], data).expect("a latent")
}

/// One degradation on the device.
struct Degraded {
    mask: Vec<u32>,
    degraded: Vec<f32>,
    input: Vec<f32>,
}

#[test]
fn sag_masks_blurs_and_keeps_the_noise() {
    let Some(runner) = Runner::new() else { return };
    let kinds = shapes().flat_map(|s| (0..5).map(move |kind| (s, kind)));
    for (seed, (shape, kind)) in kinds.enumerate() {
        let (count, single, given) = (kind.clamp(1, 3), kind == 0, kind == 4);
        let what = format!("{shape}, {count} entries, single: {single}, given: {given}");
        let mut rng = Rng(300 + seed as u64);
        let latents = Latents { images: 3, shape };
        let size = 4 * latents.quads();
        let entries = Entries::new(&mut rng, &latents, count, single);
        let (base, x) = (random(&mut rng, &latents, 1.0), random(&mut rng, &latents, 9.0));
        let own_mask: Vec<u32> = (0..latents.cells()).map(|_| rng.range(0, 1) as u32).collect();
        let threshold = 1.03f32;

        let mut memory = Memory::default();
        let tables = [0, 1, 2].map(|first| memory.put(&entries.words_with_maps(first), 4));
        let weights = memory.put_first(&bits(&entries.weights));
        let columns = memory.put_first(&bits(&entries.columns));
        let places = Places {
            base: memory.floats(&base, 4),
            x: memory.floats(&x, 4),
            degraded: memory.room(size, 4),
            input: memory.room(size, 4),
            mask: if given { memory.put(&own_mask, 1) } else { memory.room(latents.cells(), 1) },
        };
        let source = |table| match given {
            true => MaskSource::Given,
            false => MaskSource::Scores { table, entries: count, single, weights, columns, threshold },
        };
        let sigma = 1.0 + rng.value().abs();
        let s = SagDegrade { path: "sag", latents, taps: sag::half_kernel(sigma), mask: source(tables[0]) };
        let run = |s: &SagDegrade<'_>, places: &Places| {
            let mut memory = memory.clone();
            runner.run(&[sag_degrade::call(s, places)], &mut memory, &[]);
            let cells = s.latents.cells();
            let mask = memory.result(places.mask, cells, 1);
            let [degraded, input] =
                [places.degraded, places.input].map(|p| memory.floats_of(p, cells * 4 * shape.quads(), 4));
            memory.finish(&what);
            Degraded { mask, degraded, input }
        };
        let all = run(&s, &places);
        let (cells, of_image) = (shape.positions(), size / latents.images);
        for image in 0..latents.images {
            let mask = &all.mask[image * cells..][..cells];
            if given {
                assert_eq!(mask, &own_mask[image * cells..][..cells], "{what}");
            } else {
                let [w, c] = [&entries.weights, &entries.columns].map(|v| to_f64(v));
                let scores = sag_degrade::scores(shape, image, &entries.places, &w, &c);
                for (score, m) in scores.iter().zip(mask) {
                    let over = score - f64::from(threshold);
                    assert!(over.abs() < 1e-5 || *m == u32::from(over > 0.0), "{what}: {score} {m}");
                }
            }
            let part = |v: &[f32]| to_f64(&v[image * of_image..][..of_image]);
            let (degraded, input) = sag_degrade::reference(shape, s.taps, mask, &part(&base), &part(&x));
            for (got, want) in [(&all.degraded, degraded), (&all.input, input)] {
                let error = nmse(&got[image * of_image..][..of_image], &want);
                assert!(error <= TIGHT && is_padded(got, &latents), "{what}: {error:e}");
            }
            let on = |p: OperandAt| later(p, image * cells * shape.quads());
            let places = Places {
                base: on(places.base),
                x: on(places.x),
                degraded: on(places.degraded),
                input: on(places.input),
                mask: later(places.mask, image * cells),
            };
            let one = Latents { images: 1, shape };
            let alone = run(&SagDegrade { latents: one, mask: source(tables[image]), ..s }, &places);
            let same = |a: &[f32], b: &[f32]| bits(a) == bits(&b[image * of_image..][..of_image]);
            let masks = alone.mask == all.mask[image * cells..][..cells];
            assert!(masks && same(&alone.degraded, &all.degraded), "{what}: image {image}");
            assert!(same(&alone.input, &all.input), "{what}: image {image}");
        }
        let masks: Vec<u8> = all.mask.iter().map(|m| *m as u8).collect();
        let on_host = sag::degrade(&host(&base, &latents), &masks, sigma);
        let error = nmse(host(&all.degraded, &latents).data(), &to_f64(on_host.data()));
        assert!(error <= TIGHT, "{what}: {error:e} from the host's");
        let ones = all.mask.iter().filter(|m| **m == 1).count();
        assert!(shape.height < 9 || (1..latents.cells()).contains(&ones), "{what}: nothing to see, {ones}");
    }
}

/// Strictly above the threshold is the rule: a map of equal attention blurs nothing. Of one entry, of two whose
/// mean is each one's own to the bit, and of one that leaves cells out, whose score is 0.
#[test]
fn scores_at_the_threshold_are_not_blurred_on_the_device() {
    let Some(runner) = Runner::new() else { return };
    let (shape, taps) = (Shape::new(8, 10, 4), sag::half_kernel(2.0));
    let latents = Latents { images: 1, shape };
    let base = random(&mut Rng(9), &latents, 1.0);
    for (threshold, entries, lines) in [1.0f32, 0.5, 1.375, 2.0, 1e6, 0.1, 1.03, 0.0]
        .iter()
        .flat_map(|t| [(*t, 1, 8), (*t, 2, 8), (*t, 1, 4)])
        .filter(|(threshold, _, lines)| *threshold > 0.0 || *lines < 8)
    {
        // Two halves: at the threshold, and one place above it, but not so little that a device takes it for 0.
        let values = [threshold, threshold.next_up().max(f32::MIN_POSITIVE)];
        let what = format!("threshold {threshold}, {entries} entries of {lines} lines");
        let entry = EntryPlace { height: lines, width: 10, ..Default::default() };
        let map = MapPlace { height: 1, width: 2, columns: 0, stride: 2 };
        let words = vec![map.words(&entry); entries].concat();
        let mut memory = Memory::default();
        let table = memory.put(&words, 4);
        let weights = memory.put_first(&bits(&[1.0; 80]));
        let columns = memory.put_first(&bits(&values));
        let [base_at, x] = [(); 2].map(|()| memory.floats(&base, 4));
        let [degraded, input] = [(); 2].map(|()| memory.room(base.len(), 4));
        let places = Places { base: base_at, x, degraded, input, mask: memory.room(80, 1) };
        let single = entries == 1 && lines == 8;
        let mask = MaskSource::Scores { table, entries, single, weights, columns, threshold };
        let call = sag_degrade::call(&SagDegrade { path: "sag", latents, taps, mask }, &places);
        runner.run(&[call], &mut memory, &[]);
        let mask = memory.result(places.mask, 80, 1);
        for (at, masked) in mask.iter().enumerate() {
            let above = at / 10 < lines as usize && at % 10 >= 5;
            assert_eq!(*masked, u32::from(above), "{what}: cell {at}");
        }
        let degraded = memory.floats_of(degraded, base.len(), 4);
        for (at, (made, plain)) in degraded.iter().zip(&base).enumerate() {
            assert!(mask[at / 4] == 1 || made == plain, "{what}: value {at}");
        }
        assert_ne!(degraded, base, "{what}: what is above is blurred");
    }
}

#[test]
fn predictions_of_entries_are_averaged_by_their_weights() {
    let Some(runner) = Runner::new() else { return };
    let kinds = shapes().flat_map(|s| (1..=3).map(move |count| (s, count)));
    for (seed, (shape, count)) in kinds.enumerate() {
        let what = format!("{shape}, {count} entries");
        let mut rng = Rng(400 + seed as u64);
        let latents = Latents { images: 3, shape };
        let size = 4 * latents.quads();
        let entries = Entries::new(&mut rng, &latents, count, false);
        let mut memory = Memory::default();
        let table = memory.put(&entries.words(), 4);
        let weights = memory.put_first(&bits(&entries.weights));
        let predictions = memory.put_first(&bits(&entries.predictions));
        let y = memory.room(size, 4);
        let mean = |latents| EntriesMean { path: "mean", latents, entries: count };
        let empty = memory.clone();
        let call = entries_mean::call(&mean(latents), table, [weights, predictions], y);
        runner.run(&[call], &mut memory, &[]);
        let all = memory.floats_of(y, size, 4);
        memory.finish(&what);
        let places: Vec<EntryPlace> = entries.places.iter().map(|(e, _)| *e).collect();
        let [w, d] = [&entries.weights, &entries.predictions].map(|v| to_f64(v));
        for image in 0..latents.images {
            let got = &all[image * size / 3..][..size / 3];
            let error = nmse(got, &entries_mean::reference(shape, image, &places, &w, &d));
            assert!(error <= TIGHT, "{what}: {error:e}");
            let mut memory = empty.clone();
            let shifted = |e: &EntryPlace| EntryPlace {
                prediction: e.prediction + image as u32 * e.prediction_stride,
                ..*e
            };
            let words: Vec<u32> = places.iter().flat_map(|e| shifted(e).words()).collect();
            let table = memory.put(&words, 4);
            let to = later(y, image * shape.positions() * shape.quads());
            let one = mean(Latents { images: 1, shape });
            runner.run(&[entries_mean::call(&one, table, [weights, predictions], to)], &mut memory, &[]);
            assert_eq!(bits(&memory.floats_of(to, size / 3, 4)), bits(got), "{what}: image {image}");
            memory.finish(&what);
        }
        assert!(is_padded(&all, &latents) && all.contains(&0.0), "{what}");
    }
}

#[test]
fn rescaled_guidance_keeps_its_rounding() {
    let Some(runner) = Runner::new() else { return };
    let sigmas = [0.3, 4.0, 4518.0f32];
    for (seed, (shape, sigma)) in shapes().flat_map(|s| sigmas.map(|sigma| (s, sigma))).enumerate() {
        let what = format!("{shape}, sigma {sigma}");
        let mut rng = Rng(500 + seed as u64);
        let latents = Latents { images: 2, shape };
        let size = 4 * latents.quads();
        let (cfg, multiplier, squared) = (7.5f32, 0.7f32, sigma * sigma + 1.0);
        let values = [1.0, 1.0, sigma + 1.0].map(|scale| random(&mut rng, &latents, scale));
        let mut memory = Memory::default();
        let [cond, uncond, x] = [0, 1, 2].map(|i| memory.floats(&values[i], 4));
        let y = memory.room(size, 4);
        let flags = memory.put_first(&[NO_STEP; 2]);
        let scalars = |step: u32| {
            let of_guidance = bits(&[squared, squared.sqrt(), sigma, cfg, multiplier]);
            [vec![0; 4], of_guidance, vec![step]].concat()
        };
        let r = CfgRescale { path: "guidance", latents, scalars: 1 };
        let empty = memory.clone();
        runner.run(&[cfg_rescale::call(&r, [cond, uncond], x, y, flags)], &mut memory, &scalars(5));
        let all = memory.floats_of(y, size, 4);
        memory.finish(&what);
        let of_host = [&values[0], &values[1], &values[2], &all].map(|v| host(v, &latents));
        for image in 0..latents.images {
            let [c, u, noisy, got] = [0, 1, 2, 3].map(|i| to_f64(of_host[i].image(image)));
            let want =
                cfg_rescale::reference((&c, &u), &noisy, sigma.into(), (cfg.into(), multiplier.into()));
            for ((got, want), x) in got.iter().zip(&want).zip(&noisy) {
                // Rounding to the last place of x may go the other way, and a scale of 7.5 is one on rounding too.
                let place = x.abs().max(16.0) * f64::from(f32::EPSILON);
                assert!((got - want).abs() <= 2.0 * place, "{what}: {got} {want} at {x}");
                // What was rounded so is not changed by it.
                let (got, x) = (*got as f32, *x as f32);
                assert_eq!(got, x - (x - got), "{what}: not rounded at {x}");
            }
            let on = |p: OperandAt| later(p, image * shape.positions() * shape.quads());
            let mut memory = empty.clone();
            let one = CfgRescale { latents: Latents { images: 1, shape }, ..r };
            let call = cfg_rescale::call(&one, [cond, uncond].map(on), on(x), on(y), flags);
            runner.run(&[call], &mut memory, &scalars(5));
            let alone = memory.floats_of(on(y), size / 2, 4);
            assert_eq!(bits(&alone), bits(&all[image * size / 2..][..size / 2]), "{what}: image {image}");
            memory.finish(&what);
        }
        assert!(is_padded(&all, &latents), "{what}");

        let mut memory = empty;
        let mut odd = values[0].clone();
        odd[0] = f32::NAN;
        let odd = memory.floats(&odd, 4);
        for step in [5, 2, 6] {
            let call = cfg_rescale::call(&r, [odd, uncond], x, y, flags);
            runner.run(&[call], &mut memory, &scalars(step));
        }
        let mut want = [NO_STEP; 2];
        want[FLAG_LATENT] = 2;
        assert_eq!(memory.result(OperandAt { operand: flags, first: 0 }, 2, 1), want, "{what}");
    }
}

#[test]
fn the_error_of_a_step_is_one_for_all_images() {
    let Some(runner) = Runner::new() else { return };
    for (seed, (shape, apart)) in shapes().flat_map(|s| [(s, 1.0), (s, 1e-3)]).enumerate() {
        let mut rng = Rng(600 + seed as u64);
        let latents = Latents { images: 1 + seed % 3, shape };
        let low = random(&mut rng, &latents, 3.0);
        let other = random(&mut rng, &latents, apart);
        let high: Vec<f32> = low.iter().zip(&other).map(|(l, o)| l + o).collect();
        let before = random(&mut rng, &latents, 3.0);
        let mut memory = Memory::default();
        let places = [&low, &high, &before].map(|v| memory.floats(v, 4));
        let to = memory.room(1, 1);
        let call =
            error_norm::call(&ErrorNorm { path: "error", latents, tolerance: (0.0078, 0.05) }, places, to);
        runner.run(&[call], &mut memory, &[]);
        let got = f64::from(memory.floats_of(to, 1, 1)[0]);
        memory.finish("error");
        let [l, h, b] = [&low, &high, &before].map(|v| to_f64(host(v, &latents).data()));
        let want = error_norm::reference((0.0078, 0.05), &l, &h, &b);
        assert!((got / want - 1.0).abs() <= 1e-6, "{shape}: {got} {want}");
    }
}
