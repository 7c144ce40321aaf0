//! Guidance without a GPU: with a test network instead of the UNet, and a second, simpler computation of the mask in
//! f64.

use crate::common::{Failures, Rng};
use sagittal::guidance::{
    Area, Columns, Conditioning, Entry, Guidance, Guided, Network, Perturbed, Row, RowResult, Sag, Term, sag,
};
use sagittal::internals::model::unet::{Perturbation, Width};
use sagittal::sampler::Discrete;
use sagittal::{ErrorKind, Latent, Result};

/// Predicts by a formula of the row alone, attends by hashing positions, and counts its rows.
#[derive(Default)]
struct Toy {
    calls: Vec<usize>,
    recorded: usize,
}

/// The middle block's map of a latent: three halvings, rounding up.
fn map_size(height: usize, width: usize) -> (usize, usize) {
    (height.div_ceil(8), width.div_ceil(8))
}

/// Column sums with mean 1; `swap` transposes the map.
fn attention(height: usize, width: usize, swap: bool) -> Vec<f32> {
    let raw: Vec<f32> = (0..height * width)
        .map(|i| {
            let (y, x) = if swap { (i % width, i / width) } else { (i / width, i % width) };
            0.2 + Rng((y * 1000 + x) as u64).value().abs()
        })
        .collect();
    let mean = raw.iter().sum::<f32>() / raw.len() as f32;
    raw.iter().map(|v| v / mean).collect()
}

impl Network for Toy {
    fn predict(&mut self, rows: &[Row<'_>]) -> Result<Vec<RowResult>> {
        self.calls.push(rows.len());
        self.recorded += rows.iter().filter(|r| r.record).count();
        let one = |row: &Row<'_>| {
            let worse = match row.perturbation {
                Perturbation::None => 1.0,
                Perturbation::Identity => 0.5,
                Perturbation::BlurredQueries(width) => 1.0 / (1.0 + width.sigma().min(9.0)),
            };
            let pull = row.entry.context[0] * worse;
            let (height, width) = map_size(row.x.height(), row.x.width());
            // A transposed latent of this test has a negative first context value.
            let values = attention(height, width, pull < 0.0);
            RowResult {
                denoised: row
                    .x
                    .scaled(1.0 / (1.0 + row.sigma))
                    .zip(&row.x, |a, b| a + pull.abs() * b.sin())
                    .expect("one shape"),
                columns: row.record.then_some(Columns { height, width, values }),
            }
        };
        Ok(rows.iter().map(one).collect())
    }
}

fn entry(value: f32) -> Entry {
    Entry::new(vec![value, 0.5, -0.5], 1)
}

fn sides(positive: f32, negative: &[f32]) -> Conditioning {
    Conditioning { positive: vec![entry(positive)], negative: negative.iter().map(|v| entry(*v)).collect() }
}

fn latent(batch: usize, height: usize, width: usize) -> Latent {
    let mut rng = Rng((batch * 10_000 + height * 100 + width) as u64);
    let n = batch * 4 * height * width;
    Latent::from_vec([batch, 4, height, width], (0..n).map(|_| 4.0 * rng.value()).collect()).expect("shape")
}

fn transposed(x: &Latent) -> Latent {
    let [batch, channels, height, width] = x.shape();
    let mut out = Latent::zeros(batch, channels, width, height);
    for plane in 0..batch * channels {
        for y in 0..height {
            for x_ in 0..width {
                out.data_mut()[(plane * width + x_) * height + y] =
                    x.data()[(plane * height + y) * width + x_];
            }
        }
    }
    out
}

fn evaluate(
    toy: &mut Toy,
    c: &Conditioning,
    x: &Latent,
    cfg: f32,
    sag: Sag,
) -> sagittal::guidance::Evaluation {
    let discrete = Discrete::stable_diffusion();
    let guidance = Guidance::new(cfg).with(sag);
    Guided::new(toy, c, &discrete, guidance).expect("settings").evaluate(x, 3.0).expect("evaluation")
}

