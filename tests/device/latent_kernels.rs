//! Kernels around a network call and sums of latents against their f64 references, on odd shapes, with a pattern
//! around everything that must survive.

use crate::common::dispatch::{Memory, Runner, bits, is_padded, random};
use crate::common::{Rng, nmse, stored, to_f64};
use sagittal::internals::graph::Shape;
use sagittal::internals::kernels::combine::{self, Combine, Mask};
use sagittal::internals::kernels::latents::{
    FLAG_LATENT, FLAG_PREDICTION, Latents, NO_STEP, OperandAt, RowPlace,
};
use sagittal::internals::kernels::network_input::{self, NetworkInput};
use sagittal::internals::kernels::network_output::{self, NetworkOutput, Recorded};
use sagittal::internals::kernels::{Operand, Precision};

/// Of what arithmetic in f32 is off.
const TIGHT: f64 = 1e-12;

/// Sizes and channels that fill neither workgroups nor quads.
pub fn shapes() -> impl Iterator<Item = Shape> {
    let sizes = [(5, 7), (9, 13), (33, 17)];
    sizes.into_iter().flat_map(|(h, w)| [4, 3, 16].map(|channels| Shape::new(h, w, channels)))
}

/// A place `quads` further on.
pub fn later(at: OperandAt, elements: usize) -> OperandAt {
    OperandAt { first: at.first + elements, ..at }
}

/// An area of a latent, and rows that see it in some images.
fn rows(rng: &mut Rng, shape: Shape, images: usize, rows: usize) -> ((usize, usize), Vec<RowPlace>) {
    let area = match rng.range(0, 2) {
        0 => (shape.height, shape.width),
        _ => (rng.range(1, shape.height), rng.range(1, shape.width)),
    };
    let row = |r| RowPlace {
        image: rng.range(0, images - 1) as u32,
        y: rng.range(0, shape.height - area.0) as u32,
        x: rng.range(0, shape.width - area.1) as u32,
        // Neither in order nor side by side.
        prediction: (((r + 1) % rows) * (area.0 * area.1 * shape.quads() + 1)) as u32,
        columns: (((r + 2) % rows) * 9) as u32,
    };
    (area, (0..rows).map(row).collect())
}

fn words(rows: &[RowPlace]) -> Vec<u32> {
    rows.iter().flat_map(RowPlace::words).collect()
}

#[test]
fn network_inputs_are_scaled_cut_out_and_padded() {
    let Some(runner) = Runner::new() else { return };
    for (seed, (shape, precision)) in
        shapes().flat_map(|s| [(s, Precision::F32), (s, Precision::F16)]).enumerate()
    {
        let what = format!("{shape} {precision:?}");
        let mut rng = Rng(seed as u64);
        let latents = Latents { images: 3, shape };
        let (area, rows) = rows(&mut rng, shape, latents.images, 4);
        let n = NetworkInput {
            path: "input",
            rows: rows.len(),
            latent: shape,
            area,
            in4: shape.quads() + rng.range(0, 1),
            time4: 5,
            scalars: 2,
            precision,
        };
        let c_in = 0.37f32;
        let values = random(&mut rng, &latents, 9.0);
        let embedding = rng.values(4 * n.time4, Precision::F32);
        let mut memory = Memory::default();
        let table = memory.put(&words(&rows), 4);
        let latent = memory.floats(&values, 4);
        let time_from = memory.floats(&embedding, 4);
        // Bytes of a quad, in words.
        let unit = precision.bytes() as usize;
        let sizes = [area.0 * area.1 * n.in4 * unit, n.time4 * unit];
        let to = sizes.map(|size| memory.put_first(&vec![0; n.rows * size]));
        let scalars = [[0; 8], bits(&[c_in, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]).try_into().unwrap()].concat();
        let empty = memory.clone();
        runner.run(&[network_input::call(&n, table, latent, time_from, to)], &mut memory, &scalars);
        let [x, time] =
            [0, 1].map(|i| memory.result(OperandAt { operand: to[i], first: 0 }, n.rows * sizes[i], unit));
        memory.finish(&what);

        let want: Vec<f64> = rows
            .iter()
            .flat_map(|r| network_input::reference(&n, r, c_in.into(), &to_f64(&values)))
            .collect();
        let limit = if precision == Precision::F32 { TIGHT } else { 1e-6 };
        let error = nmse(&floats(&x, precision), &want);
        assert!(error <= limit, "{what}: {error:e}");
        let want: Vec<f64> = embedding.iter().map(|v| f64::from(stored(*v, precision))).collect();
        for row in floats(&time, precision).chunks(want.len()) {
            assert!(nmse(row, &want) <= limit, "{what}: timestep");
        }
        // A row's input does not depend on its company.
        for row in 0..n.rows {
            let (mut memory, n) = (empty.clone(), NetworkInput { rows: 1, ..n });
            let call = network_input::call(&n, later(table, 2 * row), latent, time_from, to);
            runner.run(&[call], &mut memory, &scalars);
            let alone = memory.result(OperandAt { operand: to[0], first: 0 }, sizes[0], unit);
            assert_eq!(alone, x[row * sizes[0]..][..sizes[0]], "{what}: row {row}");
        }
    }
}

