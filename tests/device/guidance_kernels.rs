//! Kernels of guidance against their f64 references, on odd shapes, with a pattern around everything that must
//! survive.

use super::latent_kernels::{later, shapes};
use crate::common::dispatch::{Memory, Runner, bits, is_padded, random};
use crate::common::{Rng, nmse, to_f64};
use sagittal::graph::Shape;
use sagittal::guidance::sag;
use sagittal::kernels::latents::{EntryPlace, Latents, MapPlace, Place};
use sagittal::kernels::sag_degrade::{self, MaskSource, Places, SagDegrade};

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

    fn words_with_maps(&self) -> Vec<u32> {
        self.places.iter().flat_map(|(entry, map)| map.words(entry)).collect()
    }
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
        let table = memory.put(&entries.words_with_maps(), 4);
        let weights = memory.put_first(&bits(&entries.weights));
        let columns = memory.put_first(&bits(&entries.columns));
        let places = Places {
            base: memory.floats(&base, 4),
            x: memory.floats(&x, 4),
            degraded: memory.room(size, 4),
            input: memory.room(size, 4),
            mask: if given { memory.put(&own_mask, 1) } else { memory.room(latents.cells(), 1) },
        };
        let mask = match given {
            true => MaskSource::Given,
            false => MaskSource::Scores { table, entries: count, single, weights, columns, threshold },
        };
        let s = SagDegrade { path: "sag", latents, taps: sag::half_kernel(1.0 + rng.value().abs()), mask };
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
            if given {
                let on = |p: Place| later(p, image * cells * shape.quads());
                let places = Places {
                    base: on(places.base),
                    x: on(places.x),
                    degraded: on(places.degraded),
                    input: on(places.input),
                    mask: later(places.mask, image * cells),
                };
                let alone = run(&SagDegrade { latents: Latents { images: 1, shape }, ..s }, &places);
                assert_eq!(bits(&alone.degraded), bits(&all.degraded[image * of_image..][..of_image]));
                assert_eq!(bits(&alone.input), bits(&all.input[image * of_image..][..of_image]));
            }
        }
        let ones = all.mask.iter().filter(|m| **m == 1).count();
        assert!(shape.height < 9 || (1..latents.cells()).contains(&ones), "{what}: nothing to see, {ones}");
    }
}