/// Mask and degraded latent of one picture in f64: integer nearest, 81 taps, reflected edges.
fn reference(x: &Latent, columns: &[f32], (rows, cols): (usize, usize), sigma: f64) -> (Vec<u8>, Vec<f64>) {
    let [_, channels, height, width] = x.shape();
    let mask: Vec<u8> = (0..height * width)
        .map(|i| {
            let (y, x) = ((i / width) * rows / height, (i % width) * cols / width);
            u8::from(columns[y * cols + x] > 1.0)
        })
        .collect();
    let reflect = |i: isize, n: usize| {
        let n = n as isize;
        (if i < 0 {
            -i
        } else if i >= n {
            2 * (n - 1) - i
        } else {
            i
        }) as usize
    };
    let weight = |k: isize| (-0.5 * (k as f64 / sigma).powi(2)).exp();
    let total: f64 = (-4..=4).map(weight).sum();
    let mut out = Vec::new();
    for c in 0..channels {
        let plane = &x.data()[c * height * width..][..height * width];
        for i in 0..height * width {
            if mask[i] == 0 {
                out.push(f64::from(plane[i]));
                continue;
            }
            let (y, x) = ((i / width) as isize, (i % width) as isize);
            let mut sum = 0.0;
            for dy in -4..=4 {
                for dx in -4..=4 {
                    let at = reflect(y + dy, height) * width + reflect(x + dx, width);
                    sum += weight(dy) * weight(dx) / (total * total) * f64::from(plane[at]);
                }
            }
            out.push(sum);
        }
    }
    (mask, out)
}

/// R + s (D_c - P): PAG and SEG each have their own rows, and none without effect; the additional row of SAG and its mask
/// do not change.
#[test]
fn guidance_moves_away_from_perturbed_networks() {
    let (x, discrete) = (latent(2, 16, 11), Discrete::stable_diffusion());
    let c = Conditioning { positive: vec![entry(0.3), entry(0.7)], ..sides(0.3, &[0.1]) };
    let run = |cfg: f32, sag: Sag, perturbed: &[Perturbed]| {
        let mut toy = Toy::default();
        let mut guidance = Guidance::new(cfg).with(sag);
        guidance.terms.extend(perturbed.iter().map(|p| Term::from(*p)));
        let mut guided = Guided::new(&mut toy, &c, &discrete, guidance).expect("settings");
        let evaluation = guided.evaluate(&x, 3.0).expect("evaluation");
        drop(guided);
        (evaluation, toy.calls)
    };
    let (pag, seg) = (Perturbed::pag(3.0), Perturbed::seg(2.0, 1.5));
    for (cfg, side) in [(5.0, 3), (1.0, 2)] {
        let (plain, calls) = run(cfg, Sag::off(), &[]);
        assert_eq!(calls, [2 * side]);
        let (both, calls) = run(cfg, Sag::off(), &[pag, seg]);
        assert_eq!(calls, [2 * (side + 4)], "two pictures under two prompts, twice more");
        assert_eq!(both.cfg, plain.cfg);
        for (i, r) in both.result.data().iter().enumerate() {
            let at = |latent: &Latent| f64::from(latent.data()[i]);
            let (cond, [p, s]) = (at(&both.cond), [0, 1].map(|k| at(&both.perturbed[k])));
            assert_ne!(p, cond);
            let want = at(&plain.cfg) + 3.0 * (cond - p) + 2.0 * (cond - s);
            assert!((f64::from(*r) - want).abs() < 1e-5 * (1.0 + want.abs()), "{r} for {want}");
        }
        // Networks of different widths are different.
        let (narrow, _) = run(cfg, Sag::off(), &[Perturbed::seg(2.0, 0.5)]);
        assert_ne!(narrow.perturbed[0], both.perturbed[1]);
        assert_eq!(Width::new(9999.0), Width::new(f32::INFINITY));
        // Without effect there is no row.
        for none in [Perturbed::pag(0.0), Perturbed::seg(2.0, 0.0), Perturbed { end: 0.2, ..pag }] {
            let (e, calls) = run(cfg, Sag::off(), &[none]);
            assert_eq!((e.result, calls), (plain.result.clone(), vec![2 * side]));
        }
    }
    let (alone, _) = run(5.0, Sag::default(), &[]);
    let (beside, calls) = run(5.0, Sag::default(), &[pag]);
    assert_eq!(calls, [2 * (3 + 2), 2], "SAG evaluates its own rows afterwards");
    let [alone, beside] = [alone.sag, beside.sag].map(|s| s.expect("SAG"));
    assert_eq!((alone.mask, alone.sag), (beside.mask, beside.sag));
    let wrong = [Perturbed::pag(-1.0), Perturbed::pag(f32::NAN), Perturbed::seg(1.0, -1.0)];
    for p in wrong.into_iter().chain([Perturbed { start: 0.5, end: 0.5, ..pag }]) {
        let mut toy = Toy::default();
        let refused = Guided::new(&mut toy, &c, &discrete, Guidance::new(5.0).with(p)).err();
        assert_eq!(refused.map(|e| e.kind()), Some(ErrorKind::Usage), "{p:?}");
    }
}