/// The values of words in a storage.
fn floats(words: &[u32], precision: Precision) -> Vec<f32> {
    match precision {
        Precision::F32 => words.iter().map(|w| f32::from_bits(*w)).collect(),
        Precision::F16 => words
            .iter()
            .flat_map(|w| [*w as u16, (*w >> 16) as u16])
            .map(|h| half::f16::from_bits(h).to_f32())
            .collect(),
        other => panic!("{other} has no reference"),
    }
}

#[test]
fn predictions_and_column_sums_come_to_their_places() {
    let Some(runner) = Runner::new() else { return };
    for (seed, (shape, record)) in shapes().flat_map(|s| [(s, false), (s, true)]).enumerate() {
        let what = format!("{shape} recording: {record}");
        let mut rng = Rng(100 + seed as u64);
        let latents = Latents { images: 2, shape };
        let (area, rows) = rows(&mut rng, shape, latents.images, 3);
        let n = NetworkOutput { path: "output", rows: rows.len(), latent: shape, area, scalars: 1 };
        let (keep, take) = (0.81f32, 2.3f32);
        let of_row = Latents { images: 1, shape: Shape { height: area.0, width: area.1, ..shape } };
        let size = 4 * of_row.quads();
        let noisy = random(&mut rng, &latents, 9.0);
        let mut out: Vec<f32> = (0..n.rows).flat_map(|_| random(&mut rng, &of_row, 1.0)).collect();
        // What a network leaves in the padding is its own affair.
        let stored = 4 * shape.quads();
        out.chunks_mut(stored).for_each(|cell| cell[shape.channels..].fill(f32::NAN));
        let positions = 6;
        let columns = rng.values(n.rows * positions, Precision::F32);

        let mut memory = Memory::default();
        let table = memory.put(&words(&rows), 4);
        let x = memory.floats(&noisy, 4);
        let out_from = memory.put_first(&bits(&out));
        let to = memory.put_first(&vec![7; n.rows * (size + 4)]);
        let flags = memory.put_first(&[NO_STEP; 3]);
        let columns_from = memory.put_first(&bits(&columns));
        let columns_to = memory.put_first(&vec![7; n.rows * 9]);
        let recorded = record.then_some(Recorded { positions, columns: columns_from, to: columns_to });
        let scalars = |step: u32| [0, 0, 0, 0, keep.to_bits(), take.to_bits(), step];
        let call = network_output::call(&n, table, out_from, x, [to, flags], recorded);
        let empty = memory.clone();
        runner.run(std::slice::from_ref(&call), &mut memory, &scalars(7));
        let mut all = Vec::new();
        for (i, row) in rows.iter().enumerate() {
            let at = OperandAt { operand: to, first: row.prediction as usize };
            let got = memory.floats_of(at, size, 4);
            let part = to_f64(&out[i * size..][..size]);
            let want = network_output::reference(&n, row, (keep.into(), take.into()), &part, &to_f64(&noisy));
            assert!(nmse(&got, &want) <= TIGHT, "{what}: {:e}", nmse(&got, &want));
            assert!(is_padded(&got, &of_row), "{what}");
            if record {
                let at = OperandAt { operand: columns_to, first: row.columns as usize };
                let got = memory.floats_of(at, positions, 1);
                assert_eq!(got, columns[i * positions..][..positions], "{what}");
            }
            all.push(got);
        }
        // No flag among it.
        memory.finish(&what);

        for (i, row) in rows.iter().enumerate() {
            let mut memory = empty.clone();
            let part = memory.put_first(&bits(&out[i * size..][..size]));
            let n = NetworkOutput { rows: 1, ..n };
            let call = network_output::call(&n, later(table, 2 * i), part, x, [to, flags], None);
            runner.run(&[call], &mut memory, &scalars(7));
            let got = memory.floats_of(OperandAt { operand: to, first: row.prediction as usize }, size, 4);
            assert_eq!(bits(&got), bits(&all[i]), "{what}: row {i}");
        }
        // One value is enough, and of two steps the first one counts.
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            let mut memory = empty.clone();
            let mut out = out.clone();
            out[size + stored * rng.range(0, area.0 * area.1 - 1) + shape.channels - 1] = odd;
            let out = memory.put_first(&bits(&out));
            let call = network_output::call(&n, table, out, x, [to, flags], recorded);
            for step in [7, 3, 9] {
                runner.run(std::slice::from_ref(&call), &mut memory, &scalars(step));
            }
            let flags = memory.result(OperandAt { operand: flags, first: 0 }, 3, 1);
            let mut want = [NO_STEP; 3];
            want[FLAG_PREDICTION] = 3;
            assert_eq!(flags, want, "{what}: {odd}");
        }
    }
}