#[test]
fn every_size_from_5_to_40_has_the_mask_and_blur_of_the_reference() {
    let mut failures = Failures::default();
    let c = sides(0.3, &[0.1]);
    for height in 5..=40 {
        for width in 5..=40 {
            let x = latent(1, height, width);
            let e = evaluate(&mut Toy::default(), &c, &x, 7.0, Sag::default());
            let size = map_size(height, width);
            let Some(s) = e.sag else {
                failures.check(size == (1, 1), || format!("{height}x{width}: no third row"));
                continue;
            };
            let uncond = e.uncond.expect("cfg 7");
            let (mask, degraded) = reference(&uncond, &attention(size.0, size.1, false), size, 2.0);
            failures.check(s.mask == mask, || format!("{height}x{width}: mask"));
            let d = s
                .degraded
                .data()
                .iter()
                .zip(&degraded)
                .map(|(a, b)| (f64::from(*a) - b).abs())
                .fold(0.0, f64::max);
            failures.check(d < 1e-5, || format!("{height}x{width}: degraded differs by {d}"));
        }
    }
    failures.finish();
}

#[test]
fn a_transposed_latent_has_the_transposed_mask_and_result() {
    let mut failures = Failures::default();
    for height in 5..=40 {
        for width in 5..=40 {
            let x = latent(1, height, width);
            let a = evaluate(&mut Toy::default(), &sides(0.3, &[0.1]), &x, 7.0, Sag::default());
            let b = evaluate(&mut Toy::default(), &sides(0.3, &[-0.1]), &transposed(&x), 7.0, Sag::default());
            let (Some(a), Some(b)) = (a.sag, b.sag) else { continue };
            let flipped: Vec<u8> =
                (0..height * width).map(|i| b.mask[i % width * height + i / width]).collect();
            failures.check(a.mask == flipped, || format!("{height}x{width}: mask"));
            let back = transposed(&b.degraded);
            let d = a
                .degraded
                .zip(&back, |a, b| (a - b).abs())
                .expect("one shape")
                .data()
                .iter()
                .copied()
                .fold(0.0, f32::max);
            failures.check(d < 1e-5, || format!("{height}x{width}: degraded differs by {d}"));
        }
    }
    failures.finish();
}

/// PyTorch multiplies by the ratio in f32. The product may be slightly below an integer that it should be: only there
/// the position before is taken.
#[test]
fn nearest_positions_equal_those_of_pytorch() {
    let mut short = 0;
    for full in 1..=256 {
        for divisor in [4, 8] {
            let size = usize::div_ceil(full, divisor);
            for at in 0..full {
                let (got, exact) = (sag::nearest(at, size, full), at * size / full);
                let all = (at * size).is_multiple_of(full);
                assert!(got == exact || (all && got + 1 == exact), "{at} of {full} -> {size}: {got}");
                short += usize::from(got != exact);
            }
        }
    }
    assert!(short > 0 && sag::nearest(61, 16, 122) == 7);
}

#[test]
fn without_sag_it_is_plain_cfg_bit_for_bit_without_an_extra_row() {
    let x = latent(2, 16, 24);
    let c = sides(0.3, &[0.1]);
    let mut plain = Toy::default();
    let want = evaluate(&mut plain, &c, &x, 7.0, Sag::off()).result;
    assert_eq!(plain.calls, [4]);
    for sag in [Sag { scale: 0.0, ..Sag::default() }, Sag { blur_sigma: 0.0, ..Sag::default() }] {
        let mut toy = Toy::default();
        let e = evaluate(&mut toy, &c, &x, 7.0, sag);
        assert_eq!(e.result, want);
        assert_eq!((toy.calls, toy.recorded), (vec![4], 0));
    }
    let mut toy = Toy::default();
    assert_ne!(evaluate(&mut toy, &c, &x, 7.0, Sag::default()).result, want);
    assert_eq!((toy.calls, toy.recorded), (vec![4, 2], 2));
}