/// A sum on the device: operands with their factors.
struct Sum {
    latents: Latents,
    terms: Vec<OperandAt>,
    values: Vec<Vec<f32>>,
    c: Vec<f32>,
    d: Vec<f32>,
    mask: Option<(Mask, Vec<f32>)>,
}

impl Sum {
    fn new(rng: &mut Rng, memory: &mut Memory, latents: Latents, terms: usize, masks: usize) -> Self {
        let values: Vec<Vec<f32>> = (0..terms).map(|_| random(rng, &latents, 3.0)).collect();
        let mask = (masks > 0).then(|| {
            let m: Vec<f32> = (0..masks * latents.shape.positions()).map(|_| rng.value().abs()).collect();
            (Mask { at: memory.floats(&m, 1), by_image: masks > 1 }, m)
        });
        let terms = values.iter().map(|v| memory.floats(v, 4)).collect::<Vec<_>>();
        let mut factors = || rng.values(terms.len(), Precision::F32);
        Self { latents, c: factors(), d: factors(), terms, values, mask }
    }

    fn combine(&self) -> Combine<'_> {
        Combine { path: "sum", latents: self.latents, scalars: 3, mask: self.mask.as_ref().map(|m| m.0) }
    }

    fn scalars(&self, step: u32) -> Vec<u32> {
        let mut words = vec![0; 12];
        let masked = self.mask.is_some().then_some(&self.d);
        for factors in [&self.c].into_iter().chain(masked) {
            let mut factors = bits(factors);
            factors.resize(8, 0);
            words.extend(factors);
        }
        words.push(step);
        words
    }

    fn want(&self) -> Vec<f64> {
        let stored = 4 * self.latents.shape.quads();
        let mask = self.mask.as_ref().map(|(_, m)| {
            let weight = |i: usize| f64::from(m[i / stored % m.len()]);
            (0..self.values[0].len()).map(weight).collect::<Vec<f64>>()
        });
        let values: Vec<Vec<f64>> = self.values.iter().map(|v| to_f64(v)).collect();
        let term = |k: usize| (f64::from(self.c[k]), f64::from(self.d[k]), &values[k][..]);
        combine::reference(&(0..values.len()).map(term).collect::<Vec<_>>(), mask.as_deref())
    }
}