#[test]
fn small_latents_and_maps_of_one_position_are_not_changed() {
    for (height, width, calls) in [(4, 24, vec![2]), (24, 4, vec![2]), (8, 8, vec![2]), (5, 9, vec![2, 1])] {
        let x = latent(1, height, width);
        let mut toy = Toy::default();
        let e = evaluate(&mut toy, &sides(0.3, &[0.1]), &x, 7.0, Sag::default());
        assert_eq!(toy.calls, calls, "{height}x{width}");
        if calls.len() == 1 {
            assert_eq!(e.result, e.cfg);
        }
    }
}

#[test]
fn cfg_1_needs_the_negative_only_for_sag_and_not_even_then_if_asked() {
    let x = latent(1, 16, 16);
    let c = sides(0.3, &[0.1]);
    for (sag, calls) in [
        (Sag::off(), vec![1]),
        (Sag::default(), vec![2, 1]),
        (Sag { cond_at_cfg_1: true, ..Sag::default() }, vec![1, 1]),
    ] {
        let mut toy = Toy::default();
        let e = evaluate(&mut toy, &c, &x, 1.0, sag);
        assert_eq!(toy.calls, calls, "{sag:?}");
        assert!(e.result.is_finite());
    }
}

#[test]
fn the_order_of_entries_does_not_matter() {
    let x = latent(2, 17, 23);
    let orders = [[0.1, 0.2, 0.7], [0.7, 0.1, 0.2], [0.2, 0.7, 0.1], [0.7, 0.2, 0.1]];
    let results: Vec<Latent> = orders
        .iter()
        .map(|o| evaluate(&mut Toy::default(), &sides(0.3, o), &x, 7.0, Sag::default()).result)
        .collect();
    for r in &results[1..] {
        assert_eq!(r.data(), results[0].data());
    }
}

#[test]
fn several_negatives_are_averaged_and_so_are_their_scores() {
    let x = latent(1, 16, 16);
    let both = evaluate(&mut Toy::default(), &sides(0.3, &[0.1, 0.5]), &x, 7.0, Sag::default());
    let [a, b] =
        [0.1, 0.5].map(|v| evaluate(&mut Toy::default(), &sides(0.3, &[v]), &x, 7.0, Sag::default()));
    let mean =
        a.uncond.expect("cfg 7").zip(&b.uncond.expect("cfg 7"), |a, b| (a + b) / 2.0).expect("one shape");
    let d = mean.zip(&both.uncond.expect("cfg 7"), |a, b| (a - b).abs()).expect("one shape");
    assert!(d.data().iter().all(|d| *d < 1e-5));
    // Both have the same attention, so the mean score is the score of each.
    assert_eq!(both.sag.expect("on").mask, a.sag.expect("on").mask);
}

#[test]
fn an_area_counts_only_inside_and_its_map_stays_there() {
    let x = latent(1, 32, 32);
    let mut c = sides(0.3, &[0.1]);
    let mut corner = entry(0.9);
    corner.area = Some(Area { y: 0, x: 0, height: 16, width: 16 });
    c.negative.push(corner);
    let plain = evaluate(&mut Toy::default(), &sides(0.3, &[0.1]), &x, 7.0, Sag::default());
    let area = evaluate(&mut Toy::default(), &c, &x, 7.0, Sag::default());
    let (plain, area) = (plain.uncond.expect("cfg 7"), area.uncond.expect("cfg 7"));
    for (i, (a, p)) in area.data().iter().zip(plain.data()).enumerate() {
        let (y, column) = (i / 32 % 32, i % 32);
        if y >= 16 || column >= 16 {
            assert!((a - p).abs() < 1e-5, "outside, at {y}, {column}");
        }
    }
    assert_ne!(area.data()[0], plain.data()[0], "inside");
}

#[test]
fn weights_and_masks_shift_the_mean() {
    let x = latent(1, 16, 16);
    let mut c = sides(0.3, &[0.1]);
    let mut strong = entry(0.9);
    strong.strength = 3.0;
    c.negative.push(strong.clone());
    let mixed = evaluate(&mut Toy::default(), &c, &x, 7.0, Sag::off()).uncond.expect("cfg 7");
    let [a, b] = [0.1, 0.9].map(|v| evaluate(&mut Toy::default(), &sides(0.3, &[v]), &x, 7.0, Sag::off()));
    let want = a
        .uncond
        .expect("cfg 7")
        .zip(&b.uncond.expect("cfg 7"), |a, b| (a + 3.0 * b) / 4.0)
        .expect("one shape");
    let d = want.zip(&mixed, |a, b| (a - b).abs()).expect("one shape");
    assert!(d.data().iter().all(|d| *d < 1e-5));
}

#[test]
fn sag_acts_only_in_its_window() {
    let x = latent(1, 16, 16);
    let c = sides(0.3, &[0.1]);
    // Sigma 3 is at about 33 % of the sampling.
    for (start, end, third) in [(0.0, 1.0, true), (0.0, 0.2, false), (0.5, 1.0, false), (0.2, 0.5, true)] {
        let mut toy = Toy::default();
        evaluate(&mut toy, &c, &x, 7.0, Sag { start, end, ..Sag::default() });
        assert_eq!(toy.calls.len() == 2, third, "{start} to {end}");
    }
}

/// As in ComfyUI: 0 if no entry is active. SAG and perturbed networks cannot act then.
#[test]
fn a_side_without_an_active_entry_predicts_zero() {
    let (x, discrete) = (latent(2, 16, 11), Discrete::stable_diffusion());
    let late = |value: f32| vec![Entry { start: 0.5, ..entry(value) }];
    let run = |c: &Conditioning, sag: Sag| {
        let mut toy = Toy::default();
        let guidance = Guidance::new(7.0).with(sag).with(Perturbed::pag(3.0));
        let evaluation = Guided::new(&mut toy, c, &discrete, guidance).expect("settings").evaluate(&x, 3.0);
        (evaluation, toy.calls)
    };
    let all = run(&sides(0.3, &[0.1]), Sag::off()).0.expect("an evaluation");
    let no_negative = Conditioning { negative: late(0.1), ..sides(0.3, &[]) };
    let (made, calls) = run(&no_negative, Sag::off());
    let made = made.expect("an evaluation");
    assert_eq!(calls, [4], "the prompt, and the perturbed network with it");
    assert!(made.cond == all.cond && made.cfg == all.cond.scaled(7.0));
    let no_positive = Conditioning { positive: late(0.3), ..sides(0.3, &[0.1]) };
    let (made, calls) = run(&no_positive, Sag::off());
    let made = made.expect("an evaluation");
    assert_eq!(calls, [2]);
    let uncond = all.uncond.expect("a negative");
    // u + (0 - u) · 7.
    assert!(made.perturbed.is_empty() && made.result == uncond.scaled(-6.0));
    run(&no_positive, Sag::default()).0.expect("SAG looks at the negative");
    let neither = Conditioning { positive: late(0.3), negative: late(0.1) };
    for (c, sag) in [(&no_negative, Sag::default()), (&neither, Sag::off())] {
        assert!(run(c, sag).0.expect_err("refused").to_string().contains("no conditioning is active"));
    }
}

#[test]
fn a_higher_threshold_blurs_less() {
    let x = latent(1, 32, 32);
    let c = sides(0.3, &[0.1]);
    let blurred = |threshold: f32| -> usize {
        let e = evaluate(&mut Toy::default(), &c, &x, 7.0, Sag { threshold, ..Sag::default() });
        e.sag.expect("on").mask.iter().map(|m| usize::from(*m)).sum()
    };
    assert_eq!(blurred(0.0), 32 * 32);
    assert!(blurred(1.0) > blurred(1.3));
    assert_eq!(blurred(1000.0), 0);
}

#[test]
fn settings_outside_their_range_are_refused() {
    let discrete = Discrete::stable_diffusion();
    let c = sides(0.3, &[0.1]);
    let on = Sag::default();
    let bad = [
        Sag { scale: -2.5, ..on },
        Sag { scale: 5.5, ..on },
        Sag { scale: f32::NAN, ..on },
        Sag { blur_sigma: -0.1, ..on },
        Sag { blur_sigma: 10.5, ..on },
        Sag { threshold: f32::NAN, ..on },
        Sag { start: -0.1, ..on },
        Sag { end: 1.5, ..on },
    ];
    for sag in bad {
        let mut toy = Toy::default();
        let error =
            Guided::new(&mut toy, &c, &discrete, Guidance::new(7.0).with(sag)).err().expect("refused");
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    }
    let mut toy = Toy::default();
    let none = Conditioning { positive: vec![entry(0.3)], negative: vec![] };
    assert!(Guided::new(&mut toy, &none, &discrete, Guidance::default()).is_err());
    for wrong in [Guidance::new(f32::INFINITY), Guidance { rescale: Some(1.5), ..Guidance::default() }] {
        assert!(Guided::new(&mut Toy::default(), &c, &discrete, wrong).is_err());
    }
}