#[test]
fn sums_of_latents() {
    let Some(runner) = Runner::new() else { return };
    let kinds = (1..=combine::MOST_TERMS).flat_map(|terms| [0, 1, 3].map(|masks| (terms, masks)));
    for (i, (terms, masks)) in kinds.enumerate() {
        let shape = shapes().nth(i % 9).expect("nine");
        let what = format!("{shape}, {terms} terms, {masks} masks");
        let latents = Latents { images: 3, shape };
        let mut rng = Rng(200 + i as u64);
        let mut memory = Memory::default();
        let sum = Sum::new(&mut rng, &mut memory, latents, terms, masks);
        let size = 4 * latents.quads();
        let y = memory.room(size, 4);
        let flags = memory.put_first(&[NO_STEP; 2]);
        let calls = combine::calls(&sum.combine(), &sum.terms, y, flags).expect("a sum");
        assert_eq!(calls.len(), if terms <= 5 || terms == 6 && masks == 0 { 1 } else { 2 });
        let empty = memory.clone();
        runner.run(&calls, &mut memory, &sum.scalars(4));
        let got = memory.floats_of(y, size, 4);
        memory.finish(&what);
        let error = nmse(&got, &sum.want());
        assert!(error <= TIGHT && is_padded(&got, &latents), "{what}: {error:e}");

        // Image by image, and in place.
        for image in 0..latents.images {
            let mut memory = empty.clone();
            let on = |at: &OperandAt| later(*at, image * shape.positions() * shape.quads());
            let mut mine = Combine { latents: Latents { images: 1, shape }, ..sum.combine() };
            if let Some(mask) = mine.mask.as_mut().filter(|m| m.by_image) {
                mask.at = later(mask.at, image * shape.positions());
            }
            let terms: Vec<OperandAt> = sum.terms.iter().map(on).collect();
            let to = if calls.len() == 1 { terms[0] } else { on(&y) };
            runner.run(
                &combine::calls(&mine, &terms, to, flags).expect("a sum"),
                &mut memory,
                &sum.scalars(4),
            );
            let of_image = memory.floats_of(to, size / 3, 4);
            memory.finish(&what);
            assert_eq!(bits(&of_image), bits(&got[image * size / 3..][..size / 3]), "{what}: image {image}");
        }
        let mut odd = sum.values[terms - 1].clone();
        odd[4 * shape.quads() * rng.range(0, latents.cells() - 1)] = f32::INFINITY;
        let mut memory = empty;
        let mut terms = sum.terms.clone();
        *terms.last_mut().expect("one") = memory.floats(&odd, 4);
        let calls = combine::calls(&sum.combine(), &terms, y, flags).expect("a sum");
        for step in [5, 2, 6] {
            runner.run(&calls, &mut memory, &sum.scalars(step));
        }
        let flags = memory.result(OperandAt { operand: flags, first: 0 }, 2, 1);
        let mut want = [NO_STEP; 2];
        want[FLAG_LATENT] = 2;
        assert_eq!(flags, want, "{what}");
    }
}

#[test]
fn a_sum_of_too_many_latents_is_refused() {
    let latents = Latents { images: 1, shape: Shape::new(5, 7, 4) };
    let c = Combine { path: "", latents, scalars: 0, mask: None };
    for terms in [&[][..], &[OperandAt::UNUSED; 9]] {
        let error = combine::calls(&c, terms, OperandAt::UNUSED, Operand::Unused).expect_err("no such sum");
        assert_eq!(error.kind(), sagittal::ErrorKind::Usage, "{error}");
    }
}
